"""Decodes one image file to an upright sRGB array, whatever its format, bit depth, colour space or orientation.

Invariant: an 8-bit sRGB file is decoded exactly as Pillow does it. Everything else is converted, and a note names what
the conversion had to ignore.
"""

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from pillow_heif import HeifImageFile

from stream.capture.stills import colour
from stream.config import defaults
from stream.errors import SourceError, reason_of
from stream.frames import RgbImage
from stream.media import cv2

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".avif")
) | {".heic", ".heif", ".hif", ".ppm", ".pgm", ".pnm"}
"""Lower-case suffixes of the formats that `open_picture` reads."""
FORMATS = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, PPM"
DEFAULT_MAX_PIXELS = defaults().capture.max_pixels

_PILLOW_FORMATS = ("PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "PPM")
_PREFIX_BYTES = 64
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.32, tag 0x0112: what makes an image of that orientation upright; 1 is upright already."""


@dataclass(frozen=True, kw_only=True)
class DecodedPicture:
    """A decoded image.

    Attributes:
        rgb: uint8 H×W×3, sRGB, upright, contiguous.
        notes: what decoding had to ignore or guess, worded for any image of the kind so that equal notes merge.
        duration_ms: display time of an animation frame; 100 if the file says 0, as in browsers.
    """

    rgb: RgbImage
    notes: tuple[str, ...]
    duration_ms: int = 100


class Picture:
    """An open image file whose header has been read but not its pixels; see `open_picture`.

    Attributes:
        size_hw: upright (height, width) in pixels, from the header.
        format: Pillow's name for the format.
    """

    def __init__(self, path: Path, stream: BinaryIO, image: ImageFile | None, size_hw: tuple[int, int]) -> None:
        self.path, self._stream, self._image = path, stream, image
        self.size_hw = size_hw
        self.format = "TIFF" if image is None else (image.format or "")

    @property
    def frame_count(self) -> int:
        """Number of images in the file; some formats must be read to the end to count them."""
        with _readable_errors(self.path):
            return int(getattr(self._image, "n_frames", 1))

    @property
    def first_frame(self) -> int:
        """Index of the animation's first frame: 1 for a PNG whose default image is not part of it, else 0."""
        return 0 if self._image is None else int(bool(self._image.info.get("default_image")))

    def decode(self) -> DecodedPicture:
        """Decode the primary image of a HEIC, or the first image of any other file, and close the file.

        Alpha is dropped and the colour under it kept, as the official scripts of the depth models do: compositing onto
        a background would add a depth edge. 16-bit samples keep their high byte, as in Pillow and libpng.

        Raises:
            SourceError: the data are damaged or contradict the header.
        """
        try:
            with _readable_errors(self.path):
                return self._decode()
        finally:
            self.close()

    def decode_frame(self, number: int) -> DecodedPicture:
        """Decode one frame of an animation and keep the file open; fast only in ascending order.

        Raises:
            SourceError: see `decode`.
        """
        with _readable_errors(self.path):
            if self._image is not None:
                self._image.seek(number)
            return self._decode()

    def close(self) -> None:
        """Release the file; idempotent."""
        self._stream.close()
        self._image = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _decode(self) -> DecodedPicture:
        notes: list[str] = []
        if self._image is None:
            return DecodedPicture(rgb=_opencv_tiff(self._stream, notes), notes=tuple(notes))
        self._image.load()
        image = colour.to_srgb(self._image, notes)
        turn = _TRANSPOSE.get(_orientation(self._image))
        if turn is not None:
            image = image.transpose(turn)
        duration_ms = round(float(self._image.info.get("duration", 0))) or 100
        return DecodedPicture(rgb=_pack(image), notes=tuple(notes), duration_ms=duration_ms)


def open_picture(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Open an image file and read its header.

    Args:
        path: a file in one of `FORMATS`, recognised by its content, not its suffix.
        max_pixels: larger images are refused before memory is allocated.

    Raises:
        SourceError: the file is missing, unreadable, empty, damaged, too large or not an image.
    """
    where = str(path)
    try:
        stream = path.open("rb")
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=where) from error
    try:
        with _readable_errors(path):
            picture = _open(path, stream)
        if picture.size_hw[0] * picture.size_hw[1] > max_pixels:
            raise _too_large(picture.size_hw, max_pixels, where)
    except SourceError:
        stream.close()
        raise
    return picture


def is_picture(path: Path) -> bool:
    """Return True if the file starts like one of `FORMATS` except PPM.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        prefix = stream.read(_PREFIX_BYTES)
    magic = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"BM", b"GIF8", b"II*\0", b"MM\0*")
    return prefix.startswith(magic) or prefix[8:12] == b"WEBP" or bool(_brands(prefix) & (_HEIF_BRANDS | _AVIF_BRANDS))


def _open(path: Path, stream: BinaryIO) -> Picture:
    prefix = stream.read(_PREFIX_BYTES)
    stream.seek(0)
    brands = _brands(prefix)
    image: ImageFile
    if prefix.startswith(b"\xff\xd8\xff"):
        # Image.open would return an MpoImageFile for a multi-picture JPEG; only its first image, the photo, is wanted.
        image = JpegImagePlugin.JpegImageFile(stream)
    elif brands & _HEIF_BRANDS and not brands & _AVIF_BRANDS:
        image = HeifImageFile(stream)  # type: ignore[no-untyped-call]
    else:
        try:
            image = Image.open(stream, formats=_PILLOW_FORMATS)
        except UnidentifiedImageError:
            if prefix[:4] in (b"II*\0", b"MM\0*"):
                return Picture(path, stream, None, _tiff_size(prefix, stream))
            what, hint = _why_not_an_image(prefix)
            raise SourceError(what, where=str(path), allowed=FORMATS, hint=hint) from None
    width, height = image.size
    is_transposed = _orientation(image) >= 5
    return Picture(path, stream, image, (width, height) if is_transposed else (height, width))


def _orientation(image: ImageFile) -> int:
    """Return the EXIF orientation still to be applied: Pillow rotates TIFF and libheif rotates HEIC while decoding."""
    exif = image.info.get("exif")
    if image.format in ("TIFF", "HEIF") or not isinstance(exif, bytes):
        return 1
    block = Image.Exif()
    try:
        block.load(exif)
        orientation = block.get(ExifTags.Base.Orientation)
    except (SyntaxError, struct.error, LookupError, TypeError, ValueError):  # a damaged block
        return 1
    return orientation if orientation in _TRANSPOSE else 1


def _pack(image: Image.Image) -> RgbImage:
    """Convert Pillow's 4 bytes per pixel to a contiguous array with 3.

    Works in strips that fit the CPU cache: 21 ms for 12 megapixels, where `np.asarray` on the whole image takes 50 ms
    and briefly needs twice the memory.
    """
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, (1 << 18) // width)
    for top in range(0, height, rows):
        rgb[top : top + rows] = np.asarray(image.crop((0, top, width, min(top + rows, height))))
    return rgb


def _tiff_size(prefix: bytes, stream: BinaryIO) -> tuple[int, int]:
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix[:8])
    stream.seek(tags.next)
    tags.load(stream)
    if TiffImagePlugin.IMAGEWIDTH not in tags or TiffImagePlugin.IMAGELENGTH not in tags:
        raise ValueError("the TIFF states no size")
    return int(tags[TiffImagePlugin.IMAGELENGTH]), int(tags[TiffImagePlugin.IMAGEWIDTH])


