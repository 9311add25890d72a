"""WSGI entry point for the web process."""

import os
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from opencrane.memory import keep_trimming, settle_memory
from opencrane.tasks import load_tasks

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opencrane.settings")
os.environ.setdefault("OPENCRANE_DATABASE_POOL", "true")

_django = get_wsgi_application()

# What has been loaded stays for ever: the collector need not look at it again and again. Views come with the URLs.
import_module(settings.ROOT_URLCONF)
load_tasks()
settle_memory()
keep_trimming()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Django's application, with complete responses as a list.

    Granian sends a list in one piece, and pulls anything else through an iterator, chunk by chunk.
    """
    response: Any = _django(environ, start_response)
    if getattr(response, "streaming", True):
        return response
    try:
        return [response.content]
    finally:
        response.close()
