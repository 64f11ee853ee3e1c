"""Fixtures that all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# One profile everywhere: the same examples on every run, no deadline on a shared machine.
settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps what a test compiles out of the user's cache."""
    cache = tmp_path_factory.getbasetemp() / "tuili-cache"
    monkeypatch.setenv("TUILI_CACHE", str(cache))
    return cache
