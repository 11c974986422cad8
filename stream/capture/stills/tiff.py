"""Reads the directories (IFDs) of TIFF structures: TIFF, BigTIFF, RAW photos, EXIF blocks, multi-picture indices.

Pillow reads the first directory or follows the chain only, and gives up at the first damaged tag; here one broken tag
costs that tag alone. Only whole numbers are read: sizes, offsets, flags.
Invariant: damaged data never raise and never loop; what cannot be read is missing from the result.
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import BinaryIO

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 259, 262
BITS, SAMPLES, ROWS, TILE_WIDTH, TILE_HEIGHT = 258, 277, 278, 322, 323
STRIP_OFFSETS, ORIENTATION, TILE_OFFSETS, SUB_IFDS, XMP, DNG_VERSION = 273, 274, 324, 330, 700, 50706
EXIF_IFD, FOCAL_35MM = 0x8769, 0xA405
"""EXIF 2.32: the offset of the directory with the camera's settings, and in it the focal length, in millimetres, of a
lens for 35 mm film that gives the same angle."""
MP_ENTRIES = 0xB002
"""CIPA DC-007, in the index of a multi-picture JPEG: 16 bytes for each picture."""

_TAGS = frozenset(
    (NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION)
) | {TILE_OFFSETS, SUB_IFDS, XMP, DNG_VERSION, MP_ENTRIES, BITS, SAMPLES, TILE_WIDTH, TILE_HEIGHT, EXIF_IFD, FOCAL_35MM}
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""TIFF 6.0, TIFF Technical Note 1 and BigTIFF: field type → format of `struct`, for the types of whole numbers, and
for the undefined one, whose bytes are a structure."""
_MAX_VALUES = 1 << 16
_MAX_BYTES = 1 << 24
"""Limit on all directories of one file, so that a crafted one costs no more time than a large photo."""
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType: a reduced-resolution version of another image, and a transparency mask."""
_OLD_REDUCED = 2
"""SubfileType of a reduced-resolution version."""


@dataclass(frozen=True, kw_only=True)
class Ifd:
    """One directory.

    Attributes:
        offset: its position in the file.
        is_page: it belongs to the chain of pages and not to the SubIFDs of a page.
        tags: numbers by tag; tags of other kinds are missing.
    """

    offset: int
    is_page: bool
    tags: dict[int, tuple[int, ...]]

    def get(self, tag: int, default: int = 0) -> int:
        """Return the first number of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Stored (height, width); 0 where unstated."""
        return self.get(HEIGHT), self.get(WIDTH)

    @property
    def is_full(self) -> bool:
        """The image is neither a reduced version of another one nor a mask."""
        return not self.get(NEW_SUBFILE_TYPE) & (_REDUCED | _MASK) and self.get(SUBFILE_TYPE) != _OLD_REDUCED


def read_ifds(stream: BinaryIO) -> list[Ifd]:
    """Return the directories of a TIFF structure that starts at 0: the chain of pages, then all SubIFDs.

    Returns nothing if this is no TIFF structure. The magic number is not checked: makers of cameras use their own.
    """
    head = _bytes_at(stream, 0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return []
    reader = _Reader(stream, order, is_big=struct.unpack(f"{order}H", head[2:4]) == (43,))
    at: int = struct.unpack(f"{order}Q", head[8:16])[0] if reader.is_big else struct.unpack(f"{order}I", head[4:8])[0]
    found: list[Ifd] = []
    while at and (read := reader.ifd(at, is_page=True)) is not None:
        ifd, at = read
        found.append(ifd)
    for ifd in found:  # grows meanwhile: a SubIFD may have SubIFDs
        for offset in ifd.tags.get(SUB_IFDS, ()):
            read = reader.ifd(offset, is_page=False)
            if read is not None:
                found.append(read[0])
    return found


def focal_35mm_in(stream: BinaryIO, ifds: Collection[Ifd]) -> int:
    """Return the 35 mm equivalent of the focal length, in millimetres, that the first directory leads to; 0 if none."""
    first = next(iter(ifds), None)
    if first is None:
        return 0
    head = _bytes_at(stream, 0, 4)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "<")
    reader = _Reader(stream, order, is_big=struct.unpack(f"{order}H", head[2:4]) == (43,))
    read = reader.ifd(first.get(EXIF_IFD), is_page=False) if EXIF_IFD in first.tags else None
    return 0 if read is None else read[0].get(FOCAL_35MM)


def orientation_in(ifds: Collection[Ifd]) -> int:
    """Return the orientation, 1 to 8, that the first directory states; 0 if it states none."""
    value = next((ifd.get(ORIENTATION) for ifd in ifds), 0)
    return value if 1 <= value <= 8 else 0


def starting_with(content: bytes, ifd: Ifd) -> bytes:
    """Return a TIFF's content with `ifd` as its first page."""
    order = "<" if content.startswith(b"II") else ">"
    if struct.unpack(f"{order}H", content[2:4]) == (43,):
        return content[:8] + struct.pack(f"{order}Q", ifd.offset) + content[16:]
    return content[:4] + struct.pack(f"{order}I", ifd.offset) + content[8:]


class _Reader:
    def __init__(self, stream: BinaryIO, order: str, *, is_big: bool) -> None:
        self.is_big = is_big
        self._stream, self._order, self._left, self._seen = stream, order, _MAX_BYTES, set[int]()
        self._count, self._entry, self._next = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")

    def ifd(self, offset: int, *, is_page: bool) -> tuple[Ifd, int] | None:
        """Return the directory at `offset` and the offset of the next one; None if there is none or it was read."""
        order, width = self._order, struct.calcsize(f"<{self._count}")
        head = _bytes_at(self._stream, offset, width)
        if len(head) < width or offset in self._seen or self._left <= 0:
            return None
        self._seen.add(offset)
        entry = struct.Struct(order + self._entry)
        length = struct.unpack(order + self._count, head)[0] * entry.size
        following = struct.calcsize(f"<{self._next}")
        block = _bytes_at(self._stream, offset + width, min(length + following, self._left))
        self._left -= len(block)
        table = block[: min(length, len(block)) // entry.size * entry.size]
        tags: dict[int, tuple[int, ...]] = {}
        for tag, kind, count, inline in entry.iter_unpack(table):
            if tag in _TAGS and (values := self._values(kind, count, inline)):
                tags.setdefault(tag, values)
        end = block[length : length + following]
        after = struct.unpack(order + self._next, end)[0] if len(end) == following else 0
        return Ifd(offset=offset, is_page=is_page, tags=tags), after

    def _values(self, kind: int, count: int, inline: bytes) -> tuple[int, ...]:
        letter = _NUMBERS.get(kind)
        if letter is None or not 0 < count <= _MAX_VALUES:
            return ()
        values = struct.Struct(f"{self._order}{count}{letter}")
        data = inline[: values.size]
        if values.size > len(inline):
            where = struct.unpack(self._order + ("Q" if self.is_big else "I"), inline)[0]
            data = _bytes_at(self._stream, where, values.size)
            self._left -= len(data)
        return values.unpack(data) if len(data) == values.size else ()


def _bytes_at(stream: BinaryIO, offset: int, count: int) -> bytes:
    try:
        stream.seek(offset)
        return stream.read(count)
    except (OSError, ValueError, OverflowError):  # beyond what the system can address
        return b""
