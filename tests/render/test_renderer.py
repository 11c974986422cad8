"""Layouts and the renderer: sizes, where each pixel comes from, and settings changed while running."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream.errors import ConfigError, UsageError
from stream.frames import Depth, DepthKind, Frame, RgbImage
from stream.media import cv2
from stream.render.colormap import CONSTANT_INDEX, NAMES, NO_ANSWER, apply, table
from stream.render.layout import GAP_PX, Layout, output_size
from stream.render.range import EmaRange, FixedRange, FrameRange, RangePolicy
from stream.render.renderer import Renderer

SIZES = [(48, 64), (64, 48), (33, 57), (1, 9), (9, 1), (1, 1)]


def pair(size: tuple[int, int], kind: DepthKind = DepthKind.RELATIVE_DISPARITY, index: int = 0) -> tuple[Frame, Depth]:
    rng = np.random.default_rng((*size, index))
    rgb = rng.integers(0, 256, (*size, 3), np.uint8)
    values = rng.uniform(0.5, 9, size).astype(np.float32)
    return frame_of(rgb, index), Depth(values=values, kind=kind, index=index)


def frame_of(rgb: np.ndarray, index: int = 0) -> Frame:
    return Frame(index=index, pts=index, time_base=Fraction(1, 30), captured_at=0.0, rgb=rgb)


def composed(rgb: RgbImage, coloured: RgbImage, layout: Layout, *, alpha: float) -> RgbImage:
    """The expected output image, put together from whole parts."""
    if layout is Layout.SIDE:
        return np.hstack([rgb, np.full((rgb.shape[0], GAP_PX, 3), 255, np.uint8), coloured])
    if layout is Layout.OVERLAY:
        return np.asarray(cv2.addWeighted(rgb, 1 - alpha, coloured, alpha, 0), np.uint8)
    return coloured


def renderer(layout: Layout = Layout.DEPTH, **options: object) -> Renderer:
    return Renderer(**{"layout": layout, "colormap": "inferno", "range_policy": FrameRange(), **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("size", SIZES)
def test_every_size_renders_as_composed(size: tuple[int, int], layout: Layout, kind: DepthKind) -> None:
    frame, depth = pair(size, kind)
    near = depth.values if kind is DepthKind.RELATIVE_DISPARITY else 1 / depth.values
    coloured = apply(near, float(near.min()), float(near.max()), table("inferno"))
    made = renderer(layout, alpha=0.3)
    image = made.render(frame, depth)
    assert image.shape == (*made.output_size(size), 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, composed(frame.rgb, coloured, layout, alpha=0.3))


def test_side_is_picture_white_gap_depth() -> None:
    frame, depth = pair((20, 30))
    image = renderer(Layout.SIDE).render(frame, depth)
    assert image.shape == (20, 30 + 50 + 30, 3) == (*output_size(Layout.SIDE, (20, 30)), 3)
    np.testing.assert_array_equal(image[:, :30], frame.rgb)
    assert (image[:, 30 : 30 + GAP_PX] == 255).all()
    np.testing.assert_array_equal(image[:, 80:], renderer().render(frame, depth))


@pytest.mark.parametrize("alpha", [0, 0.25, 0.6, 1])
def test_overlay_blends_by_alpha(alpha: float) -> None:
    frame, depth = pair((20, 30))
    image = renderer(Layout.OVERLAY, alpha=alpha).render(frame, depth).astype(float)
    expected = (1 - alpha) * frame.rgb + alpha * renderer().render(frame, depth)
    assert np.abs(image - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("kind", list(DepthKind))
def test_near_is_bright_whatever_the_model_says(kind: DepthKind) -> None:
    near_left = np.array([[2, 1]] if kind is DepthKind.RELATIVE_DISPARITY else [[1, 2]], np.float32)
    frame = frame_of(np.zeros((1, 2, 3), np.uint8))
    image = renderer(colormap="gray").render(frame, Depth(values=near_left, kind=kind, index=0))
    assert image[0, :, 0].tolist() == [255, 0]


def test_constant_depth_takes_the_middle_colour() -> None:
    frame, _ = pair((6, 8))
    depth = Depth(values=np.full((6, 8), 3, np.float32), kind=DepthKind.METRIC_DEPTH, index=0)
    for policy in (FrameRange(), EmaRange()):
        assert (renderer(range_policy=policy).render(frame, depth) == table("inferno")[CONSTANT_INDEX]).all()


def test_current_range_is_in_the_models_units() -> None:
    for kind in DepthKind:
        frame, depth = pair((6, 8), kind)
        made = renderer()
        assert made.current_range is None
        made.render(frame, depth)
        np.testing.assert_allclose(made.current_range, (depth.values.min(), depth.values.max()), rtol=1e-6)


def test_settings_change_between_frames() -> None:
    frame, depth = pair((6, 8))
    made = renderer()
    first = made.render(frame, depth)
    made.layout, made.colormap, made.alpha, made.range_policy = Layout.OVERLAY, "turbo", 0.5, FixedRange(0, 20)
    second = made.render(frame, depth)
    expected = composed(frame.rgb, apply(depth.values, 0, 20, table("turbo")), Layout.OVERLAY, alpha=0.5)
    np.testing.assert_array_equal(second, expected)
    assert made.colormap == "turbo"
    assert not np.shares_memory(first, second)
    with pytest.raises(UsageError, match="viridis"):
        made.colormap = "viridi"
    assert made.colormap == "turbo"


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_weight_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="0 to 1"):
        renderer(alpha=alpha)


def test_depth_of_another_size_is_refused() -> None:
    frame, _ = pair((6, 8))
    _, depth = pair((8, 6))
    with pytest.raises(ValueError, match="does not belong"):
        renderer().render(frame, depth)


def test_pictures_of_changing_size_share_a_renderer() -> None:
    made = renderer(Layout.SIDE, range_policy=EmaRange())
    for index, size in enumerate(SIZES * 2):
        assert made.render(*pair(size, index=index)).shape == (*made.output_size(size), 3)


@given(
    values=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    kind=st.sampled_from(list(DepthKind)),
    layout=st.sampled_from(list(Layout)),
    policy=st.sampled_from([FrameRange, EmaRange, lambda: FixedRange(-1, 5)]),
)
def test_any_finite_depth_renders(values: np.ndarray, kind: DepthKind, layout: Layout, policy: type) -> None:
    frame = frame_of(np.zeros((*values.shape, 3), np.uint8))
    made = renderer(layout, range_policy=policy())
    for _ in range(2):
        image = made.render(frame, Depth(values=values, kind=kind, index=0))
    assert image.shape == (*made.output_size(values.shape), 3)


def test_a_change_of_style_keeps_the_range_that_the_result_got() -> None:
    made = renderer(Layout.DEPTH, range_policy=EmaRange())
    (frame, depth), first = pair((24, 32)), pair((24, 32))
    second = frame, replace(depth, values=depth.values * 3 + 1)
    made.render(*first)
    shown = made.render(*second)
    assert np.array_equal(made.render(*second, same_range=True), shown)
    assert not np.array_equal(made.render(*second), shown), "another result would move it"


def test_another_models_values_start_a_new_range() -> None:
    made = renderer(Layout.DEPTH, range_policy=EmaRange())
    frame, depth = pair((24, 32))
    far = replace(depth, values=depth.values * 100 + 500, model="other")
    made.render(frame, depth)
    made.render(frame, far)
    assert made.current_range == (float(far.values.min()), float(far.values.max()))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("colormap", NAMES)
def test_what_has_no_answer_has_one_colour_and_changes_no_other(colormap: str, kind: DepthKind) -> None:
    frame, depth = pair((33, 57), kind)
    valid = np.random.default_rng(0).random((33, 57)) < 0.7
    wild = np.where(valid, depth.values, np.float32(1e9))
    masked = Depth(values=wild, kind=kind, index=0, valid=valid)
    kept = np.where(valid, depth.values, depth.values[valid].mean())  # within the range of the answers
    got = renderer(colormap=colormap).render(frame, masked)
    assert (got[~valid] == NO_ANSWER).all()
    whole = renderer(colormap=colormap).render(frame, replace(depth, values=kept))
    np.testing.assert_array_equal(got[valid], whole[valid])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("policy", [FrameRange, EmaRange, lambda: FixedRange(1, 2)])
def test_a_frame_without_any_answer_renders(layout: Layout, policy: Callable[[], RangePolicy]) -> None:
    frame, depth = pair((33, 57))
    nothing = replace(depth, valid=np.zeros((33, 57), bool))
    made = renderer(layout, range_policy=policy(), alpha=0.3)
    black = np.full_like(frame.rgb, NO_ANSWER)
    np.testing.assert_array_equal(made.render(frame, nothing), composed(frame.rgb, black, layout, alpha=0.3))
    assert (made.current_range is None) == (policy in (FrameRange, EmaRange))
