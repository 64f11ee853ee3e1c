"""TLS of the front ends: one certificate, one ALPN name per protocol."""

from __future__ import annotations

import ssl
from pathlib import Path

from tuili.errors import InvalidArgument


def server_context(certificate: Path, key: Path, *, protocol: str) -> ssl.SSLContext:
    """A context for `protocol` ("http/1.1" or "h2", RFC 7301), TLS 1.2 and newer.

    `certificate` is a PEM file with the chain, the server's own first; InvalidArgument if it and
    `key` cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except (OSError, _Encrypted) as error:
        raise InvalidArgument(
            f"TLS certificate {str(certificate)!r} with key {str(key)!r}: {error}; expected two "
            "PEM files that belong together, the key without a password"
        ) from error
    return context


class _Encrypted(Exception):
    """Somebody would have to be asked for a password."""


def _no_password() -> str:
    """Without this, OpenSSL asks at the terminal, and the server waits there for ever."""
    raise _Encrypted("the key is encrypted")
