"""The scenes indoors: a restaurant, a museum, a shelf of small things, a portrait before a busy wall."""

from itertools import pairwise

import numpy as np
import prints
import shapes
from figures import Person, person, skull, wind_wheel
from furnish import BRASS, IRON, WHITE, WOOD, bottle, chair, cup, glass, pendant, plate, pot_plant, table
from stage import F64, Camera, Lamp, Paint, Sky, Stage, about, place, rgb


def restaurant() -> Stage:
    """A child with a coloured wind wheel among the tables of a restaurant."""
    stage = Stage(11, Camera(eye=(0.1, 1.28, 0.35), target=(0.0, 0.93, -3.0), fovy=47.0, far=60.0))
    floor = Paint(texture=stage.texture(prints.planks("8f6a45", 8)), repeat=0.55, gloss=0.05, shininess=30.0, bump=0.4)
    wall = Paint(texture=stage.texture(prints.plaster("dfcfae")), repeat=0.3)
    panel = Paint(texture=stage.texture(prints.planks("5e3a22", 10, seed=3)), repeat=0.8, gloss=0.05)
    stage.slab((0, -0.05, -4), (9, 0.1, 12), floor, plane=True, casts=0)
    stage.slab((0, 1.5, -8.05), (9, 3.0, 0.1), wall, plane=True, casts=0)
    for x in (-4.05, 4.05):
        stage.slab((x, 1.5, -4), (0.1, 3.0, 12), wall, plane=True, casts=0)
        stage.slab((x - np.sign(x) * 0.06, 0.5, -4), (0.04, 1.0, 12), panel, plane=True, casts=0)
    stage.slab((0, 3.0, -4), (9, 0.1, 12), Paint(colour=rgb("e9dfc8")), plane=True, casts=0)
    for z in np.arange(-7.0, 0.1, 1.4):
        stage.slab((0, 2.88, z), (8.0, 0.16, 0.18), panel, casts=0)
    _windows(stage)
    _bar(stage)
    cloth = Paint(texture=stage.texture(prints.gingham()), repeat=1.25, printed=True)
    blue = Paint(texture=stage.texture(prints.gingham("2f5d9b")), repeat=1.25, printed=True)
    for at, size, paint in (
        ((1.42, 0, -1.75), (1.0, 0.9), cloth),
        ((-1.75, 0, -3.5), (1.0, 1.0), blue),
        ((1.5, 0, -4.6), (1.1, 1.0), cloth),
        ((-1.2, 0, -6.0), (1.0, 1.0), cloth),
    ):
        table(stage, at, size, paint)
    for x, z, turn in (
        (1.35, -2.5, 0.1),
        (-1.1, -3.45, -1.5),
        (0.75, -4.55, 1.6),
        (-0.55, -6.0, -1.6),
        (-1.2, -5.2, np.pi),
        (2.35, -1.7, -1.6),
    ):
        chair(stage, (x, 0, z), turn)
    _laid(stage)
    for at, colour in (
        ((1.35, 1.95, -1.9), "a52a22"),
        ((-1.7, 1.9, -3.5), "a52a22"),
        ((1.5, 1.9, -4.6), "a52a22"),
        ((-1.2, 1.9, -6.0), "a52a22"),
    ):
        pendant(stage, at, 2.95, Paint(colour=rgb(colour), gloss=0.1, through=0.2))
        stage.lamps.append(Lamp(at=np.array(at) - [0, 0.03, 0], colour=(2.6, 1.9, 1.1), radius=0.05, reach=8.0))
    striped = stage.texture(prints.gingham("2f7fbf", "f7f4ea", squares=16))
    child = Person(
        height=1.14,
        child=True,
        skin="e3b391",
        hair="5a3a20",
        tail=True,
        smile=0.9,
        sleeve=0.5,
        leg=0.3,
        skirt=True,
        top=Paint(colour=rgb("f3c530")),
        bottom=Paint(texture=striped, printed=True),
        shoes="c33b3b",
    )
    feet = np.array([0.22, 0, -2.05])
    _, (palm, _) = person(stage, feet, 0.05, child, hands=((-0.3, 0.76, 0.22), None), gaze=(-0.15, 0.0))
    hub = palm + [-0.12, 0.42, 0.03]
    wind_wheel(stage, hub, palm + [0.05, -0.17, -0.01], (0.15, 0.1, 1.0), 0.19, vane=0.012)
    guests = (
        (
            (-2.35, 0, -3.4),
            1.45,
            Person(height=1.72, hair="1d1613", top=Paint(colour=rgb("31506b"))),
            ((0.05, 0.95, 0.42), (0.2, 0.9, 0.4)),
        ),
        (
            (-1.05, 0, -3.5),
            -1.55,
            Person(height=1.66, hair="7a4a22", long_hair=0.55, skin="c98d69", top=Paint(colour=rgb("a13c5a"))),
            ((-0.2, 0.92, 0.4), (0.1, 1.0, 0.35)),
        ),
        (
            (0.82, 0, -4.55),
            1.6,
            Person(height=1.75, hair="9a9590", top=Paint(colour=rgb("4c5a3a")), skin="e0b090"),
            (None, None),
        ),
        (
            (2.25, 0, -4.6),
            -1.55,
            Person(height=1.64, hair="20140e", long_hair=0.4, skin="8d5b3d", top=Paint(colour=rgb("d9d2c2"))),
            ((-0.1, 0.95, 0.4), None),
        ),
        ((-1.75, 0, -6.0), 1.5, Person(height=1.7, hair="35251a", top=Paint(colour=rgb("7d2f2f"))), (None, None)),
    )
    for at, turn, who, reach in guests:
        person(stage, at, turn, who, hands=reach, seated=0.47)
    waiter = Person(
        height=1.8, hair="17110d", top=Paint(colour=rgb("efece6")), bottom=Paint(colour=rgb("1b1b1f")), skin="c08f70"
    )
    person(stage, (0.35, 0, -6.4), -0.5, waiter, hands=((-0.3, 1.25, 0.3), None), step=0.3)
    pot_plant(stage, (-3.4, 0, -7.2), 1.7, "3f7a35", Paint(colour=rgb("a5522f")))
    pot_plant(stage, (3.3, 0, -5.9), 1.5, "4c8a3a", Paint(colour=rgb("a5522f")))
    stage.sky = Sky(
        sun=(-1.0, 0.75, 0.55),
        sun_colour=(1.5, 1.4, 1.25),
        sun_size=0.22,
        zenith=(0.34, 0.29, 0.22),
        horizon=(0.42, 0.37, 0.3),
        ground=(0.16, 0.11, 0.07),
        fill=(1.1, 1.15, 1.2),
        fill_from=(-1, 0.25, 0.2),
    )
    stage.panes.append(((-4, 1.0, -6.5), (0, 0, 5.5), (0, 1.4, 0), (2.2, 2.3, 2.4)))
    stage.shadow_reach, stage.shadow_centre = 5.5, np.array([0, 0.8, -3.6])
    stage.look.exposure = 0.92
    return stage


