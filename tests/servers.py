"""Servers on 127.0.0.1 for tests of network sources: threads that are joined, faults on demand."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_S = 10.0
"""No wait of a server is longer, so that a failing test ends."""


class Answer:
    """What an HTTP path answers.

    Args:
        body: whole content.
        status: of the answer.
        kind: content type.
        ranges: serve parts of it on request.
        sent: bytes after which the connection is closed, though more was promised; None for all.
        stall: then keep it open and say nothing more.
        endless: parts for ever, with no length stated; `body` is ignored.
    """

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        kind: str = "video/mp4",
        ranges: bool = False,
        sent: int | None = None,
        stall: bool = False,
        endless: Callable[[], Iterator[bytes]] | None = None,
    ) -> None:
        self.body, self.status, self.kind, self.ranges = body, status, kind, ranges
        self.sent, self.stall, self.endless = sent, stall, endless


class HttpServer:
    """Answers by path; `requests` holds (path, Range header) of each request."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers, self.requests = answers, list[tuple[str, str | None]]()
        self.stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_args: Any) -> None:
                """Silent."""

            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers.get("Range")))
                try:
                    outer.answer(self)
                except OSError:
                    self.close_connection = True  # the client has gone

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        answer = self.answers.get(path, Answer(b"not here", status=404, kind="text/plain"))
        handler.close_connection = True
        if answer.endless is not None:
            handler.send_response(answer.status)
            handler.send_header("Content-Type", answer.kind)
            handler.end_headers()
            for part in answer.endless():
                if self.stopped.wait(0.001):
                    return
                handler.wfile.write(part)
            return
        start, status = 0, answer.status
        asked = handler.headers.get("Range")
        if answer.ranges and asked:
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
        handler.send_response(status)
        handler.send_header("Content-Type", answer.kind)
        handler.send_header("Content-Length", str(len(answer.body) - start))
        if answer.ranges:
            handler.send_header("Accept-Ranges", "bytes")
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}")
        handler.end_headers()
        handler.wfile.write(answer.body[start : answer.sent])
        if answer.stall:
            handler.wfile.flush()
            self.stopped.wait(WAIT_S)

    def url(self, path: str = "/clip.mp4") -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def __enter__(self) -> "HttpServer":
        self._thread.start()
        return self

    def __exit__(self, *_args: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._thread.join(WAIT_S)
        self._server.server_close()


@contextmanager
def tcp_server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Accepts one connection and hands it to `talk` with an event that is set at the end; yields the port."""
    stopped = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(WAIT_S)

    def serve() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(WAIT_S)
                talk(connection, stopped)
        except OSError:
            return  # nobody came, or the client has gone

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stopped.set()
        listener.close()
        thread.join(WAIT_S)


def send_then_close(data: bytes) -> Callable[[socket.socket, threading.Event], None]:
    return lambda connection, _stopped: connection.sendall(data)


def send_then_stall(data: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(data)
        stopped.wait(WAIT_S)

    return talk


@contextmanager
def udp_sender(data: bytes, *, port: int) -> Iterator[None]:
    """Sends `data` to 127.0.0.1:`port` in packets of 1316 bytes, over and over, as a camera that nobody can ask."""
    stopped = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stopped.is_set():
                for start in range(0, len(data), 1316):
                    sender.sendto(data[start : start + 1316], ("127.0.0.1", port))
                    if stopped.wait(0.0005):
                        return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(WAIT_S)


def free_udp_port() -> int:
    """A port nobody uses right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused_port() -> int:
    """A TCP port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
