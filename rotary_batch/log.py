"""The JSON-lines log: one object a line, stable event names, never source text.

Every module logs through `event`, by a name of `EVENTS`.  A line is ASCII without control characters, whatever the
fields hold.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_LOGGER = logging.getLogger("rotary_batch")
_LOGGER.addHandler(logging.NullHandler())

# Every event, with what it means and its fields besides `at` and `event`.  A name is never used for anything else, and
# fields are only added.  docs/log.md lists them.
EVENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bench": ("`bench` has measured an engine; the fields are those of `bench --json`", ()),
    "database free": ("a statement went through that another program had kept waiting", ("waited_s",)),
    "database locked": ("another program keeps the database locked", ("by",)),
    "engine died": ("an engine ended or hung with N live items; it is replaced", ("error", "items")),
    "engine suspects": ("an engine died; N items are asked again apart from all others", ("items",)),
    "imported": ("answers of another runner were read; the fields are those of `import --json`", ()),
    "indexed": ("a repository was indexed; the fields are those of `index --json`", ()),
    "item done": ("an item has an answer, and whether it is shown", ("item", "verdict")),
    "item failed": (
        "an attempt at an item failed; the last one parks it",
        ("item", "error", "error_class", "parked"),
    ),
    "kernels left out": ("kernels that this processor computes wrongly are not used", ("level", "reason")),
    "memory ran out": (
        "on the device: `items` were given back, or the engine was closed, for the `tries`th time without a step",
        ("error", "items", "tries"),
    ),
    "not told": ("the end of a run could not be told: `--prometheus` or `--on-finish` failed", ("why",)),
    "pace": ("a run is paused, yields to other programs, or works as fast as it can again", ("state", "share", "why")),
    "progress": ("once a minute; the fields are those of `running.progress` of `status --json`", ()),
    "rates measured anew": ("the rates of the machine were measured", ("why",)),
    "rates not kept": ("rates that were raised could not be stored", ("why",)),
    "rates not refreshed": ("the rates of the machine could not be measured", ("why",)),
    "rates probed": ("the rates of the machine were measured for a second", ("rates",)),
    "rates raised": ("steps were faster than the rates of the machine allow, so these are raised", ("gain", "why")),
    "repository failed": ("an error ended the work on one repository", ("repository", "error", "exit_code")),
    "run ended": ("a run has ended; besides these fields, the figures of its report", ("run", "outcome")),
    "run started": ("work on the queue begins", ("run", "command", "model")),
}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", {})
        line = json.dumps({"at": at, "event": record.getMessage(), **fields}, ensure_ascii=True, default=str)
        return line.replace("\x7f", "\\u007f")  # the one control character that JSON does not escape


class _Handler(logging.FileHandler):
    """A log that cannot be written must not end a run: it is reported once, and the command continues."""

    _is_reported = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - as logging calls it
        if self._is_reported:
            return
        self._is_reported, error = True, sys.exc_info()[1]
        why, name = getattr(error, "strerror", None) or error, ascii(self.baseFilename)[1:-1]
        with suppress(OSError):
            print(f"rotary-batch: {name}: {why}; the log is incomplete", file=sys.stderr, flush=True)  # noqa: T201


def log_to(path: Path) -> None:
    """Append every event of this process to a file, and create it for the user alone, with its folder.  Raises OSError.

    Paths and errors are in it, which can quote code.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    handler = _Handler(path, encoding="utf-8")
    handler.setFormatter(_JsonLines())
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)


def event(name: str, **fields: object) -> None:
    """Log an event of `EVENTS`; without `--log` it goes nowhere."""
    _LOGGER.info(name, extra={"fields": fields})


def relay(name: str, fields: dict[str, object]) -> None:
    """Log an event that another process sent."""
    _LOGGER.info(name, extra={"fields": fields})


def send_events(send: Callable[[str, dict[str, object]], None]) -> None:
    """Give every event of this process to `send`: its parent has the log."""
    _LOGGER.addHandler(_Sender(send))
    _LOGGER.setLevel(logging.INFO)


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[str, dict[str, object]], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(record.getMessage(), getattr(record, "fields", {}))
