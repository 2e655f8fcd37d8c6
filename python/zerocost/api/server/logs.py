"""The log of a server, as lines of text or of JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from zerocost.errors import RangeError

__all__ = ["check_logs", "configure_logs"]

FORMATS = ("text", "json")


def configure_logs(form: str = "text", level: str = "info") -> None:
    """Sends the log to stderr. For programs, not for libraries.

    Args:
        form: ``"text"``, or ``"json"``: one object a line, with ``time``, ``level``, ``logger``, ``message``, for
            requests ``request_id``, ``method``, ``route``, ``artifact``, ``status``, ``duration_ms``, and
            ``exception``.
        level: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.

    Raises:
        RangeError: any other form or level.
    """
    check_logs(form, level)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("zerocost", "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)


def check_logs(form: str, level: str) -> None:
    """Raises RangeError for a form or level that :func:`configure_logs` does not take."""
    if form not in FORMATS:
        raise RangeError(f"log format: {form!r} was given, 'text' or 'json' is allowed")
    if level not in ("debug", "info", "warning", "error"):
        raise RangeError(f"log level: {level!r} was given, 'debug', 'info', 'warning' or 'error' is allowed")


class _Json(logging.Formatter):
    """One JSON object for each record, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", {})
        line |= {key: value for key, value in fields.items() if value is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half a surrogate pair, which orjson refuses
            return json.dumps(line, default=str)
