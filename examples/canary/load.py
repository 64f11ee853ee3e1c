"""Clients that ask without pause, and what each of their requests met."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.http as client_library

from benchmarks.models import MODELS
from examples.canary.versions import INPUT, MODEL, OUTPUT, SIZE


@dataclass
class Seen:
    """Requests as (moment, seconds, version, error)."""

    rows: list[tuple[float, float, str, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self.began


def pictures(count: int = 400) -> list[np.ndarray[Any, Any]]:
    """Different lines of text, as the recogniser wants them."""
    rng = np.random.default_rng(0)
    return [MODELS["ppocr_rec"].feeds(rng, SIZE)[INPUT] for _ in range(count)]


def ask(address: str, seen: Seen, seed: int, lines: list[np.ndarray[Any, Any]]) -> None:
    """One client: random users, random lines, until it is told to stop."""
    dice = random.Random(seed)
    client = client_library.InferenceServerClient(address)
    wanted = [client_library.InferRequestedOutput(OUTPUT)]
    while not seen.stop.is_set():
        line = dice.choice(lines)
        tensor = client_library.InferInput(INPUT, line.shape, "FP32")
        tensor.set_data_from_numpy(line)
        headers = {"X-User-Id": f"user-{dice.randrange(100_000)}"}
        before = seen.now()
        try:
            answer = client.infer(MODEL, [tensor], outputs=wanted, headers=headers)
            version, error = answer.get_response()["model_version"], ""
        except Exception as problem:  # noqa: BLE001 - every kind of failure is counted
            version, error = "", f"{type(problem).__name__}: {problem}"
        seen.rows.append((before, seen.now() - before, version, error))
    client.close()
