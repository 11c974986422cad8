"""The scenes outdoors: a stair to a bright sky, a street into the haze, mountains with layered clouds, a night."""

import numpy as np
import prints
import shapes
from figures import Person, person, wind_wheel
from furnish import IRON, WHITE, chair, cup, pot_plant, table
from scenery import Land, car, fence, house, lamp_post, tree, wire
from stage import Air, Camera, Lamp, Paint, Sky, Stage, about, place, rgb


def stair() -> Stage:
    """Somebody holds a wind wheel up on a stair that leads to a bright sky."""
    stage = Stage(
        13, Camera(eye=(0.35, 1.45, 0.6), target=(0.0, 3.35, -7.5), fovy=56.0, far=400.0, size_wh=(1200, 1600))
    )
    slabs = Paint(texture=stage.texture(prints.stone("b5aa98", 2, 2)), repeat=0.5, bump=0.5)
    wall = Paint(texture=stage.texture(prints.stone("a3937c", 6, 3, seed=11)), repeat=0.33, bump=0.8)
    cap = Paint(texture=stage.texture(prints.plaster("cfc5b2", 0.2)), repeat=0.6)
    steps, rise, tread = 26, 0.165, 0.31
    stage.slab(
        (0, -0.06, 1.5),
        (9, 0.12, 8.0),
        Paint(texture=stage.texture(prints.stone("9d9588", 6, 4, seed=3)), repeat=0.4, bump=0.4),
        plane=True,
    )
    for k in range(steps):
        z = -2.2 - k * tread
        stage.slab((0, (k + 1) * rise / 2, z - tread / 2), (3.0, (k + 1) * rise, tread), slabs, plane=True)
        stage.slab((0, (k + 1) * rise - 0.02, z - tread / 2 + 0.012), (3.0, 0.042, tread), cap, plane=True)
    top, end = steps * rise, -2.2 - steps * tread
    stage.slab((0, top / 2, end - 10), (26, top, 20), slabs, plane=True)
    for side in (-1, 1):
        x = side * 1.75
        for k in range(0, steps, 2):
            z = -2.2 - k * tread
            stage.slab((x, ((k + 2) * rise + 0.55) / 2, z - tread), (0.5, (k + 2) * rise + 0.55, 2 * tread), wall)
            stage.slab((x, (k + 2) * rise + 0.59, z - tread), (0.58, 0.09, 2 * tread + 0.03), cap)
        stage.slab((x, 0.75, -1.75), (0.7, 1.5, 0.7), wall, plane=True)
        stage.slab((x, 1.54, -1.75), (0.82, 0.1, 0.82), cap)
        stage.ball((x, 1.8, -1.75), 0.44, cap)
        _railing(stage, side * 1.3, steps, rise, tread)
        stage.slab((side * 5.2, 2.4, -6.0), (6.4, 4.8, 9.0), wall, plane=True)
        stage.slab((side * 5.2, 4.86, -6.0), (6.6, 0.14, 9.2), cap)
    dress = Person(
        height=1.68,
        skin="c9906e",
        hair="2b1a12",
        long_hair=0.45,
        top=Paint(colour=rgb("c8372d"), through=0.15),
        skirt=True,
        bottom=Paint(colour=rgb("27406b"), through=0.15),
        leg=0.2,
        sleeve=0.5,
    )
    k = 16
    feet = np.array([-0.25, k * rise, -2.2 - (k - 0.5) * tread])
    _, (_, palm) = person(stage, feet, 0.25, dress, hands=(None, (0.42, 1.75, 0.2)), gaze=(0.2, -0.15), step=0.12)
    wind_wheel(
        stage, palm + [0.14, 0.62, 0.08], palm - [0.04, 0.18, 0.02], (-0.1, -0.25, 1.0), 0.34, vanes=10, vane=0.036
    )
    tree(stage, (-2.7, top, end - 5), 5.0, 5, (1.1, 1.15, 0.8))
    tree(stage, (3.9, top, end - 8), 6.5, 8, (1.0, 1.1, 0.8))
    lamp_post(stage, (1.55, top, end - 1.2), 3.4)
    wire(stage, (-9, top + 6.8, end - 6), (9, top + 6.2, end - 6), 0.03, 0.5)
    person(
        stage,
        (0.9, top, end - 2.0),
        0.4,
        Person(height=1.78, hair="20150f", top=Paint(colour=rgb("3c4a3a"))),
        step=0.35,
    )
    stage.sky = Sky(
        sun=(0.35, 0.72, -0.75),
        sun_colour=(5.0, 4.6, 4.0),
        sun_size=0.015,
        zenith=(0.75, 1.15, 2.0),
        horizon=(2.2, 2.3, 2.4),
        ground=(0.5, 0.44, 0.36),
        cover=0.5,
        cloud=(3.4, 3.4, 3.4),
        disc=0.5,
        fill=(1.2, 1.15, 1.05),
        fill_from=(0, 0.4, 1),
    )
    stage.shadow_reach, stage.shadow_centre = 11.0, np.array([0, 3.0, -7.0])
    stage.look.exposure, stage.look.bloom = 0.62, 0.09
    return stage


