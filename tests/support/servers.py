"""Servers on 127.0.0.1 for tests of network sources, with faults on demand; their threads are joined."""

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stream.media import av

Talk = Callable[[socket.socket, threading.Event], None]
"""Serves one connection until it is done or the event is set."""
_WRONG_LOGIN = "401 Unauthorized"
WAIT_S = 10.0
"""Limit of every wait of a server, so that a failing test ends."""


class Answer:
    """The response to one HTTP path.

    Args:
        body: the whole content.
        status: HTTP status code.
        kind: content type.
        ranges: support range requests.
        sent: close the connection after this many bytes although more was announced; None sends everything.
        stall: keep the connection open after `sent` bytes without sending more.
        endless: yields parts for ever, without a stated length; `body` is ignored.
        location: where it redirects to.
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
        location: str | None = None,
    ) -> None:
        self.body, self.status, self.kind, self.ranges = body, status if location is None else 302, kind, ranges
        self.location = location
        self.sent, self.stall, self.endless = sent, stall, endless


class HttpServer:
    """Serves `answers` by path; `requests` records (path, Range header), `headers` all headers of each request."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers, self.requests = answers, list[tuple[str, str | None]]()
        self.headers: list[dict[str, str]] = []
        self.stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_args: Any) -> None:
                """Silent."""

            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers.get("Range")))
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
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
        if answer.location is not None:
            handler.send_header("Location", answer.location)
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
def tcp_server(*talks: Talk) -> Iterator[int]:
    """Accept one connection after the other and pass each to the next of `talks`, with an event that is set at the end.

    Yields the port.
    """
    stopped = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(WAIT_S)

    def serve() -> None:
        for talk in talks:
            with contextlib.suppress(OSError):  # nobody came, or the client has gone
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(WAIT_S)
                    talk(connection, stopped)
            if stopped.is_set():
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stopped.set()
        listener.close()
        thread.join(WAIT_S)


def send_then_close(data: bytes) -> Talk:
    return lambda connection, _stopped: connection.sendall(data)


def send_in_steps(data: bytes, *, first: int, step: int = 16_384, every_s: float = 0.03) -> Talk:
    """Send `first` bytes at once, the rest as a live sender does, and close the connection."""

    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(data[:first])
        for start in range(first, len(data), step):
            if stopped.wait(every_s):
                return
            connection.sendall(data[start : start + step])

    return talk


def send_then_stall(data: bytes) -> Talk:
    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(data)
        stopped.wait(WAIT_S)

    return talk


def send_until_left(data: bytes, left: threading.Event) -> Talk:
    """Send `data`, wait for the client to close the connection, and set `left` when it has."""

    def talk(connection: socket.socket, _stopped: threading.Event) -> None:
        connection.sendall(data)
        if connection.recv(1) == b"":
            left.set()

    return talk


class RtspCamera:
    """An IP camera: H.264 over RTP, interleaved with the RTSP connection (RFC 2326, 10.12); it refuses UDP or TCP.

    Args:
        path: the video to send, as fast as the client reads it.
        sent: number of RTP packets to send; None for all.
        login: `name:password` that it requires (Basic, RFC 7617).
        hangs_up: close the connection after the last packet; else wait for the client.
        udp_only: send over UDP, one packet a millisecond, and refuse TCP.
    """

    def __init__(
        self, path: Path, *, sent: int | None = None, login: str = "", hangs_up: bool = False, udp_only: bool = False
    ) -> None:
        self._packets = rtp_packets(path)[:sent]
        self._login = b"Basic " + base64.b64encode(login.encode()) if login else None
        self._hangs_up, self._udp_only = hangs_up, udp_only
        self._client_port = 0
        self.methods: list[str] = []
        """Methods of the requests with the right login."""

    def talk(self, connection: socket.socket, stopped: threading.Event) -> None:
        """See `tcp_server`."""
        with connection.makefile("rb") as requests:
            while line := requests.readline():
                method, url = line.decode().split()[:2]
                headers: dict[str, bytes] = {}
                while header := requests.readline().strip():
                    name, _, value = header.partition(b":")
                    headers[name.decode().lower()] = value.strip()
                status, fields, body = self._answer(method, url, headers)
                if status != _WRONG_LOGIN:
                    self.methods.append(method)
                fields = {"CSeq": headers["cseq"].decode(), "Content-Length": str(len(body)), **fields}
                lines = [f"RTSP/1.0 {status}", *(f"{name}: {value}" for name, value in fields.items()), "", body]
                connection.sendall("\r\n".join(lines).encode())
                if self.methods[-1:] == ["PLAY"]:
                    self._play(connection, stopped)
                    if self._hangs_up:
                        return

    def _play(self, connection: socket.socket, stopped: threading.Event) -> None:
        if not self._udp_only:
            for packet in self._packets:
                connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in self._packets:
                sender.sendto(packet, ("127.0.0.1", self._client_port))
                if stopped.wait(0.001):
                    return

    def _answer(self, method: str, url: str, headers: dict[str, bytes]) -> tuple[str, dict[str, str], str]:
        """Status, header fields and body."""
        if self._login not in (None, headers.get("authorization")):
            return _WRONG_LOGIN, {"WWW-Authenticate": 'Basic realm="camera"'}, ""
        if method == "OPTIONS":
            return "200 OK", {"Public": "DESCRIBE, SETUP, PLAY, TEARDOWN"}, ""
        if method == "DESCRIBE":
            sdp = ("v=0", "s=camera", "t=0 0", "m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=control:track", "")
            return "200 OK", {"Content-Type": "application/sdp", "Content-Base": f"{url}/"}, "\r\n".join(sdp)
        fields: dict[str, str] = {}
        if method == "SETUP":
            transport = headers["transport"].decode()
            if ("interleaved=0-1" in transport) is self._udp_only:
                return "461 Unsupported Transport", {}, ""
            if self._udp_only:
                self._client_port = int(transport.partition("client_port=")[2].partition("-")[0])
                transport += f";server_port={self._client_port + 1000}-{self._client_port + 1001}"
            fields["Transport"] = transport
        return "200 OK", {"Session": "1", **fields}, ""


