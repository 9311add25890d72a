"""Registers the console pages of operations with the admin site."""

from operations.views import audit, drift, health, jobs, metrics, platform_dns, webhooks

for _pages in (drift, jobs, metrics, webhooks, platform_dns, audit, health):
    _pages.register()
