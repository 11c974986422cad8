"""Raw depth files that other programs can compute with.

Invariant: `npy`, `pfm` and `exr` hold the model's float32 values bit for bit, and NaN where there is no answer. `png16`
holds whole numbers, 0 where there is no answer, and the mapping that gives the values back to within half a step.
"""

import math
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from stream.depthdata.description import Description
from stream.depthdata.mapping import CODES_16, MILLIMETRE
from stream.depthdata.mapping import Mapping as Codes
from stream.depthdata.storage import TAG
from stream.errors import OutputError, SourceError
from stream.files import WriteContent, as_sink_error, write_file
from stream.frames import Depth, DepthKind, DepthMap, Frame, RgbImage, SourceInfo
from stream.sinks.exr import write_exr
from stream.sinks.naming import sequence_name
from stream.sinks.per_frame import PerFrameSink


class DepthFormat(StrEnum):
    """The file formats of `DepthFileSink`."""

    NPY = "npy"
    """NumPy array, float32 H×W, C order."""
    PNG16 = "png16"
    """16-bit gray PNG: millimetres of metric depth, else codes of a mapping; see `read_png16`."""
    PFM = "pfm"
    """Portable float map as MiDaS writes it: `Pf`, bottom row first, negative scale for little-endian."""
    EXR = "exr"
    """OpenEXR, one float32 channel `Z`, ZIP; see `exr.write_exr`."""
    CONF = "conf"
    """The model's confidence instead of its depth, as NPY; nothing for a model that gives none."""


FILE_SUFFIX = {
    DepthFormat.NPY: ".npy",
    DepthFormat.PNG16: ".depth16.png",  # the rendered `a.png` may be in the same folder
    DepthFormat.PFM: ".pfm",
    DepthFormat.EXR: ".exr",
    DepthFormat.CONF: ".conf.npy",  # the depth may be there as `a.npy`
}
"""The end of each file name in a folder."""

DESCRIPTION = "depth.json"
"""The file in a folder of png16 that says what their numbers are."""
_OLD_MIN, _OLD_MAX = "depth_min", "depth_max"  # text chunks of version 0.1: the values of codes 0 and 65535
_PNG_LEVEL = 1  # 1080p depth, one core: level 1 takes 106 ms, level 6 495 ms for 4 % less


