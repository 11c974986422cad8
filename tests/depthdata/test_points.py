"""Points in space: planes come back as planes, angles are those of the camera, and nothing flies between objects."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from stream.depthdata.points import FAR, MOST, NEAR, FocalSource, camera_of, distances, edges, point_cloud
from stream.frames import DEFAULT_FOV, Depth, DepthKind, DepthMap, Frame, Intrinsics

METRIC, RELATIVE, DISPARITY = DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DEPTH, DepthKind.RELATIVE_DISPARITY


def pair(
    values: object, kind: DepthKind = METRIC, *, camera: Intrinsics | None = None, **fields: Any
) -> tuple[Frame, Depth]:
    """A frame whose every pixel has a colour of its own, and its depth."""
    z = np.asarray(values, np.float32)
    rows, columns = np.indices(z.shape)
    rgb = np.stack([rows, columns, np.full(z.shape, 7)], axis=-1).astype(np.uint8)
    frame = Frame(index=0, pts=0, time_base=Fraction(1), captured_at=0, rgb=rgb, intrinsics=camera)
    return frame, Depth(values=z, kind=kind, index=0, **fields)


def rays(height: int, width: int, fov: float) -> np.ndarray:
    """Directions of the pixels' centres, by angles: the image's borders are at ± half the field of view."""
    half = math.tan(math.radians(fov / 2))
    x = ((np.arange(width) + 0.5) / width * 2 - 1) * half
    y = ((np.arange(height) + 0.5) / height * 2 - 1) * half * height / width
    return np.stack([*np.broadcast_arrays(x, y[:, None]), np.ones((height, width))], axis=-1)


def plane(height: int, width: int, fov: float, normal: tuple[float, float, float], offset: float) -> DepthMap:
    """Depth of the plane normal · p = offset along the pixels' rays."""
    return (offset / (rays(height, width, fov) @ np.array(normal))).astype(np.float32)


def test_a_wall_at_two_metres_is_flat_and_as_wide_as_the_camera_sees() -> None:
    frame, depth = pair(np.full((60, 80), 2.0))
    cloud = point_cloud(frame, depth, fov=90)
    assert (len(cloud), cloud.left_out, cloud.unit) == (4800, 0, "metres")
    assert cloud.xyz.dtype == np.float32
    assert (cloud.xyz[:, 2] == 2).all()
    # At 90°, the borders are as far to the side as the wall is away; the outer pixels' centres lie half a pixel inside.
    assert cloud.xyz[:, 0].min() == pytest.approx(-2 + 2 / 80, rel=1e-6)
    assert cloud.xyz[:, 0].max() == pytest.approx(2 - 2 / 80, rel=1e-6)
    assert cloud.xyz[:, 1].max() == pytest.approx(2 * 60 / 80 - 2 / 80, rel=1e-6)


def test_right_is_x_down_is_y_and_each_point_has_the_colour_of_its_pixel() -> None:
    frame, depth = pair(np.full((60, 80), 2.0))
    cloud = point_cloud(frame, depth, fov=90)
    rows, columns = cloud.rgb[:, 0].astype(int), cloud.rgb[:, 1].astype(int)
    assert np.allclose(cloud.xyz, 2 * rays(60, 80, 90)[rows, columns], atol=1e-6)
    assert len({(row, column) for row, column in zip(rows, columns, strict=True)}) == 4800


@pytest.mark.parametrize("normal", [(0.0, 1.0, 0.35), (0.6, -0.3, 1.0)])
def test_a_slanted_plane_comes_back_as_a_plane(normal: tuple[float, float, float]) -> None:
    values = plane(90, 120, 70, normal, 1.5)
    frame, depth = pair(np.where((values > 0) & (values < 20), values, 0))
    cloud = point_cloud(frame, depth, fov=70)
    assert len(cloud) > 3000
    assert np.allclose(cloud.xyz @ np.array(normal), 1.5, atol=1e-4)


def test_a_step_leaves_no_point_in_between() -> None:
    profile = np.repeat([2.0, 2.2, 2.6, 3.1, 3.6, 3.9, 4.0], [20, 1, 1, 1, 1, 1, 20])  # blurred, as networks do
    frame, depth = pair(np.broadcast_to(profile, (30, 45)))
    cloud = point_cloud(frame, depth, fov=60)
    assert set(np.unique(cloud.xyz[:, 2])) == {np.float32(2), np.float32(4)}
    assert cloud.left_out == 30 * 45 - len(cloud) > 0
    assert len(cloud) >= 30 * 38
    turned = point_cloud(*pair(np.broadcast_to(profile[:, None], (45, 30))), fov=60)
    assert set(np.unique(turned.xyz[:, 2])) == {np.float32(2), np.float32(4)}


def test_a_soft_step_of_a_large_image_is_cut_as_well() -> None:
    """2 % from one pixel to the next passes in a small image, where it is an ordinary slope, and not at 1080p."""
    profile = np.concatenate([np.full(800, 2.0), 2 * 1.02 ** np.arange(36), np.full(1084, 4.0)])
    frame, depth = pair(np.broadcast_to(profile, (8, 1920)))
    z = point_cloud(frame, depth, fov=60).xyz[:, 2]
    assert not ((z > 2.05) & (z < 3.9)).any()
    small, its_depth = pair(np.broadcast_to(2 * 1.02 ** np.arange(36), (8, 36)))
    assert point_cloud(small, its_depth, fov=60).left_out == 0


