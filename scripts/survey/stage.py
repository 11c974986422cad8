"""What a survey scene is made of: meshes in their places, paints, lamps, sky, air and a camera.

Units are metres, y is up; colours are linear, textures sRGB. Meshes and noise come from the built-in model's scripts.
Invariant: nothing is loaded but what formulas make, and everything random comes from one seeded generator.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "starter"))

import numpy as np
import shapes
from numpy.typing import NDArray
from textures import fractal, opaque

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
Colour = tuple[float, float, float]
Vector = Sequence[float] | F64
WHITE = "white"
SKY, CLOUD = 1, 2
"""Labels that every scene has."""


def rgb(text: str, gain: float = 1.0) -> Colour:
    """Linear colour of an sRGB `rrggbb`."""
    s = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    r, g, b = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4) * gain
    return float(r), float(g), float(b)


@dataclass(frozen=True, kw_only=True)
class Paint:
    """How a surface looks.

    Attributes:
        texture: laid on by the mesh's own coordinates, or from three sides if `repeat` is set.
        colour: multiplies it.
        gloss: strength of reflections, 0 to 1, at normal incidence.
        shininess: of highlights.
        glow: radiance of its own, as a multiple of the colour.
        repeat: copies of the texture a metre.
        bump: how strongly the texture's brightness tilts the surface.
        mirror: strength of the mirror image in a level floor, and `blur` its roughness.
        printed: in cartoon shading, keeps the texture; everything else is one flat colour.
        pane: glass, of which only the reflection shows; it has no depth.
    """

    texture: str = WHITE
    colour: Colour = (1.0, 1.0, 1.0)
    gloss: float = 0.02
    shininess: float = 20.0
    glow: float = 0.0
    repeat: float | None = None
    bump: float = 0.0
    mirror: float = 0.0
    blur: float = 0.0
    printed: bool = False
    pane: bool = False
    through: float = 0.0
    """Share of the light that comes through from behind, as in leaves and cloth."""


@dataclass(frozen=True)
class Item:
    """A mesh in its place. A box has a label for each face, `label` + 0 to 5 (−x, +x, −y, +y, −z, +z).

    `casts`: 0 no shadow, 1 one of the sun's light only (walls, which would hide all light of the sky), 2 all.
    """

    mesh: str
    matrix: F64
    paint: Paint
    label: int
    casts: int = 2
    is_box: bool = False
    repeat: Colour = (1.0, 1.0, 1.0)


@dataclass
class Label:
    """What is known of the pixels that show a thing.

    Attributes:
        thin: it is thin, wherever it is a few pixels wide.
        small: number of a small near thing, 0 for none.
        plane: number of the plane that findings look at, 0 for none.
        flat: normal and offset of the plane n·x = c that the surface lies in, or None.
    """

    thin: bool = False
    small: int = 0
    plane: int = 0
    flat: tuple[F64, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Lamp:
    """A round lamp: `colour` is radiant intensity, `cone` its outer and inner half angle in degrees."""

    at: Vector
    colour: Colour
    radius: float = 0.1
    towards: Vector = (0, -1, 0.01)
    cone: tuple[float, float] = (78.0, 60.0)
    reach: float = 30.0


@dataclass(kw_only=True)
class Sky:
    """The sky, and the light of it; indoors, the light of walls and windows."""

    sun: Vector = (0.4, 0.8, 0.3)
    sun_colour: Colour = (0.0, 0.0, 0.0)
    sun_size: float = 0.02
    zenith: Colour = (0.25, 0.45, 0.9)
    horizon: Colour = (0.8, 0.88, 1.0)
    ground: Colour = (0.25, 0.22, 0.18)
    fill: Colour = (0.0, 0.0, 0.0)
    """Light from one side, from `fill_from`: a wall of windows."""
    fill_from: Vector = (0, 0.3, 1)
    cover: float = 0.0
    layers: float = 0.0
    """How much the clouds are drawn out into layers."""
    cloud: Colour = (1.0, 1.0, 1.0)
    disc: float = 0.0
    stars: float = 0.0


@dataclass(kw_only=True)
class Air:
    """Haze: extinction a metre at y = 0, scale height, and colours away from and towards the sun."""

    density: float = 0.0
    height: float = 1e6
    colour: Colour = (0.7, 0.8, 0.95)
    sunward: Colour = (0.0, 0.0, 0.0)


@dataclass(kw_only=True)
class Camera:
    """Where the picture is taken from; `fovy` in degrees."""

    eye: Vector
    target: Vector
    fovy: float = 45.0
    near: float = 0.1
    far: float = 300.0
    size_wh: tuple[int, int] = (1600, 1200)


@dataclass(kw_only=True)
class Look:
    """How the light becomes a picture."""

    exposure: float = 1.0
    bloom: float = 0.05
    saturation: float = 1.0
    outline: float = 2.2
    """Of the cartoon, in pixels."""


class Stage:
    """A scene being built."""

    def __init__(self, seed: int, camera: Camera) -> None:
        self.rng = np.random.default_rng(seed)
        self.camera, self.sky, self.air, self.look = camera, Sky(), Air(), Look()
        self.items: list[Item] = []
        self.lamps: list[Lamp] = []
        self.panes: list[tuple[Vector, Vector, Vector, Colour]] = []
        """Bright rectangles that glass and gloss reflect: a corner, two sides, radiance."""
        self.mirror_y: float | None = None
        self.shadow_reach, self.shadow_centre = 12.0, np.zeros(3)
        self.labels: list[Label] = [Label(), Label(), Label()]
        self.meshes: dict[str, F32] = {
            "box": shapes.box(),
            "sphere": fine_sphere(),
            "cylinder": shapes.lathe(
                np.array([(0, -0.5), (0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (0.5, 0.5), (0, 0.5)]), 25
            ),
            "cone": shapes.lathe(np.array([(0, -0.5), (0.5, -0.5), (0.5, -0.5), (0.001, 0.5)]), 33),
            "ring": shapes.ring(0.01, 49),
        }
        self.textures: dict[str, U8] = {
            WHITE: np.full((2, 2, 4), 255, np.uint8),
            "noise": opaque(np.repeat(seamless(np.random.default_rng(5), 8, 0.55, 4)[..., None], 3, 2)),
        }
        self._smalls = self._planes = 0

    def label(self, *, thin: bool = False, small: int = 0) -> int:
        """A new label for something that is not flat."""
        self.labels.append(Label(thin=thin, small=small))
        return len(self.labels) - 1

    def new_small(self) -> int:
        """The number of a further small thing."""
        self._smalls += 1
        return self._smalls

    def mesh(self, vertices: F32) -> str:
        """Keep a mesh; its name."""
        name = f"mesh{len(self.meshes)}"
        self.meshes[name] = vertices
        return name

    def texture(self, picture: U8) -> str:
        """Keep a texture, RGBA; its name."""
        name = f"texture{len(self.textures)}"
        self.textures[name] = picture
        return name

    def add(self, mesh: str, matrix: F64, paint: Paint, label: int = 0, *, casts: int = 2) -> None:
        """Put a mesh in its place."""
        self.items.append(Item(mesh, matrix, paint, label or self.label(), casts))

    def slab(
        self,
        centre: Vector,
        size: Vector,
        paint: Paint,
        *,
        turn: float = 0.0,
        within: F64 | None = None,
        plane: bool = False,
        label: int = 0,
        casts: int = 2,
    ) -> None:
        """A box. `plane`: findings look at each of its faces; `label`: one for all faces, for small and thin things."""
        matrix = (np.eye(4) if within is None else within) @ place(centre, size, turn)
        first = label
        if not label:
            first = len(self.labels)
            for axis, sign in ((a, s) for a in range(3) for s in (-1, 1)):
                local = np.zeros(3)
                local[axis] = sign
                normal = np.linalg.inv(matrix[:3, :3]).T @ local
                normal /= np.linalg.norm(normal)
                at = matrix[:3, :3] @ (local / 2) + matrix[:3, 3]
                self._planes += plane
                number = self._planes if plane else 0
                self.labels.append(Label(plane=number, flat=(normal, float(normal @ at))))
        k = paint.repeat or 0.0
        repeat = (k * size[0], k * size[1], k * size[2])
        self.items.append(Item("box", matrix, paint, first, casts, not label, repeat))

    def rod(self, start: Vector, end: Vector, thickness: float, paint: Paint, label: int = 0, **extra: int) -> None:
        """A cylinder between two points."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        length = float(np.linalg.norm(b - a)) + 1e-9
        matrix = place((a + b) / 2, (thickness, length, thickness), rotation=upright_to((b - a) / length))
        self.add("cylinder", matrix, paint, label, **extra)

    def limb(self, start: Vector, end: Vector, thick: float, thin: float, paint: Paint, label: int) -> None:
        """A tapering cylinder with round ends."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        length = float(np.linalg.norm(b - a)) + 1e-9
        name = f"limb{thick:.4f}:{thin:.4f}:{length:.4f}"
        if name not in self.meshes:
            angle = np.linspace(0, np.pi / 2, 5)
            low = np.stack([thick * np.sin(angle), -thick * np.cos(angle)], -1)
            high = np.stack([thin * np.cos(angle), length + thin * np.sin(angle)], -1)
            self.meshes[name] = shapes.lathe(np.concatenate([low, high]) * 1.0 + [1e-5, 0], 17)
        self.add(name, place(a, rotation=upright_to((b - a) / length)), paint, label)

    def ball(self, at: Vector, size: Vector | float, paint: Paint, label: int = 0, within: F64 | None = None) -> None:
        """An ellipsoid of these diameters."""
        sides = np.ones(3) * np.asarray(size, float)
        self.add("sphere", (np.eye(4) if within is None else within) @ place(at, sides), paint, label)

    def turned(self, profile: Sequence[tuple[float, float]], at: Vector, paint: Paint, label: int = 0) -> None:
        """(radius, y) pairs turned round the vertical."""
        columns = 41 if np.linalg.norm(np.asarray(at, float) - self.camera.eye) < 3 else 21
        self.add(self.mesh(shapes.lathe(np.array(profile, float), columns)), place(at), paint, label)


def seamless(rng: np.random.Generator, octaves: int, gain: float, cells: int) -> F32:
    """Noise in [0, 1], 1024 wide, that goes on without a seam: it is mirrored."""
    quarter = fractal(rng, 512, octaves, gain, cells)
    return np.asarray(np.block([[quarter, quarter[:, ::-1]], [quarter[::-1], quarter[::-1, ::-1]]]), np.float32)


def fine_sphere() -> F32:
    """A sphere of diameter 1 whose outline shows no corners."""

    def function(u: F64, v: F64) -> F64:
        a, b = 2 * np.pi * u, np.pi * v
        return 0.5 * np.stack([np.sin(b) * np.sin(a), -np.cos(b), np.sin(b) * np.cos(a)], -1)

    mesh = shapes.surface(function, 33, 21)
    mesh[:, 3:6] = mesh[:, :3] / np.linalg.norm(mesh[:, :3], axis=1, keepdims=True)
    return mesh


def place(at: Vector, size: Vector = (1, 1, 1), turn: float = 0.0, rotation: F64 | None = None) -> F64:
    """Scale, then `rotation`, then turn about y (radians), then move: a 4×4 matrix."""
    matrix = np.eye(4)
    turned = about("y", turn)[:3, :3]
    matrix[:3, :3] = (turned if rotation is None else turned @ rotation) * np.asarray(size, float)
    matrix[:3, 3] = at
    return matrix


def about(axis: str, angle: float) -> F64:
    """A rotation about x, y or z."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(4)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def upright_to(axis: F64) -> F64:
    """A rotation that takes y to the unit vector `axis`."""
    x = np.cross(axis, [0.31, 0.11, 0.94])
    x /= np.linalg.norm(x)
    return np.stack([x, axis, np.cross(x, axis)], 1)
