"""Structured logs: events with ids, sizes and durations, on standard error; never what people said, never a key."""

from __future__ import annotations

import logging
from typing import Any

import structlog
import structlog.tracebacks
from structlog.typing import Processor

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("console", "json")
# They say one line for each thing they start, or for each task with its arguments, every few seconds.
TALKATIVE = (
    *("daphne", "httpx", "httpx2", "asyncio", "amqp"),
    *("celery.beat", "celery.worker.strategy", "celery.app.trace"),
)


def build_logging(level: str, output: str) -> dict[str, Any]:
    """The value of Django's LOGGING. Also sets structlog up: both kinds of loggers end in the same handler."""
    structlog.configure(
        processors=[*_shared_processors(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*_shared_processors(), structlog.stdlib.ExtraAdder()],
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(output)],
            }
        },
        "filters": {"no_503": {"()": "django.utils.log.CallbackFilter", "callback": is_not_unavailable}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # Django's own handlers would say everything twice.
            "django": {"handlers": [], "propagate": True},
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            # A refused request is in our request log, with its duration.
            "django.request": {"level": "ERROR", "filters": ["no_503"]},
            "django.channels.server": {"level": "WARNING"},
            **{name: {"level": "WARNING"} for name in TALKATIVE},
        },
    }


def is_not_unavailable(record: logging.LogRecord) -> bool:
    """False for Django's error line about an answer 503: that is /readyz doing its work."""
    return getattr(record, "status_code", None) != 503


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _renderers(output: str) -> list[Processor]:
    if output == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    # Neither format may print the local variables of a traceback's frames: those hold what people said.
    return [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
