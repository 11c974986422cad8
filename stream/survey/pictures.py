"""The pictures of a survey: the photo and each model's depth in the same colours, and where two of them differ.

Invariant: a colour means the same disparity in all maps of a photo, and the same difference in all differences. A map
that no positive scale aligns has a range of its own, which the record says, and no differences.
"""

import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from stream.errors import SinkError
from stream.files import as_sink_error, write_file
from stream.frames import DepthMap, RgbImage
from stream.media import cv2
from stream.render import colormap as colormaps
from stream.render.range import Range
from stream.sinks.naming import FrameNames
from stream.survey.record import ScaleRow
from stream.survey.scene import Scene

DIFFERENCES = "viridis"
"""Colormap of the differences: other colours than those of depth."""
_SHOWN = (1.0, 99.0)
"""Percentiles of the reference that the ends of the colormap show."""
_JPEG_QUALITY = 90
_PNG_LEVEL = 3
"""At 1280×960, 196 kB in 27 ms; level 1 takes 226 kB and 23 ms, level 6 160 kB and 55 ms."""
_INDICES = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
"""A colormap whose colours are the places in a colormap."""
_UNPORTABLE = re.compile('[\\x00-\\x1f\\x7f"%#<>:|?*\\\\\ud800-\udfff]')
"""What Windows or a USB stick refuses in a name, bytes that are not UTF-8, and what means something in an address."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of one photo.

    Attributes:
        files: relative to the report's folder, see `PhotoRow.pictures`.
        scale: what their colours mean.
    """

    files: dict[str, str]
    scale: ScaleRow


class PictureNames:
    """Gives every photo a stem for its pictures; no two pictures of a survey get the same name.

    The names work on every file system, so a report may be copied; what does not becomes `_`.

    Args:
        names: of all photos, if known.
        models: their names.
        styles: that each photo has besides itself; their pictures are `STEM.STYLE.…`.
    """

    def __init__(self, names: Collection[str], models: Sequence[str], styles: Sequence[str] = ()) -> None:
        plain = (".jpg", *(f".{portable(_suffix(key))}.png" for key in _keys(("truth", *models))))
        suffixes = [*plain, *(f".{style}{suffix}" for style in styles for suffix in plain)]
        self._names = FrameNames([portable(name) for name in names], suffixes)

    def stem(self, name: str, index: int) -> str:
        """The stem of a photo with this name and number, with `/` between folders; never the same twice."""
        return self._names.stem_of(portable(name), index)


def portable(name: str) -> str:
    """A name with `/` between folders that every file system takes."""
    return "/".join(_portable_part(part) for part in PurePosixPath(name).parts)


def _portable_part(part: str) -> str:
    if part in (".", ".."):
        return part
    part = _UNPORTABLE.sub("_", part)
    if part.endswith((".", " ")):
        part = part.rstrip(". ") + "_"
    return f"_{part}" if _RESERVED.match(part) else part


def write_pictures(scene: Scene, folder: Path, stem: str, *, colormap: str) -> Pictures:
    """Write the pictures of one photo.

    Args:
        folder: of the report.
        stem: what the names of the files begin with, relative to it, see `PictureNames`.
        colormap: of depth.

    Raises:
        SinkError: a file cannot be written, or a picture cannot be encoded.
    """
    truth = {} if scene.truth is None else {"truth": scene.truth.disparity}
    maps: dict[str, DepthMap] = {**truth, **scene.maps}
    low, high = ends_of(next(iter(maps.values())))
    own = {name: ends_of(values) for name, values in scene.raw.items() if not scene.is_aligned(name)}
    maps |= {name: scene.raw[name] for name in own}
    scale = ScaleRow(low=low, high=high, own=own, difference=(high - low) / 2 or 1.0)
    files, gaps = {"photo": f"{stem}.jpg"}, []
    write_photo(folder / files["photo"], scene.rgb)

    def show(key: str, values: DepthMap, ends: Range, colours: colormaps.Table) -> None:
        files[key] = f"{stem}.{portable(_suffix(key))}.png"
        if write_map(folder / files[key], values, ends, colours):
            gaps.append(key)

    for name, values in maps.items():
        show(_key(name), values, own.get(name, (low, high)), colormaps.table(colormap))
    for a, b in combinations([name for name in maps if name not in own], 2):
        ends = 0.0, scale.difference
        show(f"difference:{a}|{b}", np.abs(maps[a] - maps[b]), ends, colormaps.table(DIFFERENCES))
    return Pictures(files=files, scale=scale.model_copy(update={"gaps": gaps}))


def _key(name: str) -> str:
    return "truth" if name == "truth" else f"depth:{name}"


def _keys(names: Sequence[str]) -> list[str]:
    """The keys of all pictures that those maps may give."""
    return [*map(_key, names), *(f"difference:{a}|{b}" for a, b in combinations(names, 2))]


def _suffix(key: str) -> str:
    """The part of a file's name that tells what it shows."""
    return key.removeprefix("depth:").removeprefix("difference:").replace("|", "-minus-")


def ends_of(values: DepthMap) -> Range:
    """The disparities that the ends of the colormap show."""
    known = values[~np.isnan(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, _SHOWN)
    return float(low), float(high)


def write_photo(path: Path, image: RgbImage) -> None:
    """Write a picture as JPEG. Raises as `write_pictures`."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not ok:
        raise SinkError("cannot be encoded", where=str(path))
    _write(path, data.tobytes())


def write_map(path: Path, values: DepthMap, ends: Range, colours: colormaps.Table) -> bool:
    """Write a map with a palette: less than half the size of RGB, and no slower.

    Index 0 is for pixels without an answer, so the lowest colour of a colormap is its second. They are transparent: any
    colour, black too, may be one of a colormap. Raises `SinkError`.

    Returns:
        Whether there are such pixels.
    """
    known = ~np.isnan(values)
    index = np.maximum(colormaps.apply(values, *ends, _INDICES, valid=known)[..., 0], 1)
    index[~known] = 0
    picture = Image.fromarray(index)
    picture.putpalette(bytes(colormaps.NO_ANSWER) + colours[1:].tobytes())
    content = io.BytesIO()
    has_gaps = not known.all()
    transparent = {"transparency": 0} if has_gaps else {}
    picture.save(content, "PNG", compress_level=_PNG_LEVEL, **transparent)
    _write(path, content.getvalue())
    return has_gaps


def _write(path: Path, content: bytes) -> None:
    with as_sink_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
