"""What nobody expected, as an error of the tree: its trace is logged, its text is told."""

from __future__ import annotations

import logging

from tuili.errors import InternalError, TuiliError

_log = logging.getLogger("tuili.server")


def of_tree(error: Exception, what: str) -> TuiliError:
    """The error itself if it is of the tree; `what` says what could not be done otherwise."""
    if isinstance(error, TuiliError):
        return error
    _log.error("%s", what, exc_info=error)
    wrapped = InternalError(f"{what}: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
