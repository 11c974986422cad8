"""The only module that imports PyAV and OpenCV: import order, colour conversion, orientation.

Importing `av` before `cv2` makes `cv2.imshow` hang with the published wheels (both bundle FFmpeg), so every other
module imports them from here.
Invariant: cv2 is imported before av in every process; every conversion between YUV and RGB states its matrix and range.
"""

import cv2  # isort: skip  (must come before av, see above)
import av  # isort: skip

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from av.sidedata import sidedata

from stream.errors import without_secrets
from stream.machine import usable_cores

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

    from stream.frames import RgbImage

__all__ = [
    "Orientation",
    "av",
    "cv2",
    "display_size",
    "file_url",
    "has_known_matrix",
    "hdr_name",
    "is_plausible_aspect",
    "open_input",
    "orientation_of",
    "packets_of",
    "refused_format",
    "to_rgb",
    "to_rgb16",
]

av.logging.set_level(av.logging.PANIC)
"""FFmpeg would print to stderr and garble the progress bar. Its errors reach us as exceptions instead."""


def _unnamed_side_data(kind: type[sidedata.Type], value: object) -> Any:
    """A member of PyAV's enumeration for a kind of side data that is newer than it: EXIF, 3D reference displays, ….

    Without it, a frame that carries such data could not be asked for any: `ValueError: 31 is not a valid Type`.
    """
    member: Any = object.__new__(kind)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member


setattr(sidedata.Type, "_missing_", classmethod(_unnamed_side_data))  # noqa: B010  a method cannot be assigned to


class Demuxer(Protocol):
    """What packets can be read from: an `InputContainer`, or what stands for one."""

    def demux(self, *streams: "Stream") -> "Iterator[Packet[Any]]": ...


_REACHING = frozenset({"concat", "dash", "dvdvideo", "hls", "imf", "sdp", "vobsub"})
"""Demuxers that open what their input names. Others that do so are left out by a flag: devices, rtsp, `image2`."""
_NO_FILE = 1
"""FFmpeg's AVFMT_NOFILE: a demuxer that opens its input by itself."""
_UNBOUNDED = frozenset({"mpjpeg"})
"""Demuxers that allocate what a server claims, without a limit; see `Budget`."""
_PROTOCOLS = {
    "http": "http,tcp",
    "https": "https,tls,tcp,httpproxy",
    "rtsp": "tcp,udp,rtp,http",  # http: a tunnel, if the user asks for that transport
    "rtsps": "tcp,tls,udp,rtp,srtp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "udp": "udp",
    "tcp": "tcp",
    "srt": "srt",
    "rtp": "rtp,udp",
}
"""What FFmpeg needs of its protocols for a URL of each scheme."""
_OWN_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtp": "rtp"}
_FILE = "file:"


class Budget(Protocol):
    """What hands bytes to a demuxer, and ends the source if it takes too many before it delivers a packet."""

    def renew(self) -> None:
        """Begin to count anew: a packet has been delivered."""


_budgeted: "list[tuple[InputContainer, Budget]]" = []
"""Those that are open. They are kept here because PyAV crashes in one with `io_open` that is collected unclosed."""


@cache
def _self_contained() -> tuple[str, ...]:
    """Names of the demuxers that read their input and nothing else."""
    names: list[str] = []
    for name in sorted(av.formats_available):
        try:
            found = av.ContainerFormat(name, "r")
        except ValueError:  # a muxer
            continue
        if found.is_input and not found.flags & _NO_FILE and found.name not in _REACHING:
            names.append(found.name)
    return tuple(dict.fromkeys(names))


