"""Certificates and keys: what cannot be used is told at the start, what changes is taken anew."""

import contextlib
import shutil
import ssl
import subprocess

import pytest

from tests.server.certificates import Authority
from tuili.errors import InvalidArgument
from tuili.server import renewing
from tuili.server.tls import server_context


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    lock = ["-passout", "pass:secret"]
    for name, password in (("mine", ["-nodes"]), ("other", ["-nodes"]), ("locked", lock)):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*command, *files, *password], check=True, capture_output=True, cwd=folder)
    (folder / "text.pem").write_text("no certificate")
    return folder


@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        ("mine.pem", "nowhere.key", "No such file"),
        ("nowhere.pem", "mine.key", "No such file"),
        ("mine.pem", ".", "Is a directory"),
        ("mine.pem", "other.key", "(?i)mismatch"),
        ("mine.key", "mine.pem", "belong together"),
        ("text.pem", "mine.key", "belong together"),
        ("locked.pem", "locked.key", "the key is encrypted; expected .* without a password"),
    ],
)
def test_what_cannot_be_used_is_told(folder, certificate, key, text):
    with pytest.raises(InvalidArgument, match=text):
        server_context(folder / certificate, folder / key, protocol="h2")


def test_a_pair_is_taken(folder):
    assert (
        server_context(folder / "mine.pem", folder / "mine.key", protocol="h2").get_ca_certs() == []
    )


@pytest.mark.parametrize("authorities", ["nowhere.pem", "text.pem", "mine.key", "."])
def test_authorities_that_are_none_are_told(folder, authorities):
    with pytest.raises(InvalidArgument, match=f"authorities of clients.*{authorities}.*expected"):
        server_context(
            folder / "mine.pem", folder / "mine.key", protocol="h2", client_ca=folder / authorities
        )


class Two(Authority):
    """Two certificates of one authority, one after the other in the same files."""

    def put(self, name):
        for source, target in zip(self.sign(name), self.files, strict=True):
            target.write_bytes(source.read_bytes())

    @property
    def files(self):
        return self.folder / "server.pem", self.folder / "server.key"


@pytest.fixture
def signed(tmp_path, monkeypatch):
    monkeypatch.setattr(renewing, "_LOOK_EVERY_S", -1.0)
    found = Two(tmp_path, "authority")
    found.put("first")
    return found


def shown(context, authority, own=None):
    """Whose certificate a client is shown, if it is let in."""
    asking = ssl.create_default_context(cafile=authority.pem)
    if own is not None:
        asking.load_cert_chain(*own)
    to, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(back, to, server_hostname="localhost")
    server = context.wrap_bio(to, back, server_side=True)
    for _ in range(4):
        for each in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                each.do_handshake()
    ((name,),) = client.getpeercert()["subject"]
    with contextlib.suppress(ssl.SSLWantReadError):
        client.read()  # TLS 1.3: here a client hears that it is not let in.
    return name[1]


def test_files_that_change_are_taken_by_new_connections(signed):
    context = server_context(*signed.files, protocol="h2")
    assert shown(context, signed) == "first"
    signed.put("second")
    assert shown(context, signed) == "second"


def test_files_that_are_half_replaced_change_nothing_until_they_are_whole(signed, caplog):
    context = server_context(*signed.files, protocol="h2")
    certificate, key = signed.sign("second")
    signed.files[0].write_bytes(certificate.read_bytes())
    for _ in range(2):
        assert shown(context, signed) == "first"
    assert caplog.text.count("new connections get the old ones") == 1
    signed.files[1].write_bytes(key.read_bytes())
    assert shown(context, signed) == "second"
    signed.files[0].unlink()
    assert shown(context, signed) == "second"


def test_a_client_that_is_revoked_later_is_let_in_no_more(signed, caplog):
    caplog.set_level("INFO", "tuili.server")
    own = signed.sign("client")
    clients = signed.folder / "clients.pem"
    clients.write_bytes(signed.pem.read_bytes())
    context = server_context(*signed.files, protocol="h2", client_ca=clients)
    assert shown(context, signed, own) == "first"
    clients.write_bytes(signed.revoked(own[0]).read_bytes())
    with pytest.raises(ssl.SSLError, match="error|EOF"):  # as OpenSSL's versions have it
        shown(context, signed, own)
    assert "certificate revoked" in caplog.text
