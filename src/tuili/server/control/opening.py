"""Opening: which kind of store an address means."""

from __future__ import annotations

from pathlib import Path

from tuili.errors import Unsupported
from tuili.server.control.store import SqliteStore, Store


def open_store(where: str) -> Store:
    """The store at a path, or at a `postgresql://` address."""
    if where.startswith(("postgresql://", "postgres://")):
        try:
            from tuili.server.control.postgres import PostgresStore
        except ImportError as error:
            raise Unsupported(f"{error}: PostgreSQL needs pip install 'tuili[postgres]'") from error
        return PostgresStore(where)
    return SqliteStore(Path(where))
