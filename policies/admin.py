"""Registers the console pages of policies, groups and grants with the admin site."""

from policies.views import access_policies, groups, why

for _pages in (access_policies, groups, why):
    _pages.register()
