"""The sky: is it farthest of all, is it flat, and do its clouds print through?

Invariant: a model that leaves the sky out is right there.
"""

import numpy as np

from stream.frames import DepthMap, Mask
from stream.survey.findings.base import Answers, Basis, Finding, Number
from stream.survey.findings.leak import Picture
from stream.survey.findings.maps import WORK_PX, eroded, place_of, range_of, reduced, reduced_mask, sampled, size_within
from stream.survey.findings.sky_region import known_sky
from stream.survey.scene import Scene

_MARGIN = 0.01
"""The sky's border that does not count, as a share of the longer side: edges of maps are not that exact."""
_FAR = 5.0
"""Percent of the rest that is farthest: what the sky must be behind."""
_LEEWAY = 0.01
"""Of the map's range, by which the sky may be nearer all the same."""
_LEAST_PX = 64
_LEAST_SHARE = 0.005
_SHOWN = 0.05
"""Share of the sky from which on a part of it that is too near is shown."""


def _measure(scene: Scene) -> Answers | None:
    sky = known_sky(scene)
    if sky is None:
        return None
    size = size_within(scene.size, WORK_PX)
    margin = round(_MARGIN * max(size))
    inner, rest = eroded(reduced_mask(sky.mask, size), margin), eroded(reduced_mask(~sky.mask, size), margin)
    least = max(_LEAST_PX, _LEAST_SHARE * inner.size)
    if np.count_nonzero(inner) < least or np.count_nonzero(rest) < least:
        return None
    picture = Picture(reduced(scene.grey, size), inner.astype(np.int32))
    clouds = (
        None if scene.truth is None or scene.truth.clouds is None else reduced_mask(scene.truth.clouds, size) & inner
    )
    numbers = {}
    for name, values in scene.maps.items():
        number = _number(reduced(values, size), inner, rest, picture, clouds)
        if sky.basis is Basis.PICTURE and number.value is not None:
            number = Number(
                value=number.value,
                details={**number.details, "certainty": sky.certainty},
                places=number.places,
            )
        numbers[name] = number
    return Answers(basis=sky.basis, numbers=numbers)


def _number(values: DepthMap, inner: Mask, rest: Mask, picture: Picture, clouds: Mask | None) -> Number:
    known = np.isfinite(values)
    others = sampled(values)[sampled(rest & known)]
    if others.size < _LEAST_PX:
        return Number(value=None)
    extent = range_of(values)
    behind = float(np.percentile(others, _FAR)) + _LEEWAY * extent
    # a map that is constant puts nothing behind anything
    limit = behind if float(np.percentile(others, 100 - _FAR)) > behind else -np.inf
    far = inner & (~known | (values <= limit))
    told = values[inner & known]
    total = np.count_nonzero(inner)
    details: dict[str, float] = {"left_out": 1 - told.size / total}
    if extent and told.size >= _LEAST_PX:
        low, high = (float(x) for x in np.percentile(told, (5, 95)))
        details["unevenness"] = (high - low) / extent
        if (printed := picture.print_in(values)) is not None:
            details["cloud_leak"] = printed.strength
        if clouds is not None:
            parts = values[clouds & known], values[inner & ~clouds & known]
            if min(part.size for part in parts) >= _LEAST_PX:
                details["cloud_step"] = abs(float(np.median(parts[0]) - np.median(parts[1]))) / extent
    near = inner & ~far
    share = np.count_nonzero(far) / total
    places = place_of(near, f"{1 - share:.0%} of the sky nearer than other things") if 1 - share >= _SHOWN else ()
    return Number(value=share, details=details, places=places)


SKY = Finding(
    key="sky",
    title="Sky",
    question="Is the sky farthest?",
    unit="",
    better="higher",
    definition=(
        "The share of the sky's pixels that are as far as the farthest 5 % of everything else or farther, within 1 % "
        "of the map's range; pixels that a model leaves out count as far. A map that is constant puts nothing behind "
        "anything and gets 0. The sky is the one that the truth marks. Without truth it is a smooth, light region at "
        "the top of the picture, blue in part and paler towards the horizon, with its clouds; where that is not "
        "certain (overcast, night, sunset, ceilings, water), the photo is not asked. A border of 1 % of the longer "
        "side does not count."
    ),
    measure=_measure,
    details={
        "left_out": "share of the sky without an answer, which is right there",
        "unevenness": "95th less 5th percentile of the sky's disparity, as a share of the map's range; 0 is flat",
        "cloud_leak": "texture leak within the sky: what clouds print into depth",
        "cloud_step": "difference of the medians of clouds and clear sky, as a share of the map's range",
        "certainty": "that this is a sky, 0.5 to 1, where no truth says so",
    },
)
