"""Triton's command line, in the words of ours."""

import pytest
from typer.testing import CliRunner

from tuili.cli.main import app
from tuili.cli.triton_line import translated
from tuili.errors import InvalidArgument

HERE = ["--model-repository=/models"]
HEAD = ["/models", "--host", "0.0.0.0", "--compat", "triton"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], []),
        (["--http-port=9", "--grpc-port", "8"], ["--http-port", "9", "--grpc-port", "8"]),
        (["--exit-timeout-secs=5"], ["--exit-timeout", "5"]),
        (["--repository-poll-secs=5"], ["--poll-interval", "5"]),
        (["--allow-http=false", "--allow-grpc=true"], ["--http-port", "-1"]),
        (["--strict-readiness=0"], ["--no-strict-readiness"]),
        (["--exit-on-error=1"], ["--exit-on-error"]),
        (["--model-namespacing=true"], ["--model-namespacing"]),
        (["--log-verbose=1"], ["--log-level", "debug"]),
        (["--log-verbose=0", "--log-info=false"], ["--log-level", "warning"]),
        (["--cache-config=local,size=1048576"], ["--response-cache-size", "1048576"]),
        (["--load-model=a", "--load-model=b"], ["--load-model", "a", "--load-model", "b"]),
        (["--id=x"], ["--server-id", "x"]),
        (["--grpc-use-ssl=false", "--grpc-server-cert=c"], []),
        (
            ["--grpc-use-ssl=true", "--grpc-server-key=k", "--grpc-server-cert=c"],
            ["--tls-protocols", "grpc", "--tls-certificate", "c", "--tls-key", "k"],
        ),
        (
            ["--grpc-use-ssl-mutual=1", "--grpc-root-cert=r",
             "--grpc-server-key=k", "--grpc-server-cert=c"],
            ["--tls-protocols", "grpc", "--tls-certificate", "c", "--tls-key", "k",
             "--tls-client-ca", "r"],
        ),
    ],
)  # fmt: skip
def test_options_have_their_counterparts(given, found):
    assert translated([*HERE, *given]) == (HEAD + found, [])


def test_all_repositories_and_the_address_are_taken():
    line, _ = translated([*HERE, "--model-store", "/more", "--http-address=::1"])
    assert line[:4] == ["/models", "/more", "--host", "::1"]


def test_what_has_no_meaning_is_named():
    given = [
        "--http-thread-count=8",
        "--disable-auto-complete-config",
        "--grpc-keepalive-time=7200",
    ]
    assert translated([*HERE, *given])[1] == [
        "http-thread-count", "disable-auto-complete-config", "grpc-keepalive-time",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--model-repositry=/x"], "no option '--model-repositry'.*'model-repository'"),
        ([*HERE, "models"], "no option 'models'"),
        ([*HERE, "--http-port"], "--http-port needs a value"),
        ([*HERE, "--strict-readiness=maybe"], "must be true or false, got 'maybe'"),
        ([*HERE, "--grpc-use-ssl=true", "--grpc-server-key=k"], "ssl needs --grpc-server-cert$"),
        (
            [*HERE, "--grpc-use-ssl-mutual=true", "--grpc-server-key=k", "--grpc-server-cert=c"],
            "mutual needs --grpc-root-cert",
        ),
        ([*HERE, "--cache-config=redis,host=a"], "--response-cache-url redis://"),
        ([*HERE, "--http-address=::1", "--grpc-address=::2"], "name several"),
        (["--http-port=1"], "give --model-repository=FOLDER"),
    ],
)
def test_what_would_serve_otherwise_is_refused(given, text):
    with pytest.raises(InvalidArgument, match=text):
        translated(given)


def test_every_counterpart_is_an_option_of_serve(monkeypatch, tmp_path):
    """Options that `tuili serve` does not know are exit code 2."""
    seen = {}
    monkeypatch.setattr(
        "tuili.server.main.serve", lambda options, _: seen.update(of=options) or True
    )
    given = [
        "--exit-timeout-secs=5", "--repository-poll-secs=5", "--http-max-input-size=99", "--id=x",
        "--response-cache-byte-size=9", "--exit-on-error=false", "--strict-readiness=false",
        "--allow-client-shm=true", "--model-namespacing=false", "--allow-metrics=false",
        "--log-warning=false", "--rate-limit=execution_count", "--rate-limit-resource=R:2",
        "--http-restricted-api=inference:k=v", "--grpc-restricted-protocol=inference:k=v",
        "--http-header-forward-pattern=x", "--grpc-header-forward-pattern=y",
        "--model-control-mode=explicit", "--trace-config=rate=9", "--grpc-use-ssl-mutual=true",
        "--grpc-server-cert=c", "--grpc-server-key=k", "--grpc-root-cert=r",
    ]  # fmt: skip
    found = CliRunner().invoke(app, ["tritonserver", f"--model-repository={tmp_path}", *given])
    assert found.exit_code == 0, found.output
    options = seen["of"]
    assert (options.exit_timeout_s, options.poll_interval_s, options.metrics_port) == (5, 5, -1)
    assert (str(options.tls_client_ca), options.tls_protocols) == ("r", "grpc")
    assert (options.compat, options.server_id, options.host) == ("triton", "x", "0.0.0.0")
