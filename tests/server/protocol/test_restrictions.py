"""Restricted parts of the interface."""

import pytest

from tuili.errors import InvalidArgument, Restricted
from tuili.server.grpc.methods import INFER_PATH, METHODS, STREAM_PATH
from tuili.server.http.routes import ROUTES
from tuili.server.protocol.restrictions import CATEGORY, Restrictions, read_keys


def test_every_operation_of_both_transports_has_a_category():
    operations = {operation for _, _, operation in ROUTES}
    methods = {path.rpartition("/")[2] for path in (INFER_PATH, STREAM_PATH, *METHODS)}
    assert operations | methods == set(CATEGORY)


@pytest.mark.parametrize(
    ("operation", "headers", "passes"),
    [
        ("infer", {}, False),
        ("infer", {"key": "wrong"}, False),
        ("infer", {"key": "secret"}, True),
        ("server_ready", {"key": "secret"}, True),
        ("server_ready", {}, False),
        ("model_statistics", {}, True),
        ("repository_load", {"key": "secret"}, False),
        ("repository_load", {"other": "x=y"}, True),
    ],
)
def test_only_who_has_the_secret_may(operation, headers, passes):
    keys = read_keys(["inference,health:Key=secret", "model-repository:other=x=y"])
    restrictions = Restrictions(keys)
    if passes:
        restrictions.check(operation, lambda name: headers.get(name, ""))
        return
    with pytest.raises(Restricted, match="This API is restricted, expecting header '(key|other)'"):
        restrictions.check(operation, lambda name: headers.get(name, ""))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["model-reposit:k=v"], "unknown restricted api 'model-reposit'. Did you mean"),
        (["health:k=v", "health,trace:l=w"], "'health' can not be specified in multiple groups"),
        (["health:k"], "expected CATEGORY"),
        (["health"], "expected CATEGORY"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, text):
    with pytest.raises(InvalidArgument, match=text):
        read_keys(given)