def _windows(stage: Stage) -> None:
    light = Paint(colour=rgb("f4f8ff"), glow=2.4)
    curtain = Paint(colour=rgb("efe6d2"), through=0.5, glow=0.35)
    for z in (-2.2, -4.2, -6.2):
        stage.slab((-3.985, 1.75, z), (0.02, 1.5, 1.2), light, casts=0)
        frame = stage.label(thin=True)
        for dz in (-0.6, 0.0, 0.6):
            stage.slab((-3.96, 1.75, z + dz), (0.03, 1.5, 0.04), WHITE, label=frame, casts=0)
        for y in (1.0, 1.9, 2.5):
            stage.slab((-3.96, y, z), (0.03, 0.04, 1.2), WHITE, label=frame, casts=0)
        for dz in (-0.72, 0.72):
            stage.slab((-3.92, 1.7, z + dz), (0.05, 1.7, 0.26), curtain, casts=0)
    for number, (x, y) in enumerate(((-2.6, 1.85), (-1.5, 1.8), (3.1, 1.85))):
        picture = Paint(texture=stage.texture(prints.landscape(number)), printed=True)
        stage.slab((x, y, -7.985), (0.8, 0.6, 0.03), WOOD, casts=0)
        stage.slab((x, y, -7.965), (0.68, 0.48, 0.012), picture, casts=0)


