"""What stands outdoors: houses, trees, cars, lamp posts, wires, fences, and land to the horizon."""

from itertools import pairwise

import numpy as np
import prints
import shapes
import textures
from furnish import IRON
from stage import F32, F64, U8, Paint, Stage, Vector, about, place, rgb, seamless

GLASS = Paint(colour=rgb("1a2128"), gloss=0.25, shininess=100.0)
TYRE = Paint(colour=rgb("17181a"))


def extruded(profile: F64, width: float) -> F32:
    """A closed outline of (z, y) points, counter-clockwise, drawn out along x, with sharp edges."""
    rows: list[F64] = []
    count = len(profile)
    for k in range(count):
        (z0, y0), (z1, y1) = profile[k], profile[(k + 1) % count]
        normal = np.array([0.0, z0 - z1, y1 - y0])
        normal /= np.linalg.norm(normal) + 1e-9
        corners = [(-width / 2, y0, z0), (width / 2, y0, z0), (width / 2, y1, z1), (-width / 2, y1, z1)]
        rows += [np.concatenate([corners[i], normal, [0.0, 0.0]]) for i in (0, 1, 2, 0, 2, 3)]
    middle = profile.mean(0)
    for side in (-1, 1):
        for k in range(count):
            for z, y in (middle, profile[k], profile[(k + 1) % count]):
                rows.append(np.array([side * width / 2, y, z, side, 0, 0, 0, 0.0]))
    return np.array(rows, np.float32)


def car(
    stage: Stage, at: Vector, turn: float, colour: str, *, scale: float = 1.0, label: int = 0, lit: bool = False
) -> None:
    """A car that looks along +z, 4.2 m long before `scale`."""
    frame = place(at, np.ones(3) * scale, turn)
    paint = Paint(colour=rgb(colour), gloss=0.18, shininess=90.0)
    body = np.array([(-2.05, 0.3), (2.05, 0.3), (2.1, 0.55), (2.0, 0.78), (1.05, 0.93), (-1.95, 0.95), (-2.1, 0.7)])
    cabin = np.array([(-1.75, 0.93), (1.0, 0.92), (0.35, 1.42), (-1.15, 1.45)])
    panes = np.array([(-1.62, 0.97), (0.86, 0.96), (0.3, 1.36), (-1.1, 1.39)])
    for outline, wide, colour_of, key in (
        (body, 1.76, paint, "car"),
        (cabin, 1.5, paint, "cabin"),
        (panes, 1.52, GLASS, "panes"),
    ):
        if key not in stage.meshes:
            stage.meshes[key] = extruded(outline, wide)
        stage.add(key, frame, colour_of, label or stage.label())
    if "screen" not in stage.meshes:
        stage.meshes["screen"] = extruded(np.array([(0.93, 0.98), (1.0, 0.98), (0.42, 1.38), (0.35, 1.38)]), 1.36)
        stage.meshes["back"] = extruded(np.array([(-1.78, 1.0), (-1.72, 1.0), (-1.18, 1.4), (-1.24, 1.4)]), 1.34)
    stage.add("screen", frame, GLASS, label or stage.label())
    stage.add("back", frame, GLASS, label or stage.label())
    for z in (-1.3, 1.3):
        for x in (-0.8, 0.8):
            wheel = frame @ place((x, 0.32, z), (0.64, 0.2, 0.64), rotation=about("z", np.pi / 2)[:3, :3])
            stage.add("cylinder", wheel, TYRE, label or stage.label())
            hub = frame @ place((x * 1.02, 0.32, z), (0.36, 0.2, 0.36), rotation=about("z", np.pi / 2)[:3, :3])
            stage.add("cylinder", hub, Paint(colour=rgb("a9adb2"), gloss=0.3), label or stage.label())
    for x in (-0.62, 0.62):
        front = Paint(colour=rgb("fff4d8"), glow=9.0 if lit else 0.3)
        stage.add("box", frame @ place((x, 0.68, 2.05), (0.34, 0.14, 0.08)), front, label or stage.label(), casts=0)
        back = Paint(colour=rgb("e0201a"), glow=7.0 if lit else 0.2)
        stage.add("box", frame @ place((x, 0.75, -2.05), (0.32, 0.14, 0.08)), back, label or stage.label(), casts=0)


