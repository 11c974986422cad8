"""Outdoor scenes: streets, parks and open country, fences and other thin things, views with much sky.

The sky is always the farthest. Streets run along z.
"""

from itertools import pairwise

import numpy as np
import shapes
from assets import Model
from people import person
from tables import wheel
from world import Paint, Scene, Stock, place


def _scene() -> Scene:
    return Scene(outdoors=True, far=500.0, field_of_view=(34.0, 60.0))


def _ground(stock: Stock, scene: Scene, height: float, flat: float) -> None:
    repeat = stock.uniform(0.1, 0.5)
    colour = tuple(float(c) for c in stock.rng.uniform((0.2, 0.3, 0.15), (0.9, 1.0, 0.7)))
    paint = Paint(stock.pick(stock.grounds), colour, 0.0, repeat=(repeat,) * 3, bump=stock.uniform(0, 1))  # type: ignore[arg-type]
    mesh = stock.fresh_mesh("terrain", shapes.terrain(stock.rng, height, flat))
    scene.add(mesh, place((0, 0, 0)), paint)


def tree(stock: Stock, scene: Scene, x: float, z: float, y: float = 0.0) -> None:
    """A modelled tree, a trunk with foliage, a fir, a bush, or bare branches."""
    height, kind = stock.uniform(2.5, 14), stock.rng.random()
    radius, leaf = height * stock.uniform(0.25, 0.55), stock.pick(stock.leaves)
    bark = Paint(stock.pick(stock.grounds), (0.35, 0.25, 0.18), 0.0, repeat=(2.0, 2.0, 2.0), bump=1.0)
    if kind < 0.3:
        model = stock.pick(stock.trees)
        stock.model(scene, model, (x, y, z), stock.angle(), stock.uniform(0.6, 1.6))
    elif kind < 0.65:
        scene.rod((x, y, z), (x, y + height * 0.6, z), height * 0.04, bark)
        for _ in range(stock.count(1, 4)):
            at = np.array([x, y + height - radius * 0.7, z]) + stock.rng.normal(0, radius * 0.25, 3)
            size = radius * stock.rng.uniform(1.1, 1.8, 3)
            tint = stock.rng.uniform(0.5, 1.2, 3)
            paint = Paint(leaf, tuple(float(c) for c in tint), 0.0)  # type: ignore[arg-type]
            scene.add(stock.pick(stock.kinds["crown"]), place(at, size, stock.angle()), paint)
    elif kind < 0.78:
        green = Paint(stock.pick(stock.grounds), (0.12, stock.uniform(0.2, 0.4), 0.1), 0.0, repeat=(3.0, 3.0, 3.0))
        scene.add("cone", place((x, y + height / 2, z), (radius * 1.1, height, radius * 1.1)), green)
    elif kind < 0.9:
        size = stock.rng.uniform(0.6, 2.5, 3)
        scene.add(stock.pick(stock.kinds["crown"]), place((x, y + size[1] / 3, z), size), Paint(leaf, (0.6, 0.7, 0.5)))
    else:
        _branch(stock, scene, np.array([x, y, z]), np.array([0, 1.0, 0]), height * 0.35, height * 0.03, bark, 4)


def _branch(
    stock: Stock,
    scene: Scene,
    start: np.ndarray,
    heading: np.ndarray,
    length: float,
    thick: float,
    bark: Paint,
    depth: int,
) -> None:
    end = start + heading * length
    scene.rod(start, end, thick, bark)
    if depth > 1:
        for _ in range(stock.count(2, 4)):
            way = heading + stock.rng.normal(0, 0.5, 3)
            way /= np.linalg.norm(way)
            _branch(stock, scene, end, way, length * stock.uniform(0.55, 0.8), thick * 0.6, bark, depth - 1)


def windmill(stock: Stock, scene: Scene, x: float, z: float) -> None:
    """A wind wheel: a slender tower and three thin blades."""
    height = stock.uniform(8, 80)
    white, turn, start = stock.plain(0.6, 1, 0.05), stock.angle(), stock.angle()
    scene.rod((x, 0, z), (x, height, z), height * 0.025, white)
    hub = np.array([x + 0.03 * height * np.sin(turn), height, z + 0.03 * height * np.cos(turn)])
    for blade in range(3):
        angle = start + blade * 2 * np.pi / 3
        tip = np.array([np.cos(angle) * np.cos(turn), np.sin(angle), -np.cos(angle) * np.sin(turn)]) * height * 0.45
        scene.rod(hub, hub + tip, height * 0.012, white)


