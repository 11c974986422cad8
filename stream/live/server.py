"""The web server of the live preview: one page, many viewers, on Starlette and uvicorn (extra `web`).

Invariant: the pipeline's thread never waits for a viewer. It publishes the newest image and takes waiting commands.
Each viewer gets the newest image that it has not seen, as soon as its connection can take it.

Safe by default: the server binds 127.0.0.1, and every other address needs a token. It checks `Host` and `Origin`,
limits the size and number of requests, takes no file name from a client, and reveals nothing about the program in an
error.
"""

import asyncio
import contextlib
import errno
import hmac
import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.config import DEFAULT_SERVE
from stream.errors import MissingExtraError, SinkError, UsageError

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_VIEWERS = 16
MAX_BODY_BYTES = 4096
MAX_WAITING_COMMANDS = 64
EVENTS_PER_S = 2.0
_STOP_S = 2.0
_SILENT_S = 5.0
"""A connection without a request is closed after this time, at most half of it later."""
_BOUNDARY = "depthstream-picture"
_PAGES = Path(__file__).parent / "page"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob:; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_COOKIE = "depthstream_"  # plus the port, as browsers send cookies to every port of a host


@dataclass(frozen=True)
class Address:
    """Where to serve: `host` as given, `port` 0 for any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach it."""
        return self.host in _LOOPBACK


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `HOST`, `PORT`, `:PORT` or `[::1]:PORT`.

    Raises:
        UsageError: none of these, or a port outside 0 to 65535.
    """
    default = DEFAULT_SERVE.rpartition(":")
    host, port = text, default[2]
    if text.isdecimal():
        host, port = "", text
    elif text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{port!r} is not a port", where=f"--serve {text}", allowed="HOST:PORT, port up to 65535")
    return Address(host or default[0], int(port))


class NewestImage:
    """The newest image, passed from the pipeline's thread to any number of viewers on the server's event loop."""

    def __init__(self) -> None:
        self.number = 0
        self.jpeg = b""
        self.viewers = 0
        """Connections that receive images; the loop writes it, the pipeline's thread reads it."""
        self._changed: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect to the loop; call it there, before the first viewer connects."""
        self._loop, self._changed = loop, asyncio.Event()

    def put(self, jpeg: bytes) -> None:
        """Replace the image; from any thread, never waits."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._put, jpeg)

    def wake(self) -> None:
        """Wake every viewer, at the end of the run; from any thread."""
        self.put(self.jpeg)

    def _put(self, jpeg: bytes) -> None:
        self.jpeg, self.number = jpeg, self.number + 1
        changed, self._changed = self._changed, asyncio.Event()
        if changed is not None:
            changed.set()

    async def after(self, number: int) -> tuple[int, bytes]:
        """Wait for an image later than `number`; returns its number and its JPEG."""
        while self.number <= number or not self.jpeg:
            assert self._changed is not None
            await self._changed.wait()
        return self.number, self.jpeg


