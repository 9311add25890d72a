"""One log pipeline for structlog and the standard library, so that every line has the same shape and the same context.

Lines go to stderr, as JSON in production and coloured text on a terminal. `request_id`, `task_id` and `actor` come from
context variables; values under credential-like keys are masked before anything is rendered.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

from opencrane.masking import MASK, is_credential_key, mask, mask_text

_PLAIN = frozenset({"event", "level", "logger", "timestamp", "exc_info", "exception", "stack_info"})


def mask_credentials(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: hides credentials in the event's fields, its sentence and its traceback."""
    for key, value in event.items():
        if key in _PLAIN:
            if isinstance(value, str):
                event[key] = mask_text(value)
        elif not key.startswith("_"):
            event[key] = MASK if value and is_credential_key(key) else mask(value)
    return event


def _to_json(event: Any, **_options: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure_logging(*, level: str, log_format: str) -> None:
    """Set up logging for this process; safe to call again.

    Args:
        level: DEBUG, INFO, WARNING or ERROR, for our own code and for libraries that are not named below.
        log_format: `json`, one object a line, or `console`.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=None),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        final += [structlog.processors.format_exc_info, mask_credentials, structlog.processors.JSONRenderer(_to_json)]
    else:
        final += [
            structlog.processors.format_exc_info,
            mask_credentials,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *[step for step in shared if not isinstance(step, structlog.stdlib.ExtraAdder)],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quiet_level in {
        # Our own middleware writes one line a request, with the request id.
        "django.request": "CRITICAL",
        "django.server": "WARNING",
        "django.db.backends": "INFO",
        # At DEBUG it writes down whole contexts of pages.
        "django.template": "INFO",
        "django.security.csrf": "ERROR",
        "axes": "WARNING",
        "kubernetes": "WARNING",
        "urllib3": "WARNING",
        "httpx": "WARNING",
        "httpcore": "WARNING",
        "amqp": "WARNING",
        "celery.redirected": "WARNING",
        # A line for each task, three times over; what a task did, its service logs.
        "celery.worker.strategy": "WARNING",
        "celery.app.trace": "WARNING",
        "celery.beat": "WARNING",
        "psycopg.pool": "ERROR",
    }.items():
        logging.getLogger(name).setLevel(quiet_level)
    logging.captureWarnings(True)