def wires(stock: Stock, scene: Scene, x: float, step: float) -> None:
    """Poles along the street with sagging wires between them."""
    wood, wire, height = stock.surface(), stock.plain(0, 0.2), stock.uniform(5, 9)
    places = np.arange(-60, 61, step)
    arms = stock.count(1, 4)
    for z in places:
        scene.rod((x, 0, z), (x, height, z), stock.uniform(0.12, 0.3), wood)
        scene.slab((x, height - 0.4, z), (1.6, 0.1, 0.1), wood)
    for offset in np.linspace(-0.7, 0.7, arms):
        for near, far in pairwise(places):
            t = np.linspace(0, 1, 7)
            sag = height - 0.35 - 4 * 0.5 * t * (1 - t)
            points = np.stack([np.full(7, x + offset), sag, near + t * (far - near)], -1)
            for a, b in pairwise(points):
                scene.rod(a, b, 0.03, wire)


def fence(stock: Stock, scene: Scene, start: np.ndarray, heading: float, length: float) -> None:
    """Pickets, rails, bars, wire mesh or a hedge, from `start` along `heading`."""
    kind, paint, height = stock.rng.random(), stock.surface(), stock.uniform(0.8, 2.0)
    along = np.array([np.cos(heading), 0, np.sin(heading)])
    turn = -heading
    if kind < 0.15:
        size = (length, height, stock.uniform(0.3, 0.8))
        hedge = Paint(stock.pick(stock.leaves), (0.5, 0.7, 0.4), repeat=(1.5, 1.5, 1.5))
        scene.slab(start + along * length / 2 + [0, height / 2, 0], size, hedge, turn=turn)
        return
    gap = stock.uniform(0.08, 0.25) if kind < 0.7 else stock.uniform(1.2, 3)
    thick = stock.uniform(0.015, 0.1)
    for distance in np.arange(0, length, gap)[:260]:
        foot = start + along * distance
        if kind < 0.4:
            scene.slab(foot + [0, height / 2, 0], (thick, height, 0.02), paint, turn=turn)
        else:
            scene.rod(foot, foot + [0, height, 0], thick * 0.6, paint)
    levels = (0.3, 0.85) if kind < 0.7 else np.linspace(0.25, 0.97, stock.count(2, 6))
    for level in levels:
        y = np.array([0, height * level, 0])
        scene.rod(start + y, start + along * length + y, thick * 0.6, paint)
    if kind > 0.85:
        rows = np.arange(-1, length / height, 0.15)[:80]
        for row in rows:
            for sign in (0, 1):
                a = start + along * np.clip((row + sign) * height, 0, length) + [0, 0.02, 0]
                b = start + along * np.clip((row + 1 - sign) * height, 0, length) + [0, height * 0.97, 0]
                scene.rod(a, b, 0.012, paint)


def _stand(stock: Stock, scene: Scene, models: list[Model], x: float, z: float, turn: float | None = None) -> None:
    stock.model(scene, stock.pick(models), (x, 0.03, z), stock.angle() if turn is None else turn)


