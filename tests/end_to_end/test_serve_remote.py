"""A server over a remote repository: starts, follows it, and outlives it."""

import pytest

from tests.end_to_end.conftest import IDENTITY, serving
from tests.end_to_end.test_serve_life import infer, wait_until
from tests.server.remote.stores import http_server

http = pytest.importorskip("tritonclient.http")


def add(repository, model, version):
    (repository / model / str(version)).mkdir(parents=True)
    (repository / model / str(version) / "note.txt").write_text("there")
    (repository / model / "config.pbtxt").write_text(IDENTITY.format(batch=8, dims="2"))


def test_a_server_follows_a_remote_repository_and_goes_on_and_starts_without_it(tmp_path):
    source, cache = tmp_path / "source", f"--cache={tmp_path / 'cache'}"
    add(source, "net", 1)
    polling = ("--model-control-mode=poll", "--poll-interval=0.1", cache)
    with http_server(source) as (url, faults), serving(url, *polling) as server:
        client = http.InferenceServerClient(server.url("http"))
        assert infer(client, "net").sum() == 2
        add(source, "late", 1)
        wait_until(lambda: client.is_model_ready("late"))
        faults.down = True
        assert infer(client, "net").sum() == 2
    with serving(url, cache) as server:
        assert server.models == ["late", "net"]


def test_explicit_mode_fetches_what_is_asked_for(tmp_path):
    source = tmp_path / "source"
    add(source, "net", 1)
    add(source, "other", 1)
    options = ("--model-control-mode=explicit", "--load-model=net", f"--cache={tmp_path / 'cache'}")
    with http_server(source) as (url, faults), serving(url, *options) as server:
        client = http.InferenceServerClient(server.url("http"))
        assert server.models == ["net"]
        client.load_model("other")
        assert infer(client, "other").sum() == 2
        faults.down = True
        client.load_model("other")
        assert infer(client, "other").sum() == 2
