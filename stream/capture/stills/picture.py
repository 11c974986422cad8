"""Decodes one image file to an upright sRGB array, whatever its format, bit depth, colour space or orientation.

Invariant: an 8-bit sRGB file is decoded exactly as Pillow does it. Everything else is converted, and a note names what
the conversion had to ignore.
"""

import io
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from pillow_heif import HeifImageFile

from stream.capture.limits import Limits
from stream.capture.stills import by_ffmpeg, colour, cost, formats, jpeg, png, raw, tiff
from stream.capture.stills.boundary import readable_errors
from stream.capture.stills.orientation import focal_35mm_of, in_xmp, orientation_of
from stream.errors import SourceError, reason_of
from stream.files import open_regular
from stream.frames import Intrinsics, RgbImage
from stream.media import cv2

TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.32, tag 0x0112: what makes an image of that orientation upright; 1 is upright already."""
_MULTI_FRAME = 0x02
"""CIPA DC-007, 5.2.3.3: the high byte of the type of a picture in a panorama, a stereo pair or a set of views. Others
are previews, and gain or depth maps, of the photo itself."""
_MOST_READ = 1 << 30
"""Bytes of a file that are read as a whole, to leave out what is damaged."""
_FOCAL_35MM_LOW, _FOCAL_35MM_HIGH = 5, 4000
"""Millimetres. The widest rectilinear lenses have 9, and the longest zooms of compact cameras 3000."""
_UNITS = {"TIFF": "page", "HEIF": "image", "JPEG": "image"}
"""What a file holds several of; others are animations, of frames."""


@dataclass(frozen=True, kw_only=True)
class DecodedPicture:
    """A decoded image.

    Attributes:
        rgb: uint8 H×W×3, sRGB, upright, contiguous.
        notes: what decoding had to ignore or guess, worded for any image of the kind so that equal notes merge.
        duration_ms: display time of an animation frame; 100 if the file says 0, as in browsers.
        unit: what the file holds several of: page, image, frame.
        count: how many it holds; only one of them was decoded.
        focal_35mm: 35 mm equivalent of the focal length, in millimetres, as the file states it; 0 if it states none.
    """

    rgb: RgbImage
    notes: tuple[str, ...]
    duration_ms: int = 100
    unit: str = ""
    count: int = 1
    focal_35mm: int = 0

    @property
    def intrinsics(self) -> Intrinsics | None:
        """The camera, None if the file states no possible focal length; the centre is the image's."""
        height, width = self.rgb.shape[:2]
        return intrinsics_of(self.focal_35mm, (height, width))


def intrinsics_of(focal_35mm: int, size_hw: tuple[int, int]) -> Intrinsics | None:
    """Return the camera of an upright image by its 35 mm equivalent, None if that is unknown (0) or absurd.

    Two pictures are equivalent if their diagonals show the same angle (CIPA DCG-001); the diagonal of 36 mm × 24 mm has
    43.27 mm. So the orientation does not matter.
    """
    if not _FOCAL_35MM_LOW <= focal_35mm <= _FOCAL_35MM_HIGH:
        return None
    height, width = size_hw
    focal = focal_35mm / math.hypot(36, 24) * math.hypot(height, width)
    return Intrinsics(fx=focal, fy=focal, cx=width / 2, cy=height / 2)


