"""Constructed scenes of a survey, for which it is known what a finding must say."""

from collections.abc import Mapping

import numpy as np

from stream.frames import DepthKind
from stream.survey.scene import Scene, Truth

Array = np.ndarray


def scene_of(
    light: Array, maps: Mapping[str, Array], *, truth: Truth | None = None, kind: DepthKind | None = None
) -> Scene:
    """A scene whose maps are in the units of the truth already.

    Args:
        light: H×W from 0 to 1, or uint8 H×W×3.
        maps: by model, disparities.
    """
    rgb = light if light.ndim == 3 else np.repeat(np.rint(light * 255).astype(np.uint8)[..., None], 3, axis=2)
    made = {name: np.asarray(values, np.float32) for name, values in maps.items()}
    kinds = dict.fromkeys(made, kind or DepthKind.RELATIVE_DISPARITY)
    return Scene(name="made", rgb=rgb, maps=made, raw=made, kinds=kinds, truth=truth)


def grid(size: tuple[int, int]) -> tuple[Array, Array]:
    """y and x of each pixel, from 0 to 1."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return y / max(1, height - 1), x / max(1, width - 1)


def chequered(size: tuple[int, int], square: int, low: float = 0.3, high: float = 0.7) -> Array:
    """Luminance of a chequerboard."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.where((y // square + x // square) % 2, high, low)
