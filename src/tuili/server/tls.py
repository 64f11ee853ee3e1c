"""TLS of the front ends: one certificate, one ALPN name per protocol."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from tuili.errors import InvalidArgument
from tuili.server.renewing import Renewing

_log: Final = logging.getLogger("tuili.server")

# Known by what it is, not by what it says.
FAREWELL: Final = b"farewell"


def server_context(
    certificate: Path, key: Path, *, protocol: str, client_ca: Path | None = None
) -> ssl.SSLContext:
    """A context for `protocol` ("http/1.1" or "h2", RFC 7301), TLS 1.2 and newer.

    `certificate` is a PEM file with the chain, the server's own first. With `client_ca`, a PEM file
    of authorities, clients must show a certificate that one of them signed, and that is not in
    the lists of revoked ones in that file, if there are any. InvalidArgument if one of the files
    cannot be used; files that change later are taken anew.
    """
    files = [certificate, key, *([] if client_ca is None else [client_ca])]
    make = partial(_loaded, certificate, key, protocol, client_ca)
    return Renewing.of(files, make)


def _loaded(certificate: Path, key: Path, protocol: str, client_ca: Path | None) -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except (OSError, _Encrypted) as error:
        raise InvalidArgument(
            f"TLS certificate {str(certificate)!r} with key {str(key)!r}: {error}; expected two "
            "PEM files that belong together, the key without a password"
        ) from error
    if client_ca is not None:
        _demand_certificates(context, client_ca)
    return context


def _demand_certificates(context: ssl.SSLContext, authorities: Path) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(authorities)
    except OSError as error:
        raise InvalidArgument(
            f"TLS authorities of clients {str(authorities)!r}: {error}; expected a PEM file of "
            "certificates"
        ) from error
    if context.cert_store_stats()["crl"]:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def lacks_http2(transport: asyncio.BaseTransport) -> bool:
    """Whether a TLS client has not agreed to HTTP/2 by ALPN (RFC 9113, section 3.2)."""
    found = transport.get_extra_info("ssl_object")
    return found is not None and found.selected_alpn_protocol() != "h2"


class Session(ssl.SSLObject):
    """Has a client that fails the handshake hear why, and the log too; ends one direction alone.

    The loops close the connection at the first error and leave the alert unsent (RFC 8446,
    section 6.2), and they know no half-closed connection (section 6.1): while `parting`, FAREWELL
    in place of data ends what is sent.
    """

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    parting = False
    _failed = False

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the base's name
        """As ever; behind the last byte that is there the farewell can be said."""
        try:
            return super().read(len, buffer)
        except ssl.SSLWantReadError:
            if self.parting:
                self._bid_farewell()
            raise

    def write(self, data: Any) -> int:
        """As ever, but for FAREWELL."""
        if data is not FAREWELL:
            return super().write(data)
        if not (self.pending() or self.incoming.pending):
            self._bid_farewell()
        return len(FAREWELL)

    def _bid_farewell(self) -> None:
        """Send `close_notify`; OpenSSL takes it ill if something lies there unread."""
        self.parting = False
        with suppress(ssl.SSLError):  # it waits for the client's own
            self.unwrap()

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self._failed:
                raise
            self._failed = True
            _log.info("a client failed the TLS handshake: %s", error)
            if not self.outgoing.pending:
                raise
            # The loop sends it, and comes again with the client's end or at its time.
            raise ssl.SSLWantReadError from error


class _Context(ssl.SSLContext):
    """Gives its connections what they are about to send to look at."""

    sslobject_class = Session

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """A connection over two buffers."""
        found = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(found, Session):
            found.incoming, found.outgoing = incoming, outgoing
        return found


class _Encrypted(Exception):
    """Somebody would have to be asked for a password."""


def _no_password() -> str:
    """Without this, OpenSSL asks at the terminal, and the server waits there for ever."""
    raise _Encrypted("the key is encrypted")
