"""The demo clip's scene: the room, its furniture, colours, the view outside, and the camera's path.

Everything is generated; no file is loaded.
Invariant: building the scene twice gives the same one.
"""

from collections.abc import Sequence

import numpy as np
from light import Environment, Sun
from solids import F32, Box, Capsule, Ellipsoid, Frustum, Paint, Solid, along, unit, yaw

SUN = Sun(towards=(-0.37, 0.62, 0.69), irradiance=(13.0, 11.6, 9.4))
_SIZE = 256
_NOISE = np.random.default_rng(7).random((_SIZE, _SIZE)).astype(np.float32)


def colour(text: str) -> F32:
    """Linear RGB (3, 1) of an sRGB `rrggbb`."""
    s = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.float32)[:, None] / 255
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4).astype(np.float32)


def noise(x: F32, y: F32) -> F32:
    """Smooth value noise in [0, 1], one grid cell a unit."""
    i, j = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    u, v = x - i, y - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    i0, i1, j0, j1 = i % _SIZE, (i + 1) % _SIZE, j % _SIZE, (j + 1) % _SIZE
    top = _NOISE[j0, i0] * (1 - u) + _NOISE[j0, i1] * u
    low = _NOISE[j1, i0] * (1 - u) + _NOISE[j1, i1] * u
    return (top * (1 - v) + low * v).astype(np.float32)


def plain(text: str, mottle: float = 0.06) -> Paint:
    """One colour with soft mottling."""
    base = colour(text)

    def paint(p: F32, n: F32, footprint: F32) -> F32:  # noqa: ARG001
        return base * (1 + mottle * (noise(p[0] * 9 + p[1] * 4 + 40, p[2] * 9 - p[1] * 5 + 40) - 0.5) * 2)

    return paint


def wood(text: str, grain_m: float = 0.035) -> Paint:
    """Long grain along local x, bands across."""
    base = colour(text)

    def paint(p: F32, n: F32, footprint: F32) -> F32:  # noqa: ARG001
        across = (p[1] + p[2]) / np.float32(grain_m)
        wobble = noise(p[0] * 2.5 + 30, across * 0.35 + 9)
        rings = 0.5 + 0.5 * np.sin(across * 1.7 + 7 * wobble)
        fade = np.clip(grain_m / 2 / np.maximum(footprint, 1e-5), 0, 1)
        return base * (1 + fade * (0.30 * (rings - 0.5) + 0.22 * (noise(p[0] * 6, across * 2.2) - 0.5)))

    return paint


def tiles(light: str, dark: str, side_m: float) -> Paint:
    """A floor of two kinds of stone with grout."""
    a, b, grout = colour(light), colour(dark), colour("9c948a")

    def paint(p: F32, n: F32, footprint: F32) -> F32:  # noqa: ARG001
        x, z = p[0] / np.float32(side_m), p[2] / np.float32(side_m)
        i, j = np.floor(x), np.floor(z)
        stone = np.where((i + j) % 2 < 1, a, b)
        each = _NOISE[(j.astype(np.intp) * 7 + 11) % _SIZE, (i.astype(np.intp) * 5 + 3) % _SIZE]
        vein = noise(p[0] * 3 + each * 50, p[2] * 3 + 80) + 0.5 * noise(p[0] * 9 + each * 50, p[2] * 9)
        stone = stone * (0.90 + 0.10 * each + 0.12 * (vein - 0.75))
        wide = np.maximum(np.float32(0.006), footprint * 0.7)
        edge = np.minimum(np.minimum(x - i, 1 - x + i), np.minimum(z - j, 1 - z + j)) * np.float32(side_m)
        share = np.clip(1 - (edge - wide * 0.5) / wide, 0, 1) * np.clip(0.006 / wide, 0, 1)
        return stone * (1 - share) + grout * share

    return paint


def stripes(colours: Sequence[str], width_m: float, axis: int = 0) -> Paint:
    """Woven bands along one local axis."""
    palette = np.concatenate([colour(text) for text in colours], axis=1)

    def paint(p: F32, n: F32, footprint: F32) -> F32:  # noqa: ARG001
        q = p[axis] / np.float32(width_m) + 40
        weave = np.clip(0.004 / np.maximum(footprint, 1e-5), 0, 1) * 0.16 * (noise(p[0] * 160, p[2] * 160) - 0.5)
        return palette[:, np.floor(q).astype(np.intp) % palette.shape[1]] * (0.97 + weave)

    return paint


