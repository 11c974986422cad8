"""The training renderer: depth is the distance along the viewing axis, and colour and depth show the same outlines."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.starter_scripts import needs_compiler as _paths  # noqa: F401  # makes the scripts importable

import shapes  # isort: skip
import textures  # isort: skip
from world import WHITE, Paint, Scene  # isort: skip

pytestmark = pytest.mark.slow  # needs OpenGL: Debian's libegl1, libegl-mesa0, libgl1-mesa-dri

BOX, CARD = np.array([0, 0, 0.0]), np.array([0, 0, -1.0])
DARK = Paint(colour=(0.0, 0.0, 0.0), specular=0.0)


@pytest.fixture(scope="module")
def renderer() -> Any:
    if not os.environ.get("CI"):  # there, a missing tool is a failure
        pytest.importorskip("moderngl")
    from renderer import Renderer

    rng = np.random.default_rng(0)
    stock = SimpleNamespace(
        meshes={
            "box": shapes.box(),
            "cylinder": shapes.cylinder(),
            "sphere": shapes.sphere(),
            "head": shapes.head(rng),
        },
        textures={WHITE: np.full((2, 2, 4), 255, np.uint8), "sky": textures.clouds(rng)},
        clouds=["sky"],
        pick=lambda names: names[0],
    )
    return Renderer(stock, 160, 120)  # type: ignore[arg-type]


def light() -> Any:
    from renderer import Light

    one = np.ones(3)
    return Light(
        sun=np.array([0, 1.0, 0]), sun_colour=one, ambient_up=one, ambient_down=one,
        zenith=one, horizon=one, ground=one, lamp_at=np.zeros((3, 3)), lamp_colour=np.zeros((3, 3)),
    )  # fmt: skip


def draw(renderer: Any, scene: Scene, eye: np.ndarray = BOX, target: np.ndarray = CARD):  # type: ignore[no-untyped-def]
    return renderer.render(scene, eye, target, light(), 60.0, (0, 1, 0))


def test_a_wall_is_equally_deep_everywhere(renderer: Any) -> None:
    scene = Scene()
    scene.slab((0, 0, -5.5), (100, 100, 1), DARK)
    rgb, depth = draw(renderer, scene)
    assert np.allclose(depth, 5, rtol=1e-4)
    assert np.allclose(rgb, 0)


def test_size_and_place_follow_the_field_of_view(renderer: Any) -> None:
    scene = Scene()
    scene.slab((1, 0, -10), (1, 2, 0.01), DARK)
    _, depth = draw(renderer, scene)
    rows, columns = np.nonzero(depth < 11)
    metre = 60 / np.tan(np.radians(30)) / 10  # in pixels, at 10 m
    assert np.ptp(rows) + 1 == pytest.approx(2 * metre, abs=1.5)
    assert np.ptp(columns) + 1 == pytest.approx(metre, abs=1.5)
    assert columns.mean() == pytest.approx(79.5 + metre, abs=1)
    assert np.allclose(depth[depth > 11], 1e4)


def test_thin_things_are_in_the_picture_where_they_are_in_depth(renderer: Any) -> None:
    scene = Scene()
    scene.rod((-1, -2, -4), (1, 2, -4), 0.12, DARK)
    rgb, depth = draw(renderer, scene)
    seen, deep = rgb.mean(-1) < 0.5 * rgb.max(), depth < 9e3
    assert 100 < deep.sum() < 1500
    assert (seen & deep).sum() / (seen | deep).sum() > 0.8


def test_the_nearer_of_two_hides_the_farther(renderer: Any) -> None:
    for order in (1, -1):
        scene = Scene()
        for z in (-3.0, -6.0)[::order]:
            scene.slab((0, 0, z), (1, 1, 0.001), DARK)
        _, depth = draw(renderer, scene)
        assert depth[60, 80] == pytest.approx(3, abs=1e-2)


def test_things_behind_and_beside_the_camera_do_not_show(renderer: Any) -> None:
    scene = Scene()
    for at in ((0, 0, 5), (30, 0, -5), (0, -30, -5)):
        scene.slab(at, (2, 2, 2), DARK)
    _, depth = draw(renderer, scene)
    assert np.allclose(depth, 1e4)


def test_a_head_looks_along_minus_z(renderer: Any) -> None:
    head = renderer._stock.meshes["head"]
    nose = head[np.abs(head[:, 6] - 0.5) < 0.02, 2].min()
    assert nose < -0.42 < head[:, 2].max()
    assert np.ptp(head[:, 1]) == pytest.approx(1, abs=0.1)


def test_a_shadow_falls_away_from_the_sun(renderer: Any) -> None:
    scene = Scene()
    scene.slab((0, -1.05, -4), (20, 0.1, 20), Paint(specular=0.0))
    scene.slab((0, -0.4, -4), (1, 0.1, 1), DARK)
    light_here = light()
    light_here.sun = np.array([-1, 1, 0.0]) / np.sqrt(2)
    light_here.ambient_up = light_here.ambient_down = np.zeros(3)
    rgb, depth = renderer.render(scene, np.array([0, 1.5, 0.0]), np.array([0, -1, -4.0]), light_here, 60.0, (0, 1, 0))
    ground = rgb.mean(-1)
    floor_right, floor_left = ground[60:, 80:], ground[60:, :80]
    assert (floor_right < 0.1).sum() > 2 * (floor_left < 0.1).sum()
    assert depth.dtype == np.float32
