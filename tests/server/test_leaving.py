"""Leaving over TLS: all that was written arrives, however slowly the client reads or goes on."""

import asyncio
import shutil
import socket
import ssl
import subprocess

import pytest

from tuili.server.leaving import leave, part
from tuili.server.startup import loop_factory
from tuili.server.tls import server_context

SIZE = 8 << 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command, *files], check=True, capture_output=True, cwd=folder)
    return folder / "cert.pem", folder / "key.pem"


class Talker(asyncio.Protocol):
    """Says a lot, and leaves at once."""

    def connection_made(self, transport):
        transport.write(b"x" * SIZE)
        leave(transport)
        leave(transport)  # told twice, it leaves once


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()])
def test_a_client_that_rests_before_it_reads_gets_everything(certificate, factory):
    async def scenario():
        loop = asyncio.get_running_loop()
        context = server_context(*certificate, protocol="http/1.1")
        server = await loop.create_server(Talker, "127.0.0.1", 0, ssl=context)
        client = ssl.create_default_context(cafile=str(certificate[0]))
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client, server_hostname="localhost", limit=1024
        )
        await asyncio.sleep(1)  # a few looks of the server's
        got = 0
        while data := await reader.read(1 << 16):
            got += len(data)
        writer.close()
        server.close()
        assert got == SIZE

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


class Parting(asyncio.Protocol):
    """Says its last word at the first byte, and reads on."""

    def __init__(self):
        self.got = 0
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if not self.got:
            self.transport.write(b"bye")
            part(self.transport)
        self.got += len(data)

    def connection_lost(self, exc):
        self.gone.set_result(exc)


def send_on(address, context):
    """All of it at once, and more when the last word has come; what was heard."""
    with (
        socket.create_connection(address) as plain,
        context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        ) as client,
    ):
        client.sendall(b"x" * SIZE)
        heard = client.recv(16)
        end = client.recv(16)
        client.sendall(b"x" * SIZE)
        return heard, end


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()])
def test_a_client_that_sends_on_hears_the_last_word(certificate, factory, newest):
    async def scenario():
        loop = asyncio.get_running_loop()
        context = server_context(*certificate, protocol="http/1.1")
        context.maximum_version = newest
        made = []

        def connect():
            made.append(Parting())
            return made[-1]

        server = await loop.create_server(connect, "127.0.0.1", 0, ssl=context)
        client = ssl.create_default_context(cafile=str(certificate[0]))
        address = server.sockets[0].getsockname()
        assert await asyncio.to_thread(send_on, address, client) == (b"bye", b"")
        await made[0].gone
        server.close()
        assert made[0].got == 2 * SIZE

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())
