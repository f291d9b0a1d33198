"""Structured logs: one JSON object a line on standard output, the same for structlog, `logging` and warnings.

Fields: `time` (RFC 3339, UTC), `level`, `event`, then `swarm`, `agent`, `role`, `epoch`, `task` where they are known,
whatever the caller adds, and `traceback` as one field where there is an exception.

Invariants: a line is one write, so that the supervisor's and the agent's lines never mix; logging never raises and
never stops an agent, not when the disk that the kubelet writes to is full either. The level is looked at for each
line, because it is one of the live settings.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

__all__ = ["bind", "configure", "get_logger", "set_level"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: The first fields of a line, in this order.
_ORDER = ("time", "level", "event", "swarm", "agent", "role", "epoch", "task")

_threshold = _LEVELS["info"]
_encode = msgspec.json.Encoder(enc_hook=str).encode
_bound: dict[str, Any] = {}


def set_level(level: str) -> None:
    """Changes the level of all loggers of this process: debug, info, warning or error."""
    global _threshold
    _threshold = _LEVELS[level]
    logging.getLogger().setLevel(max(_threshold, logging.INFO))  # libraries' debug lines are for their own developers


def bind(**fields: Any) -> None:
    """Adds fields to every line of this process; None removes one."""
    for name, value in fields.items():
        if value is None:
            _bound.pop(name, None)
        else:
            _bound[name] = value


def get_logger(**fields: Any) -> Any:
    """A structlog logger."""
    return structlog.get_logger(**fields)


def configure(level: str = "info", **fields: Any) -> None:
    """Sets up the logs of this process; `fields` are bound to every line."""
    bind(**fields)
    structlog.configure(
        processors=[_drop, structlog.processors.TimeStamper("iso", utc=True, key="time"), _traceback, _render],
        wrapper_class=structlog.BoundLogger,
        logger_factory=lambda *_: _Stdout(),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    logging.captureWarnings(True)
    set_level(level)


class _Stdout:
    """What structlog calls with the finished line, whatever the level's method is."""

    def msg(self, line: bytes) -> None:
        try:
            os.write(sys.__stdout__.fileno() if sys.__stdout__ else 1, line)
        except (OSError, ValueError):
            pass  # nobody reads, or the disk is full: an agent's work goes on all the same

    debug = info = warning = error = critical = exception = log = msg


class _Bridge(logging.Handler):
    """Takes the lines of `logging`, and so those of uvicorn, asyncio and warnings, to the same place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            method = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
            extra = {"exc_info": record.exc_info} if record.exc_info else {}
            log = structlog.get_logger().bind(logger=record.name)
            getattr(log, method, log.info)(record.getMessage(), **extra)
        except Exception:
            self.handleError(record)


def _drop(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    level = {"exception": "error", "critical": "error", "warn": "warning"}.get(method, method)
    if _LEVELS.get(level, 20) < _threshold:
        raise structlog.DropEvent
    event["level"] = level
    return event


def _traceback(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    info = event.pop("exc_info", method == "exception")
    if info is True:
        info = sys.exc_info()
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if isinstance(info, tuple) and info[0] is not None:
        event["traceback"] = "".join(traceback.format_exception(*info))
    return event


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[bytes], dict[str, Any]]:
    fields = {**_bound, **event}
    ordered = {name: fields.pop(name) for name in _ORDER if name in fields}
    return (_encode(ordered | fields) + b"\n",), {}