class DepthFileSink(PerFrameSink):
    """Writes the raw depth of each frame at source size.

    Args:
        path: a single file if it has the format's own suffix (`.npy`, `.png`, `.pfm`, `.exr`), otherwise a folder.
            In a folder, the image `a.jpg` gives `a.npy` (`a.depth16.png`, `a.conf.npy`), and frame 12 of a video
            gives `000012.npy`, or `clip.000012.exr`, as compositing programs name sequences.
        format: see `DepthFormat`.
        overwrite: existing files may be replaced.
        names, beside, stride: see `PerFrameSink`.
        unit_m: metres that one step of png16 counts, for metric depth.
        mapping: of values and codes of png16, for depth without a unit. None: each file has the range of its own
            values.
        describes: write `depth.json` into a folder of png16.
        description: what png16 says of the model that it names, its weights and the reading of the source, besides
            what is in each frame.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: DepthFormat,
        overwrite: bool = False,
        names: Collection[str] = (),
        beside: Collection[str] = (),
        unit_m: float = MILLIMETRE,
        mapping: Codes | None = None,
        describes: bool = True,
        description: Description | None = None,
        stride: int = 1,
    ) -> None:
        self._format = format
        self._of_unit, self._mapping, self._describes = Codes.of_unit(unit_m), mapping, describes
        self._given = description
        self._described: Description | None = None
        self._is_cleared = False
        self._clipped = 0
        suffix = FILE_SUFFIX[format]
        is_single = path.suffix.lower() == "." + suffix.rpartition(".")[2]
        super().__init__(
            path, suffix=suffix, is_single=is_single, overwrite=overwrite, names=names, beside=beside, stride=stride
        )

    @property
    def counters(self) -> Mapping[str, int]:
        """`png16_values_clipped`: how many values lay beyond the ends of the mapping, by more than half a step."""
        return {**super().counters, **({"png16_values_clipped": self._clipped} if self._clipped else {})}

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Create the folder and start the writer's thread.

        Raises:
            OutputError: see `PerFrameSink.open`; or `depth.json` exists and may not be replaced.
        """
        if self._format is DepthFormat.EXR:
            self._sequence = sequence_name(info)
        self._describes &= self._format is DepthFormat.PNG16 and not self._is_single
        description = self.path / DESCRIPTION
        if (
            self._describes
            and self.part is None
            and (description.is_dir() or (os.path.lexists(description) and not self._overwrite))
        ):
            raise OutputError("exists", where=str(description), hint="choose another folder, or pass --overwrite")
        super().open(info, size)
        self._source, self._rate = info.name, info.rate

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """See `PerFrameSink.write`; without confidence, `conf` writes nothing and says so once."""
        if self._format is DepthFormat.CONF and depth.confidence is None:
            said = f"--save conf: {depth.model or 'this depth'} has no confidence, so none is written"
            if said not in self.notes:
                self.notes.append(said)
            return True
        return super().write(frame, depth, image)

    def finish(self) -> None:
        """See `PerFrameSink.finish`; writes `depth.json`."""
        super().finish()
        self._describe()

    def keep_partial(self, reason: str) -> None:
        """See `PerFrameSink.keep_partial`; writes `depth.json`."""
        super().keep_partial(reason)
        self._describe()

    def _describe(self) -> None:
        """Write `depth.json`, once files are there that it is about."""
        if self._described is None or not self._describes or not self._written:
            return
        about = replace(self._described, source=self._source, rate=self._rate, frame_count=self._written)
        path = (self.path if self.part is None else self.part.descriptions) / DESCRIPTION
        with as_sink_error(path):
            write_file(path, (about.as_json(indent=2) + "\n").encode())

    def _content(self, frame: Frame, depth: Depth, image: RgbImage) -> tuple[WriteContent, int]:  # noqa: ARG002 - depth only
        is_confidence = self._format is DepthFormat.CONF and depth.confidence is not None
        values = np.ascontiguousarray(depth.confidence if is_confidence else depth.values)
        if self._describes and not self._is_cleared and self._overwrite and self.part is None:
            self._is_cleared = True
            with as_sink_error(self.path / DESCRIPTION):  # never an old one beside new files, however the run ends
                (self.path / DESCRIPTION).unlink(missing_ok=True)

        def write(file: BinaryIO) -> None:
            match self._format:
                case DepthFormat.NPY | DepthFormat.CONF:
                    _write_npy(file, values)
                case DepthFormat.PNG16:
                    self._write_png16(file, depth)
                case DepthFormat.PFM:
                    _write_pfm(file, values)
                case DepthFormat.EXR:
                    write_exr(file, depth)

        return write, values.nbytes

    def _write_png16(self, file: BinaryIO, depth: Depth) -> None:
        answers = depth.answers
        mapping = self._of_unit if depth.kind is DepthKind.METRIC_DEPTH else self._mapping or _range_of(answers)
        if beyond := mapping.beyond(answers):
            self._clip(beyond, mapping, depth.kind, float(answers.max()))
        given = self._given
        about = Description(
            kind=depth.kind,
            codec=str(DepthFormat.PNG16),
            mapping=mapping,
            model=depth.model,
            weights_sha256=given.weights_sha256 if given is not None and given.model == depth.model else None,
            capture=None if given is None else given.capture,
            size=depth.size,
            refined=depth.refined,
            steadied=depth.steadied,
            carried=depth.carried,
        )
        text = PngImagePlugin.PngInfo()
        text.add_text(TAG, about.as_json())
        codes = mapping.encode(depth.values, depth.valid)
        Image.fromarray(codes).save(file, "PNG", pnginfo=text, compress_level=_PNG_LEVEL)
        self._described = about if self._described is None else self._common(self._described, about)

    def _clip(self, count: int, mapping: Codes, kind: DepthKind, largest: float) -> None:
        """Count values beyond the ends, and say so the first time."""
        if not self._clipped:
            unit = f" {kind.unit}".rstrip()
            what = f"png16: values beyond {mapping.lo:g} to {mapping.hi:g}{unit} get the code of the nearest end"
            if kind is DepthKind.METRIC_DEPTH and largest > mapping.hi:
                better = _fitting_unit(largest)
                what += f"; --png16-unit {better:g} reaches {CODES_16 * better:g} m"
            self.notes.append(what)
        self._clipped += count

    def _common(self, one: Description, other: Description) -> Description:
        """What is true of all files: a size or a mapping of its own stands in each file alone."""
        if (one.kind, one.model) != (other.kind, other.model):
            said = f"{DESCRIPTION} is about the files of {one.model or one.kind}; each file says what its numbers are"
            if self._describes and said not in self.notes:
                self.notes.append(said)
            return one
        size = one.size if one.size == other.size else None
        return replace(
            one,
            size=size,
            mapping=one.mapping if one.mapping == other.mapping else None,
            refined=one.refined or other.refined,
            steadied=one.steadied or other.steadied,
            carried=one.carried or other.carried,
        )


