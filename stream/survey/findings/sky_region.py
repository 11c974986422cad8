"""Where the sky of a photo is: marked by the truth, or seen in the picture if that is certain enough.

Invariant: what might as well be a ceiling, a wall, water or the night is no sky. A photo without a certain sky is not
asked about it; no depth map is looked at, for the models are what is judged.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frames import Mask, RgbImage
from stream.media import cv2
from stream.survey.findings.base import Basis
from stream.survey.findings.maps import dilated, size_within
from stream.survey.scene import Scene

_WORK_PX = 200
_CERTAIN = 0.5
_EDGE_PX = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Sky:
    """The sky of a photo.

    Attributes:
        mask: H×W.
        certainty: from 0 to 1; 1 where it is marked by the truth.
        basis: truth or picture.
    """

    mask: Mask
    certainty: float
    basis: Basis


def known_sky(scene: Scene) -> Sky | None:
    """The sky of a scene; None if it has none, or if nobody can be certain."""
    if scene.truth is not None and scene.truth.sky is not None:
        return Sky(mask=scene.truth.sky, certainty=1.0, basis=Basis.TRUTH) if scene.truth.sky.any() else None
    return sky_in(scene.rgb)


def sky_in(rgb: RgbImage) -> Sky | None:
    """The sky that can be seen in a picture, clouds included; None if it is not certain that there is one.

    A sky is a smooth region at the top of a picture that is blue in part; grey and white parts are its clouds. As
    evidence that it is no wall and no water it must be the lightest large thing in the picture and pale towards the
    horizon (Luo and Etz 2002, doi:10.1109/83.988954, use that, too). Skies that are overcast, dark or red
    are left out: no colour tells them from ceilings, nights and lamps.

    Args:
        rgb: uint8 H×W×3.
    """
    return None if (found := _examined(rgb)) is None or found.certainty < _CERTAIN else found


def _examined(rgb: RgbImage) -> Sky | None:
    """The candidate for a sky, however uncertain; None if there is no smooth region of its colours at the top."""
    size = size_within((rgb.shape[0], rgb.shape[1]), _WORK_PX)
    if min(size) < 16:
        return None
    small = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)
    r, g, b = small[..., 0], small[..., 1], small[..., 2]
    light = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
    mean = cv2.GaussianBlur(light, (0, 0), 2)
    rough = np.sqrt(np.maximum(cv2.GaussianBlur(light * light, (0, 0), 2) - mean * mean, 0))
    blue = (b - r >= 0.06) & (b >= g - 0.01) & (g >= r - 0.02) & (light >= 0.25)
    cloud = (small.max(2) - small.min(2) <= 0.14) & (light >= 0.5)
    smooth = (blue & (rough < 0.06)) | (cloud & (rough < 0.08))
    candidate = cv2.morphologyEx(smooth.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels = cv2.connectedComponents(candidate, connectivity=4)
    at_top = np.unique(labels[:2])
    mask = np.isin(labels, at_top[at_top > 0])
    mask = dilated(mask, _EDGE_PX) & (blue | cloud) | mask  # roughness reaches over the edges of what is smooth
    area = np.count_nonzero(mask)
    if area < 64 or area == mask.size:
        return None
    in_blue = mask & blue
    saturation = (b - r) / np.maximum(b, np.float32(0.01))
    colour = saturation[in_blue] if in_blue.any() else np.zeros(1, np.float32)
    cues = [
        _rising(area / mask.size, 0.02, 0.08),
        _rising(float(mask[:2].mean()), 0.2, 0.7),
        _rising(np.count_nonzero(in_blue) / area, 0.1, 0.5),
        _rising(float(light[mask].mean() - light[~mask].mean()), -0.05, 0.15),
        1 - _rising(float(mask[-2:].mean()), 0.0, 0.2),
        _rising(float(np.percentile(colour, 90)), 0.1, 0.34),
        1 - _rising(float(np.median(colour)), 0.75, 0.95),
        _rising(_paling(saturation, in_blue), -0.06, 0.06),
    ]
    whole = cv2.resize(mask.astype(np.float32), (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR) > 0.5
    return Sky(mask=np.asarray(whole), certainty=min(cues), basis=Basis.PICTURE)


def _paling(saturation: NDArray[np.float32], blue: Mask) -> float:
    """How much less saturated blue is in the lower half of its pixels than in the upper half."""
    rows, columns = np.nonzero(blue)
    if not rows.size:
        return -1.0
    lower = rows > np.median(rows)
    values = saturation[rows, columns]
    return float(values[~lower].mean() - values[lower].mean()) if lower.any() else -1.0


def _rising(x: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on, linear between."""
    return float(min(1.0, max(0.0, (x - low) / (high - low))))
