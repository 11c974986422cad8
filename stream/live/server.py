"""The web server of the live preview: one page, many viewers, on Starlette and uvicorn (extra `web`).

Invariant: the pipeline's thread never waits for a viewer. It publishes the newest image and takes waiting commands.
Each viewer gets the newest image that it has not seen, as soon as its connection can take it.

A run of several sources has a feed for each, its tiles. Their images go to a viewer in one answer, and their states in
another, because a browser opens at most six connections to a host.

Safe by default: the server binds 127.0.0.1, and every other address needs a token. `stream.live.guard` checks each
request, and `stream.live.connections` limits what a client may take. The server takes no file name from a client, and
reveals nothing about the program in an error. The page's links are relative: a proxy may serve it under any path.
"""

import asyncio
import contextlib
import errno
import json
import re
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.errors import MissingExtraError, SinkError, printable
from stream.live.address import Address, parse_address
from stream.live.guard import Guard

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["EVENTS_PER_S", "MAX_VIEWERS", "MAX_WAITING_COMMANDS", "Address", "Feed", "Server", "parse_address"]

MAX_VIEWERS = 16
MAX_LISTENERS = 2 * MAX_VIEWERS
MAX_WAITING_COMMANDS = 64
EVENTS_PER_S = 2.0
_EVENT_STEPS = 5
_PADDING = b":" + b" " * (1 << 15) + b"\n\n"
"""A comment, which browsers ignore: 300 kB fill the buffers of a connection that nobody reads."""
_STOP_S = 2.0
_SNAPSHOT_SHARE = 0.05
"""Of one core: encoding a snapshot takes 20 ms at 640×480, and 0.1 s at 1080p."""
_RESEND_S = 0.1
_CHUNK_BYTES = 1 << 19
"""Of a recording. Starlette's 64 kB take as long, 0.4 ms, as 512 kB."""
_CHUNK_COST_S = 0.0004
_BOUNDARY = "depthstream-picture"
_PAGES = Path(__file__).parent / "page"


class Change:
    """Wakes everyone on the server's event loop that waits for a change of some image."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Something has changed."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._event.wait()


class NewestImage:
    """The newest image, passed from the pipeline's thread to any number of viewers on the server's event loop."""

    def __init__(self) -> None:
        self.number = 0
        self.jpeg = b""
        self.viewers = 0
        """Connections that receive images; the loop writes it, the pipeline's thread reads it."""
        self._put_at_s = 0.0
        self._changed: Change | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, changed: Change) -> None:
        """Connect to the loop; call it there, before the first viewer connects."""
        self._loop, self._changed = loop, changed

    def put(self, jpeg: bytes) -> None:
        """Replace the image; from any thread, never waits."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._put, jpeg)

    def wake(self) -> None:
        """Wake every viewer, at the end of the run; from any thread."""
        self.put(self.jpeg)

    def resend(self) -> None:
        """Send an image that nothing replaces once more, ten times a second, to see who reads; on the loop."""
        if self.jpeg and time.monotonic() - self._put_at_s >= _RESEND_S:
            self._put(self.jpeg)

    def _put(self, jpeg: bytes) -> None:
        self.jpeg, self.number, self._put_at_s = jpeg, self.number + 1, time.monotonic()
        if self._changed is not None:
            self._changed.notify()


class Feed:
    """Images, state and commands, exchanged between the pipeline's thread and the server's event loop.

    Args:
        snapshot: returns the image on show as PNG and its raw depth as .npy, None before the first.
        recordings: returns the finished recordings by number.
        name: of the source, where there are several.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], tuple[bytes, bytes] | None] = lambda: None,
        recordings: Callable[[], dict[int, Path]] = dict,
        name: str = "",
    ) -> None:
        self.snapshot, self.recordings, self.name = snapshot, recordings, name
        self.newest = NewestImage()
        self.commands: deque[tuple[str, object]] = deque(maxlen=MAX_WAITING_COMMANDS)
        self.state: dict[str, Any] = {}
        """Everything that a page shows beside the image; the pipeline's thread replaces it as a whole."""
        self.ended = ""
        """Why the run has ended; "" while it runs."""
        self.notes: list[str] = []
        """Internal errors of the server; viewers see no details of them."""
        self.closed = Counter[str]()
        """Connections closed and requests refused, by the name of the counter."""

    def note_once(self, text: str) -> None:
        """Add a note."""
        self.notes += [] if text in self.notes else [text]

    def end(self, reason: str) -> None:
        """Show every viewer that the run has ended, and why."""
        self.ended = reason or "interrupted"
        self.newest.wake()

    def answer(self) -> dict[str, Any]:
        """The state, ready for JSON."""
        return {**self.state, "viewers": self.newest.viewers, "ended": self.ended}


