"""What a request hears whose model does not answer."""

import pytest

from tuili.errors import NotFound, Unavailable
from tuili.server.repository.states import State, VersionState
from tuili.server.repository.unserved import unserved

NONE, LOADING = {}, {1: VersionState(1, State.LOADING)}
FAILED = {1: VersionState(1, State.UNAVAILABLE, "broken")}


@pytest.mark.parametrize(
    ("version", "states", "starting", "kind", "text"),
    [
        ("", NONE, False, NotFound, "is not found"),
        ("", FAILED, False, NotFound, "has no available versions"),
        ("", LOADING, False, Unavailable, "it is being loaded"),
        ("", FAILED | {2: VersionState(2, State.LOADING)}, False, Unavailable, "being loaded"),
        ("2", LOADING, False, NotFound, "version 2 is not found"),
        ("1", LOADING, False, Unavailable, "version 1 is not at ready state: LOADING"),
        ("1", FAILED, True, Unavailable, "not at ready state: UNAVAILABLE broken"),
        ("", NONE, True, Unavailable, "the server starts"),
        ("", FAILED, True, Unavailable, "the server starts"),
        ("2", LOADING, True, Unavailable, "the server starts"),
    ],
)
def test_what_may_be_there_in_a_moment_is_unavailable(version, states, starting, kind, text):
    error = unserved("m", version, states, starting=starting)
    assert type(error) is kind
    assert text in str(error)
