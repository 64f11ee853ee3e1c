"""Commands that end with the server, however that ends.

A server that stops, or is killed, while a thread of it waits for a compiler or for somebody's
Python leaves nobody who would ever end them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

_PYTHON: Final = sys.executable
# prctl(2): a signal at the end of the thread that started this process; it holds over execve.
_TIE: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
try:
    if os.getppid() == int(sys.argv[1]):
        os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(str(error))
"""


def tied(command: Sequence[str]) -> list[str]:
    """The command, ended at once when the calling thread is no more; elsewhere than Linux as it is.

    For threads that wait for it. A program that is not there is exit status 1 and a word of it.
    """
    if sys.platform != "linux":
        return list(command)
    return [_PYTHON, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
