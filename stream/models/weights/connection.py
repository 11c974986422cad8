"""HTTP connections that end: urllib, without what a hostile server could make it do.

Invariant: an answer's status, headers and interim answers arrive within a time limit, however they are sent, and so
does what each `read1` of the body reads, the lines between and after its chunks included; the body of a redirect is not
read; no redirect leads to another scheme than http and https, from https to http, or from a public address into a
private network.
"""

import http.client
import io
import ipaddress
import socket
import time
import urllib.request
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import urlsplit

from stream.errors import ModelError, redacted

_HINT = "download it by hand and pass it with --weights"


def opener(*, answer_s: float) -> urllib.request.OpenerDirector:
    """An opener for http and https, through the proxies of the environment.

    Args:
        answer_s: limit for status and headers, from the request on, and for each `read1`.
    """
    made, hops = urllib.request.OpenerDirector(), _Hops(answer_s)
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _HttpHandler(hops),
        _HttpsHandler(hops),
        urllib.request.HTTPDefaultErrorHandler(),
        Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        made.add_handler(handler)
    return made


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, as Hugging Face and GitHub send them, but never from https to a weaker scheme."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """See the base class, which would read the body, however long."""
        fp.close()
        scheme, shown = urlsplit(newurl).scheme, redacted(newurl)
        if req.full_url.startswith("https:") and scheme != "https":
            what = f"redirects from https to {shown}; redirects to a weaker scheme are not followed"
            raise ModelError(what, where=req.full_url, hint=_HINT)
        if scheme not in ("http", "https"):
            raise ModelError(f"redirects to {shown}, which is no web address", where=req.full_url, hint=_HINT)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Hops:
    """What the connections of one opener share."""

    def __init__(self, answer_s: float) -> None:
        self.answer_s = answer_s
        self._begins_private = False

    def check(self, connection: socket.socket, request: urllib.request.Request) -> None:
        """Refuse a connection into a private network if the first one, which the user or the catalog named, was not."""
        text = str(connection.getpeername()[0]).partition("%")[0]
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(text)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        is_private = not address.is_global
        if not request.unverifiable:  # that is: no redirect
            self._begins_private = is_private
        elif is_private and not self._begins_private:
            what = f"redirects into a private network ({address}), which is not followed"
            raise ModelError(what, where=redacted(request.full_url), hint=_HINT)

    def maker(self, kind: "type[_Connection]", request: urllib.request.Request) -> Callable[..., Any]:
        """Return what makes the connection for a request."""
        is_proxied = request.has_proxy() or getattr(request, "_tunnel_host", None)

        def make(host: str, **options: Any) -> "_Connection":
            connection = kind(host, **options)
            connection.answer_s = self.answer_s
            connection.check = None if is_proxied else lambda made: self.check(made, request)
            return connection

        return make


class _Connection(http.client.HTTPConnection):
    answer_s: float
    check: Callable[[socket.socket], None] | None = None

    def connect(self) -> None:
        """See the base class; raises `ModelError`."""
        super().connect()
        if self.check is not None:
            self.check(self.sock)

    def response_class(self, sock: socket.socket, *arguments: Any, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        """Make the object that reads the answer."""
        return _Response(_Limited(sock, self.answer_s), *arguments, **options)


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """Checks the address before TLS begins: `HTTPSConnection.connect` calls that of `_Connection`."""


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, hops: _Hops) -> None:
        super().__init__()
        self._hops = hops

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """See the base class."""
        return self.do_open(self._hops.maker(_Connection, req), req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, hops: _Hops) -> None:
        super().__init__()
        self._hops = hops

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """See the base class."""
        return self.do_open(self._hops.maker(_SecureConnection, req), req)


class _Response(http.client.HTTPResponse):
    """An answer whose headers and parts have to arrive in time."""

    def __init__(self, sock: "_Limited", *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)  # type: ignore[arg-type]  # which only opens it as a file
        self._limited = sock

    def read1(self, n: int = -1) -> bytes:
        """See the base class, which reads lines without end after the last chunk (trailers)."""
        self._limited.start()
        return super().read1(n)


class _Limited(io.RawIOBase):
    """Reads from a socket; what is read from one `start` to the next, the first at once, has `limit_s` together."""

    def __init__(self, connection: socket.socket, limit_s: float) -> None:
        self._connection, self._file = connection, connection.makefile("rb", buffering=0)
        self._limit_s = limit_s
        self.start()

    def start(self) -> None:
        """Let the time begin again."""
        self._until = time.monotonic() + self._limit_s

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the file that the answer is read from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """See the base class; raises `TimeoutError`."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        """Close this reader of the socket."""
        self._file.close()
        super().close()
