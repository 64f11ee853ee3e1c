"""How many descriptors there are, and that the last ones are not for clients."""

import logging
import resource
import socket
import sys

import pytest

from tests.server.http.wire import Transport
from tuili.server.descriptors import allow_many_connections, descriptor_of, for_clients


@pytest.mark.parametrize(
    ("limits", "raised", "told"),
    [
        ((1024, 1 << 20), 65_536, False),
        ((1024, resource.RLIM_INFINITY), 65_536, False),
        ((1024, 20_000), 20_000, False),
        ((64, 1024), 1024, True),
        ((64, 64), None, True),
    ],
)
def test_descriptors_are_raised_as_far_as_is_allowed_and_few_are_told_of(
    limits: tuple[int, int],
    raised: int | None,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    asked: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: asked.append(pair[0]))
    with caplog.at_level(logging.WARNING, "tuili.server"):
        allow_many_connections()
    assert asked == ([] if raised is None else [raised])
    assert ("are turned away" in caplog.text) is told


@pytest.mark.parametrize(
    ("soft", "clients"), [(120, 90), (1024, 768), (20_000, 19_488), (resource.RLIM_INFINITY, None)]
)
def test_some_descriptors_are_kept_from_clients(
    soft: int, clients: int | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, soft))
    assert for_clients() == (sys.maxsize if clients is None else clients)


def test_front_ends_of_ours_are_no_clients_and_neither_is_who_has_gone():
    transport = Transport()
    assert descriptor_of(transport) == -1  # type: ignore[arg-type]
    for family, counts in ((socket.AF_INET, True), (socket.AF_UNIX, False)):
        with socket.socket(family) as transport.socket:
            expected = transport.socket.fileno() if counts else -1
            assert descriptor_of(transport) == expected  # type: ignore[arg-type]