def _bar(stage: Stage) -> None:
    dark = Paint(texture=stage.texture(prints.planks("4a2c1a", 7, seed=8)), repeat=0.9, gloss=0.06)
    stage.slab((1.4, 0.55, -7.0), (3.2, 1.1, 0.5), dark)
    stage.slab(
        (1.4, 1.12, -6.98), (3.4, 0.05, 0.65), Paint(colour=rgb("2c1a10"), gloss=0.15, shininess=60.0), plane=True
    )
    stage.slab((1.4, 1.75, -7.96), (3.2, 1.1, 0.06), Paint(colour=rgb("3a2416")), casts=0)
    rng = stage.rng
    for y in (1.3, 1.72, 2.14):
        stage.slab((1.4, y, -7.85), (3.2, 0.03, 0.22), WOOD)
        for x in np.arange(-0.1, 2.95, 0.13):
            tone = ("2f5a2c", "7a3b14", "a8b8b0", "1c2a4a", "8c1f1f", "c9a23a")[int(rng.integers(6))]
            high = rng.uniform(0.22, 0.31)
            if rng.random() < 0.85:
                bottle(
                    stage,
                    (x + rng.uniform(-0.02, 0.02), y + 0.015, -7.84),
                    high,
                    Paint(colour=rgb(tone), gloss=0.25, shininess=90.0),
                )
    for x in (0.1, 0.9, 1.7, 2.5):
        stage.rod((x, 0, -6.35), (x, 0.72, -6.35), 0.05, IRON, stage.label(thin=True))
        stage.add("cylinder", place((x, 0.74, -6.35), (0.34, 0.05, 0.34)), Paint(colour=rgb("7d2320"), gloss=0.08))


def _laid(stage: Stage) -> None:
    """What stands on the tables: small things; those on the near one are marked."""
    red, water = (
        Paint(colour=rgb("6e0f1c"), gloss=0.3, shininess=120.0),
        Paint(colour=rgb("cfe0e6"), gloss=0.4, shininess=120.0),
    )
    green = Paint(colour=rgb("24502c"), gloss=0.3, shininess=120.0)
    paper = Paint(colour=rgb("f1e7c9"), printed=True)

    def small() -> int:
        return stage.label(small=stage.new_small())

    y = 0.74
    plate(stage, (1.2, y, -1.55), 0.25, WHITE, small())
    for dx, dz, tone in (
        (-0.03, 0.0, "c8402a"),
        (0.04, 0.03, "e9b23a"),
        (0.0, -0.05, "5f8a2f"),
        (0.05, -0.03, "c8402a"),
    ):
        stage.ball((1.2 + dx, y + 0.035, -1.55 + dz), 0.06, Paint(colour=rgb(tone), gloss=0.1), stage.label())
    glass(stage, (1.03, y, -1.72), 0.2, red, small())
    glass(stage, (1.55, y, -1.9), 0.19, water, small())
    bottle(stage, (1.32, y, -1.95), 0.31, green, small(), paper)
    number = stage.new_small()
    for x, lid in ((1.12, "d9d9d9"), (1.18, "3a3a3a")):
        stage.add("cylinder", place((x, y + 0.035, -2.02), (0.04, 0.07, 0.04)), WHITE, stage.label(small=number))
        stage.ball(
            (x, y + 0.075, -2.02), (0.04, 0.03, 0.04), Paint(colour=rgb(lid), gloss=0.2), stage.label(small=number)
        )
    cup(stage, (1.62, y, -1.5), 0.085, Paint(colour=rgb("2c6fae"), gloss=0.1, shininess=60.0), small())
    for dx in (-0.17, 0.17):
        stage.slab(
            (1.2 + dx, y + 0.004, -1.55),
            (0.018, 0.006, 0.2),
            Paint(colour=rgb("c9ccd0"), gloss=0.5),
            label=stage.label(thin=True),
        )
    for x, z in ((-1.9, -3.3), (-1.5, -3.7), (1.3, -4.4), (1.7, -4.8), (-1.3, -5.9)):
        plate(stage, (x, y, z), 0.24, WHITE)
        glass(stage, (x + 0.22, y, z - 0.1), 0.19, red)
    for x, z in ((-1.75, -3.5), (1.5, -4.6), (-1.15, -6.1)):
        bottle(stage, (x, y, z), 0.3, green, 0, paper)