def street(stock: Stock) -> Scene:
    """A street between houses: kerbs, cars, people, trees, poles, wires, fences."""
    scene, width = _scene(), stock.uniform(4, 13)
    _ground(stock, scene, stock.uniform(0, 1) ** 2 * 50, 45)
    asphalt = Paint(
        stock.pick([g for g in stock.grounds if "blotch" not in g]),
        (stock.uniform(0.06, 0.4),) * 3,
        stock.uniform(0, 0.3),
        repeat=(0.3,) * 3,
    )
    scene.slab((0, -0.02, 0), (width, 0.06, 300), asphalt)
    path, kerb = stock.pattern(0.3, 1.2), stock.uniform(1.5, 4)
    for side in (-1, 1):
        scene.slab((side * (width / 2 + kerb / 2), 0.05, 0), (kerb, 0.14, 300), path)
    if stock.chance(0.7):
        step, white = stock.uniform(4, 9), stock.plain(0.7, 1, 0.1)
        for z in np.arange(-120, 120, step):
            scene.slab((0, 0.012, z), (0.14, 0.01, 2), white)
    if stock.chance(0.3):
        z, white = stock.uniform(-12, 12), stock.plain(0.7, 1, 0.1)
        for x in np.arange(-width / 2 + 0.3, width / 2, 1.0):
            scene.slab((x, 0.012, z), (0.5, 0.01, 3), white)
    line = width / 2 + kerb + stock.uniform(0, 6)
    tall = stock.uniform(4, 40) if stock.chance(0.4) else stock.uniform(4, 10)
    for side in (-1, 1):
        if stock.chance(0.12):
            continue
        z = -140.0
        while z < 140:
            z += _house(stock, scene, side, line, z, tall)

    def place_on_path() -> tuple[float, float]:
        side = stock.pick([-1, 1])
        return side * stock.uniform(width / 2 + 0.3, width / 2 + kerb - 0.2), stock.uniform(-50, 50)

    for _ in range(stock.count(0, 18)):
        x, z = place_on_path()
        if abs(z) > 4:
            tree(stock, scene, x, z)
    for _ in range(stock.count(0, 14)):
        x = stock.pick([-1, 1]) * stock.uniform(1.2, max(1.4, width / 2 - 0.9))
        model = stock.pick(stock.vehicles)
        turn = stock.pick([0.0, np.pi]) + (np.pi / 2 if model.size[0] > model.size[2] else 0)
        stock.model(scene, model, (x, 0.02, stock.uniform(-50, 50)), turn + stock.uniform(-0.1, 0.1))
    for _ in range(stock.count(0, 10)):
        _stand(stock, scene, stock.people, *place_on_path())
    for _ in range(stock.count(0, 8)):
        _stand(stock, scene, stock.exterior + stock.bicycles, *place_on_path())
    if stock.chance(0.4):
        wires(stock, scene, stock.pick([-1, 1]) * (width / 2 + 0.5), stock.uniform(12, 30))
    for _ in range(stock.count(0, 8)):
        _sign(stock, scene, *place_on_path())
    if stock.chance(0.4):
        side = stock.pick([-1, 1])
        start = np.array([side * (width / 2 + kerb + 0.2), 0, stock.uniform(-20, 0)])
        fence(stock, scene, start, np.pi / 2, stock.uniform(5, 30))
    for _ in range(4):
        x, z = stock.uniform(-width / 2 - kerb + 0.4, width / 2 + kerb - 0.4), stock.uniform(-25, 25)
        heading = stock.pick([0.0, np.pi]) + stock.rng.normal(0, 0.4)
        y = stock.uniform(1.0, 2.2) if stock.chance(0.8) else stock.uniform(2, 12)
        fall = stock.uniform(-1.8, 0.9) - (stock.uniform(0, 2) if y > 3 else 0)
        scene.camera((x, y, z), (x + np.sin(heading) * 8, y + fall, z + np.cos(heading) * 8))
        if stock.chance(0.35):
            _foreground(stock, scene, x, y, z, heading)
    return scene


