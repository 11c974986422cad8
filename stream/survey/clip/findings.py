"""The findings of a clip as a whole: flicker, drift and what is left of old scenes after cuts.

Invariant: like those of photos, each number is finite or None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from stream.infer.base import DepthChange
from stream.survey.clip.cuts import LATE, WATCHED, Cut
from stream.survey.clip.drift import LEAST_S, STILL_SHARE, STRETCH_S, Stretch
from stream.survey.record import ClipNumberRow, FindingRow
from stream.survey.summary import rows_of

_DRIFT_BY_CHANCE = 0.002
"""A still picture with grain of ±6 of 255 and a map that does not change have 0.0015: points are followed with errors
of their own."""
_LEFT_BY_CHANCE = 0.05

FLICKER = FindingRow(
    key="flicker",
    title="Flicker",
    question="How much does depth change from frame to frame where the picture only moves?",
    unit="",
    better="lower",
    definition=(
        "The mean of |d(t) − d(t−1)| along the optical flow (DIS, Kroeger et al. 2016, arXiv:1603.03590) over the "
        "pixels found forwards and backwards alike, in shares of the robust range of disparity (2nd to 98th "
        "percentile). Pairs of frames across a cut are left out. What truly comes nearer is in it, alike for every "
        "model."
    ),
    details={},
)
DRIFT = FindingRow(
    key="drift",
    title="Drift",
    question="Does the depth of what stands still wander?",
    unit="/s",
    better="lower",
    definition=(
        f"Points are followed along the optical flow for up to {STRETCH_S:g} s. A line is fitted by least squares to "
        f"the disparity of each that stays within {STILL_SHARE:.0%} of the picture's longer side. The drift is the "
        "root mean square of their slopes per second, less what flicker adds to it by chance (the variance of a fitted "
        "slope), in shares of the robust range of disparity. Slopes that are less than twice what chance gives count "
        f"as 0. The mean over the stretches of the clip; there is no number if less than {LEAST_S:g} s of it stands "
        f"still. Numbers within {_DRIFT_BY_CHANCE:g} of each other are alike: the grain of a camera gives as much."
    ),
    resolution=_DRIFT_BY_CHANCE,
    details={"still": "share of the points that stood still"},
)
CUTS = FindingRow(
    key="cuts",
    title="Left over after cuts",
    question="Does depth change with the picture at a cut, or is something of the old scene left?",
    unit="",
    better="lower",
    definition=(
        "The depth of the first frame after a cut as a mixture of the last map of the old scene and of the map "
        f"{WATCHED - 1} frames later, by least squares: the share of the old scene, 0 to 1. Both maps are "
        "compared at points that are followed along the optical flow. The mean over the cuts that are found in the "
        f"picture. A model that takes each frame alone has up to about {_LEFT_BY_CHANCE:g} by chance, so numbers "
        "within that of each other are alike."
    ),
    resolution=_LEFT_BY_CHANCE,
    details={
        "late": f"frames after a cut of which a share of {LATE:g} or more is still of the old scene, on average",
    },
)
CLIP_FINDINGS = FLICKER, DRIFT, CUTS


def clip_numbers(
    models: Sequence[str], changes: Sequence[DepthChange | None], stretches: Sequence[Stretch], cuts: Sequence[Cut]
) -> dict[str, dict[str, ClipNumberRow]]:
    """The findings of a clip, by finding and model; those that no model has a number for are left out.

    Args:
        changes, stretches, cuts: what was measured, each by model in the order of `models`.
    """
    found: dict[str, dict[str, _Found]] = {one.key: {} for one in CLIP_FINDINGS}
    for at, model in enumerate(models):
        change = changes[at] if at < len(changes) else None
        found[FLICKER.key][model] = _Found() if change is None else _Found(values=[change.raw], count=change.pairs)
        known = [(per_s, one.still) for one in stretches if (per_s := one.per_s[at]) is not None]
        found[DRIFT.key][model] = _Found.of([per_s for per_s, _ in known], "still", [still for _, still in known])
        left = [share for one in cuts if (share := one.leftover[at]) is not None]
        late = [float(count) for one in cuts if (count := one.late[at]) is not None]
        found[CUTS.key][model] = _Found.of(left, "late", late)
    return {
        fact.key: _rows(found[fact.key], resolution=fact.resolution)
        for fact in CLIP_FINDINGS
        if any(one.values for one in found[fact.key].values())
    }


@dataclass(frozen=True, kw_only=True)
class _Found:
    values: Sequence[float] = ()
    count: int = 0
    details: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Sequence[float], detail: str, others: Sequence[float]) -> "_Found":
        """Values, and the mean of a further number."""
        return cls(values=values, count=len(values), details={detail: fmean(others)} if others else {})


def _rows(found: Mapping[str, _Found], *, resolution: float) -> dict[str, ClipNumberRow]:
    rows = rows_of({model: one.values for model, one in found.items()}, better="lower", resolution=resolution)
    return {
        model: ClipNumberRow(
            value=row.mean,
            spread=row.spread,
            measured=found[model].count,
            is_best=row.is_best,
            details=dict(found[model].details),
        )
        for model, row in rows.items()
    }
