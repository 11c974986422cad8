"""Close-up scenes: desks with screens and cables, tabletops, shelves and cabinets, things floating in the air."""

import numpy as np
from people import hands
from rooms import Room, books, clutter
from world import Paint, Scene, Stock, place


def _around(stock: Stock, width: float, depth: float) -> Room:
    scene = Scene(far=40.0, field_of_view=(32.0, 60.0))
    made = Room(stock, scene, width, depth, stock.uniform(2.3, 3.2))
    made.shell(openings=0.35)
    made.decorate(stock.count(0, 5))
    return made


def desk(stock: Stock) -> Scene:
    """A desk, mostly against a wall: screens, keyboard, lamp, books, mugs, cables, clutter; maybe one's own hand."""
    made = _around(stock, stock.uniform(2.6, 7), stock.uniform(2.6, 7))
    scene, height = made.scene, stock.uniform(0.68, 0.8)
    width, depth = stock.uniform(1, 2.4), stock.uniform(0.55, 0.95)
    free_standing = stock.chance(0.35)
    z = stock.uniform(-0.3, 0.3) * made.depth if free_standing else -made.depth / 2 + depth / 2 + 0.02
    x = stock.uniform(-0.5, 0.5) * (made.width - width)
    made.free(x, z, width, depth + 1.6, 0)
    scene.slab((x, height - 0.02, z), (width, 0.04, depth), stock.surface())
    legs = stock.plain()
    for dx, dz in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        foot = (x + dx * (width / 2 - 0.05), z + dz * (depth / 2 - 0.05))
        scene.rod((foot[0], 0, foot[1]), (foot[0], height, foot[1]), stock.uniform(0.02, 0.06), legs)
    if stock.chance(0.5):
        scene.slab((x + width * 0.3, height / 2 - 0.02, z), (0.4, height - 0.04, depth * 0.9), stock.surface())
    top = place((x, height, z))
    for number in range(stock.count(0, 4)):
        _screen(
            stock, scene, x + (number - 1) * stock.uniform(0.45, 0.65), height, z - depth * stock.uniform(0.1, 0.35)
        )
    if stock.chance(0.6):
        at = (x + stock.uniform(-0.3, 0.3), height + 0.012, z + depth * stock.uniform(0.05, 0.3))
        scene.add("box", place(at, (0.42, 0.02, 0.13), stock.uniform(-0.2, 0.2)), stock.pattern(0.3, 0.4))
    clutter(stock, scene, top, width, depth, stock.count(6, 34))
    for _ in range(stock.count(0, 5)):
        _cable(stock, scene, x, height, z, width, depth)
    for _ in range(stock.count(0, 2)):
        at = (x + stock.uniform(-0.4, 0.4) * width, height, z + stock.uniform(-0.4, 0.1) * depth)
        _lamp(stock, scene, np.array(at))
    stock.model(scene, stock.pick(stock.seats), (x + stock.uniform(-0.4, 0.4), 0, z + depth / 2 + 0.4), stock.angle())
    made.furnish(stock.big, stock.count(1, 12))
    made.litter(stock.count(0, 4))
    for _ in range(4):
        away = stock.uniform(0.3, 1.9)
        eye = np.array([x + stock.uniform(-0.7, 0.7) * width, height + stock.uniform(0.1, 1.1), z + depth * 0.3 + away])
        eye[2] = min(eye[2], made.depth / 2 - 0.15)
        eye[0] = np.clip(eye[0], -made.width / 2 + 0.15, made.width / 2 - 0.15)
        scene.camera(eye, (x + stock.uniform(-0.4, 0.4) * width, height + stock.uniform(-0.2, 0.35), z))
    if stock.chance(0.15):
        eye, target = scene.cameras[0]
        hands(stock, scene, eye, (target - eye) / np.linalg.norm(target - eye))
    return scene


