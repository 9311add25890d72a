"""WSGI entry point for the web process."""

import os
from collections.abc import Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opencrane.settings")
os.environ.setdefault("OPENCRANE_DATABASE_POOL", "true")

_django = get_wsgi_application()


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
