"""The sky: where it is seen in a picture, where it must not be seen, and how models answer there."""

import numpy as np
import pytest

from stream.frames import RgbImage
from stream.media import cv2
from stream.survey.findings.base import Basis, Number
from stream.survey.findings.sky import SKY
from stream.survey.findings.sky_region import sky_in
from stream.survey.scene import Scene, Truth
from tests.support.scenes import textured
from tests.support.survey_scenes import chequered, grid, scene_of

SIZE = (240, 320)
Y, X = grid(SIZE)
ABOVE = Y < 0.5
LIGHT = np.full(SIZE, 0.5)
GROUND = 0.2 + Y
MARKED = Truth(disparity=np.where(ABOVE, 0, GROUND).astype(np.float32), sky=ABOVE)


def numbers(scene: Scene) -> dict[str, Number]:
    answers = SKY.measure(scene)
    assert answers is not None
    return dict(answers.numbers)


def painted(top: tuple[float, float, float], bottom: tuple[float, float, float], end: float = 1.0) -> np.ndarray:
    """Colours from 0 to 1 that change evenly from the top to `end`."""
    share = np.clip(Y / end, 0, 1)[..., None]
    return np.asarray(top) * (1 - share) + np.asarray(bottom) * share


def as_picture(colours: np.ndarray, noise: float = 0.01) -> RgbImage:
    noisy = colours + np.random.default_rng(5).normal(0, noise, colours.shape)
    return np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def landscape(*, clouds: bool) -> RgbImage:
    """A blue sky, paler towards the horizon, over a dark textured ground with a hill."""
    sky = painted((0.3, 0.5, 0.9), (0.7, 0.82, 0.95), 0.5)
    if clouds:
        shape = cv2.resize(np.random.default_rng(4).random((6, 8)), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        sky = sky + np.clip(shape - 0.5, 0, 0.4)[..., None] * 2.5 * (0.95 - sky)
    ground = 0.5 * textured(1, SIZE).astype(float) / 255 * np.asarray([0.8, 1, 0.6])
    return as_picture(np.where((hill() > Y)[..., None], sky, ground))


def hill() -> np.ndarray:
    return 0.5 - 0.1 * np.sin(5 * X)


@pytest.mark.parametrize("clouds", [False, True])
def test_a_sky_is_seen_with_its_clouds(clouds: bool) -> None:
    found = sky_in(landscape(clouds=clouds))
    assert found is not None
    assert found.basis is Basis.PICTURE
    assert 0.5 <= found.certainty <= 1
    true = hill() > Y
    assert np.count_nonzero(found.mask & true) / np.count_nonzero(found.mask | true) > 0.9


FURNITURE = textured(2, SIZE).astype(float) / 255 * 0.5
"""What stands below a ceiling."""

NO_SKIES = {
    "a white ceiling": np.where((Y < 0.4)[..., None], painted((0.9, 0.9, 0.88), (0.8, 0.8, 0.78)), FURNITURE),
    "a bluish ceiling": np.where((Y < 0.4)[..., None], painted((0.8, 0.84, 0.88), (0.7, 0.74, 0.78)), FURNITURE),
    "a white wall": painted((0.92, 0.92, 0.92), (0.85, 0.85, 0.85)),
    "a wall painted blue": painted((0.45, 0.6, 0.8), (0.45, 0.6, 0.8)),
    "the night": np.where((Y < 0.5)[..., None], painted((0.02, 0.03, 0.08), (0.05, 0.06, 0.12)), FURNITURE * 0.4),
    "an overcast day": np.where((Y < 0.5)[..., None], painted((0.8, 0.8, 0.8), (0.85, 0.85, 0.85)), FURNITURE),
    "the sea from above": painted((0.25, 0.5, 0.7), (0.1, 0.3, 0.55)),
    "the sea behind a beach": np.where((Y < 0.6)[..., None], painted((0.2, 0.45, 0.6), (0.15, 0.4, 0.6)), 0.85),
    "a blue thing below": np.where((Y < 0.5)[..., None], FURNITURE, painted((0.3, 0.5, 0.9), (0.7, 0.82, 0.95))),
    "snow": painted((0.9, 0.93, 1.0), (0.9, 0.93, 1.0)),
    "black": np.zeros((*SIZE, 3)),
}


@pytest.mark.parametrize("name", NO_SKIES)
def test_what_might_be_something_else_is_no_sky(name: str) -> None:
    assert sky_in(as_picture(NO_SKIES[name])) is None


def test_the_sky_is_farthest_or_it_is_not() -> None:
    true = np.where(ABOVE, 0.0, GROUND)
    maps = {
        "right": true,
        "left out": np.where(ABOVE, np.nan, GROUND),
        "half": np.where(ABOVE & (X < 0.5), 0.8, true),
        "inverted": -true,
        "constant": np.full(SIZE, 2.0),
        "nothing": np.full(SIZE, np.nan),
        "as far as the horizon": np.maximum(true, 0.2 + 0.52),
    }
    answers = SKY.measure(scene_of(LIGHT, maps, truth=MARKED))
    assert answers is not None
    assert answers.basis is Basis.TRUTH
    found = answers.numbers
    assert (found["right"].value, found["left out"].value, found["as far as the horizon"].value) == (1, 1, 1)
    assert found["half"].value == pytest.approx(0.5, abs=0.01)
    assert found["half"].places[0].box == pytest.approx((0, 0, 0.5, 0.5), abs=0.02)
    assert (found["inverted"].value, found["constant"].value) == (0, 0)
    assert found["nothing"].value is None
    assert found["left out"].details["left_out"] == 1
    assert found["right"].details["left_out"] == 0
    assert found["right"].details["unevenness"] == 0
    assert not found["right"].places


def test_clouds_that_print_through_are_measured() -> None:
    clouds = chequered(SIZE, 24, 0.5, 0.9)
    light = np.where(ABOVE, clouds, 0.3)
    white = ABOVE & (clouds > 0.7)
    truth = Truth(disparity=MARKED.disparity, sky=ABOVE, clouds=white)
    printed = np.where(ABOVE, 0.1 * clouds, 0.3 + Y)
    found = numbers(scene_of(light, {"flat": MARKED.disparity, "printed": printed}, truth=truth))
    extent = float(np.subtract(*np.percentile(printed, (99, 1))))
    assert found["printed"].details["cloud_leak"] == pytest.approx(0.1 / extent, rel=0.03)
    assert found["printed"].details["cloud_step"] == pytest.approx(0.04 / extent, rel=0.01)
    assert found["printed"].details["unevenness"] == pytest.approx(0.04 / extent, rel=0.01)
    assert found["flat"].details["cloud_leak"] == pytest.approx(0, abs=1e-6)
    assert found["flat"].details["cloud_step"] == 0
    assert found["printed"].value == 1, "still farthest"


def test_a_photo_without_a_certain_sky_is_not_asked() -> None:
    assert SKY.measure(scene_of(as_picture(NO_SKIES["a white wall"]), {"a": GROUND})) is None
    none = Truth(disparity=GROUND.astype(np.float32), sky=np.zeros(SIZE, np.bool_))
    assert SKY.measure(scene_of(landscape(clouds=False), {"a": GROUND}, truth=none)) is None, "the truth knows better"


def test_a_sky_that_is_only_seen_says_so() -> None:
    answers = SKY.measure(scene_of(landscape(clouds=True), {"a": np.where(hill() > Y, 0, GROUND)}))
    assert answers is not None
    assert answers.basis is Basis.PICTURE
    number = answers.numbers["a"]
    assert number.value == pytest.approx(1, abs=0.02)
    assert 0.5 <= number.details["certainty"] <= 1