def landscape() -> Paint:
    """A small painting: sky, a low sun, and three ridges, on a local x-y face."""
    sky, glow, sun = colour("e9b872"), colour("d9694a"), colour("fff1cf")
    ridges = [colour(text) for text in ("7a4b6a", "4a3a63", "241f3d")]

    def paint(p: F32, n: F32, footprint: F32) -> F32:  # noqa: ARG001
        x, y = p[2] * 2.4, p[1] * 2.4
        mix = np.clip(y + 0.5, 0, 1)
        result = sky * mix + glow * (1 - mix)
        result = np.where((x - 0.35) ** 2 + (y - 0.25) ** 2 < 0.045, sun, result)
        for k, ridge in enumerate(ridges):
            height = 0.05 - 0.22 * k + 0.22 * (noise(x * (1.8 + k) + 20 + 9 * k, np.full_like(x, 3.5 + k)) - 0.4)
            result = np.where(y < height, ridge, result)
        return result

    return paint


def outside(d: F32) -> F32:
    """The view through the window, and the bright studio behind the camera."""
    flat = np.maximum(np.hypot(d[0], d[2]), 1e-4)
    rise, turn = d[1] / flat, np.arctan2(d[0], np.maximum(d[2], 1e-4))
    up = np.clip(rise * 1.1, 0, 1) ** 0.6
    sky = colour("dcecf7") * (1 - up) * 3.4 + colour("4f93d8") * up * 3.2
    cloud = noise(turn * 5 + 60, rise * 14 + 20) * 0.6 + noise(turn * 13 + 60, rise * 30 + 20) * 0.4
    sky = sky + np.clip(cloud - 0.52, 0, 1) * 4.5 * np.clip(rise * 6, 0, 1)
    far = (
        0.09 + 0.10 * noise(turn * 4 + 12, np.full_like(turn, 2.5)) + 0.015 * noise(turn * 40, np.full_like(turn, 9.5))
    )
    near = (
        0.005 + 0.07 * noise(turn * 7 + 31, np.full_like(turn, 5.5)) + 0.03 * noise(turn * 60, np.full_like(turn, 1.5))
    )
    view = np.where(rise < far, colour("8fa9b5") * 2.0, sky)
    meadow = colour("7fa05f") * 1.5 * (0.9 + 0.2 * noise(turn * 30, 3 / np.maximum(0.15 - rise, 0.01)))
    trees = colour("4f7450") * 1.3 * (0.75 + 0.5 * noise(turn * 150, rise * 170 + 50))
    view = np.where(rise < near, trees, view)
    view = np.where(rise < -0.01, meadow, view)
    studio = np.float32(2.3) * (0.55 + 0.45 * np.clip(d[1] + 0.4, 0, 1)) * np.array([[1.0], [0.97], [0.93]], np.float32)
    return np.where(d[2] > 0, view, studio).astype(np.float32)


ENVIRONMENT: Environment = outside


def limb(a: tuple[float, float, float], b: tuple[float, float, float], radius: float, paint: Paint) -> Capsule:
    """A capsule from `a` to `b`."""
    start, end = np.array(a), np.array(b)
    middle = tuple(float(x) for x in (start + end) / 2)
    reach = float(np.linalg.norm(end - start)) / 2
    return Capsule(centre=middle, turn=along(end - start), radius=radius, reach=reach, paint=paint, texel=0.03)  # type: ignore[arg-type]