class Picture:
    """An open image file whose header has been read but not its pixels; see `open_picture`.

    Args:
        path: the file.
        stream: its content, closed with the picture.
        format: Pillow's name for the format, or the one of `formats`.
        stored_hw: (height, width) before `turn`.
        decoding_bytes: see below.
        image: opened by Pillow.
        decode: decodes the stream instead, and appends to the notes.
        turn: EXIF orientation that is still to be applied.
        count: number of images in the file, if that is not Pillow's number of frames.
        notes: notes from opening.
        focal_35mm: see `DecodedPicture`.

    Attributes:
        size_hw: upright (height, width) in pixels, from the header.
        decoding_bytes: the most memory that decoding may take, its result included.
    """

    def __init__(
        self,
        path: Path,
        stream: BinaryIO,
        *,
        format: str,
        stored_hw: tuple[int, int],
        decoding_bytes: int,
        image: ImageFile | None = None,
        decode: Callable[[BinaryIO, list[str]], RgbImage] | None = None,
        turn: int = 1,
        count: int | None = None,
        notes: tuple[str, ...] = (),
        focal_35mm: int = 0,
    ) -> None:
        self.path, self.format, self.decoding_bytes = path, format, decoding_bytes
        self.size_hw = stored_hw[::-1] if turn >= 5 else stored_hw
        self._stream, self._image, self._decode_stream = stream, image, decode
        self._turn, self._count, self._notes, self._focal_35mm = turn, count, notes, focal_35mm
        self._ground = colour.Ground()
        self._chosen: int | None = None

    @property
    def frame_count(self) -> int:
        """Number of images in the file; some formats must be read to the end to count them."""
        if self._count is not None:
            return self._count
        with readable_errors(self.path):
            return int(getattr(self._image, "n_frames", 1))

    @property
    def first_frame(self) -> int:
        """Index of the animation's first frame: 1 for a PNG whose default image is not part of it, else 0."""
        return 0 if self._image is None else int(bool(self._image.info.get("default_image")))

    @property
    def is_animation(self) -> bool:
        """True if the file is of several frames that are shown one after the other."""
        return self.format in ("GIF", "WEBP", "PNG", "AVIF") and self.frame_count > 1

    def choose(self, number: int) -> None:
        """Let `decode` decode this frame of an animation, alone."""
        self._chosen = number

    def decode(self) -> DecodedPicture:
        """Decode the primary image of a HEIC, or the first full-size image of any other file, and close the file.

        Transparent parts are shown on white or black if there is nothing under them, see `colour.to_srgb`; otherwise
        alpha is dropped and the colour under it kept, as the official scripts of the depth models do. 16-bit samples
        keep their high byte, as in Pillow and libpng.

        Raises:
            SourceError: the data are damaged or contradict the header.
        """
        try:
            if self._chosen is not None:
                return self.decode_frame(self._chosen)
            count = self.frame_count
            with readable_errors(self.path):
                decoded = self._decode()
            return replace(decoded, unit=_UNITS.get(self.format, "frame"), count=count)
        finally:
            self.close()

    def decode_frame(self, number: int) -> DecodedPicture:
        """Decode one frame of an animation and keep the file open; fast only in ascending order.

        Raises:
            SourceError: see `decode`.
        """
        with readable_errors(self.path):
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
        notes = list(self._notes)
        if self._decode_stream is not None:
            rgb = self._decode_stream(self._stream, notes)
            if self._turn > 1:
                rgb = _pack(Image.fromarray(rgb).transpose(TRANSPOSE[self._turn]))
            return DecodedPicture(rgb=rgb, notes=tuple(notes), focal_35mm=self._focal_35mm)
        image = self._image
        if image is None:
            raise ValueError("the file is closed")
        try:
            image.load()
        except OSError:
            completed = self._completed()
            if completed is None:
                raise
            image = completed
            notes.append("the end of the file is missing, but no pixel")
        duration_ms = round(float(image.info.get("duration", 0)))
        upright = colour.to_srgb(image, notes, self._ground)
        if self._turn > 1:
            upright = upright.transpose(TRANSPOSE[self._turn])
        return DecodedPicture(
            rgb=_pack(upright),
            notes=tuple(notes),
            duration_ms=duration_ms if duration_ms > 0 else 100,
            focal_35mm=self._focal_35mm,
        )

    def _completed(self) -> ImageFile | None:
        """Return a JPEG that lacks only its end, loaded; None for any other image."""
        if self.format != "JPEG":
            return None
        self._stream.seek(0)
        content = jpeg.completed(_whole(self._stream))
        if content is None:
            return None
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
        image.load()
        return image


def open_picture(path: Path, *, limits: Limits | None = None) -> Picture:
    """Open an image file and read its header.

    Args:
        path: a file in one of `FORMATS`, recognised by its content, not its suffix.
        limits: larger images are refused before memory is allocated.

    Raises:
        SourceError: the file is missing, unreadable, empty, damaged, too large or not an image.
    """
    where = str(path)
    try:
        stream = open_regular(path)
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=where) from error
    try:
        with readable_errors(path):
            picture = _open(path, stream)
        height, width = picture.size_hw
        if height < 1 or width < 1:
            raise SourceError(f"the image is empty: {width}×{height} pixels", where=where)
        (limits or Limits()).check_picture(picture.size_hw, picture.decoding_bytes, where)
    except SourceError:
        stream.close()
        raise
    return picture


