"""Which requests the live page's server answers: it checks their form, size, host name, token and origin.

Invariant: a page of another site can neither read nor show what this server serves, and gives no command; it may link
to the page. A token is taken from the page's address once and is a cookie from then on. The `Host` that a
browser sends is checked against DNS rebinding (a foreign name that resolves to 127.0.0.1): names of this machine are
accepted with any port, as `ssh -L 9000:127.0.0.1:8765` makes `localhost:9000` of it; a proxy's names only if they were
given. `X-Forwarded-Host` is never read, because every client can send it.
"""

import hmac
import ipaddress
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY_BYTES = 4096
MAX_TARGET_BYTES = 2048
MAX_HEADER_BYTES = 16_384
_METHODS = ("GET", "HEAD", "POST")
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
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Accel-Buffering": "no",  # nginx would hold images and events back until its buffers are full
}
_COOKIE = "depthstream_"  # plus the port, as browsers send cookies to every port of a host
_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]*")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]:/?#@]{1,253})(:[0-9]{1,5})?")
"""Host name or address, and port, as in `Host` and in the end of `Origin` (RFC 3986, section 3.2)."""


def host_name(authority: str) -> str:
    """The lower-case name of `NAME` or `NAME:PORT`, an IPv6 address without brackets; "" if it is neither."""
    match = _AUTHORITY.fullmatch(authority.lower())
    return "" if match is None else match[1].strip("[]").removesuffix(".")


def is_loopback_name(name: str) -> bool:
    """True for the names and addresses that mean the machine itself everywhere: `localhost` and names that end in it
    (RFC 6761, section 6.3), 127.0.0.0/8 and ::1."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _malformed(scope: "Scope", headers: "Headers") -> tuple[int, str] | None:
    """Why a request is refused whoever sends it, with its status."""
    target = len(scope["raw_path"]) + len(scope["query_string"])
    if target > MAX_TARGET_BYTES:
        return 414, f"an address may have at most {MAX_TARGET_BYTES} bytes"
    if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return 431, f"headers may have at most {MAX_HEADER_BYTES} bytes"
    if "content-length" in headers and "transfer-encoding" in headers:
        return 400, "two lengths: Content-Length and Transfer-Encoding"
    if scope["method"] != "POST" and ("transfer-encoding" in headers or headers.get("content-length", "0") != "0"):
        return 413, "only a command has a body"
    if scope["method"] in _METHODS and not scope["raw_path"].startswith(b"/"):
        return 400, "this server is no proxy"
    if headers.get("upgrade", "").lower() == "websocket":
        return 400, "there are no WebSockets here"
    return None


class Guard:
    """ASGI middleware: refuses requests by form, host, token, origin and size; adds headers to every response.

    Args:
        port: the server's, part of its cookie's name.
        token: secret that viewers must send; "" for none.
        names: host names of a proxy, lower-case.
        any_name: accept every host name.
        notes: receives internal errors; viewers see no details of them.
        is_tls: the server speaks TLS, so its cookie may be limited to it.
        closed: counts the requests without the right token.
    """

    def __init__(
        self,
        app: "ASGIApp",
        *,
        port: int,
        token: str,
        names: Sequence[str],
        any_name: bool,
        notes: list[str],
        is_tls: bool = False,
        closed: Counter[str] | None = None,
    ) -> None:
        self._app, self._token, self._notes, self._is_tls = app, token, notes, is_tls
        self._closed = Counter[str]() if closed is None else closed
        self._cookie = f"{_COOKIE}{port}"
        self._names, self._any_name = frozenset(names), any_name

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        from starlette.datastructures import Headers
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import PlainTextResponse

        request, headers = Request(scope), Headers(scope=scope)

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        if (wrong := _malformed(scope, headers)) is not None:
            # What follows may be a part of this request or another one: close.
            answer = PlainTextResponse(wrong[1], status_code=wrong[0], headers={"Connection": "close"})
            await answer(scope, receive, with_headers)
            return
        refusal = self._refusal(request, headers)
        if refusal is not None:
            self._closed["page_refused_without_token"] += refusal[0] == 401
            allow = {"Allow": ", ".join(_METHODS)} if refusal[0] == 405 else None
            await PlainTextResponse(refusal[1], status_code=refusal[0], headers=allow)(scope, receive, with_headers)
            return
        if self._token and "token" in request.query_params:
            await self._with_cookie(request)(scope, receive, with_headers)
            return
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"range" or b"," not in header[1]]
        try:
            await self._app(scope, receive, with_headers)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001  a bug here; Starlette has answered with a plain 500
            note = f"a request to the live page failed: {type(error).__name__}: {error}"
            self._notes += [] if note in self._notes else [note]

    def _with_cookie(self, request: "Request") -> "Response":
        """Send the client on to the same address without the token, which keeps it out of history and logs."""
        from starlette.responses import HTMLResponse, RedirectResponse

        name = request.url.path.rpartition("/")[2]
        # Relative, because a proxy may have removed the beginning of the path.
        target = f"./{name}" if _SAFE_NAME.fullmatch(name) else "./"
        if "text/html" in request.headers.get("accept", ""):
            # A browser that follows a redirect from a link in a mail still counts as sent by the mail's site, and gets
            # no strict cookie; one that this page sends on does.
            answer: Response = HTMLResponse(f'<meta http-equiv="refresh" content="0; url={target}">')
        else:
            answer = RedirectResponse(target, status_code=303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", secure=self._is_tls)
        return answer

    def _refusal(self, request: "Request", headers: "Headers") -> tuple[int, str] | None:
        host, path = headers.get("host", ""), request.scope["path"]
        name = host_name(host)
        if not (self._any_name or is_loopback_name(name) or name in self._names):
            known = "open the address that depthstream printed"
            proxy = f", or start depthstream with --serve-name {name} if that is your proxy's name" if name else ""
            return 421, f"unknown host name {name}: {known}{proxy}"
        if self._token:
            # In a browser only an address that is opened holds the token; the page's own requests send the cookie.
            in_address = request.query_params.get("token") if request.method != "POST" else None
            given = in_address or request.cookies.get(self._cookie) or ""
            if not hmac.compare_digest(given.encode(errors="replace"), self._token.encode()):
                return 401, "a token is required: open the address that depthstream printed"
        if request.method not in _METHODS:
            return 405, f"allowed: {', '.join(_METHODS)}"
        is_own = self._is_own(headers.get("origin"), host)
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            # `document` is a page of its own, neither a frame nor an image; `nested-document` and others are none.
            opened = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
            is_own = is_own and request.method == "GET" and path == "/" and opened == ("navigate", "document")
        if request.method != "POST":
            return None if is_own else (403, "the images are shown on this server's own page only")
        if not is_own:
            hint = "if this is your proxy, start depthstream with --serve-name and the proxy's host name"
            return 403, f"commands are accepted from this server's own page only; {hint}"
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "the request must be application/json"
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return 413, f"a request may have at most {MAX_BODY_BYTES} bytes"
        return None

    def _is_own(self, origin: str | None, host: str) -> bool:
        """True for a request of the server's own page, seen directly or through the proxy, which may have set `Host` to
        the server's address; and for one that no page made."""
        if origin is None:
            return True
        scheme, _, authority = origin.lower().partition("://")
        return scheme in ("http", "https") and (authority == host.lower() or host_name(authority) in self._names)
