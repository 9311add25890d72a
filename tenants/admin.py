"""Registers the tenants' console pages with the admin site."""

from tenants.views import dashboard, detail, editing, fleet, listing, retained

for _pages in (dashboard, fleet, listing, retained, editing, detail):
    _pages.register()