def _range_of(answers: DepthMap) -> Codes:
    """The mapping from the smallest to the largest value; for a constant map, the first code is that value."""
    if not answers.size:
        return Codes(lo=0, hi=1)
    low, high = float(answers.min()), float(answers.max())
    return Codes(lo=low, hi=high if high > low else low + max(1.0, abs(low)))


def _fitting_unit(largest_m: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten whose last code reaches `largest_m`."""
    power = 10.0 ** math.floor(math.log10(largest_m / CODES_16))
    return next(unit for unit in (power, 2 * power, 5 * power, 10 * power) if CODES_16 * unit >= largest_m)


def read_png16(path: Path) -> DepthMap:
    """Read the depth values of a file written with `--save png16`, by this version or an earlier one.

    Returns:
        float32 H×W, NaN where there is no answer. Each value is within half a step of the original (0.5 mm for metric
        depth, unless another unit was chosen), plus float32 rounding.

    Raises:
        SourceError: the file is not a 16-bit PNG whose text chunks say what its numbers are.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {})
            codes = np.asarray(image)
        mapping = _mapping_in(text)
    except (OSError, KeyError, ValueError, SyntaxError) as error:
        raise SourceError(
            "not a depth png16 file", where=str(path), hint=f"its text chunks must say what its numbers are ({TAG})"
        ) from error
    if codes.ndim != 2 or codes.dtype != np.uint16:
        raise SourceError("not a depth png16 file", where=str(path), allowed="16-bit gray")
    return np.full(codes.shape, mapping, np.float32) if isinstance(mapping, float) else mapping.decode(codes)[0]


def _mapping_in(text: Mapping[str, str]) -> Codes | float:
    """The mapping in a file's text chunks, or the value of all pixels. Raises `KeyError` or `ValueError`."""
    if TAG not in text:
        low, high = float(text[_OLD_MIN]), float(text[_OLD_MAX])
        return low if low == high else Codes(lo=low, hi=high, first=0)
    if (mapping := Description.from_json(text[TAG]).mapping) is None:
        raise KeyError("mapping")
    return mapping


def _write_npy(file: BinaryIO, values: DepthMap) -> None:
    # Not np.save: its `tofile` loses the errno of a full disk.
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
    file.write(values.data)


def _write_pfm(file: BinaryIO, values: DepthMap) -> None:
    height, width = values.shape
    scale = -1.0 if sys.byteorder == "little" else 1.0
    file.write(f"Pf\n{width} {height}\n{scale:f}\n".encode())
    file.write(np.ascontiguousarray(values[::-1]).data)
