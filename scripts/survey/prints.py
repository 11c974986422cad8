"""Printed surfaces: tiles, planks, cloth, plaster, bricks, house fronts, posters and books, as textures.

Every function returns uint8 H×W×4 RGBA, and tiles where a wall or floor needs it to.
"""

import cv2
import numpy as np
from stage import F64, U8, fractal, opaque


def srgb(text: str) -> F64:
    """`rrggbb` in [0, 1]."""
    return np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255


def grid(side: int) -> tuple[F64, F64]:
    """x and y in [0, 1)."""
    y, x = np.mgrid[:side, :side] / side
    return x, y


def tiles(colours: tuple[str, ...] = ("b5281e", "f0e3c2", "1d4f91", "e7a51c", "23262b"), side: int = 1024) -> U8:
    """Printed cement tiles, 2×2: stars, circles and diamonds in strong colours, with joints; one copy is two tiles."""
    red, cream, blue, gold, dark = map(srgb, colours)
    x, y = grid(side)
    u, v = (x * 2) % 1 - 0.5, (y * 2) % 1 - 0.5
    odd = ((x * 2).astype(int) + (y * 2).astype(int)) % 2 == 1
    r, a = np.hypot(u, v), np.arctan2(v, u)
    picture = np.ones((side, side, 3)) * cream

    def paint(mask: F64, colour: F64) -> None:
        picture[mask] = colour

    corner = np.hypot(np.abs(u) - 0.5, np.abs(v) - 0.5)
    paint(np.abs(u) + np.abs(v) < 0.5, blue)
    paint((np.abs(u) + np.abs(v) < 0.5) & odd, red)
    paint(r < 0.30 + 0.09 * np.cos(8 * a), cream)
    paint(r < 0.22 + 0.07 * np.cos(8 * a), gold)
    paint((r < 0.13), red)
    paint((r < 0.13) & odd, blue)
    paint((r < 0.06), cream)
    paint(corner < 0.26, dark)
    paint(corner < 0.20, gold)
    paint(corner < 0.12, red)
    worn = fractal(np.random.default_rng(2), side, 8, 0.6, 8)[..., None]
    picture = picture * (0.86 + 0.22 * worn)
    joint = (np.abs(u) > 0.494) | (np.abs(v) > 0.494)
    picture[joint] = srgb("8d8577")
    return opaque(picture)


