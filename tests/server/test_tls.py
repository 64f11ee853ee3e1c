"""Certificates and keys that cannot be used: told at the start, nobody is asked for anything."""

import shutil
import subprocess

import pytest

from tuili.errors import InvalidArgument
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
