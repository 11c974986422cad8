"""The survey's own photos: rendered scenes, of which the depth at the centre of every pixel is known exactly.

`scripts/survey_scenes.py` makes them. Each is there twice, as a photograph and in cartoon shading, with one truth.
Invariant: the pictures are opened by the reader of stills, like a user's own.
"""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.capture.base import Source
from stream.capture.memory import Images
from stream.capture.open import open_images
from stream.config import Config
from stream.errors import SourceError
from stream.frames import DepthMap, Frame
from stream.media import cv2
from stream.survey.scene import Truth

FOLDER = Path(__file__).with_name("scenes")
_CARTOON = "_cartoon"
SCENES = ("restaurant", "museum", "stair", "street", "mountains", "shelf", "night", "portrait")
"""In the order of the photos they stand for."""


def open_scenes(config: Config) -> Source:
    """Open them, photographs first, with the options of `capture`.

    Raises:
        SourceError: this installation does not have them.
        UsageError: an option does not apply to images.
    """
    source = open_images(Images(files()), options=config.capture)
    source.info = replace(source.info, name="built-in scenes")
    return source


def files() -> list[str]:
    """The pictures, photographs first.

    Raises:
        SourceError: this installation does not have them.
    """
    found = {path.stem: str(path) for path in FOLDER.glob("*.*") if path.suffix in (".jpg", ".heic")}
    names = [scene + kind for kind in ("", _CARTOON) for scene in SCENES]
    missing = [name for name in names if name not in found]
    if missing:
        what = f"not installed: {', '.join(missing)}"
        raise SourceError(what, where="--builtin", hint="install depthstream again")
    return [found[name] for name in names]


def truth_of_scene(frame: Frame) -> Truth | None:
    """What is known of one of them; None for any other picture."""
    scene = Path(frame.name).stem.removesuffix(_CARTOON)
    return _truth(scene) if scene in SCENES else None


@lru_cache(maxsize=1)
def _truth(scene: str) -> Truth:
    facts = json.loads((FOLDER / f"{scene}.json").read_text())
    labels = _read(FOLDER / f"{scene}.labels.png")
    rows: list[dict[str, Any]] = facts["labels"]

    def marked(key: str, kind: type[np.generic]) -> NDArray[Any]:
        return np.asarray(np.array([row.get(key, 0) for row in rows], kind)[labels])

    return Truth(
        disparity=_disparity(_read(FOLDER / f"{scene}.depth.png"), labels, facts),
        thin=marked("thin", np.bool_),
        planes=marked("plane", np.int32),
        sky=marked("sky", np.bool_),
        clouds=marked("clouds", np.bool_),
        small=marked("small", np.int32),
    )


def _disparity(residuals: NDArray[Any], labels: NDArray[Any], facts: dict[str, Any]) -> DepthMap:
    """1/m. Planes are given by what they are at each column and row; the rest is coded by the pixel, see `pack.py`.

    A code is `codes` times the square root of a disparity's share of the nearest one. It is off by half a step at most,
    which with 14 bits is 6e-5 of the nearest disparity for near things, and less for far ones.
    """
    codes = np.cumsum(np.cumsum(residuals, axis=1, dtype=np.uint16), axis=0, dtype=np.uint16)
    disparity = (codes / facts["codes"]) ** 2 * facts["nearest"]
    planes = np.array([row.get("plane_at", (0, 0, 0)) for row in facts["labels"]], np.float64)
    is_plane = np.array(["plane_at" in row for row in facts["labels"]])[labels]
    y, x = np.nonzero(is_plane)
    across, down, middle = planes[labels[y, x]].T
    disparity[y, x] = across * x + down * y + middle
    return np.asarray(disparity, np.float32)


def _read(path: Path) -> NDArray[Any]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SourceError("cannot be read", where=str(path), hint="install depthstream again")
    return np.asarray(image)
