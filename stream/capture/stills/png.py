"""Reads the chunks of a PNG where Pillow does not: metadata after the pixels, and files with damage beside the pixels.

Invariant: damaged data never raise; the pixels' own chunks are never changed.
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 1 << 22
"""Limit on a text chunk, compressed or not."""
_METADATA = frozenset((b"eXIf", b"tEXt", b"zTXt", b"iTXt"))
_ALWAYS_NEEDED = frozenset((b"tRNS", b"acTL", b"fcTL", b"fdAT"))
"""Chunks that are ancillary by name but carry pixels or how they are shown."""


def metadata(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of the chunks with EXIF or text, wherever they stand; checksums are not verified."""
    at = len(SIGNATURE)
    while True:
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        if head[4:] in _METADATA and length <= MAX_TEXT_BYTES:
            yield head[4:], stream.read(length)
        at += 12 + length


def text_of(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Return keyword and text of a text chunk (PNG specification, 11.3.3); no text if it cannot be decompressed."""
    key, _, rest = content.partition(b"\0")
    is_compressed = kind == b"zTXt"
    if kind == b"iTXt":
        is_compressed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # language, translated keyword
    elif is_compressed:
        rest = rest[1:]
    if not is_compressed:
        return key, rest
    try:
        return key, zlib.decompressobj().decompress(rest, MAX_TEXT_BYTES)
    except zlib.error:
        return key, b""


def without_damaged_metadata(content: bytes) -> bytes:
    """Return the content without the ancillary chunks whose checksum is wrong, which decoders may ignore (13.1)."""
    parts, at = [content[: len(SIGNATURE)]], len(SIGNATURE)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        kind = content[at + 4 : at + 8]
        is_ancillary = bool(kind[0] & 0x20) and kind not in _ALWAYS_NEEDED
        stated = int.from_bytes(content[end - 4 : end], "big")
        if end > len(content) or not is_ancillary or zlib.crc32(content[at + 4 : end - 4]) == stated:
            parts.append(content[at:end])
        at = end
    return b"".join((*parts, content[at:]))