def test_strips_have_no_seam() -> None:
    values = np.full((1100, 4), 2.0, np.float32)
    values[512:] = 4
    found = edges(values, Intrinsics(fx=100, fy=100, cx=2, cy=550))
    assert np.flatnonzero(found.any(axis=1)).tolist() == [511, 512]


def test_pixels_without_an_answer_are_left_out_and_are_no_edge() -> None:
    values = np.full((20, 20), 3.0, np.float32)
    valid = np.ones((20, 20), bool)
    valid[:10] = False
    frame, depth = pair(values, valid=valid)
    cloud = point_cloud(frame, depth, fov=60)
    assert (len(cloud), cloud.left_out) == (200, 0)
    assert np.isfinite(cloud.xyz).all()
    assert cloud.rgb[:, 0].min() == 10


@pytest.mark.parametrize("kind", list(DepthKind))
def test_a_map_without_any_answer_gives_no_point(kind: DepthKind) -> None:
    frame, depth = pair(np.full((4, 5), np.nan), kind, valid=np.zeros((4, 5), bool))
    assert len(point_cloud(frame, depth)) == 0


@pytest.mark.parametrize("kind", [METRIC, RELATIVE])
def test_what_is_not_in_front_of_the_camera_is_left_out(kind: DepthKind) -> None:
    frame, depth = pair([[0.0, 2.0, 2.0], [-1.0, 2.0, 2.0]], kind)
    cloud = point_cloud(frame, depth)
    assert (len(cloud), cloud.left_out) == (4, 2)


def test_relative_depth_stays_as_it_is() -> None:
    cloud = point_cloud(*pair(np.full((4, 5), 0.37), RELATIVE))
    assert np.unique(cloud.xyz[:, 2]).tolist() == [np.float32(0.37)]
    assert "unknown" in cloud.unit


def test_relative_disparity_lies_between_the_near_and_the_far_end() -> None:
    values = np.linspace(5, 25, 6000)[None]
    frame, depth = pair(values, DISPARITY)
    z = point_cloud(frame, depth).xyz[:, 2]
    low, high = np.percentile(values, (1, 99))
    assert np.interp(low, values.ravel(), 1 / z) == pytest.approx(1 / FAR, rel=1e-3)
    assert np.interp(high, values.ravel(), 1 / z) == pytest.approx(1 / NEAR, rel=1e-3)
    assert (np.diff(z) < 0).all()  # larger disparity is nearer
    assert np.allclose(np.diff(1 / z.astype(np.float64), 2), 0, atol=1e-5)  # and linear in 1 / z: planes stay planes


def test_fixed_ends_give_every_frame_the_same_scale() -> None:
    for top in (30.0, 300.0):
        _, depth = pair(np.array([[2.0, 20.0, top]]), DISPARITY)
        assert distances(depth, (2.0, 20.0))[0, :2].tolist() == pytest.approx([FAR, NEAR])
    far = pair(np.array([[-1e6, 20.0]]), DISPARITY)[1]
    assert distances(far, (2.0, 20.0))[0, 0] == pytest.approx(MOST)


def test_constant_disparity_is_one_wall() -> None:
    cloud = point_cloud(*pair(np.full((4, 5), 3.0), DISPARITY))
    assert np.unique(cloud.xyz[:, 2]).tolist() == pytest.approx([FAR])


def test_the_camera_is_the_options_then_the_models_then_the_photos() -> None:
    photo, model = Intrinsics(fx=50, fy=51, cx=40, cy=30), Intrinsics(fx=70, fy=70, cx=39, cy=29)
    flat = np.full((60, 80), 2.0)
    both = pair(flat, camera=photo, intrinsics=model)
    wanted, source = camera_of(*both, fov=90)
    assert (wanted.fx, wanted.fy, wanted.cx, wanted.cy) == pytest.approx((40, 40, 40, 30))
    assert source is FocalSource.OPTION
    assert camera_of(*both) == (model, FocalSource.MODEL)
    assert camera_of(*pair(flat, camera=photo)) == (photo, FocalSource.PHOTO)
    assert camera_of(*pair(flat))[1] is FocalSource.ASSUMED
    cloud = point_cloud(*pair(flat, camera=photo))  # each axis by its own numbers
    last = cloud.xyz[-1]
    assert last == pytest.approx([(79.5 - 40) / 50 * 2, (59.5 - 30) / 51 * 2, 2], rel=1e-6)


@pytest.mark.parametrize("size", [(60, 80), (80, 60)])
def test_an_unknown_camera_sees_sixty_degrees_along_the_longer_side(size: tuple[int, int]) -> None:
    camera, _ = camera_of(*pair(np.full(size, 2.0)))
    assert math.degrees(2 * math.atan(40 / camera.fx)) == pytest.approx(DEFAULT_FOV) == 60