def _leash(address: str, asked: str | None) -> dict[str, str]:
    """Return the options that keep FFmpeg to one input: which protocols it may open, and which demuxers it may use.

    Args:
        address: as FFmpeg takes it; "" for an open file.
        asked: the demuxer that the caller names.
    """
    scheme, is_url, _ = address.partition("://")
    scheme = scheme.rpartition("+")[2]  # crypto+http
    formats = [name for name in _self_contained() if not (is_url and name in _UNBOUNDED)]
    formats += filter(None, (asked, _OWN_FORMATS.get(scheme)))
    protocols = "file" if address.startswith(_FILE) else _PROTOCOLS.get(scheme, "")
    redirects = {"max_redirects": "0"} if scheme in ("http", "https") else {}
    return {"protocol_whitelist": protocols, "format_whitelist": ",".join(formats), **redirects}


def open_input(
    address: str | BinaryIO, *, file: object = None, protocols: str = "", budget: Budget | None = None, **options: Any
) -> "InputContainer":
    """Open a file, URL or stream for reading with `av.open`, and nothing else that it may name.

    FFmpeg may use the protocols of this one address, follows no redirect, and is refused every demuxer that opens other
    files or hosts (playlists, lists of files, session descriptions, numbered images), unless the option `format` asks
    for it. Tags that are not UTF-8 become �.

    Args:
        address: a URL with a scheme of the network, an open file, or else a file's name, whatever it looks like.
        file: an object with `read` alone, to read from instead of `address`.
        protocols: more protocols that FFmpeg may use (`crypto`, `data`); `address` is then a URL that was checked.
        budget: hears of every packet that `packets_of` yields.
        options: see `av.open`.

    Raises:
        OSError: see `av.open`; FFmpeg's errors are subclasses of it or of `av.error.FFmpegError`. `refused_format` says
            whether an error is the refusal of a demuxer.
    """
    source = address if file is None else file
    asked = options.get("format")
    if isinstance(source, str) and not source.startswith(_FILE) and asked != "lavfi" and not protocols:
        source = source if source.partition("://")[0] in _PROTOCOLS else file_url(source)
    leash = _leash(source if isinstance(source, str) else "", asked)
    leash["protocol_whitelist"] = ",".join(filter(None, (leash["protocol_whitelist"], protocols)))
    given = options.pop("container_options", None) or {}
    given |= leash
    with _no_secret_in_errors():
        container: InputContainer = av.open(source, metadata_errors="replace", container_options=given, **options)
    if budget is not None:
        _budgeted[:] = [entry for entry in _budgeted if entry[0].input_was_opened] + [(container, budget)]
    return container


def refused_format(error: BaseException) -> str:
    """Return the name of the demuxer that `open_input` has refused, "" if the error is another one."""
    log = getattr(error, "log", None)  # not typed as it is
    return str(log[1]) if log and "Format not on whitelist" in log[2] else ""


@contextmanager
def _no_secret_in_errors() -> Iterator[None]:
    """Errors of FFmpeg name the URL as it was opened, and tracebacks show them as the cause of ours."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        without_secrets(error)
        raise


def packets_of(container: "Demuxer", *streams: "Stream") -> "Iterator[Packet[Any]]":
    """Yield the packets of `streams` and, at the end, an empty one for each, which flushes its decoder.

    Raises:
        OSError: reading failed; FFmpeg's errors are subclasses of it or of `av.error.FFmpegError`.
    """
    budget = next((budget for known, budget in _budgeted if known is container), None)
    try:
        with _no_secret_in_errors():
            if budget is None:
                yield from container.demux(*streams)
                return
            for packet in container.demux(*streams):
                budget.renew()
                yield packet
    except IndexError:
        # PyAV's flush at the end has met a stream that it does not know: FLV and MPEG files may begin one anywhere.
        return


# Values of ITU-T H.273, as FFmpeg's AVColorSpace, AVColorRange, AVColorTransferCharacteristic and AVColorPrimaries.
MATRIX_RGB, MATRIX_BT709, MATRIX_UNSPECIFIED, MATRIX_SMPTE170M, MATRIX_BT2020 = 0, 1, 2, 6, 9
RANGE_LIMITED, RANGE_FULL = 1, 2
TRANSFER_BT709, TRANSFER_PQ, TRANSFER_HLG = 1, 16, 18
PRIMARIES_BT709 = 1
_SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""AVColorSpace → swscale's SWS_CS_*: BT.709, FCC, BT.601 (two names), SMPTE 240M, BT.2020 (two names)."""
_NARROWEST, _WIDEST = Fraction(1, 10), Fraction(10)
"""Limits of a pixel's aspect ratio: real formats stay within 1/2…4, and damaged headers make frames of gigabytes."""
_HD_HEIGHT = 720
"""Untagged video of at least this height is taken as BT.709, below it as BT.601, as players and FFmpeg's tools do."""