def _railing(stage: Stage, x: float, steps: int, rise: float, tread: float) -> None:
    iron = Paint(colour=rgb("2c3a36"), gloss=0.15)
    label = stage.label(thin=True)
    for k in range(0, steps, 1):
        foot = np.array([x, (k + 1) * rise, -2.2 - (k + 0.5) * tread])
        stage.rod(foot, foot + [0, 0.92, 0], 0.018 if k % 5 else 0.034, iron, label)
    low, high = np.array([x, rise, -2.2 - 0.5 * tread]), np.array([x, steps * rise, -2.2 - (steps - 0.5) * tread])
    for up, thick in ((0.92, 0.042), (0.12, 0.022)):
        stage.rod(low + [0, up, 0], high + [0, up, 0], thick, iron, stage.label(thin=True))


def street() -> Stage:
    """A street far into the haze."""
    stage = Stage(14, Camera(eye=(1.6, 1.75, 6.0), target=(-0.6, 3.0, -30.0), fovy=46.0, near=0.4, far=4000.0))
    rng = stage.rng
    stage.slab(
        (0, -0.05, -700),
        (9.0, 0.1, 1500),
        Paint(texture=stage.texture(_road()), repeat=1 / 9.0, bump=0.2, gloss=0.03, printed=True),
        plane=True,
        casts=0,
    )
    pavement = Paint(texture=stage.texture(prints.stone("a59f94", 8, 4, seed=21)), repeat=0.4, bump=0.3)
    for side in (-1, 1):
        stage.slab((side * 6.1, 0.05, -700), (3.2, 0.16, 1500), pavement, plane=True, casts=0)
        stage.slab((side * 40, -0.1, -900), (65, 0.1, 1900), Paint(colour=rgb("77755f")), casts=0)
    for side in (-1, 1):
        z, number = 12.0, 3 if side < 0 else 7
        while z > -640:
            wide, high = rng.uniform(9, 14), rng.uniform(10, 16.5)
            house(stage, side, 7.7 + rng.uniform(0, 0.25), z, wide, high, number, plane=z > -150)
            z -= wide + (0 if rng.random() < 0.85 else 3.5)
            number += int(rng.integers(1, 5))
    _tower(stage, (-2.0, 0, -700.0))
    for x, z, wide, high in ((-900, -2300, 2600, 170), (700, -2800, 2600, 230), (0, -3400, 5200, 320)):
        stage.ball((x, -20, z), (wide, 2 * high, 500), Paint(colour=rgb("5f6f5c")))
    for z in np.arange(-8, -420, -26):
        for side in (-1, 1):
            if z < -14 or side < 0:
                lamp_post(stage, (side * 4.9, 0.13, z + side * 6), 5.6, arm=-side * 0.9)
            wire(stage, (-7.7, 8.6, z), (7.7, 8.9, z), 0.022, 0.5, 8)
    for x in (-1.5, 1.5):
        wire(stage, (x, 6.6, 5), (x, 6.6, -420), 0.022, 0.0, 14)
    for z in np.arange(-26, -330, -34):
        tree(stage, (-5.6, 0.13, z + 5), rng.uniform(5.5, 8), int(-z), (0.95, 1.05, 0.75))
        tree(stage, (5.7, 0.13, z - 9), rng.uniform(5, 7.5), int(-z) + 1, (1.0, 1.0, 0.7))
    colours = ("a8261f", "2d4f7a", "d9d9d4", "23262a", "4d6b52", "c9a227", "7b8a96")
    for number, z in enumerate((-6.5, -13.5, -21.0, -30.0, -36.5, -48, -61, -70, -96, -130)):
        car(stage, (3.45, 0, z), np.pi + 0.02, colours[number % 7])
    for number, z in enumerate((-17.0, -24.5, -39.0, -55.0, -84, -118)):
        car(stage, (-3.5, 0, z), 0.0, colours[(number + 3) % 7])
    car(stage, (-1.3, 0, -33.0), 0.0, "b8c4cc", lit=True)
    car(stage, (1.2, 0, -74.0), np.pi, "7a1f1f", lit=True)
    walkers = (
        ((-5.6, 0.13, -5.0), 0.2, "8c2f39", "2b3550", 0.0),
        ((-6.6, 0.13, -11.0), 3.0, "d8b04c", "3b3b3b", 0.5),
        ((5.9, 0.13, -10.0), 0.0, "3f6b5c", "23262a", 0.4),
        ((6.5, 0.13, -19.0), 3.1, "c9c4ba", "4c3b2f", 0.0),
        ((-5.3, 0.13, -26.0), 0.1, "4b5f8c", "1f2024", 0.0),
        ((0.4, 0, -46.0), 1.6, "b0403a", "33363d", 0.5),
        ((-6.3, 0.13, -46.0), 0.0, "6f4f7a", "26262b", 0.0),
    )
    for at, turn, top, bottom, hair in walkers:
        person(
            stage,
            at,
            turn,
            Person(
                height=rng.uniform(1.62, 1.84),
                hair=("2a1c14", "6b4423", "14100e")[int(rng.integers(3))],
                long_hair=hair,
                top=Paint(colour=rgb(top)),
                bottom=Paint(colour=rgb(bottom)),
            ),
            step=0.5,
        )
    stage.sky = Sky(
        sun=(-0.55, 0.62, -0.35),
        sun_colour=(4.2, 3.6, 2.8),
        sun_size=0.01,
        zenith=(0.5, 0.66, 1.0),
        horizon=(1.05, 1.08, 1.1),
        ground=(0.25, 0.22, 0.18),
        cover=0.45,
        layers=0.35,
        cloud=(1.35, 1.33, 1.3),
        disc=0.15,
    )
    stage.air = Air(density=0.0026, height=260.0, colour=(0.86, 0.9, 0.96), sunward=(0.5, 0.4, 0.25))
    stage.shadow_reach, stage.shadow_centre = 42.0, np.array([0, 4.0, -32.0])
    stage.look.exposure = 0.92
    return stage


