"""Tells a raw MJPEG stream, which is one JPEG after another, from a photo; both begin the same.

Invariant: a photo with other pictures in it (a thumbnail, a preview behind it, a multi-picture JPEG) stays a photo.
"""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

_START, _SOI = b"\xff\xd8\xff", 0xD8
_EOI, _TEM, _APP2 = 0xD9, 0x01, 0xE2
_RESTARTS = range(0xD0, 0xD8)
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF markers; the three others are tables (ITU-T T.81, table B.1)."""
_MULTI_PICTURE = b"MPF\0"
_PADDING = 4096
"""Bytes that may lie between two JPEGs of a stream, after any number of zeros, with which cameras fill buffers."""
_ZEROS = re.compile(rb"\0*")
_LOOKED_AT = 3


def is_jpeg_stream(path: Path, *, is_named_photo: bool) -> bool:
    """Return True if the file holds JPEGs of one size in a row: two, or three in a file with a photo's name.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(_START)) != _START:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return starts_jpeg_stream(data, _LOOKED_AT if is_named_photo else 2)


def starts_jpeg_stream(data: mmap.mmap | bytes, count: int) -> bool:
    """Return True if at least `count` whole JPEGs of one size are at the start of `data`, which begins with one."""
    sizes = [size for size, _ in zip(_sizes(data), range(_LOOKED_AT), strict=False)]
    return len(sizes) >= count and len(set(sizes)) == 1


def _sizes(data: mmap.mmap | bytes) -> Iterator[tuple[int, int]]:
    """Yield the (height, width) of each JPEG, up to one that is damaged or part of a multi-picture file."""
    at = 0
    while at >= 0:
        size, at = None, at + 2
        while True:
            at = _next_marker(data, at)
            if at < 0:
                return
            marker = data[at - 1]
            if marker == _EOI:
                break
            if marker in _RESTARTS or marker in (_TEM, _SOI):
                continue
            length = int.from_bytes(data[at : at + 2], "big")
            if length < 2 or (marker == _APP2 and data[at + 2 : at + 6] == _MULTI_PICTURE):
                return
            if marker in _FRAME_HEADERS:
                size = int.from_bytes(data[at + 3 : at + 5], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
            at += length
        if size is None:
            return
        yield size
        padded = _ZEROS.match(data, at)
        at = at if padded is None else padded.end()
        at = data.find(_START, at, at + _PADDING)


def _next_marker(data: mmap.mmap | bytes, at: int) -> int:
    """Return the place behind the next marker, skipping coded data; -1 if there is none."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        code = data[at + 1]
        if code not in (0x00, 0xFF):
            return at + 2
        at += 1 if code == 0xFF else 2
    return -1