def file_url(path: "str | os.PathLike[str]") -> str:
    """Return a path as FFmpeg takes it: without `file:`, the part of a name before a colon is read as a protocol."""
    return f"file:{os.fspath(path)}"


def hdr_name(frame: "VideoFrame") -> str | None:
    """Return `PQ` or `HLG` for a high-dynamic-range frame, else None."""
    return {TRANSFER_PQ: "PQ", TRANSFER_HLG: "HLG"}.get(frame.color_trc)


def has_known_matrix(frame: "VideoFrame") -> bool:
    """Return False if the frame is tagged with a matrix that swscale cannot invert (such as YCgCo)."""
    return frame.format.is_rgb or frame.colorspace == MATRIX_UNSPECIFIED or frame.colorspace in _SWS_MATRIX


def to_rgb(frame: "VideoFrame", size_hw: tuple[int, int] | None = None) -> "RgbImage":
    """Convert a decoded frame to uint8 H×W×3 full-range RGB with the frame's own matrix and range.

    The transfer function is kept. 1080p takes 1.4 ms from 8-bit 4:2:0 and 3.4 ms from 10-bit on one core.

    Args:
        frame: as decoded.
        size_hw: (height, width) to resample to, for non-square pixels; None keeps the size.
    """
    return np.asarray(_converted(frame, size_hw, "rgb24").to_ndarray())


def to_rgb16(frame: "VideoFrame", size_hw: tuple[int, int] | None = None) -> "NDArray[np.uint16]":
    """Convert like `to_rgb`, but to uint16 with 65535 = full scale."""
    return np.asarray(_converted(frame, size_hw, "rgb48le").to_ndarray())


def _converted(frame: "VideoFrame", size_hw: tuple[int, int] | None, pixel_format: str) -> "VideoFrame":
    height, width = size_hw or (frame.height, frame.width)
    is_scaled = (height, width) != (frame.height, frame.width)
    # Without scaling, the filter only affects chroma, and BICUBIC would double the time for 10-bit frames.
    interpolation = "BICUBIC" if is_scaled else "BILINEAR"
    if frame.format.is_rgb:
        return frame.reformat(width, height, pixel_format, interpolation=interpolation, threads=1)
    sdr_matrix = MATRIX_BT709 if frame.height >= _HD_HEIGHT else MATRIX_SMPTE170M
    untagged = MATRIX_BT2020 if hdr_name(frame) else sdr_matrix
    is_full = frame.color_range == RANGE_FULL or frame.format.name.startswith("yuvj")
    return frame.reformat(
        width,
        height,
        pixel_format,
        src_colorspace=_SWS_MATRIX.get(frame.colorspace, _SWS_MATRIX[untagged]),
        src_color_range=RANGE_FULL if is_full else RANGE_LIMITED,
        dst_color_range=RANGE_FULL,
        interpolation=interpolation,
        threads=1,  # more threads only cost wake-ups: 1.5 ms instead of 1.4 at 1080p
    )


