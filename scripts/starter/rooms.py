"""Indoor scenes: rooms, kitchens, corridors, stairs.

A room spans x in ±width/2 and z in ±depth/2, its floor at y = 0. Walls are really cut open for windows and doors, so
that what shows through them is as far as it is.
"""

from dataclasses import dataclass

import numpy as np
from assets import Model
from people import person
from textures import F64
from world import Paint, Scene, Stock, place

SIDES = 4
"""0: z = −depth/2, 1: z = +depth/2, 2: x = −width/2, 3: x = +width/2."""
THICK = 0.12


@dataclass
class Room:
    """A room under construction."""

    stock: Stock
    scene: Scene
    width: float
    depth: float
    height: float

    def __post_init__(self) -> None:
        self._occupied: list[tuple[float, float, float, float]] = []

    def length(self, side: int) -> float:
        """Length of a wall in metres."""
        return self.width if side < 2 else self.depth

    def at_wall(self, side: int, along: float, away: float) -> tuple[float, float, float]:
        """x, z of a point `along` (−1 to 1) a wall and `away` metres from it, and the turn that faces the room."""
        x, z = along * self.width / 2, along * self.depth / 2
        return (
            (x, -self.depth / 2 + away, 0.0),
            (x, self.depth / 2 - away, np.pi),
            (-self.width / 2 + away, z, np.pi / 2),
            (self.width / 2 - away, z, -np.pi / 2),
        )[side]

    def free(self, x: float, z: float, width: float, depth: float, turn: float) -> bool:
        """Reserve this much floor; False if it was not free."""
        if abs(np.sin(turn)) > 0.7:
            width, depth = depth, width
        if width > self.width - 0.2 or depth > self.depth - 0.2:
            return False
        box = (x - width / 2, x + width / 2, z - depth / 2, z + depth / 2)
        for other in self._occupied:
            if box[0] < other[1] and box[1] > other[0] and box[2] < other[3] and box[3] > other[2]:
                return False
        self._occupied.append(box)
        return True

    def shell(self, *, openings: float = 0.5) -> None:
        """Floor, ceiling and four walls; `openings`: how often a wall has a window or a door hole."""
        stock, scene = self.stock, self.scene
        floor = stock.pattern(0.3, 1.6, 0.5)
        scene.slab((0, -0.05, 0), (self.width + 0.5, 0.1, self.depth + 0.5), floor)
        ceiling = stock.plain(0.6, 1, 0.1) if stock.chance(0.8) else stock.pattern()
        size = (self.width + 0.5, 0.1, self.depth + 0.5)
        scene.slab((0, self.height + 0.05, 0), size, ceiling, casts_shadow=False)
        common = stock.plain(0.4, 1) if stock.chance(0.6) else stock.pattern(0.2, 1.2)
        outside = False
        for side in range(SIDES):
            wall = common if stock.chance(0.8) else stock.surface()
            cut = stock.chance(openings)
            outside |= cut and self._open_wall(side, wall)
            if not cut:
                self._wall_piece(side, -1, 1, 0, self.height, wall)
            if stock.chance(0.5):
                x, z, turn = self.at_wall(side, 0, 0.01)
                board = (self.length(side), stock.uniform(0.06, 0.2), 0.02)
                scene.slab((x, board[1] / 2, z), board, stock.plain(), turn=turn)
        if outside:
            self._view()

    def _wall_piece(self, side: int, left: float, right: float, low: float, high: float, paint: Paint) -> None:
        if right - left < 1e-3 or high - low < 1e-3:
            return
        x, z, turn = self.at_wall(side, (left + right) / 2, -THICK / 2)
        size = ((right - left) / 2 * self.length(side) + 1e-3, high - low, THICK)
        self.scene.slab((x, (low + high) / 2, z), size, paint, turn=turn, casts_shadow=False)

    def _open_wall(self, side: int, wall: Paint) -> bool:
        """A wall with a hole; whether the open air shows through it."""
        stock, scene = self.stock, self.scene
        door = stock.chance(0.35)
        wide = stock.uniform(0.8, 1.2) if door else stock.uniform(0.7, 2.6)
        low = 0.0 if door else stock.uniform(0.3, 1.1)
        high = 2.05 if door else min(self.height - 0.1, low + stock.uniform(0.8, 1.7))
        half = min(wide / self.length(side), 0.8)
        centre = stock.uniform(-1 + half, 1 - half)
        left, right = centre - half, centre + half
        self._wall_piece(side, -1, left, 0, self.height, wall)
        self._wall_piece(side, right, 1, 0, self.height, wall)
        self._wall_piece(side, left, right, 0, low, wall)
        self._wall_piece(side, left, right, high, self.height, wall)
        frame = stock.plain(0.2, 1, 0.2)
        width = (right - left) / 2 * self.length(side)
        x, z, turn = self.at_wall(side, centre, -0.03)
        bars = stock.count(0, 3)
        for number in range(bars + 2):
            offset = (number / (bars + 1) - 0.5) * 2 * half
            if door and 0 < number < bars + 1:
                continue
            bx, bz, _ = self.at_wall(side, centre + offset, -0.03)
            scene.slab((bx, (low + high) / 2, bz), (0.05, high - low, 0.06), frame, turn=turn)
        for y in (low, high) if not door else (high,):
            scene.slab((x, y, z), (width, 0.05, 0.07), frame, turn=turn)
        if not door and stock.chance(0.4):
            curtain = stock.surface()
            for edge in (left, right):
                cx, cz, _ = self.at_wall(side, np.clip(edge, -0.95, 0.95), 0.06)
                size = (stock.uniform(0.15, 0.6), high - low + 0.5, 0.05)
                scene.slab((cx, (low + high) / 2, cz), size, curtain, turn=turn)
        if not door:
            return True
        self._next_room(side, centre)
        return False

    def _next_room(self, side: int, centre: float) -> None:
        """A bare room behind a door hole, sometimes with a piece of furniture in sight."""
        stock, scene = self.stock, self.scene
        deep, wide = stock.uniform(1.2, 6), stock.uniform(1.5, 4)
        paint, floor = stock.plain(0.3, 1), stock.pattern()
        x, z, turn = self.at_wall(side, centre, -THICK - deep / 2)
        scene.slab((x, -0.06, z), (wide, 0.1, deep), floor, turn=turn, casts_shadow=False)
        scene.slab((x, self.height + 0.06, z), (wide, 0.1, deep), paint, turn=turn, casts_shadow=False)
        bx, bz, _ = self.at_wall(side, centre, -THICK - deep)
        scene.slab((bx, self.height / 2, bz), (wide, self.height, 0.1), stock.surface(), turn=turn, casts_shadow=False)
        for sign in (-1, 1):
            wx, wz, _ = self.at_wall(side, centre + sign * wide / self.length(side), -THICK - deep / 2)
            scene.slab((wx, self.height / 2, wz), (0.1, self.height, deep), paint, turn=turn, casts_shadow=False)
        if stock.chance(0.6):
            stock.model(scene, stock.pick(stock.big), (x, 0, z), turn)

    def _view(self) -> None:
        """The view from windows: sky, ground, trees, houses."""
        stock, scene = self.stock, self.scene
        floor = -stock.uniform(0.2, 12)
        scene.slab((0, floor - 0.1, 0), (300, 0.1, 300), Paint(stock.pick(stock.grounds), stock.tint()))
        for _ in range(stock.count(2, 14)):
            angle, distance = stock.angle(), stock.uniform(8, 60)
            at = (distance * np.sin(angle), floor, distance * np.cos(angle))
            if stock.chance(0.5):
                stock.model(scene, stock.pick(stock.trees), at, stock.angle())
            else:
                size = stock.rng.uniform(4, 15, 3)
                at = (at[0], floor + size[1] / 2, at[2])
                scene.slab(at, size, Paint(stock.pick(stock.fronts), repeat=(0.15,) * 3), turn=stock.angle())
        scene.far = 300.0

    def furnish(self, models: list[Model], count: int, *, at_walls: float = 0.7, turned: float = 0.3) -> None:
        """Stand furniture along the walls or anywhere, and small things on table-like pieces."""
        stock = self.stock
        for _ in range(count):
            model = stock.pick(models)
            width, height, depth = model.size
            if stock.chance(at_walls):
                side = stock.count(0, SIDES)
                room_left = max(0.0, 1 - width / self.length(side))
                away = depth / 2 + stock.uniform(0, 0.06)
                x, z, turn = self.at_wall(side, stock.uniform(-1, 1) * room_left, away)
            else:
                x, z = stock.uniform(-0.35, 0.35) * self.width, stock.uniform(-0.35, 0.35) * self.depth
                turn = float(stock.pick([0, np.pi / 2, np.pi, -np.pi / 2]))
            if self.free(x, z, width, depth, turn):
                if stock.chance(turned):
                    turn += stock.uniform(-0.3, 0.3)
                stock.model(self.scene, model, (x, 0, z), turn)
                if 0.35 < height < 1.25 and width * depth > 0.15:
                    clutter(stock, self.scene, place((x, height, z), turn=turn), width, depth, stock.count(0, 6))

    def decorate(self, pictures: int, lights: int = 2) -> None:
        """Pictures and screens flat on the walls, hung things, carpets, ceiling lights."""
        stock, scene = self.stock, self.scene
        for _ in range(pictures):
            side = stock.count(0, SIDES)
            x, z, turn = self.at_wall(side, stock.uniform(-0.9, 0.9), 0.02)
            if stock.chance(0.25) and stock.hung:
                model = stock.pick(stock.hung)
                x, z, turn = self.at_wall(side, stock.uniform(-0.9, 0.9), model.size[2] / 2)
                stock.model(scene, model, (x, min(model.elevation, self.height - model.size[1]), z), turn)
                continue
            width, height = stock.uniform(0.25, 1.5), stock.uniform(0.25, 1.1)
            if stock.chance(0.15):
                width, height = stock.uniform(1.5, 3), stock.uniform(1.2, 2)
            emission = stock.uniform(0, 0.5) if stock.chance(0.25) else 0.0
            y = max(stock.uniform(1.2, 1.9), height / 2 + 0.1)
            scene.add("box", place((x, y, z), (width, height, 0.03), turn), stock.picture(emission))
            if stock.chance(0.7):
                scene.slab((x, y, z), (width + 0.06, height + 0.06, 0.02), stock.plain(), turn=turn)
        if stock.chance(0.4):
            at = (stock.uniform(-1, 1), 0.006, stock.uniform(-1, 1))
            scene.slab(at, (stock.uniform(1, 3), 0.012, stock.uniform(1, 3)), stock.pattern())
        for _ in range(lights):
            at = np.array([stock.uniform(-0.4, 0.4) * self.width, self.height, stock.uniform(-0.4, 0.4) * self.depth])
            scene.lamps.append(at - [0, stock.uniform(0.1, 0.8), 0])
            if stock.chance(0.6):
                low = stock.uniform(0.02, 0.9)
                glow = Paint(colour=stock.colour(0.8, 1, 0.3), emission=stock.uniform(0.3, 1.2))
                size = stock.uniform(0.15, 0.5)
                mesh = stock.pick(["sphere", "cylinder", "box", "cone"])
                scene.add(mesh, place(at - [0, low, 0], (size, min(size, 0.3), size)), glow, casts_shadow=False)
                scene.rod(at, at - [0, low, 0], 0.012, stock.plain(0, 0.4))

    def litter(self, count: int) -> None:
        """Plain solids standing about."""
        stock = self.stock
        for _ in range(count):
            size = stock.rng.uniform(0.08, 0.5, 3)
            floor = size[1] / 2 if stock.chance(0.85) else stock.uniform(0.3, 2)
            at = (stock.uniform(-0.5, 0.5) * self.width, floor, stock.uniform(-0.5, 0.5) * self.depth)
            paint = stock.pattern(2, 5, 0.5) if stock.chance(0.5) else stock.plain()
            self.scene.add(stock.pick(stock.solids), place(at, size, stock.angle()), paint)

    def thin_legged(self, count: int) -> None:
        """Stools, side tables and floor lamps of rods: what is mostly air between thin parts."""
        stock, scene = self.stock, self.scene
        for _ in range(count):
            x, z = stock.uniform(-0.42, 0.42) * self.width, stock.uniform(-0.42, 0.42) * self.depth
            wood, thick = stock.surface(), stock.uniform(0.012, 0.04)
            if stock.chance(0.25):
                height, wide = stock.uniform(1.2, 1.9), stock.uniform(0.2, 0.4)
                scene.add("cylinder", place((x, 0.01, z), (0.28, 0.02, 0.28)), wood)
                scene.rod((x, 0, z), (x, height, z), thick * 0.8, wood)
                shade = Paint(colour=stock.colour(0.4, 1), emission=stock.uniform(0, 0.8))
                scene.add(stock.pick(["cone", "cylinder"]), place((x, height, z), (wide, wide * 0.8, wide)), shade)
                continue
            height, wide, splay = stock.uniform(0.4, 1.0), stock.uniform(0.28, 0.6), stock.uniform(0, 0.08)
            turn = place((x, 0, z), turn=stock.angle())
            corners = [(sx * wide / 2, sz * wide / 2) for sx, sz in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            feet = [(turn @ [cx * (1 + splay * 3), 0, cz * (1 + splay * 3), 1])[:3] for cx, cz in corners]
            tops = [(turn @ [cx * 0.85, height, cz * 0.85, 1])[:3] for cx, cz in corners]
            for foot, top in zip(feet, tops, strict=True):
                scene.rod(foot, top, thick, wood)
            rung = stock.uniform(0.2, 0.6)
            for number in range(4) if stock.chance(0.6) else ():
                ends = [feet[k % 4] + (tops[k % 4] - feet[k % 4]) * rung for k in (number, number + 1)]
                scene.rod(ends[0], ends[1], thick * 0.7, wood)
            seat = stock.surface() if stock.chance(0.4) else wood
            scene.add("box", turn @ place((0, height, 0), (wide, stock.uniform(0.015, 0.06), wide)), seat)
            if stock.chance(0.4):  # a chair's back of two posts and some slats
                back = [(turn @ [side * wide * 0.42, height * 2, -wide * 0.5, 1])[:3] for side in (-1, 1)]
                for top, end in zip(tops[:2], back, strict=True):
                    scene.rod(top, end, thick, wood)
                for level in np.linspace(0.35, 0.95, stock.count(1, 5)):
                    left, right = (top + (end - top) * level for top, end in zip(tops[:2], back, strict=True))
                    scene.rod(left, right, thick, wood)
            elif stock.chance(0.4):
                clutter(stock, scene, turn @ place((0, height + 0.03, 0)), wide, wide, stock.count(1, 4))

    def scatter(self, count: int) -> None:
        """Scanned or small things on the floor."""
        stock = self.stock
        for _ in range(count):
            at = (stock.uniform(-0.45, 0.45) * self.width, 0.0, stock.uniform(-0.45, 0.45) * self.depth)
            many = stock.scanned if stock.scanned and stock.chance(0.6) else stock.small
            stock.model(self.scene, stock.pick(many), at, stock.angle(), stock.uniform(0.8, 1.8))

    def look(self, count: int) -> None:
        """Cameras: mostly from near a wall across the room, at the height of a hand, a shelf or an eye."""
        stock = self.stock
        for _ in range(count):
            x = stock.uniform(-1, 1) * (self.width / 2 - 0.2)
            z = stock.uniform(-1, 1) * (self.depth / 2 - 0.2)
            if stock.chance(0.55):
                if stock.chance(0.5):
                    x = float(np.sign(x)) * (self.width / 2 - stock.uniform(0.15, 0.6))
                else:
                    z = float(np.sign(z)) * (self.depth / 2 - stock.uniform(0.15, 0.6))
            y = stock.uniform(0.5, 1.9) if stock.chance(0.8) else stock.uniform(0.2, self.height - 0.2)
            across = (stock.uniform(-0.35, 0.35) * self.width, stock.uniform(-0.35, 0.35) * self.depth)
            self.scene.camera((x, y, z), (across[0], stock.uniform(0.2, 1.5), across[1]))


def clutter(stock: Stock, scene: Scene, top: F64, width: float, depth: float, count: int) -> None:
    """Small things on a surface whose middle is the origin of the 4×4 `top`."""
    for _ in range(count):
        at = (top @ [stock.uniform(-0.42, 0.42) * width, 0, stock.uniform(-0.42, 0.42) * depth, 1])[:3]
        kind = stock.rng.random()
        if kind < 0.35 and stock.scanned:
            stock.model(scene, stock.pick(stock.scanned), at, stock.angle(), stock.uniform(0.8, 1.5))
        elif kind < 0.6:
            stock.model(scene, stock.pick(stock.small), at, stock.angle())
        elif kind < 0.75:
            books(stock, scene, at, stock.count(1, 7))
        else:
            size = stock.rng.uniform(0.04, 0.22, 3)
            at = at + [0, size[1] / 2, 0]
            mesh = stock.pick(stock.solids)
            if mesh.startswith("vase"):
                at[1] -= size[1] / 2
            scene.add(mesh, place(at, size, stock.angle()), stock.surface())


def books(stock: Stock, scene: Scene, at: F64, count: int) -> None:
    """A pile of books, paper or boxes."""
    y, turn = float(at[1]), stock.angle()
    for _ in range(count):
        thick = stock.uniform(0.005, 0.05)
        size = (stock.uniform(0.12, 0.24), thick, stock.uniform(0.16, 0.32))
        turn += stock.uniform(-0.3, 0.3)
        paint = stock.picture() if stock.chance(0.4) else stock.plain()
        scene.add("box", place((at[0], y + thick / 2, at[2]), size, turn), paint)
        y += thick


def _room(stock: Stock, width: float, depth: float, height: float) -> Room:
    return Room(stock, Scene(far=40.0, field_of_view=(36.0, 62.0)), width, depth, height)


def room(stock: Stock) -> Scene:
    """A living room, bedroom or office."""
    made = _room(stock, stock.uniform(2.4, 9), stock.uniform(2.4, 9), stock.uniform(2.3, 3.6))
    made.shell()
    made.furnish(stock.big, stock.count(6, 36))
    made.decorate(stock.count(0, 8))
    made.litter(stock.count(0, 10))
    made.thin_legged(stock.count(0, 5))
    made.scatter(stock.count(0, 5))
    for _ in range(stock.count(0, 3)):
        x, z = stock.uniform(-0.4, 0.4) * made.width, stock.uniform(-0.4, 0.4) * made.depth
        stock.model(made.scene, stock.pick(stock.people), (x, 0, z), stock.angle())
    made.look(4)
    return made.scene


def floor(stock: Stock) -> Scene:
    """A rather bare room as a robot or a pet sees it, from 8 to 50 cm above the floor."""
    made = _room(stock, stock.uniform(2.4, 9), stock.uniform(2.4, 9), stock.uniform(2.3, 3.6))
    made.shell()
    made.furnish(stock.big, stock.count(0, 12), at_walls=0.8)
    made.decorate(stock.count(0, 4))
    made.thin_legged(stock.count(0, 6))
    made.scatter(stock.count(0, 9))
    for _ in range(stock.count(0, 3)):
        at = (stock.uniform(-0.4, 0.4) * made.width, 0, stock.uniform(-0.4, 0.4) * made.depth)
        stock.model(made.scene, stock.pick(stock.people), at, stock.angle())
    for _ in range(4):
        heading, y = stock.angle(), stock.uniform(0.08, 0.5)
        x, z = stock.uniform(-0.35, 0.35) * made.width, stock.uniform(-0.35, 0.35) * made.depth
        ahead = (x + 2 * np.sin(heading), y + stock.uniform(-0.6, 0.5), z + 2 * np.cos(heading))
        made.scene.camera((x - np.sin(heading), y, z - np.cos(heading)), ahead)
    return made.scene


def kitchen(stock: Stock) -> Scene:
    """A kitchen or bathroom: units in rows along the walls, cupboards above, tiles."""
    made = _room(stock, stock.uniform(1.8, 4.5), stock.uniform(2.2, 5), stock.uniform(2.3, 2.9))
    made.shell(openings=0.4)
    scene, front = made.scene, stock.surface()
    top, body_height, deep = stock.surface(), stock.uniform(0.8, 0.95), stock.uniform(0.5, 0.65)
    for side in stock.rng.permutation(SIDES)[: stock.count(1, 4)]:
        along = -made.length(side) / 2
        upper = stock.chance(0.7)
        while along < made.length(side) / 2 - 0.3:
            unit = stock.uniform(0.3, 0.7)
            x, z, turn = made.at_wall(side, (along + unit / 2) / made.length(side) * 2, deep / 2)
            if stock.chance(0.8):
                scene.slab((x, body_height / 2, z), (unit - 0.01, body_height, deep), front, turn=turn)
                handle = place((x, body_height - 0.1, z), turn=turn) @ place(
                    (0, 0, deep / 2 + 0.015), (0.12, 0.015, 0.02)
                )
                scene.add("box", handle, stock.plain(0.2, 0.9, 0.1))
                scene.slab((x, body_height + 0.015, z), (unit + 0.01, 0.03, deep + 0.03), top, turn=turn)
                if stock.chance(0.4):
                    surface = place((x, body_height + 0.03, z), turn=turn)
                    clutter(stock, scene, surface, unit, deep, stock.count(1, 4))
            if upper and stock.chance(0.75):
                ux, uz, _ = made.at_wall(side, (along + unit / 2) / made.length(side) * 2, 0.17)
                scene.slab((ux, stock.uniform(1.65, 1.8), uz), (unit - 0.01, 0.7, 0.34), front, turn=turn)
            along += unit
    made.furnish(stock.kitchen, stock.count(2, 9))
    made.thin_legged(stock.count(0, 4))
    made.decorate(stock.count(0, 3))
    made.look(4)
    return scene


def corridor(stock: Stock) -> Scene:
    """A long narrow hall with doors on both sides."""
    made = _room(stock, stock.uniform(1.2, 3), stock.uniform(6, 28), stock.uniform(2.3, 3.4))
    made.shell(openings=0.35)
    scene, door_paint = made.scene, stock.surface()
    for side in (2, 3):
        along = -made.depth / 2 + stock.uniform(0.5, 3)
        while along < made.depth / 2 - 1:
            x, z, turn = made.at_wall(side, along / made.depth * 2, 0.03)
            if stock.chance(0.6):
                paint = door_paint if stock.chance(0.8) else stock.surface()
                scene.slab((x, 1.02, z), (0.85, 2.04, 0.05), paint, turn=turn)
                for edge in (-0.47, 0.47):
                    jamb = place((x, 1.03, z), turn=turn) @ place((edge, 0, 0), (0.07, 2.06, 0.08))
                    scene.add("box", jamb, stock.plain(0.3, 1, 0.2))
            elif stock.chance(0.3):
                stock.model(scene, stock.pick(stock.big + stock.plants), (x, 0, z), turn)
            along += stock.uniform(1.2, 4)
    for z in np.arange(-made.depth / 2 + 1, made.depth / 2, stock.uniform(1.5, 4)):
        glow = Paint(colour=stock.colour(0.9, 1, 0.1), emission=stock.uniform(0.3, 1.2))
        scene.slab((0, made.height - 0.01, z), (stock.uniform(0.2, 1), 0.03, 0.3), glow, casts_shadow=False)
    scene.lamps += [np.array([0, made.height - 0.2, f * made.depth]) for f in (-0.3, 0.0, 0.3)]
    made.decorate(stock.count(0, 6), lights=0)
    for _ in range(stock.count(0, 3)):
        at = (stock.uniform(-0.3, 0.3) * made.width, 0, stock.uniform(-0.4, 0.4) * made.depth)
        stock.model(scene, stock.pick(stock.standing), at, stock.angle())
    for _ in range(3):
        end = stock.pick([-1, 1])
        z = end * made.depth * stock.uniform(0.2, 0.48)
        x, y = stock.uniform(-0.35, 0.35) * made.width, stock.uniform(0.8, 1.9)
        scene.camera((x, y, z), (stock.uniform(-0.4, 0.4) * made.width, y + stock.uniform(-1, 0.4), z - end * 5))
    return scene


def stairs(stock: Stock) -> Scene:
    """A hall with a flight of stairs and its railing, seen from below, from above or from the side."""
    width, rise, tread = stock.uniform(0.8, 2.2), stock.uniform(0.14, 0.2), stock.uniform(0.24, 0.34)
    steps = stock.count(5, 16)
    run, climb = steps * tread, steps * rise
    made = _room(stock, width + stock.uniform(0.6, 4), run + stock.uniform(3, 6), climb + stock.uniform(2.2, 3))
    made.shell(openings=0.3)
    scene, stone, face = made.scene, stock.surface(), stock.surface()
    x0 = stock.uniform(-0.5, 0.5) * (made.width - width)
    z0 = made.depth / 2 - run - stock.uniform(0.8, 1.4)
    open_risers = stock.chance(0.2)
    for step in range(steps):
        y, z = (step + 1) * rise, z0 + (step + 0.5) * tread
        body = 0.05 if open_risers else y
        scene.slab((x0, y - body / 2, z), (width, body, tread), face if step % 2 and stock.chance(0.3) else stone)
        scene.slab((x0, y, z - 0.01), (width + 0.02, 0.02, tread + 0.02), face)
    landing = made.depth / 2 - z0 - run
    scene.slab((x0, climb - 0.1, made.depth / 2 - landing / 2), (width, 0.2, landing), stone)
    rail, thickness = stock.plain(), stock.uniform(0.012, 0.05)
    for side in (-1, 1):
        if stock.chance(0.65):
            x = x0 + side * (width / 2 - 0.04)
            for step in range(0, steps, stock.count(1, 3)):
                y, z = (step + 1) * rise, z0 + (step + 0.5) * tread
                scene.rod((x, y, z), (x, y + 0.9, z), thickness, rail)
            scene.rod((x, rise + 0.9, z0), (x, climb + 0.9, z0 + run), thickness * 1.8, rail)
    made.furnish(stock.big, stock.count(0, 4))
    made.decorate(stock.count(0, 5))
    if stock.chance(0.5):
        step = stock.count(0, steps)
        at = (x0 + stock.uniform(-0.3, 0.3) * width, (step + 1) * rise, z0 + (step + 0.5) * tread)
        stock.model(scene, stock.pick(stock.standing), at, stock.angle())
    eye_y = stock.uniform(0.9, 1.8)
    below = (x0 + stock.uniform(-0.6, 0.6), eye_y, max(-made.depth / 2 + 0.2, z0 - stock.uniform(0.8, 3)))
    scene.camera(below, (x0, climb * stock.uniform(0.2, 0.7), z0 + run / 2))
    above = (x0 + stock.uniform(-0.3, 0.3), climb + eye_y, made.depth / 2 - 0.3)
    scene.camera(above, (x0, climb * stock.uniform(0.0, 0.5), z0 + run * stock.uniform(0, 0.5)))
    aside = (-np.sign(x0 + 1e-6) * (made.width / 2 - 0.25), eye_y, z0 + stock.uniform(-1, 0.3) * run)
    scene.camera(aside, (x0, climb / 2, z0 + run / 2))
    return scene


def portrait(stock: Stock) -> Scene:
    """One or two people close before a webcam, a room behind them."""
    made = _room(stock, stock.uniform(2.4, 7), stock.uniform(2.4, 7), stock.uniform(2.3, 3.2))
    made.shell()
    made.furnish(stock.big, stock.count(2, 16), at_walls=0.85)
    made.decorate(stock.count(0, 7))
    scene = made.scene
    x, z = stock.uniform(-0.3, 0.3) * made.width, -made.depth / 2 + stock.uniform(0.2, 0.9)
    eye = np.array([x, stock.uniform(1.0, 1.6), z])
    for number in range(1 if stock.chance(0.8) else 2):
        away = stock.uniform(0.35, 1.3) + 0.4 * number
        head_at = eye + [stock.uniform(-0.25, 0.25) * away * (1 + 2 * number), stock.uniform(-0.15, 0.12) * away, away]
        person(stock, scene, head_at, stock.uniform(-0.6, 0.6))
    if stock.chance(0.3):
        at = (x, eye[1] - stock.uniform(0.3, 0.5), z + stock.uniform(0.3, 0.7))
        scene.slab(at, (stock.uniform(0.6, 1.8), 0.03, stock.uniform(0.3, 0.8)), stock.surface())
    scene.camera(eye, eye + [stock.uniform(-0.15, 0.15), stock.uniform(-0.12, 0.12), 1])
    turned = eye + [stock.uniform(-0.3, 0.3), stock.uniform(-0.2, 0.2), stock.uniform(-0.1, 0.1)]
    scene.camera(turned, eye + [stock.uniform(-0.1, 0.1), stock.uniform(-0.1, 0.1), 1])
    return scene