def museum() -> Stage:
    """A hall with a printed tile floor and glass cases."""
    stage = Stage(12, Camera(eye=(-0.9, 1.62, 2.4), target=(0.15, 1.0, -5.0), fovy=52.0, far=80.0))
    floor = Paint(texture=stage.texture(prints.tiles()), repeat=0.8, gloss=0.03, mirror=0.05, blur=0.02, printed=True)
    wall = Paint(texture=stage.texture(prints.plaster("b9c2b4", 0.1)), repeat=0.2)
    pale = Paint(texture=stage.texture(prints.plaster("e6dfcf", 0.08, seed=9)), repeat=0.3)
    marble = Paint(texture=stage.texture(prints.plaster("d6d2c8", 0.3, seed=5)), repeat=0.8, gloss=0.05, shininess=40.0)
    stage.slab((0, -0.05, -8), (12, 0.1, 24), floor, plane=True, casts=0)
    stage.slab((0, 3, -20.05), (12, 6, 0.1), wall, plane=True, casts=1)
    stage.slab((-6.05, 3, -8), (0.1, 6, 24), wall, plane=True, casts=1)
    stage.slab((0, 6.05, -8), (12.4, 0.1, 24), pale, plane=True, casts=1)
    stage.slab((6.1, 0.55, -8), (0.2, 1.1, 24), wall, plane=True, casts=1)
    stage.slab((6.1, 5.5, -8), (0.2, 1.0, 24), wall, casts=1)
    for z in np.arange(2.0, -20.1, -3.6):
        stage.slab((6.1, 3.0, z), (0.5, 4.0, 1.5), pale, casts=1)
        centre = z - 1.8
        bars = stage.label(thin=True)
        for dz in (-0.7, 0.0, 0.7):
            stage.slab((6.1, 3.05, centre + dz), (0.05, 3.9, 0.05), WHITE, label=bars, casts=1)
        for y in (2.0, 3.0, 4.0):
            stage.slab((6.1, y, centre), (0.05, 0.05, 2.1), WHITE, label=bars, casts=1)
    for x in (-5.75, 5.7):
        stage.slab((x, 0.15, -8), (0.12, 0.3, 24), Paint(colour=rgb("6b5a48"), gloss=0.04), casts=0)
    for z in np.arange(-1.5, -19, -3.6):
        for x in (-4.4, 4.4):
            stage.rod((x, 0.3, z), (x, 5.4, z), 0.56, marble)
            stage.slab((x, 0.15, z), (0.85, 0.3, 0.85), marble)
            stage.slab((x, 5.55, z), (0.9, 0.3, 0.9), marble)
            stage.add("ring", place((x, 0.38, z), (0.62, 0.62, 1.6), rotation=about("x", np.pi / 2)[:3, :3]), marble)
        stage.slab((0, 5.85, z), (12, 0.3, 0.6), pale, casts=1)
    _cases(stage)
    gilt = Paint(colour=rgb("a87f32"), gloss=0.3, shininess=40.0)
    for number, z in enumerate((-0.2, -3.3, -6.9, -10.5, -14.1)):
        stage.slab((-5.97, 2.3, z), (0.06, 1.5, 1.9), gilt, casts=0)
        stage.slab(
            (-5.93, 2.3, z),
            (0.04, 1.2, 1.6),
            Paint(texture=stage.texture(prints.landscape(number + 3)), printed=True),
            casts=0,
        )
    stage.slab((0, 2.4, -19.97), (3.4, 2.6, 0.08), gilt, casts=0)
    stage.slab(
        (0, 2.4, -19.92), (3.0, 2.2, 0.04), Paint(texture=stage.texture(prints.landscape(21)), printed=True), casts=0
    )
    _rope(stage)
    visitor = Person(
        height=1.74, hair="2a1c14", top=Paint(colour=rgb("3f4f7a")), bottom=Paint(colour=rgb("3a3a3a")), skin="d3a07e"
    )
    person(stage, (-1.9, 0, -7.4), 2.2, visitor, step=0.12)
    other = Person(
        height=1.66, hair="8a5a2c", long_hair=0.5, top=Paint(colour=rgb("b23a48")), bottom=Paint(colour=rgb("26262b"))
    )
    person(stage, (-2.6, 0, -7.1), 1.9, other, step=0.2)
    person(stage, (2.9, 0, -12.0), -2.4, Person(height=1.78, hair="b5aea5", top=Paint(colour=rgb("6d6a5f"))), step=0.25)
    stage.sky = Sky(
        sun=(1.0, 0.95, 0.28),
        sun_colour=(7.0, 6.3, 5.2),
        sun_size=0.012,
        zenith=(0.55, 0.6, 0.7),
        horizon=(0.75, 0.78, 0.82),
        ground=(0.3, 0.25, 0.2),
        fill=(1.2, 1.25, 1.3),
        fill_from=(1, 0.3, 0.1),
        cover=0.35,
    )
    for z in (-1.6, -5.2, -8.8, -12.4):
        stage.panes.append(((6, 1.1, z), (0, 0, 2.1), (0, 3.9, 0), (3.2, 3.3, 3.4)))
    stage.mirror_y = 0.0
    stage.shadow_reach, stage.shadow_centre = 13.0, np.array([0, 1.5, -7.0])
    stage.look.exposure = 0.85
    return stage


