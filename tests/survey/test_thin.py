"""Thin structures: what stands out in depth, what is gone, and what nobody can know."""

import math
from dataclasses import replace

import numpy as np
import pytest

from stream.frames import DepthKind
from stream.media import cv2
from stream.survey.findings.base import Basis
from stream.survey.findings.thin import THIN, steps, thin_in_picture
from stream.survey.scene import Truth
from tests.survey.constructed import FAR, NEAR, blurred, grey, noise, odd_maps, scene_of

SIZE = (300, 400)
LINES = (((60, 20), (60, 280)), ((120, 30), (260, 270)), ((300, 150), (390, 150)))
"""Upright, slanted and level poles."""


def poles(*which, width=4, size=SIZE):
    mask = np.zeros(size, np.uint8)
    for number in which or range(len(LINES)):
        cv2.line(mask, *LINES[number], 1, width)
    return mask.astype(bool)


def depth_of(mask):
    return np.where(mask, np.float32(NEAR), np.float32(FAR))


def picture(mask):
    return grey(np.where(mask, 40, 180))


def answer(maps, truth=None, rgb=None):
    return THIN.measure(scene_of(picture(poles()) if rgb is None else rgb, maps, truth))


def test_poles_that_are_in_the_true_depth_all_stand_out_and_erased_ones_do_not():
    true = depth_of(poles())
    flat = np.full(SIZE, FAR, np.float32) + noise(SIZE, 0.001)
    answers = answer({"right": true, "flat": flat, "one": depth_of(poles(0))}, Truth(disparity=true, thin=poles()))
    assert answers.basis is Basis.TRUTH
    assert answers.numbers["right"].value == 1.0
    assert answers.numbers["right"].details["contrast"] == pytest.approx(1.0, abs=0.01)
    assert answers.numbers["flat"].value == 0.0
    # Pieces are counted by length: the upright pole has 260 of 260 + 278 + 90 px, along the slanted one 240 cells' px.
    assert answers.numbers["one"].value == pytest.approx(260 / 628, abs=0.06)


def test_poles_are_found_in_the_true_depth_where_nobody_has_marked_them():
    true = depth_of(poles())
    answers = answer({"right": true, "one": depth_of(poles(0))}, Truth(disparity=true))
    assert answers.numbers["right"].value == 1.0
    assert answers.numbers["right"].details["pieces"] == pytest.approx(260 / 16 + 240 / 16 + 90 / 16, rel=0.35)
    assert answers.numbers["one"].value == pytest.approx(260 / 628, abs=0.06)


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_the_contrast_of_blurred_poles_follows_from_the_blur(sigma):
    def level(t):  # of a pole 4 px wide, of height 1
        return (math.erf((t + 2) / (sigma * math.sqrt(2))) - math.erf((t - 2) / (sigma * math.sqrt(2)))) / 2

    mask = np.zeros(SIZE, bool)
    mask[20:280, 198:202] = True
    true = depth_of(mask)
    scene = scene_of(picture(mask), {"soft": blurred(true, sigma)}, Truth(disparity=true, thin=mask))
    scene = replace(scene, maps={"soft": blurred(true, sigma)})  # without the fit: its own contrast
    contrast = THIN.measure(scene).numbers["soft"].details["contrast"]
    middle = np.mean([level(t) for t in np.linspace(-1, 1, 21)])
    beside = np.mean([level(t) for t in np.linspace(4, 8, 21)])
    assert contrast == pytest.approx(middle - beside, abs=0.08)


def test_a_line_printed_on_a_wall_is_not_asked_for():
    wall = np.linspace(0.3, 0.9, SIZE[1], dtype=np.float32)[None].repeat(SIZE[0], 0)
    rgb = picture(poles())
    assert len(thin_in_picture(rgb)) > 20
    assert THIN.measure(scene_of(rgb, {"a": wall, "b": 2 * wall + 1})) is None
    assert THIN.measure(scene_of(rgb, {"a": wall, "b": wall}, Truth(disparity=wall))) is None
    assert THIN.measure(scene_of(rgb, {"a": wall, "b": wall}, Truth(disparity=wall, thin=poles()))) is None


def test_without_a_truth_a_pole_counts_that_one_model_shows():
    shown = depth_of(poles(0)) + np.linspace(0, 0.2, SIZE[1], dtype=np.float32)
    flat = np.full(SIZE, FAR, np.float32) + np.linspace(0, 0.2, SIZE[1], dtype=np.float32)
    answers = answer({"flat": flat, "shown": shown})
    assert answers.basis is Basis.MODELS
    assert {name: number.value for name, number in answers.numbers.items()} == {"flat": 0.0, "shown": 1.0}
    missed = answers.numbers["flat"].places
    assert {place.text for place in missed} == {"thin structures that another model shows"}
    for place in missed:
        left, top, width, height = place.box
        assert left < 60 / 400 < left + width  # only the upright pole
        assert width < 0.2
        assert 0 <= top < top + height <= 1
    assert answers.numbers["shown"].details["pieces"] == pytest.approx(260 / 16, abs=3)


def test_without_a_truth_both_may_show_it_and_a_faint_one_is_told_by_its_contrast():
    strong = depth_of(poles())
    faint = FAR + 0.4 * (strong - FAR)
    faint[0, :40], strong[0, :40] = NEAR, NEAR  # the same range
    faint[280:, :], strong[280:, :] = NEAR, NEAR
    answers = answer({"strong": strong, "faint": faint})
    assert answers.numbers["faint"].value == 1.0
    assert answers.numbers["strong"].details["contrast"] == pytest.approx(1.0, abs=0.02)
    assert answers.numbers["faint"].details["contrast"] == pytest.approx(0.4, abs=0.05)