def _road() -> np.ndarray:
    side = 1024
    picture = prints.plaster("85868a", 0.35, side, seed=31)
    x, y = prints.grid(side)
    rails = np.zeros((side, side), bool)
    for middle in (1 / 3, 2 / 3):
        for half in (-0.08, 0.08):
            rails |= np.abs(x - middle - half) < 0.004
    picture[rails, :3] = (150, 152, 156)
    line = (np.abs(x - 0.5) < 0.008) & (y % 0.5 < 0.28)
    picture[line, :3] = (232, 230, 220)
    edge = (np.abs(x - 0.06) < 0.006) | (np.abs(x - 0.94) < 0.006)
    picture[edge, :3] = (190, 188, 182)
    return picture


def _tower(stage: Stage, at: tuple[float, float, float]) -> None:
    stone = Paint(colour=rgb("a39a88"))
    x, _, z = at
    stage.slab((x, 24, z), (11, 48, 11), stone)
    stage.add("cone", place((x, 66, z), (13, 36, 13)), Paint(colour=rgb("4a6b62")))
    stage.slab((x - 16, 11, z - 8), (24, 22, 40), stone)
    for side in (-1, 1):
        stage.slab((x + side * 2.2, 38, z + 5.6), (1.8, 7, 0.3), Paint(colour=rgb("33302c")))
    stage.ball((x, 46 - 15, z + 5.4), (4.2, 4.2, 0.6), Paint(colour=rgb("e8e2d0")))