def _screen(stock: Stock, scene: Scene, x: float, height: float, z: float) -> None:
    size, turn = stock.uniform(0.3, 0.62), stock.uniform(-0.5, 0.5)
    lift = stock.uniform(0.0, 0.15)
    frame = stock.plain(0.01, 0.3, 0.1)
    at = place((x, height + lift + size * 0.3, z), turn=turn)
    scene.add("box", at @ place((0, 0, -0.015), (size + 0.02, size * 0.58 + 0.02, 0.03)), frame)
    glow = stock.uniform(0.1, 0.6) if stock.chance(0.7) else 0.0
    picture = stock.picture(glow) if stock.chance(0.8) else Paint(colour=(0.02, 0.02, 0.02), specular=0.5)
    scene.add("box", at @ place((0, 0, 0.001), (size, size * 0.56, 0.004)), picture)
    scene.slab((x, height + 0.008, z), (size * 0.4, 0.016, 0.18), frame, turn=turn)
    scene.rod((x, height, z - 0.02), (x, height + lift + size * 0.3, z - 0.02), 0.035, frame)


def _cable(stock: Stock, scene: Scene, x: float, height: float, z: float, width: float, depth: float) -> None:
    paint = stock.plain(0.01, 0.8)
    point = np.array([x + stock.uniform(-0.45, 0.45) * width, height + 0.005, z + stock.uniform(-0.4, 0.4) * depth])
    heading, thickness = stock.angle(), stock.uniform(0.004, 0.01)
    for _ in range(stock.count(5, 16)):
        heading += stock.uniform(-0.8, 0.8)
        after = point + 0.06 * np.array([np.cos(heading), 0, np.sin(heading)])
        if abs(after[0] - x) > width / 2 or abs(after[2] - z) > depth / 2:
            after[1] -= 0.06
        scene.rod(point, after, thickness, paint)
        point = after


def _lamp(stock: Stock, scene: Scene, foot: np.ndarray) -> None:
    metal, lean = stock.plain(), stock.uniform(-0.3, 0.3)
    elbow = foot + [lean, stock.uniform(0.2, 0.4), stock.uniform(-0.1, 0.1)]
    end = elbow + [-lean + stock.uniform(-0.2, 0.2), stock.uniform(0, 0.2), stock.uniform(0.05, 0.2)]
    scene.add("cylinder", place(foot + [0, 0.01, 0], (0.16, 0.02, 0.16)), metal)
    scene.rod(foot, elbow, 0.014, metal)
    scene.rod(elbow, end, 0.014, metal)
    glow = stock.uniform(0, 1.5) if stock.chance(0.5) else 0.0
    shade = Paint(colour=stock.colour(0.3, 1), emission=glow)
    scene.add("cone", place(end, (0.15, 0.13, 0.15)), shade)
    if glow:
        scene.lamps.insert(0, end - [0, 0.1, 0])


def tabletop(stock: Stock) -> Scene:
    """Things on a table from near, looking down or across."""
    made = _around(stock, stock.uniform(3, 8), stock.uniform(3, 8))
    scene, height = made.scene, stock.uniform(0.4, 1.0)
    width, depth = stock.uniform(0.8, 2.6), stock.uniform(0.6, 1.8)
    made.free(0, 0, width, depth, 0)
    scene.slab(
        (0, height - 0.03, 0), (width, 0.06, depth), stock.pattern(0.5, 2, 0.5) if stock.chance(0.6) else stock.plain()
    )
    scene.slab((0, height / 2 - 0.03, 0), (width * 0.7, height - 0.06, depth * 0.6), stock.surface())
    clutter(stock, scene, place((0, height, 0)), min(width, 1.5), min(depth, 1.2), stock.count(3, 20))
    made.furnish(stock.big, stock.count(2, 14))
    for _ in range(stock.count(0, 3)):
        angle, away = stock.angle(), stock.uniform(1.2, 2)
        stock.model(scene, stock.pick(stock.people), (away * np.cos(angle), 0, away * np.sin(angle)), stock.angle())
    for _ in range(3):
        angle, away = stock.angle(), stock.uniform(0.4, 1.5)
        eye = (away * np.cos(angle), height + stock.uniform(0.1, 1.2), away * np.sin(angle))
        scene.camera(eye, (stock.uniform(-0.3, 0.3), height + stock.uniform(0, 0.2), stock.uniform(-0.3, 0.3)))
    return scene


