"""Puts our site in the place of Django's default one."""

from django.contrib.admin.apps import AdminConfig


class ConsoleAdminConfig(AdminConfig):
    default_site = "opencrane.console.site.ConsoleSite"