def mountains() -> Stage:
    """A mountain view with layered clouds, and a fence in front."""
    stage = Stage(15, Camera(eye=(0, 0, 0), target=(0, 0, -1), fovy=46.0, near=1.0, far=60000.0))
    land = Land(22)

    def ground(x: float, z: float) -> float:
        return float(land.height(np.array(float(x)), np.array(float(z))))

    eye = np.array([0.0, ground(0, 0) + 1.9, 0.0])
    stage.camera.eye, stage.camera.target = eye, eye + [0.05, 0.03, -1.0]
    mesh, picture = land.mesh(0.68)
    stage.add(
        stage.mesh(mesh), np.eye(4), Paint(texture=stage.texture(picture), gloss=0.0, bump=0.0, printed=True), casts=1
    )
    wood = Paint(texture=stage.texture(prints.planks("8d7a66", 3, seed=4)), gloss=0.0)
    a, b = (-6.0, ground(-6, -5.2), -5.2), (7.5, ground(7.5, -9.5), -9.5)
    posts = 9
    for k in range(posts - 1):
        p, q = (np.array(a) + (np.array(b) - a) * t for t in (k / (posts - 1), (k + 1) / (posts - 1)))
        p[1], q[1] = ground(p[0], p[2]), ground(q[0], q[2])
        fence(stage, p, q, 2, 1.05, wood)
    _signpost(stage, (1.9, ground(1.9, -4.6), -4.6), wood)
    for x, z, seed in ((-11, -26, 3), (-15, -40, 4), (13, -34, 6), (19, -52, 9), (-22, -70, 12)):
        _fir(stage, (x, ground(x, z) - 0.3, z), 7.0 + seed % 4, seed)
    hiker = Person(
        height=1.76,
        hair="3b2a1c",
        hat="7a6a4a",
        top=Paint(colour=rgb("c8442f")),
        bottom=Paint(colour=rgb("3d4a3a")),
        skin="d8a582",
    )
    _, (palm, _) = person(
        stage, (-2.1, ground(-2.1, -6.0), -6.0), 2.7, hiker, hands=((-0.5, 1.0, 0.3), None), step=0.15
    )
    spot = np.array([palm[0] + 0.05, ground(palm[0], palm[2]), palm[2] - 0.1])
    stage.rod(spot, palm + (palm - spot) * 0.15, 0.02, IRON, stage.label(thin=True))
    rng = stage.rng
    for _ in range(140):
        x, z = rng.uniform(-4, 4), -rng.uniform(2.6, 9)
        y, tone = ground(x, z), ("f2d13a", "ffffff", "d85a8a", "8a6fd0")[int(rng.integers(4))]
        stem = rng.uniform(0.1, 0.25)
        stage.rod((x, y - 0.05, z), (x + 0.01, y + stem, z), 0.006, Paint(colour=rgb("5c8a35")), stage.label(thin=True))
        stage.ball(
            (x + 0.01, y + stem, z),
            (0.05, 0.035, 0.05),
            Paint(colour=rgb(tone), through=0.3),
            stage.label(small=stage.new_small()),
        )
    stage.sky = Sky(
        sun=(-0.75, 0.42, -0.25),
        sun_colour=(4.6, 3.9, 3.0),
        sun_size=0.01,
        zenith=(0.22, 0.42, 0.95),
        horizon=(0.95, 1.0, 1.08),
        ground=(0.2, 0.22, 0.14),
        cover=0.62,
        layers=0.85,
        cloud=(1.45, 1.4, 1.36),
        disc=0.1,
    )
    stage.air = Air(density=0.000085, height=900.0, colour=(0.62, 0.76, 1.0), sunward=(0.5, 0.38, 0.2))
    stage.shadow_reach, stage.shadow_centre = 24.0, eye + [0, 0, -14]
    stage.look.exposure = 0.68
    return stage


