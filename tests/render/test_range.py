"""Ranges: the official one per frame, the smoothed one over time, the fixed one in the model's units."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError
from stream.frames import Depth, DepthKind
from stream.media import cv2
from stream.render.range import (
    CUT_SIMILARITY,
    NEAREST_M,
    EmaRange,
    FixedRange,
    FrameRange,
    displayed,
    native,
    parse_range,
    similarity,
    thumbnail,
)

RELATIVE, METRIC = DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC_DEPTH


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def scene(seed: int, size: tuple[int, int] = (240, 640)) -> np.ndarray:
    """An image of large soft shapes: enlarged noise of a few pixels."""
    height, width = size
    coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


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


def test_different_scenes_and_black_are_cuts() -> None:
    pictures = [thumbnail(scene(seed)) for seed in range(12)] + [np.zeros((12, 16), np.float32)]
    alike = [similarity(a, b) for i, a in enumerate(pictures) for b in pictures[:i]]
    assert max(alike) < CUT_SIMILARITY
    assert similarity(pictures[0], pictures[0]) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (31, 17), (1080, 1920)])
def test_every_size_has_a_thumbnail(size: tuple[int, int]) -> None:
    assert thumbnail(np.full((*size, 3), 9, np.uint8)).shape == (12, 16)


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
    "text", ["", "often", "1", "1:", ":1", "1:1", "2:1", "nan:1", "0:nan", "0:inf", "-inf:0", "1:2:3", "0:1e39", "a:b"]
)
@pytest.mark.parametrize("kind", list(DepthKind))
def test_parse_refuses_the_rest_in_one_line(text: str, kind: DepthKind) -> None:
    with pytest.raises(ConfigError, match=r"--range: .*allowed: frame, ema or LO:HI with finite LO < HI"):
        parse_range(text, kind=kind)


@pytest.mark.parametrize("text", ["0:10", "-1:10", "0.01:0.02"])
def test_metric_ranges_begin_where_the_display_does(text: str) -> None:
    with pytest.raises(ConfigError, match=r"LO from 0\.05 metres"):
        parse_range(text, kind=METRIC)


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
