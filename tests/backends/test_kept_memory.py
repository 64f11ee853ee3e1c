"""Memory that is freed and used again costs no fresh pages."""

import platform
import subprocess
import sys

import pytest

ROUNDS = """if True:
    import resource
    import numpy as np
    from tuili.backends.kept_memory import keep_memory

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    if {keeps}:
        keep_memory(64 << 20)
    for _ in range(4):
        before = faults()
        arrays = [np.ones(10 << 20, np.uint8) for _ in range(4)]
        del arrays
    print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they do")
def test_a_host_uses_the_same_pages_again():
    def faults(keeps):
        done = subprocess.run(
            [sys.executable, "-c", ROUNDS.format(keeps=keeps)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(done.stdout)

    assert faults(keeps=True) < 100
    assert faults(keeps=False) > 2000