def _opencv_tiff(stream: BinaryIO, notes: list[str]) -> RgbImage:
    """Decode a TIFF for which Pillow has no mode: float or 32-bit integer colour."""
    stream.seek(0)
    samples = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise ValueError("this kind of TIFF is not supported")
    samples = colour.to_eight_bits(samples, notes)
    if samples.ndim == 2:
        return np.repeat(samples[..., None], 3, axis=2)
    return np.ascontiguousarray(samples[..., 2::-1])


def _too_large(size_hw: tuple[int, int], max_pixels: int, where: str) -> SourceError:
    height, width = size_hw
    return SourceError(
        f"{width}×{height} is {width * height / 1e6:.0f} megapixels",
        where=where,
        allowed=f"up to {max_pixels / 1e6:g} megapixels",
        hint="raise --max-pixels if there is enough memory",
    )


def _brands(prefix: bytes) -> set[bytes]:
    """Return major and compatible brands of an ISO media file (ISO/IEC 14496-12, `ftyp`); none for other files."""
    if prefix[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(prefix[:4], "big"), len(prefix))
    return {prefix[8:12], *(prefix[at : at + 4] for at in range(16, end - 3, 4))}


def _why_not_an_image(prefix: bytes) -> tuple[str, str]:
    """Return what is wrong with a file that starts with `prefix`, and a hint."""
    if not prefix:
        return "the file is empty", ""
    if prefix[4:8] == b"ftyp" or prefix[8:12] == b"AVI " or prefix.startswith(b"\x1aE\xdf\xa3"):
        return "this is a video, not an image", "correct its suffix"
    if prefix.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the image itself", "run git lfs pull"
    return "this is not an image in a supported format", ""


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Run Pillow's code without its size limit, and turn every error into `SourceError`.

    On damaged data decoders raise anything from `OSError` to `IndexError`, so this boundary catches `Exception`.
    """
    try:
        with _pillow_limit_lifted():
            yield
    except SourceError:
        raise
    except Exception as error:
        reason = "not enough memory" if isinstance(error, MemoryError) else reason_of(error)
        raise SourceError(f"cannot be decoded: {reason}", where=str(path)) from error


_limit_lock = threading.Lock()
_limit_users = 0
_limit_saved: int | None = None


@contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    """Suspend Pillow's global size limit while any thread here decodes, and restore it afterwards.

    Pillow warns from 89 megapixels and refuses from 179, and the limit cannot be set per call; `max_pixels` is checked
    against the header instead.
    """
    global _limit_users, _limit_saved
    with _limit_lock:
        if _limit_users == 0:
            _limit_saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if _limit_users == 0:
                Image.MAX_IMAGE_PIXELS = _limit_saved
