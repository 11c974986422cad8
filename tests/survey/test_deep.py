"""Deep range: errors of known size in known bands, and levels of the whole photo."""

import math

import numpy as np
import pytest

from stream.frames import DepthKind, DepthMap
from stream.survey.findings.base import Basis, Number
from stream.survey.findings.deep import DEEP, DEEP_LEVELS
from stream.survey.scene import Scene, Truth
from tests.support.survey_scenes import grid, scene_of

SIZE = (120, 200)
Y, X = grid(SIZE)
LIGHT = np.full(SIZE, 0.5)
METRES = np.asarray([1.0, 3.0, 10.0, 30.0, 100.0])[np.minimum((X * 5).astype(int), 4)]
"""Five strips, one in each band."""
TRUTH = Truth(disparity=(1 / METRES).astype(np.float32))


def disparity(metres: np.ndarray) -> DepthMap:
    return (1 / metres).astype(np.float32)


def numbers(scene: Scene) -> dict[str, Number]:
    answers = DEEP.measure(scene)
    assert answers is not None
    assert answers.basis is Basis.TRUTH
    return dict(answers.numbers)


def test_every_band_weighs_the_same() -> None:
    wide = np.where(X < 0.9, 1.0, 30.0)
    wrong = np.where(X < 0.9, 1.0, 45.0)
    scene = scene_of(LIGHT, {"right": disparity(wide), "wrong": disparity(wrong)}, truth=Truth(disparity=1 / wide))
    found = numbers(scene)
    assert found["right"].value == pytest.approx(0, abs=1e-6)
    assert found["wrong"].value == pytest.approx(math.log(1.5) / 2, rel=1e-5), "although 90 % are near"
    assert found["wrong"].details == pytest.approx({"under_2m": 0, "15_to_50m": math.log(1.5)}, abs=1e-5)
    assert "15 to 50m" in found["wrong"].places[0].text
    assert not found["right"].places


def test_the_bands_are_told_apart() -> None:
    factors = {1.0: 1.1, 3.0: 1.2, 10.0: 0.5, 30.0: 1.4, 100.0: 0.25}
    off = np.vectorize(factors.__getitem__)(METRES)
    details = numbers(scene_of(LIGHT, {"a": disparity(METRES * off)}, truth=TRUTH))["a"].details
    expected = [abs(math.log(factor)) for factor in factors.values()]
    assert list(details) == ["under_2m", "2_to_5m", "5_to_15m", "15_to_50m", "50_to_200m"]
    assert list(details.values()) == pytest.approx(expected, rel=1e-4)


def test_beyond_two_hundred_metres_all_is_far_and_no_disparity_is_too_small() -> None:
    metres = np.where(X < 0.5, 1.0, 900.0)
    maps = {
        "far": disparity(np.where(X < 0.5, 1.0, 300.0)),
        "negative": np.where(X < 0.5, 1.0, -0.5),
        "near": disparity(np.where(X < 0.5, 1.0, 20.0)),
    }
    found = numbers(scene_of(LIGHT, maps, truth=Truth(disparity=disparity(metres))))
    assert found["far"].details["beyond_200m"] == pytest.approx(0, abs=1e-6)
    assert found["negative"].details["beyond_200m"] == pytest.approx(0, abs=1e-6)
    assert found["near"].details["beyond_200m"] == pytest.approx(math.log(10), rel=1e-5)


def test_the_sky_and_unknown_depths_are_no_distance() -> None:
    sky = Y < 0.3
    unknown = np.where(Y > 0.9, np.nan, np.where(sky, 0, 1 / METRES)).astype(np.float32)
    wrong = np.where(sky | (Y > 0.9), 7.0, 1 / METRES)
    truth = Truth(disparity=unknown, sky=sky)
    assert numbers(scene_of(LIGHT, {"a": wrong}, truth=truth))["a"].value == pytest.approx(0, abs=1e-6)


def test_a_map_that_leaves_a_band_out_has_no_mean() -> None:
    missing = np.where(METRES == 100, np.nan, 1 / METRES)
    number = numbers(scene_of(LIGHT, {"a": missing}, truth=TRUTH))["a"]
    assert number.value is None, "a mean of the easier bands would be better than it should be"
    assert "50_to_200m" not in number.details
    assert number.details["15_to_50m"] == pytest.approx(0, abs=1e-6)


def test_metres_are_also_taken_as_they_are() -> None:
    scene = scene_of(LIGHT, {"a": disparity(METRES)}, truth=TRUTH, kind=DepthKind.METRIC_DEPTH)
    doubled = Scene(**{**vars(scene), "raw": {"a": disparity(METRES * 1.5)}})
    number = numbers(doubled)["a"]
    assert number.value == pytest.approx(0, abs=1e-6)
    assert number.details["as_given"] == pytest.approx(math.log(1.5), rel=1e-5)
    assert "as_given" not in numbers(scene_of(LIGHT, {"a": disparity(METRES)}, truth=TRUTH))["a"].details


def test_one_distance_is_no_deep_range_and_without_truth_nobody_knows() -> None:
    near = Truth(disparity=np.full(SIZE, 1.0, np.float32))
    assert DEEP.measure(scene_of(LIGHT, {"a": near.disparity}, truth=near)) is None
    assert DEEP.measure(scene_of(LIGHT, {"a": near.disparity})) is None


def test_levels_of_the_whole_photo_need_no_truth() -> None:
    coarse = np.minimum((X * 8).astype(int), 7)
    noise = np.random.default_rng(0).normal(size=SIZE)
    answers = DEEP_LEVELS.measure(scene_of(LIGHT, {"eight": coarse, "noise": noise, "ramp": X}))
    assert answers is not None
    assert answers.basis is Basis.PICTURE
    assert answers.numbers["eight"].value == 8
    assert answers.numbers["noise"].value == 1
    assert answers.numbers["ramp"].value == pytest.approx(100, abs=5)


def test_with_a_truth_its_own_levels_stand_beside_those_of_a_map() -> None:
    def counts(truth: DepthMap) -> dict[str, float | None]:
        answers = DEEP_LEVELS.measure(scene_of(LIGHT, {"ramp": X}, truth=Truth(disparity=truth)))
        assert answers is not None
        number = answers.numbers["ramp"]
        return {"own": number.value, "true": number.details.get("true_levels")}

    assert counts(TRUTH.disparity) == {"own": pytest.approx(100, abs=5), "true": 5}
    assert counts(np.where(X > 0.65, TRUTH.disparity, np.float32(np.nan)))["true"] is None, "most of it is unknown"


@pytest.mark.parametrize("size", [SIZE, (300, 500)])
def test_what_one_map_leaves_out_changes_no_other(size: tuple[int, int]) -> None:
    _, x = grid(size)
    half = np.where(x < 0.5, np.nan, x)
    answers = DEEP_LEVELS.measure(scene_of(np.full(size, 0.5), {"half": half, "ramp": x}))
    assert answers is not None
    assert answers.numbers["ramp"].value == pytest.approx(100, abs=5)