def shelves(stock: Stock) -> Scene:
    """A wall of shelves or a front of cabinets and drawers, seen from the front or at a slant."""
    made = _around(stock, stock.uniform(3, 7), stock.uniform(2.4, 6))
    scene = made.scene
    width, deep, top = stock.uniform(0.8, min(4, made.width - 0.4)), stock.uniform(0.22, 0.5), stock.uniform(0.9, 2.3)
    back, wood = -made.depth / 2 + 0.01, stock.surface()
    made.free(0, back + deep / 2, width, deep, 0)
    columns, rows = stock.count(1, max(2, int(width / 0.35))), stock.count(2, 7)
    cell, row = width / columns, top / rows
    closed, front = stock.chance(0.3), stock.surface()
    if stock.chance(0.8):
        scene.slab((0, top / 2, back + 0.01), (width, top, 0.02), stock.surface())
    for column in range(columns + 1):
        x = -width / 2 + column * cell
        scene.slab((x, top / 2, back + deep / 2), (0.025, top, deep), wood)
    for level in range(rows + 1):
        scene.slab((0, level * row, back + deep / 2), (width, 0.025, deep), wood)
    for column in range(columns):
        for level in range(rows):
            x, y = -width / 2 + (column + 0.5) * cell, level * row + 0.013
            if closed != stock.chance(0.12):
                out = 0.0 if stock.chance(0.9) else stock.uniform(0.05, 0.3)
                scene.slab((x, y + row / 2, back + deep + 0.01 + out / 2), (cell - 0.01, row - 0.02, 0.02 + out), front)
                knob = place((x, y + row * 0.7, back + deep + 0.03 + out), (0.1, 0.015, 0.02))
                scene.add("box", knob, stock.plain(0.1, 0.9, 0.1))
                continue
            _fill(stock, scene, (x, y, back + deep / 2), cell - 0.04, row - 0.03, deep)
    made.furnish(stock.big, stock.count(0, 8))
    made.litter(stock.count(0, 5))
    for _ in range(3):
        eye = np.array(
            [stock.uniform(-0.6, 0.6) * width, stock.uniform(0.5, 1.8), back + deep + stock.uniform(0.6, 2.6)]
        )
        eye[2] = min(eye[2], made.depth / 2 - 0.15)
        scene.camera(eye, (stock.uniform(-0.4, 0.4) * width, stock.uniform(0.3, 0.8) * top, back))
    return scene


def _fill(stock: Stock, scene: Scene, at: tuple[float, float, float], width: float, height: float, deep: float) -> None:
    """One compartment: upright books, a pile, things, or nothing."""
    kind, (x, y, z) = stock.rng.random(), at
    if kind < 0.4:
        left = -width / 2
        while left < width / 2 - 0.05 and stock.chance(0.93):
            thick, tall = stock.uniform(0.012, 0.05), height * stock.uniform(0.5, 0.95)
            reach = deep * stock.uniform(0.5, 0.85)
            lean = stock.uniform(0, 0.2) if stock.chance(0.1) else 0.0
            c, s = np.cos(lean), np.sin(lean)
            tilt = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
            matrix = place(
                (x + left + thick / 2, y + tall / 2, z - deep / 2 + reach / 2), (thick, tall, reach), 0, tilt
            )
            scene.add("box", matrix, stock.picture() if stock.chance(0.2) else stock.plain(0.05, 0.9, 0.8))
            left += thick + 0.002
    elif kind < 0.5:
        books(stock, scene, np.array([x, y, z]), stock.count(1, 6))
    elif kind < 0.85:
        for _ in range(stock.count(1, 4)):
            size = stock.rng.uniform(0.05, min(0.25, width, height), 3)
            spot = (x + stock.uniform(-0.35, 0.35) * width, y, z + stock.uniform(-0.3, 0.3) * deep)
            if stock.chance(0.4):
                model = stock.pick(stock.small)
                scale = min(1.0, height / (model.size[1] + 1e-3), width / (max(model.size[0], model.size[2]) + 1e-3))
                stock.model(scene, model, spot, stock.angle(), scale)
            else:
                mesh = stock.pick(stock.solids)
                lift = 0 if mesh.startswith("vase") else size[1] / 2
                scene.add(mesh, place((spot[0], y + lift, spot[2]), size, stock.angle()), stock.surface())