class Server:
    """Serves a feed on its own thread, from construction until `stop`.

    Args:
        address: where to serve; port 0 takes a free one.
        feed: what to serve.
        tiles: the feeds of several sources; `feed` then is that of the run as a whole.
        token: secret that viewers must send; "" for none.
        names: host names of a proxy that passes requests on to this server.
        tls: certificate and key, from `stream.live.address.tls_context`; None for plain HTTP.

    Raises:
        MissingExtraError: Starlette or uvicorn is not installed.
        SinkError: the address cannot be bound.
    """

    def __init__(
        self,
        address: Address,
        feed: Feed,
        *,
        tiles: Sequence[Feed] = (),
        token: str,
        names: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        try:
            import starlette  # noqa: F401
            import uvicorn
        except ImportError as error:
            hint = "pip install 'depthstream[web]'"
            raise MissingExtraError("needs Starlette and uvicorn", where="--serve", hint=hint) from error
        from stream.live.connections import Connections

        listener, changed = _bind(address), Change()
        port = listener.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.url = f"http{'' if tls is None else 's'}://{host}:{port}/"
        # Behind a token any host name may be used; without one, another name is an attempt at DNS rebinding.
        guard = Guard(
            _application(feed, tiles, changed), port=port, token=token, names=names, any_name=not address.is_loopback,
            notes=feed.notes, is_tls=tls is not None, closed=feed.closed,
        )  # fmt: skip
        config = uvicorn.Config(
            guard, http="h11", ws="none", log_level="critical", access_log=False, lifespan="off", server_header=False,
            proxy_headers=False,  # a client can send X-Forwarded-… itself
            timeout_keep_alive=5, timeout_graceful_shutdown=1, h11_max_incomplete_event_size=16_384,
        )  # fmt: skip
        config.load()
        ready = threading.Event()

        class Accepting(uvicorn.Server):
            """uvicorn accepts as many connections as come, and gives a TLS handshake a minute."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
                self.servers = []
                self.started = True

        self._server = server = Accepting(config)

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _loop, context: feed.note_once(_what(context)))
            for one in (feed, *tiles):
                one.newest.attach(loop, changed)
            connections = Connections(config, server.server_state, tls, feed.closed)
            accepting = asyncio.create_task(connections.accept(listener))
            ready.set()
            await server.serve(sockets=[])
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
            listener.close()
            connections.end()  # those that did not take their data
            await asyncio.sleep(0.01)  # the loop closes them meanwhile

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), name="depthstream-browser", daemon=True)
        self._thread.start()
        ready.wait(_STOP_S)

    def stop(self) -> None:
        """Stop serving; waits at most `_STOP_S`."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)


def _what(context: dict[str, Any]) -> str:
    error = context.get("exception")
    said = context.get("message", "") if error is None else f"{type(error).__name__}: {error}"
    return f"the live page's server: {printable(said)}"


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=2048)
    except OSError as error:
        in_use = "another program uses this port: choose another, or 0 for any free port"
        others = "127.0.0.1 serves this machine only, 0.0.0.0 every network"
        hint = in_use if error.errno == errno.EADDRINUSE else others
        where = f"{address.host}:{address.port}"
        raise SinkError(f"cannot serve there: {error.strerror}", where=where, hint=hint) from error


