"""Real servers of files, in the test's own process: S3 by moto, HTTP with faults on request."""

from __future__ import annotations

import threading
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
            content = path.read_bytes()
            start, end = 0, len(content)
            wanted = self.headers.get("Range") if faults.ranges and body else None
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
