"""The background: levels of constructed layers, and the order of pairs with a known share of wrong ones."""

import numpy as np
import pytest

from stream.frames import DepthMap
from stream.media import cv2
from stream.survey.findings.background import BACKGROUND, BACKGROUND_ORDER
from stream.survey.findings.base import Basis, Finding, Number
from stream.survey.findings.deep import DEEP_LEVELS
from stream.survey.findings.levels import levels
from stream.survey.scene import Scene, Truth
from tests.support.survey_scenes import grid, scene_of

SIZE = (240, 320)
Y, X = grid(SIZE)
LIGHT = np.full(SIZE, 0.5)
FAR = Y < 0.25
LAYER = np.minimum((X * 4).astype(int), 3)
"""Four layers side by side in the upper quarter."""


def layered(*far: float) -> DepthMap:
    """A ground that rises to the near edge, and four layers of these disparities above it."""
    return np.where(FAR, np.asarray(far)[LAYER], 0.3 + Y).astype(np.float32)


TRUE = layered(0.02, 0.05, 0.1, 0.15)
TRUTH = Truth(disparity=TRUE)


def numbers(finding: Finding, scene: Scene) -> dict[str, Number]:
    answers = finding.measure(scene)
    assert answers is not None
    return dict(answers.numbers)


def test_layers_that_are_apart_are_counted_and_merged_ones_are_one() -> None:
    noise = np.random.default_rng(1).normal(0, 0.005, SIZE)
    maps = {
        "exact": TRUE,
        "noisy": TRUE + noise,
        "two": layered(0.05, 0.05, 0.15, 0.15),
        "one": layered(0.1, 0.1, 0.1, 0.1),
        "constant": np.full(SIZE, 3.0),
        "unanswered": np.where(FAR, np.nan, TRUE),
    }
    found = numbers(BACKGROUND, scene_of(LIGHT, maps, truth=TRUTH))
    counts = {name: number.value for name, number in found.items()}
    assert counts == {"exact": 4, "noisy": 4, "two": 2, "one": 1, "constant": 1, "unanswered": 0}
    assert {number.details["true_levels"] for number in found.values()} == {4}


def test_more_levels_are_no_better() -> None:
    """A ramp from the top to the bottom has more of them than the truth, and an inverted map as many."""
    maps = {"exact": TRUE, "ramp": Y, "inverted": -TRUE}
    found = numbers(BACKGROUND, scene_of(LIGHT, maps, truth=TRUTH))
    assert found["ramp"].value is not None
    assert found["ramp"].value > 3 * 4
    assert found["exact"].value == found["inverted"].value == found["ramp"].details["true_levels"] == 4
    assert BACKGROUND.better == DEEP_LEVELS.better == "neither"
    assert "no merit" in BACKGROUND.definition
    assert "no merit" in DEEP_LEVELS.definition


def test_noise_makes_no_levels_fine_or_coarse() -> None:
    """Millions of different float values, and not one depth."""
    rng = np.random.default_rng(2)
    blotches = cv2.GaussianBlur(rng.normal(size=SIZE), (0, 0), 1.2)
    blotches *= 0.05 / blotches.std()
    for noise in rng.normal(0, 0.05, SIZE), blotches:
        found = levels((TRUE * 0 + noise + np.where(FAR, 0, 1)).astype(np.float32), FAR)
        assert found is not None
        assert found.count == 1


def test_a_ramp_has_as_many_levels_as_steps_fit_into_it() -> None:
    ramp = np.where(FAR, 0.2 * X, 1.0 + Y).astype(np.float32)
    found = levels(ramp, FAR)
    assert found is not None
    assert found.count == pytest.approx(0.2 / (found.step * 1.98), abs=2)
    assert found.step == pytest.approx(0.01), "no noise: a hundredth of the range"


def test_without_truth_the_models_say_where_the_background_is() -> None:
    scene = scene_of(LIGHT, {"a": TRUE, "b": layered(0.1, 0.1, 0.1, 0.1), "c": 5 * TRUE + 2})
    answers = BACKGROUND.measure(scene)
    assert answers is not None
    assert answers.basis is Basis.MODELS
    assert {name: number.value for name, number in answers.numbers.items()} == {"a": 4, "b": 1, "c": 4}
    assert "true_levels" not in answers.numbers["a"].details
    assert answers.numbers["a"].places[0].box == pytest.approx((0, 0, 1, 0.25), abs=0.02)
    assert BACKGROUND_ORDER.measure(scene) is None, "no truth, no order"


def test_order_is_the_share_of_pairs_that_are_right() -> None:
    maps = {
        "right": 3 * TRUE,
        "inverted": -TRUE,
        "constant": np.ones(SIZE),
        "unanswered": np.full(SIZE, np.nan),
        "swapped": layered(0.05, 0.02, 0.1, 0.15),
        "half": np.where(LAYER < 2, np.nan, TRUE),
    }
    found = numbers(BACKGROUND_ORDER, scene_of(LIGHT, maps, truth=TRUTH))
    assert found["right"].value == 1
    assert found["inverted"].value == 0
    assert (found["constant"].value, found["unanswered"].value) == (0.5, 0.5)
    # six kinds of pairs of different layers, all as frequent; one is swapped, and one alone has two answers
    assert found["swapped"].value == pytest.approx(5 / 6, abs=0.01)
    assert found["half"].value == pytest.approx((1 + 5 / 2) / 6, abs=0.01)
    assert found["half"].details["answered"] == pytest.approx(1 / 6, abs=0.01)
    assert any("wrong order" in place.text for place in found["swapped"].places)
    assert not found["right"].places


def test_depths_that_are_nearly_equal_are_not_asked() -> None:
    alike = Truth(disparity=layered(0.1, 0.105, 0.11, 0.115))
    assert BACKGROUND_ORDER.measure(scene_of(LIGHT, {"a": TRUE}, truth=alike)) is None


def test_the_sky_is_no_background() -> None:
    sky = Y < 0.5
    below = Truth(disparity=np.where(sky, 0, 2 * Y - 0.98).astype(np.float32), sky=sky)
    inverted_in_the_sky = np.where(sky, 5 * X, 2 * Y - 0.98)
    found = numbers(BACKGROUND_ORDER, scene_of(LIGHT, {"a": inverted_in_the_sky}, truth=below))
    assert found["a"].value == 1
