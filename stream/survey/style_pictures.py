"""The pictures of the styles of photos: each with its depth, and a contact sheet a style.

Invariant: a colour means the same as in the pictures of the photo itself. A sheet holds few small rows and is written
when it is full, so memory does not grow with the photos.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream.compare.sheet import label, shrink
from stream.depthdata.alignment import alignment
from stream.frames import DepthMap, RgbImage
from stream.media import cv2
from stream.render import colormap as colormaps
from stream.render.range import Range
from stream.survey.findings.base import Number
from stream.survey.pictures import ends_of, portable, write_map, write_photo
from stream.survey.scene import Scene
from stream.survey.styled import measure_styled

_PANE_W, _PANE_H = 208, 156
_GAP, _TITLE = 4, 18
_ROWS = 10
"""Photos of a sheet: about 1800 pixels high, and 6 MB for three models."""


class StyledPhotos:
    """Measures the styles of one photo after another, and writes their pictures and sheets.

    Args:
        folder: of the report.
        styles: names.
        models: names, in the order of the maps.
        colormap: of depth.
    """

    def __init__(self, folder: Path, styles: Sequence[str], models: Sequence[str], *, colormap: str) -> None:
        self._folder, self._colormap = folder, colormap
        self._sheets = {style: StyleSheets(folder, f"styles_{style}", models, colormap=colormap) for style in styles}
        self._photo: Scene | None = None
        self._number, self._stem = -1, ""

    def begin(self, number: int, photo: Scene, stem: str) -> None:
        """Take the photo with this number, whose styles follow; `stem` as in `write_styled`."""
        if self._sheets:
            self._number, self._photo, self._stem = number, photo, stem

    def stem(self, style: str) -> str:
        """What the names of the style's pictures begin with, relative to the folder."""
        return f"{self._stem}.{style}"

    def add(self, number: int, style: str, scene: Scene) -> tuple[dict[str, Number], dict[str, str]]:
        """Measure the photo in a style, and write its pictures.

        Args:
            number: of the photo.

        Returns:
            The numbers by model, and the files, see `measure_styled` and `write_styled`.

        Raises:
            SinkError: as `write_styled`.
            ValueError: that photo was not the last.
        """
        photo = self._photo
        if photo is None or number != self._number:
            raise ValueError(f"a style without its photo: {scene.name}")
        pictures = write_styled(photo, scene, self._folder, self.stem(style), colormap=self._colormap)
        self._sheets[style].add(photo, scene)
        return measure_styled(photo, scene), pictures

    def write_sheets(self) -> dict[str, list[str]]:
        """Write the sheets that are not full; return all by style, relative to the folder. Raises as `add`."""
        self._photo = None
        for sheet in self._sheets.values():
            sheet.write()
        return {style: sheet.written for style, sheet in self._sheets.items() if sheet.written}


def write_styled(photo: Scene, style: Scene, folder: Path, stem: str, *, colormap: str) -> dict[str, str]:
    """Write the picture of a photo in a style, and each model's depth of it.

    Args:
        folder: of the report.
        stem: what the names of the files begin with, relative to it.
        colormap: of depth.

    Returns:
        The files relative to `folder`: photo, and depth:MODEL.

    Raises:
        SinkError: a file cannot be written.
        SinkError: a picture cannot be encoded.
    """
    files = {"photo": f"{stem}.jpg"}
    write_photo(folder / files["photo"], style.rgb)
    for model, (values, ends) in _shown(photo, style).items():
        files[f"depth:{model}"] = f"{stem}.{portable(model)}.png"
        write_map(folder / files[f"depth:{model}"], values, ends, colormaps.table(colormap))
    return files


class StyleSheets:
    """Contact sheets of one style: in a row the photo and the photo in the style, and each model's depth of both.

    Args:
        folder: of the report.
        stem: of the files' names, relative to it; further sheets get `_2`, `_3`, …
        models: names, in the order of the maps.
        colormap: of depth.

    Attributes:
        written: the files, relative to `folder`.
    """

    def __init__(self, folder: Path, stem: str, models: Sequence[str], *, colormap: str) -> None:
        self._folder, self._stem, self._models, self._colormap = folder, stem, tuple(models), colormap
        self._rows: list[RgbImage] = []
        self.written: list[str] = []

    def add(self, photo: Scene, style: Scene) -> None:
        """Add a row, and write the sheet if it is full. Raises as `write_styled`."""
        panes = [photo.rgb, style.rgb]
        own, styled = _shown(photo, photo), _shown(photo, style)
        for model in self._models:
            panes += [_small(*maps[model], self._colormap) for maps in (own, styled)]
        row = np.full((_TITLE + _PANE_H, self._width, 3), 255, np.uint8)
        for number, image in enumerate(panes):
            pane = _fitted(image)
            left = number * (_PANE_W + _GAP) + (_PANE_W - pane.shape[1]) // 2
            top = _TITLE + (_PANE_H - pane.shape[0]) // 2
            row[top : top + pane.shape[0], left : left + pane.shape[1]] = pane
        label(row[:_TITLE], photo.name.encode("ascii", "replace").decode() or "photo")
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self.write()

    def write(self) -> None:
        """Write the rows that are left. Raises as `write_styled`."""
        if not self._rows:
            return
        heading = np.full((_TITLE, self._width, 3), 255, np.uint8)
        titles = ["photo", "style", *(title for model in self._models for title in (model, f"{model}: style"))]
        for number, title in enumerate(titles):
            left = number * (_PANE_W + _GAP)
            label(heading[:, left : left + _PANE_W], title)
        suffix = f"_{len(self.written) + 1}" if self.written else ""
        path = f"{self._stem}{suffix}.jpg"
        write_photo(self._folder / path, np.concatenate([heading, *self._rows]))
        self._rows.clear()
        self.written.append(path)

    @property
    def _width(self) -> int:
        panes = 2 + 2 * len(self._models)
        return panes * _PANE_W + (panes - 1) * _GAP


def _shown(photo: Scene, style: Scene) -> dict[str, tuple[DepthMap, Range]]:
    """The maps of a style by model, each fitted to the model's own map of the photo, and the ends of the colours.

    These are the photo's. A map that no positive scale fits has ends of its own.
    """
    first = next(iter(photo.maps.values())) if photo.truth is None else photo.truth.disparity
    shown = {}
    for model, values in style.raw.items():
        own = photo.maps[model] if photo.is_aligned(model) else photo.raw[model]
        found = alignment(values, own)
        fits = style is photo or (found is not None and found.scale > 0)
        on_photo = own if style is photo else values if found is None or not fits else found.apply(values)
        is_fitted = photo.is_aligned(model) and fits
        shown[model] = on_photo, ends_of(first if is_fitted else on_photo)
    return shown


def _small(values: DepthMap, ends: Range, colormap: str) -> RgbImage:
    small = shrink(values, _pane_size(values.shape))
    return colormaps.apply(small, *ends, colormaps.table(colormap), valid=~np.isnan(small))


def _fitted(image: RgbImage) -> RgbImage:
    height, width = _pane_size(image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _pane_size(size_hw: tuple[int, ...]) -> tuple[int, int]:
    """The (height, width) of a picture in a pane; a small one is enlarged."""
    scale = min(_PANE_H / size_hw[0], _PANE_W / size_hw[1])
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))