def orientation_in(path: Path) -> int:
    """Return the EXIF orientation that an image file states, 1 to 8, also where its decoder turns it by itself.

    1 if it states none or cannot be read.
    """
    try:
        with readable_errors(path), open_regular(path) as stream:
            is_heif = formats.is_heif(stream.read(formats.PREFIX_BYTES))
            stream.seek(0)
            if is_heif:
                heif = HeifImageFile(stream)  # type: ignore[no-untyped-call]
                return heif.info.get("original_orientation") or 1
            with Image.open(stream) as image:
                stated = image.getexif().get(tiff.ORIENTATION, 1) if image.format == "TIFF" else 0
                return stated or orientation_of(image, stream) or 1
    except SourceError:
        return 1


def _open(path: Path, stream: BinaryIO) -> Picture:
    prefix = stream.read(formats.PREFIX_BYTES)
    ifds = tiff.read_ifds(stream) if prefix[:2] in (b"II", b"MM") else []
    stream.seek(0)
    if raw.is_raw(prefix, ifds):
        return _open_raw(path, stream, ifds)
    if prefix.startswith(jpeg.SOI):
        return _open_jpeg(path, stream)
    if prefix.startswith(formats.TIFF_MAGIC):
        return _open_tiff(path, stream, ifds)
    if formats.is_heif(prefix):
        heif = HeifImageFile(stream)  # type: ignore[no-untyped-call]
        return _by_pillow(path, stream, heif)  # libheif rotates while decoding
    kind = formats.read_by_ffmpeg(prefix)
    if formats.is_jpeg_2000(prefix) and by_ffmpeg.is_deep_jpeg_2000(stream):
        kind = "J2K"
    if kind:
        stored_hw = by_ffmpeg.size_of(kind, stream)
        needed = cost.of_other(kind, stored_hw, stream)
        decode = partial(by_ffmpeg.decode, kind)
        return Picture(path, stream, format=kind, stored_hw=stored_hw, decoding_bytes=needed, decode=decode)
    stream.seek(0)
    image, notes = _identified(path, stream, prefix)
    return _by_pillow(path, stream, image, turn=orientation_of(image, stream), notes=notes)


def _by_pillow(
    path: Path,
    stream: BinaryIO,
    image: ImageFile,
    *,
    turn: int = 1,
    count: int | None = None,
    notes: tuple[str, ...] = (),
    focal_35mm: int = 0,
) -> Picture:
    return Picture(
        path,
        stream,
        format=image.format or "",
        stored_hw=image.size[::-1],
        decoding_bytes=cost.of_image(image, stream, turn),
        image=image,
        turn=turn,
        count=count,
        notes=notes,
        focal_35mm=focal_35mm or focal_35mm_of(image, stream),
    )


def _identified(path: Path, stream: BinaryIO, prefix: bytes) -> tuple[ImageFile, tuple[str, ...]]:
    """Open an image of one of Pillow's formats; damaged metadata of a PNG are left out, with a note."""
    try:
        return Image.open(stream, formats=formats.pillow_formats(path.suffix)), ()
    except UnidentifiedImageError:
        stream.seek(0)
        if prefix.startswith(png.SIGNATURE):
            whole = _whole(stream)
            content = png.without_damaged_metadata(whole)
            if len(content) < len(whole):
                return Image.open(io.BytesIO(content), formats=("PNG",)), ("damaged metadata are ignored",)
        what, hint = formats.why_not_an_image(prefix)
        raise SourceError(what, where=str(path), allowed=formats.FORMATS, hint=hint) from None


def _open_jpeg(
    path: Path, stream: BinaryIO, *, notes: tuple[str, ...] = (), unstated: int = 1, focal_35mm: int = 0
) -> Picture:
    """Open a JPEG; `unstated` is its orientation if it states none, and `focal_35mm` is known from elsewhere."""
    # Image.open would return an MpoImageFile for a multi-picture JPEG; only its first image, the photo, is wanted.
    image = JpegImagePlugin.JpegImageFile(stream)
    count = 1 + _further_pictures(image.info.get("mp"))
    turn = orientation_of(image, stream) or unstated
    return _by_pillow(path, stream, image, turn=turn, count=count, notes=notes, focal_35mm=focal_35mm)


