"""How maps come into the units of the truth, and what accuracy and deep range make of them: what is exact up to scale
and shift is exact, whatever is unknown, odd or missing, and what says nothing is a constant."""

from pathlib import Path

import numpy as np
import pytest

from stream.frames import DepthMap
from stream.survey.findings.accuracy import ACCURACY
from stream.survey.findings.base import Finding, Number
from stream.survey.findings.deep import DEEP
from stream.survey.pictures import write_pictures
from stream.survey.scene import Truth
from tests.survey.constructed import blurred, scene_of

SIZE = (150, 200)
Y, X = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
RGB = np.full((*SIZE, 3), 128, np.uint8)


def room() -> DepthMap:
    """A floor and a row of posts of many depths; 1/m."""
    disparity = 0.03 + 0.4 * Y / SIZE[0]
    posts = (X % 20 < 5) & (Y > 40)
    return np.where(posts, 0.1 + 0.5 * ((X // 20) % 5) / 4, disparity).astype(np.float32)


TRUTH = room()


def measured(finding: Finding, truth: DepthMap, sky: np.ndarray | None = None, **maps: np.ndarray) -> dict[str, Number]:
    answers = finding.measure(scene_of(RGB, maps, Truth(disparity=truth, sky=sky)))
    assert answers is not None
    return dict(answers.numbers)


def values(finding: Finding, truth: DepthMap, **maps: np.ndarray) -> dict[str, float | None]:
    return {name: one.value for name, one in measured(finding, truth, **maps).items()}


@pytest.mark.parametrize("finding", [ACCURACY, DEEP], ids=lambda one: one.key)
@pytest.mark.parametrize("known", ["5 %", "half", "lines", "gap"])
def test_an_exact_map_is_exact_whatever_is_known_of_the_truth(finding: Finding, known: str) -> None:
    random = np.random.default_rng(3).random(SIZE)
    mask = {"5 %": random < 0.05, "half": random < 0.5, "lines": Y % 8 == 0, "gap": (X < 90) | (X > 117)}[known]
    truth = np.where(mask, TRUTH, np.nan).astype(np.float32)
    found = values(finding, truth, exact=TRUTH, copy=3 * TRUTH + 7, blurred=blurred(TRUTH, 3), ramp=Y)
    assert found["exact"] == pytest.approx(0, abs=1e-6)
    assert found["copy"] == pytest.approx(0, abs=1e-5)
    dense = values(finding, TRUTH, blurred=blurred(TRUTH, 3), ramp=Y)
    for name in ("blurred", "ramp"):
        assert found[name] == pytest.approx(dense[name], rel=0.15)


@pytest.mark.parametrize("finding", [ACCURACY, DEEP], ids=lambda one: one.key)
def test_a_map_that_no_positive_scale_fits_is_a_constant_in_any_unit(finding: Finding) -> None:
    maps = {"inverted": 1 - TRUTH, "small": 0.1 - 0.1 * TRUTH, "great": 10 - 10 * TRUTH, "low": TRUTH * 0 + 0.05}
    found = values(finding, TRUTH, **maps, high=TRUTH * 0 + 5, mean=TRUTH * 0 + TRUTH.mean(), ramp=Y)
    of_constant = found.pop("mean")
    of_ramp = found.pop("ramp")
    assert of_ramp is not None
    assert of_constant is not None
    assert of_ramp < of_constant
    assert found == pytest.approx(dict.fromkeys(found, of_constant), rel=1e-5)


def test_a_map_that_does_not_fit_is_shown_as_the_model_gave_it(tmp_path: Path) -> None:
    scene = scene_of(RGB, {"a": 100 - 50 * TRUTH, "b": TRUTH}, Truth(disparity=TRUTH))
    assert (scene.is_aligned("a"), scene.is_aligned("b")) == (False, True)
    assert np.ptp(scene.maps["a"]) == 0
    own = write_pictures(scene, tmp_path, "a", colormap="gray").scale.own
    assert own == {"a": pytest.approx(tuple(np.percentile(100 - 50 * TRUTH, (1, 99))), rel=1e-5)}


@pytest.mark.parametrize("odd", ["one", "some", "negative"])
def test_a_few_odd_pixels_do_not_rule_the_fit(odd: str) -> None:
    wrong = 3 * TRUTH + 7
    wrong[60, :5] = {"one": 7, "some": 1e3, "negative": -1e4}[odd]
    wrong[60, 0] = {"one": 1e5}.get(odd, wrong[60, 0])
    assert values(ACCURACY, TRUTH, a=wrong)["a"] == pytest.approx(0, abs=0.02)
    assert values(DEEP, TRUTH, a=wrong)["a"] == pytest.approx(0, abs=0.05)
    other = scene_of(RGB, {"first": wrong, "second": 2 * TRUTH})  # the one that the other is fitted to
    np.testing.assert_allclose(other.maps["second"][:60], (3 * TRUTH + 7)[:60], atol=1e-3)


def test_something_small_that_is_right_is_not_odd() -> None:
    wall = np.random.default_rng(0).normal(0.1, 1e-4, SIZE).astype(np.float32)
    pole = (X == 100) & (Y < 60)
    truth, seen = np.where(pole, 0.5, wall), np.where(pole, 5, 1 + (wall[::-1] - 0.1))
    scene = scene_of(RGB, {"a": seen}, Truth(disparity=truth.astype(np.float32)))
    assert scene.maps["a"][pole] == pytest.approx(0.5, abs=1e-3), "the wall's noise would have ruled the fit"


def test_leaving_out_what_is_hard_makes_no_map_more_accurate() -> None:
    soft = blurred(TRUTH, 3)
    error = np.abs(soft - TRUTH)
    easy = {f"p{p}": np.where(error <= np.percentile(error, p), soft, np.nan) for p in (30, 70, 95)}
    found = measured(ACCURACY, TRUTH, all=soft, **easy, nothing=soft * np.nan)
    whole = found["all"].value
    assert whole is not None
    for name in easy:
        value = found[name].value
        assert value is not None
        assert value > whole, name
    assert found["p30"].details["compared"] == pytest.approx(0.3, abs=0.01)
    assert found["nothing"].value is None


def test_the_sky_is_no_depth_that_could_be_wrong() -> None:
    sky = Y < 30
    truth = np.where(sky, 0, TRUTH).astype(np.float32)
    near = np.where(sky, np.nan, TRUTH)
    assert measured(ACCURACY, truth, sky, a=near)["a"].value == pytest.approx(0, abs=1e-6)
    assert measured(ACCURACY, truth, sky, a=near)["a"].details["compared"] == 1