def test_a_line_of_another_colour_and_the_same_luminance_is_found():
    rgb = np.full((*SIZE, 3), (100, 100, 100), np.uint8)
    rgb[poles(0)] = (170, 70, 68)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., 0].astype(int)
    assert np.ptp(lab) <= 8
    assert len(thin_in_picture(rgb)) == pytest.approx(260 / 16, abs=3)


def test_the_edge_of_a_large_thing_and_a_dot_are_not_thin():
    levels = np.full(SIZE, 180)
    levels[100:250, 50:200] = 40
    levels[40:48, 300:308] = 40
    assert len(thin_in_picture(grey(levels))) == 0


def test_noise_shows_no_poles():
    true = depth_of(poles())
    answers = answer({"noise": noise(SIZE, 1.0), "right": true}, Truth(disparity=true, thin=poles()))
    assert answers.numbers["noise"].value < 0.05
    answers = answer({"right": true, "noise": noise(SIZE, 1.0)})
    assert answers.numbers["noise"].value < 0.15


def test_a_deeper_groove_does_not_stand_out():
    groove = NEAR + FAR - depth_of(poles())
    true = depth_of(poles())
    answers = answer({"groove": groove}, Truth(disparity=true, thin=poles()))
    assert answers.numbers["groove"].value == 0.0


def test_a_pole_before_a_sky_without_an_answer_stands_out():
    true = depth_of(poles(0))
    no_sky = np.where(poles(0), true, np.float32(np.nan))
    no_sky[280:] = FAR
    scene = scene_of(picture(poles(0)), {"a": true, "b": no_sky})
    pieces = thin_in_picture(scene.rgb)
    assert np.isnan(steps(no_sky, pieces, SIZE)).all()  # not asked: there is nothing to compare it to
    no_pole = np.where(poles(0, width=8), np.float32(np.nan), np.float32(FAR))
    assert (steps(no_pole, pieces, SIZE) == 0).all()  # missed


def test_a_photo_of_twice_the_size_gives_the_same_answer():
    size = (900, 1600)
    mask = np.zeros(size, np.uint8)
    cv2.line(mask, (300, 50), (500, 850), 1, 6)
    cv2.line(mask, (1200, 50), (1200, 850), 1, 6)
    true = depth_of(mask.astype(bool))
    half = true.copy()
    half[:, 800:] = FAR
    large = (size[1] * 2, size[0] * 2)
    found = []
    for enlarge in (False, True):
        at = [cv2.resize(x, large, interpolation=cv2.INTER_NEAREST) if enlarge else x for x in (true, half)]
        rgb = picture(cv2.resize(mask, large, interpolation=cv2.INTER_NEAREST) if enlarge else mask)
        found.append(answer({"right": at[0], "half": at[1]}, rgb=rgb).numbers["half"].value)
    assert found[1] == pytest.approx(found[0], abs=0.03)
    assert found[0] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (8, 8), (31, 400), (32, 32), (40, 41)])
@pytest.mark.parametrize("with_truth", [False, True])
def test_odd_sizes_and_maps_give_finite_numbers_or_none(size, with_truth):
    values = noise(size, 0.1, 3) + np.float32(1)
    values[size[0] // 2 :, size[1] // 3 : size[1] // 3 + 3] += 2
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    truth = Truth(disparity=values, thin=values > 2) if with_truth else None
    check_finite(THIN.measure(scene_of(rgb, odd_maps(values), truth)))


def test_metric_depth_is_measured_as_disparity():
    true = depth_of(poles())
    scene = scene_of(
        picture(poles()), {"metres": 1 / true}, Truth(disparity=true, thin=poles()), {"metres": DepthKind.METRIC_DEPTH}
    )
    assert THIN.measure(scene).numbers["metres"].details["contrast"] == pytest.approx(1.0, abs=0.01)


def check_finite(answers):
    for number in answers.numbers.values() if answers else ():
        assert all(math.isfinite(x) for x in (0.0 if number.value is None else number.value, *number.details.values()))
        assert set(number.details) <= set(THIN.details)
        for place in number.places:
            left, top, width, height = place.box
            assert 0 <= left < left + width <= 1.000001
            assert 0 <= top < top + height <= 1.000001


def test_a_photo_with_one_short_line_asks_only_where_the_truth_is_known():
    mask = np.zeros(SIZE, bool)
    mask[40:90, 198:202] = True
    true, flat = depth_of(mask), np.full(SIZE, FAR, np.float32)
    assert answer({"a": true, "b": flat}, rgb=picture(mask)) is None
    numbers = answer({"a": true, "b": flat}, Truth(disparity=true), picture(mask)).numbers
    assert (numbers["a"].value, numbers["b"].value) == (1.0, 0.0)


def test_units_do_not_matter():
    shown, faint = depth_of(poles()), np.where(poles(), 0.5, FAR)
    faint[280:], shown[280:] = NEAR, NEAR
    plain, scaled = (answer({"shown": shown * k, "faint": faint * k}) for k in (1, 1e-6))
    for name, number in plain.numbers.items():
        assert scaled.numbers[name].value == number.value
        assert scaled.numbers[name].details["contrast"] == pytest.approx(number.details["contrast"], rel=0.01)


@pytest.mark.parametrize("cell", [1, 4, 20])
def test_what_is_anywhere_in_a_map_shows_no_lines(cell):
    rng = np.random.default_rng(3)
    junk = np.kron(rng.random((SIZE[0] // cell, SIZE[1] // cell)), np.ones((cell, cell))).astype(np.float32)
    answers = answer({"right": depth_of(poles()), "junk": junk})
    assert answers.numbers["right"].value == 1.0
    assert answers.numbers["junk"].value < 0.05
