"""Registers the tenants' console pages with the admin site."""

from tenants.views import dashboard, detail, editing, fleet, listing

for _pages in (dashboard, fleet, listing, editing, detail):
    _pages.register()
