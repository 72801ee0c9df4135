"""JSON logs: one object a line on stderr, with `cause_id` where something caused it.

    log = logs.get("nodeagent")
    log.info("instance started", instance=name, cause_id=cause, took_ms=7.4)

Field values may be anything `msgspec` can encode; what it cannot is shown by `str`.
"""

import logging
import sys
import time
from typing import Any

import msgspec

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """A named logger whose keyword arguments become fields of the line."""

    __slots__ = ("_logger", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger = logging.getLogger(f"ebb.{name}")

    def debug(self, message: str, **fields: Any) -> None:
        self._write(10, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._write(20, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._write(30, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._write(40, message, fields)

    def exception(self, message: str, **fields: Any) -> None:
        """Like `error`, with the traceback of the exception being handled."""
        self._write(40, message, fields, exc_info=True)

    def _write(self, level: int, message: str, fields: dict[str, Any], exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, extra={"fields": fields}, exc_info=exc_info)


class _JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name.removeprefix("ebb."),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def get(name: str) -> Log:
    """The logger called `name`; cheap, call it once a module."""
    return Log(name)


def configure(process: str, level: str = "info") -> None:
    """Send everything logged in this process to stderr as JSON lines. `level`: debug, info, warning or error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    for chatty in ("nats", "uvicorn", "uvicorn.access", "aiohttp.access", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
