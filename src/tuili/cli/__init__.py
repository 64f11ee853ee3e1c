"""The command line: one file per command; each parses, calls and prints."""

from tuili.cli.interrupts import main

__all__ = ["main"]
