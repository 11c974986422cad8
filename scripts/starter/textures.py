"""Textures made of noise and lines: patterns for floors and walls, fronts of houses, leaves, clouds, faces.

Every function takes its own random generator and returns uint8 H×W×4 RGBA.
"""

from collections.abc import Callable

import cv2
import numpy as np
from assets import F32, U8
from numpy.random import Generator
from numpy.typing import NDArray

F64 = NDArray[np.float64]
SIDE = 256


def fractal(rng: Generator, side: int = SIDE, octaves: int = 6, gain: float = 0.5, cells: int = 2) -> F32:
    """Tiling fractal noise in [0, 1]: octaves of smoothed random grids, each twice as fine and `gain` as strong."""
    total, weight = np.zeros((side, side), np.float32), 1.0
    for octave in range(octaves):
        count = min(side, cells * 2**octave)
        grid = np.pad(rng.random((count, count), dtype=np.float32), ((0, 1), (0, 1)), mode="wrap")
        big = side + side // count
        total += weight * cv2.resize(grid, (big, big), interpolation=cv2.INTER_CUBIC)[:side, :side]
        weight *= gain
    total -= total.min()
    return np.asarray(total / (total.max() + 1e-6), np.float32)


def colour(rng: Generator, low: float = 0.05, high: float = 0.95, saturation: float = 0.5) -> F64:
    """A random colour in [0, 1] of at most this saturation."""
    hue = rng.random(3)
    amount = rng.random() * saturation
    return np.asarray(rng.uniform(low, high) * (1 - amount + amount * hue / hue.max()))


def opaque(rgb: F64) -> U8:
    """[0, 1] RGB → RGBA, clipped."""
    alpha = np.full(rgb.shape[:2], 255)
    return np.dstack([np.clip(rgb * 255, 0, 255), alpha]).astype(np.uint8)


def _grid(side: int = SIDE) -> tuple[F64, F64]:
    y, x = np.mgrid[:side, :side] / side
    return x, y


def _noise(rng: Generator) -> F64:
    return np.asarray(fractal(rng, SIDE, 7, rng.uniform(0.5, 0.85), int(rng.choice([2, 4, 8, 16]))), float)


def _plain(rng: Generator) -> F64:
    return np.asarray(fractal(rng, gain=0.8, cells=4) * 0.15, float)


def _blotch(rng: Generator) -> F64:
    return np.asarray(fractal(rng, octaves=4, cells=4) > 0.5, float)


def _carpet(rng: Generator) -> F64:
    return np.asarray(rng.random((SIDE, SIDE)) * 0.6 + fractal(rng) * 0.4)


def _stripe(rng: Generator) -> F64:
    x, _ = _grid()
    return np.asarray((x * rng.integers(2, 20)) % 1 > rng.uniform(0.2, 0.8), float)