def tree(stage: Stage, at: Vector, high: float, seed: int, tone: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    """A trunk, branches and a crown of leaves."""
    rng = np.random.default_rng(seed)
    foot = np.asarray(at, float)
    if "leaves" not in stage.textures:
        stage.textures["leaves"] = textures.leaves(np.random.default_rng(14), 96)
        for number in range(4):
            stage.meshes[f"crown{number}"] = shapes.crown(np.random.default_rng(number + 3))
    bark = Paint(colour=rgb("5a4634"), repeat=None)
    wood, leaf = stage.label(), stage.label()
    top = foot + [0, high * 0.5, 0]
    stage.limb(foot, top, high * 0.028, high * 0.018, bark, wood)
    for _ in range(6):
        way = rng.normal(0, 1, 3) * [1, 0.25, 1] + [0, 0.9, 0]
        way *= high * 0.3 / np.linalg.norm(way)
        stage.limb(top - [0, high * rng.uniform(0, 0.15), 0], top + way, high * 0.012, high * 0.005, bark, wood)
    for _ in range(9):
        centre = foot + [0, high * 0.68, 0] + rng.normal(0, 1, 3) * high * np.array([0.13, 0.1, 0.13])
        shade = rng.uniform(0.75, 1.2)
        paint = Paint(texture="leaves", colour=tuple(float(k * shade) for k in tone), through=0.45, gloss=0.0)
        stage.add(
            f"crown{int(rng.integers(4))}",
            place(centre, np.ones(3) * high * rng.uniform(0.26, 0.4), rng.uniform(0, 6.28)),
            paint,
            leaf,
        )


def lamp_post(stage: Stage, at: Vector, high: float, *, lit: bool = False, arm: float = 0.0) -> F64:
    """A street lamp; where its light is."""
    foot = np.asarray(at, float)
    label = stage.label(thin=True)
    stage.rod(foot, foot + [0, high, 0], 0.09, IRON, label)
    stage.rod(foot, foot + [0, 0.7, 0], 0.17, IRON, stage.label())
    light = foot + [arm, high, 0]
    if arm:
        stage.rod(foot + [0, high, 0], light, 0.06, IRON, label)
    glow = Paint(colour=rgb("ffdc9a"), glow=11.0 if lit else 0.4)
    stage.add("cone", place(light + [0, 0.38, 0], (0.46, 0.16, 0.46)), IRON)
    stage.turned([(0.0, 0.0), (0.1, 0.0), (0.17, 0.3), (0.0, 0.3)], light, glow)
    stage.items[-1] = stage.items[-1].__class__(**{**vars(stage.items[-1]), "casts": 0})
    return np.asarray(light + [0, 0.1, 0])


def wire(stage: Stage, start: Vector, end: Vector, thick: float = 0.02, sag: float = 0.3, steps: int = 12) -> None:
    """A wire that sags."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    t = np.linspace(0, 1, steps + 1)[:, None]
    points = a + (b - a) * t - np.array([0, 4 * sag, 0]) * t * (1 - t)
    label = stage.label(thin=True)
    for p, q in pairwise(points):
        stage.rod(p, q, thick, IRON, label)


def house(
    stage: Stage,
    side: int,
    x: float,
    z: float,
    wide: float,
    high: float,
    seed: int,
    *,
    plane: bool,
    lit: float = 0.0,
    deep: float = 9.0,
) -> None:
    """A house in a row: its front looks at the street, which runs along z; `side` is −1 for the left."""
    kind = seed % 9
    floors, bays = 3 + seed % 3, 3 + (seed // 2) % 3
    key = f"front{kind}:{floors}:{bays}:{lit}"
    if key not in stage.textures:
        wall, glow = prints.front(kind, floors, bays, lit=lit)
        stage.textures[key] = wall
        glow[..., 3] = np.where(glow[..., :3].max(-1) > 20, 255, 0)
        stage.textures[f"{key}:glow"] = glow
    centre = side * (x + deep / 2)
    stage.slab((centre, high / 2, z - wide / 2), (deep, high, wide), Paint(texture=key, printed=True), plane=plane)
    if lit:
        stage.slab(
            (side * (x - 0.012), high / 2, z - wide / 2),
            (0.004, high, wide),
            Paint(texture=f"{key}:glow", glow=2.4, printed=True),
            casts=0,
        )
    roof = Paint(colour=rgb(("7a4030", "5b4a44", "6d3a2c", "4c4f55")[seed % 4]))
    name = f"roof{wide:.1f}:{high:.1f}"
    if name not in stage.meshes:
        tall = 2.2 + seed % 2
        outline = np.array([(-deep / 2 - 0.3, 0.0), (deep / 2 + 0.3, 0.0), (0.0, tall)])
        stage.meshes[name] = extruded(outline, wide)
    stage.add(name, place((centre, high, z - wide / 2), turn=np.pi / 2), roof)
    stage.slab((centre, high + 0.06, z - wide / 2), (deep + 0.7, 0.22, wide), Paint(colour=rgb("d8d0c0")))
    if seed % 3 == 0:
        for floor in range(1, floors):
            y = high * (floor + 0.2) / floors
            stage.slab((side * (x - 0.45), y, z - wide / 2), (0.9, 0.1, wide * 0.3), Paint(colour=rgb("c9c2b4")))
            rail = stage.label(thin=True)
            for k in np.linspace(-0.15, 0.15, 9):
                stage.rod(
                    (side * (x - 0.87), y, z - wide * (0.5 - k)),
                    (side * (x - 0.87), y + 0.9, z - wide * (0.5 - k)),
                    0.025,
                    IRON,
                    rail,
                )
            stage.rod(
                (side * (x - 0.87), y + 0.9, z - wide * 0.35),
                (side * (x - 0.87), y + 0.9, z - wide * 0.65),
                0.04,
                IRON,
                rail,
            )
    chimney = side * (x + deep * 0.3)
    stage.slab((chimney, high + 2.2, z - wide * 0.3), (0.7, 2.0, 0.9), Paint(colour=rgb("8a4b38")))


def fence(stage: Stage, start: Vector, end: Vector, posts: int, high: float, wood: Paint) -> None:
    """Posts with two rails."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    feet = [a + (b - a) * t for t in np.linspace(0, 1, posts)]
    rng = np.random.default_rng(3)
    for foot in feet:
        lean = rng.normal(0, 0.03, 3) * [1, 0, 1]
        stage.rod(foot - [0, 0.3, 0], foot + [0, high, 0] + lean, 0.085, wood, stage.label(thin=True))
    for level in (0.45, 0.88):
        label = stage.label(thin=True)
        for p, q in pairwise(feet):
            up = np.array([0, high * level, 0])
            stage.rod(p + up + rng.normal(0, 0.015, 3), q + up + rng.normal(0, 0.015, 3), 0.055, wood, label)


class Land:
    """Mountains all round, as a mesh in rings round the camera that grow with distance."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._broad, self._fine = seamless(rng, 8, 0.42, 2), seamless(rng, 8, 0.5, 4)

    def _noise(self, field: F32, x: F64, y: F64) -> F64:
        side = field.shape[0]
        u, v = x * side, y * side
        i, j = np.floor(u).astype(int), np.floor(v).astype(int)
        a, b = u - i, v - j
        i0, i1, j0, j1 = i % side, (i + 1) % side, j % side, (j + 1) % side
        low = field[j0, i0] * (1 - a) + field[j0, i1] * a
        high = field[j1, i0] * (1 - a) + field[j1, i1] * a
        return np.asarray(low * (1 - b) + high * b)

    def height(self, x: F64, z: F64) -> F64:
        """Metres above the camera's meadow."""
        r = np.hypot(x, z)
        broad = 1 - np.abs(2 * self._noise(self._broad, x / 26000 + 0.13, z / 26000 + 0.41) - 1)
        mid = 1 - np.abs(2 * self._noise(self._fine, x / 9000, z / 9000) - 1)
        fine = self._noise(self._fine, x / 2600, z / 2600) - 0.5
        peaks = broad**1.6 * 2100 + (mid - 0.5) * 620 * (0.3 + broad) + fine * 150
        far = np.clip((r - 1500) / 9000, 0, 1)
        valley = -420 * np.clip((r - 60) / 900, 0, 1) ** 0.8
        near = 2.2 * (self._noise(self._fine, x / 160, z / 160) - 0.5) * np.clip(r / 12, 0, 1) + 26 * (
            self._noise(self._broad, x / 900, z / 900) - 0.5
        ) * np.clip((r - 20) / 200, 0, 1)
        foothills = 700 * np.clip((r - 500) / 2500, 0, 1) * (self._noise(self._fine, x / 5200 + 0.3, z / 5200) - 0.42)
        return np.asarray(near + valley + foothills + far * (peaks - 250))

    def mesh(self, half_angle: float, rings: int = 760, rays: int = 420, far: float = 30000.0) -> tuple[F32, U8]:
        """The mesh towards −z, and its texture."""

        def position(u: F64, v: F64) -> tuple[F64, F64]:
            angle, r = (2 * u - 1) * half_angle, 1.2 * (far / 1.2) ** (v**0.6)
            return r * np.sin(angle), -r * np.cos(angle)

        def function(u: F64, v: F64) -> F64:
            x, z = position(u, v)
            return np.stack([x, self.height(x, z), z], -1)

        mesh = shapes.surface(function, rays, rings)
        mesh[mesh[:, 4] < 0, 3:6] *= -1
        side = 2048
        u, v = np.meshgrid((np.arange(side) + 0.5) / side, (np.arange(side) + 0.5) / side)
        x, z = position(u, v)
        r, y = np.hypot(x, z), self.height(x, z)
        step = np.maximum(r * 0.004, 0.05)
        slope = np.hypot(self.height(x + step, z) - y, self.height(x, z + step) - y) / step
        nearness = np.clip(2 - r / 200, 0, 1)
        speck = self._noise(self._fine, x / 1500, z / 1500)
        speck = speck + (self._noise(self._fine, x / 45, z / 45) - speck) * nearness
        mottle = self._noise(self._fine, x / 280, z / 280)
        mottle = mottle + (self._noise(self._fine, x / 6, z / 6) - mottle) * nearness
        colours = {
            k: np.array([int(t[i : i + 2], 16) / 255 for i in (0, 2, 4)])
            for k, t in {
                "grass": "557a30",
                "dry": "84874a",
                "wood": "2f4a2a",
                "rock": "7d766c",
                "snow": "f4f7fb",
            }.items()
        }
        picture = colours["grass"] + (colours["dry"] - colours["grass"]) * (speck[..., None] * 1.4 - 0.2).clip(0, 1)

        def over(share: F64, name: str) -> None:
            nonlocal picture
            picture = picture + (colours[name] - picture) * np.clip(share, 0, 1)[..., None]

        over((speck - 0.42) * 9 * (r > 250) * (y < 420), "wood")
        over((slope - 0.55) * 4 * (r > 300) + (y - 520) / 160 * (r > 800), "rock")
        over(((y - 760) / 120 + (speck - 0.5) * 3 - (slope - 0.8) * 1.6) * (r > 1500), "snow")
        picture = picture * (0.8 + 0.4 * mottle)[..., None]
        return mesh, textures.opaque(picture)