class Feed:
    """Images, state and commands, exchanged between the pipeline's thread and the server's event loop.

    Args:
        snapshot: returns the image on show as PNG and its raw depth as .npy, None before the first.
        recordings: returns the finished recordings by number.
    """

    def __init__(
        self, *, snapshot: Callable[[], tuple[bytes, bytes] | None], recordings: Callable[[], dict[int, Path]]
    ) -> None:
        self.snapshot, self.recordings = snapshot, recordings
        self.newest = NewestImage()
        self.commands: deque[tuple[str, object]] = deque(maxlen=MAX_WAITING_COMMANDS)
        self.state: dict[str, Any] = {}
        """Everything that a page shows beside the image; the pipeline's thread replaces it as a whole."""
        self.ended = ""
        """Why the run has ended; "" while it runs."""
        self.notes: list[str] = []
        """Internal errors of the server; viewers see no details of them."""

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
        token: secret that viewers must send; "" for none.

    Raises:
        MissingExtraError: Starlette or uvicorn is not installed.
        SinkError: the address cannot be bound.
    """

    def __init__(self, address: Address, feed: Feed, *, token: str) -> None:
        try:
            import starlette  # noqa: F401
            import uvicorn
        except ImportError as error:
            hint = "pip install 'depthstream[web]'"
            raise MissingExtraError("needs Starlette and uvicorn", where="--serve", hint=hint) from error
        listener = _bind(address)
        port = listener.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.url = f"http://{host}:{port}/"
        config = uvicorn.Config(
            _Guard(_application(feed), address, port, token, feed.notes),
            http="h11", log_level="critical", access_log=False, lifespan="off", server_header=False,
            timeout_keep_alive=5, timeout_graceful_shutdown=1, limit_concurrency=4 * MAX_VIEWERS,
            h11_max_incomplete_event_size=16_384,
        )  # fmt: skip
        self._server = server = uvicorn.Server(config)
        ready = threading.Event()

        async def serve() -> None:
            feed.newest.attach(asyncio.get_running_loop())
            ready.set()
            watch = asyncio.create_task(_drop_silent(server))
            await server.serve(sockets=[listener])
            watch.cancel()
            # Drop the connections of stalled viewers, with the data that they did not take.
            for connection in list(server.server_state.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await asyncio.sleep(0.01)  # the loop closes them meanwhile

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), name="depthstream-browser", daemon=True)
        self._thread.start()
        ready.wait(_STOP_S)

    def stop(self) -> None:
        """Stop serving; waits at most `_STOP_S`."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        in_use = "another program uses this port: choose another, or 0 for any free port"
        others = "127.0.0.1 serves this machine only, 0.0.0.0 every network"
        hint = in_use if error.errno == errno.EADDRINUSE else others
        where = f"{address.host}:{address.port}"
        raise SinkError(f"cannot serve there: {error.strerror}", where=where, hint=hint) from error


async def _drop_silent(server: "uvicorn.Server") -> None:
    """Abort connections that send no request: uvicorn would keep them for ever, and count them against its limit."""
    silent: dict[Any, int] = {}
    while True:
        await asyncio.sleep(_SILENT_S / 2)
        # `cycle` is uvicorn's current or last request; keep-alive has its own time limit. It is not part of uvicorn's
        # public interface, so a version without it must not break the server.
        now = {c for c in server.server_state.connections if getattr(c, "cycle", None) is None}
        silent = {connection: silent.get(connection, 0) + 1 for connection in now}
        for connection, times in silent.items():
            if times > 1 and connection.transport is not None:
                connection.transport.abort()


class _Guard:
    """ASGI middleware: refuses requests by host, token, origin and size, and adds headers to every response."""

    def __init__(self, app: "ASGIApp", address: Address, port: int, token: str, notes: list[str]) -> None:
        self._app, self._token, self._notes = app, token, notes
        self._cookie = f"{_COOKIE}{port}"
        names = _LOOPBACK if address.is_loopback else None
        written = {f"[{name}]" if ":" in name else name for name in names or ()}
        known = {f"{name}:{port}" for name in written} | (written if port == 80 else set())  # browsers omit :80
        self._hosts = known if names else None

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            return
        from starlette.datastructures import Headers
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse, RedirectResponse

        headers = Headers(scope=scope)
        request = Request(scope)

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        refusal = self._refusal(request, headers)
        if refusal is not None:
            await PlainTextResponse(refusal[1], status_code=refusal[0])(scope, receive, with_headers)
            return
        if self._token and "token" in request.query_params:  # keeps the token out of history and logs
            answer = RedirectResponse(request.url.path, status_code=303)
            # "strict" would refuse a link that was clicked in a mail.
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
            await answer(scope, receive, with_headers)
            return
        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:  # noqa: BLE001  a bug here; Starlette has answered with a plain 500
            note = f"a request to the live page failed: {type(error).__name__}: {error}"
            self._notes += [] if note in self._notes else [note]

    def _refusal(self, request: "Request", headers: Any) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._hosts is not None and host.lower() not in self._hosts:
            return 421, "unknown host name: use the address that depthstream printed"
        if self._token:
            given = request.query_params.get("token") or request.cookies.get(self._cookie) or ""
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return 401, "a token is required: open the address that depthstream printed"
        if request.method not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
                return 403, "commands are accepted from this server's own page only"
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return 403, "commands are accepted from this server's own page only"
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return 415, "the request must be application/json"
            length = headers.get("content-length", "")
            if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
                return 413, f"a request may have at most {MAX_BODY_BYTES} bytes"
        return None


