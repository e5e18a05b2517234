"""Structured logs on standard error: an event name and fields, never an address, a token or a secret."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict

from delivery.redaction import redact_text


def logging_config(style: str, level: str) -> None:
    """Send structlog's and the standard library's records through one chain; style is `console` or `json`."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                _renderer(style),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These tell URLs with their query strings, whole requests, or a line for each task.
    noisy_ones = (
        "httpx",
        "httpcore",
        "urllib3",
        "github",
        "boto3",
        "botocore",
        "django-q",
        "mail.log",
    )
    for noisy in noisy_ones:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def redact(logger: object, method: str, event: EventDict) -> EventDict:
    """Take addresses, tokens and the paths of webhooks out of every text: a stack trace quotes what it met."""
    return {
        name: redact_text(value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _renderer(style: str) -> Any:
    if style == "console":
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.processors.JSONRenderer()
