"""Registers the console pages of awareness with the admin site."""

from awareness.views import participation, rollout, sessions

for _pages in (rollout, participation, sessions):
    _pages.register()
