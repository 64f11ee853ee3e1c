"""What a process of a server sets up before its loop."""

import logging
import resource

import pytest

from tuili.server.startup import allow_many_connections


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
    assert ("clients beyond that are cut off" in caplog.text) is told
