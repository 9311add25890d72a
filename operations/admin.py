"""Registers the console pages of operations with the admin site."""

from operations.views import audit, drift, health, jobs

for _pages in (drift, jobs, audit, health):
    _pages.register()