@dataclass(frozen=True)
class Orientation:
    """The operations that make a decoded frame upright: first transpose, then flip."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, rgb: "RgbImage") -> "RgbImage":
        """Return a uint8 H×W×3 image made upright."""
        if self.transpose:
            rgb = np.asarray(cv2.transpose(rgb), np.uint8)
        if self.flip_x or self.flip_y:
            code = -1 if self.flip_x and self.flip_y else 1 if self.flip_x else 0
            rgb = np.asarray(cv2.flip(rgb, code), np.uint8)
        return rgb


def orientation_of(frame: "VideoFrame") -> Orientation:
    """Read a frame's display matrix (ISO/IEC 14496-12, 8.3.2); rotations by multiples of 90° and flips."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(data)[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(flip_x=a < 0, flip_y=d < 0)
    return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)


def is_plausible_aspect(pixel_aspect: Fraction) -> bool:
    """Return False for a pixel's aspect ratio that no format has: it is damaged."""
    return _NARROWEST <= pixel_aspect <= _WIDEST


def display_size(frame: "VideoFrame", pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return the (height, width) at which a decoded frame has square pixels; only the width changes.

    An aspect ratio that is not plausible is ignored.
    """
    if pixel_aspect is None or not is_plausible_aspect(pixel_aspect):
        return frame.height, frame.width
    return frame.height, max(1, round(frame.width * pixel_aspect))


# --- encoding ---


class RgbConverter:
    """Converts RGB images to frames for an encoder, as BT.709 limited range (JPEG: BT.601 full range), and tags them.

    By default swscale converts with BT.601 regardless of the encoder's tags, so matrix and range are stated here and
    the tags are derived from them. The scaler is reused between frames: 1.3 ms for 1330×480.

    Args:
        pixel_format: FFmpeg's name, such as `yuv420p`. `yuvj…` formats are JPEG's, whose decoders assume BT.601 at full
            range regardless of tags (JFIF 1.02). RGB formats have no matrix.
    """

    def __init__(self, pixel_format: str) -> None:
        self.pixel_format = pixel_format
        self._is_rgb = av.VideoFormat(pixel_format, 16, 16).is_rgb
        is_jpeg = pixel_format.startswith("yuvj")
        self._matrix = MATRIX_RGB if self._is_rgb else MATRIX_SMPTE170M if is_jpeg else MATRIX_BT709
        is_full = self._is_rgb or is_jpeg or pixel_format.startswith("gray")
        self._range = RANGE_FULL if is_full else RANGE_LIMITED
        self._scaler = av.video.reformatter.VideoReformatter()
        self._threads = max(1, usable_cores() // 4)

    def convert(self, rgb: "RgbImage") -> "VideoFrame":
        """Convert a uint8 H×W×3 full-range image to a frame that owns its pixels and has no pts."""
        if self.pixel_format == "rgb24":
            return av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame = self._scaler.reformat(
            av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(rgb), format="rgb24"),
            format=self.pixel_format,
            dst_colorspace=None if self._is_rgb else _SWS_MATRIX[self._matrix],
            src_color_range=RANGE_FULL,
            dst_color_range=self._range,
            threads=self._threads,
        )
        frame.colorspace = self._matrix
        frame.color_trc, frame.color_primaries = TRANSFER_BT709, PRIMARIES_BT709
        return frame

    def tag(self, encoder: "VideoCodecContext") -> None:
        """Tag the encoder's stream with the matrix and range of `convert`."""
        encoder.colorspace = self._matrix
        encoder.color_range = self._range
        encoder.color_trc, encoder.color_primaries = TRANSFER_BT709, PRIMARIES_BT709


def chroma_steps(pixel_format: str) -> tuple[int, int]:
    """Return the (rows, columns) of pixels that share a chroma sample: (2, 2) for yuv420p, (1, 1) for yuv444p and RGB.

    An image whose size is not a multiple of these loses pixels.
    """
    probe = av.VideoFormat(pixel_format, 16, 16)
    return 16 // probe.chroma_height(16), 16 // probe.chroma_width(16)
