"""What a network source may reach beyond the address that the user has named.

FFmpeg opens one URL, and follows neither a redirect nor a playlist by itself (`media.open_input`). Redirects are
followed here, and a playlist is read here first; each URL that FFmpeg's HLS demuxer asks for then is opened here.
Invariant: what a server names is opened only after `Reach.check` has passed its protocol and its address.
"""

import errno
import http.client
import io
import math
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import proxy_bypass

from stream.capture.video.addresses import is_public
from stream.capture.video.playlist import HLS, MARK, MOST_BYTES, PlaylistLimits, made_absolute
from stream.errors import SourceError, redacted
from stream.media import av, open_input, refused_format

if TYPE_CHECKING:
    from av.container import InputContainer

MOST_REDIRECTS = 8
"""In a row; FFmpeg's own limit is the same."""
MOST_BYTES_PER_PACKET = 128 << 20
"""What FFmpeg may read before it delivers a packet: it allocates as much as a server claims one to have."""
_LEAST_BYTES = 4096
"""A sender must deliver so much within the read timeout, or it counts as silent."""
_CHUNK = 1 << 16
_URL_CHARACTERS = "%/?:@!$&'()*+,;=-._~[]"
_LEASHED = frozenset({HLS, "mpjpeg"})
"""Demuxers that FFmpeg may use for a network source with the bytes from here only."""
_PORTS = {"http": 80, "https": 443}
_MOST_ADDRESSES = 8
"""Of one name; services have about four."""
_UNREACHED = frozenset(
    (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
)
"""Errors of an address after which the next one of the same name is tried."""
_OURS_ALONE = frozenset({"headers", "cookies"})
"""Options that may hold a secret of the user's: sent to the host that the user has named, and to no other."""

Resolve = Callable[..., list[Any]]


class Reach:
    """Checks and opens what a source names beside its own URL.

    Args:
        url: the user's own, which may be anywhere.
        options: FFmpeg's, for every connection.
        private: the user has allowed private addresses.
        open_timeout_s: limit for opening the source, all connections together.
        read_timeout_s: limit for each wait for data.
        clock: monotonic seconds.
        resolve: `socket.getaddrinfo`.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, str],
        *,
        private: bool = False,
        open_timeout_s: float,
        read_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        resolve: Resolve | None = None,
    ) -> None:
        self.url, self._options, self._private = url, dict(options), private
        self.read_timeout_s, self.clock = read_timeout_s, clock
        self._resolve = resolve or socket.getaddrinfo
        self._ends_s = clock() + open_timeout_s
        self._is_open, self._picture_by_s = False, math.inf
        self.has_failed = False
        """An error is on its way through FFmpeg, which asks on: PyAV would print a second one."""
        self._limits, self._taken = PlaylistLimits(redacted(url)), 0
        self._parts = urlsplit(url)
        self._own = self._own_addresses()

    # --- time and bytes ---

    def left_s(self) -> float:
        """Return the seconds that are left for a wait.

        Raises:
            TimeoutError: the time for opening the source is over.
        """
        if self._is_open:
            return self.read_timeout_s
        left_s = self._ends_s - self.clock()
        if left_s <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "no data in time")
        return left_s

    def opened(self, *, picture_within_s: float = math.inf) -> None:
        """The source is open: from now on, single waits are limited, and the time until `begun`."""
        self._is_open = True
        self._picture_by_s = self.clock() + picture_within_s

    def begun(self) -> None:
        """The first picture is there."""
        self._picture_by_s = math.inf

    def take(self, size: int) -> None:
        """Count bytes that go to a demuxer.

        Raises:
            SourceError: it has taken too many without delivering a packet.
        """
        self._taken += size
        if self._taken > MOST_BYTES_PER_PACKET:
            what = f"sent more than {MOST_BYTES_PER_PACKET >> 20} MiB that hold no whole picture"
            raise SourceError(what, where=redacted(self.url), hint="nothing of it is kept")

    def renew(self) -> None:
        """See `media.Budget`.

        Raises:
            SourceError: packets arrive, but none has given a picture in time.
        """
        self._taken = 0
        if self.clock() > self._picture_by_s:
            what, hint = "none of its pictures could be decoded in time", "raise --open-timeout if they are rare"
            raise SourceError(what, where=redacted(self.url), hint=hint)

    # --- what may be reached ---

    def check(self, url: str) -> tuple[SplitResult, list[str]]:
        """Check a URL that a server has named.

        Returns:
            Its parts, and the addresses to connect to, one after the other until one answers.

        Raises:
            SourceError: a source may not reach it.
            OSError: its name cannot be resolved.
        """
        try:
            parts = urlsplit(url)
            # Python and FFmpeg may read an odd authority differently.
            if not url.isprintable() or not parts.netloc.isascii() or " " in parts.netloc or "\\" in parts.netloc:
                raise ValueError
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            raise self._refusal(url, "is not a valid URL") from None
        if parts.scheme not in _PORTS:
            raise self._refusal(url, f"is {parts.scheme}:, not http or https")
        if not parts.hostname:
            raise self._refusal(url, "names no host")
        is_own = parts.hostname == self._parts.hostname
        addresses = self._own if is_own and self._own else self._addresses(parts.hostname, port)
        if is_own and not self._private:  # names of a local network often have both kinds
            addresses = [one for one in addresses if is_public(one)] or addresses
        if not self._private and any(not is_public(one) for one in addresses):
            known = self._own if port in self._own_ports() else []
            if any(not is_public(one) and one not in known for one in addresses):
                raise self._refusal(url, "has a private address")
        return parts, addresses

    def _addresses(self, host: str, port: int) -> list[str]:
        found = self._resolve(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))[:_MOST_ADDRESSES]

    def _own_addresses(self) -> list[str]:
        """Return the addresses of the user's own URL if all are private: then it may name itself.

        They are looked up once, before a server can say anything: its name may lead elsewhere a moment later.
        """
        if self._private or self._parts.scheme not in _PORTS or not self._parts.hostname:
            return []
        try:
            found = self._addresses(self._parts.hostname, self._parts.port or _PORTS[self._parts.scheme])
        except (OSError, ValueError):  # FFmpeg says so when it opens the URL
            return []
        return [] if any(map(is_public, found)) else found

    def _own_ports(self) -> set[int]:
        """Return the port of the user's own URL, and HTTPS beside HTTP: servers redirect to it."""
        port = self._parts.port or _PORTS.get(self._parts.scheme, 0)
        return {port, 443} if port == _PORTS["http"] else {port}

    def _may_have_secrets(self, parts: SplitResult) -> bool:
        """Return True for the user's own host and port, and for HTTPS on the host of an own HTTP."""
        own = self._parts
        if parts.hostname != own.hostname:
            return False
        ports = [one.port or _PORTS.get(one.scheme) for one in (parts, own)]
        return (parts.scheme == own.scheme and ports[0] == ports[1]) or (own.scheme, parts.scheme) == ("http", "https")

    def _refusal(self, url: str, why: str) -> SourceError:
        named = url if url.isprintable() else ascii(url)
        what = f"names {redacted(named)[:200]}, which {why}"
        hint = "a server may not send this program there; if you trust it, add --input-option reach=private"
        return SourceError(what, where=redacted(self.url), hint=hint if "private" in why else "")

    # --- opening ---

    def open_source(
        self, opened: "Callable[..., InputContainer]", *, picture_within_s: float = math.inf
    ) -> "InputContainer":
        """Open the source, after its redirects, with its playlist.

        Args:
            opened: opens a URL as a container; takes the arguments of `media.open_input`.
            picture_within_s: the first picture must be there so long after that; `begun` says that it is.

        Raises:
            SourceError: a server has named what a source may not reach, or the limits are exceeded.
            OSError: see `media.open_input`.
        """
        url = self.url
        for _ in range(MOST_REDIRECTS + 1):
            try:
                container = self._of_first_address(url, lambda target, given: opened(target, budget=self, **given))
            except (av.error.FFmpegError, OSError) as error:
                demuxer = refused_format(error)
                if demuxer not in _LEASHED:
                    url = self._redirected(url, error)
                    continue
                container = self._open_leashed(opened, url, demuxer)
            self.opened(picture_within_s=picture_within_s)
            self.renew()
            return container
        raise self._circles()

    def _open_leashed(self, opened: "Callable[..., InputContainer]", url: str, demuxer: str) -> "InputContainer":
        """Open what FFmpeg may not read by itself: a list of other URLs, or parts of any size."""
        timeout = (self.left_s(), self.read_timeout_s)
        common: dict[str, Any] = {"format": demuxer, "options": self._options, "timeout": timeout, "budget": self}
        if demuxer != HLS:
            return opened(url, file=Bytes(self, url), **common)
        # To keep a connection open for the next segment, the demuxer needs one of FFmpeg's own, or aborts the process.
        common["options"] = self._options | {"http_persistent": "0", "http_multiple": "0"}
        return opened(url, io_open=self.open_named, **common)

    def open_named(self, url: str, flags: int, options: Mapping[str, str]) -> "io.BytesIO | Bytes":
        """Open what FFmpeg's HLS demuxer asks for; PyAV's `io_open`.

        What cannot be reached is empty: the demuxer goes on with the next segment, or another variant.

        Raises:
            SourceError: a source may not reach it, or the limits are exceeded.
            TimeoutError: the time is over.
        """
        del flags
        if self.has_failed:
            return io.BytesIO()
        try:
            return self._opened(url, options)
        except BaseException:
            self.has_failed = True
            raise

    def _opened(self, url: str, options: Mapping[str, str]) -> "io.BytesIO | Bytes":
        ciphered = url.removeprefix("crypto+")
        if not url.startswith("data:"):
            self.check_named(ciphered)
        bounds = {key: options[key] for key in ("offset", "end_offset", "key", "iv") if key in options}
        try:
            source = Bytes(self, url, bounds)
            head = source.peek(len(MARK))
        except TimeoutError:
            raise
        except (av.error.FFmpegError, OSError):
            self.left_s()
            return io.BytesIO()
        return self._playlist(source) if head == MARK else source

    def check_named(self, url: str) -> None:
        """Check a URL like `check`; one whose name cannot be resolved passes, and fails when it is opened."""
        if url != self.url:
            try:
                self.check(url)
            except OSError:
                return

    def bytes_of(self, url: str, bounds: Mapping[str, str]) -> "tuple[InputContainer, str]":
        """Open a URL as raw bytes, after its redirects.

        Returns:
            The container, and the URL that it was redirected to.
        """
        is_data, prefix = url.startswith("data:"), "crypto+" if url.startswith("crypto+") else ""
        url = url.removeprefix(prefix)
        more, protocols = dict(bounds) | {"raw_packet_size": str(_CHUNK)}, "data" if is_data else prefix.strip("+")

        def opened(target: str, given: dict[str, Any]) -> "InputContainer":
            given["options"] = given["options"] | more
            return open_input(prefix + target, protocols=protocols, format="data", **given)

        for _ in range(MOST_REDIRECTS + 1):
            try:
                container = self._of_first_address(url, opened)
            except (av.error.FFmpegError, OSError) as error:
                url = self._redirected(url, error)
            else:
                return container, url
        raise self._circles()

    def _of_first_address(
        self, url: str, opened: "Callable[[str, dict[str, Any]], InputContainer]"
    ) -> "InputContainer":
        """Open a URL with `opened`, at the first of its addresses that answers; passes on the URL and its options."""
        targets, options = ([url], {}) if url.startswith("data:") else self._pinned(url)
        for target in targets[:-1]:
            try:
                return opened(target, {"options": options, "timeout": (self.left_s(), self.read_timeout_s)})
            except (av.error.FFmpegError, OSError) as error:
                if error.errno not in _UNREACHED:
                    raise
        return opened(targets[-1], {"options": options, "timeout": (self.left_s(), self.read_timeout_s)})

    def _pinned(self, url: str) -> tuple[list[str], dict[str, str]]:
        """Return a URL as FFmpeg is to open it, once for each address, and its options.

        Without TLS, FFmpeg gets the addresses that were checked, so that the name cannot lead elsewhere a moment later.
        """
        if url == self.url:
            return [url], self._options
        parts, addresses = self.check(url)
        options = self._options
        if not self._may_have_secrets(parts):
            options = {key: value for key, value in options.items() if key not in _OURS_ALONE}
        if parts.scheme != "http" or parts.hostname in addresses:
            return [url], options
        if proxy_bypass(parts.hostname or ""):  # FFmpeg knows the address only
            options = options | {"http_proxy": "none"}
        login, at, host = parts.netloc.rpartition("@")
        port = f":{parts.port}" if parts.port else ""
        headers = options.get("headers", "")
        if "host:" not in headers.lower():
            options = options | {"headers": f"{headers}Host: {host}\r\n"}
        hosts = [f"[{one}]" if ":" in one else one for one in addresses]
        return [parts._replace(netloc=f"{login}{at}{one}{port}").geturl() for one in hosts], options

    def _redirected(self, url: str, error: "av.error.FFmpegError | OSError") -> str:
        """Return where a URL redirects to; raises `error` if that is another one.

        FFmpeg says only that its limit of redirects, none, is exceeded; so the server is asked again.
        """
        location = None
        if error.errno == errno.EIO and urlsplit(url).scheme in _PORTS:
            try:
                location = self._location(url)
            except TimeoutError:
                raise
            except OSError:
                location = None  # it cannot be reached, and that is what `error` says
        if location is None:
            raise error
        try:
            target = urljoin(url, location)
        except ValueError:
            raise self._refusal(location, "is not a valid URL") from None
        self.check(target)
        return target

    def _circles(self) -> SourceError:
        return SourceError(f"redirects more than {MOST_REDIRECTS} times", where=redacted(self.url))

    def _location(self, url: str) -> str | None:
        """Ask a server for a URL, and return where it redirects to; None if it does not."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        deadline = _Deadline(self)
        addresses = self._addresses(host, port) if url == self.url else self.check(url)[1]
        fields = {"User-Agent": self._options.get("user_agent", f"Lavf/{av.library_versions['libavformat'][0]}")}
        if self._may_have_secrets(parts):
            lines = self._options.get("headers", "").splitlines()
            fields |= {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        if parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            fields["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        path = quote(f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}", safe=_URL_CHARACTERS)
        try:
            with _connected(addresses, port, deadline) as plain:
                plain.settimeout(deadline.left_s())
                plain_or_tls = plain if parts.scheme == "http" else _tls(plain, host)
                with closing(http.client.HTTPConnection(host, port)) as connection:
                    connection.sock = cast("socket.socket", _Hurried(plain_or_tls, deadline))
                    connection.request("GET", path, headers=fields)
                    answer = connection.getresponse()
                    return answer.headers["Location"] if 300 <= answer.status < 400 else None
        except (http.client.HTTPException, ValueError):  # ValueError: a header that HTTP cannot carry
            return None

    def _playlist(self, source: "Bytes") -> io.BytesIO:
        """Read a playlist and check it; its addresses become absolute, as FFmpeg does not hear of redirects.

        Raises:
            SourceError: it is too long, has too many entries, or names what a source may not reach.
        """
        with closing(source):
            content = bytearray()
            while data := source.read(_CHUNK):
                content += data
                if len(content) > MOST_BYTES:
                    break
        self.renew()
        text = self._limits.checked(source.asked, bytes(content), is_opening=not self._is_open, base=source.url)
        try:
            return io.BytesIO(made_absolute(text, source.url) if source.url != source.asked else text)
        except ValueError:
            what = "its playlist names what is not a valid URL"
            raise SourceError(what, where=redacted(self.url)) from None


class Bytes:
    """What a URL holds, for PyAV to read; opened with the leash.

    Attributes:
        asked, url: the address that was asked for, and the one that it was redirected to.
    """

    def __init__(self, reach: Reach, url: str, bounds: Mapping[str, str] | None = None) -> None:
        self._reach, self.asked = reach, url.removeprefix("crypto+")
        self._container, self.url = reach.bytes_of(url, bounds or {})
        self._packets, self._rest = self._container.demux(), b""
        self._waited_s, self._got = 0.0, 0
        self.error: BaseException | None = None

    @property
    def size(self) -> int:
        """The size that the server states; not positive if it states none."""
        return self._container.size

    def peek(self, size: int) -> bytes:
        """Return the first bytes that `read` will return; fewer at the end."""
        while len(self._rest) < size and (data := self._next()):
            self._rest += data
        return self._rest[:size]

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; b"" at the end, and where the connection breaks: `error` says so.

        Raises:
            TimeoutError: the server sends nothing, or next to nothing.
            SourceError: see `Reach.take`.
        """
        if self._reach.has_failed:
            return b""
        try:
            data = self._rest or self._next()
        except BaseException:
            self._reach.has_failed = True
            raise
        self._rest = data[size:]
        return data[:size]

    def close(self) -> None:
        """Close the connection."""
        self._container.close()

    def _next(self) -> bytes:
        reach = self._reach
        reach.left_s()
        since_s = reach.clock()
        try:
            data = b""
            for packet in self._packets:
                if data := bytes(packet):
                    break
        except av.error.ExitError as error:
            raise TimeoutError(errno.ETIMEDOUT, "no data in time") from error
        except (av.error.FFmpegError, OSError) as error:
            self.error = error
            return b""
        self._waited_s += reach.clock() - since_s
        self._got += len(data)
        if self._got >= _LEAST_BYTES:
            self._waited_s, self._got = 0.0, 0
        elif data and self._waited_s > reach.read_timeout_s:
            raise TimeoutError(errno.ETIMEDOUT, "next to no data in time")
        reach.take(len(data))
        return data


class _Deadline:
    """The end of one request, which a server cannot put off by sending a little at a time."""

    def __init__(self, reach: Reach) -> None:
        self._clock, self._ends_s = reach.clock, reach.clock() + reach.left_s()

    def left_s(self) -> float:
        """See `Reach.left_s`."""
        left_s = self._ends_s - self._clock()
        if left_s <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "no data in time")
        return left_s


class _Hurried(io.RawIOBase):
    """A socket whose every wait ends at a deadline, for `http.client`."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._deadline.left_s())
        return self._connection.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(self._deadline.left_s())
        self._connection.sendall(data)

    def makefile(self, *_args: object, **_options: object) -> io.BufferedReader:
        return io.BufferedReader(_Hurried(self._connection, self._deadline))  # as a socket's, it outlives `close`


def _connected(addresses: list[str], port: int, deadline: _Deadline) -> socket.socket:
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), deadline.left_s())
        except OSError as error:
            if error.errno not in _UNREACHED:
                raise
    return socket.create_connection((addresses[-1], port), deadline.left_s())


def _tls(plain: socket.socket, host: str) -> socket.socket:
    """Begin TLS without checking the certificate, as FFmpeg does: cameras sign their own."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=host)
