"""Colours: the bytes of the official scripts, for every finite depth."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream.errors import UsageError
from stream.media import cv2
from stream.render.colormap import CONSTANT_INDEX, NAMES, apply, table
from tests.support.paths import DATA

REFERENCE = {
    name.split()[0]: np.array(rows, np.uint8)
    for name, rows in json.loads((DATA / "colormaps.json").read_text()).items()
}
INDEX = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
"""A colormap whose colours are the indices."""
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_tables_are_byte_equal_to_those_of_the_official_scripts(name: str) -> None:
    np.testing.assert_array_equal(table(name), REFERENCE[name])


@pytest.mark.parametrize("name", ["inferno", "magma", "plasma", "viridis", "cividis", "turbo"])
def test_tables_are_byte_equal_to_opencvs(name: str) -> None:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    bgr = cv2.applyColorMap(ramp, getattr(cv2, f"COLORMAP_{name.upper()}"))[:, 0]
    np.testing.assert_array_equal(table(name), bgr[:, ::-1])


@pytest.mark.parametrize("name", NAMES)
def test_every_table_offered_exists_and_is_read_only(name: str) -> None:
    rgb = table(name)
    assert rgb.shape == (256, 3)
    assert rgb.dtype == np.uint8
    assert not rgb.flags.writeable
    if not name.endswith("_r") and not name.startswith("spectral"):
        np.testing.assert_array_equal(rgb[::-1], table(f"{name}_r"))


def test_gray_is_the_index() -> None:
    np.testing.assert_array_equal(table("gray"), INDEX)


@pytest.mark.parametrize(
    ("typed", "nearest"), [("infern", "inferno"), ("Spectral_r", "spectral_r"), ("virids", "viridis")]
)
def test_an_unknown_name_is_refused_with_the_nearest(typed: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        table(typed)
    assert f"did you mean {nearest}?" in str(caught.value)
    assert "turbo" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_name_like_none_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match="allowed: inferno"):
        table("xyzzy")


@pytest.mark.parametrize("size", [(480, 640), (1, 7), (7, 1), (1, 1), (333, 517), (1080, 1921)])
def test_indices_are_those_of_the_official_expression(size: tuple[int, int]) -> None:
    depth = np.random.default_rng(size).normal(3, 40, size).astype(np.float32)
    depth[0, -1] += 1  # not constant, whatever the size
    lo, hi = depth.min(), depth.max()
    if lo == hi:
        expected = np.full(size, CONSTANT_INDEX, np.uint8)
    else:
        expected = ((depth - lo) / (hi - lo) * 255.0).astype(np.uint8)
    got = apply(depth, float(lo), float(hi), INDEX)
    np.testing.assert_array_equal(got[..., 0], expected)
    np.testing.assert_array_equal(apply(depth, float(lo), float(hi), table("turbo")), table("turbo")[expected])


def test_values_outside_the_range_take_the_end_colours() -> None:
    depth = np.array([[-np.float32(3e38), 0, 0.5, 1, 3e38]], np.float32)
    np.testing.assert_array_equal(apply(depth, 0, 1, INDEX)[0, :, 0], [0, 0, 127, 255, 255])


def test_a_range_without_extent_tells_below_equal_and_above() -> None:
    depth = np.array([[1, 2, 3]], np.float32)
    np.testing.assert_array_equal(apply(depth, 2, 2, INDEX)[0, :, 0], [0, CONSTANT_INDEX, 255])


def test_writes_into_part_of_a_larger_picture_and_nowhere_else() -> None:
    depth = np.random.default_rng(0).random((300, 500), np.float32)
    canvas = np.full((300, 1000, 3), 7, np.uint8)
    pane = canvas[:, 450:950]
    assert apply(depth, 0, 1, table("viridis"), out=pane) is pane
    np.testing.assert_array_equal(pane, apply(depth, 0, 1, table("viridis")))
    assert (canvas[:, :450] == 7).all()
    assert (canvas[:, 950:] == 7).all()


@given(
    depth=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=FINITE),
    ends=st.none() | st.tuples(FINITE, FINITE).map(sorted),
)
def test_any_finite_depth_gets_colours_in_order(depth: np.ndarray, ends: list[float] | None) -> None:
    lo, hi = ends if ends is not None else (float(depth.min()), float(depth.max()))
    index = apply(depth, lo, hi, INDEX)[..., 0]
    assert index.shape == depth.shape
    assert (np.diff(index.ravel()[np.argsort(depth, axis=None)].astype(int)) >= 0).all()
    if lo < hi:
        assert (index[depth <= np.float32(lo)] == 0).all()
        assert (index[depth >= np.float32(hi)] == 255).all()
