"""Structured log files: one JSON object a line, rotated before they grow large."""

import json
import logging
import os
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from task.errors import UserError, printable, remedy
from task.jsontext import escaped

NAME = "fedarena"
_LARGEST = 10 * 2**20  # bytes of one file
_OLD_FILES = 3
_ELSEWHERE = "choose another place"
_LIBRARIES = ("flwr", "uvicorn.error", "asyncio", "httpx")  # whose loggers tell of connections


def log_to(path: Path) -> logging.Logger:
    """The project's logger, which writes to this file from now on; fields go in `extra={"fields": {...}}`.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = _Private(path, maxBytes=_LARGEST, backupCount=_OLD_FILES, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: the log cannot be written ({error.strerror}); {remedy(error, _ELSEWHERE)}") from None
    handler.setFormatter(_Json())
    logger = logging.getLogger(NAME)
    for old in logger.handlers:
        old.close()
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for library in _LIBRARIES:
        logging.getLogger(library).addFilter(_make_printable)  # again: no effect
    return logger


class _Private(RotatingFileHandler):
    """For its owner's eyes only, from the moment a file is made: the text of an error can quote data."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=private)  # type: ignore[return-value]


def private(path: str, flags: int) -> int:
    """`open`'s opener for a file that only its owner may read."""
    return os.open(path, flags, 0o600)


class _Json(logging.Formatter):
    """{"time": UTC, "level": ..., "event": text, ...fields, "trace": where there is one}."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return escaped(json.dumps(line, default=str, ensure_ascii=False))


def _make_printable(record: logging.LogRecord) -> bool:
    """Libraries log what a peer sent as it came."""
    record.msg, record.args = printable(record.getMessage()), None
    return True