def floating(stock: Stock) -> Scene:
    """Anything at any distance and angle before a patterned ground, so that no prior knowledge of scenes helps."""
    scene = Scene(far=100.0, field_of_view=(36.0, 60.0))
    if stock.chance(0.5):
        radius = stock.uniform(6, 25)
        backdrop = Paint(stock.pick(stock.patterns + stock.photos), emission=0.15)
        scene.add("sphere", place((0, 0, 0), (2 * radius,) * 3), backdrop, casts_shadow=False)
    else:
        scene.outdoors = True
    if stock.chance(0.6):
        scene.slab((0, -1.5, 0), (60, 0.1, 60), stock.pattern(0.1, 0.8))
    for _ in range(stock.count(6, 40)):
        away = stock.uniform(0.8, 9)
        a, b = stock.rng.normal(0, 0.55, 2)
        at, size = (away * np.sin(a), away * np.sin(b) * 0.8, -away * np.cos(a)), away * stock.uniform(0.06, 0.35)
        if stock.chance(0.45):
            model = stock.pick(stock.assets.models)
            stock.model(scene, model, at, stock.angle(), 2 * size / max(model.size))
        elif stock.chance(0.3):
            _thin_thing(stock, scene, np.array(at), 2 * size)
        else:
            turn, _ = np.linalg.qr(stock.rng.normal(0, 1, (3, 3)))
            repeat = tuple(float(r) for r in stock.rng.uniform(0.5, 3, 3))
            paint = stock.surface()
            paint = Paint(paint.texture, paint.colour, paint.specular, paint.shininess, 0.0, repeat, paint.bump)  # type: ignore[arg-type]
            mesh = stock.pick(["box", "cylinder", "sphere", "cone", *stock.kinds["blob"], *stock.kinds["vase"]])
            scene.add(mesh, place(at, stock.rng.uniform(0.2, 1.3, 3) * size * 2, stock.angle(), turn), paint)
    for _ in range(2):
        scene.camera((0, 0, stock.uniform(0, 1)), (stock.uniform(-0.4, 0.4), stock.uniform(-0.3, 0.3), -1))
    return scene


def _thin_thing(stock: Stock, scene: Scene, at: np.ndarray, size: float) -> None:
    """Crossed rods, a lattice, a hoop, a spoked wheel."""
    paint, kind = stock.surface(), stock.count(0, 3)
    turn, _ = np.linalg.qr(stock.rng.normal(0, 1, (3, 3)))
    thick = size * stock.uniform(0.01, 0.05)
    if kind == 0:
        for _ in range(stock.count(1, 9)):
            a, b = stock.rng.normal(0, 0.6, (2, 3)) * size
            scene.rod(at + a, at + b, thick, paint)
    elif kind == 1:
        for line in np.linspace(-0.5, 0.5, stock.count(3, 9)):
            for a, b in (((line, -0.5, 0), (line, 0.5, 0)), ((-0.5, line, 0), (0.5, line, 0))):
                scene.rod(at + turn @ a * size, at + turn @ b * size, thick, paint)
    else:
        wheel(stock, scene, place(at, (1, 1, 1), 0, turn), size)


def wheel(stock: Stock, scene: Scene, matrix: np.ndarray, diameter: float) -> None:
    """A spoked wheel in the x-y plane of `matrix`."""
    rim, spoke = stock.plain(0, 0.5, 0.2), stock.plain(0.2, 0.9, 0.1)
    scene.add("hoop", matrix @ place((0, 0, 0), (diameter,) * 3), rim)
    count, middle = stock.count(6, 29), matrix[:3, 3]
    for angle in np.arange(count) * 2 * np.pi / count:
        end = (matrix @ [np.cos(angle) * diameter / 2, np.sin(angle) * diameter / 2, 0, 1])[:3]
        scene.rod(middle, end, diameter * 0.006, spoke)
