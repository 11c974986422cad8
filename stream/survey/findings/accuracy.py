"""How far depth is from the truth altogether: the numbers that benchmarks print, where a truth is known.

Invariant: all models are measured at the same pixels, so leaving out pixels makes no map better.
"""

import numpy as np

from stream.depthdata.accuracy import errors
from stream.frames import DepthKind, DepthMap
from stream.survey.findings.base import Answers, Basis, Finding, Number
from stream.survey.scene import Scene


def _measure(scene: Scene) -> Answers | None:
    if scene.truth is None:
        return None
    numbers, truth = {}, scene.truth.disparity
    for name, values in scene.maps.items():
        found = errors(values, truth)
        if found is None:
            numbers[name] = Number(value=None)
        else:
            details = {"delta_1_25": found.delta_1_25, "spearman": found.spearman, "compared": found.compared}
            if scene.kinds[name] is DepthKind.METRIC_DEPTH:
                details |= _in_metres(scene.raw[name], truth)
            numbers[name] = Number(value=found.abs_rel, details=details)
    return Answers(basis=Basis.TRUTH, numbers=numbers)


def _in_metres(disparity: DepthMap, truth: DepthMap) -> dict[str, float]:
    """How far metres are off as they are; nothing where no distance is known."""
    known = (disparity > 0) & (truth > 0)
    if not known.any():
        return {}
    ratio = truth[known].astype(np.float64) / disparity[known]  # z / z*
    return {"scale": float(np.median(ratio)), "metric_abs_rel": float(np.abs(ratio - 1).mean())}


ACCURACY = Finding(
    key="accuracy",
    title="Accuracy",
    question="How far is depth from the truth?",
    unit="",
    better="lower",
    definition=(
        "AbsRel, the mean of |z − z*| / z* over the pixels whose true depth z* is known and finite, after a "
        "least-squares scale and shift in disparity (Ranftl et al. 2019, arXiv:1907.01341, section 5). The sky has no "
        "depth and does not count. A pixel without an answer counts as an error of 1, or as the mean error of a "
        "map that is constant at the mean true disparity if that is larger, so that leaving out what is hard does not "
        "pay. Disparities below 0.01 per metre count as 100 m, those of the truth, too."
    ),
    measure=_measure,
    resolution=1e-4,
    details={
        "delta_1_25": "share of the pixels with max(z/z*, z*/z) < 1.25, which no answer has not; 1 is best",
        "spearman": "rank correlation of the disparities, with the mean for no answer; 1 is best",
        "compared": "share of the pixels with a true depth that have an answer",
        "scale": "of a model in metres: the median of z/z* as the model gives z; 1 is best",
        "metric_abs_rel": "of a model in metres: AbsRel of z as the model gives it; 0 is best",
    },
)