def room() -> list[Solid]:
    """Floor, walls with a window in the back one, ceiling, skirting."""
    wall, side = plain("e3dccd", 0.03), plain("86a8a3", 0.03)
    white = plain("eeeae2", 0.02)
    back, left, right, low, high, top = 6.5, -1.7, 0.5, 0.95, 2.3, 2.9
    z, deep = back + 0.1, 0.1
    solids: list[Solid] = [
        # faces end where they meet, so that no texel lies outside the room
        Box(centre=(0, -0.1, 1.9), half=(3.2, 0.1, 4.6), paint=tiles("e2d8c8", "c2ab92", 0.45), gloss=0.5, texel=0.04),
        Box(centre=(0, top + 0.1, 1.9), half=(3.2, 0.1, 4.6), paint=white, texel=0.1),
        Box(centre=(-3.3, top / 2, 1.9), half=(0.1, top / 2, 4.6), paint=side, texel=0.07),
        Box(centre=(3.3, top / 2, 1.9), half=(0.1, top / 2, 4.6), paint=wall, texel=0.07),
        Box(centre=((left - 3.2) / 2, top / 2, z), half=((left + 3.2) / 2, top / 2, deep), paint=wall),
        Box(centre=((right + 3.2) / 2, top / 2, z), half=((3.2 - right) / 2, top / 2, deep), paint=wall),
        Box(centre=((left + right) / 2, low / 2, z), half=((right - left) / 2, low / 2, deep), paint=wall),
        Box(
            centre=((left + right) / 2, (high + top) / 2, z),
            half=((right - left) / 2, (top - high) / 2, deep),
            paint=wall,
        ),
        Box(
            centre=((left + right) / 2, low - 0.02, back - 0.06),
            half=((right - left) / 2 + 0.12, 0.02, 0.12),
            paint=white,
        ),
        Box(centre=((left + right) / 2, high - 0.03, back + 0.1), half=((right - left) / 2, 0.03, 0.04), paint=white),
        Box(centre=((left + right) / 2, low + 0.03, back + 0.1), half=((right - left) / 2, 0.03, 0.04), paint=white),
        Box(centre=(-3.18, 0.05, 2.0), half=(0.02, 0.05, 4.5), paint=white),
        Box(centre=(3.18, 0.05, 2.0), half=(0.02, 0.05, 4.5), paint=white),
        Box(centre=(0, 0.05, 6.48), half=(3.2, 0.05, 0.02), paint=white),
    ]
    for x in (left + 0.03, (left + right) / 2, right - 0.03):
        solids.append(Box(centre=(x, (low + high) / 2, back + 0.1), half=(0.03, (high - low) / 2, 0.04), paint=white))
    solids.append(
        Box(centre=((left + right) / 2, 1.85, back + 0.1), half=((right - left) / 2, 0.018, 0.03), paint=white)
    )
    for x in (left - 0.24, right + 0.24):  # curtains on a rod
        for k in range(5):
            fold = (x + (k - 2) * 0.095, 1.30, 6.37 + 0.03 * (k % 2))
            solids.append(Frustum(centre=fold, low=0.065, high=0.052, tall=2.44, paint=plain("d9c3a0")))
    rod = plain("4a3a2a")
    solids.append(limb((left - 0.62, 2.54, 6.37), (right + 0.62, 2.54, 6.37), 0.02, rod))
    return solids


