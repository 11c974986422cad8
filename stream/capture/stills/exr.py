"""The header of an OpenEXR file: what it holds, and why it is no picture that can be read.

Invariant: nothing is decoded here; FFmpeg decodes what passes, and only that.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

_TILED, DEEP, _MULTI_PART = 0x200, 0x800, 0x1000
"""Bits of the version field (OpenEXR file layout)."""
UINT = 0
_NAMES = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
"""Compressions by their number; FFmpeg 8 knows no others."""
_DWA = (8, 9)
_REC_709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
_SAME_PRIMARIES = 0.01
_MOST_NAMED = 6


class Window(NamedTuple):
    """A rectangle of pixels, its ends included."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.right - self.left + 1, self.bottom - self.top + 1


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of a file, or of its first part.

    Attributes:
        channels: (type, horizontal sampling, vertical sampling) by name.
        compression: its number.
        display, data: windows of the image, and of the pixels that are stored.
        windows_at: where the file holds the windows.
        chromaticities: of red, green, blue and white; empty if not stated.
        kind: `scanlineimage`, `deeptile`, …; "" if not stated.
        flags: of the version field.
        end: where the header ends, of a file of one part.
    """

    channels: dict[str, tuple[int, int, int]]
    compression: int
    display: Window
    data: Window
    windows_at: tuple[int, int]
    chromaticities: tuple[float, ...]
    kind: str
    flags: int
    end: int

    @property
    def is_multi_part(self) -> bool:
        """Other parts follow."""
        return bool(self.flags & _MULTI_PART)

    @property
    def largest(self) -> tuple[int, int]:
        """(width, height) of the larger window, which takes the memory."""
        return max(self.display.size, self.data.size, key=lambda size: size[0] * size[1])

    def check(self, notes: list[str]) -> None:
        """Append what is left out to `notes`.

        Raises:
            ValueError: this is no picture that is read properly, and why.
        """
        if self.flags & DEEP or self.kind.startswith("deep"):
            raise ValueError("deep EXR is not supported; flatten it first")
        names = {name.upper(): name for name in self.channels}
        used = [names[key] for key in "RGB" if key in names]
        used = used if len(used) == 3 else [names["Y"]] if "Y" in names and not used else []
        if not used:
            shown = ", ".join(list(self.channels)[:_MOST_NAMED]) + ", …" * (len(self.channels) > _MOST_NAMED)
            hint = "save one part with channels R, G and B" if self.is_multi_part else "save channels R, G and B"
            raise ValueError(f"has no picture: its channels are {shown}; {hint}")
        if any(self.channels[name][0] == UINT for name in used):
            raise ValueError("channels of whole numbers are no picture; save half or float")
        if any(self.channels[name][1:] != (1, 1) for name in used):
            raise ValueError("subsampled channels are not supported; save R, G and B in full")
        if self.compression >= len(_NAMES):
            raise ValueError(f"its compression (number {self.compression}) is not supported; save it with ZIP")
        if len(used) == 1 and self.compression in _DWA:
            raise ValueError("gray EXR with DWA compression is not supported")
        if self.is_multi_part:
            notes.append("the first part of the file is used")
        if len(used) == 1 and {"RY", "BY"} <= names.keys():
            notes.append("luminance is used, and colour (RY, BY) left out")
        if self.chromaticities and any(
            abs(one - other) > _SAME_PRIMARIES for one, other in zip(self.chromaticities, _REC_709, strict=False)
        ):
            notes.append("its primaries are not those of Rec. 709, and its colours are not converted")


def read_header(head: bytes) -> Header:
    """The header at the start of a file.

    Raises:
        ValueError, IndexError, struct.error: it is damaged, or longer than `head`.
    """
    flags: int = struct.unpack("<I", head[4:8])[0]
    at, found, places = 8, dict[str, bytes](), dict[str, int]()
    while head[at : at + 1] != b"\0":  # an attribute: name, type, length, value
        name_end = head.index(b"\0", at)
        type_end = head.index(b"\0", name_end + 1)
        length: int = struct.unpack("<i", head[type_end + 1 : type_end + 5])[0]
        name, start = head[at:name_end].decode("latin-1"), type_end + 5
        if length < 0 or start + length >= len(head):
            raise ValueError("the header is damaged, or too long")
        found[name], places[name] = head[start : start + length], start
        at = start + length
    try:
        chromaticities = found.get("chromaticities", b"")
        return Header(
            channels=_channels(found["channels"]),
            compression=found["compression"][0],
            display=Window(*struct.unpack("<4i", found["displayWindow"])),
            data=Window(*struct.unpack("<4i", found["dataWindow"])),
            windows_at=(places["displayWindow"], places["dataWindow"]),
            chromaticities=struct.unpack("<8f", chromaticities) if len(chromaticities) == 32 else (),
            kind=found.get("type", b"").decode("latin-1"),
            flags=flags,
            end=at + 1,
        )
    except KeyError as error:
        raise ValueError(f"the header is damaged: it states no {error.args[0]}") from None


def _channels(content: bytes) -> dict[str, tuple[int, int, int]]:
    channels, at = dict[str, tuple[int, int, int]](), 0
    while content[at : at + 1] not in (b"\0", b""):
        end = content.index(b"\0", at)
        kind, across, down = struct.unpack("<i4xii", content[end + 1 : end + 17])
        channels[content[at:end].decode("latin-1")] = kind, across, down
        at = end + 17
    return channels


def chunk_places(content: bytes, header: Header) -> list[int]:
    """Where the chunks of a file of one part begin, in no order.

    Raises:
        ValueError: the file is cut off: its table refers to data beyond the end, or has gaps.
    """
    count = _chunk_count(content, header)
    table = content[header.end : header.end + 8 * count]
    places = list(struct.unpack(f"<{count}Q", table)) if len(table) == 8 * count else []
    head = 20 if header.flags & _TILED else 8  # coordinates, then the length
    last = max(places, default=0)
    if not places or min(places) < header.end + 8 * count or last + head > len(content):
        raise ValueError("the image is cut off")
    length: int = struct.unpack("<I", content[last + head - 4 : last + head])[0]
    if last + head + length > len(content):
        raise ValueError("the image is cut off")
    return places


def _chunk_count(content: bytes, header: Header) -> int:
    """The length of the table: one chunk for so many lines; of a tiled file, up to where the first chunk begins."""
    if header.flags & _TILED:
        first: int = struct.unpack("<Q", content[header.end : header.end + 8])[0]
        if not header.end < first <= len(content):
            raise ValueError("the image is cut off")
        return (first - header.end) // 8
    lines = (1, 1, 1, 16, 32, 16, 32, 32, 32, 256)[header.compression]
    return -(-header.data.size[1] // lines)


def at_origin(content: bytes, header: Header) -> bytes:
    """The file with its display window at (0, 0), where FFmpeg looks for it.

    Raises:
        ValueError: see `chunk_places`; or the file has several parts.
    """
    left, top = header.display.left, header.display.top
    if (left, top) == (0, 0):
        return content
    if header.is_multi_part:
        raise ValueError("several parts with a display window that begins elsewhere are not supported; save one part")
    moved = bytearray(content)
    for at, window in zip(header.windows_at, (header.display, header.data), strict=True):
        shifted = (window.left - left, window.top - top, window.right - left, window.bottom - top)
        struct.pack_into("<4i", moved, at, *shifted)
    if not header.flags & _TILED:  # a tile has its number, a chunk of lines the first one's
        for at in set(chunk_places(content, header)):
            struct.pack_into("<i", moved, at, struct.unpack_from("<i", content, at)[0] - top)
    return bytes(moved)
