"""Writes real image files for tests, in every format and with every peculiarity that capture must handle."""

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import OpenEXR
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from stream.media import cv2

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


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(path: Path, width: int, height: int) -> Path:
    """A black PNG of any size, written by hand in little memory (one bit per pixel)."""
    packer, row = zlib.compressobj(1), bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b""))
    return path


_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, row step and column step of each pass (PNG specification, 8.2)."""


def png(levels: NDArray[np.uint16], bits: int, palette: Pixels | None = None, *, is_interlaced: bool = False) -> bytes:
    """A gray or palette PNG with `bits` per sample."""
    height, width = levels.shape
    data = b""
    for top, left, down, right in _ADAM7 if is_interlaced else ((0, 0, 1, 1),):
        for row in levels[top::down, left::right]:
            unpacked = np.unpackbits(row.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 16 - bits :]
            data += (b"\0" + np.packbits(unpacked).tobytes()) if row.size else b""
    header = struct.pack(">IIBBBBB", width, height, bits, 0 if palette is None else 3, 0, 0, int(is_interlaced))
    colours = b"" if palette is None else _chunk(b"PLTE", palette.tobytes())
    content = _chunk(b"IHDR", header) + colours + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def jpeg_bytes(pixels: Pixels, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


@dataclass
class Page:
    """A page of a hand-written TIFF: its data, in equal strips or tiles, and its tags, tag → (field type, values)."""

    data: bytes
    tags: dict[int, tuple[int, list[int]]]
    subs: "list[Page]" = field(default_factory=list)
    parts: int = 1
    is_tiled: bool = False


def page(pixels: Pixels, *, subfile: int = 0, subs: Iterable[Page] = (), **tags: tuple[int, list[int]]) -> Page:
    """An uncompressed gray or RGB page; `tags` are named `t274`."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    stated = {254: (4, [subfile]), 256: (4, [width]), 257: (4, [height]), 258: (3, [8] * channels), 259: (3, [1])}
    stated |= {262: (3, [2 if channels == 3 else 1]), 277: (3, [channels]), 278: (4, [height])}
    return Page(pixels.tobytes(), stated | {int(name[1:]): value for name, value in tags.items()}, list(subs))


def sensor(height: int, width: int) -> Page:
    """Sensor data of a RAW photo, all black."""
    tags = {254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]), 262: (3, [32803])}
    return Page(bytes(height * width * 2), tags | {277: (3, [1]), 278: (4, [height])})


def jpeg_page(content: bytes) -> Page:
    """A JPEG as cameras embed it: only its place and length are stated."""
    return Page(content, {254: (4, [1]), 259: (3, [6])})


def tiff(*pages: Page, order: str = "<", magic: bytes = b"") -> bytes:
    """A TIFF of these pages."""
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 0) + magic)

    def put(data: bytes) -> int:
        out.extend(bytes(len(out) % 2))
        out.extend(data)
        return len(out) - len(data)

    def place(one: Page) -> int:
        tags = dict(one.tags)
        start, length = put(one.data), len(one.data) // one.parts
        places, lengths = (324, 325) if one.is_tiled else (273, 279)
        tags[places] = (4, [start + length * number for number in range(one.parts)])
        tags[lengths] = (4, [length] * one.parts)
        if one.subs:
            tags[330] = (4, [place(sub) for sub in one.subs])
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(values)}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", *values)
            inline = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}I", put(packed))
            entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + inline
        return put(struct.pack(f"{order}H", len(tags)) + entries + bytes(4))

    link = 4
    for one in pages:
        at = place(one)
        out[link : link + 4] = struct.pack(f"{order}I", at)
        link = len(out) - 4
    return bytes(out)


def xmp(orientation: int, *, as_element: bool = False) -> bytes:
    """An XMP packet with nothing but the orientation, as an attribute or an element."""
    inside = (
        f"><tiff:Orientation>{orientation}</tiff:Orientation>" if as_element else f" tiff:Orientation='{orientation}'>"
    )
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def psd(pixels: Pixels) -> bytes:
    """A flat, uncompressed RGB file of Photoshop (Adobe's specification of 2019)."""
    height, width = pixels.shape[:2]
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, height, width, 8, 3)
    return head + bytes(12) + bytes(2) + np.moveaxis(pixels, 2, 0).tobytes()


def linear(path: Path, values: NDArray[np.float32]) -> Path:
    """Float RGB in the format of the suffix: .exr (half), .hdr or .pfm."""
    values = np.ascontiguousarray(values, np.float32)
    if path.suffix == ".exr":
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGB": values.astype(np.float16)}).write(str(path))
    elif path.suffix == ".hdr":
        assert cv2.imwrite(str(path), values[..., ::-1])
    else:
        head = f"PF\n{values.shape[1]} {values.shape[0]}\n-1.0\n".encode()
        path.write_bytes(head + values[::-1].tobytes())
    return path


def one_of_each(folder: Path) -> list[Path]:
    """One valid file of every format and of the layouts that are read in different ways."""
    pixels = scene(24, 32)
    image, block, icc = Image.fromarray(pixels), exif(6), icc_profile()
    floats = pixels.astype(np.float32) / 255
    for name, options in {
        "a.jpg": {"exif": block, "icc_profile": icc},
        "progressive.jpg": {"progressive": True, "xmp": xmp(3)},
        "a.png": {"exif": block, "icc_profile": icc},
        "a.webp": {"exif": block, "icc_profile": icc},
        "lossless.webp": {"lossless": True},
        "a.avif": {"exif": block},
        "lzw.tif": {"compression": "tiff_lzw"},
        "jpeg.tif": {"compression": "jpeg"},
        "a.bmp": {},
        "a.gif": {},
        "a.ppm": {},
        "a.jp2": {},
        "a.tga": {},
        "a.dds": {},
        "a.ico": {},
        "a.pcx": {},
        "a.qoi": {},
    }.items():
        save(folder / name, image, **options)
    save(folder / "cmyk.jpg", image.convert("CMYK"))
    save(folder / "palette.png", image.quantize(16), transparency=bytes(range(16)))
    save_heic(folder / "a.heic", pixels, exif=block)
    for name in ("moving.webp", "moving.png", "moving.avif"):
        animated(folder / name, [pixels, pixels[::-1], pixels], [40, 0, 40])
    cv2.imwrite(str(folder / "float.tif"), floats)
    cv2.imwrite(str(folder / "deep.png"), pixels.astype(np.uint16) * 257)
    for name in ("a.hdr", "a.pfm", "a.exr"):
        linear(folder / name, floats)
    (folder / "a.psd").write_bytes(psd(pixels))
    cv2.imwrite(str(folder / "deep.jp2"), scene(64, 64).astype(np.uint16) * 257)
    subs = [sensor(24, 32), jpeg_page(jpeg_bytes(pixels))]
    (folder / "a.dng").write_bytes(tiff(page(pixels[::4, ::4], subfile=1, subs=subs, t274=(3, [6]))))
    (folder / "pages.tif").write_bytes(tiff(page(pixels[::2, ::2], subfile=1), page(pixels), order=">"))
    return sorted(folder.iterdir())


def png_bytes(number: int = 0) -> bytes:
    """A small PNG; each number gives another one."""
    content = io.BytesIO()
    Image.fromarray(scene(12, 16) + np.uint8(number)).save(content, "png")
    return content.getvalue()
