"""Real servers of files, in the test's own process: S3 by moto, HTTP with faults on request."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


class Faults:
    """What is to go wrong: set by a test, read by the server."""

    def __init__(self):
        self.down = False
        self.ranges = True
        self.cut_after: int | None = None
        # Called with the path of each file that a range is served of, before it is read.
        self.before_range = lambda path: None
        self.served: list[tuple[str, int, int]] = []


def handler_of(root: Path, faults: Faults):
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(root))

        def do_HEAD(self):
            self._answer(body=False)

        def do_GET(self):
            self._answer(body=True)

        def _answer(self, body):
            if faults.down:
                self.send_error(503)
                return
            path = Path(self.translate_path(self.path))
            if not path.is_file():
                super().do_GET() if body else super().do_HEAD()
                return
            wanted = self.headers.get("Range") if faults.ranges and body else None
            faults.before_range(path) if wanted else None
            content = path.read_bytes()
            start, end = 0, len(content)
            if wanted:
                first, last = wanted.removeprefix("bytes=").split("-")
                start, end = int(first), min(int(last) + 1, len(content))
            if body:
                faults.served.append((path.name, start, end))
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(end - start))
            self.send_header("ETag", f'"{hash(content)}"')
            self.end_headers()
            if body:
                cut = faults.cut_after
                if cut is not None and end > cut:
                    self.wfile.write(content[start : max(cut, start)])
                    self.close_connection = True
                    return
                self.wfile.write(content[start:end])

        def log_message(self, *arguments):
            pass

    return Handler


@contextmanager
def http_server(root: Path):
    """(URL, faults) of a server over a folder."""
    faults = Faults()
    server = Server(("127.0.0.1", 0), handler_of(root, faults))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def gcs_server():
    """The endpoint of a Google Cloud Storage emulator that keeps all in memory."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


@contextmanager
def azure_server(command: str, folder: Path):
    """The connection string of Microsoft's emulator, `azurite-blob` of the npm package azurite."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [command, "--blobPort", str(port), "--location", str(folder), "--silent",
         "--skipApiVersionCheck", "--disableTelemetry"],
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < end, "azurite did not start"
        # The account and key that Microsoft publishes for its emulator.
        account = "devstoreaccount1"
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/"
        key += "K1SZFPTOtr/KBHBeksoGMGw=="
        yield (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{account};"
        )
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def s3_server():
    """The endpoint of an S3 server."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
