"""A file in a bucket or on a server as a seekable file object, for what reads here and there in it.

Invariant: at most `MOST_BLOCKS` blocks are kept; what is read in order comes in requests that grow to `MOST_AHEAD`
blocks, and a jump fetches little.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from stream.errors import SourceError, StreamError
from stream.notes import note
from stream.remote.access import Entry, Remote

BLOCK_BYTES = 1 << 18
MOST_AHEAD = 16
"""Blocks in one request: 4 MiB, at which a request's latency (30 to 100 ms) is small beside the transfer."""
MOST_BLOCKS = 128
"""32 MiB."""
_MOST_TRAILS = 8
"""Places that are read in order side by side: pictures and sound of a file may lie far apart."""


class RemoteFile:
    """Reads a file in blocks; one thread uses it, `stop` may be called from any.

    Args:
        remote: where it is.
        entry: what it was when it was found. If it changes, reading ends with an error.
        on_retry: called with a line each time a lost connection is tried again.

    Attributes:
        requests, fetched_bytes: so far.
        error: why nothing is read any more: FFmpeg prints what a file object raises, so this one ends instead.
    """

    def __init__(
        self,
        remote: Remote,
        entry: Entry,
        *,
        stop: threading.Event,
        on_retry: Callable[[str], None] = note,
    ) -> None:
        self._remote, self._entry, self._stop, self._on_retry = remote, entry, stop, on_retry
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._trails: OrderedDict[int, int] = OrderedDict()
        """How many blocks the next request takes, by the block that it would begin with."""
        self._file: Any = None
        self.error: StreamError | None = None
        self.requests = self.fetched_bytes = 0

    @property
    def url(self) -> str:
        """Of the file."""
        return self._entry.url

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._entry.size

    @property
    def name(self) -> str:
        """For FFmpeg, which reads on where it would have to seek if this had another protocol than `file`."""
        return f"file:{self._entry.name}"

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; nothing at the end, and after an error."""
        if self.error is not None:
            return b""
        left = max(0, self._entry.size - self._position)
        size = left if size < 0 else min(size, left)
        parts = []
        while size:
            number, offset = divmod(self._position, BLOCK_BYTES)
            try:
                part = self._block(number)[offset : offset + size]
            except StreamError as error:
                self.error = error
                return b""
            parts.append(part)
            self._position += len(part)
            size -= len(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.size}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def seekable(self) -> bool:
        """True."""
        return True

    def readable(self) -> bool:
        """True."""
        return True

    def check(self) -> None:
        """Raise `error`, unless it is that reading was stopped."""
        if self.error is not None and not self._stop.is_set():
            raise self.error

    def close(self) -> None:
        """Forget everything that was read."""
        self._blocks.clear()
        self._file = None

    def stop(self) -> None:
        """End the wait for a lost connection."""
        self._stop.set()

    def _block(self, number: int) -> bytes:
        if (found := self._blocks.get(number)) is not None:
            self._blocks.move_to_end(number)
            return found
        count = self._trails.pop(number, 1)
        last = (self._entry.size - 1) // BLOCK_BYTES
        end = number + 1
        while end < number + count and end <= last and end not in self._blocks:
            end += 1
        data = self._fetched(number * BLOCK_BYTES, min(end * BLOCK_BYTES, self._entry.size))
        for at in range(number, end):
            begin = (at - number) * BLOCK_BYTES
            self._blocks[at] = data[begin : begin + BLOCK_BYTES]
        self._trails[end] = min(2 * count, MOST_AHEAD)
        while len(self._trails) > _MOST_TRAILS:
            self._trails.popitem(last=False)
        while len(self._blocks) > MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]

    def _fetched(self, start: int, end: int) -> bytes:
        def fetch(system: Any) -> bytes:
            if self._file is None:
                found = self._remote.opened(system, self._entry)
                self._file = found
            file, self._file = self._file, None  # kept only if it works
            if hasattr(file, "readv"):  # sftp: asks for all parts before it waits for the first
                data = b"".join(file.readv([(start, end - start)]))
            else:
                file.seek(start)
                data = file.read(end - start)
            if len(data) != end - start:
                raise EOFError(f"{len(data)} of {end - start} bytes arrived")
            self._file = file
            return bytes(data)

        if self._stop.is_set():
            raise SourceError("reading was stopped", where=self._entry.url)
        data = self._remote.call(fetch, self._entry.url, on_retry=self._on_retry)
        self.requests += 1
        self.fetched_bytes += len(data)
        return data
