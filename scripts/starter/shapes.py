"""Meshes made of formulas: float32 (3·triangles)×8, position, normal, texture coordinate; y is up, units are metres.

Invariant: a mesh is never changed after it was made; scenes scale it by the matrix they place it with.
"""

from collections.abc import Callable

import numpy as np
from assets import F32
from numpy.random import Generator
from textures import F64, fractal

Surface = Callable[[F64, F64], F64]
"""(u, v) in [0, 1], H×W each → H×W×3 points."""


def surface(function: Surface, columns: int = 25, rows: int | None = None) -> F32:
    """Triangles of a parametric surface with smooth normals."""
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows or columns))
    points = function(u, v)
    normals = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
    grid = np.concatenate([points, normals, np.stack([u, v], -1)], -1)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    return np.stack([a, b, c, a, c, d], 2).reshape(-1, 8).astype(np.float32)


def _quad(corners: F64, normal: F64) -> list[F64]:
    texcoord = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)
    return [np.concatenate([corners[i], normal, texcoord[i]]) for i in (0, 1, 2, 0, 2, 3)]


def box() -> F32:
    """The unit cube around the origin; each face shows the whole texture upright."""
    rows: list[F64] = []
    for axis, sign in ((a, s) for a in range(3) for s in (-1, 1)):
        normal = np.zeros(3)
        normal[axis] = sign
        up = np.array([0, 0, 1.0]) if axis == 1 else np.array([0, 1.0, 0])
        right = np.cross(up, normal)
        corners = [normal + right * x + up * y for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        rows += _quad(np.array(corners) / 2, normal)
    return np.array(rows, np.float32)


def card() -> F32:
    """A unit square that stands on y = 0 and faces z."""
    corners = np.array([(-0.5, 0, 0), (0.5, 0, 0), (0.5, 1, 0), (-0.5, 1, 0)])
    return np.array(_quad(corners, np.array([0, 0, 1.0])), np.float32)


def _round(radius: F64, y: F64, u: F64) -> F64:
    angle = 2 * np.pi * u
    return np.stack([radius * np.sin(angle), y, radius * np.cos(angle)], -1)


def sphere() -> F32:
    """Diameter 1; v goes from the bottom to the top, u = 0.5 faces −z."""
    return surface(lambda u, v: _round(0.5 * np.sin(np.pi * v), -0.5 * np.cos(np.pi * v), u))


def cylinder() -> F32:
    """Diameter 1, height 1, round the y axis, closed."""
    profile = np.array([(0, -0.5), (0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (0.5, 0.5), (0, 0.5)])
    return lathe(profile)


def cone() -> F32:
    """Diameter 1 at the bottom, height 1, round the y axis."""
    return lathe(np.array([(0, -0.5), (0.5, -0.5), (0.5, -0.5), (0.001, 0.5)]))


def lathe(profile: F64, columns: int = 21) -> F32:
    """Turn (radius, y) pairs, bottom first, round the y axis."""
    rows = len(profile)

    def function(u: F64, v: F64) -> F64:
        at = v * (rows - 1)
        return _round(np.interp(at, np.arange(rows), profile[:, 0]), np.interp(at, np.arange(rows), profile[:, 1]), u)

    return surface(function, columns, rows)


def vase(rng: Generator) -> F32:
    """A bottle, a bowl or a lamp: a random smooth profile, height 1."""
    y = np.linspace(0, 1, 14)
    bend = rng.uniform(0, 6.28, 3)
    radius = 0.25 + 0.1 * sum(np.sin(y * k * 2 + b) for k, b in zip((1, 2, 3), bend, strict=True))
    return lathe(np.stack([np.concatenate([[0], np.clip(radius, 0.04, 0.5)]), np.concatenate([[0], y])], -1))


def blob(rng: Generator) -> F32:
    """A stone, a bush, a cushion: a sphere of diameter about 1 with waves on it."""
    phase, count, height = rng.uniform(0, 6.28, 3), rng.integers(1, 5, 4), rng.uniform(0.03, 0.15)

    def function(u: F64, v: F64) -> F64:
        angle, belt = 2 * np.pi * u, np.sin(np.pi * v)
        waves = np.sin(count[0] * angle + phase[0]) * belt + np.sin(count[1] * np.pi * v + phase[1])
        waves = waves + np.sin(count[2] * angle + count[3] * np.pi * v + phase[2]) * belt
        radius = 0.5 * (1 + height * waves)
        return _round(radius * belt, -radius * np.cos(np.pi * v), u)

    return surface(function, 27)


def ring(thickness: float = 0.03, columns: int = 33) -> F32:
    """A torus of diameter 1 in the x-y plane: a wheel's rim, a hoop."""

    def function(u: F64, v: F64) -> F64:
        a, b = 2 * np.pi * u, 2 * np.pi * v
        radius = 0.5 + thickness * np.cos(b)
        return np.stack([radius * np.cos(a), radius * np.sin(a), thickness * np.sin(b)], -1)

    return surface(function, columns, 9)


def crown(rng: Generator) -> F32:
    """A tree's foliage within diameter about 1: leaf cards with normals that point outwards."""
    rows: list[F64] = []
    for centre in rng.normal(0, 0.28, (int(rng.integers(60, 140)), 3)):
        axes, _ = np.linalg.qr(rng.normal(0, 1, (3, 3)))
        half = rng.uniform(0.08, 0.2)
        corners = [centre + half * (axes[0] * x + axes[1] * y) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        normal = centre / (np.linalg.norm(centre) + 1e-6) * 0.8 + axes[2] * 0.2
        rows += _quad(np.array(corners), normal)
    return np.array(rows, np.float32)


def terrain(rng: Generator, height: float, flat_radius: float, extent: float = 400.0) -> F32:
    """Ground of `extent` metres that rises by up to `height` outside `flat_radius` metres from the middle."""
    side = 64
    x = np.linspace(-0.5, 0.5, side) * extent
    distance = np.hypot(*np.meshgrid(x, x))
    rise = np.clip((distance - flat_radius) / (0.5 * extent), 0, 1) ** 1.3
    hills = (fractal(rng, side, 5, 0.5, 3) - 0.3) * height * rise

    def function(u: F64, v: F64) -> F64:
        return np.stack([(u - 0.5) * extent, hills - 0.03, (0.5 - v) * extent], -1)

    return surface(function, side)


def head(rng: Generator) -> F32:
    """A head 1 high with a nose, eye sockets, lips and a chin; the face looks along −z, where u = 0.5.

    Proportions are those of drawing textbooks: eyes at half the height, the nose's foot a quarter above the chin.
    """
    jaw, crown_width, nose = rng.uniform(0.72, 0.95), rng.uniform(0.95, 1.1), rng.uniform(0.05, 0.1)
    hair = rng.uniform(0, 0.06) if rng.random() < 0.8 else 0.0

    def bump(u: F64, v: F64, at: tuple[float, float], size: tuple[float, float]) -> F64:
        return np.asarray(np.exp(-(((u - at[0]) / size[0]) ** 2) - ((v - at[1]) / size[1]) ** 2))

    def function(u: F64, v: F64) -> F64:
        narrow = np.interp(v, [0, 0.25, 0.5, 0.75, 1], [0.55 * jaw, 0.85 * jaw, 1, crown_width, 0.9])
        belt = np.sin(np.pi * v) ** 0.7
        radius = 1 + nose * 3.2 * bump(u, v, (0.5, 0.4), (0.022, 0.07)) - 0.07 * bump(u, v, (0.435, 0.53), (0.03, 0.03))
        radius = radius - 0.07 * bump(u, v, (0.565, 0.53), (0.03, 0.03)) + 0.04 * bump(u, v, (0.5, 0.28), (0.04, 0.02))
        radius = radius + 0.06 * bump(u, v, (0.5, 0.12), (0.06, 0.06)) + hair * np.clip((v - 0.6) * 6, 0, 1)
        radius = radius + 0.12 * (bump(u, v, (0.25, 0.47), (0.015, 0.07)) + bump(u, v, (0.75, 0.47), (0.015, 0.07)))
        at = _round(radius * narrow * belt, -np.cos(np.pi * v) * (1 + hair * (v > 0.6)), u)
        return at * np.array([0.33, 0.5, 0.42])

    return surface(function, 65, 49)


def hand(rng: Generator) -> F32:
    """A hand 0.19 high, open or partly closed, its palm towards −z; the wrist is at the origin."""
    parts = [_capsule((0, 0.055, 0), (0, 0.03, 0), 0.035) * np.array([1, 1, 0.5, 1, 1, 2, 1, 1])]
    for x, length in ((-0.033, 0.07), (-0.011, 0.085), (0.011, 0.08), (0.033, 0.06)):
        bend, spread = rng.uniform(-0.2, 1.6) if rng.random() < 0.5 else rng.uniform(-0.1, 0.3), x * 4
        foot = np.array([x, 0.09, 0.0])
        knuckle = foot + length * 0.55 * np.array([spread, np.cos(bend * 0.5), -np.sin(bend * 0.5)])
        tip = knuckle + length * 0.5 * np.array([spread, np.cos(bend * 1.4), -np.sin(bend * 1.4)])
        parts += [_capsule(foot, knuckle, 0.0095), _capsule(knuckle, tip, 0.0085)]
    parts.append(_capsule((-0.035, 0.03, 0), (-0.07, 0.075, rng.uniform(-0.03, 0)), 0.011))
    return np.concatenate(parts).astype(np.float32)


def _capsule(start: object, end: object, radius: float) -> F32:
    a, b = np.asarray(start, float), np.asarray(end, float)
    axis = b - a
    length = float(np.linalg.norm(axis))
    y = axis / length
    x = np.cross(y, [0.3, 0.1, 0.9])
    x /= np.linalg.norm(x)
    turn = np.stack([x, y, np.cross(x, y)])

    def function(u: F64, v: F64) -> F64:
        angle = np.pi * v
        along = np.where(v < 0.5, 0, length) - radius * np.cos(angle)
        return a + _round(radius * np.sin(angle), along, u) @ turn

    return surface(function, 11, 12)


def torso(rng: Generator) -> F32:
    """Neck, shoulders and chest, 0.62 high; the neck's top is the origin."""
    wide, deep = rng.uniform(0.19, 0.25), rng.uniform(0.55, 0.7)
    y = np.array([-0.62, -0.45, -0.3, -0.2, -0.15, -0.115, -0.09, -0.06, 0.03])
    radius = np.array([0.75, 0.72, 0.85, 0.98, 1.0, 0.85, 0.5, 0.27, 0.25]) * wide

    def function(u: F64, v: F64) -> F64:
        at = v * (len(y) - 1)
        row = np.arange(len(y))
        r = np.interp(at, row, radius)
        flat = np.where(r < 0.35 * wide, 1.0, deep)
        return _round(r, np.interp(at, row, y), u) * np.stack([np.ones_like(r), np.ones_like(r), flat], -1)

    return surface(function, 25, 33)