def _cases(stage: Stage) -> None:
    wood = Paint(texture=stage.texture(prints.planks("5a3420", 6, seed=5)), repeat=1.1, gloss=0.08, shininess=40.0)
    linen = Paint(colour=rgb("d9d3c3"))
    terracotta = Paint(texture=stage.texture(prints.damask("a8522c", "1d1512")), gloss=0.08, printed=True)
    stone = Paint(colour=rgb("cfc8ba"), gloss=0.03)
    bronze = Paint(colour=rgb("4f6b52"), gloss=0.2, shininess=30.0)
    places = (
        (-1.35, -1.4, 0.8),
        (1.5, -0.9, 0.8),
        (0.2, -4.3, 1.0),
        (-2.6, -5.2, 0.8),
        (2.7, -4.4, 0.8),
        (0.3, -8.3, 1.0),
        (2.6, -8.0, 0.8),
        (-0.2, -12.5, 1.1),
        (-2.7, -11.0, 0.8),
    )
    for number, (x, z, wide) in enumerate(places):
        stage.slab((x, 0.42, z), (wide, 0.84, wide), wood)
        stage.slab((x, 0.855, z), (wide + 0.06, 0.03, wide + 0.06), wood)
        stage.slab((x, 0.875, z), (wide - 0.06, 0.012, wide - 0.06), linen)
        _glass_box(stage, x, z, wide, 0.87, 1.72)
        y, kind = 0.882, number % 5
        if kind == 0:
            profile = [
                (0.0, 0.0),
                (0.09, 0.0),
                (0.06, 0.04),
                (0.12, 0.12),
                (0.2, 0.27),
                (0.19, 0.36),
                (0.1, 0.43),
                (0.07, 0.5),
                (0.08, 0.56),
                (0.12, 0.58),
                (0.0, 0.57),
            ]
            stage.turned(
                [(r * 1.1, h * 1.1) for r, h in profile], (x, y, z), terracotta, stage.label(small=stage.new_small())
            )
        elif kind == 1:
            _bust(stage, place((x, y, z), turn=-0.3), stone)
        elif kind == 2:
            for k, (dx, dz, size) in enumerate(((-0.22, 0.1, 0.2), (0.18, -0.05, 0.3), (0.02, 0.22, 0.14))):
                tone = ("7a4fa0", "4f8f8a", "c98f2e")[k]
                mesh = stage.mesh(shapes.blob(np.random.default_rng(k + 40)))
                stage.add(
                    mesh,
                    place((x + dx, y + size * 0.42, z + dz), np.ones(3) * size),
                    Paint(colour=rgb(tone), gloss=0.3, shininess=50.0),
                    stage.label(small=stage.new_small()),
                )
        elif kind == 3:
            number_of = stage.label(small=stage.new_small())
            stage.add("cylinder", place((x, y + 0.03, z), (0.3, 0.06, 0.3)), stone, stage.label())
            stage.ball((x, y + 0.28, z), (0.3, 0.36, 0.36), bronze, number_of)
            stage.slab((x, y + 0.5, z), (0.03, 0.2, 0.42), Paint(colour=rgb("8c1f1f")), label=number_of)
        else:
            for k in range(5):
                angle = k * 1.257
                at = (x + 0.22 * np.cos(angle), y, z + 0.22 * np.sin(angle))
                small = stage.label(small=stage.new_small())
                stage.turned(
                    [(0, 0), (0.05, 0), (0.03, 0.03), (0.07, 0.1), (0.04, 0.18), (0.05, 0.2), (0, 0.2)],
                    at,
                    BRASS,
                    small,
                )


