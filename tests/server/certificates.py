"""Authorities and certificates for tests, made on the spot."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

_DAY = timedelta(days=1)
_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class Authority:
    """Signs certificates, and takes them back."""

    def __init__(self, folder: Path, name: str):
        pytest.importorskip("cryptography")
        self.folder, self.name = folder, name
        self.key, self.certificate = self._made(name, None)
        self.pem = self._written(f"{name}.pem", self.certificate)

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate for `name` at 127.0.0.1 and its key, as files."""
        from cryptography.hazmat.primitives import serialization as form

        key, certificate = self._made(name, self)
        raw = key.private_bytes(
            form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
        )  # fmt: skip
        (self.folder / f"{name}.key").write_bytes(raw)
        return self._written(f"{name}.pem", certificate), self.folder / f"{name}.key"

    def revoked(self, certificate: Path) -> Path:
        """The authority's certificate, and its list with that one in it."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.now(UTC)
        number = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        one = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now - _DAY)
        builder = x509.CertificateRevocationListBuilder(self.certificate.subject)
        builder = builder.last_update(now - _DAY).next_update(now + _DAY)
        made = builder.add_revoked_certificate(one.build()).sign(self.key, hashes.SHA256())
        path = self._written(f"{self.name}-revoked.pem", made)
        path.write_bytes(self.pem.read_bytes() + path.read_bytes())
        return path

    def _written(self, name: str, found) -> Path:
        from cryptography.hazmat.primitives.serialization import Encoding

        (self.folder / name).write_bytes(found.public_bytes(Encoding.PEM))
        return self.folder / name

    def _made(self, name: str, authority: "Authority | None"):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = subject, key
        if authority is not None:
            issuer, signer = authority.certificate.subject, authority.key
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = x509.CertificateBuilder(issuer, subject, key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - _DAY).not_valid_after(now + _DAY)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        builder = builder.add_extension(x509.BasicConstraints(authority is None, None), True)
        # Who looks strictly, as Python does from 3.13 on, wants to be told whose key signed what,
        # and that an authority's may.
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(own, False).add_extension(by, False)
        signs = ("key_cert_sign", "crl_sign")
        usage = x509.KeyUsage(**{use: use in signs for use in _USES})
        if authority is None:
            builder = builder.add_extension(usage, True)
        return key, builder.sign(signer, hashes.SHA256())
