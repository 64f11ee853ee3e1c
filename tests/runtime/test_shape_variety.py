"""Memory does not grow with the variety of shapes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_after_many_shapes_is_that_of_the_largest_one() -> None:
    # In a process of its own: what other tests free would hide what this one takes.
    command = [sys.executable, "-m", "benchmarks.shape_variety", "--count", "600"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
