"""Fixtures that all tests share."""

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# One profile everywhere: the same examples on every run, no deadline on a shared machine.
settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.load_profile("house")

# A shell's background job is begun with SIGINT ignored, and so would be all that tests begin.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps what a test compiles out of the user's cache."""
    cache = tmp_path_factory.getbasetemp() / "tuili-cache"
    monkeypatch.setenv("TUILI_CACHE", str(cache))
    return cache


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """What a command that a test calls configures of tuili's logger ends with the test."""
    logger = logging.getLogger("tuili")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="accept what golden tests find as right"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: the text is that of tests/golden/NAME, or the test fails with it."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        expected = path.read_text() if path.exists() else ""
        assert text == expected, f"{path} differs; look, then accept with --update-golden"

    return compare
