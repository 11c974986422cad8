"""A web server on this machine that publishes one file and misbehaves on demand; nothing here leaves the machine."""

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stream.models.catalog import STARTER
from stream.models.spec import ModelSpec, WeightsFile

CONTENT = hashlib.shake_256(b"weights").digest(50_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GIT_BLOB = "de59e54e1fcb02bce9fb47e54a91460b25354864"
"""What `git hash-object` prints for a file of `CONTENT`."""

Fault = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `faults`, or with the file when none is left.

    Attributes:
        requests: path and headers of every GET.
        arrived: set at the first GET.
        released: faults that hold a response wait for it; set at the end of the test at the latest.
    """

    daemon_threads = False  # so that closing the server joins them

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.has_ranges = content, True
        self.etag: str | None = '"v1"'
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.failures: list[str] = []
        self.arrived, self.released = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tiny.pt"

    def spec(
        self, *, sha256: str | None = SHA256, git_blob: str | None = None, licence: str = "Apache-2.0"
    ) -> ModelSpec:
        """A model whose weights are published here."""
        weights = WeightsFile(file="tiny.pt", url=self.url, sha256=sha256, git_blob=git_blob)
        return replace(STARTER, name="tiny", weights=weights, licence=licence)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError):  # a client may hang up
            self.failures.append(repr(error))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.arrived.set()
        if self.server.faults:
            self.server.faults.pop(0)(self)
        else:
            self.publish()

    def publish(self, *, cut_bytes: int | None = None, hold: bool = False) -> None:
        """The file or the part of it that is asked for; only `cut_bytes` of that, then the end, or silence."""
        content, start = self.server.content, 0
        asked = self.headers.get("Range")
        if asked and self.server.has_ranges and self.headers.get("If-Range") in (None, self.server.etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[:cut_bytes])
        if hold:
            self.server.released.wait(10)
        if hold and cut_bytes == 0:
            self.wfile.write(body)

    def part(self, start: int, etag: str | None) -> None:
        """The file from `start` on, whatever was asked for."""
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}")
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(self.server.content[start:])

    def page(self, content_type: str, body: bytes) -> None:
        """A login page with the best of status codes."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        self.wfile.write(body)

    def redirect(self, url: str) -> None:
        self.send_response(302)
        self.send_header("Location", url)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def refuse(code: int) -> Fault:
    return lambda handler: handler.send_error(code)


def cut(size_bytes: int) -> Fault:
    return lambda handler: handler.publish(cut_bytes=size_bytes)


def stall(size_bytes: int) -> Fault:
    """`size_bytes` and then silence; with 0, the whole file once `released` is set."""
    return lambda handler: handler.publish(cut_bytes=size_bytes, hold=True)


def partial(*, start: int, etag: str | None) -> Fault:
    return lambda handler: handler.part(start, etag)


def page(content_type: str, body: bytes) -> Fault:
    return lambda handler: handler.page(content_type, body)


def redirect(path: str) -> Fault:
    return lambda handler: handler.redirect(path)


@contextmanager
def serving(content: bytes = CONTENT) -> Iterator[Server]:
    """A running server; at the end its threads are joined, and an error of its own fails the test."""
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
        assert not server.failures
