"""Whether a model says that it is ready: its optional `is_ready`, a function or a coroutine.

It is asked beside runs, on a thread of its own: neither waits for the other.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np

from tuili.backends.host_letters import text_of

# Waits for a coroutine, on the loop that the model's coroutines share.
Waits = Callable[[Coroutine[Any, Any, Any]], object]


def readiness_of(model: object, waits: Waits = asyncio.run) -> Callable[[], str] | None:
    """What tells why a user's model is not ready ("": it is); None when it does not say."""
    is_ready = getattr(model, "is_ready", None)
    return partial(_reason, is_ready, waits) if callable(is_ready) else None


def _reason(is_ready: Callable[[], object], waits: Waits) -> str:
    try:
        answer = is_ready()
        if inspect.iscoroutine(answer):
            answer = waits(answer)
    except Exception as error:  # noqa: BLE001 - the user's code; whatever it is, the server is told
        return f"its is_ready() failed: {type(error).__name__}: {error}"
    if not isinstance(answer, bool | np.bool_):
        return f"its is_ready() must return a boolean value, got {answer!r}"
    return "" if answer else "its is_ready() says no"


def answer_beside(reason: Callable[[], str], tell: Callable[[str], None]) -> None:
    """Ask a model without waiting for it."""

    def ask() -> None:
        tell(text_of(reason()))

    threading.Thread(target=ask, name="is_ready", daemon=True).start()
