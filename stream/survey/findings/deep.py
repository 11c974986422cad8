"""Deep range: how right depth is near and far, each distance for itself.

Invariant: every band of distances weighs the same, however few pixels it has; a far street is as much as a near table.
"""

import math

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthKind, Mask
from stream.survey.findings.base import Answers, Basis, Finding, Number, Place
from stream.survey.findings.levels import LEVEL_DETAILS, levels, true_levels
from stream.survey.findings.maps import place
from stream.survey.findings.sky_region import known_sky
from stream.survey.scene import Scene

BANDS: dict[str, tuple[float, float]] = {
    "under_2m": (0.0, 2.0),
    "2_to_5m": (2.0, 5.0),
    "5_to_15m": (5.0, 15.0),
    "15_to_50m": (15.0, 50.0),
    "50_to_200m": (50.0, 200.0),
    "beyond_200m": (200.0, np.inf),
}
"""Distances in metres, the end excluded."""
_FAR_M = 200.0
"""Farther is no farther: what a disparity of 0.005 per metre means is within the error of any alignment."""
_NEAR_M = 0.01
_LEAST_SHARE = 0.002
"""Of the pixels whose distance is known, that a band must have."""
_LEAST_PX = 50
_LEAST_BANDS = 2
_SAMPLES = 250_000
_GRID = 8
_SHOWN = 0.22
"""Log error from which on a place is shown: a factor of 1.25."""
_PLACES = 3


def _measure(scene: Scene) -> Answers | None:
    if scene.truth is None:
        return None
    step = max(1, math.ceil((scene.truth.disparity.size / _SAMPLES) ** 0.5))
    true = scene.truth.disparity[::step, ::step]
    known = true > 0
    if scene.truth.sky is not None:
        known &= ~scene.truth.sky[::step, ::step]
    distance = 1 / np.where(known, true, np.float32(np.nan)).astype(np.float64)
    least = max(_LEAST_PX, _LEAST_SHARE * np.count_nonzero(known))
    within = {name: (distance >= low) & (distance < high) for name, (low, high) in BANDS.items()}
    bands = {name: band for name, band in within.items() if np.count_nonzero(band) >= least}
    if len(bands) < _LEAST_BANDS:
        return None
    true_log = _log_depth(true)
    numbers = {}
    for name, values in scene.maps.items():
        number, error = _number(_log_depth(values[::step, ::step]) - true_log, bands)
        details = dict(number.details)
        if scene.kinds.get(name) is DepthKind.METRIC_DEPTH:
            as_given, _ = _number(_log_depth(scene.raw[name][::step, ::step]) - true_log, bands)
            if as_given.value is not None:
                details["as_given"] = as_given.value
        numbers[name] = Number(value=number.value, details=details, places=_worst(error, bands))
    return Answers(basis=Basis.TRUTH, numbers=numbers)


def _log_depth(disparity: NDArray[np.float32]) -> NDArray[np.float64]:
    """ln z in metres, within the limits; NaN where there is no answer."""
    return -np.log(np.clip(disparity.astype(np.float64), 1 / _FAR_M, 1 / _NEAR_M))


def _number(error: NDArray[np.float64], bands: dict[str, Mask]) -> tuple[Number, NDArray[np.float64]]:
    """The means of |error| in each band and over them; no mean if most of a band has no answer."""
    size = np.abs(error)
    answered = np.isfinite(size)
    means = {}
    for name, band in bands.items():
        told = band & answered
        if 2 * np.count_nonzero(told) >= np.count_nonzero(band):
            means[name] = float(size[told].mean())
    value = float(np.mean(list(means.values()))) if len(means) == len(bands) else None
    return Number(value=value, details=means), size


def _worst(error: NDArray[np.float64], bands: dict[str, Mask]) -> tuple[Place, ...]:
    """The cells of a grid with the largest errors, and the distances there."""
    height, width = error.shape
    rows, columns = min(_GRID, height), min(_GRID, width)
    cell = (np.arange(height) * rows // height)[:, None] * columns + np.arange(width) * columns // width
    found = []
    for name, band in bands.items():
        told = band & np.isfinite(error)
        count = np.bincount(cell[told], minlength=rows * columns)
        mean = np.bincount(cell[told], error[told], minlength=rows * columns) / np.maximum(count, 1)
        mean[count < 0.2 * height * width / (rows * columns)] = 0
        i = int(mean.argmax())
        found.append((float(mean[i]), i, name))
    return tuple(
        place(
            i % columns * width // columns,
            i // columns * height // rows,
            -(-width // columns),
            -(-height // rows),
            error.shape,
            f"{name.replace('_', ' ')}: off by a factor of {np.exp(mean):.2g}",
        )
        for mean, i, name in sorted(found, reverse=True)[:_PLACES]
        if mean >= _SHOWN
    )


def _measure_levels(scene: Scene) -> Answers | None:
    region = np.ones(scene.size, np.bool_)
    sky = known_sky(scene)
    if sky is not None:
        region &= ~sky.mask
    numbers, true = {}, {} if scene.truth is None else true_levels(scene.truth.disparity, region)
    for name, values in scene.maps.items():
        found = levels(values, region)
        if found is None:
            return None
        numbers[name] = Number(value=float(found.count), details={"step": found.step, **true})
    return Answers(basis=Basis.PICTURE, numbers=numbers)


DEEP = Finding(
    key="deep",
    title="Deep range",
    question="How right is depth at every distance, near and far?",
    unit="",
    better="lower",
    definition=(
        "The mean over bands of distance of the mean |ln z − ln z*| in each (the log error of Eigen et al. 2014, "
        "arXiv:1406.2283): under 2 m, 2 to 5, 5 to 15, 15 to 50, 50 to 200 m, and beyond, where depths count as 200 "
        "m. z is the inverse of the map after a least-squares scale and shift in disparity to the truth, between 1 cm "
        "and 200 m; a map that no positive scale fits is a constant. Bands with less than 0.2 % of the pixels whose "
        "distance is known do not count; a photo with one band has no deep range. No mean for a map that leaves most "
        "of a band unanswered. 0.1 is about 10 %."
    ),
    measure=_measure,
    resolution=1e-4,
    details={
        **{name: f"the same from {low:g} to {high:g} m" for name, (low, high) in BANDS.items() if high < np.inf},
        "beyond_200m": "the same from 200 m on",
        "as_given": "the mean for metres as the model gives them, not aligned",
    },
)

DEEP_LEVELS = Finding(
    key="deep_levels",
    title="Depth levels",
    question="How many depths are told apart in the whole photo?",
    unit="levels",
    better="neither",
    definition=(
        "Levels as in the background, counted in the whole photo without the sky. It says how finely a map is graded, "
        "not whether it is right: a smooth ramp has many levels, so the count alone is no merit. Where a truth is "
        "known, compare it with the number of levels that the truth has."
    ),
    measure=_measure_levels,
    details=LEVEL_DETAILS,
)