def furniture() -> list[Solid]:
    """Sofa, table, shelf, lamps, plant, stool."""
    cloth, cushion = plain("5d83ad", 0.10), plain("dba24a", 0.10)
    oak, walnut, brass = wood("b98a58"), wood("6e4528"), plain("b08d57")
    solids: list[Solid] = [
        Box(
            centre=(-0.55, 0.008, 3.75),
            half=(1.35, 0.008, 0.95),
            turn=yaw(4),
            texel=0.03,
            paint=stripes(["b5493f", "e6d8bf", "b5493f", "2f4858", "e6d8bf", "2f4858"], 0.15),
        ),
        Box(centre=(-2.6, 0.27, 3.7), half=(0.45, 0.17, 1.05), round=0.06, paint=cloth),
        Box(centre=(-2.98, 0.55, 3.7), half=(0.16, 0.42, 1.05), round=0.09, paint=cloth),
        Box(centre=(-2.6, 0.38, 2.62), half=(0.46, 0.28, 0.13), round=0.10, paint=cloth),
        Box(centre=(-2.6, 0.38, 4.78), half=(0.46, 0.28, 0.13), round=0.10, paint=cloth),
        Box(centre=(-2.52, 0.49, 3.22), half=(0.38, 0.09, 0.48), round=0.07, paint=cloth),
        Box(centre=(-2.52, 0.49, 4.18), half=(0.38, 0.09, 0.48), round=0.07, paint=cloth),
        Box(
            centre=(-2.70, 0.74, 4.35),
            half=(0.09, 0.21, 0.22),
            round=0.085,
            turn=yaw(-12) @ along(np.array([-0.3, 1, 0.0])),
            paint=cushion,
        ),
        Box(
            centre=(-2.70, 0.73, 3.0),
            half=(0.09, 0.20, 0.21),
            round=0.085,
            turn=yaw(14) @ along(np.array([-0.3, 1, 0.0])),
            paint=plain("c6533f", 0.1),
        ),
        # coffee table
        Frustum(centre=(-0.75, 0.43, 3.75), low=0.52, high=0.52, tall=0.04, paint=walnut, gloss=0.3, texel=0.03),
        Frustum(centre=(-0.75, 0.22, 3.75), low=0.05, high=0.04, tall=0.40, paint=brass),
        Frustum(centre=(-0.75, 0.03, 3.75), low=0.28, high=0.20, tall=0.03, paint=brass),
        Ellipsoid(
            centre=(-0.92, 0.55, 3.70), radii=(0.10, 0.11, 0.10), paint=plain("2f8f83", 0.02), gloss=1.0, texel=0.02
        ),
        Frustum(
            centre=(-0.92, 0.67, 3.70),
            low=0.045,
            high=0.055,
            tall=0.12,
            paint=plain("2f8f83", 0.02),
            gloss=0.8,
            texel=0.02,
        ),
        Box(centre=(-0.55, 0.465, 3.58), half=(0.13, 0.015, 0.09), turn=yaw(20), paint=plain("d8553f"), texel=0.02),
        Box(centre=(-0.54, 0.49, 3.58), half=(0.11, 0.012, 0.08), turn=yaw(32), paint=plain("e9e0cc"), texel=0.02),
        # floor lamp
        Frustum(centre=(-2.62, 0.015, 5.75), low=0.17, high=0.15, tall=0.03, paint=brass),
        Frustum(centre=(-2.62, 0.78, 5.75), low=0.014, high=0.014, tall=1.5, paint=brass),
        Frustum(
            centre=(-2.62, 1.68, 5.75), low=0.26, high=0.17, tall=0.36, paint=plain("f6e3c0"), glow=(2.3, 1.65, 0.95)
        ),
        # pendant lamp
        Frustum(centre=(-0.75, 2.62, 3.75), low=0.006, high=0.006, tall=0.56, paint=plain("222222")),
        Frustum(centre=(-0.75, 2.24, 3.75), low=0.27, high=0.05, tall=0.22, paint=plain("2b2f33"), gloss=0.4),
        Ellipsoid(centre=(-0.75, 2.12, 3.75), radii=(0.075, 0.075, 0.075), paint=plain("fff6e0"), glow=(3.2, 2.7, 1.9)),
        # plant in the right corner
        Frustum(centre=(2.62, 0.19, 4.2), low=0.15, high=0.22, tall=0.38, paint=plain("c9774f"), gloss=0.15),
        # stool in front, with a bowl of fruit
        Frustum(centre=(1.30, 0.48, 1.95), low=0.21, high=0.21, tall=0.045, paint=oak, gloss=0.2, texel=0.02),
        Frustum(
            centre=(1.30, 0.545, 1.95),
            low=0.07,
            high=0.17,
            tall=0.08,
            paint=plain("e8e4da", 0.02),
            gloss=0.5,
            texel=0.02,
        ),
    ]
    for k in range(3):
        a = 2 * np.pi * (k / 3 + 0.1)
        foot = (1.30 + 0.21 * float(np.cos(a)), 0.02, 1.95 + 0.21 * float(np.sin(a)))
        solids.append(limb(foot, (1.30 + 0.12 * float(np.cos(a)), 0.46, 1.95 + 0.12 * float(np.sin(a))), 0.018, oak))
    fruit = ((0.065, -0.03, "d8462f"), (-0.06, -0.04, "e08a2b"), (0.0, 0.07, "7fa33a"), (0.01, 0.0, "dcb13a"))
    for k, (x, z, text) in enumerate(fruit):
        y = 0.615 if k < 3 else 0.665
        solids.append(
            Ellipsoid(
                centre=(1.30 + x, y, 1.95 + z), radii=(0.062, 0.058, 0.062), paint=plain(text), gloss=0.35, texel=0.015
            )
        )
    return solids + _shelf() + _plant()


