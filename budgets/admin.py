"""Registers the console pages of money with the admin site."""

from budgets.views import keys, limits, provider_keys, spend, usage

for _pages in (spend, limits, usage, keys, provider_keys):
    _pages.register()