def _glass_box(stage: Stage, x: float, z: float, wide: float, low: float, high: float) -> None:
    pane, middle, tall = Paint(pane=True), (low + high) / 2, high - low
    half = wide / 2 - 0.01
    for dx, dz in ((-half, 0), (half, 0), (0, -half), (0, half)):
        size = (0.006, tall, wide - 0.02) if dx else (wide - 0.02, tall, 0.006)
        stage.slab((x + dx, middle, z + dz), size, pane, casts=0)
    stage.slab((x, high, z), (wide - 0.02, 0.006, wide - 0.02), pane, casts=0)
    frame = stage.label(thin=True)
    for sx in (-half, half):
        for sz in (-half, half):
            stage.slab((x + sx, middle, z + sz), (0.014, tall, 0.014), BRASS, label=frame)
    for s in (-half, half):
        for y in (low + 0.01, high):
            stage.slab((x, y, z + s), (wide, 0.014, 0.014), BRASS, label=frame)
            stage.slab((x + s, y, z), (0.014, 0.014, wide), BRASS, label=frame)


def _bust(stage: Stage, frame: F64, stone: Paint) -> None:
    label = stage.label(small=stage.new_small())
    if "bust" not in stage.meshes:
        stage.meshes["bust"] = shapes.surface(skull, 65, 49)
    stage.add("bust", frame @ place((0, 0.5, 0), np.ones(3) * 0.3), stone, label)
    stage.ball((0, 0.56, -0.02), (0.24, 0.24, 0.29), stone, label, frame)
    stage.ball((0, 0.2, 0), (0.46, 0.28, 0.24), stone, label, frame)
    stage.limb((frame @ [0, 0.25, 0, 1])[:3], (frame @ [0, 0.42, 0.01, 1])[:3], 0.075, 0.06, stone, label)
    stage.slab((0, 0.035, 0), (0.24, 0.07, 0.24), stone, within=frame)


def _rope(stage: Stage) -> None:
    """Posts with a rope before the wall."""
    velvet = Paint(colour=rgb("7a1528"))
    posts = [(-3.9, z) for z in (-0.2, -2.2, -4.2, -6.2, -8.2)]
    label = stage.label(thin=True)
    for x, z in posts:
        stage.rod((x, 0, z), (x, 0.95, z), 0.035, BRASS, label)
        stage.ball((x, 0.98, z), 0.07, BRASS, label)
        stage.add("cylinder", place((x, 0.015, z), (0.3, 0.03, 0.3)), BRASS)
    for (x, a), (_, b) in pairwise(posts):
        t = np.linspace(0, 1, 13)
        points = np.stack([np.full(13, x), 0.9 - 0.9 * t * (1 - t), a + (b - a) * t], -1)
        for p, q in pairwise(points):
            stage.rod(p, q, 0.026, velvet, label)