def _shelf() -> list[Solid]:
    rng, oak = np.random.default_rng(3), wood("a87b4f")
    solids: list[Solid] = [Box(centre=(x, 1.0, 6.28), half=(0.02, 1.0, 0.17), paint=oak) for x in (1.35, 2.95)]
    levels = (0.10, 0.56, 1.02, 1.48, 1.97)
    solids += [Box(centre=(2.15, y, 6.28), half=(0.80, 0.018, 0.17), paint=oak) for y in levels]
    colours = ("8c2f39", "2f4858", "d9a441", "4f772d", "e0d6c3", "6d597a", "b56576", "355070", "c8553d")
    for level, y in enumerate(levels[:-1]):
        x, end = 1.40, (2.62, 2.10, 2.75, 2.30)[level]
        while x < end:
            half, tall = float(rng.uniform(0.014, 0.034)), float(rng.uniform(0.12, 0.17))
            paint = plain(colours[int(rng.integers(len(colours)))], 0.05)
            solids.append(
                Box(centre=(x + half, y + 0.018 + tall, 6.26), half=(half, tall, 0.12), paint=paint, texel=0.06)
            )
            x += 2 * half + 0.004 + (0.10 if rng.random() < 0.1 else 0)
    solids += [
        Ellipsoid(centre=(2.45, 0.70, 6.25), radii=(0.13, 0.13, 0.13), paint=plain("4a7fb0", 0.3), gloss=0.6),
        Frustum(centre=(2.62, 1.62, 6.25), low=0.06, high=0.10, tall=0.24, paint=plain("e8e4da"), gloss=0.4),
        Ellipsoid(centre=(1.75, 2.06, 6.25), radii=(0.14, 0.08, 0.10), paint=plain("c8553d"), gloss=0.4),
    ]
    return solids


def _plant() -> list[Solid]:
    rng, root = np.random.default_rng(5), np.array([2.62, 0.36, 4.2])
    solids: list[Solid] = []
    for k in range(11):
        a, lean = 2.4 * k, float(rng.uniform(0.15, 0.75))
        way = np.array([np.cos(a) * lean, 1.0, np.sin(a) * lean])
        way /= np.linalg.norm(way)
        length = float(rng.uniform(0.45, 0.95))
        tip = root + way * length
        solids.append(limb(tuple(root.tolist()), tuple(tip.tolist()), 0.009, plain("5a7a3a")))  # type: ignore[arg-type]
        leaf = plain(("3f7d3a", "4f8f45", "2f6a35")[k % 3], 0.2)
        turn = along(way + np.array([np.cos(a), 0.1, np.sin(a)]) * 0.5)
        centre = tuple(float(v) for v in tip)
        solids.append(
            Ellipsoid(centre=centre, radii=(0.085, 0.21, 0.018), turn=turn, paint=leaf, gloss=0.15, texel=0.03)
        )  # type: ignore[arg-type]
    return solids