def _application(feed: Feed) -> "ASGIApp":
    """The routes; all their data comes from `feed`."""
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    newest = feed.newest

    async def no_icon(_request: "Request") -> "Response":
        return Response(status_code=204)

    def file(name: str, media_type: str) -> "Route":
        content = (_PAGES / name).read_bytes()

        async def answer(_request: "Request") -> "Response":
            return Response(content, media_type=f"{media_type}; charset=utf-8")

        return Route("/" if name == "live.html" else f"/{name}", answer)

    async def pictures(_request: "Request") -> "Response":
        if newest.viewers >= MAX_VIEWERS:
            return PlainTextResponse(f"there are {MAX_VIEWERS} viewers already, which is the limit", status_code=503)
        newest.viewers += 1

        async def body() -> AsyncIterator[bytes]:
            number = 0
            try:
                yield f"--{_BOUNDARY}\r\n".encode()
                while not feed.ended:
                    number, jpeg = await newest.after(number)
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    # Send the boundary at once: browsers display an image when they receive the boundary after it.
                    yield head.encode() + jpeg + f"\r\n--{_BOUNDARY}\r\n".encode()
            finally:
                newest.viewers -= 1

        return StreamingResponse(body(), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    async def events(_request: "Request") -> "Response":
        async def body() -> AsyncIterator[bytes]:
            while True:
                state = feed.answer()
                yield f"data: {json.dumps(state)}\n\n".encode()
                if state["ended"]:
                    return
                await asyncio.sleep(1 / EVENTS_PER_S)

        return StreamingResponse(body(), media_type="text/event-stream")

    async def command(request: "Request") -> "Response":
        try:
            given = json.loads(await request.body())
            name, value = given["name"], given.get("value")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return PlainTextResponse('the body must be {"name": …, "value": …}', status_code=400)
        if not isinstance(name, str) or not isinstance(value, str | int | float | bool | None):
            return PlainTextResponse("name must be a string, value a string, a number or a boolean", status_code=400)
        feed.commands.append((name, value))
        return JSONResponse({"ok": True}, status_code=202)

    def snapshot(request: "Request") -> "Response":
        files = feed.snapshot()
        if files is None:
            return PlainTextResponse("there is no image yet", status_code=404)
        is_depth = request.path_params["kind"] == "npy"
        media_type = "application/octet-stream" if is_depth else "image/png"
        name = f'attachment; filename="depth.{"npy" if is_depth else "png"}"'
        return Response(files[is_depth], media_type=media_type, headers={"Content-Disposition": name})

    def recording(request: "Request") -> "Response":
        path = feed.recordings().get(request.path_params["number"])
        if path is None or not path.is_file():
            return PlainTextResponse("there is no such recording", status_code=404)
        return FileResponse(path, filename=path.name, media_type="video/mp4")

    return Starlette(
        routes=[
            file("live.html", "text/html"),
            file("live.css", "text/css"),
            file("live.js", "text/javascript"),
            Route("/favicon.ico", no_icon),
            Route("/pictures", pictures),
            Route("/events", events),
            Route("/command", command, methods=["POST"]),
            Route("/snapshot.{kind:str}", snapshot),
            Route("/recordings/{number:int}", recording),
        ]
    )