def _signpost(stage: Stage, at: tuple[float, float, float], wood: Paint) -> None:
    foot = np.array(at)
    stage.rod(foot - [0, 0.3, 0], foot + [0, 2.3, 0], 0.09, wood, stage.label(thin=True))
    yellow = Paint(colour=rgb("f0c419"))
    for y, turn, long in ((2.12, 0.35, 0.75), (1.86, -0.25, 0.6), (1.62, 0.1, 0.68)):
        stage.slab((0.3, 0, 0.055), (long, 0.17, 0.025), yellow, within=place(foot + [0, y, 0], turn=turn))
        for k in range(7):
            ink = Paint(colour=rgb("1c1a18"))
            stage.slab(
                (0.1 + k * 0.06, 0, 0.069),
                (0.032, 0.06, 0.004),
                ink,
                within=place(foot + [0, y, 0], turn=turn),
                casts=0,
            )


def _fir(stage: Stage, at: tuple[float, float, float], high: float, seed: int) -> None:
    green = Paint(colour=rgb(("2f4f2c", "35562f", "28462b")[seed % 3]), gloss=0.0)
    label, foot = stage.label(), np.array(at)
    stage.rod(foot, foot + [0, high * 0.3, 0], high * 0.05, Paint(colour=rgb("4b3828")), label)
    for k in range(7):
        t = k / 7
        stage.add(
            "cone",
            place(
                foot + [0, high * (0.24 + 0.72 * t), 0],
                np.array([0.42 * (1 - t) + 0.06, 0.3, 0.42 * (1 - t) + 0.06]) * high,
                seed + k,
            ),
            green,
            label,
        )


