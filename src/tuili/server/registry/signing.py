"""Signing: ed25519 (RFC 8032) signatures over records, and so over everything they list."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from tuili.errors import InvalidArgument, InvalidArtifact, Unsupported
from tuili.server.registry.record import RECORD, SEAL

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `version.json.sig`."""

    algorithm: Literal["ed25519"]
    key: str
    """The SHA-256 of the public key's 32 bytes, to name it in errors."""
    signature: str


# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode: Final = msgspec.json.Decoder(Seal).decode


def sign(record: bytes, key: Path) -> bytes:
    """The seal of a record by the private key in a PEM file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidArgument(f"{key} holds no private key that can be read: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidArgument(
            f"{key} holds a {type(private).__name__}; expected an ed25519 key, as "
            "`openssl genpkey -algorithm ed25519` makes"
        )
    text = base64.b64encode(private.sign(record)).decode()
    seal = Seal("ed25519", _name(private.public_key()), text)
    return msgspec.json.format(msgspec.json.encode(seal), indent=2) + b"\n"


def public_keys(paths: Sequence[Path]) -> dict[str, Ed25519PublicKey]:
    """The public keys in PEM files, by name; raises InvalidArgument."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found: dict[str, Ed25519PublicKey] = {}
    for path in paths:
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{path} holds no public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidArgument(
                f"{path} holds a {type(key).__name__}; expected an ed25519 public key"
            )
        found[_name(key)] = key
    return found


def require_signature(version: Path, trusted: Sequence[Path]) -> None:
    """Raise InvalidArtifact unless the version's record is signed by one of these keys."""
    from cryptography.exceptions import InvalidSignature

    keys = public_keys(trusted)
    try:
        record = (version / RECORD).read_bytes()
        seal = _decode((version / SEAL).read_bytes())
        signature = base64.b64decode(seal.signature, validate=True)
    except FileNotFoundError as error:
        raise InvalidArtifact(
            f"{version} is not signed, and the server demands signatures: "
            "publish it with --sign KEY"
        ) from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, binascii.Error) as error:
        raise InvalidArtifact(f"{version / SEAL} is no signature: {error}") from error
    if seal.key not in keys:
        raise InvalidArtifact(
            f"{version} is signed by key {seal.key[:16]}, which is not among the trusted ones: "
            f"{', '.join(name[:16] for name in keys)}"
        )
    try:
        keys[seal.key].verify(signature, record)
    except InvalidSignature:
        raise InvalidArtifact(
            f"{version / RECORD} was changed after it was signed by key {seal.key[:16]}"
        ) from None


def check_available() -> None:
    """Raise Unsupported unless `cryptography` is installed."""
    try:
        import cryptography  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise Unsupported("signatures need `pip install 'tuili[signing]'`") from error


def _name(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()
