"""Errors and their statuses on both transports."""

import pytest

from tuili import errors
from tuili.server.protocol.status import STATUS, status_of


@pytest.mark.parametrize(
    ("error", "http", "grpc"),
    [
        (errors.NotFound("x"), 404, 5),
        (errors.InvalidArgument("x"), 400, 3),
        (errors.ParseError("x"), 400, 3),
        (errors.InvalidModel("x"), 400, 3),
        (errors.TooLarge("x"), 413, 8),
        (errors.Unsupported("x"), 501, 12),
        (errors.AlreadyExists("x"), 400, 6),
        (errors.Unavailable("x"), 503, 14),
        (errors.Overloaded("x"), 503, 14),
        (errors.DeadlineExceeded("x"), 503, 14),
        (errors.Cancelled("x"), 400, 1),
        (errors.InternalError("x"), 500, 13),
        (KeyError("x"), 500, 13),
    ],
)
def test_status(error, http, grpc):
    assert status_of(error) == (http, grpc)


def test_every_branch_of_the_tree_has_a_status():
    assert errors.TuiliError in STATUS
