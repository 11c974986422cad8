"""Writes real image files for tests, in every format and with every peculiarity that capture must handle."""

import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

P3_TO_XYZ = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB_TO_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Linear RGB → XYZ, both adapted to D50 as ICC profiles are: the colorants of Display P3 and sRGB."""
WHITE_D50 = (0.96420, 1.0, 0.82491)


def scene(height: int = 40, width: int = 64) -> Pixels:
    """A smooth image in which no two corners, rows or columns are alike, so that every rotation and flip is visible."""
    y, x = np.mgrid[:height, :width]
    patch = np.where((y < height // 2) & (x < width // 2), 200, 40)
    return np.stack([x * 255 // width, y * 255 // height, patch], axis=-1).astype(np.uint8)


def exif(orientation: int) -> bytes:
    """An EXIF block with nothing but the orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def exif_with_damaged_tag(orientation: int) -> bytes:
    """An EXIF block with an orientation and, after it, a Software tag that points beyond the end of the block."""
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(">HHII", 0x0131, 2, 20, 90)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)


STORED_FROM_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""EXIF orientation → the stored form of an upright image, from the positions of row 0 and column 0 in the standard."""


def stored(upright: Pixels, orientation: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright)))


def save(path: Path, image: Image.Image | Pixels, **options: object) -> Path:
    """Save through Pillow in the format of the suffix."""
    made = image if isinstance(image, Image.Image) else Image.fromarray(image)
    made.save(path, **options)
    return path


def save_heic(path: Path, *images: Pixels, primary: int = 0, mode: str = "", **options: object) -> Path:
    """Save near-lossless HEIC; several images make a multi-image file whose main one is `primary`."""
    file = pillow_heif.HeifFile()
    for pixels in images:
        height, width, channels = pixels.shape
        default = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        file.add_frombytes(mode or default, (width, height), pixels.tobytes())
    file.save(path, quality=100, chroma=444, primary_index=primary, **options)
    return path


def icc_profile(to_xyz: NDArray[np.float64] = P3_TO_XYZ, *, gamma: float = 2.2) -> bytes:
    """A minimal ICC v2 matrix profile for RGB with the given colorants and a pure power curve."""
    colorants = {name: _xyz(to_xyz[:, column]) for column, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"RGB ", colorants | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma)))


def gray_profile(*, gamma: float) -> bytes:
    """A minimal ICC v2 profile for gray with a pure power curve."""
    return _profile(b"GRAY", {b"kTRC": _curve(gamma)})


def _xyz(values: Iterable[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"test profile\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {
        b"desc": description + bytes(-len(description) % 4),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": _xyz(WHITE_D50),
        **tags,
    }
    at = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(data), len(body))
        data += body
    header = struct.pack(">I4sI4s4s4s", at + len(data), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += b"".join(struct.pack(">i", round(v * 65536)) for v in WHITE_D50)
    return header.ljust(128, b"\0") + table + data


def p3_to_srgb(pixels: Pixels, *, gamma: float = 2.2) -> NDArray[np.float64]:
    """What the pixels of a file tagged with `icc_profile()` are in sRGB, 0…255, out-of-gamut values clipped."""
    linear = (pixels / 255) ** gamma @ (np.linalg.inv(SRGB_TO_XYZ) @ P3_TO_XYZ).T
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(encoded * 255)


def animated(path: Path, pictures: list[Pixels], durations_ms: list[int], **options: object) -> Path:
    """An animated WebP, PNG, GIF or AVIF, lossless where the format can."""
    first, *rest = (Image.fromarray(picture) for picture in pictures)
    if path.suffix == ".webp":
        options["lossless"] = True
    first.save(path, save_all=True, append_images=rest, duration=durations_ms, loop=0, **options)
    return path


def png_of_size(path: Path, width: int, height: int) -> Path:
    """A black PNG of any size, written by hand in little memory (one bit per pixel)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer, row = zlib.compressobj(1), bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def jpeg_bytes(pixels: Pixels, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()
