"""Scenes made by hand, of which every number is known."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from stream.frames import ComparedDepth, Depth, DepthKind, Frame
from stream.media import cv2
from stream.survey.scene import Scene, Truth

FAR, NEAR = 0.2, 1.0


def scene_of(
    rgb: np.ndarray,
    maps: Mapping[str, np.ndarray],
    truth: Truth | None = None,
    kinds: Mapping[str, DepthKind] | None = None,
) -> Scene:
    """The scene of a photo with the maps that models gave; NaN marks where a model has no answer."""
    depths = []
    for name, values in maps.items():
        kind = (kinds or {}).get(name, DepthKind.RELATIVE_DISPARITY)
        depths.append(Depth(values=values.astype(np.float32), kind=kind, index=0, valid=~np.isnan(values)))
    frame = Frame(index=0, pts=0, time_base=Fraction(1, 25), captured_at=0.0, rgb=rgb, name="made.png")
    return Scene.of(frame, ComparedDepth.of(depths[0], depths[1:]), tuple(maps), truth)


def grey(levels: np.ndarray) -> np.ndarray:
    """A grey picture with levels from 0 to 255."""
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """A map blurred by a Gaussian."""
    return cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def noise(size: tuple[int, int], strength: float, seed: int = 7) -> np.ndarray:
    """White noise, float32."""
    return np.random.default_rng(seed).normal(0, strength, size).astype(np.float32)


def odd_maps(values: np.ndarray) -> dict[str, np.ndarray]:
    """Maps that no finding may stumble over."""
    gaps = values.copy()
    gaps[:, : values.shape[1] // 2] = np.nan
    huge = values.copy()
    huge.flat[:3] = 1e30
    return {
        "as it is": values,
        "constant": np.full_like(values, 3.0),
        "inverted": -values,
        "noise": noise(values.shape, 1.0),
        "gaps": gaps,
        "nothing": np.full_like(values, np.nan),
        "huge": huge,
        "tiny": values * np.float32(1e-30),
    }
