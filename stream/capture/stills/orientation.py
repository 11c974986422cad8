"""Finds what cameras and editors write about an image, in EXIF, XMP, and the text chunks of a PNG: its orientation and
the focal length.

Invariant: EXIF comes before XMP, as in viewers; a damaged block states nothing.
"""

import io
import re
from typing import BinaryIO

from PIL.ImageFile import ImageFile

from stream.capture.stills import png, tiff

_IN_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*["'<]""")
"""As an attribute or an element (XMP specification, part 2, 3.3)."""
_FOCAL_IN_XMP = re.compile(rb"""exif:FocalLengthIn35mmFilm\s*(?:=\s*["']|>)\s*(\d{1,5})\s*["'<]""")
_EXIF_PREFIX, _XMP_PREFIX = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_RAW_PROFILES = frozenset((b"raw profile type exif", b"raw profile type app1", b"raw profile type xmp"))
"""ImageMagick's chunks for metadata, as hexadecimal text."""


def orientation_of(image: ImageFile, stream: BinaryIO) -> int:
    """Return the orientation that an image states: 1 to 8; 0 if it states none.

    Args:
        image: opened, of any format but TIFF and HEIF, which have rules of their own.
        stream: its file; the position is kept.
    """
    exifs, xmps = _blocks(image, stream)
    return next(filter(None, (*map(in_exif, exifs), *map(in_xmp, xmps))), 0)


def focal_35mm_of(image: ImageFile, stream: BinaryIO) -> int:
    """Return the 35 mm equivalent of the focal length that an image states, in millimetres; 0 if it states none.

    Args:
        image, stream: see `orientation_of`; HEIF, too.
    """
    exifs, xmps = _blocks(image, stream)
    found = (_FOCAL_IN_XMP.search(packet.replace(b"\0", b"")) for packet in xmps)
    return next(filter(None, (*map(_focal_in_exif, exifs), *(int(one[1]) for one in found if one))), 0)


def _blocks(image: ImageFile, stream: BinaryIO) -> tuple[list[bytes], list[bytes]]:
    """Return the EXIF blocks and the XMP packets of an image."""
    if image.format == "PNG":
        at = stream.tell()
        exifs, xmps = _in_png(stream)
        stream.seek(at)
        return exifs, xmps
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    return [exif] if isinstance(exif, bytes) else [], [xmp] if isinstance(xmp, bytes) else []


def _focal_in_exif(block: bytes) -> int:
    stream = io.BytesIO(block.removeprefix(_EXIF_PREFIX))
    return tiff.focal_35mm_in(stream, tiff.read_ifds(stream))


def in_exif(block: bytes) -> int:
    """Return the orientation in an EXIF block with or without its prefix, 0 if it states none."""
    return tiff.orientation_in(tiff.read_ifds(io.BytesIO(block.removeprefix(_EXIF_PREFIX)))[:1])


def in_xmp(packet: bytes) -> int:
    """Return the orientation in an XMP packet, 0 if it states none."""
    found = _IN_XMP.search(packet.replace(b"\0", b""))  # in UTF-16 and UTF-32, too
    return int(found[1]) if found else 0


def _in_png(stream: BinaryIO) -> tuple[list[bytes], list[bytes]]:
    """Return the EXIF blocks and the XMP packets of a PNG, wherever they stand."""
    exifs, xmps = [], []
    for kind, content in png.metadata(stream):
        if kind == b"eXIf":
            exifs.append(content)
            continue
        key, text = png.text_of(kind, content)
        if key == b"XML:com.adobe.xmp":
            xmps.append(text)
        elif key.lower() in _RAW_PROFILES:
            profile = _raw_profile(text)
            (xmps if profile.startswith((_XMP_PREFIX, b"<")) else exifs).append(profile)
    return exifs, xmps


def _raw_profile(text: bytes) -> bytes:
    """Return the content of a raw profile: its name and its length precede the digits, each on a line."""
    try:
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except ValueError:
        return b""