def planks(tone: str = "8a5a34", count: int = 6, side: int = 1024, seed: int = 1, gap: float = 0.012) -> U8:
    """Wooden boards along y."""
    rng = np.random.default_rng(seed)
    x, y = grid(side)
    board = (x * count).astype(int) % count
    shift = rng.random(count)[board]
    piece = ((y + shift) * 2).astype(int) % 2
    shade = rng.uniform(0.75, 1.15, (count, 2))[board, piece]
    grain = cv2.resize(fractal(rng, side, 8, 0.75, 8)[: side // 16], (side, side), interpolation=cv2.INTER_LINEAR).T
    fine = cv2.resize(fractal(rng, side, 9, 0.9, 32)[: side // 24], (side, side)).T
    wood = srgb(tone) * (shade * (0.72 + 0.35 * grain + 0.2 * fine))[..., None]
    dark = ((x * count) % 1 < gap * count / 2) | (((y + shift) * 2) % 1 < 0.004)
    wood[dark] *= 0.35
    return opaque(wood)


def gingham(first: str = "c8202a", second: str = "fbf7ef", squares: int = 8, side: int = 512) -> U8:
    """A checked tablecloth; one copy has `squares` stripes each way."""
    x, y = grid(side)
    a, b = (x * squares).astype(int) % 2, (y * squares).astype(int) % 2
    share = (a + b)[..., None] / 2
    weave = 0.95 + 0.05 * np.sin(x * side * 1.5) * np.sin(y * side * 1.5)
    return opaque((srgb(second) * (1 - share) + srgb(first) * share) * weave[..., None])


def plaster(tone: str = "d8cdb8", strength: float = 0.14, side: int = 1024, seed: int = 4) -> U8:
    """Painted plaster with faint stains."""
    rng = np.random.default_rng(seed)
    stain = fractal(rng, side, 9, 0.6, 3)
    return opaque(srgb(tone) * (1 - strength / 2 + strength * stain)[..., None])


def stone(tone: str = "b9ae9c", rows: int = 4, columns: int = 2, side: int = 1024, seed: int = 6) -> U8:
    """Cut blocks in bond."""
    rng = np.random.default_rng(seed)
    x, y = grid(side)
    row = (y * rows).astype(int)
    u = x * columns + 0.5 * (row % 2)
    shade = rng.uniform(0.82, 1.08, (rows, columns))[row % rows, u.astype(int) % columns]
    picture = srgb(tone) * (shade * (0.8 + 0.4 * fractal(rng, side, 9, 0.7, 6)))[..., None]
    picture[((y * rows) % 1 < 0.02 * rows / 4) | (u % 1 < 0.01 * columns)] *= 0.55
    return opaque(picture)


def bricks(tone: str = "9c4a35", rows: int = 16, side: int = 1024, seed: int = 8) -> U8:
    """A brick wall; one copy is `rows` courses high."""
    rng = np.random.default_rng(seed)
    x, y = grid(side)
    row = (y * rows).astype(int)
    u = x * rows / 3 * 1.0 + 0.5 * (row % 2)
    columns = max(1, round(rows / 3))
    u = x * columns + 0.5 * (row % 2)
    shade = rng.uniform(0.7, 1.15, (rows, columns))[row % rows, u.astype(int) % columns]
    picture = srgb(tone) * (shade * (0.8 + 0.35 * fractal(rng, side, 9, 0.75, 16)))[..., None]
    picture[((y * rows) % 1 < 0.12) | (u % 1 < 0.035)] = srgb("b7ab9a")
    return opaque(picture * 1.0)


def front(seed: int, floors: int, bays: int, *, shop: bool = True, lit: float = 0.0, side: int = 1024) -> tuple[U8, U8]:
    """A house front, floors from the bottom, and a picture of the windows that are lit (black elsewhere)."""
    rng = np.random.default_rng(seed)
    walls = ("d9c6a0", "c9876a", "b9b7ae", "a7b39a", "d8d2c4", "c2a184", "9d5a48", "dcb9a0", "8fa3b0")
    wall = srgb(walls[seed % len(walls)])
    picture = np.ones((side, side, 3)) * wall * (0.9 + 0.16 * fractal(rng, side, 8, 0.65, 4)[..., None])
    glow = np.zeros((side, side, 3))
    trim, frame = np.minimum(wall * 1.18, 1), srgb(("f2efe6", "5b4634", "37474a")[seed % 3])
    y = lambda v: int(np.clip(v, 0, 1) * (side - 1))  # noqa: E731 - rows of the texture, bottom first
    step = 1 / floors
    cv2.rectangle(picture, (0, y(0.985)), (side, side), (trim * 0.95).tolist(), -1)
    for floor in range(floors):
        if floor:
            cv2.rectangle(picture, (0, y(floor * step)), (side, y(floor * step + 0.012)), trim.tolist(), -1)
        for bay in range(bays):
            ground = floor == 0 and shop
            wide, low, high = (0.8, 0.06, 0.78) if ground else (0.46, 0.22, 0.84)
            x0, x1 = (bay + 0.5 - wide / 2) / bays, (bay + 0.5 + wide / 2) / bays
            y0, y1 = (floor + low) * step, (floor + high) * step
            border = 0.008
            a, b = (int((x0 - border) * side), y(y0 - border)), (int((x1 + border) * side), y(y1 + border * 1.5))
            cv2.rectangle(picture, a, b, trim.tolist(), -1)
            a, b = (int(x0 * side), y(y0)), (int(x1 * side), y(y1))
            pane = srgb("2b3640") * rng.uniform(0.6, 1.3)
            cv2.rectangle(picture, a, b, pane.tolist(), -1)
            sheen = (int(x0 * side), y(y0 + (y1 - y0) * 0.55))
            cv2.rectangle(picture, sheen, b, (pane * 1.5 + 0.06).tolist(), -1)
            if not ground and rng.random() < 0.5:
                cv2.rectangle(picture, a, (int((x0 + (x1 - x0) * 0.2) * side), b[1]), srgb("e8e2d4").tolist(), -1)
            if rng.random() < lit:
                warm = srgb(("ffd48a", "ffe2b0", "ffc36a", "fff0d0")[int(rng.integers(4))]) * rng.uniform(0.5, 1.0)
                cv2.rectangle(glow, a, b, warm.tolist(), -1)
                if rng.random() < 0.5:
                    cv2.rectangle(glow, a, (int((x0 + (x1 - x0) * 0.3) * side), b[1]), (warm * 0.5).tolist(), -1)
            middle = int((x0 + x1) / 2 * side)
            for target, shade in ((picture, frame), (glow, frame * 0)):
                cv2.rectangle(target, a, b, shade.tolist(), max(2, side // 250))
                cv2.line(target, (middle, a[1]), (middle, b[1]), shade.tolist(), max(2, side // 300))
                if not ground:
                    bar = y(y0 + (y1 - y0) * 0.66)
                    cv2.line(target, (a[0], bar), (b[0], bar), shade.tolist(), max(2, side // 300))
                    cv2.rectangle(target, (a[0] - 6, a[1] - 8), (b[0] + 6, a[1]), (trim * 0.9).tolist(), -1)
        if floor == 0 and shop:
            sign = srgb(("7a1f24", "1f4d3a", "22335c", "b07a1c")[seed % 4])
            cv2.rectangle(
                picture, (int(0.04 * side), y(0.83 * step)), (int(0.96 * side), y(0.95 * step)), sign.tolist(), -1
            )
            for letter in range(9):
                x0 = 0.3 + letter * 0.045
                cv2.rectangle(
                    picture,
                    (int(x0 * side), y(0.86 * step)),
                    (int((x0 + 0.026) * side), y(0.92 * step)),
                    srgb("f5ecd0").tolist(),
                    -1,
                )
    return opaque(picture), opaque(glow)


def poster(seed: int, side: int = 512) -> U8:
    """A poster with shapes in strong colours."""
    rng = np.random.default_rng(seed)
    palette = ("e4572e", "17bebb", "ffc914", "2e282a", "76b041", "f2efe9", "8e3b8a", "1f5fa8", "f49cbb")
    pick = lambda: srgb(palette[int(rng.integers(len(palette)))])  # noqa: E731
    picture = np.ones((side, side, 3)) * pick()
    kind = seed % 5
    for _ in range(14):
        centre = tuple(int(k) for k in rng.integers(0, side, 2))
        if kind == 0:
            cv2.circle(picture, centre, int(rng.integers(20, 110)), pick().tolist(), -1, cv2.LINE_AA)
        elif kind == 1:
            other = tuple(int(k) for k in rng.integers(0, side, 2))
            cv2.rectangle(picture, centre, other, pick().tolist(), -1)
        elif kind == 2:
            cv2.fillPoly(picture, [rng.integers(0, side, (3, 2)).astype(np.int32)], pick().tolist(), cv2.LINE_AA)
        elif kind == 3:
            cv2.line(picture, (0, centre[0]), (side, centre[1]), pick().tolist(), int(rng.integers(8, 50)), cv2.LINE_AA)
        else:
            cv2.ellipse(picture, centre, (90, 30), int(rng.integers(180)), 0, 360, pick().tolist(), -1, cv2.LINE_AA)
    for line in range(3):
        width = int(rng.integers(side // 3, side - 60))
        cv2.rectangle(picture, (30, 40 + line * 34), (30 + width, 58 + line * 34), pick().tolist(), -1)
    return opaque(picture)


def landscape(seed: int, side: int = 256) -> U8:
    """A small painting: sky, hills, water."""
    rng = np.random.default_rng(seed)
    x, y = grid(side)
    picture = srgb("cfdbe4") * (0.6 + 0.4 * y[..., None]) + 0.1 * fractal(rng, side, 6, 0.6, 3)[..., None]
    for k, tone in enumerate(("7f93a0", "66795c", "3f5435", "77603a")):
        ridge = 0.55 - 0.13 * k + 0.1 * np.interp(x[0], np.linspace(0, 1, 9), rng.random(9))
        mask = y < ridge[None, :]
        picture[mask] = srgb(tone)
    return opaque(picture * (0.85 + 0.3 * fractal(rng, side, 8, 0.8, 8)[..., None]))


def damask(ground: str = "2f6f62", figure: str = "e8c766", side: int = 512) -> U8:
    """A wallpaper with a large repeating figure."""
    x, y = grid(side)
    picture = np.ones((side, side, 3)) * srgb(ground)
    for shift in (0.0, 0.5):
        u, v = (x * 2 + shift) % 1 - 0.5, (y * 2 + shift) % 1 - 0.5
        if shift:
            u, v = (x * 2 + 0.5) % 1 - 0.5, (y * 2 + 0.5) % 1 - 0.5
        r, a = np.hypot(u * 1.3, v), np.arctan2(v, u)
        leaf = r < 0.24 + 0.1 * np.cos(4 * a) + 0.05 * np.cos(12 * a)
        picture[leaf] = srgb(figure)
        picture[leaf & (r < 0.15 + 0.06 * np.cos(4 * a))] = srgb(ground) * 1.2
        picture[r < 0.06] = srgb("c23b3b")
    return opaque(picture * (0.94 + 0.1 * fractal(np.random.default_rng(1), side, 7, 0.7, 16)[..., None]))
