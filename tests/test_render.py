"""Colours equal to the official scripts', ranges that do not flicker, layouts of any size."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream.errors import UsageError
from stream.frames import Depth, DepthKind, Frame
from stream.render import colormap
from stream.render.layout import GAP_PX, Layout, compose, output_size
from stream.render.range import EmaRange, FixedRange, FrameRange, parse_range, to_disparity
from stream.render.renderer import Renderer

REFERENCE = {
    name.split()[0]: np.array(rows, np.uint8)
    for name, rows in json.loads((Path(__file__).parent / "data" / "colormaps.json").read_text()).items()
}
RELATIVE = DepthKind.RELATIVE_DISPARITY


def frame(rgb: np.ndarray) -> Frame:
    return Frame(index=0, pts=0, time_base=Fraction(1, 25), captured_at=0.0, rgb=rgb)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", ["inferno", "spectral_r"])
def test_tables_equal_the_official_ones(name: str) -> None:
    assert np.array_equal(colormap.table(name), REFERENCE[name])


@pytest.mark.parametrize("name", colormap.NAMES)
def test_every_table_is_256_colours_and_cannot_be_changed(name: str) -> None:
    rows = colormap.table(name)
    assert (rows.shape, rows.dtype) == ((256, 3), np.uint8)
    assert len(np.unique(rows, axis=0)) > 100
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


def test_unknown_colormap_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean inferno"):
        colormap.table("infernal")


@pytest.mark.parametrize("name", ["inferno", "spectral_r", "gray"])
def test_colours_are_the_official_formula(name: str) -> None:
    depth = np.random.default_rng(1).normal(5, 3, (90, 70)).astype(np.float32)
    low, high = float(depth.min()), float(depth.max())
    official = ((depth - depth.min()) / (depth.max() - depth.min()) * 255.0).astype(np.uint8)
    assert np.array_equal(colormap.apply(depth, low, high, colormap.table(name)), colormap.table(name)[official])


def test_values_beyond_a_fixed_range_take_the_end_colours() -> None:
    values = np.array([[-5, 0, 0.5, 1, 9]], np.float32)
    gray = colormap.apply(values, 0, 1, colormap.table("gray"))[0, :, 0]
    assert gray.tolist() == [0, 0, 127, 255, 255]


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.sampled_from(Layout),
    st.sampled_from(DepthKind),
    st.sampled_from(["frame", "ema", "0:1"]),
)
def test_any_finite_depth_renders(values: np.ndarray, layout: Layout, kind: DepthKind, policy: str) -> None:
    height, width = values.shape
    renderer = Renderer(layout=layout, colormap="turbo", range_policy=parse_range(policy, kind=kind))
    image = renderer.render(frame(picture(height, width)), Depth(values=values, kind=kind, index=0))
    assert image.dtype == np.uint8
    assert image.shape == (*output_size(layout, (height, width)), 3) == (*renderer.output_size((height, width)), 3)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1), (31, 17)])
@pytest.mark.parametrize("layout", Layout)
def test_constant_depth_of_any_shape_renders_in_one_colour(shape: tuple[int, int], layout: Layout) -> None:
    values = np.full(shape, 3.5, np.float32)
    renderer = Renderer(layout=layout, colormap="inferno", range_policy=FrameRange(), alpha=1.0)
    image = renderer.render(frame(picture(*shape)), Depth(values=values, kind=RELATIVE, index=0))
    depth_part = image[:, -shape[1] :]
    assert (depth_part == depth_part[0, 0]).all()


def test_near_is_bright_for_both_kinds() -> None:
    near_left = np.array([[1.0, 10.0]], np.float32)
    for kind, values in ((DepthKind.METRIC_DEPTH, near_left), (RELATIVE, 1 / near_left)):
        renderer = Renderer(layout=Layout.DEPTH, colormap="gray", range_policy=FrameRange())
        image = renderer.render(frame(picture(1, 2)), Depth(values=values, kind=kind, index=0))
        assert image[0, :, 0].tolist() == [255, 0]


def test_metric_range_is_in_metres_and_survives_zero_depth() -> None:
    policy = parse_range("1:10", kind=DepthKind.METRIC_DEPTH)
    assert policy.range_for(np.zeros((1, 1), np.float32), picture(1, 1)) == (0.1, 1.0)
    shown = to_disparity(np.array([[0.0, -1.0, 2.0]], np.float32), DepthKind.METRIC_DEPTH)
    assert np.isfinite(shown).all()
    assert shown[0, 2] == 0.5


@pytest.mark.parametrize("text", ["nan:1", "1:inf", "2:1", "1:1", "1", "a:b", "1:2:3", ""])
def test_bad_ranges_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--range"):
        parse_range(text, kind=RELATIVE)


def test_ema_follows_slowly_within_a_scene_and_at_once_after_a_cut() -> None:
    policy, dark, bright = EmaRange(), np.full((60, 80, 3), 20, np.uint8), np.full((60, 80, 3), 230, np.uint8)
    first = np.array([[0, 1]], np.float32)
    assert policy.range_for(first, dark) == (0.0, 1.0)
    _, high = policy.range_for(first * 11, dark)
    assert high == pytest.approx(2.0)
    assert policy.range_for(first * 5, bright) == (0.0, 5.0)
    assert policy.scene_cuts == 1


def test_a_pan_and_a_brightening_are_no_cuts() -> None:
    rng = np.random.default_rng(3)
    wide = np.kron(rng.integers(0, 256, (12, 60, 3), np.uint8), np.ones((20, 20, 1), np.uint8))
    policy, depth = EmaRange(), np.array([[0, 1]], np.float32)
    for step in range(30):
        policy.range_for(depth, np.ascontiguousarray(wide[:, step * 4 : step * 4 + 320]))
    for gain in np.linspace(1, 0.4, 20):
        policy.range_for(depth, (wide[:, 120:440] * gain).astype(np.uint8))
    assert policy.scene_cuts == 0


def test_fixed_range_ignores_the_frame() -> None:
    assert FixedRange(1, 2).range_for(np.zeros((2, 2), np.float32), picture(2, 2)) == (1, 2)


def test_side_layout_is_picture_gap_depth() -> None:
    rgb, coloured = picture(5, 7), picture(5, 7, seed=1)
    image = compose(rgb, coloured, Layout.SIDE, alpha=0.5)
    assert np.array_equal(image[:, :7], rgb)
    assert (image[:, 7 : 7 + GAP_PX] == 255).all()
    assert np.array_equal(image[:, 7 + GAP_PX :], coloured)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_overlay_blends(alpha: float) -> None:
    rgb, coloured = picture(5, 7), picture(5, 7, seed=1)
    image = compose(rgb, coloured, Layout.OVERLAY, alpha=alpha)
    assert np.abs(image - (coloured * alpha + rgb * (1 - alpha))).max() <= 0.5001
