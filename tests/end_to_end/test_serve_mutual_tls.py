"""Clients that must show a certificate, over both protocols, and clients that cannot."""

import socket
import ssl
import time
from contextlib import contextmanager

import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, serving
from tests.server.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def clients(authority):
    """What clients show, by what they are."""
    stranger = Authority(authority.folder, "stranger").sign("other")
    revoked = authority.sign("revoked")
    return {"known": authority.sign("client"), "stranger": stranger, "revoked": revoked}


@pytest.fixture(scope="module")
def server(authority, clients, tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    add_identity(repository, "small", dims="16")
    cert, key = map(str, authority.sign("server"))
    trusted = str(authority.revoked(clients["revoked"][0]))
    options = ["--tls-certificate", cert, "--tls-key", key, "--tls-client-ca", trusted]
    with serving(repository, *options) as found:
        yield found


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_stock_client_shows_its_certificate_and_is_answered(
    server, authority, clients, protocol
):
    ask(protocol, server, authority, clients["known"])


def ask(protocol, server, authority, own):
    import tritonclient.grpc
    import tritonclient.http

    ca, (cert, key) = str(authority.pem), map(str, own)
    url = f"localhost:{server.ports[protocol]}"
    if protocol == "http":
        options = {"ca_certs": ca, "certfile": cert, "keyfile": key}
        module, told = tritonclient.http, {"ssl": True, "ssl_options": options}
    else:
        files = {"root_certificates": ca, "certificate_chain": cert, "private_key": key}
        module, told = tritonclient.grpc, {"ssl": True, **files}
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    tensor = module.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    client = module.InferenceServerClient(url, **told)
    assert np.array_equal(client.infer("small", [tensor]).as_numpy("y"), x)
    client.close()


@pytest.mark.parametrize(("who", "alert"), [
    (None, "CERTIFICATE_REQUIRED"),
    ("stranger", "UNKNOWN_CA"),
    ("revoked", "CERTIFICATE_REVOKED"),
])  # fmt: skip
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_others_are_told_why_by_an_alert(server, authority, clients, protocol, who, alert):
    # With TLS 1.3 the client's own handshake is over before the server has looked.
    with (
        connected(server, authority, protocol, clients.get(who)) as secure,
        pytest.raises(ssl.SSLError, match=alert),
    ):
        secure.recv(1 << 16)


@pytest.mark.parametrize("offered", [[], ["http/1.1"]])
def test_a_grpc_client_that_does_not_offer_h2_is_told_so(server, authority, clients, offered):
    with connected(server, authority, "grpc", clients["known"], offered) as secure:
        received = b"".join(iter(lambda: secure.recv(1 << 16), b""))
    assert b"gRPC needs a client that offers h2 by ALPN" in received


def test_grpc_alone_may_speak_tls(authority, tmp_path):
    add_identity(tmp_path, "small", dims="16")
    cert, key = map(str, authority.sign("server"))
    options = ["--tls-certificate", cert, "--tls-key", key, "--tls-protocols", "grpc"]
    with serving(tmp_path, *options) as server:
        with socket.create_connection(("127.0.0.1", server.ports["http"])) as plain:
            plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in plain.recv(1 << 16)
        with connected(server, authority, "grpc", None) as secure:
            assert secure.selected_alpn_protocol() == "h2"


@contextmanager
def connected(server, authority, protocol, shown, offered=("h2", "http/1.1")):
    context = ssl.create_default_context(cafile=authority.pem)
    if offered:
        context.set_alpn_protocols(list(offered))
    if shown is not None:
        context.load_cert_chain(*shown)
    with (
        socket.create_connection(("127.0.0.1", server.ports[protocol]), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        yield secure


@pytest.mark.parametrize("choice", ["native", "grpcio"])
def test_a_renewed_certificate_is_shown_without_a_restart(authority, clients, tmp_path, choice):
    repository, files = tmp_path / "models", [tmp_path / "tls.pem", tmp_path / "tls.key"]
    add_identity(repository, "small", dims="16")
    put(authority.sign("old"), files)
    options = ["--tls-certificate", str(files[0]), "--tls-key", str(files[1])]
    options += ["--tls-client-ca", str(authority.pem), "--grpc-impl", choice]
    with serving(repository, *options) as server:
        for protocol in ("http", "grpc"):
            assert name_shown(server, authority, protocol, clients["known"]) == "old"
        put(authority.sign("new"), files)
        for protocol in ("http", "grpc"):
            until = time.monotonic() + 30
            while name_shown(server, authority, protocol, clients["known"]) != "new":
                assert time.monotonic() < until
        ask("grpc", server, authority, clients["known"])
        with connected(server, authority, "grpc", None) as secure:
            assert is_cut_off(secure)


def test_grpcio_cannot_look_at_revoked_certificates_and_says_so(authority, clients, tmp_path):
    add_identity(tmp_path, "small", dims="16")
    cert, key = map(str, authority.sign("server"))
    trusted = str(authority.revoked(clients["revoked"][0]))
    options = ["--tls-certificate", cert, "--tls-key", key, "--tls-client-ca", trusted]
    with (
        pytest.raises(AssertionError, match="grpcio looks at no lists of revoked certificates"),
        serving(tmp_path, *options, "--grpc-impl", "grpcio"),
    ):
        pass


def is_cut_off(secure):
    try:
        return not secure.recv(1 << 16)
    except OSError:
        return True


def put(sources, targets):
    for source, target in zip(sources, targets, strict=True):
        target.write_bytes(source.read_bytes())


def name_shown(server, authority, protocol, own):
    with connected(server, authority, protocol, own) as secure:
        ((name,),) = secure.getpeercert()["subject"]
        return name[1]