def road(stock: Stock) -> Scene:
    """A wide road as a car's camera sees it: far along it, traffic up to 150 m away, houses and trees well aside."""
    scene, lanes = _scene(), stock.count(2, 7)
    width = lanes * stock.uniform(3, 3.7)
    _ground(stock, scene, stock.uniform(0, 1) ** 2 * 40, 60)
    grey = (stock.uniform(0.08, 0.4),) * 3
    scene.slab((0, -0.02, 0), (width, 0.06, 800), Paint(stock.pick(stock.grounds), grey, 0.1, repeat=(0.2,) * 3))
    white = stock.plain(0.7, 1, 0.1)
    for lane in range(lanes + 1):
        x = (lane / lanes - 0.5) * width * 0.97
        if lane in (0, lanes):
            scene.slab((x, 0.012, 0), (0.14, 0.01, 800), white)
            continue
        for z in np.arange(-80, 200, 9.0):
            scene.slab((x, 0.012, z), (0.14, 0.01, 3), white)
    for side in (-1, 1):
        edge = side * (width / 2 + stock.uniform(0.5, 4))
        if stock.chance(0.5):
            path = stock.pattern(0.3, 1.2)
            scene.slab((edge + side * 1.5, 0.05, 0), (3, 0.14, 800), path)
        if stock.chance(0.5):
            z, line, tall = -40.0, width / 2 + stock.uniform(4, 22), stock.uniform(4, 30)
            while z < 220:
                z += _house(stock, scene, side, line, z, tall) + stock.uniform(0, 20)
        for _ in range(stock.count(0, 25)):
            tree(stock, scene, side * (width / 2 + stock.uniform(3, 40)), stock.uniform(-10, 200))
        if stock.chance(0.3):
            fence(stock, scene, np.array([edge, 0, -5]), np.pi / 2, stock.uniform(20, 60))
        step = stock.uniform(20, 40)
        for z in np.arange(-20, 200, step) if stock.chance(0.6) else ():
            lamp, tall = stock.plain(0.1, 0.6, 0.1), stock.uniform(6, 10)
            scene.rod((edge, 0, z), (edge, tall, z), 0.16, lamp)
            scene.rod((edge, tall, z), (edge - side * 2, tall + 0.3, z), 0.1, lamp)
        for _ in range(stock.count(0, 5)):
            _sign(stock, scene, edge, stock.uniform(4, 80))
    for _ in range(stock.count(0, 22)):
        x = (stock.count(0, lanes) + 0.5 - lanes / 2) / lanes * width
        model = stock.pick(stock.vehicles)
        turn = stock.pick([0.0, np.pi]) + (np.pi / 2 if model.size[0] > model.size[2] else 0)
        stock.model(scene, model, (x, 0.02, 6 + 150 * stock.uniform(0, 1) ** 1.6), turn + stock.uniform(-0.05, 0.05))
    for _ in range(stock.count(0, 6)):
        x = stock.pick([-1, 1]) * (width / 2 + stock.uniform(0.5, 4))
        _stand(stock, scene, stock.people, x, stock.uniform(3, 60))
    for _ in range(3):
        x = (stock.count(0, lanes) + 0.5 - lanes / 2) / lanes * width
        y, heading = stock.uniform(1.1, 2.4), stock.rng.normal(0, 0.35)
        aim = (x + 10 * np.sin(heading), y + stock.uniform(-1.2, 0.6), 10 * np.cos(heading))
        scene.camera((x, y, 0.0), aim)
    return scene


def _house(stock: Stock, scene: Scene, side: int, line: float, z: float, tall: float) -> float:
    wide, high, long = stock.uniform(6, 18), tall * stock.uniform(0.6, 1.3), stock.uniform(6, 20)
    if stock.chance(0.82):
        back = stock.uniform(0, 2.5)
        at = (side * (line + wide / 2 + back), high / 2 - 0.2, z + long / 2)
        scale = stock.uniform(0.07, 0.25)
        front = stock.pick(stock.fronts) if stock.chance(0.85) else stock.pick(stock.patterns)
        colour = tuple(float(c) for c in stock.rng.uniform(0.6, 1.1, 3))
        scene.slab(at, (wide, high, long), Paint(front, colour, 0.1, repeat=(scale,) * 3))  # type: ignore[arg-type]
        roof = stock.pattern(0.3, 1)
        if high < 11 and stock.chance(0.6):
            rise = stock.uniform(1.5, 4)
            slope = np.hypot(wide / 2, rise)
            lean = np.arctan2(rise, wide / 2)
            for half in (-1, 1):
                c, s = np.cos(-half * lean), np.sin(-half * lean)
                tilt = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
                middle = (at[0] + half * wide / 4, high - 0.2 + rise / 2, at[2])
                scene.add("box", place(middle, (slope + 0.5, 0.2, long + 0.6), 0, tilt), roof)
        if stock.chance(0.5):
            trim = stock.plain(0.3, 1)
            for level in np.arange(3, high, stock.uniform(2.7, 4)):
                out = (at[0] - side * wide / 2, level, at[2])
                scene.slab(out, (stock.uniform(0.2, 2.2), 0.15, long * stock.uniform(0.4, 0.95)), trim)
    return long + (stock.uniform(0, 0.5) if stock.chance(0.6) else stock.uniform(2, 15))


