"""Ranges: the official one per frame, the smoothed one over time, the fixed one in the model's units."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError
from stream.frames import Depth, DepthKind
from stream.render.range import (
    NEAREST_M,
    NEAREST_SHARE,
    EmaRange,
    FixedRange,
    FrameRange,
    displayed,
    native,
    parse_range,
)
from tests.support.scenes import scene, textured

RELATIVE, METRIC = DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC_DEPTH
UNITLESS = DepthKind.RELATIVE_DEPTH


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def ramp(lo: float, hi: float) -> np.ndarray:
    return np.linspace(lo, hi, 12, dtype=np.float32).reshape(3, 4)


def test_frame_range_is_minimum_and_maximum() -> None:
    depth = np.random.default_rng(1).normal(size=(37, 53)).astype(np.float32)
    assert FrameRange().range_for(depth, scene(0)) == (depth.min(), depth.max())


def test_ema_range_starts_at_the_first_frame_and_follows_slowly() -> None:
    policy, picture = EmaRange(smoothing=0.25), scene(0)
    assert policy.range_for(ramp(0, 8), picture) == (0, 8)
    assert policy.range_for(ramp(4, 16), picture) == (1, 10)
    assert policy.range_for(ramp(1, 10), picture) == (1, 10)


def test_ema_range_starts_afresh_at_a_hard_cut() -> None:
    policy = EmaRange()
    for _ in range(5):
        policy.range_for(ramp(0, 1), scene(0))
    assert policy.range_for(ramp(10, 20), scene(1)) == (10, 20)
    assert policy.cuts == 1


def test_a_slow_pan_is_no_cut() -> None:
    wide, policy = scene(2, (240, 1280)), EmaRange()
    for left in range(0, 640, 12):  # 2 % of the width a frame
        policy.range_for(ramp(0, 1), wide[:, left : left + 640])
    assert policy.cuts == 0


RATES_FPS = (60, 25, 6, 3, 1.5, 0.8)


@pytest.mark.parametrize("fps", RATES_FPS)
@pytest.mark.parametrize("make", [scene, textured])
def test_a_pan_is_no_cut_at_any_rate(make: Callable[[int, tuple[int, int]], np.ndarray], fps: float) -> None:
    wide = make(4, (480, 1600))
    for speed in (0.15, 0.3, 0.5):  # of the image's width, a second
        policy, left, step = EmaRange(), 0.0, speed * 640 / fps
        for index in range(max(6, int(4 * fps))):
            high = 6 + round(6 * np.sin(index))  # a hand
            policy.range_for(ramp(0, 1), wide[high : high + 440, int(left) : int(left) + 640], index / fps)
            if not 0 <= left + step <= 960:
                step = -step
            left += step
        assert policy.cuts == 0, f"{speed:.0%} a second"


@pytest.mark.parametrize("fps", RATES_FPS)
@pytest.mark.parametrize("make", [scene, textured])
def test_a_cut_is_found_at_any_rate(make: Callable[[int, tuple[int, int]], np.ndarray], fps: float) -> None:
    policy = EmaRange()
    scenes = [make(seed, (240, 320)) for seed in range(6)] + [np.zeros((240, 320, 3), np.uint8)]
    for index in range(4 * len(scenes)):
        policy.range_for(ramp(0, 1), scenes[index // 4], index / fps)
    assert policy.cuts == len(scenes) - 1


def test_the_range_settles_in_the_same_time_at_any_rate() -> None:
    picture = scene(5)

    def after_a_second(fps: int) -> float:
        policy = EmaRange()
        policy.range_for(ramp(0, 0), picture, 0.0)
        for index in range(fps):
            _, hi = policy.range_for(ramp(0, 1), picture, (index + 1) / fps)
        return hi

    assert after_a_second(25) == pytest.approx(1 - 0.9**25)
    assert [after_a_second(fps) for fps in (1, 2, 5, 12, 30, 60, 240)] == pytest.approx([1 - 0.9**25] * 7)


def test_frames_without_usable_times_count_as_25_a_second() -> None:
    picture = scene(5)
    for times in (None, None), (0.0, None), (None, 3.0), (5.0, 5.0), (5.0, 2.0):
        policy = EmaRange()
        policy.range_for(ramp(0, 0), picture, times[0])
        assert policy.range_for(ramp(0, 1), picture, times[1]) == pytest.approx((0, 0.1))


@pytest.mark.parametrize("gain", [0.5, 0.7, 1.2])
@pytest.mark.parametrize("offset", [-30, 0, 30])
def test_a_change_of_brightness_is_no_cut(gain: float, offset: int) -> None:
    picture = scene(3)
    changed = np.clip(picture * gain + offset, 0, 255).astype(np.uint8)
    policy = EmaRange()
    policy.range_for(ramp(0, 1), picture)
    policy.range_for(ramp(0, 1), changed)
    assert policy.cuts == 0


def test_noise_on_a_flat_picture_is_no_cut() -> None:
    policy, rng = EmaRange(), np.random.default_rng(0)
    for _ in range(10):
        policy.range_for(ramp(0, 1), rng.integers(100, 130, (120, 160, 3), np.uint8))
    assert policy.cuts == 0


def test_fixed_range_is_fixed() -> None:
    policy = FixedRange(-1, 2)
    assert policy.range_for(ramp(0, 9), scene(0)) == policy.range_for(ramp(5, 6), scene(1)) == (-1, 2)


@pytest.mark.parametrize(("lo", "hi"), [(1, 1), (2, 1), (float("nan"), 1), (0, float("inf")), (0, 1e39)])
def test_fixed_range_refuses_what_is_no_range(lo: float, hi: float) -> None:
    with pytest.raises(ValueError, match="lo < hi"):
        FixedRange(lo, hi)


@pytest.mark.parametrize("smoothing", [0, -1, 1.5, float("nan")])
def test_ema_refuses_a_weight_that_is_none(smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing"):
        EmaRange(smoothing=smoothing)


def test_parse_names_and_numbers() -> None:
    assert isinstance(parse_range("frame", kind=RELATIVE), FrameRange)
    assert isinstance(parse_range("ema", kind=METRIC), EmaRange)
    assert parse_range("-2.5:7", kind=RELATIVE).range_for(ramp(0, 1), scene(0)) == (-2.5, 7)
    assert parse_range("0.5:8", kind=METRIC).range_for(ramp(0, 1), scene(0)) == (1 / 8, 2)


@pytest.mark.parametrize(
    "text",
    [
        *["", "often", "1", "1:", ":1", "1:1", "2:1", "nan:1", "0:nan", "0:inf", "-inf:0", "1:2:3", "0:1e39", "a:b"],
        *["1:1.00000000001", "0:1e-320", "-5:-4.9999999999"],
    ],
)
@pytest.mark.parametrize("kind", list(DepthKind))
def test_parse_refuses_the_rest_in_one_line(text: str, kind: DepthKind) -> None:
    with pytest.raises(ConfigError, match=r"--range: .*allowed: frame, ema or LO:HI with finite LO < HI"):
        parse_range(text, kind=kind)


@pytest.mark.parametrize("text", ["0:10", "-1:10", "0.01:0.02"])
def test_metric_ranges_begin_where_the_display_does(text: str) -> None:
    with pytest.raises(ConfigError, match=r"LO from 0\.05 metres"):
        parse_range(text, kind=METRIC)


@pytest.mark.parametrize("text", ["0:10", "-1:10", "1e-45:2"])
def test_ranges_of_relative_depth_begin_above_zero(text: str) -> None:
    with pytest.raises(ConfigError, match=r"relative depth is displayed as 1/z .allowed: LO above 0"):
        parse_range(text, kind=UNITLESS)
    assert parse_range("0.001:8", kind=UNITLESS).range_for(ramp(0, 1), scene(0)) == (1 / 8, 1000)


def test_disparity_is_displayed_as_it_is_without_a_copy() -> None:
    depth = Depth(values=ramp(-1, 1), kind=RELATIVE, index=0)
    assert displayed(depth) is depth.values
    assert native((-1, 1), RELATIVE) == (-1, 1)


def test_metres_are_displayed_near_as_large_and_guarded_at_zero() -> None:
    values = np.array([[-3, 0, NEAREST_M, 0.5, 4, 3e38]], np.float32)
    shown = displayed(Depth(values=values, kind=METRIC, index=0))
    np.testing.assert_allclose(shown, [[20, 20, 20, 2, 0.25, 1 / 3e38]], rtol=1e-6)
    assert np.isfinite(shown).all()
    assert values[0, 0] == -3
    assert native((0.25, 2), METRIC) == (0.5, 4)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=20))
def test_a_smoothed_range_is_in_order_and_within_what_was_seen(ends: list[tuple[float, float]]) -> None:
    policy, picture = EmaRange(), scene(0, (24, 32))
    for a, b in ends:
        lo, hi = policy.range_for(np.array([[a, b]], np.float32), picture)
        assert lo <= hi
    assert policy.cuts == 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_relative_depth_is_displayed_near_as_large_whatever_its_scale(scale: float) -> None:
    values = np.full((40, 60), 4, np.float32)
    values[0, :4] = -3, 0, NEAREST_SHARE * 2, 2
    shown = displayed(Depth(values=values * np.float32(scale), kind=UNITLESS, index=0)) * scale
    nearest = NEAREST_SHARE * 4
    np.testing.assert_allclose(shown[0, :5], [1 / nearest, 1 / nearest, 1 / nearest, 0.5, 0.25], rtol=1e-6)
    assert native((0.25, 2), UNITLESS) == (0.5, 4)


def test_relative_depth_may_be_as_large_as_float32() -> None:
    values = np.array([[1.7e38, 3.4e38, 1e-45, 3.4e38]], np.float32)
    assert np.isfinite(displayed(Depth(values=values, kind=UNITLESS, index=0))).all()


def test_relative_depth_without_a_positive_value_is_displayed_as_constant() -> None:
    shown = displayed(Depth(values=ramp(-1, 0), kind=UNITLESS, index=0))
    assert np.isfinite(shown).all()
    assert shown.min() == shown.max()


@pytest.mark.parametrize("kind", list(DepthKind))
def test_a_range_comes_from_the_answers_alone(kind: DepthKind) -> None:
    values, valid = ramp(1, 12), ramp(1, 12) > 4
    depth = Depth(values=values, kind=kind, index=0, valid=valid)
    shown = displayed(depth)
    assert np.isnan(shown[~valid]).all()
    expected = (5, 12) if kind is RELATIVE else (1 / np.float32(12), 1 / np.float32(5))
    for policy in FrameRange(), EmaRange():
        assert policy.range_for(shown, scene(0), valid=depth.valid) == pytest.approx(expected)


def test_a_frame_without_any_answer_changes_no_smoothed_range() -> None:
    nothing = np.full((3, 4), np.nan, np.float32)
    none = np.zeros((3, 4), bool)
    assert FrameRange().range_for(nothing, scene(0), valid=none) is None
    policy = EmaRange()
    assert policy.range_for(nothing, scene(0), valid=none) is None
    assert policy.range_for(ramp(2, 5), scene(0)) == (2, 5)
    assert policy.range_for(nothing, scene(0), valid=none) == (2, 5)
    assert policy.range_for(nothing, scene(1), valid=none) is None, "another scene"
    assert policy.range_for(ramp(7, 8), scene(1)) == (7, 8)
