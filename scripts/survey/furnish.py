"""Furniture and small things that several scenes share."""

import numpy as np
import shapes
from stage import F64, Paint, Stage, Vector, about, place, rgb

WOOD = Paint(colour=rgb("6b4226"), gloss=0.04, shininess=25.0)
BRASS = Paint(colour=rgb("b98a3a"), gloss=0.35, shininess=60.0)
IRON = Paint(colour=rgb("26282b"), gloss=0.12, shininess=40.0)
WHITE = Paint(colour=rgb("f2eee6"), gloss=0.06, shininess=40.0)


def chair(stage: Stage, at: Vector, turn: float, wood: Paint = WOOD) -> None:
    """A chair whose back has slats; it looks along +z."""
    frame = place(at, turn=turn)
    for x, z in ((-0.19, -0.19), (0.19, -0.19), (-0.19, 0.19), (0.19, 0.19)):
        top = 0.95 if z < 0 else 0.45
        rod_in(stage, frame, (x, 0, z), (x, top, z - (0.05 if z < 0 else 0)), 0.034, wood, stage.label(thin=True))
    stage.slab((0, 0.455, 0), (0.43, 0.03, 0.43), wood, within=frame)
    for y in (0.62, 0.74, 0.9):
        stage.slab((0, y, -0.225), (0.38, 0.05, 0.018), wood, within=frame, label=stage.label(thin=True))


def rod_in(
    stage: Stage, frame: F64, start: Vector, end: Vector, thickness: float, paint: Paint, label: int = 0
) -> None:
    """A rod in a frame of its own."""
    stage.rod((frame @ [*start, 1.0])[:3], (frame @ [*end, 1.0])[:3], thickness, paint, label)


def table(stage: Stage, at: Vector, size: Vector, cloth: Paint | None, wood: Paint = WOOD, high: float = 0.74) -> None:
    """A table; a cloth hangs over its edges."""
    x, _, z = at
    wide, deep = size
    top = cloth or wood
    stage.slab((x, high - 0.015, z), (wide, 0.03, deep), top, plane=True)
    if cloth:
        for dx, dz, w, d in (
            (0, deep / 2, wide, 0.006),
            (0, -deep / 2, wide, 0.006),
            (wide / 2, 0, 0.006, deep),
            (-wide / 2, 0, 0.006, deep),
        ):
            stage.slab((x + dx, high - 0.14, z + dz), (w + 0.006, 0.25, d), cloth)
    for sx in (-1, 1):
        for sz in (-1, 1):
            foot = (x + sx * (wide / 2 - 0.07), 0, z + sz * (deep / 2 - 0.07))
            stage.rod(foot, (foot[0], high - 0.02, foot[2]), 0.05, wood)


def bottle(stage: Stage, at: Vector, high: float, paint: Paint, label: int = 0, print_: Paint | None = None) -> None:
    """A bottle, with a printed label round it if given."""
    h = high
    profile = [
        (0.0, 0.0),
        (0.13, 0.0),
        (0.13, 0.02),
        (0.13, 0.6),
        (0.11, 0.68),
        (0.05, 0.76),
        (0.045, 0.95),
        (0.055, 0.95),
        (0.055, 1.0),
        (0.0, 1.0),
    ]
    stage.turned([(r * h, y * h) for r, y in profile], at, paint, label)
    if print_:
        mesh = shapes.lathe(np.array([(0.132 * h, 0.2 * h), (0.132 * h, 0.48 * h)]), 33)
        stage.add(stage.mesh(mesh), place(at), print_, label)


def glass(stage: Stage, at: Vector, high: float, paint: Paint, label: int = 0) -> None:
    """A stemmed glass, filled."""
    h = high
    profile = [
        (0.0, 0.0),
        (0.2, 0.0),
        (0.2, 0.015),
        (0.03, 0.05),
        (0.025, 0.42),
        (0.12, 0.5),
        (0.21, 0.66),
        (0.2, 0.85),
        (0.0, 0.86),
    ]
    stage.turned([(r * h, y * h) for r, y in profile], at, paint, label)


def cup(stage: Stage, at: Vector, high: float, paint: Paint, label: int = 0) -> None:
    """A cup with a handle."""
    h = high
    profile = [(0.0, 0.0), (0.28, 0.0), (0.3, 0.03), (0.42, 0.5), (0.44, 1.0), (0.40, 1.0), (0.37, 0.5), (0.0, 0.3)]
    stage.turned([(r * h, y * h) for r, y in profile], at, paint, label)
    handle = place(np.asarray(at, float) + [0.5 * h, 0.52 * h, 0], np.array([0.55, 0.6, 1.2]) * h)
    stage.add("ring", handle, paint, label)


def plate(stage: Stage, at: Vector, wide: float, paint: Paint, label: int = 0) -> None:
    """A plate."""
    r = wide / 2
    stage.turned(
        [(0, 0), (0.6 * r, 0), (r, 0.12 * r), (0.97 * r, 0.15 * r), (0.6 * r, 0.05 * r), (0, 0.05 * r)],
        at,
        paint,
        label,
    )


def pendant(stage: Stage, at: Vector, ceiling: float, shade: Paint, wide: float = 0.36) -> None:
    """A lamp that hangs from the ceiling by a thin cord; its bulb is at `at`."""
    x, y, z = at
    stage.rod((x, y + 0.16, z), (x, ceiling, z), 0.012, IRON, stage.label(thin=True))
    cone = [(wide / 2, -0.02), (wide * 0.16, 0.17), (0.02, 0.2)]
    stage.turned(cone, at, shade)
    stage.ball((x, y + 0.02, z), 0.09, Paint(colour=rgb("ffe3b0"), glow=9.0))


def pot_plant(stage: Stage, at: Vector, high: float, leaf: str, pot: Paint) -> None:
    """Leaves on stems in a pot."""
    r = high * 0.2
    stage.turned([(0, 0), (0.7 * r, 0), (r, 1.6 * r), (1.06 * r, 1.6 * r), (1.06 * r, 1.8 * r), (0, 1.7 * r)], at, pot)
    label = stage.label()
    for number in range(26):
        angle, lean = number * 2.4, 0.25 + 0.6 * ((number * 0.618) % 1)
        long = high * (0.5 + 0.35 * ((number * 0.37) % 1))
        green = Paint(colour=tuple(c * (0.7 + 0.5 * ((number * 0.71) % 1)) for c in rgb(leaf)), gloss=0.06, through=0.4)
        turn = place(np.asarray(at, float) + [0, 1.6 * r, 0]) @ about("y", angle) @ about("x", lean)
        name = "leaf"
        if name not in stage.meshes:
            stage.meshes[name] = shapes.surface(_leaf, 7, 17)
        stage.add(name, turn @ place((0, 0, 0), (long * 0.5, long, long)), green, label)


def _leaf(u: F64, v: F64) -> F64:
    half = 0.16 * np.sin(np.pi * np.clip(v, 0.0, 1.0) ** 0.8) * np.where(v < 0.25, 0.25 + 3 * v, 1)
    x = 2 * u - 1
    return np.stack([x * half, v * np.cos(0.7 * v), v * np.sin(0.9 * v) * 0.6 + 0.2 * half * np.abs(x)], -1)
