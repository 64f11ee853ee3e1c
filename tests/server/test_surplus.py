"""What a flood of large requests left is given back, though something small lies behind it."""

import json
import subprocess
import sys

import pytest

FLOOD = """
import json
import numpy as np
from tuili.backends.kept_memory import keep_memory
from tuili.server.surplus import Surplus, resident_bytes
keep_memory(1 << 30)
surplus = Surplus(64 << 20)
seen = [surplus.look()]
large, small = [], []
for _ in range(300):
    large.append(np.ones(600_000, np.uint8))
    small.append(bytearray(3000))
seen.append(surplus.look())  # all is in use
large.clear()
before = resident_bytes()
seen.append(surplus.look())
print(json.dumps([*seen, before - resident_bytes(), surplus.look()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_free_memory_between_what_is_in_use_is_given_back():
    done = subprocess.run([sys.executable, "-c", FLOOD], capture_output=True, text=True, check=True)
    quiet, used, given, fallen, again = json.loads(done.stdout)
    assert (quiet, used, again) == (0, 0, 0)
    assert given > 150e6
    assert fallen > 150e6
