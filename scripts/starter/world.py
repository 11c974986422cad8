"""The parts of scenes: a stock of meshes, textures and furniture to draw from, and the scene itself.

Units are metres, y is up. Colours of paints are linear, textures are sRGB.
Invariant: everything random comes from the one generator of the stock, so a seed gives the same pictures again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import shapes
import textures
from assets import F32, SCANNED, U8, Assets, Model
from numpy.random import Generator
from textures import F64

T = TypeVar("T")
Vector = Sequence[float] | F64
WHITE = "white"
OUTDOOR_PANORAMAS = (
    "adams_place",
    "aristea",
    "chinese_garden",
    "city",
    "dawn",
    "forest",
    "hilly",
    "kloppenheim",
    "modern_buildings",
    "narrow_moonlit",
    "night",
    "noon_grass",
    "park",
    "phalzer",
    "rainforest",
    "sky",
    "st_peters",
    "sunrise",
    "sunset",
    "venice",
)
"""How the names of panoramas begin that show the open air."""
PEOPLE_HEIGHT = 1.35
"""Characters of the furniture libraries at least this high stand."""


@dataclass(frozen=True)
class Paint:
    """How a surface looks. `repeat`: texture copies a metre (unscaled mesh unit), laid on from three sides, or None
    for the mesh's own texture coordinates. `bump`: how strongly the texture's brightness tilts the surface."""

    texture: str = WHITE
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    specular: float = 0.05
    shininess: float = 20.0
    emission: float = 0.0
    repeat: tuple[float, float, float] | None = None
    bump: float = 0.0


@dataclass(frozen=True)
class Item:
    """A mesh of the stock in its place: `matrix` is 4×4."""

    mesh: str
    matrix: F64
    paint: Paint
    casts_shadow: bool = True


@dataclass
class Scene:
    """Items and the ways to look at them."""

    items: list[Item] = field(default_factory=list)
    cameras: list[tuple[F64, F64]] = field(default_factory=list)
    """(eye, target) pairs."""
    field_of_view: tuple[float, float] = (36.0, 60.0)
    """Vertical, in degrees, to draw from."""
    outdoors: bool = False
    lamps: list[F64] = field(default_factory=list)
    far: float = 100.0
    weather: str = "any"

    def add(self, mesh: str, matrix: F64, paint: Paint, *, casts_shadow: bool = True) -> None:
        """Put one mesh in its place."""
        self.items.append(Item(mesh, matrix, paint, casts_shadow))

    def slab(self, centre: Vector, size: Vector, paint: Paint, *, turn: float = 0.0, casts_shadow: bool = True) -> None:
        """A box of this size in metres; the paint's `repeat` (default once a metre) counts copies a metre."""
        repeat = paint.repeat or (1.0, 1.0, 1.0)
        scaled = tuple(r * s for r, s in zip(repeat, size, strict=True))
        laid = Paint(paint.texture, paint.colour, paint.specular, paint.shininess, paint.emission, scaled, paint.bump)  # type: ignore[arg-type]
        self.add("box", place(centre, size, turn), laid, casts_shadow=casts_shadow)

    def rod(self, start: Vector, end: Vector, thickness: float, paint: Paint) -> None:
        """A thin cylinder between two points: poles, wires, legs, spokes."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        axis = b - a
        length = float(np.linalg.norm(axis)) + 1e-9
        matrix = place((a + b) / 2, (thickness, length, thickness), rotation=upright_to(axis / length))
        self.add("cylinder", matrix, paint)

    def camera(self, eye: Vector, target: Vector) -> None:
        """Add a way to look."""
        self.cameras.append((np.asarray(eye, float), np.asarray(target, float)))


def place(at: Vector, size: Vector = (1, 1, 1), turn: float = 0.0, rotation: F64 | None = None) -> F64:
    """Scale, then `rotation`, then turn about y, then move: a 4×4 matrix."""
    c, s = np.cos(turn), np.sin(turn)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    matrix = np.eye(4)
    matrix[:3, :3] = (about_y if rotation is None else about_y @ rotation) * np.asarray(size, float)
    matrix[:3, 3] = at
    return matrix


def upright_to(axis: F64) -> F64:
    """A rotation that takes y to the unit vector `axis`."""
    x = np.cross(axis, [0.31, 0.11, 0.94])
    x /= np.linalg.norm(x)
    return np.stack([x, axis, np.cross(x, axis)], 1)


class Stock:
    """Everything a worker's scenes choose from."""

    def __init__(self, assets: Assets, seed: int) -> None:
        self.rng: Generator = np.random.default_rng(seed)
        self.assets = assets
        self.meshes: dict[str, F32] = {}
        self.textures: dict[str, U8] = dict(assets.textures)
        self._models: dict[str, tuple[Model, list[str]]] = {}
        self._make_meshes()
        self._make_textures()
        self._sort_furniture()

    def uniform(self, low: float, high: float) -> float:
        """A number between."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True this often."""
        return bool(self.rng.random() < probability)

    def count(self, low: int, high: int) -> int:
        """A whole number from `low` up to and without `high`."""
        return int(self.rng.integers(low, high))

    def pick(self, choices: Sequence[T]) -> T:
        """One of these."""
        return choices[int(self.rng.integers(len(choices)))]

    def angle(self) -> float:
        """Any direction, in radians."""
        return self.uniform(0, 2 * np.pi)

    def colour(self, low: float = 0.05, high: float = 0.95, saturation: float = 0.5) -> tuple[float, float, float]:
        """A random colour."""
        r, g, b = textures.colour(self.rng, low, high, saturation)
        return float(r), float(g), float(b)

    def tint(self) -> tuple[float, float, float]:
        """A factor for each channel that leaves the texture recognisable."""
        r, g, b = self.rng.uniform(0.4, 1, 3)
        return float(r), float(g), float(b)

    def pattern(self, low: float = 0.4, high: float = 1.6, specular: float = 0.3) -> Paint:
        """A patterned surface, repeated `low` to `high` times a metre."""
        repeat = self.uniform(low, high)
        bump = self.uniform(0, 1) if self.chance(0.5) else 0.0
        colour = self.tint() if self.chance(0.4) else (1.0, 1.0, 1.0)
        gloss = self.uniform(0, specular)
        return Paint(self.pick(self.patterns), colour, gloss, self.uniform(5, 60), 0.0, (repeat,) * 3, bump)

    def plain(self, low: float = 0.05, high: float = 1.0, saturation: float = 0.4, specular: float = 0.3) -> Paint:
        """One colour."""
        return Paint(WHITE, self.colour(low, high, saturation), self.uniform(0, specular), self.uniform(5, 60))

    def surface(self) -> Paint:
        """Anything: patterned or plain."""
        return self.pattern() if self.chance(0.6) else self.plain()

    def picture(self, emission: float = 0.0) -> Paint:
        """A picture for a frame or a screen, stretched over the mesh: earlier renders, furniture textures, patterns."""
        names = self.renders if self.renders and self.chance(0.6) else self.photos
        return Paint(self.pick(names), (1, 1, 1), self.uniform(0, 0.4), 40.0, emission)

    def model(self, scene: Scene, model: Model, at: Vector, turn: float = 0.0, scale: float | Vector = 1.0) -> None:
        """Stand a piece of furniture in the scene; now and then in other colours."""
        size = np.ones(3) * np.asarray(scale, float)
        tint = self.rng.uniform(0.5, 1.4, 3) if self.chance(0.5) else np.ones(3)
        covered = self.pattern() if self.chance(0.1) else None
        matrix = place(at, size, turn)
        for number, part in enumerate(model.parts):
            material = part.material
            if material.opacity < 0.5:
                continue
            key = f"model/{id(model)}/{number}"
            self.meshes.setdefault(key, part.vertices)
            base = np.ones(3) if material.texture else np.asarray(material.diffuse) ** 2.2 + 0.01
            r, g, b = np.clip(base * tint, 0, 1)
            paint = Paint(material.texture or WHITE, (r, g, b), min(material.specular, 0.6), self.uniform(8, 60))
            scene.add(key, matrix, covered if covered and not material.texture else paint)

    def irradiance(self, panorama: str) -> F64:
        """9×3 factors of the shader's polynomial in the normal: the panorama's light on a surface, over π.

        Spherical harmonics of order 2, each band weighted as a cosine lobe weights it.
        """
        if panorama not in self._irradiance:
            picture = self.assets.panoramas[panorama].astype(float)
            height, width = picture.shape[:2]
            latitude = ((np.arange(height) + 0.5) / height - 0.5)[:, None] * np.pi
            longitude = ((np.arange(width) + 0.5) / width)[None] * 2 * np.pi
            x, y, z = np.cos(latitude) * np.cos(longitude), np.sin(latitude), np.cos(latitude) * np.sin(longitude)
            y = np.broadcast_to(y, x.shape)
            solid = np.broadcast_to(np.cos(latitude) * (np.pi / height) * (2 * np.pi / width), x.shape)
            flat = (0.282095, 0.488603, 0.488603, 0.488603, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274)
            lobe = (1, *(2 / 3,) * 3, *(1 / 4,) * 5)
            shape = (np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
            rows = [
                (picture * (k * k * a * s * solid)[..., None]).sum((0, 1))
                for k, a, s in zip(flat, lobe, shape, strict=True)
            ]
            self._irradiance[panorama] = np.array(rows)
        return self._irradiance[panorama]

    def fresh_mesh(self, kind: str, vertices: F32) -> str:
        """Name a mesh made for one scene; `forget_fresh` drops it again."""
        key = f"fresh/{kind}/{len(self.meshes)}"
        self.meshes[key] = vertices
        return key

    def forget_fresh(self) -> list[str]:
        """Drop the meshes and textures made for one scene; their names."""
        names = [key for key in (*self.meshes, *self.textures) if key.startswith("fresh/")]
        for name in names:
            self.meshes.pop(name, None)
            self.textures.pop(name, None)
        return names

    def keep_render(self, rgb: U8) -> None:
        """Remember a finished picture as a poster."""
        name = f"render/{len(self.renders)}"
        self.textures[name] = textures.opaque(np.ascontiguousarray(rgb[::-1]) / 255.0)
        self.renders.append(name)

    def restart(self, seed: int) -> list[str]:
        """Begin a series of scenes: seed the generator, drop the posters; their names."""
        self.rng = np.random.default_rng(seed)
        names, self.renders = self.renders, []
        for name in names:
            del self.textures[name]
        return names

    def _make_meshes(self) -> None:
        fixed: dict[str, Callable[[], F32]] = {
            "box": shapes.box,
            "card": shapes.card,
            "sphere": shapes.sphere,
            "cylinder": shapes.cylinder,
            "cone": shapes.cone,
            "ring": shapes.ring,
            "hoop": lambda: shapes.ring(0.012),
        }
        self.meshes |= {name: make() for name, make in fixed.items()}
        drawn: dict[str, tuple[Callable[[Generator], F32], int]] = {
            "blob": (shapes.blob, 30),
            "vase": (shapes.vase, 20),
            "crown": (shapes.crown, 20),
            "head": (shapes.head, 16),
            "hand": (shapes.hand, 16),
            "torso": (shapes.torso, 8),
        }
        self.kinds: dict[str, list[str]] = {}
        for name, (make_from, count) in drawn.items():
            self.kinds[name] = [f"{name}/{number}" for number in range(count)]
            self.meshes |= {key: make_from(self.rng) for key in self.kinds[name]}
        self.solids = ["box", "box", "cylinder", "sphere", "cone", *self.kinds["blob"][:3], *self.kinds["vase"][:4]]

    def _make_textures(self) -> None:
        self.textures[WHITE] = np.full((2, 2, 4), 255, np.uint8)

        def make(name: str, count: int, function: Callable[[Generator], U8]) -> list[str]:
            keys = [f"{name}/{number}" for number in range(count)]
            self.textures.update({key: function(self.rng) for key in keys})
            return keys

        self.photos = [
            key
            for key, value in self.assets.textures.items()
            if min(value.shape[:2]) >= 64 and value[..., 3].min() > 250
        ]
        self.patterns = make("pattern", 140, textures.pattern) + self.photos[:: max(1, len(self.photos) // 20)]
        self.grounds = [
            key
            for kind, count in (("noise", 12), ("carpet", 6), ("blotch", 2), ("tiles", 3))
            for key in make(f"ground/{kind}", count, lambda rng, k=kind: textures.pattern(rng, k))  # type: ignore[misc]
        ]
        self.fronts = make("front", 24, textures.front)
        self.leaves = make("leaves", 12, textures.leaves)
        self.blades = make("blades", 6, textures.blades)
        self.clouds = make("clouds", 8, textures.clouds)
        self.renders: list[str] = []

    def _sort_furniture(self) -> None:
        self._irradiance: dict[str, F64] = {}
        self.open_air = [name for name in self.assets.panoramas if name.startswith(OUTDOOR_PANORAMAS)]
        self.indoor_light = [name for name in self.assets.panoramas if name not in self.open_air]
        self.scanned = self.assets.of(SCANNED)
        of = self.assets.of
        indoor = of("Living room", "Kitchen", "Bedroom", "Bathroom", "Office", "Lights", "Miscellaneous")
        indoor = [m for m in indoor if not m.in_wall]
        flat = ("crossing", "Arrow", "Parking", "Rails", "sidewalk")
        exterior = [m for m in of("Exterior") if not any(word in m.name for word in flat) and m.size[1] < 15]
        trees = ("maple", "beech", "pine", "Pine", "Palm", "Poplar", "Cypress", "Acacia", "Coconut", "Peach", "Bush")
        self.trees = [m for m in exterior if any(word in m.name for word in trees) or "coconut" in m.name]
        self.exterior = [m for m in exterior if m not in self.trees]
        self.vehicles = of("Vehicles")
        self.bicycles = [m for m in self.vehicles if any(w in m.name for w in ("Bi", "bike", "cooter", "Yamaha"))]
        self.people = of("Characters")
        self.standing = [m for m in self.people if m.size[1] > PEOPLE_HEIGHT]
        self.doors = [m for m in of("Doors and windows") if m.size[1] > 1.7]
        self.windows = [m for m in of("Doors and windows") if 0.6 < m.size[1] <= 1.7]
        self.big = [m for m in indoor if 0.5 < m.size[0] < 4 and m.elevation < 0.3 and m.size[1] < 2.6]
        self.small = [m for m in indoor if max(m.size[0], m.size[2]) < 0.6 and m.size[1] < 0.7 and m.elevation < 2]
        self.hung = [m for m in indoor if 0.6 <= m.elevation < 2.2 and m.size[2] < 0.6]
        self.kitchen = [m for m in of("Kitchen", "Bathroom") if m in self.big and m.size[1] > 0.6]
        self.seats = [m for m in self.big if any(w in m.name.lower() for w in ("chair", "stool", "sofa", "bench"))]
        self.plants = [m for m in indoor if "plant" in m.name.lower() or "flower" in m.name.lower()]
        self.stairs = of("Staircases")
