"""Size bias: whether small near things are kept in depth."""

import math

import numpy as np
import pytest

from stream.frames import DepthKind
from stream.media import cv2
from stream.survey.findings.base import Basis
from stream.survey.findings.small import SMALL, nearer_blobs
from stream.survey.scene import Truth
from tests.survey.constructed import FAR, NEAR, blurred, grey, noise, odd_maps, scene_of

SIZE = (480, 640)
DISCS = ((80, 100, 4), (200, 100, 4), (320, 100, 8), (440, 100, 8), (160, 300, 20), (400, 300, 20))
"""x, y and radius: 7, 14 and 35 px in size, of 640."""


def labels(*which):
    found = np.zeros(SIZE, np.int32)
    for number in which or range(len(DISCS)):
        x, y, radius = DISCS[number]
        cv2.circle(found, (x, y), radius, number + 1, -1)
    return found


def wall():
    """A wall that comes nearer to the right."""
    return np.linspace(FAR, FAR + 0.1, SIZE[1], dtype=np.float32)[None].repeat(SIZE[0], 0)


def depth_of(numbers):
    return np.where(numbers > 0, np.float32(NEAR), wall())


RGB = grey(np.where(labels() > 0, 220, 90))


def against_truth(maps, *, marked=True):
    true = depth_of(labels())
    return SMALL.measure(scene_of(RGB, maps, Truth(disparity=true, small=labels() if marked else None)))


@pytest.mark.parametrize("marked", [True, False])
def test_things_that_are_kept_and_things_that_are_gone(marked):
    maps = {"right": depth_of(labels()), "wall": wall(), "large": depth_of(labels(4, 5))}
    answers = against_truth(maps, marked=marked)
    assert answers.basis is Basis.TRUTH
    right, gone, large = (answers.numbers[name] for name in maps)
    assert right.value == pytest.approx(1, abs=0.01)
    assert right.details["things"] == 6
    assert right.details["shown"] == 1
    assert gone.value < 0.02
    assert large.details["kept_larger"] > 0.9
    assert large.details["kept_tiny"] == large.details["kept_small"] == 0
    assert large.value == pytest.approx(large.details["kept_larger"] / 3, abs=0.01)
    assert [place.text for place in gone.places] == ["small thing, 0 % of its step kept"] * 3


def test_blur_takes_away_the_small_ones_first():
    number = against_truth({"soft": blurred(depth_of(labels()), 6)}).numbers["soft"]
    kept = [number.details[f"kept_{name}"] for name in ("tiny", "small", "larger")]
    assert kept[0] < 0.5 * kept[1] < 0.5 * kept[2]
    x, y, radius = DISCS[0]
    box = number.places[0].box
    assert any(
        abs((place.box[0] + place.box[2] / 2) * SIZE[1] - x) < 2
        and abs((place.box[1] + place.box[3] / 2) * SIZE[0] - y) < 2
        for place in number.places
    )
    assert box[2] * SIZE[1] < 4 * radius


def test_without_a_truth_things_count_that_the_models_show_together():
    answers = SMALL.measure(scene_of(RGB, {"all": depth_of(labels()), "large": depth_of(labels(4, 5)), "wall": wall()}))
    assert answers.basis is Basis.MODELS
    assert answers.numbers["all"].details["things"] == 6
    assert answers.numbers["all"].value == pytest.approx(1)
    assert answers.numbers["large"].value == pytest.approx(1 / 3, abs=0.02)
    assert answers.numbers["wall"].value < 0.05


def test_a_thing_of_half_the_step_is_kept_by_half():
    half = np.where(labels() > 0, (NEAR + wall()) / 2, wall())
    half[400:] = NEAR
    true = depth_of(labels())
    true[400:] = NEAR
    answers = SMALL.measure(scene_of(RGB, {"half": half}, Truth(disparity=true, small=labels())))
    assert answers.numbers["half"].value == pytest.approx(0.5, abs=0.03)


def test_what_is_large_thin_or_farther_is_no_small_thing():
    values = wall()
    values[100:400, 100:300] = NEAR  # large
    values[20:460, 400:403] = NEAR  # thin
    values[200:220, 500:520] = FAR - 0.2  # a hole
    values[300:310, 630:] = NEAR  # cut off by the border
    assert not nearer_blobs(values, 0.03).any()
    values[200:220, 560:580] = NEAR
    numbers = nearer_blobs(values, 0.03)
    assert set(np.unique(numbers)) == {0, numbers[210, 570]}
    assert numbers[210, 570] > 0


def test_walls_and_slopes_ask_nothing():
    assert SMALL.measure(scene_of(RGB, {"a": wall(), "b": wall() * 3})) is None
    assert SMALL.measure(scene_of(RGB, {"a": wall()}, Truth(disparity=wall()))) is None
    assert SMALL.measure(scene_of(RGB, {"a": wall()}, Truth(disparity=wall(), small=labels()))) is None
    constant = np.full(SIZE, 2.0, np.float32)
    assert SMALL.measure(scene_of(RGB, {"a": constant, "b": constant})) is None


def test_noise_and_inverted_maps_keep_nothing():
    answers = against_truth({"noise": noise(SIZE, 1.0), "inverted": -depth_of(labels())})
    assert answers.numbers["noise"].value < 0.05
    assert answers.numbers["inverted"].value == 0


def test_metric_depth_is_measured_as_disparity():
    true = depth_of(labels())
    scene = scene_of(
        RGB, {"metres": 1 / true}, Truth(disparity=true, small=labels()), {"metres": DepthKind.METRIC_DEPTH}
    )
    assert SMALL.measure(scene).numbers["metres"].value == pytest.approx(1, abs=0.01)


def test_a_map_without_an_answer_there_is_not_asked():
    gaps = depth_of(labels())
    gaps[:200] = np.nan
    numbers = against_truth({"gaps": gaps, "nothing": np.full(SIZE, np.nan)}).numbers
    assert numbers["gaps"].details["things"] == 2
    assert numbers["nothing"].value is None


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (8, 8), (32, 32), (40, 300)])
@pytest.mark.parametrize("with_truth", [False, True])
def test_odd_sizes_and_maps_give_finite_numbers_or_none(size, with_truth):
    values = noise(size, 0.1, 3) + np.float32(1)
    values[size[0] // 2 : size[0] // 2 + 6, size[1] // 2 : size[1] // 2 + 6] += 2
    rgb = grey(np.where(values > 2, 220, 30))
    truth = Truth(disparity=values, small=(values > 2).astype(np.int32)) if with_truth else None
    answers = SMALL.measure(scene_of(rgb, odd_maps(values), truth))
    for number in answers.numbers.values() if answers else ():
        assert all(math.isfinite(x) for x in (0.0 if number.value is None else number.value, *number.details.values()))
        assert set(number.details) <= set(SMALL.details)


@pytest.mark.parametrize("cell", [1, 8, 32])
def test_things_without_an_outline_in_the_picture_are_not_asked_for(cell):
    rng = np.random.default_rng(3)
    junk = np.kron(rng.random((SIZE[0] // cell, SIZE[1] // cell)), np.ones((cell, cell))).astype(np.float32)
    numbers = SMALL.measure(scene_of(RGB, {"right": depth_of(labels()), "junk": junk})).numbers
    assert numbers["right"].value == pytest.approx(1)
    assert numbers["right"].details["things"] == 6
    assert numbers["junk"].value < 0.8