def _sign(stock: Stock, scene: Scene, x: float, z: float) -> None:
    height, metal = stock.uniform(2, 7), stock.plain(0.1, 0.8, 0.1)
    scene.rod((x, 0, z), (x, height, z), stock.uniform(0.05, 0.15), metal)
    if stock.chance(0.5):
        size = stock.uniform(0.4, 1.2)
        mesh = stock.pick(["box", "cylinder"])
        if mesh == "cylinder":
            disc = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
            scene.add(mesh, place((x, height, z), (size, 0.03, size), stock.angle(), disc), stock.plain(0.2, 1, 0.9))
        else:
            scene.add(
                mesh,
                place((x, height, z), (size, size * stock.uniform(0.4, 1.2), 0.04), stock.angle()),
                stock.picture(),
            )
    else:
        scene.rod((x, height, z), (x + stock.uniform(-1.5, 1.5), height + 0.2, z), 0.06, metal)


def _foreground(stock: Stock, scene: Scene, x: float, y: float, z: float, heading: float) -> None:
    """Something or somebody close to the camera."""
    way = heading + stock.uniform(-0.35, 0.35)
    away = stock.uniform(0.7, 4)
    if stock.chance(0.35) and y < 2.5:
        at = np.array([x + np.sin(way) * away, y + stock.uniform(-0.25, 0.1), z + np.cos(way) * away])
        person(stock, scene, at, heading + stock.uniform(-0.6, 0.6))
        return
    model = stock.pick(stock.people if stock.chance(0.5) else stock.vehicles + stock.exterior)
    away += max(model.size[0], model.size[2]) / 2
    at = (x + np.sin(way) * away, max(0.0, y - 2.2), z + np.cos(way) * away)
    stock.model(scene, model, at, stock.angle())


def country(stock: Stock) -> Scene:
    """A park, a garden, fields, hills: trees, stones, grass, a hut, a path, wind wheels."""
    scene = _scene()
    _ground(stock, scene, stock.uniform(0, 1) ** 1.5 * 90, stock.uniform(6, 40))
    for _ in range(stock.count(0, 5)):
        size = np.array([stock.uniform(4, 14), stock.uniform(3, 10), stock.uniform(4, 14)])
        angle, away = stock.angle(), stock.uniform(14, 70)
        at = (away * np.cos(angle), size[1] / 2 - 0.3, away * np.sin(angle))
        texture = stock.pick(stock.fronts) if stock.chance(0.7) else stock.pick(stock.patterns)
        scene.slab(at, size, Paint(texture, repeat=(0.2,) * 3), turn=stock.angle())
        if stock.chance(0.6):
            peak = (at[0], size[1] + 1, at[2])
            scene.add("cone", place(peak, (size[0] * 1.4, 3, size[2] * 1.4), stock.angle()), stock.pattern())

    def spot(far: float, power: float = 0.6) -> tuple[float, float]:
        angle, away = stock.angle(), 3.0 + stock.uniform(0, 1) ** power * far
        return float(away * np.cos(angle)), float(away * np.sin(angle))

    for _ in range(stock.count(0, 45)):
        tree(stock, scene, *spot(70))
    for _ in range(stock.count(0, 6)):
        size = stock.rng.uniform(0.3, 1.8, 3)
        x, z = spot(20)
        scene.add(stock.pick(stock.kinds["blob"]), place((x, size[1] * 0.2, z), size), stock.pattern(0.5, 2))
    for _ in range(stock.count(0, 6)):
        _stand(stock, scene, stock.people, *spot(25))
    for _ in range(stock.count(0, 6)):
        _stand(stock, scene, stock.exterior + stock.vehicles, *spot(30))
    for _ in range(stock.count(1, 6) if stock.chance(0.3) else 0):
        windmill(stock, scene, *spot(140, 0.3))
    for _ in range(stock.count(0, 3)):
        x, z = spot(15)
        fence(stock, scene, np.array([x, 0, z]), stock.angle(), stock.uniform(4, 30))
    if stock.chance(0.4):
        path = Paint(stock.pick(stock.grounds), (0.5, 0.45, 0.4), repeat=(0.3,) * 3)
        scene.slab((0, -0.01, 0), (stock.uniform(1.2, 4), 0.04, 200), path, turn=stock.angle())
    for _ in range(4):
        x, z = stock.uniform(-3, 3), stock.uniform(-3, 3)
        heading = stock.angle()
        y = stock.uniform(0.4, 2.2) if stock.chance(0.85) else stock.uniform(2, 15)
        scene.camera((x, y, z), (x + np.sin(heading) * 8, y + stock.uniform(-2.0, 1.4), z + np.cos(heading) * 8))
        if stock.chance(0.35):
            _foreground(stock, scene, x, y, z, heading)
        if stock.chance(0.4):
            _grass(stock, scene, x, z, heading)
    return scene