def _further_pictures(index: object) -> int:
    """Return how many pictures beside the first one the index of a multi-picture JPEG lists; previews do not count."""
    if not isinstance(index, bytes):
        return 0
    entries = next((bytes(ifd.tags.get(tiff.MP_ENTRIES, ())) for ifd in tiff.read_ifds(io.BytesIO(index))), b"")
    high_byte = 2 if index.startswith(b"II") else 1  # of the type, the lower 24 bits of an entry's first number
    return sum(entries[at + high_byte] == _MULTI_FRAME for at in range(16, len(entries) - 15, 16))


def _open_raw(path: Path, stream: BinaryIO, ifds: list[tiff.Ifd]) -> Picture:
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        photo = raw.read_raw(data, ifds)
        preview = photo.preview
        if preview is None or not photo.is_large_enough:
            what = f"RAW photo without a large preview ({photo}); convert it to JPEG or TIFF first"
            raise SourceError(what, where=str(path))
        content = data[preview.start : jpeg.end_of(data, preview.header)]
    picture = _open_jpeg(
        path,
        io.BytesIO(content),
        notes=(f"RAW photo: its embedded preview is used ({photo})",),
        unstated=photo.turn,
        focal_35mm=tiff.focal_35mm_in(stream, ifds),
    )
    stream.close()
    return picture


def _open_tiff(path: Path, stream: BinaryIO, ifds: list[tiff.Ifd]) -> Picture:
    """Open the first page of a TIFF that is no reduced version of another one."""
    full = [ifd for ifd in ifds if ifd.is_full]
    main = next(iter(full or ifds), None)
    count = max(1, sum(ifd.is_page for ifd in full))
    focal_35mm = tiff.focal_35mm_in(stream, [main] if main else []) or tiff.focal_35mm_in(stream, ifds)
    stream.seek(0)
    if main is not None and main is not ifds[0]:
        with stream:
            stream = io.BytesIO(tiff.starting_with(_whole(stream), main))
    try:
        image = Image.open(stream, formats=("TIFF",))
    except UnidentifiedImageError:
        if main is None:
            raise ValueError("the TIFF holds no image") from None
        turned = tiff.orientation_in([main])  # by OpenCV, while decoding
        stored_hw = main.size_hw[::-1] if turned >= 5 else main.size_hw
        turn = 1 if turned else in_xmp(bytes(main.tags.get(tiff.XMP, ()))) or 1
        decode = partial(_opencv_tiff, is_inverted=main.get(tiff.PHOTOMETRIC, 1) == 0)
        needed = cost.of_opencv_tiff(main, stream)
        return Picture(
            path,
            stream,
            format="TIFF",
            stored_hw=stored_hw,
            decoding_bytes=needed,
            decode=decode,
            turn=turn,
            count=count,
            focal_35mm=focal_35mm,
        )
    stated = tiff.orientation_in([main] if main else []) or in_xmp(image.info.pop("xmp", b""))
    is_turned = image.getexif().get(tiff.ORIENTATION) in TRANSPOSE  # Pillow rotates while decoding, but not for a BYTE
    turn = 1 if is_turned else stated or 1
    return _by_pillow(path, stream, image, turn=turn, count=count, focal_35mm=focal_35mm)


def _whole(stream: BinaryIO) -> bytes:
    """Read a file from its position to its end.

    Raises:
        ValueError: it is too long to be kept in memory.
    """
    content = stream.read(_MOST_READ + 1)
    if len(content) > _MOST_READ:
        raise ValueError(f"a file of more than {_MOST_READ >> 20} MiB is not repaired")
    return content


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


def _opencv_tiff(stream: BinaryIO, notes: list[str], *, is_inverted: bool) -> RgbImage:
    """Decode a TIFF for which Pillow has no mode: float or 32-bit colour, or deep gray where white is 0."""
    stream.seek(0)
    samples = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise ValueError("this kind of TIFF is not supported")
    is_inverted = is_inverted and samples.ndim == 2 and samples.dtype.kind == "u" and samples.dtype.itemsize > 1
    samples = colour.to_eight_bits(samples, notes)
    if samples.ndim == 2:
        return np.repeat((255 - samples if is_inverted else samples)[..., None], 3, axis=2)
    return np.ascontiguousarray(samples[..., 2::-1])
