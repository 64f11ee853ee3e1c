"""Messages of queues: what is tried again, and which URLs are queues."""

import pytest

from tuili.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    NotFound,
    Overloaded,
    Unavailable,
)
from tuili.server.queues.messages import error_of, length_of, verdict
from tuili.server.queues.sources import source_of


@pytest.mark.parametrize(
    ("error", "tries", "found"),
    [
        (InvalidArgument("bad shape"), 1, "answer"),
        (NotFound("no such model"), 1, "answer"),
        (DeadlineExceeded("late"), 1, "answer"),
        (Overloaded("full"), 1, "later"),
        (Unavailable("loading"), 4, "later"),
        (Unavailable("loading"), 5, "bury"),
        (InternalError("crashed"), 1, "later"),
        (InternalError("crashed"), 5, "bury"),
    ],
)
def test_what_passes_is_tried_again_and_what_stays_wrong_is_answered(error, tries, found):
    assert verdict(error, tries, 5) == found


def test_a_refusal_has_the_status_of_http():
    assert error_of("7", NotFound("no such model")).status == 404


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("amqp://host", "is no queue: expected redis://"),
        ("redis://host?strem=x", "unknown option 'strem'. Did you mean 'stream'"),
        ("nats://host?claim_s=soon", "claim_s must be seconds, got 'soon'"),
    ],
)
def test_urls_that_are_no_queue(url, text):
    with pytest.raises(InvalidArgument, match=text):
        source_of(url)


def test_a_queue_is_named_without_its_password():
    assert source_of("redis://user:secret@host?stream=s").name == "redis stream 's' at host"


@pytest.mark.parametrize(
    ("text", "length"),
    [("17", 17), ("0", 0), ("-7", -1), ("", -1), ("\u00b2", -1), ("9" * 5000, -1)],
)
def test_a_length_that_is_no_number_is_as_if_it_were_not_told(text, length):
    assert length_of(text) == length