def night() -> Stage:
    """A square at night after rain: lamps, lit windows, a string of bulbs, somebody with an umbrella."""
    stage = Stage(16, Camera(eye=(-0.6, 1.6, 5.0), target=(0.3, 2.35, -12.0), fovy=50.0, near=0.25, far=900.0))
    rng = stage.rng
    cobbles = Paint(
        texture=stage.texture(prints.stone("5b5a5c", 12, 8, seed=17)),
        repeat=0.45,
        bump=0.6,
        mirror=0.13,
        blur=0.05,
        gloss=0.03,
    )
    stage.slab((0, -0.05, -60), (60, 0.1, 150), cobbles, plane=True, casts=0)
    for side in (-1, 1):
        z, number = 6.0, 2 if side < 0 else 5
        while z > -75:
            wide, high = rng.uniform(8, 11), rng.uniform(9, 14)
            house(stage, side, 7.2 + rng.uniform(0, 0.3), z, wide, high, number, plane=z > -60, lit=0.4)
            z -= wide
            number += int(rng.integers(1, 4))
    for number, x in enumerate(np.arange(-24, 25, 9.0)):
        stage.slab((x, 6.5, -84), (9, 13, 8), Paint(texture=_fronted(stage, number), printed=True), plane=True)
    stage.slab((1.5, 14, -82), (6, 28, 6), Paint(colour=rgb("6d6a66")))
    stage.add("cone", place((1.5, 34, -82), (7, 13, 7)), Paint(colour=rgb("2f3f3f")))
    stage.ball((1.5, 22, -78.9), (3.0, 3.0, 0.5), Paint(colour=rgb("ffe9b8"), glow=1.6))
    for x, z in ((-4.3, -3.0), (4.6, -8.5), (-4.4, -16.0), (4.6, -25.0), (-4.4, -36.0), (4.6, -50.0)):
        light = lamp_post(stage, (x, 0, z), 4.2, lit=True)
        stage.lamps.append(Lamp(at=light, colour=(15, 10.6, 5.6), radius=0.12, reach=45.0, cone=(79.0, 74.0)))
    for z, sag in ((-6.0, 0.9), (-13.0, 1.0), (-21.0, 1.0)):
        a, b = np.array([-7.2, 6.2, z]), np.array([7.2, 6.4, z - 1.5])
        wire(stage, a, b, 0.018, sag, 14)
        for t in np.linspace(0.06, 0.94, 15):
            at = a + (b - a) * t - [0, 4 * sag * t * (1 - t) + 0.09, 0]
            stage.ball(
                at, 0.12, Paint(colour=rgb(("ffd68a", "ffb35c", "ff8a5c", "fff0c9")[int(rng.integers(4))]), glow=7.0)
            )
            stage.items[-1] = stage.items[-1].__class__(**{**vars(stage.items[-1]), "casts": 0})
    _umbrella(stage, (0.55, 0, -3.2))
    couple = (
        ((-2.0, 0, -9.0), 2.9, "2f3a55"),
        ((-1.45, 0, -9.1), 3.1, "7a2b3a"),
        ((2.6, 0, -14.0), 0.3, "3d3d3d"),
        ((0.2, 0, -24.0), 0.0, "26304a"),
    )
    for at, turn, top in couple:
        person(
            stage,
            at,
            turn,
            Person(
                height=rng.uniform(1.65, 1.82),
                hair="17110d",
                long_hair=0.4 if top == "7a2b3a" else 0.0,
                top=Paint(colour=rgb(top)),
                bottom=Paint(colour=rgb("1d1e22")),
            ),
            step=0.4,
        )
    _cafe(stage)
    _bicycle(stage, place((-3.75, 0, -2.4), turn=1.25))
    car(stage, (2.9, 0, -31.0), 0.0, "3a3f46", lit=True)
    car(stage, (5.6, 0, -17.5), np.pi, "7b1f1f")
    stage.sky = Sky(
        sun=(0.32, 0.36, -0.85),
        sun_colour=(0.12, 0.14, 0.2),
        sun_size=0.01,
        zenith=(0.012, 0.02, 0.05),
        horizon=(0.05, 0.06, 0.1),
        ground=(0.03, 0.025, 0.02),
        cover=0.42,
        cloud=(0.075, 0.08, 0.1),
        disc=2.2,
        stars=0.5,
    )
    stage.air = Air(density=0.0022, height=60.0, colour=(0.05, 0.052, 0.07))
    stage.mirror_y = 0.0
    stage.shadow_reach, stage.shadow_centre = 30.0, np.array([0, 3.0, -14.0])
    stage.look.exposure, stage.look.bloom = 1.5, 0.16
    return stage


def _fronted(stage: Stage, number: int) -> str:
    wall, glow = prints.front(number, 4, 4, lit=0.5)
    mixed = np.clip(wall[..., :3] * 0.55 + glow[..., :3] * 0.9, 0, 255).astype(np.uint8)
    return stage.texture(np.dstack([mixed, wall[..., 3:]]))


def _umbrella(stage: Stage, at: tuple[float, float, float]) -> None:
    who = Person(
        height=1.7,
        hair="3d2416",
        long_hair=0.35,
        skin="cf9c7c",
        top=Paint(colour=rgb("b98b2f")),
        bottom=Paint(colour=rgb("22252b")),
    )
    feet = np.array(at)
    body, (grip, _) = person(stage, feet, 0.15, who, hands=((-0.18, 1.15, 0.28), None), step=0.35)
    crown = (body @ [-0.06, 2.12, 0.12, 1])[:3]
    stage.rod(grip - [0, 0.12, 0], crown, 0.016, IRON, stage.label(thin=True))
    red, cream = (
        Paint(colour=rgb("c3272b"), through=0.5, gloss=0.06),
        Paint(colour=rgb("f0e6d2"), through=0.5, gloss=0.06),
    )
    label = stage.label()
    for k in range(8):
        stage.add(_gore(stage), place(crown, turn=k * np.pi / 4), red if k % 2 else cream, label)
    stage.rod(crown, crown + [0.01, 0.07, 0], 0.012, IRON, stage.label(thin=True))


