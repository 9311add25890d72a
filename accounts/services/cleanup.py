"""What ends by itself is dropped some time afterwards."""

from importlib import import_module

from django.conf import settings

from accounts.services import devices


def purge_expired() -> None:
    """Drop sessions that have ended, and device grants that ended more than an hour ago."""
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
    devices.purge_grants()
