"""The credentials of grpcio's server, from the files of a TLS context; renewed files are taken."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from tuili.errors import Unsupported
from tuili.server.renewing import Renewing, stamp_of


def credentials_of(tls: ssl.SSLContext) -> Any:
    """Credentials of the same certificate and authorities; Unsupported where grpcio has no way."""
    if not isinstance(tls, Renewing):
        raise Unsupported("--grpc-impl grpcio makes its own TLS, of files only")
    if tls.revokes:
        raise Unsupported(
            "--grpc-impl grpcio looks at no lists of revoked certificates, and --tls-client-ca "
            "names a file with one; the native implementation does"
        )
    files = tls.files
    stamp = stamp_of(files)

    def renewed() -> Any:
        """Called for each connection; None where nothing is new."""
        nonlocal stamp
        now = stamp_of(files)
        if now == stamp or not tls.usable():
            return None
        stamp = now
        return _configuration(files)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files), renewed, require_client_authentication=len(files) > 2
    )


def _configuration(files: Sequence[Path]) -> Any:
    certificate, key, *authorities = [file.read_bytes() for file in files]
    return grpc.ssl_server_certificate_configuration(
        [(key, certificate)], authorities[0] if authorities else None
    )
