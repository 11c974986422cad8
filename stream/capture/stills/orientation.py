"""Which way up a picture is, from its EXIF block.

Invariant: a damaged block means "upright", never an error.
"""

import struct

from PIL import Image

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.32, tag 0x0112: what makes a picture of that orientation upright."""


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """`image` turned and mirrored so that a picture of EXIF `orientation` stands upright; itself for 1."""
    turn = _TRANSPOSE.get(orientation)
    return image if turn is None else image.transpose(turn)


def exif_orientation(exif: bytes) -> int:
    """Orientation 1…8 of an EXIF block; 1 where it has none or is damaged.

    Read here rather than with Pillow, which warns about every other damaged tag of the block.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(count):
            tag, _kind, _length, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
