"""How much memory decoding a picture takes, estimated from its header.

The numbers are bytes per pixel of peaks that were measured with images of 50 to 180 megapixels, rounded up; see
tests/capture/test_limits.py. Invariant: an estimate is an upper bound, whatever the file declares.
"""

import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL.IcoImagePlugin import IcoImageFile

from stream.capture.stills import png
from stream.capture.stills.tiff import BITS, ROWS, SAMPLES, TILE_HEIGHT, TILE_WIDTH

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from stream.capture.stills.tiff import Ifd

_RGB, _FULL = 3, 4
"""Bytes per pixel of the result, and of Pillow's images with more than one channel."""
_MODES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2}
"""Bytes per pixel of Pillow's other modes."""
_DEEP = frozenset(("I", "F", "I;16", "I;16L", "I;16B", "I;16N"))
_IN_DECODER = {"WEBP": 14, "AVIF": 14, "HEIF": 16, "JPEG2000": 20, "GIF": 4, "TIFF": 2, "PSD": 2, "DDS": 2}
"""Bytes per pixel that the decoders of these formats hold beside Pillow's image."""
ANIMATED = 14
"""Bytes per pixel that an animation takes on top: the canvas, the frame before it, and frames that wait."""
_FIXED = 12_000_000
"""Bytes of decoding any picture: code that is loaded, tables."""
_PROGRESSIVE = 2
"""Bytes of a coefficient in a progressive JPEG, all of which libjpeg keeps."""
_OTHER = {"EXR": 32, "HDR": 32, "PFM": 32, "DPX": 24, "QOI": 12, "J2K": 60}
"""Bytes per pixel of the formats that Pillow does not decode."""


def of_image(image: "ImageFile", stream: BinaryIO, turn: int) -> int:
    """Return the most bytes that decoding an opened image to RGB takes.

    Args:
        stream: its file; the position is kept.
        turn: its EXIF orientation, if it is still to be applied.
    """
    info: Any = image.info
    stored = _MODES.get(image.mode, _FULL)
    copies = (image.mode != "RGB") + bool(info.get("icc_profile")) + (turn > 1) + ("transparency" in info)
    per_pixel = stored + _FULL * min(2, copies) + _RGB
    if image.mode in _DEEP:
        per_pixel = 2 * stored + 6 + _FULL * (turn > 1)
    per_pixel += _IN_DECODER.get(image.format or "", 0)
    if image.format == "JPEG" and (info.get("progressive") or info.get("progression")):
        per_pixel = max(per_pixel, stored + _PROGRESSIVE * len(image.getbands()) + 1)
    return _pixels(image, stream) * per_pixel + _in_blocks(image) + _FIXED


def of_other(kind: str, size_hw: tuple[int, int], stream: BinaryIO) -> int:
    """Return the same for a format that Pillow does not decode: its file is read into memory too."""
    return size_hw[0] * size_hw[1] * _OTHER[kind] + 2 * stream.seek(0, 2) + _FIXED


def of_opencv_tiff(ifd: "Ifd", stream: BinaryIO) -> int:
    """Return the same for a page of a TIFF that OpenCV decodes: it keeps the samples as they are, and may copy them."""
    height, width = ifd.size_hw
    sample_bytes = max(8, ifd.get(BITS, 1)) * max(1, ifd.get(SAMPLES, 1)) // 8
    tile = ifd.get(TILE_WIDTH) * ifd.get(TILE_HEIGHT)
    return (2 * height * width + tile) * sample_bytes + 7 * height * width + 2 * stream.seek(0, 2) + _FIXED


def _pixels(image: "ImageFile", stream: BinaryIO) -> int:
    """Return the pixels of an image; of an icon those of its largest image, which may contradict the icon's header."""
    found = [image.width * image.height]
    if isinstance(image, IcoImageFile):
        at = stream.tell()
        for entry in image.ico.entry:
            stream.seek(entry.offset)
            head = stream.read(24)
            if len(head) == 24:
                is_png = head.startswith(png.SIGNATURE)
                width, height = struct.unpack(">II", head[16:]) if is_png else struct.unpack("<ii", head[4:12])
                found.append(abs(width * height))
        stream.seek(at)
    return max(found)


def _in_blocks(image: "ImageFile") -> int:
    """Bytes of a strip or a tile of a TIFF, of which libtiff holds one; a tile may be larger than the image."""
    tags: Any = getattr(image, "tag_v2", None)
    if not tags:
        return 0
    try:
        width, rows = int(tags.get(TILE_WIDTH, image.width)), int(tags.get(ROWS, image.height))
        rows = int(tags[TILE_HEIGHT]) if TILE_WIDTH in tags else min(rows, image.height)
        samples, bits = int(tags.get(SAMPLES, 1)), tags.get(BITS, 8)
        deepest = max(bits) if isinstance(bits, tuple) else int(bits)
    except (KeyError, TypeError, ValueError):
        return image.width * image.height * _FULL
    return 2 * width * rows * max(1, samples) * max(8, deepest) // 8
