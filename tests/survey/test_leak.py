"""Texture leak: prints of known strength are found, and nothing else is taken for one."""

import numpy as np
import pytest

from stream.media import cv2
from stream.survey.findings.base import Basis, Number
from stream.survey.findings.leak import LEAK
from stream.survey.findings.maps import range_of
from stream.survey.scene import Scene, Truth
from tests.support.survey_scenes import chequered, grid, scene_of

SIZE = (300, 400)
Y, X = grid(SIZE)
PLANE = 0.2 + 0.3 * Y + 0.5 * X
TILES = chequered(SIZE, 20)
ONE_PLANE = Truth(disparity=PLANE.astype(np.float32), planes=np.ones(SIZE, np.int32))


def measured(scene: Scene) -> dict[str, Number]:
    answers = LEAK.measure(scene)
    assert answers is not None
    return dict(answers.numbers)


@pytest.mark.parametrize("strength", [0.02, 0.1, -0.3])
def test_a_print_of_known_strength_is_measured(strength: float) -> None:
    printed = PLANE + strength * TILES
    number = measured(scene_of(TILES, {"a": printed}, truth=ONE_PLANE))["a"]
    assert number.value == pytest.approx(abs(strength) / range_of(printed.astype(np.float32)), rel=0.02)
    assert number.details["correlation"] > 0.99
    assert number.places


def test_a_blurred_print_is_hardly_let_off() -> None:
    """Models compute small maps: the print of a 256 px network is blurred by a pixel or two of 400."""
    printed = PLANE + 0.1 * cv2.GaussianBlur(TILES, (0, 0), 1.5)
    value = measured(scene_of(TILES, {"a": printed}, truth=ONE_PLANE))["a"].value
    assert value is not None
    assert 0.7 * 0.1 < value * range_of(printed.astype(np.float32)) < 0.1


def test_a_plane_does_not_leak_whatever_is_on_it() -> None:
    number = measured(scene_of(TILES, {"a": PLANE}, truth=ONE_PLANE))["a"]
    assert number.value == pytest.approx(0, abs=1e-5)
    assert not number.places


def test_a_slope_with_a_fall_off_of_light_is_no_leak() -> None:
    light = TILES * (1 - 0.6 * X)
    assert measured(scene_of(light, {"a": PLANE}, truth=ONE_PLANE))["a"].value == pytest.approx(0, abs=1e-5)
    assert LEAK.measure(scene_of(0.9 - 0.6 * X, {"a": PLANE}, truth=ONE_PLANE)) is None, "no texture, no question"


@pytest.mark.parametrize("blur", [0.0, 4.0])
def test_noise_that_has_nothing_to_do_with_the_picture_is_no_leak(blur: float) -> None:
    noise = np.random.default_rng(3).normal(size=SIZE)
    if blur:
        noise = cv2.GaussianBlur(noise, (0, 0), blur)
    noisy = PLANE + 0.03 * noise / noise.std()
    number = measured(scene_of(TILES, {"a": noisy}, truth=ONE_PLANE))["a"]
    assert number.value is not None
    assert number.value < 0.01
    assert number.details["correlation"] < 0.12


def test_what_is_not_plane_does_not_count() -> None:
    planes = np.ones(SIZE, np.int32)
    planes[:, 200:] = 0
    relief = PLANE + np.where(planes == 0, 0.4 * TILES, 0)
    truth = Truth(disparity=relief.astype(np.float32), planes=planes)
    assert measured(scene_of(TILES, {"a": relief}, truth=truth))["a"].value == pytest.approx(0, abs=1e-4)


def test_planes_are_found_in_a_true_disparity_and_relief_is_none() -> None:
    relief = PLANE + np.where(X > 0.5, 0.3 * TILES, 0)
    truth = Truth(disparity=relief.astype(np.float32))
    printed = relief + np.where(X < 0.5, 0.05 * TILES, 0)
    answers = LEAK.measure(scene_of(TILES, {"true": relief, "printed": printed}, truth=truth))
    assert answers is not None
    assert answers.basis is Basis.TRUTH
    assert answers.numbers["true"].value == pytest.approx(0, abs=1e-4)
    expected = 0.05 / range_of(printed.astype(np.float32))
    assert answers.numbers["printed"].value == pytest.approx(expected, rel=0.05)


def test_without_truth_most_models_say_what_is_plane() -> None:
    fine = chequered(SIZE, 8)
    printed = PLANE + 0.05 * fine
    answers = LEAK.measure(scene_of(fine, {"a": PLANE, "b": printed, "c": -3 * PLANE}))
    assert answers is not None
    assert answers.basis is Basis.MODELS
    assert answers.numbers["a"].value == pytest.approx(0, abs=1e-4)
    assert answers.numbers["c"].value == pytest.approx(0, abs=1e-4)
    assert answers.numbers["b"].value == pytest.approx(0.05 / range_of(printed.astype(np.float32)), rel=0.05)


def test_without_truth_and_without_agreement_nobody_is_asked() -> None:
    bumps = PLANE + 0.2 * np.sin(40 * X) * np.sin(40 * Y)
    assert LEAK.measure(scene_of(TILES, {"a": PLANE, "b": bumps})) is None
    assert LEAK.measure(scene_of(TILES, {"a": PLANE, "b": np.full(SIZE, np.nan)})) is None


def test_two_regions_that_print_with_opposite_signs_do_not_cancel() -> None:
    planes = np.where(X < 0.5, 1, 2).astype(np.int32)
    printed = PLANE + np.where(planes == 1, 0.1, -0.1) * (TILES - 0.5)
    truth = Truth(disparity=PLANE.astype(np.float32), planes=planes)
    number = measured(scene_of(TILES, {"a": printed}, truth=truth))["a"]
    assert number.value == pytest.approx(0.1 / range_of(printed.astype(np.float32)), rel=0.02)


def test_missing_answers_change_nothing_and_the_sign_of_a_map_neither() -> None:
    printed = PLANE + 0.1 * TILES
    holed = printed.copy()
    holed[100:180, 50:300] = np.nan
    maps = {"whole": printed, "holed": holed, "inverted": -printed, "constant": np.full(SIZE, 5.0)}
    found = measured(scene_of(TILES, maps, truth=ONE_PLANE))
    assert found["holed"].value == pytest.approx(found["whole"].value, rel=0.05)
    assert found["inverted"].value == pytest.approx(found["whole"].value, rel=1e-5)
    assert found["constant"].value is None, "a map without depth does not win"


def test_a_plane_that_the_picture_cuts_off_does_not_leak_there() -> None:
    """Beyond the picture nothing slopes, and a dark bar along its edge would be printed into what is next to it."""
    light = np.where((X < 0.02) | (Y > 0.98), 0.0, TILES)
    assert measured(scene_of(light, {"a": PLANE}, truth=ONE_PLANE))["a"].value == pytest.approx(0, abs=1e-6)


def test_what_the_number_cannot_tell_from_chance_is_alike() -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(4).normal(size=SIZE), (0, 0), 2)
    maps = {
        "plane": PLANE,
        "ramp": Y,
        "noisy": PLANE + 0.02 * noise / noise.std(),
        "printed": PLANE + 0.02 * (TILES - 0.3) / 0.4,
    }
    found = {name: number.value or 0.0 for name, number in measured(scene_of(TILES, maps, truth=ONE_PLANE)).items()}
    alike = {name for name, value in found.items() if value <= min(found.values()) + LEAK.resolution}
    assert alike == {"plane", "ramp", "noisy"}
