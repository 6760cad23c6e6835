"""What a log line looks like: the one place that configures logging, for web, workers and commands alike.

Modules log with Python's own `logging`; `common.correlation` binds the ids of request, release and run to their lines.
"""

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_OWN_FIELDS = ("timestamp", "level", "logger", "event", "exception")


def _render_text(logger: Any, method: str, line: MutableMapping[str, Any]) -> str:
    """`time LEVEL logger message id=… id=…`, and the traceback below it."""
    ids = "".join(f" {name}={value}" for name, value in sorted(line.items()) if name not in _OWN_FIELDS)
    text = f"{line['timestamp']} {line['level'].upper()} {line['logger']} {line['event']}{ids}"
    return f"{text}\n{line['exception']}" if "exception" in line else text


_RENDERERS = {"text": _render_text, "json": structlog.processors.JSONRenderer(default=str)}
FORMATS = tuple(_RENDERERS)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_FIELDS = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def build_logging(form: str, level: str) -> dict[str, Any]:
    """The LOGGING setting: every line to stderr, as text for a person or as one JSON object for a log store."""
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": _FIELDS,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _RENDERERS[form],
        ],
    }
    # uvicorn configures its loggers before this is read: their lines take the same way as all others.
    by_root = {
        name: {"handlers": [], "propagate": True} for name in ("uvicorn", "uvicorn.error", "uvicorn.access")
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": sys.stderr, "formatter": "line"}},
        # Not every retry while the collector of traces is away, only what was lost.
        "loggers": by_root | {"opentelemetry": {"level": "ERROR"}},
        "root": {"handlers": ["stderr"], "level": level},
    }
