"""Registers the console pages of skills with the admin site."""

from skills.views import bundle, catalog, editing

catalog.register()
bundle.register()
editing.register()