def _check(rng: Generator) -> F64:
    x, y = _grid()
    count = 2 * rng.integers(1, 6)
    return np.asarray((x * count // 1 + y * count // 1) % 2)


def _diamond(rng: Generator) -> F64:
    x, y = _grid()
    count = int(rng.integers(1, 5))
    return np.asarray(((x + y) * count // 1 + (x - y) * count // 1) % 2)


def _dots(rng: Generator) -> F64:
    x, y = _grid()
    count = int(rng.integers(2, 10))
    return np.asarray(np.hypot((x * count) % 1 - 0.5, (y * count) % 1 - 0.5) < rng.uniform(0.15, 0.45), float)


def _tiles(rng: Generator, bond: float = 0.0) -> F64:
    x, y = _grid()
    columns = int(rng.choice([2, 4, 6, 8]))
    rows = columns * 2 if bond else columns
    u, v = x * columns + bond * ((y * rows // 1) % 2), y * rows
    shade = rng.random((64, 64))[(v // 1).astype(int) % 64, (u // 1).astype(int) % columns]
    joint = rng.uniform(0.01, 0.06)
    face = 0.1 + 0.7 * (0.5 * shade * rng.random() + 0.5 * fractal(rng, gain=0.7, cells=4))
    return np.where((v % 1 < joint * 1.5) | (u % 1 < joint), float(rng.random() < 0.5), face)


def _brick(rng: Generator) -> F64:
    return _tiles(rng, 0.5)


def _planks(rng: Generator) -> F64:
    x, _ = _grid()
    count = int(rng.choice([3, 4, 6, 8]))
    shade = rng.random(count)[(x * count).astype(int) % count]
    grain = cv2.resize(fractal(rng, gain=0.7, cells=4)[: SIDE // 8], (SIDE, SIDE))
    wood = 0.4 * shade + 0.6 * grain
    return np.asarray(np.where((x * count) % 1 < 0.03, wood * 0.3, wood))


PATTERNS: dict[str, tuple[Callable[[Generator], F64], float]] = {
    "noise": (_noise, 0.15),
    "plain": (_plain, 0.1),
    "blotch": (_blotch, 0.06),
    "carpet": (_carpet, 0.1),
    "stripe": (_stripe, 0.08),
    "check": (_check, 0.07),
    "diamond": (_diamond, 0.04),
    "dots": (_dots, 0.04),
    "tiles": (_tiles, 0.14),
    "brick": (_brick, 0.1),
    "planks": (_planks, 0.12),
}
"""How each pattern is made, and its share."""


def pattern(rng: Generator, kind: str | None = None) -> U8:
    """A pattern between two random colours; `kind` is drawn when None."""
    shares = np.array([share for _, share in PATTERNS.values()])
    kind = kind or str(rng.choice(list(PATTERNS), p=shares / shares.sum()))
    first, second = colour(rng), colour(rng)
    if kind == "planks":
        first = np.array([rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.55), rng.uniform(0.1, 0.35)])
        second = first * rng.uniform(0.3, 0.8)
    mask = PATTERNS[kind][0](rng)[..., None]
    rgb = first * (1 - mask) + second * mask
    if rng.random() < 0.5:
        rgb = rgb * (0.8 + 0.4 * fractal(rng, octaves=5, gain=0.6)[..., None])
    return opaque(rgb + rng.normal(0, rng.uniform(0, 0.04), rgb.shape))


def front(rng: Generator) -> U8:
    """The front of a house: windows in rows, frames, some of them lit."""
    wall, pane = colour(rng, 0.2, 0.9, 0.4), colour(rng, 0.02, 0.4, 0.3)
    rgb = np.ones((SIDE, SIDE, 3)) * wall * (0.85 + 0.3 * fractal(rng, gain=0.7, cells=4)[..., None])
    x, y = _grid()
    columns, rows = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    u, v = x * columns, y * rows
    left, right, low, high = rng.uniform((0.15, 0.65, 0.15, 0.6), (0.35, 0.85, 0.35, 0.9))
    window = (u % 1 > left) & (u % 1 < right) & (v % 1 > low) & (v % 1 < high)
    light = rng.random((rows, columns))[v.astype(int) % rows, u.astype(int) % columns][..., None]
    sheen = 0.3 * (1 - v % 1)[..., None] * light
    rgb = np.where(window[..., None], pane * (0.5 + light) + sheen, rgb)
    frame = cv2.dilate(window.astype(np.uint8), np.ones((5, 5), np.uint8)) > window
    return opaque(np.where(frame[..., None], colour(rng, 0.3, 1), rgb))


def leaves(rng: Generator, side: int = 128) -> U8:
    """Leaves on a transparent ground."""
    green = np.array([rng.uniform(0.05, 0.35), rng.uniform(0.25, 0.6), rng.uniform(0.03, 0.2)])
    autumn = np.array([rng.uniform(0.4, 0.8), rng.uniform(0.2, 0.5), rng.uniform(0.05, 0.2)])
    base = green if rng.random() < 0.8 else autumn
    picture = np.zeros((side, side, 4), np.uint8)
    for _ in range(int(rng.integers(120, 300))):
        shade = np.clip(base * rng.uniform(0.4, 1.4) * 255, 0, 255)
        centre = (int(rng.integers(side)), int(rng.integers(side)))
        axes = (int(rng.integers(3, 9)), int(rng.integers(2, 5)))
        cv2.ellipse(picture, centre, axes, rng.uniform(0, 180), 0, 360, (*shade.tolist(), 255), -1)
    return picture


def blades(rng: Generator, side: int = 128) -> U8:
    """Grass on a transparent ground, roots at the bottom row of the upright texture."""
    base = np.array([rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.6), rng.uniform(0.03, 0.2)])
    picture = np.zeros((side, side, 4), np.uint8)
    for _ in range(int(rng.integers(15, 60))):
        shade = np.clip(base * rng.uniform(0.4, 1.4) * 255, 0, 255)
        foot, tip = int(rng.integers(side)), int(rng.integers(side))
        tip = (foot * 2 + tip) // 3
        height = int(rng.uniform(0.3, 1) * side)
        cv2.line(picture, (foot, 0), (tip, height), (*shade.tolist(), 255), int(rng.integers(1, 4)))
    return picture


def clouds(rng: Generator) -> U8:
    """Grey noise that the sky is mixed with."""
    return opaque(np.repeat(fractal(rng, octaves=7, gain=0.6, cells=3)[..., None], 3, 2))


def skin(rng: Generator) -> F64:
    """A skin tone in [0, 1], from pale to dark."""
    tone = rng.random()
    pale, dark = np.array([0.95, 0.78, 0.68]), np.array([0.28, 0.17, 0.11])
    return np.asarray((pale * (1 - tone) + dark * tone) * rng.uniform(0.85, 1.05, 3))


def face(rng: Generator, tone: F64, side: int = 256) -> U8:
    """Wraps a head: u goes round it with the face in the middle, v from the chin (0) to the crown (1)."""
    hair = np.array([rng.uniform(0.02, 0.6)] * 3) * np.array([1, rng.uniform(0.6, 1), rng.uniform(0.3, 1)])
    rgb = np.ones((side, side, 3)) * tone * (0.92 + 0.16 * fractal(rng, side)[..., None])
    x, y = _grid(side)
    from_front = np.abs(x - 0.5)

    def spot(u: float, v: float, width: float, height: float) -> F64:
        distance = ((x - u) / width) ** 2 + ((y - v) / height) ** 2
        return np.asarray(np.clip(1.5 - distance, 0, 1))[..., None]

    def paint(mask: F64, shade: object) -> None:
        rgb[:] = rgb * (1 - mask) + np.asarray(shade, float) * mask

    cheeks = 0.3 * spot(0.42, 0.4, 0.05, 0.07) + 0.3 * spot(0.58, 0.4, 0.05, 0.07)
    paint(cheeks, tone * np.array([1.05, 0.75, 0.72]))
    for u in (0.435, 0.565):
        paint(0.5 * spot(u, 0.53, 0.045, 0.035), tone * 0.6)
        paint(spot(u, 0.525, 0.028, 0.013), (0.9, 0.9, 0.88))
        paint(spot(u + rng.normal(0, 0.004), 0.525, 0.011, 0.013), (0.1, 0.07, 0.05))
        paint(0.8 * spot(u, 0.575, 0.04, 0.009), hair * 0.8)
    paint(0.7 * spot(0.5, 0.28, 0.05, rng.uniform(0.012, 0.03)), tone * np.array([0.8, 0.45, 0.45]))
    if rng.random() < 0.3:
        beard = np.clip((0.36 - y) * 12, 0, 1) * (from_front > 0.0) * rng.uniform(0.4, 1)
        paint(np.asarray(beard)[..., None], hair * 0.9)
    edge = rng.uniform(0.66, 0.8) - np.clip(from_front - rng.uniform(0.1, 0.2), 0, 1) * rng.uniform(2.5, 5)
    edge = edge + 0.03 * (fractal(rng, side) - 0.5)
    if rng.random() < 0.92:
        streaks = cv2.resize(fractal(rng, side, gain=0.8, cells=16)[:16], (side, side)).T[..., None]
        paint(np.asarray(np.clip((y - edge) * 40, 0, 1))[..., None], hair * (0.6 + 0.8 * streaks))
    return opaque(rgb)
