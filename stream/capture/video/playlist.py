"""Limits of HLS playlists (RFC 8216), checked before FFmpeg reads one: its parser cannot be interrupted.

Invariant: FFmpeg reads no playlist that has not passed `PlaylistLimits.checked`.
"""

import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

from stream.errors import SourceError

HLS = "hls"
"""FFmpeg's demuxer of playlists."""
MARK = b"#EXTM3U"
"""Start of every playlist."""
MOST_BYTES = 8 << 20
"""A day of segments of two seconds, with names of 180 characters."""
MOST_SEGMENTS = 100_000
"""In all playlists of a source, with the headers that they name (maps); FFmpeg takes about 0.3 kB for each."""
MOST_ADDRESSES = 64 << 20
"""Bytes of addresses in all playlists of a source: FFmpeg keeps a whole one for each segment, its map and its key."""
MOST_PLAYLISTS = 200
"""In one list, and read while a source is opened. Services offer about 30."""
_MOST_TIMES = 20
"""As often as the same playlist may be read while a source is opened: several variants may share one."""
_ENCRYPTED = re.compile(rb"#EXT-X-KEY:[^\r\n]*METHOD=(?!NONE)")
_KEY = re.compile(rb'#EXT-X-KEY:[^\r\n]*?URI="([^"\r\n]*)')
_URI = re.compile(rb'(?<=URI=")([^"]*)')


class PlaylistLimits:
    """Counts what the playlists of a source hold.

    Args:
        where: the source, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where, self._playlists = where, 0
        self._read: Counter[str] = Counter()
        self._kept: dict[str, tuple[int, int]] = {}

    def checked(self, url: str, content: bytes, *, is_opening: bool, base: str = "") -> bytes:
        """Return a playlist that is within the limits; what is not UTF-8 is escaped as in a URL.

        Args:
            url: its address; what is read again from there replaces itself.
            content: all of it, or more than `MOST_BYTES`.
            is_opening: several variants may share it, and each keeps a copy.
            base: what its addresses are relative to, if that is not `url`.

        Raises:
            SourceError: it exceeds a limit.
        """
        if len(content) > MOST_BYTES:
            raise self._too_much(f"is longer than {MOST_BYTES >> 20} MiB")
        if is_opening:
            self._playlists += 1
            self._read[url] += 1
            if self._read[url] > _MOST_TIMES:
                raise SourceError("its playlists name each other in a circle", where=self._where)
        named = max(content.count(b"#EXT-X-STREAM-INF") + content.count(b"#EXT-X-MEDIA:"), self._playlists)
        if named > MOST_PLAYLISTS:
            raise self._too_much(f"names more than {MOST_PLAYLISTS} other playlists")
        self._kept[url] = _kept_of(content, base or url)
        copies = [(max(self._read[one], 1), kept) for one, kept in self._kept.items()]
        if sum(count * segments for count, (segments, _) in copies) > MOST_SEGMENTS:
            raise self._too_much(f"names more than {MOST_SEGMENTS:_} segments".replace("_", " "))
        if sum(count * size for count, (_, size) in copies) > MOST_ADDRESSES:
            raise self._too_much(f"names addresses that take more than {MOST_ADDRESSES >> 20} MiB")
        try:
            content.decode()
        except UnicodeDecodeError:
            return content.decode(errors="backslashreplace").replace("\\x", "%").encode()
        return content

    def _too_much(self, what: str) -> SourceError:
        return SourceError(f"its playlist {what}", where=self._where, hint="name a smaller one, or one variant of it")


def _kept_of(content: bytes, base: str) -> tuple[int, int]:
    """Return how many segments and maps FFmpeg keeps of a playlist, and at most how many bytes of their addresses."""
    count = content.count(b"#EXTINF") + content.count(b"#EXT-X-MAP")
    folder = len(base.partition("?")[0].rpartition("/")[0].encode(errors="replace")) + 1
    size = len(content) + count * folder
    if b"#EXT-X-KEY" in content:
        size += count * (folder + max(map(len, _KEY.findall(content)), default=0))
    return count, size


class Folder:
    """Opens what a local playlist names, as long as it lies in the playlist's own folder or below.

    Args:
        path: the playlist.
    """

    def __init__(self, path: Path) -> None:
        self._folder, self._where = path.parent.resolve(), str(path)
        self._limits, self._has_failed = PlaylistLimits(str(path)), False

    def renew(self) -> None:
        """See `media.Budget`: a file ends by itself."""

    def open_named(self, url: str, flags: int, options: Mapping[str, str]) -> BinaryIO:
        """Open what FFmpeg's HLS demuxer asks for; PyAV's `io_open`. A file that is missing is empty.

        Raises:
            SourceError: it lies elsewhere, or the playlist exceeds a limit.
        """
        del flags, options
        if self._has_failed:  # the error is on its way through FFmpeg, which asks on
            return io.BytesIO()
        name = url.removeprefix("file:")
        path = Path(name).resolve()
        if name == url or not path.is_relative_to(self._folder):
            self._has_failed = True
            what = f"names {url[:200]}, which is no file in the playlist's own folder"
            raise SourceError(what, where=self._where)
        if not path.is_file():
            return io.BytesIO()
        file = path.open("rb")
        if file.peek(len(MARK)).startswith(MARK):
            with file:
                content = file.read(MOST_BYTES + 1)
            try:
                if _ENCRYPTED.search(content):
                    what = "its segments are encrypted, which is read over http and https only"
                    raise SourceError(what, where=self._where)
                return io.BytesIO(self._limits.checked(str(path), content, is_opening=True))
            except SourceError:
                self._has_failed = True
                raise
        return file


def made_absolute(content: bytes, base: str) -> bytes:
    """Return a playlist with absolute addresses, for FFmpeg, which does not hear of a redirect to `base`.

    Raises:
        ValueError: one is no address.
    """

    def absolute(line: bytes) -> bytes:
        if line.startswith(b"#"):
            return _URI.sub(lambda found: urljoin(base, found[1].decode()).encode(), line)
        return urljoin(base, line.decode()).encode() if line else line

    return b"\n".join(map(absolute, content.splitlines())) + b"\n"