def _grass(stock: Stock, scene: Scene, x: float, z: float, heading: float) -> None:
    texture, tint = stock.pick(stock.blades), tuple(float(c) for c in stock.rng.uniform(0.5, 1, 3))
    for _ in range(stock.count(20, 120)):
        way, away = heading + stock.uniform(-0.7, 0.7), stock.uniform(0.8, 6)
        at = (x + np.sin(way) * away, -0.02, z + np.cos(way) * away)
        size = stock.uniform(0.1, 0.6)
        scene.add("card", place(at, (size * 1.5, size, 1), stock.angle()), Paint(texture, tint), casts_shadow=False)  # type: ignore[arg-type]


def thin(stock: Stock) -> Scene:
    """Thin things in front of far ones: fences, rails, bicycles, poles, branches, wind wheels against the sky."""
    scene = country(stock) if stock.chance(0.6) else street(stock)
    scene.cameras.clear()
    for _ in range(3):
        eye, heading = np.array([stock.uniform(-2, 2), stock.uniform(0.7, 1.9), stock.uniform(-2, 2)]), stock.angle()
        ahead = np.array([np.sin(heading), 0, np.cos(heading)])
        aside = np.array([ahead[2], 0, -ahead[0]])
        floor = eye * [1, 0, 1]
        kind, away = stock.count(0, 5), stock.uniform(0.6, 4)
        if kind == 0:
            start = floor + ahead * away - aside * stock.uniform(2, 8)
            fence(
                stock,
                scene,
                start,
                float(np.arctan2(aside[2], aside[0])) + stock.uniform(-0.6, 0.6),
                stock.uniform(4, 16),
            )
        elif kind == 1:
            for _ in range(stock.count(1, 4)):
                at = floor + ahead * (away + stock.uniform(0, 3)) + aside * stock.uniform(-1.5, 1.5)
                if stock.chance(0.5):
                    stock.model(scene, stock.pick(stock.bicycles), at, stock.angle())
                else:
                    size = stock.uniform(0.5, 0.75)
                    wheel(stock, scene, place(at + [0, size / 2, 0], turn=stock.angle()), size)
        elif kind == 2:
            for _ in range(stock.count(1, 9)):
                at = floor + ahead * (away + stock.uniform(0, 8)) + aside * stock.uniform(-3, 3)
                scene.rod(at, at + [0, stock.uniform(1.5, 7), 0], stock.uniform(0.02, 0.2), stock.surface())
        elif kind == 3:
            bark = stock.pattern(1, 3)
            for _ in range(stock.count(1, 3)):
                at = floor + ahead * (away + stock.uniform(0, 2)) + aside * stock.uniform(-2, 2)
                _branch(
                    stock, scene, at, np.array([0, 1.0, 0]), stock.uniform(0.6, 1.5), stock.uniform(0.03, 0.15), bark, 5
                )
        else:
            for _ in range(stock.count(1, 6)):
                at = floor + ahead * stock.uniform(15, 120) + aside * stock.uniform(-30, 30)
                windmill(stock, scene, float(at[0]), float(at[2]))
        scene.camera(eye, eye + ahead * 5 + aside * stock.uniform(-1, 1) + [0, stock.uniform(-0.9, 1.4), 0])
    return scene
