"""Ctrl-C and SIGTERM: one line and the code of a shell at every moment, imports included.

What a signal looks like depends on where it hits: a KeyboardInterrupt, an ImportError of a module
that was half loaded, an error of a library that swallowed it. So what counts is that it came. A
second one ends the process at once.
"""

from __future__ import annotations

import signal
import sys
from io import TextIOWrapper
from types import FrameType

_SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}
_BY_SIGNAL = 128  # added to its number, as in a shell


class _Watch:
    """The signal that came, if any."""

    def __init__(self) -> None:
        self.came: signal.Signals | None = None
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self.came = signal.Signals(number)
        raise KeyboardInterrupt


def _print_anything() -> None:
    """Characters that the terminal or a pipe cannot hold come out escaped, not as an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command line."""
    watch = _Watch()
    _print_anything()
    try:
        from tuili.cli.main import app

        app()
    except BaseException:
        if watch.came is None:
            raise
        sys.stderr.write(f"{_SIGNALS[watch.came]}\n")
        sys.exit(_BY_SIGNAL + watch.came)
