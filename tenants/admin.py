"""Registers the tenants' console pages with the admin site."""

from tenants.views import dashboard, detail, editing, listing

for _pages in (dashboard, listing, editing, detail):
    _pages.register()
