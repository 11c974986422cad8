"""Crispness: the width of edges in depth, and where they are."""

import math

import numpy as np
import pytest

from stream.frames import DepthKind
from stream.media import cv2
from stream.survey.findings.base import Basis
from stream.survey.findings.crispness import CRISPNESS, RISE_PER_SIGMA, reach_px, sigmas
from stream.survey.scene import Truth
from tests.survey.constructed import FAR, NEAR, blurred, grey, noise, odd_maps, scene_of

SIZE = (480, 640)
PER_MILLE = 1000 / SIZE[1]
"""‰ of the longer side, a pixel."""
SQUARE = (slice(120, 360), slice(160, 480))


def square(*, shift=0, size=SIZE):
    """A near rectangle before a far wall."""
    values = np.full(size, FAR, np.float32)
    values[SQUARE[0], SQUARE[1].start + shift : SQUARE[1].stop + shift] = NEAR
    return values


def tilted(angle):
    """A near half plane whose edge has any direction."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    return np.where((x - 320) * math.cos(angle) + (y - 240) * math.sin(angle) > 0, NEAR, FAR).astype(np.float32)


def picture(values):
    return grey(np.where(values > 0.5, 200, 60))


def softest(size=SIZE):
    return RISE_PER_SIGMA * sigmas(reach_px(size))[-1] * PER_MILLE


def against_truth(maps, true):
    return CRISPNESS.measure(scene_of(picture(true), maps, Truth(disparity=true)))


def alone(maps, rgb):
    return CRISPNESS.measure(scene_of(rgb, maps))


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_perfect_map_has_sharp_edges_in_their_places(with_truth):
    true = square()
    answers = against_truth({"right": true}, true) if with_truth else alone({"right": true}, picture(true))
    number = answers.numbers["right"]
    assert answers.basis is (Basis.TRUTH if with_truth else Basis.MODELS)
    assert number.value < 1.5 * PER_MILLE
    assert number.details["recall"] == 1.0
    assert number.details["position_error"] < 0.6 * PER_MILLE
    assert number.details["edges"] == pytest.approx(2 * (240 + 320) / 16, rel=0.25)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, 2.2])
def test_the_width_of_blurred_edges_follows_from_the_blur(sigma, angle):
    true = tilted(angle)
    for answers in (
        against_truth({"soft": blurred(true, sigma)}, true),
        alone({"soft": blurred(true, sigma)}, picture(true)),
    ):
        assert answers.numbers["soft"].value == pytest.approx(
            RISE_PER_SIGMA * sigma * PER_MILLE, rel=0.1, abs=0.4 * PER_MILLE
        )
        assert answers.numbers["soft"].details["recall"] == 1.0


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_edges_beside_their_places_have_that_position_error(shift):
    true = tilted(0)
    moved = np.roll(true, shift, axis=1)
    moved[:, :shift] = FAR
    for answers in against_truth({"moved": moved}, true), alone({"moved": moved}, picture(true)):
        number = answers.numbers["moved"]
        assert number.details["position_error"] == pytest.approx(shift * PER_MILLE, abs=0.6 * PER_MILLE)
        assert number.value < 2 * PER_MILLE


def test_an_edge_that_a_map_does_not_show_counts_as_the_softest():
    true = square()
    half = square()
    half[:, :320] = FAR  # the left half of the rectangle is gone; a new edge in its middle belongs to none
    answers = against_truth({"right": true, "half": half, "constant": np.full(SIZE, 1.0)}, true)
    recall = answers.numbers["half"].details["recall"]
    assert recall == pytest.approx(0.5, abs=0.06)
    assert answers.numbers["half"].value == pytest.approx((1 - recall) * softest(), abs=1.5 * PER_MILLE)
    assert answers.numbers["constant"].value == pytest.approx(softest())
    assert answers.numbers["constant"].details["recall"] == 0.0
    assert "position_error" not in answers.numbers["constant"].details
    assert {place.text for place in answers.numbers["constant"].places} == {"edges without a step in depth"}


def test_without_a_truth_the_models_are_measured_at_the_same_edges():
    sharp, soft = square(), blurred(square(), 3)
    flat = np.linspace(0, 1, SIZE[1], dtype=np.float32)[None].repeat(SIZE[0], 0)
    answers = alone({"flat": flat, "soft": soft, "sharp": sharp}, picture(sharp))
    widths = {name: number.value / PER_MILLE for name, number in answers.numbers.items()}
    assert widths["sharp"] < 2 < widths["soft"] < 10 < widths["flat"]
    assert len({number.details["edges"] for number in answers.numbers.values()}) == 1


@pytest.mark.parametrize("with_truth", [True, False])
def test_noise_is_not_crisp(with_truth):
    true = square()
    soft = blurred(true, 4)
    maps = {"noise": noise(SIZE, 1.0), "soft": soft, "soft and noisy": soft + noise(SIZE, 0.15)}
    answers = against_truth(maps, true) if with_truth else alone(maps, picture(true))
    widths = {name: number.value for name, number in answers.numbers.items()}
    assert widths["noise"] > 0.9 * softest()
    assert widths["soft and noisy"] > 0.95 * widths["soft"]
    assert answers.numbers["noise"].details["recall"] < 0.1


def test_a_picture_of_nothing_asks_nothing():
    flat = np.full(SIZE, FAR, np.float32)
    slope = np.linspace(0, 1, SIZE[1], dtype=np.float32)[None].repeat(SIZE[0], 0)
    assert alone({"a": flat, "b": slope}, grey(np.full(SIZE, 90))) is None
    assert against_truth({"a": square(), "b": slope}, slope) is None
    stripes = grey(np.where(np.arange(SIZE[1]) // 40 % 2, 200, 60)[None].repeat(SIZE[0], 0))
    assert alone({"a": slope, "b": slope * 3}, stripes) is None  # colour has edges here, depth has none


def test_an_inverted_map_shows_no_edges():
    true = square()
    assert against_truth({"inverted": -true}, true).numbers["inverted"].details["recall"] == 0.0


def test_edges_of_metric_depth_are_those_of_its_disparity():
    true = square()
    scene = scene_of(picture(true), {"metres": 1 / true}, Truth(disparity=true), {"metres": DepthKind.METRIC_DEPTH})
    assert CRISPNESS.measure(scene).numbers["metres"].value < 1.5 * PER_MILLE


def test_where_a_map_has_no_answer_its_edges_count_as_the_softest():
    true = square()
    gaps = true.copy()
    gaps[:, :320] = np.nan
    answers = against_truth({"right": true, "gaps": gaps, "nothing": np.full(SIZE, np.nan)}, true)
    right, gone = answers.numbers["right"], answers.numbers["gaps"]
    assert gone.details["edges"] == right.details["edges"]
    assert gone.details["recall"] == pytest.approx(0.5, abs=0.06)
    assert gone.value == pytest.approx((1 - gone.details["recall"]) * softest(), abs=1.5 * PER_MILLE)
    assert answers.numbers["nothing"].value is None


@pytest.mark.parametrize("cell", [1, 8, 32])
def test_what_is_anywhere_in_a_map_asks_for_no_edges_and_is_not_crisp(cell):
    rng = np.random.default_rng(3)
    junk = np.kron(rng.random((SIZE[0] // cell, SIZE[1] // cell)), np.ones((cell, cell))).astype(np.float32)
    answers = alone({"right": square(), "junk": junk}, picture(square()))
    assert answers.numbers["right"].value < 1.5 * PER_MILLE
    assert answers.numbers["junk"].value > 8 * answers.numbers["right"].value
    alone_edges = alone({"right": square()}, picture(square())).numbers["right"].details["edges"]
    assert answers.numbers["right"].details["edges"] == alone_edges  # it asks nothing


def test_a_photo_of_half_the_size_gives_the_same_width():
    soft = cv2.resize(blurred(square(), 4), (1280, 960), interpolation=cv2.INTER_LINEAR)
    large = cv2.resize(square(), (1280, 960), interpolation=cv2.INTER_NEAREST)
    whole, half = alone({"soft": soft}, picture(large)), alone({"soft": blurred(square(), 4)}, picture(square()))
    assert whole.numbers["soft"].value == pytest.approx(half.numbers["soft"].value, rel=0.05)


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (8, 8), (32, 32), (40, 300)])
@pytest.mark.parametrize("with_truth", [False, True])
def test_odd_sizes_and_maps_give_finite_numbers_or_none(size, with_truth):
    values = noise(size, 0.1, 3) + np.float32(1)
    values[:, size[1] // 2 :] += 2
    rgb = grey(np.where(values > 2, 220, 30))
    truth = Truth(disparity=values) if with_truth else None
    answers = CRISPNESS.measure(scene_of(rgb, odd_maps(values), truth))
    for number in answers.numbers.values() if answers else ():
        assert all(math.isfinite(x) for x in (0.0 if number.value is None else number.value, *number.details.values()))
        assert set(number.details) <= set(CRISPNESS.details)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale):
    true = square()
    soft = blurred(true, 3)
    plain, scaled = (alone({"soft": soft * k, "sharp": true * k}, picture(true)) for k in (1, scale))
    for name, number in plain.numbers.items():
        assert scaled.numbers[name].value == pytest.approx(number.value, rel=0.01)
