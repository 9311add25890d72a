"""Registers the console pages of skills, their store and their sources with the admin site."""

from skills.views import bundle, catalog, editing, sources, store

catalog.register()
bundle.register()
editing.register()
store.register()
sources.register()