def _gore(stage: Stage) -> str:
    if "gore" not in stage.meshes:

        def function(u: np.ndarray, v: np.ndarray) -> np.ndarray:
            angle = (u - 0.5) * np.pi / 4
            r = 0.58 * np.sin(v * 1.35) / np.sin(1.35) * (1 - 0.05 * v * np.cos(2 * np.pi * (u - 0.5)) ** 2 * 0)
            return np.stack([r * np.sin(angle), -0.27 * v**2 - 0.02 * v * np.sin(np.pi * u), r * np.cos(angle)], -1)

        stage.meshes["gore"] = shapes.surface(function, 9, 13)
    return "gore"


def _cafe(stage: Stage) -> None:
    for k in range(9):
        tone = Paint(colour=rgb("b5322d" if k % 2 else "efe6d0"), through=0.4)
        stage.slab((6.35, 2.75, -6.4 - k * 0.45), (1.7, 0.03, 0.45), tone, within=about("z", 0.0), casts=2)
    stage.lamps.append(Lamp(at=(6.4, 2.55, -8.0), colour=(5.0, 3.5, 1.9), radius=0.1, reach=12.0))
    wood = Paint(colour=rgb("6b4a2e"), gloss=0.05)
    for z in (-6.9, -8.7):
        table(stage, (5.7, 0, z), (0.7, 0.7), None, wood)
        for dz, turn in ((-0.62, 0.0), (0.62, np.pi)):
            chair(stage, (5.7, 0, z + dz), turn, wood)
        cup(stage, (5.6, 0.74, z), 0.08, WHITE, stage.label(small=stage.new_small()))
        stage.add(
            "cylinder",
            place((5.8, 0.79, z + 0.1), (0.06, 0.1, 0.06)),
            Paint(colour=rgb("ffcf7a"), glow=4.0),
            stage.label(small=stage.new_small()),
        )
    pot_plant(stage, (5.1, 0, -5.6), 1.2, "3a6a35", Paint(colour=rgb("7a3d22")))


def _bicycle(stage: Stage, frame: np.ndarray) -> None:
    tube, label = Paint(colour=rgb("2f7a5c"), gloss=0.2), stage.label(thin=True)

    def rod(a: tuple[float, float], b: tuple[float, float], thick: float, paint: Paint = tube) -> None:
        stage.rod((frame @ [0, a[1], a[0], 1])[:3], (frame @ [0, b[1], b[0], 1])[:3], thick, paint, label)

    back, front, seat, head, pedal = (-0.52, 0.34), (0.52, 0.34), (-0.2, 0.86), (0.36, 0.88), (-0.06, 0.3)
    for a, b in ((back, seat), (back, pedal), (pedal, seat), (pedal, head), (seat, head), (head, front)):
        rod(a, b, 0.03)
    rod(seat, (-0.22, 0.98), 0.025)
    rod(head, (0.34, 1.02), 0.025)
    for z, y in (back, front):
        ring = frame @ place((0, y, z), (0.66, 0.66, 0.5), turn=np.pi / 2)
        stage.add("ring", ring, Paint(colour=rgb("141414")), label)
        for k in range(14):
            a = k * np.pi / 7
            rod((z, y), (z + 0.32 * np.cos(a), y + 0.32 * np.sin(a)), 0.005, Paint(colour=rgb("9aa0a6"), gloss=0.3))
    stage.slab((0, 1.0, -0.24), (0.14, 0.05, 0.26), Paint(colour=rgb("2a1a12")), within=frame, label=stage.label())
    stage.slab((0, 1.03, 0.32), (0.56, 0.025, 0.03), IRON, within=frame, label=label)
