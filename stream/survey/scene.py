"""One photo of a survey with the maps of all models and what is known to be true: what every finding is measured on.

Invariant: everything has the same size, at most `WORK_PX` along the longer side, so no number depends on how many
pixels a camera has. NaN marks a pixel without an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.compare.sheet import shrink
from stream.depthdata.alignment import fitted
from stream.frames import ComparedDepth, DepthKind, DepthMap, Frame, Mask, RgbImage
from stream.media import cv2
from stream.render.range import displayed

WORK_PX = 1600
"""Longest side of what is measured: what a few pixels are in a photo as it is looked at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is known to be true of a photo.

    Attributes:
        disparity: float32 H×W, 1/m along the viewing axis; 0 where nothing is in sight but the sky, NaN where unknown.
        thin: thin things, such as the vanes of a wind wheel; None if nobody has marked them.
        planes: int32 H×W, the number of a plane that a pixel lies in, 0 for none; None if nobody has marked them.
        sky: the sky, clouds included; None if nobody has marked it.
        clouds: the clouds.
        small: small things in the foreground, int32 H×W, a number for each, 0 for none; None if nobody has marked them.
    """

    disparity: DepthMap
    thin: Mask | None = None
    planes: NDArray[np.int32] | None = None
    sky: Mask | None = None
    clouds: Mask | None = None
    small: NDArray[np.int32] | None = None

    def resized(self, size_hw: tuple[int, int]) -> "Truth":
        """The same at another size; each pixel is one of the old ones, since depths on both sides of an edge must not
        mix."""

        def at(x: NDArray[Any] | None) -> NDArray[Any] | None:
            if x is None or x.shape == size_hw:
                return x
            plain = x.astype(np.uint8) if x.dtype == np.bool_ else x
            return np.asarray(cv2.resize(plain, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)).astype(x.dtype)

        resized: dict[str, Any] = {name: at(value) for name, value in vars(self).items()}
        return Truth(**resized)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One photo, at the size at which it is measured.

    Attributes:
        name: of the photo.
        rgb: uint8 H×W×3.
        maps: by model, float32 H×W disparities (larger = nearer) in the units of the reference: the truth's 1/m if
            there is one, else the first model's; see `fitted`.
        raw: by model, the disparities before that: 1/z of a depth.
        kinds: by model, what its numbers are.
        truth: None if nothing is known.
    """

    name: str
    rgb: RgbImage
    maps: Mapping[str, DepthMap]
    raw: Mapping[str, DepthMap]
    kinds: Mapping[str, DepthKind]
    truth: Truth | None = None

    @classmethod
    def of(cls, frame: Frame, depth: ComparedDepth, models: tuple[str, ...], truth: Truth | None = None) -> "Scene":
        """The scene of one result.

        Args:
            models: names, in the order of the maps.
            truth: of any size.
        """
        size_hw = work_size(frame.size)
        rgb = frame.rgb
        if frame.size != size_hw:
            rgb = np.asarray(cv2.resize(rgb, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        raw = {name: shrink(displayed(one), size_hw) for name, one in zip(models, depth.all, strict=True)}
        truth = None if truth is None else truth.resized(size_hw)
        reference = raw[models[0]] if truth is None else truth.disparity
        return cls(
            name=frame.name,
            rgb=rgb,
            maps={name: fitted(one, reference) for name, one in raw.items()},
            raw=raw,
            kinds={name: one.kind for name, one in zip(models, depth.all, strict=True)},
            truth=truth,
        )

    def is_aligned(self, model: str) -> bool:
        """Whether a model's map could be fitted to the reference: False where no positive scale does, or no pixel is
        known in both."""
        values = self.maps[model]
        known = values[~np.isnan(values)]
        return values is not self.raw[model] and bool(known.size) and bool(known.min() < known.max())

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @cached_property
    def grey(self) -> NDArray[np.float32]:
        """Luminance of the picture, float32 H×W from 0 to 1 (Rec. 601 luma, as OpenCV)."""
        return np.asarray(cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)


def work_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) at which a photo of `size_hw` is measured."""
    scale = min(1.0, WORK_PX / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))
