"""The shipped demo clip has the documented format, and the script that makes it measures true depth."""

import importlib.util
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest

from stream.media import av
from tests.support.paths import REPOSITORY

ROOT = REPOSITORY
CLIP = ROOT / "stream" / "data" / "demo.mp4"
DEPTH = ROOT / "tests" / "data" / "demo_depth.npz"
SCRIPTS = ("solids", "light", "scene", "clip")


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """`scripts/demo/clip.py` as a module; import path and modules are restored."""
    path, before = list(sys.path), set(sys.modules)
    spec = importlib.util.spec_from_file_location("clip", ROOT / "scripts" / "demo" / "clip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
    for name in set(SCRIPTS) & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture(scope="module")
def clip() -> list[tuple[int, np.ndarray]]:
    """(pts, rgb) of every frame."""
    with av.open(str(CLIP)) as container:
        return [(frame.pts, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_size_rate_and_duration(clip: list[tuple[int, np.ndarray]]) -> None:
    assert CLIP.stat().st_size < 1_000_000
    assert DEPTH.stat().st_size < 200_000
    assert len(clip) == 120
    assert {rgb.shape for _, rgb in clip} == {(480, 640, 3)}
    with av.open(str(CLIP)) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "h264"
        assert video.average_rate == Fraction(25)
        assert video.duration * video.time_base == Fraction(120, 25)
        assert [pts * video.time_base for pts, _ in clip] == [Fraction(i, 25) for i in range(120)]
        assert video.codec_context.pix_fmt == "yuv420p"
        assert video.codec_context.colorspace == 1  # BT.709
        assert video.codec_context.color_range == 1  # limited


def test_index_comes_first() -> None:
    data = CLIP.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_sound_is_audible_and_as_long_as_the_picture() -> None:
    with av.open(str(CLIP)) as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == "aac"
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert abs(len(wave) / audio.rate - 4.8) < 2 * 1024 / audio.rate  # the encoder's frame, and its priming
    assert 0.1 < np.abs(wave).max() < 0.99


def test_pictures_are_well_exposed_and_move_smoothly(clip: list[tuple[int, np.ndarray]]) -> None:
    for _, rgb in clip[::20]:
        assert 80 < rgb.mean() < 180
        assert rgb.std() > 40
    steps = [np.abs(a[1].astype(int) - b[1]).mean() for a, b in pairwise(clip[40:80])]
    assert min(steps) > 0.5
    assert max(steps) < 12


def test_depth_is_sane() -> None:
    with np.load(DEPTH) as data:
        frames, depth_m = data["frames"], data["depth_m"]
    assert frames.tolist() == [0, 30, 60, 90, 119]
    assert depth_m.shape == (5, 120, 160)
    assert depth_m.dtype == np.float16
    sky = np.isinf(depth_m)
    assert (sky.mean(axis=(1, 2)) > 0.005).all()
    assert (sky.mean(axis=(1, 2)) < 0.15).all()
    room = depth_m[~sky].astype(np.float32)
    assert 0.5 < room.min() < 3
    assert 6 < room.max() < 8.5
    bottom, middle = depth_m[:, -10:].astype(np.float32), depth_m[:, 60:70].astype(np.float32)
    assert (np.median(bottom, axis=(1, 2)) < np.median(middle, axis=(1, 2))).all()


def test_shipped_depth_is_what_the_script_computes(script: ModuleType) -> None:
    with np.load(DEPTH) as data:
        shipped = data["depth_m"][2]
    solids, part = script.build(), script.DEPTH_FRAMES[2] / (script.FRAMES - 1)
    computed = script.true_depth(solids, part, script.DEPTH_HW)
    np.testing.assert_array_equal(np.isinf(shipped), np.isinf(computed))
    near = np.isfinite(computed)
    np.testing.assert_allclose(shipped[near], computed[near], rtol=1e-3)


def test_depth_of_a_wall_is_exact(script: ModuleType) -> None:
    """A wall that faces the camera lies at one depth along its axis, whatever the pixel."""
    position, turn = script.camera(0.3)
    centre = position + np.float32(5) * turn[:, 2]
    wall = sys.modules["solids"].Box(
        centre=tuple(centre.tolist()), half=(40, 40, 1), turn=turn, paint=lambda p, n, f: p
    )
    np.testing.assert_allclose(script.true_depth([wall], 0.3, (30, 40)), 4, rtol=1e-5)


def test_every_solid_is_met_where_its_charts_say(script: ModuleType) -> None:
    """A ray shot at any chart point from just outside meets the surface there, and finds its way back to the chart."""
    rng = np.random.default_rng(0)
    checked = set()
    for solid in script.build():
        if type(solid) in checked:
            continue
        checked.add(type(solid))
        for chart in range(len(solid.charts())):
            u, v = rng.uniform(0.1, 0.9, (2, 200)).astype(np.float32)
            p, n = solid.point(chart, u, v)
            np.testing.assert_allclose(np.linalg.norm(n, axis=0), 1, rtol=1e-4)
            t = solid.enter(p + n * np.float32(0.5), -n)
            np.testing.assert_allclose(t, 0.5, atol=2e-3)
            back, u2, v2 = solid.locate(p)
            assert (back == chart).all()
            if chart == 0 or not solid.wraps:  # a round cap draws the corners of its square in
                np.testing.assert_allclose(np.stack([u2, v2]), np.stack([u, v]), atol=1e-3)
    assert {kind.__name__ for kind in checked} == {"Box", "Ellipsoid", "Frustum", "Capsule"}
