"""TLS on both protocols, and the loop that does not sleep."""

import shutil
import socket
import ssl
import subprocess

import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, serving
from tuili.bench.load.levels import Settings
from tuili.bench.load.payloads import Question
from tuili.bench.load.session import Session
from tuili.bench.load.sockets import Target

QUICK = Settings(warm_up_s=0.0, window_s=0.1, windows=1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def server(certificate, tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    add_identity(repository, "small", dims="16")
    add_identity(repository, "big", dims="3, 224, 224")
    cert, key = map(str, certificate)
    options = ["--tls-certificate", cert, "--tls-key", key, "--busy-poll-us", "200"]
    with serving(repository, *options) as found:
        yield found


@pytest.mark.parametrize("model", ["small", "big"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_answers_are_right_over_tls(server, protocol, model):
    target = Target(protocol, "127.0.0.1", server.ports[protocol], tls=True)
    with Session(target, Question(model), QUICK) as session:
        window = session.closed(4).window
    assert (window.wrong, window.refused, window.lost) == (0, 0, 0)


@pytest.mark.parametrize(("protocol", "name"), [("http", "http/1.1"), ("grpc", "h2")])
def test_alpn_names_the_protocol(server, protocol, name):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", server.ports[protocol])) as plain,
        context.wrap_socket(plain) as secure,
    ):
        assert secure.selected_alpn_protocol() == name


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_stock_client_trusts_the_certificate(server, certificate, protocol):
    import tritonclient.grpc
    import tritonclient.http

    cert = str(certificate[0])
    url = f"localhost:{server.ports[protocol]}"
    if protocol == "http":
        module, told = tritonclient.http, {"ssl": True, "ssl_options": {"ca_certs": cert}}
    else:
        module, told = tritonclient.grpc, {"ssl": True, "root_certificates": cert}
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    tensor = module.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    client = module.InferenceServerClient(url, **told)
    assert np.array_equal(client.infer("small", [tensor]).as_numpy("y"), x)
    client.close()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_plain_text_to_a_tls_port_is_refused_and_harms_nobody(server, protocol):
    with socket.create_connection(("127.0.0.1", server.ports[protocol])) as plain:
        plain.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(1 << 16)
    test_answers_are_right_over_tls(server, protocol, "small")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--tls-key", "/nowhere"], "go together"),
        (["--tls-certificate", "/nowhere", "--tls-key", "/nowhere"], "expected two PEM files"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told(tmp_path, given, told):
    from typer.testing import CliRunner

    from tuili.cli.main import app

    ports = ["--http-port=0", "--grpc-port=-1", "--metrics-port=-1"]
    done = CliRunner().invoke(app, ["serve", str(tmp_path), *ports, *given])
    assert done.exit_code == 1
    assert told in " ".join(done.output.split())


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_client_that_never_says_farewell_does_not_hold_up_the_end(
    certificate, tmp_path, protocol
):
    (tmp_path / "repository").mkdir()
    cert, key = map(str, certificate)
    context = ssl.create_default_context(cafile=cert)
    options = ["--tls-certificate", cert, "--tls-key", key]
    with (
        serving(tmp_path / "repository", *options) as server,
        socket.create_connection(("127.0.0.1", server.ports[protocol])) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as resting,
    ):
        if protocol == "http":
            resting.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in resting.recv(1 << 16)
        server.process.terminate()
        # The loops would wait 30 s for it.
        assert server.process.wait(15) == 0
