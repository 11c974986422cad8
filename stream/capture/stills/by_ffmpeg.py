"""Decodes the image formats that Pillow does not read: EXR, HDR, DPX, PFM, QOI and deep JPEG 2000.

Invariant: the size is read from the header before FFmpeg sees the file, since its probing decodes; a file that is cut
off is refused, also where FFmpeg would fill in black.
"""

import io
import re
import struct
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream.capture.stills import exr
from stream.frames import RgbImage
from stream.media import open_input, to_rgb

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_HEADER_BYTES = 1 << 20
_DPX_BIG = b"SDPX"
_DPX_ORIENTATION, _DPX_TRANSFER = 768, 801
"""Where the orientation, before width and height, and the first element's transfer stand (SMPTE ST 268-1)."""
_DPX_DENSITY = (1, 3)
"""Transfers: printing density, and logarithmic."""
_Float = TypeVar("_Float", np.float32, np.float64)
_BRIGHT_SHARE = 0.01
"""Share of an HDR image that may be clipped at white: lamps, the sun and their reflections."""
_STRIP_PIXELS = 1 << 18
_QOI_END, _QOI_TAIL = bytes(7) + b"\1", 256
"""The end marker, and how far from the end of the file it is looked for: other bytes may follow."""
_HDR_MOST = 1e30
"""Samples above are no light: an exponent of 255, as in the bytes that `_plain_hdr` adds, makes 6.6e35 or more."""
_SIZ = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream and marker of its size (ITU-T T.800, A.5.1)."""


def is_deep_jpeg_2000(stream: BinaryIO) -> bool:
    """Return True for JPEG 2000 colour of more than 8 bits, in which Pillow 13 wraps bright samples to black."""
    stream.seek(0)
    head = stream.read(_HEADER_BYTES)
    at = head.find(_SIZ)
    components, precision = head[at + 40 : at + 42], head[at + 42 : at + 43]
    return at >= 0 and len(precision) == 1 and int.from_bytes(components, "big") >= 3 and precision[0] & 0x7F >= 8


def size_of(kind: str, stream: BinaryIO) -> tuple[int, int]:
    """Return (height, width) from the header.

    Raises:
        ValueError, IndexError, struct.error: the header is damaged.
    """
    stream.seek(0)
    head = stream.read(_HEADER_BYTES)
    width, height = _width_and_height(kind, head)
    return height, width


def decode(kind: str, stream: BinaryIO, notes: list[str]) -> RgbImage:
    """Decode the whole file; float samples are linear light, see `_from_linear`.

    Raises:
        ValueError: the file holds no image.
        av.error.FFmpegError: it cannot be decoded.
    """
    stream.seek(0)
    content = stream.read()
    if kind == "HDR":
        content = _plain_hdr(content)
    if kind == "EXR":
        content = _checked_exr(content, notes)
    if kind == "QOI" and _QOI_END not in content[-_QOI_TAIL:]:
        raise ValueError("the image is cut off")
    with open_input(io.BytesIO(content), format=f"{kind.lower()}_pipe") as container:
        frame = next(container.decode(video=0), None)
        if frame is None:
            raise ValueError(f"this kind of {kind} is not supported")
        if kind == "DPX":
            return _from_dpx(frame, content[_DPX_TRANSFER], notes)
        is_float = any(name in frame.format.name for name in ("f16", "f32"))
        if not is_float:
            return to_rgb(frame)
        samples = _samples(frame)
        if kind == "HDR" and samples[-1].max() > _HDR_MOST:
            raise ValueError("the image is cut off")
        return _from_linear(samples, notes)


def _checked_exr(content: bytes, notes: list[str]) -> bytes:
    """The file as FFmpeg reads it properly.

    Raises:
        ValueError: it is no picture, not supported, or cut off.
    """
    header = exr.read_header(content)
    header.check(notes)
    if not header.is_multi_part:
        exr.chunk_places(content, header)
    return exr.at_origin(content, header)


def _width_and_height(kind: str, head: bytes) -> tuple[int, int]:
    if kind == "QOI":
        return struct.unpack(">II", head[4:12])
    if kind == "J2K":
        right, bottom, left, top = struct.unpack(">4I", head[head.index(_SIZ) + 8 :][:16])
        return right - left, bottom - top
    if kind == "PFM":
        width, height = head.split(maxsplit=3)[1:3]
        return int(width), int(height)
    if kind == "EXR":
        header = exr.read_header(head)
        header.check([])
        return header.largest
    if kind == "DPX":
        return _dpx_size(head)
    return _hdr_header(head)[:2]


def _hdr_header(head: bytes) -> tuple[int, int, int]:
    """Width, height, and where the pixels start."""
    found = re.search(rb"\n-Y (\d+) \+X (\d+)\n", head)
    if found is None:
        raise ValueError("the header states no size, or the image is turned or mirrored; save it upright")
    if re.search(rb"\nFORMAT=(?!32-bit_rle_rgbe\s)", head[: found.start() + 1]):
        raise ValueError("its pixels are not RGBE; save it as 32-bit_rle_rgbe")
    return int(found[2]), int(found[1]), found.end()


def _plain_hdr(content: bytes) -> bytes:
    """The file with the one header that FFmpeg reads, and a row of `_HDR_MOST` behind it.

    FFmpeg leaves what is missing of the last row as it finds it: with these bytes, it finds them.
    """
    width, height, start = _hdr_header(content)
    head = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode()
    return head + content[start:] + b"\xff" * (4 * width + 64)


def _dpx_size(head: bytes) -> tuple[int, int]:
    order = ">" if head.startswith(_DPX_BIG) else "<"
    (orientation,) = struct.unpack(f"{order}H", head[_DPX_ORIENTATION : _DPX_ORIENTATION + 2])
    if orientation not in (0, 0xFFFF):  # not stated
        raise ValueError("its lines do not go from left to right and from top to bottom; save it upright")
    width, height = struct.unpack(f"{order}II", head[_DPX_ORIENTATION + 4 : _DPX_ORIENTATION + 12])
    return width, height


def _from_dpx(frame: "VideoFrame", transfer: int, notes: list[str]) -> RgbImage:
    """Convert film's density to sRGB (Kodak, "Cineon Image File Format"); other code values are shown as they are.

    Also those marked as linear: FFmpeg and others write that into every file, and convert nothing.
    """
    if transfer not in _DPX_DENSITY:
        return to_rgb(frame)
    notes.append("film density (log DPX) is shown as sRGB: code 685 of 1023 is white, what is brighter is clipped")
    codes = np.arange(1 << 16, dtype=np.float64) * (1023 / 65535)
    black = 10 ** ((95 - 685) * 0.002 / 0.6)
    light = np.clip((10 ** ((codes - 685) * 0.002 / 0.6) - black) / (1 - black), 0, 1)
    table = np.rint(_encoded(light) * 255).astype(np.uint8)
    return np.asarray(table[np.asarray(frame.to_ndarray(format="rgb48le"))])


def _samples(frame: "VideoFrame") -> NDArray[np.float32] | NDArray[np.float16]:
    """Return the samples of a float frame as H×W×3; PyAV does not convert 16-bit floats, which only EXR has.

    They are views of the frame where it stores whole pixels, otherwise copies.
    """
    if "f32" in frame.format.name:
        samples = np.asarray(frame.to_ndarray(), np.float32)
        return np.dstack([samples] * 3) if samples.ndim == 2 else samples[..., :3]
    samples = np.empty((frame.height, frame.width, 3), np.float16)
    for channel, plane in zip((1, 2, 0), frame.planes[:3], strict=False):
        samples[..., channel] = np.frombuffer(memoryview(plane), np.float16).reshape(frame.height, -1)[:, : frame.width]
    if len(frame.planes) < 3:
        samples[...] = samples[..., 1:2]
    return samples


def _from_linear(linear: NDArray[np.float32] | NDArray[np.float16], notes: list[str]) -> RgbImage:
    """Convert linear light to sRGB (IEC 61966-2-1). 1.0 is white, and what is brighter is clipped.

    Where that would clip more than 1 % of the pixels, the exposure is reduced until 1 % are. Works in strips: an image
    of 8192×4096 would otherwise take 2 GB.
    """
    height, width = linear.shape[:2]
    rows = max(1, _STRIP_PIXELS // width)
    brightest, is_finite = np.empty((height, width), np.float32), True
    for top in range(0, height, rows):
        strip = np.asarray(linear[top : top + rows], np.float32)
        finite = np.isfinite(strip)
        if not finite.all():
            is_finite, strip = False, np.where(finite, strip, 0)
        brightest[top : top + rows] = strip.max(axis=2)
    if not is_finite:
        notes.append("pixels that are not finite are shown as black")
    white = float(np.quantile(brightest, 1 - _BRIGHT_SHARE, overwrite_input=True))
    del brightest
    notes.append("linear light (HDR) is shown as sRGB, and bright parts are clipped")
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        strip = np.asarray(linear[top : top + rows], np.float32)
        strip = strip if is_finite else np.where(np.isfinite(strip), strip, np.float32(0))
        strip = np.clip(strip / white if white > 1 else strip, 0, 1)
        rgb[top : top + rows] = np.rint(_encoded(strip) * 255)
    return rgb


def _encoded(light: NDArray[_Float]) -> NDArray[_Float]:
    """Linear light from 0 to 1 as sRGB encodes it."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(light.dtype)
