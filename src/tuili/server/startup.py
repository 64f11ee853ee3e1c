"""What every process of a server sets up before its loop: log, memory, descriptors, the loop."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Final

from tuili.server.telemetry.log_stream import LogStream

# What a process that carries tensors keeps of the memory that it frees.
KEPT_BYTES: Final = 1 << 30


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def configure_logging(level: str) -> None:
    """Log to stderr, one line per event."""
    handler = _stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("tuili")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def _stderr() -> logging.Handler:
    try:
        return LogStream(sys.stderr.fileno())
    except (AttributeError, OSError):  # Something stands in its place, or nothing.
        return logging.StreamHandler(sys.stderr)
