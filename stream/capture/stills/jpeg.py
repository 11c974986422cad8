"""Reads the markers of JPEG data: the size of an image, where it ends, whether all of its pixels are there.

Invariant: damaged data never raise `IndexError` or loop; a header that cannot be followed is none.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from mmap import mmap

import numpy as np
from PIL import Image

SOI = b"\xff\xd8\xff"
_EOI = b"\xff\xd9"
_SOS = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers SOF0 to SOF15 (ITU-T T.81, table B.1)."""
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
"""A marker that ends entropy-coded data: in these, FF is followed by 00, a restart marker or fill bytes."""
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_FILL_BYTES = 4096
_STRIP_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Header:
    """What precedes the first scan of a JPEG.

    Attributes:
        size_hw: stored (height, width).
        frame: the marker of its kind, 0xC0 to 0xCF.
        bits: of a sample.
        components: 1 gray, 3 colour, 4 inks.
        scan: position of the first SOS marker.
    """

    size_hw: tuple[int, int]
    frame: int
    bits: int
    components: int
    scan: int


def header_at(data: bytes | mmap, start: int) -> Header | None:
    """Follow the segments of the JPEG that starts at `start`, as far as its first scan."""
    at, frame, body = start + 2, 0, b""
    while (head := data[at : at + 4])[:1] == b"\xff" and len(head) == 4:
        marker = head[1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _SOS:
            if len(body) < 6:
                return None
            size_hw = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return Header(size_hw=size_hw, frame=frame, bits=body[0], components=body[5], scan=at)
        if marker in _FRAMES:
            frame, body = marker, data[at + 4 : at + 10]
        at += 2 + max(2, int.from_bytes(head[2:4], "big"))
    return None


def end_of(data: bytes | mmap, header: Header) -> int | None:
    """Return the position after the EOI marker of the JPEG with `header`; None if it has none."""
    at = header.scan
    while (found := _MARKER.search(data, at)) is not None:
        if found[0] == _EOI:
            return found.end()
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    return None


def completed(content: bytes) -> bytes | None:
    """Return the content of a JPEG that lacks nothing but its end, with an EOI marker appended; None for any other.

    Its pixels are all there if none of them depends on what follows: libjpeg reads three continuations, nothing and
    two of noise, to the same image. Noise reaches the image if the last block lacks one bit. A restart marker is put
    into the noise, since libjpeg leaves out a whole interval whose marker is missing. A progressive image must also
    have every bit of every coefficient, because a scan that is missing as a whole changes no pixel.
    """
    header = header_at(content, 0)
    if header is None or end_of(content, header) is not None:
        return None
    if header.frame in _PROGRESSIVE and not _has_all_scans(content, header):
        return None
    content = content.removesuffix(b"\xff")
    restarts = _RESTART.findall(content, header.scan)
    restart = bytes((0xFF, 0xD0 + ((restarts[-1][0] - 0xD0 + 1) % 8 if restarts else 0)))
    tails = [b""]
    for seed in range(2):
        noise = np.random.default_rng(seed).integers(0, 255, _FILL_BYTES, np.uint8).tobytes()  # contains no FF
        tails.append(noise + restart + noise)
    for reduction in (8, 1):  # what lacks more than a few blocks shows it at an eighth, in a fraction of the memory
        first = None
        for tail in tails:
            digest = _digest(content + tail + _EOI, reduction)
            if digest is None or (first is not None and digest != first):
                return None
            first = digest
    return content + _EOI


def _digest(content: bytes, reduction: int) -> bytes | None:
    """Return a digest of the pixels at 1/`reduction` of their size, which keeps no image; None if there are none."""
    digest = hashlib.sha256()
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if reduction > 1:
                image.draft(image.mode, (max(1, image.width // reduction), max(1, image.height // reduction)))
            image.load()
            for top in range(0, image.height, _STRIP_ROWS):
                strip = (0, top, image.width, min(top + _STRIP_ROWS, image.height))
                digest.update(image.crop(strip).tobytes())
    except (OSError, SyntaxError, ValueError):
        return None
    return digest.digest()


def _has_all_scans(content: bytes, header: Header) -> bool:
    """Whether the scans of a progressive JPEG refine every coefficient of every component to its last bit."""
    missing = {(component, k) for component in range(header.components) for k in range(64)}
    numbers: dict[int, int] = {}
    at = content.find(b"\xff\xda", header.scan)
    while at >= 0:
        body = content[at + 4 : at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")]
        count = body[0] if body else 0
        if len(body) != 4 + 2 * count:
            return False
        low, high, bit = body[-3], body[-2], body[-1] & 15
        components = [numbers.setdefault(body[1 + 2 * i], len(numbers)) for i in range(count)]
        if bit == 0:
            missing -= {(component, k) for component in components for k in range(low, high + 1)}
        at = content.find(b"\xff\xda", at + 4)
    return not missing
