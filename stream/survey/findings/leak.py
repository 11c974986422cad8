"""Texture leak: does the picture print through into depth where the scene is plane?

Invariant: only what changes within a window counts. The slope of a plane is the mean of the gradients there, which is
subtracted, so neither a sloping plane nor a fall-off of light is a leak.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask
from stream.media import cv2
from stream.survey.findings.base import Answers, Basis, Finding, Number, Place
from stream.survey.findings.maps import WORK_PX, at_work_size, normalised, place, reduced, size_within
from stream.survey.findings.sky_region import known_sky
from stream.survey.scene import Scene

Labels = NDArray[np.int32]
Gradients = NDArray[np.float32]

_BLUR = 0.005
"""Of the Gaussian under the gradients, as a share of the longer side: 4 px of 800. Models compute maps of 256 to 518
pixels and print blurred tiles; narrower gradients would let a blurred print off."""
_WINDOW = 0.1
"""Side of a window, as a share of the longer side."""
_MARGIN = 0.025
"""A region's border that does not count: three times the blur, and as far again as the edges of other things reach in
small maps (24 px of 1600 for `starter`), which would else print their shadows."""
_LEAST = 0.25
"""The smallest part of a window that counts, as a share of its pixels."""
_TEXTURE = 0.01
"""The least change of luminance within the blur's length (root mean square) that is a texture: what a chequerboard of
squares as large as half a window has at a contrast of 0.04, or 10 of 255 grey levels."""

_FIT_PX = 200
_FIT_BLUR_PX = 3
"""Of the maps in which the models' planes are found: prints of a smaller scale vanish in it."""
_KNOWN = 0.8
"""The least part of a window that must have an answer, for a plane to be fitted."""
_TRUE_PLANE = 0.01
"""Largest root mean square deviation of true disparity from a plane, relative to its mean: 1 % of the distance."""
_SEEN_PLANE = 0.015
"""The same for a model's disparity, as a share of its range."""
_SHOWN = 0.02
_SHOWN_CORRELATION = 0.4
_PLACES = 3
_RESOLUTION = 0.005
"""Half a percent of the range from black to white. True depth of the built-in scenes and a ramp have 1e-7 or less. True
depth with noise of 5 % of the range, which has nothing to do with the picture, has up to 0.003. A print of 0.02 is
measured as 0.0199 to 0.0202."""


@dataclass(frozen=True, kw_only=True)
class Print:
    """How much of the picture is in a map.

    Attributes:
        strength: the step in depth, as a share of the map's range, per step in luminance from black to white.
        correlation: of the gradients, from 0 to 1.
        share: of the picture's pixels that could show it: plane, with texture, and answered.
        places: where it is strongest.
    """

    strength: float
    correlation: float
    share: float
    places: tuple[Place, ...]