def rtp_packets(path: Path) -> list[bytes]:
    """The H.264 track of a video as RTP packets (RFC 6184) of payload type 96."""
    written: list[bytes] = []

    class Target:
        def write(self, data: bytes) -> int:
            written.append(bytes(data))
            return len(data)

    with av.open(str(path)) as source, av.open(Target(), "w", "rtp", options={"packetsize": "1200"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return [data for data in written if data[1] & 0x7F == 96]  # the others are RTCP


@contextmanager
def udp_sender(data: bytes, *, port: int) -> Iterator[None]:
    """Send `data` to 127.0.0.1:`port` in packets of 1316 bytes, repeatedly, like a camera without a back channel."""
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
    """Return a UDP port that is free at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused_port() -> int:
    """Return a TCP port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RtspReceiver:
    """A media server that takes a stream: RTP interleaved with the RTSP connection (RFC 2326, 10.3 and 10.12)."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.frames = 0
        """Access units received: RTP packets of the video that have the marker bit."""

    def talk(self, connection: socket.socket, _stopped: threading.Event) -> None:
        """See `tcp_server`."""
        with connection.makefile("rb") as stream:
            while first := stream.read(1):
                if first == b"$":
                    channel, size = stream.read(1)[0], int.from_bytes(stream.read(2), "big")
                    packet = stream.read(size)
                    self.frames += channel == 0 and bool(packet[1] & 0x80)
                    continue
                method = (first + stream.readline()).decode().split()[0]
                headers = {}
                while header := stream.readline().strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                stream.read(int(headers.get("content-length", 0)))
                self.methods.append(method)
                fields = {"CSeq": headers["cseq"], "Session": "1", "Public": "ANNOUNCE, SETUP, RECORD, TEARDOWN"}
                if method == "SETUP":
                    fields["Transport"] = headers["transport"]
                lines = ["RTSP/1.0 200 OK", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
                connection.sendall("\r\n".join(lines).encode())


def collect(into: bytearray) -> Talk:
    """Receive until the client closes the connection."""

    def talk(connection: socket.socket, _stopped: threading.Event) -> None:
        while data := connection.recv(1 << 16):
            into.extend(data)

    return talk


@contextmanager
def datagrams() -> Iterator[tuple[int, Callable[[], list[bytes]]]]:
    """A UDP port, and a function that returns what has arrived there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)

        def arrived() -> list[bytes]:
            found = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.append(receiver.recv(1 << 16))
            return found

        yield receiver.getsockname()[1], arrived


def receive_then_close(size: int) -> Talk:
    """Receive about `size` bytes, and close the connection."""

    def talk(connection: socket.socket, _stopped: threading.Event) -> None:
        received = 0
        while received < size:
            received += len(connection.recv(1 << 16))

    return talk


def stay_silent(connection: socket.socket, stopped: threading.Event) -> None:
    """Accept, and neither read nor answer."""
    del connection
    stopped.wait(2 * WAIT_S)


@contextmanager
def receiving(url: str, **options: str) -> Iterator[list[float]]:
    """Read the video at `url` on a thread until its end; yields the times of its frames, complete after the block."""
    times: list[float] = []

    def read() -> None:
        with contextlib.suppress(av.error.FFmpegError), av.open(url, timeout=(WAIT_S, 1.0), options=options) as source:
            for frame in source.decode(video=0):
                times.append(float(frame.pts * frame.time_base))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield times
    finally:
        thread.join(2 * WAIT_S)
