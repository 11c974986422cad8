"""Raw depth files that other programs can compute with.

Invariant: `npy`, `pfm` and `exr` hold the model's float32 values bit for bit; `png16` stores the mapping that restores
them to within half a step of 1/65535 of their range.
"""

import sys
from collections.abc import Collection
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from stream.errors import OutputError, SinkError, SourceError
from stream.files import WriteContent
from stream.frames import Depth, DepthMap, RgbImage, SourceInfo
from stream.media import av
from stream.sinks.per_frame import PerFrameSink


class DepthFormat(StrEnum):
    """The file formats of `DepthFileSink`."""

    NPY = "npy"
    """NumPy array, float32 H×W, C order."""
    PNG16 = "png16"
    """16-bit gray PNG with the range in its text chunks; see `read_png16`."""
    PFM = "pfm"
    """Portable float map as MiDaS writes it: `Pf`, bottom row first, negative scale for little-endian."""
    EXR = "exr"
    """OpenEXR, one float32 channel `Y`, uncompressed."""


FILE_SUFFIX = {
    DepthFormat.NPY: ".npy",
    DepthFormat.PNG16: ".depth16.png",  # the rendered `a.png` may be in the same folder
    DepthFormat.PFM: ".pfm",
    DepthFormat.EXR: ".exr",
}
"""The end of each file name in a folder."""

# The mapping of png16, as tEXt chunks. The numbers are decimal and exact for float32.
KEY_MIN = "depth_min"
KEY_MAX = "depth_max"
KEY_KIND = "depth_kind"
KEY_MAPPING = "depth_mapping"
_MAPPING = "value = depth_min + pixel / 65535 * (depth_max - depth_min)"
_LEVELS = 65535
_ROWS = 256  # rows converted at a time: a 200-megapixel map in float64 would take 1.6 GB
_PNG_LEVEL = 1  # 1080p depth, one core: level 1 takes 106 ms, level 6 495 ms for 4 % less


class DepthFileSink(PerFrameSink):
    """Writes the raw depth of each frame at source size.

    Args:
        path: a single file if it has the format's own suffix (`.npy`, `.png`, `.pfm`, `.exr`), otherwise a folder.
            In a folder, the image `a.jpg` gives `a.npy` (`a.depth16.png` for `png16`), and frame 12 of a video
            gives `000012.npy`.
        format: see `DepthFormat`.
        overwrite: existing files may be replaced.
        names, beside: see `PerFrameSink`.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: DepthFormat,
        overwrite: bool = False,
        names: Collection[str] = (),
        beside: Collection[str] = (),
    ) -> None:
        self._format = format
        suffix = FILE_SUFFIX[format]
        is_single = path.suffix.lower() == "." + suffix.rpartition(".")[2]
        super().__init__(path, suffix=suffix, is_single=is_single, overwrite=overwrite, names=names, beside=beside)

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Create the folder and start the writer's thread.

        Raises:
            OutputError: see `PerFrameSink.open` and `check_format`.
        """
        check_format(self._format)
        super().open(info, size)

    def _content(self, depth: Depth, image: RgbImage) -> tuple[WriteContent, int]:  # noqa: ARG002 - depth only
        values = np.ascontiguousarray(depth.values)

        def write(file: BinaryIO) -> None:
            match self._format:
                case DepthFormat.NPY:
                    _write_npy(file, values)
                case DepthFormat.PNG16:
                    _write_png16(file, values, depth.kind)
                case DepthFormat.PFM:
                    _write_pfm(file, values)
                case DepthFormat.EXR:
                    _write_exr(file, values)

        return write, values.nbytes


def check_format(format: DepthFormat) -> None:
    """Raise `OutputError` if this installation cannot write `format`."""
    if format is DepthFormat.EXR and "exr" not in av.codecs_available:
        raise OutputError("this build of PyAV cannot write exr", allowed="npy, png16, pfm")


def read_png16(path: Path) -> DepthMap:
    """Read the depth values of a file written with `--save png16`.

    Returns:
        float32 H×W; each value is within (max − min) / 131070 of the original, plus float32 rounding.

    Raises:
        SourceError: the file is not a 16-bit PNG with the range in its text chunks.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {})
            codes = np.asarray(image)
        low, high = float(text[KEY_MIN]), float(text[KEY_MAX])
    except (OSError, KeyError, ValueError) as error:
        raise SourceError(
            "not a depth png16 file", where=str(path), hint=f"its text chunks must hold {KEY_MIN} and {KEY_MAX}"
        ) from error
    if codes.ndim != 2:
        raise SourceError("not a depth png16 file", where=str(path), allowed="16-bit gray")
    share = codes / np.float64(_LEVELS)
    return (low * (1 - share) + high * share).astype(np.float32)  # this form is exact at both ends


def _write_npy(file: BinaryIO, values: DepthMap) -> None:
    # Not np.save: its `tofile` loses the errno of a full disk.
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
    file.write(values.data)


def _write_pfm(file: BinaryIO, values: DepthMap) -> None:
    height, width = values.shape
    scale = -1.0 if sys.byteorder == "little" else 1.0
    file.write(f"Pf\n{width} {height}\n{scale:f}\n".encode())
    file.write(np.ascontiguousarray(values[::-1]).data)


def _write_png16(file: BinaryIO, values: DepthMap, kind: str) -> None:
    low, high = float(values.min()), float(values.max())
    text = PngImagePlugin.PngInfo()
    for key, value in ((KEY_MIN, repr(low)), (KEY_MAX, repr(high)), (KEY_KIND, str(kind)), (KEY_MAPPING, _MAPPING)):
        text.add_text(key, value)
    Image.fromarray(_quantised(values, low, high)).save(file, "PNG", pnginfo=text, compress_level=_PNG_LEVEL)


def _quantised(values: DepthMap, low: float, high: float) -> NDArray[np.uint16]:
    codes = np.zeros(values.shape, np.uint16)  # a constant map stays all zero, which maps to its minimum
    if high > low:
        for top in range(0, len(values), _ROWS):
            rows = values[top : top + _ROWS].astype(np.float64)
            codes[top : top + _ROWS] = np.rint((rows - low) / (high - low) * _LEVELS)
    return codes


def _write_exr(file: BinaryIO, values: DepthMap) -> None:
    # Uncompressed: 7 ms for a 1080p map. Zip takes 234 ms to save 7 %, because float mantissas are mostly noise.
    # FFmpeg writes 32-bit floats and calls the gray channel "Y"; OpenEXR reads the values back bit for bit.
    height, width = values.shape
    try:
        encoder = av.CodecContext.create("exr", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "grayf32le"
        encoder.time_base = Fraction(1)
        encoder.thread_count = 1
        encoder.options = {"compression": "none", "format": "float"}
        frame = av.VideoFrame.from_ndarray(values, format="grayf32le")
        frame.pts = 0
        for packet in [*encoder.encode(frame), *encoder.encode(None)]:
            file.write(packet)
    except av.FFmpegError as error:
        raise SinkError(f"cannot encode a {width}×{height} exr: {error.strerror}") from error