class _Snapshots:
    """Encodes the image on show once for all who ask at the same time, and takes `share` of one core for it.

    Who asks while an image is encoded gets the next.
    """

    def __init__(self, encode: Callable[[], tuple[bytes, bytes] | None], share: float) -> None:
        self._encode, self._share = encode, share
        self._coming: asyncio.Task[tuple[bytes, bytes] | None] | None = None
        self._lock = asyncio.Lock()
        self._free_at_s = 0.0

    async def files(self) -> tuple[bytes, bytes] | None:
        """PNG and .npy of the image on show; None before the first."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._next())
        return await asyncio.shield(self._coming)

    async def _next(self) -> tuple[bytes, bytes] | None:
        async with self._lock:
            await asyncio.sleep(max(0.0, self._free_at_s - time.monotonic()))
            self._coming = None
            began_s = time.monotonic()
            try:
                return await asyncio.to_thread(self._encode)
            finally:
                ended_s = time.monotonic()
                self._free_at_s = ended_s + (ended_s - began_s) * (1 / self._share - 1)


_ONE_PICTURE = re.compile(rb'<figure id="one">.*?</figure>', re.DOTALL)
"""What gives way to the tiles of several sources in the page."""
_TILES = b'<section id="tiles" aria-label="Sources"></section>'


def _application(feed: Feed, several: Sequence[Feed], changed: Change) -> "ASGIApp":
    """The routes; all their data comes from `feed`, or from those of `several` sources.

    Args:
        changed: notified of every new image.
    """
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    from stream.live.connections import Connection, Seats

    tiles = tuple(several) or (feed,)

    def probe() -> None:
        for tile in tiles:
            tile.newest.resend()

    def count(viewers: int) -> None:
        for one in (feed, *tiles):
            one.newest.viewers = viewers

    watching, listening = Seats(MAX_VIEWERS, probe=probe, count=count), Seats(MAX_LISTENERS)
    share = _SNAPSHOT_SHARE / len(tiles)
    snapshots = [_Snapshots(lambda tile=tile: tile.snapshot(), share) for tile in tiles]  # type: ignore[misc]

    def state() -> dict[str, Any]:
        answer = feed.answer()
        return {**answer, "tiles": [{"name": tile.name, **tile.answer()} for tile in several]} if several else answer

    def asked_tile(request: "Request") -> int | None:
        """The number of the tile that a link names, the only one by default; None if there is no such tile."""
        text = request.query_params.get("tile", "0" if len(tiles) == 1 else "")
        return int(text) if re.fullmatch("[0-9]{1,4}", text) and int(text) < len(tiles) else None

    async def no_icon(_request: "Request") -> "Response":
        return Response(status_code=204)

    def file(name: str, media_type: str) -> "Route":
        content = (_PAGES / name).read_bytes()
        content = _ONE_PICTURE.sub(_TILES, content) if several else content

        async def answer(_request: "Request") -> "Response":
            return Response(content, media_type=f"{media_type}; charset=utf-8")

        return Route("/" if name == "live.html" else f"/{name}", answer)

    async def stream(
        request: "Request", seats: Seats, parts: Callable[[Connection], AsyncIterator[bytes]], media_type: str
    ) -> "Response":
        """An answer that goes on until the run ends; the connection has a seat meanwhile."""
        connection: Connection = request.state.connection
        if request.method == "HEAD":  # nothing would ever be sent
            return Response(media_type=media_type)
        if not await seats.take(connection):
            text = f"there are {len(seats.taken)} viewers already, which is the limit"
            return PlainTextResponse(text, status_code=503, headers={"Retry-After": "3"})

        async def body() -> AsyncIterator[bytes]:
            try:
                async for part in parts(connection):
                    yield part
                    await connection.taken()
                    connection.streamed_bytes += len(part)
            finally:
                seats.leave(connection)

        return StreamingResponse(body(), media_type=media_type)

    async def next_image(seen: dict[int, int]) -> tuple[int, bytes] | None:
        """Wait for an image that a viewer has not seen; returns the number of its tile, which goes to the end of
        `seen`, and the JPEG. None once the run has ended."""
        while True:
            for number, before in seen.items():
                newest = tiles[number].newest
                if newest.number > before and newest.jpeg:
                    del seen[number]
                    seen[number] = newest.number
                    return number, newest.jpeg
            if feed.ended:
                return None
            await changed.wait()

    async def pictures(request: "Request") -> "Response":
        async def parts(_connection: Connection) -> AsyncIterator[bytes]:
            seen = dict.fromkeys(range(len(tiles)), 0)  # the number of each tile's last image; the oldest first
            yield f"--{_BOUNDARY}\r\n".encode()
            while (image := await next_image(seen)) is not None:
                number, jpeg = image
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
                head += f"X-Tile: {number}\r\n\r\n" if several else "\r\n"
                # Send the boundary at once: browsers display an image when they receive the boundary after it.
                yield head.encode() + jpeg + f"\r\n--{_BOUNDARY}\r\n".encode()

        return await stream(request, watching, parts, f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    async def events(request: "Request") -> "Response":
        async def parts(_connection: Connection) -> AsyncIterator[bytes]:
            while True:
                answer = state()
                yield f"data: {json.dumps(answer)}\n\n".encode()
                if answer["ended"]:
                    return
                for _ in range(_EVENT_STEPS):
                    await asyncio.sleep(1 / EVENTS_PER_S / _EVENT_STEPS)
                    if listening.is_contested:
                        yield _PADDING

        return await stream(request, listening, parts, "text/event-stream")

    async def command(request: "Request") -> "Response":
        try:
            given = json.loads(await request.body())
            name, value = given["name"], given.get("value")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return PlainTextResponse('the body must be {"name": …, "value": …}', status_code=400)
        if not isinstance(name, str) or not isinstance(value, str | int | float | bool | None):
            return PlainTextResponse("name must be a string, value a string, a number or a boolean", status_code=400)
        number = given.get("tile")
        if number is not None and (type(number) is not int or not 0 <= number < len(tiles)):
            return PlainTextResponse("there is no such tile", status_code=400)
        for tile in tiles if number is None else tiles[number : number + 1]:
            tile.commands.append((name, value))
        return JSONResponse({"ok": True}, status_code=202)

    def snapshot(kind: str) -> "Route":
        media_type = "application/octet-stream" if kind == "npy" else "image/png"

        async def answer(request: "Request") -> "Response":
            number = asked_tile(request)
            files = None if number is None else await snapshots[number].files()
            if files is None:
                return PlainTextResponse("there is no image yet", status_code=404)
            name = f'attachment; filename="depth.{kind}"'
            return Response(files[kind == "npy"], media_type=media_type, headers={"Content-Disposition": name})

        return Route(f"/snapshot.{kind}", answer)

    class Recording(FileResponse):
        """Waits for its share of the processor: one client could otherwise take all of it."""

        chunk_size = _CHUNK_BYTES

        async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
            connection: Connection = scope["state"]["connection"]

            async def paced(message: "Message") -> None:
                await send(message)
                if message["type"] == "http.response.body":
                    await asyncio.sleep(connection.charge(_CHUNK_COST_S))

            await super().__call__(scope, receive, paced)

    def recording(request: "Request") -> "Response":
        number = asked_tile(request)
        path = None if number is None else tiles[number].recordings().get(request.path_params["number"])
        if path is None or path.is_symlink() or not path.is_file():
            return PlainTextResponse("there is no such recording", status_code=404)
        return Recording(path, filename=printable(path.name), media_type="video/mp4")

    app = Starlette(
        routes=[
            file("live.html", "text/html"),
            file("live.css", "text/css"),
            file("live.js", "text/javascript"),
            Route("/favicon.ico", no_icon),
            Route("/pictures", pictures),
            Route("/events", events),
            Route("/command", command, methods=["POST"]),
            snapshot("png"),
            snapshot("npy"),
            Route("/recordings/{number:int}", recording),
        ]
    )
    app.router.redirect_slashes = False  # it would send the client to the host that the client names
    return app