class Picture:
    """The luminance of a picture and its regions, prepared for one map after the other.

    Args:
        grey: float32 H×W from 0 to 1.
        regions: int32 of the same size, a number for each region, 0 for none.
    """

    def __init__(self, grey: NDArray[np.float32], regions: Labels) -> None:
        self.size = size_within((grey.shape[0], grey.shape[1]), WORK_PX)
        height, width = self.size
        longer = max(self.size)
        self._blur_px = max(0.5, _BLUR * longer)
        side = max(4, round(_WINDOW * longer))
        self._boxes = [(x, y, min(side, width - x), min(side, height - y)) for y in range(0, height, side)
                       for x in range(0, width, side)]  # fmt: skip
        windows = (np.arange(height) // side)[:, None] * -(-width // side) + (np.arange(width) // side)[None]
        labels = _inner(regions, self.size, round(_MARGIN * longer))
        self._at = np.flatnonzero(labels)
        names, numbers = np.unique(labels.ravel()[self._at], return_inverse=True)
        pieces = windows.ravel()[self._at].astype(np.int64) * max(1, len(names)) + numbers
        found, self._piece = np.unique(pieces, return_inverse=True)
        self._window, self._region = found // max(1, len(names)), found % max(1, len(names))
        self._least = _LEAST * side * side
        shrunk = reduced(grey, self.size)
        self._gx, self._gy = (g.ravel()[self._at] for g in self._gradients(shrunk))

    def print_in(self, values: DepthMap) -> Print | None:
        """How much of the picture is in a map of any size.

        Returns:
            None if the map is constant, or no region has a texture.
        """
        if not self._at.size or (shrunk := normalised(reduced(values, self.size))) is None:
            return None
        known = answered = np.isfinite(shrunk)
        filled = np.where(known, shrunk, np.float32(0))
        if not known.all():
            weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), self._blur_px)
            answered = weight > 0.999
        ex, ey = (g.ravel()[self._at] for g in self._gradients(filled))
        use = answered.ravel()[self._at]
        gx, gy = self._gx, self._gy

        def summed(x: NDArray[np.float32]) -> NDArray[np.float64]:
            kept = np.where(use, x, np.float32(0))
            return np.bincount(self._piece, kept, minlength=len(self._window)).astype(np.float64)

        n = np.bincount(self._piece, use, minlength=len(self._window))
        n1 = np.maximum(n, 1)
        dx, dy, lx, ly = summed(ex), summed(ey), summed(gx), summed(gy)
        covariance = summed(ex * gx + ey * gy) - (dx * lx + dy * ly) / n1
        light = np.maximum(summed(gx * gx + gy * gy) - (lx * lx + ly * ly) / n1, 0)
        depth = np.maximum(summed(ex * ex + ey * ey) - (dx * dx + dy * dy) / n1, 0)
        counts = (n >= self._least) & (np.sqrt(light / n1) * self._blur_px >= _TEXTURE)
        if not counts.any():
            return None
        by_region = np.abs(np.bincount(self._region[counts], covariance[counts])).sum()
        total = light[counts].sum()
        noise = np.sqrt(total * depth[counts].sum())
        return Print(
            strength=float(by_region / total),
            correlation=float(min(1.0, by_region / noise)) if noise > 0 else 0.0,
            share=float(n[counts].sum() / (self.size[0] * self.size[1])),
            places=self._places(counts, covariance, light, depth),
        )

    def _places(
        self,
        counts: Mask,
        covariance: NDArray[np.float64],
        light: NDArray[np.float64],
        depth: NDArray[np.float64],
    ) -> tuple[Place, ...]:
        strength = np.abs(covariance) / np.maximum(light, 1e-30)
        related = np.abs(covariance) >= _SHOWN_CORRELATION * np.sqrt(light * depth)
        shown = np.flatnonzero(counts & (strength >= _SHOWN) & related)
        best = shown[np.argsort(-np.abs(covariance[shown]), kind="stable")][:_PLACES]
        found = []
        for i in best.tolist():
            left, top, width, height = self._boxes[int(self._window[i])]
            text = f"prints {strength[i]:.0%} of the range per full contrast"
            found.append(place(left, top, width, height, self.size, text))
        return tuple(found)

    def _gradients(self, values: DepthMap) -> tuple[Gradients, Gradients]:
        blurred = cv2.GaussianBlur(values, (0, 0), self._blur_px, borderType=cv2.BORDER_REPLICATE)
        x, y = (
            cv2.Sobel(blurred, cv2.CV_32F, *axis, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
            for axis in ((1, 0), (0, 1))
        )
        return np.asarray(x), np.asarray(y)


def _inner(regions: Labels, size_hw: tuple[int, int], margin: int) -> Labels:
    """Regions at another size, without what is within `margin` of another region, of none, or of the picture's edge."""
    shrunk = np.asarray(regions, np.float32)  # OpenCV has no morphology for int32; exact up to 16 million
    if regions.shape != size_hw:
        shrunk = np.asarray(cv2.resize(shrunk, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
    if margin:
        square = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
        # What lies outside the picture is another region: gradients there would be those of a flat continuation.
        least = cv2.erode(shrunk, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        shrunk = np.where(least == cv2.dilate(shrunk, square), shrunk, np.float32(0))
    return shrunk.astype(np.int32)


def planes_of(scene: Scene) -> tuple[Labels, Basis] | None:
    """The plane regions of a scene, without its sky; None if nobody can say where they are."""
    if scene.truth is not None and scene.truth.planes is not None:
        return scene.truth.planes, Basis.TRUTH
    size = size_within(scene.size, _FIT_PX)
    if scene.truth is not None:
        true = reduced(scene.truth.disparity, size)
        deviation, mean = _deviation(np.where(true > 0, true, np.float32(np.nan)))
        plane = deviation <= _TRUE_PLANE * mean
        return _joined(plane, scene.size, size), Basis.TRUTH
    votes: NDArray[np.int64] | int = 0
    voters = 0
    for values in scene.maps.values():
        if (own := normalised(at_work_size(values))) is not None:
            deviation, _ = _deviation(_smoothed(reduced(own, size)))
            votes, voters = votes + (deviation <= _SEEN_PLANE).astype(np.int64), voters + 1
    if voters < 2:
        return None
    plane = np.asarray(2 * votes > voters)
    sky = known_sky(scene)
    if sky is not None:
        side = _fit_side(size)
        seen = cv2.resize(sky.mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        ys, xs = np.nonzero(seen > 0.5)
        plane[ys // side, xs // side] = False
    return _joined(plane, scene.size, size), Basis.MODELS


def _fit_side(size_hw: tuple[int, int]) -> int:
    return max(4, round(_WINDOW * max(size_hw)))


def _smoothed(values: DepthMap) -> DepthMap:
    known = np.isfinite(values)
    total = cv2.GaussianBlur(np.where(known, values, np.float32(0)).astype(np.float32), (0, 0), _FIT_BLUR_PX)
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), _FIT_BLUR_PX)
    return np.where(known, total / np.maximum(weight, np.float32(1e-6)), np.float32(np.nan))


def _deviation(values: DepthMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Root mean square deviation from the least-squares plane, and the mean, in each window of a map.

    Returns:
        Two arrays, rows × columns of windows; the deviation is infinite where too little has an answer.
    """
    height, width = values.shape
    side = _fit_side((height, width))
    rows, columns = -(-height // side), -(-width // side)
    y, x = np.nonzero(np.isfinite(values))
    which = (y // side) * columns + x // side
    v = values[y, x].astype(np.float64)
    u, w = x % side - side / 2, y % side - side / 2
    basis = np.stack([np.ones_like(v), u, w, v])
    n = rows * columns
    moments = np.empty((n, 4, 4))
    for i in range(4):
        for j in range(i, 4):
            moments[:, i, j] = moments[:, j, i] = np.bincount(which, basis[i] * basis[j], minlength=n)
    count = moments[:, 0, 0]
    full = np.minimum(side, height - np.arange(rows) * side)[:, None] * np.minimum(
        side, width - np.arange(columns) * side
    )
    usable = (count >= _KNOWN * full.ravel()) & (full.ravel() >= _LEAST * side * side) & (count >= 9)
    ridge = np.diag([0.0, 1e-9, 1e-9]) * np.maximum(count, 1)[:, None, None]
    normal = np.where(usable[:, None, None], moments[:, :3, :3] + ridge, np.eye(3))
    fitted = np.linalg.solve(normal, moments[:, :3, 3:])[..., 0]
    left = moments[:, 3, 3] - (fitted * moments[:, :3, 3]).sum(1)
    deviation = np.where(usable, np.sqrt(np.maximum(left, 0) / np.maximum(count, 1)), np.inf)
    mean = moments[:, 0, 3] / np.maximum(count, 1)
    return deviation.reshape(rows, columns), mean.reshape(rows, columns)


def _joined(plane: Mask, size_hw: tuple[int, int], fit_hw: tuple[int, int]) -> Labels:
    """Windows that touch, as one region, at the size of the scene."""
    _, labels = cv2.connectedComponents(plane.astype(np.uint8), connectivity=4)
    side = _fit_side(fit_hw)
    rows = np.minimum(np.arange(size_hw[0]) * fit_hw[0] // size_hw[0], fit_hw[0] - 1) // side
    columns = np.minimum(np.arange(size_hw[1]) * fit_hw[1] // size_hw[1], fit_hw[1] - 1) // side
    return np.asarray(labels[rows[:, None], columns[None]], np.int32)


def _measure(scene: Scene) -> Answers | None:
    found = planes_of(scene)
    if found is None:
        return None
    regions, basis = found
    picture = Picture(scene.grey, regions)
    numbers = {}
    for name, values in scene.maps.items():
        printed = picture.print_in(values)
        numbers[name] = (
            Number(value=None)
            if printed is None
            else Number(
                value=printed.strength,
                details={"correlation": printed.correlation, "share": printed.share},
                places=printed.places,
            )
        )
    if all(number.value is None for number in numbers.values()):
        return None
    return Answers(basis=basis, numbers=numbers)


LEAK = Finding(
    key="leak",
    title="Texture leak",
    question="Does the picture print through into depth where the scene is plane?",
    unit="",
    better="lower",
    resolution=_RESOLUTION,
    definition=(
        "Σ |Σ cov(∇d, ∇l)| / Σ var(∇l) over windows in plane regions: the step in disparity d, as a share of the "
        "map's range (1st to 99th percentile), that comes with a step in luminance l from black to white. Gradients "
        "are those of a Gaussian of 0.5 % of the longer side; covariances are taken in windows of 10 % of it, so the "
        "slope of a plane and a fall-off of light cancel. Windows without texture do not count, nor does a border of "
        "2.5 % of the longer side. The inner sum runs "
        "over the windows of one region, whose sign is that of the print. Regions are the planes of the truth (a "
        "plane is linear in disparity); without truth, windows in which the smoothed disparity of most models "
        "deviates from a plane by less than 1.5 % of its range (root mean square). Numbers within "
        f"{_RESOLUTION:g} of each other are alike: noise of 5 % of the range has up to 0.003 by chance. A ramp prints "
        "nothing, so the number alone is no merit of depth."
    ),
    measure=_measure,
    details={
        "correlation": "correlation of the gradients of depth and luminance there, 0 to 1; 0 is best",
        "share": "share of the picture that is plane and has texture",
    },
)
