"""Registers the tenants' console pages with the admin site."""

from tenants.views import cluster_tenants, dashboard, detail, editing, fleet, listing, retained

for _pages in (dashboard, fleet, listing, retained, editing, detail, cluster_tenants):
    _pages.register()