def figure() -> list[Solid]:
    """A person standing by the table and looking towards the camera."""
    x, z = 0.78, 3.95
    skin, hair = plain("c98f6b", 0.04), plain("2e1f18", 0.2)
    shirt, trousers, shoes = plain("d9dfe2", 0.05), plain("34405a", 0.10), plain("3a2a20")

    def at(dx: float, y: float, dz: float = 0.0) -> tuple[float, float, float]:
        return x + dx, y, z + dz

    solids: list[Solid] = [
        Ellipsoid(centre=at(0, 1.20), radii=(0.195, 0.30, 0.125), paint=shirt, texel=0.03),
        Ellipsoid(centre=at(0, 1.36), radii=(0.215, 0.13, 0.115), paint=shirt, texel=0.03),
        Ellipsoid(centre=at(0, 0.94), radii=(0.175, 0.14, 0.125), paint=trousers, texel=0.03),
        limb(at(0, 1.42), at(0, 1.54, -0.01), 0.052, skin),
        Ellipsoid(centre=at(0, 1.645, -0.02), radii=(0.082, 0.115, 0.098), paint=skin, texel=0.02),
        Ellipsoid(centre=at(0, 1.690, 0.012), radii=(0.092, 0.098, 0.102), paint=hair, texel=0.02),
        Ellipsoid(centre=at(0, 1.640, -0.118), radii=(0.013, 0.024, 0.018), paint=skin, texel=0.01),
    ]
    for side in (-1, 1):
        solids += [
            limb(at(0.09 * side, 0.90), at(0.105 * side, 0.50, -0.02), 0.078, trousers),
            limb(at(0.105 * side, 0.50, -0.02), at(0.115 * side, 0.12, 0.02), 0.060, trousers),
            Ellipsoid(centre=at(0.12 * side, 0.05, -0.05), radii=(0.052, 0.055, 0.135), paint=shoes, texel=0.03),
            Ellipsoid(
                centre=at(0.034 * side, 1.668, -0.107), radii=(0.012, 0.009, 0.009), paint=plain("1c1410"), texel=0.01
            ),
            Ellipsoid(centre=at(0.084 * side, 1.645, -0.005), radii=(0.014, 0.03, 0.02), paint=skin, texel=0.01),
        ]
    for a, b, c in (
        ((-0.21, 1.38, 0), (-0.29, 1.12, 0.03), (-0.27, 0.87, -0.06)),
        ((0.21, 1.38, 0), (0.30, 1.13, 0.02), (0.14, 1.06, -0.17)),
    ):
        solids += [
            limb(at(*a), at(*b), 0.054, shirt),
            limb(at(*b), at(*c), 0.042, shirt),
            Ellipsoid(centre=at(*c), radii=(0.048, 0.055, 0.048), paint=skin, texel=0.02),
        ]
    solids.append(
        Frustum(
            centre=at(0.10, 1.10, -0.21), low=0.034, high=0.040, tall=0.10, paint=plain("c8443a"), gloss=0.4, texel=0.02
        )
    )
    return solids


def pictures() -> list[Solid]:
    """Frames on the side walls."""
    frame = plain("2a2622")
    return [
        Box(centre=(3.18, 1.62, 5.0), half=(0.02, 0.36, 0.50), paint=frame),
        Box(centre=(3.165, 1.62, 5.0), half=(0.02, 0.32, 0.46), paint=landscape(), texel=0.03),
        Box(centre=(-3.18, 1.75, 3.2), half=(0.02, 0.36, 0.50), paint=frame),
        Box(centre=(-3.165, 1.75, 3.2), half=(0.02, 0.32, 0.46), paint=landscape(), texel=0.03),
        Box(centre=(-3.18, 1.75, 4.4), half=(0.02, 0.36, 0.28), paint=frame),
        Box(
            centre=(-3.165, 1.75, 4.4),
            half=(0.02, 0.32, 0.24),
            paint=stripes(["e6d8bf", "d9a441", "2f4858"], 0.11, axis=1),
        ),
    ]


def build() -> list[Solid]:
    """The whole scene."""
    return [*room(), *furniture(), *figure(), *pictures()]


def camera(part: float) -> tuple[F32, F32]:
    """Position (3,) and rotation (3, 3; columns right, up, forward) at `part` of the walk, 0 to 1."""
    ease = part * part * (3 - 2 * part)
    position = np.array([1.15 - 1.75 * ease, 1.50 + 0.06 * np.sin(np.pi * part), -0.75 + 0.55 * np.sin(np.pi * ease)])
    target = np.array([0.05 + 0.10 * ease, 1.05, 4.2])
    forward = unit((target - position)[:, None].astype(np.float32))[:, 0]
    right = unit(np.cross([0.0, 1.0, 0.0], forward)[:, None].astype(np.float32))[:, 0]
    return position.astype(np.float32), np.stack([right, np.cross(forward, right), forward], axis=1).astype(np.float32)
