"""The scenes at arm's length: a shelf of small things, and a portrait before a busy wall."""

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import prints
import shapes
from figures import RAINBOW, Person, person, wind_wheel
from furnish import BRASS, IRON, WHITE, bottle, cup, pot_plant
from scenery import car
from stage import F64, U8, Camera, Lamp, Paint, Sky, Stage, Vector, about, opaque, place, rgb


def shelf() -> Stage:
    """A shelf of small things."""
    stage = Stage(17, Camera(eye=(0.12, 1.36, 1.5), target=(-0.02, 1.06, 0.0), fovy=51.0, near=0.1, far=30.0))
    oak = Paint(
        texture=stage.texture(prints.planks("a8794c", 2, seed=6, gap=0.0)), repeat=0.9, gloss=0.05, shininess=30.0
    )
    wall = Paint(texture=stage.texture(prints.plaster("9fb2ad", 0.1)), repeat=0.5)
    stage.slab((0, 1.4, -0.36), (5, 3.2, 0.04), wall, plane=True, casts=0)
    for y in (0.42, 0.80, 1.18, 1.56, 1.94):
        stage.slab((0, y, -0.16), (2.5, 0.025, 0.34), oak, plane=True)
    for x in (-1.1, -0.36, 0.38, 1.12):
        stage.slab((x, 1.2, -0.17), (0.025, 1.9, 0.33), oak, plane=True)
    stage.slab(
        (0, 0.70, 0.42),
        (3.2, 0.03, 0.62),
        Paint(texture=stage.texture(prints.planks("5a3a26", 3, seed=2)), repeat=1.0, gloss=0.08, shininess=40.0),
        plane=True,
    )
    _books(stage, -1.05, 1.1925, 12, 3)
    _books(stage, 0.42, 0.8125, 13, 5)
    _books(stage, -0.32, 1.5725, 9, 8)
    _upper(stage)
    _middle(stage)
    _lower(stage)
    _desk(stage)
    stage.lamps.append(
        Lamp(at=(0.9, 2.2, 1.7), colour=(3.4, 2.9, 2.2), radius=0.14, towards=(-0.45, -0.5, -0.9), reach=8.0)
    )
    stage.sky = Sky(
        sun=(-0.75, 0.75, 0.8),
        sun_colour=(1.5, 1.55, 1.65),
        sun_size=0.14,
        zenith=(0.36, 0.36, 0.36),
        horizon=(0.4, 0.39, 0.37),
        ground=(0.16, 0.13, 0.1),
        fill=(0.9, 0.95, 1.0),
        fill_from=(-0.8, 0.3, 0.6),
    )
    stage.panes.append(((-2.5, 0.9, 2.5), (1.6, 0, 1.0), (0, 1.5, 0), (3.0, 3.1, 3.3)))
    stage.shadow_reach, stage.shadow_centre = 1.7, np.array([0, 1.15, 0.1])
    stage.look.exposure = 0.95
    return stage


def _small(stage: Stage) -> int:
    return stage.label(small=stage.new_small())


def _books(stage: Stage, x: float, y: float, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tones = ("8c2f2a", "2f4f6b", "3f5b3a", "b58a3a", "5a3f5f", "c9bfa8", "1f2a33", "a0522d", "3a6f74", "7a1f3a")
    for _ in range(count):
        thick, high, deep = rng.uniform(0.018, 0.042), rng.uniform(0.19, 0.28), rng.uniform(0.14, 0.2)
        tone = tones[int(rng.integers(len(tones)))]
        paint = Paint(texture=stage.texture(_spine(tone, int(rng.integers(1 << 30)))), gloss=0.05, printed=True)
        stage.slab((x + thick / 2, y + high / 2, -0.03 - deep / 2), (thick - 0.002, high, deep), paint)
        x += thick


def _spine(tone: str, seed: int) -> U8:
    rng = np.random.default_rng(seed)
    picture = np.ones((256, 64, 3)) * prints.srgb(tone)
    ink = prints.srgb("e8cf8a") if picture.mean() < 0.55 else prints.srgb("3a2a20")
    for y in (18, 26, 226, 234):
        picture[y : y + 3] = ink
    y = 60
    while y < 190:
        long = int(rng.integers(8, 20))
        cv2.rectangle(picture, (24, y), (40, y + long), ink.tolist(), -1)
        y += long + 6
    return opaque(picture)


def _upper(stage: Stage) -> None:
    y = 1.5725
    pot_plant(stage, (-0.86, y, -0.15), 0.3, "4a8a44", Paint(colour=rgb("d07a4a")))
    _clock(stage, (-0.55, y, -0.12), 0.095)
    for k, (x, high, tone) in enumerate(((0.1, 0.2, "2f6f8f"), (0.22, 0.14, "c9553a"), (0.31, 0.1, "e3c15a"))):
        paint = Paint(colour=rgb(tone), gloss=0.12, shininess=70.0)
        mesh = stage.mesh(shapes.vase(np.random.default_rng(k + 20)))
        stage.add(mesh, place((x, y, -0.14), np.array([0.34, 1, 0.34]) * high * 1.2), paint, _small(stage))
    _globe(stage, (0.62, y, -0.16), 0.1)
    _frame(stage, (0.92, y, -0.2), 0.2, 0.26, 3)


def _middle(stage: Stage) -> None:
    y = 1.1925
    bear = (-0.17, y, -0.14)
    _bear(stage, bear, 0.24)
    car(stage, (0.08, y, -0.06), 1.25, "c8261f", scale=0.034, label=_small(stage))
    car(stage, (0.25, y, -0.1), 1.9, "f0b51f", scale=0.03, label=_small(stage))
    jar = (0.2, y, -0.24)
    bottle(stage, jar, 0.24, Paint(colour=rgb("3f7f6a"), gloss=0.3, shininess=90.0), _small(stage))
    for k in range(5):
        x = 0.46 + 0.062 * k
        size = 0.055 - 0.008 * k
        tone = RAINBOW[k]
        number = _small(stage)
        stage.ball(
            (x, y + size * 0.8, -0.06),
            (size, size * 1.6, size),
            Paint(colour=rgb(tone), gloss=0.15, shininess=80.0),
            number,
        )
        stage.ball((x, y + size * 1.75, -0.06), size * 0.72, Paint(colour=rgb("f0cfa8"), gloss=0.15), number)
    _frame(stage, (0.62, y, -0.24), 0.26, 0.2, 7)
    cup(stage, (0.87, y, -0.1), 0.09, Paint(colour=rgb("e8e4d8"), gloss=0.1, shininess=60.0), _small(stage))
    for k in range(4):
        top = np.array([0.85 + 0.016 * k, y + 0.19 - 0.012 * k, -0.115 + 0.012 * (k % 2)])
        stage.rod(
            (0.862 + 0.005 * k, y + 0.04, -0.1),
            top,
            0.0075,
            Paint(colour=rgb(RAINBOW[2 * k % 8])),
            stage.label(thin=True),
        )
    _candle(stage, (1.02, y, -0.12), 0.2)


def _lower(stage: Stage) -> None:
    y = 0.8125
    for k, (x, tone) in enumerate(((-0.95, "3f6f9f"), (-0.72, "b0533a"))):
        stage.slab(
            (x, y + 0.09, -0.14),
            (0.19, 0.18, 0.2),
            Paint(texture=stage.texture(prints.damask(tone, "e8dcc0")), printed=True),
            turn=0.1 * k,
        )
        stage.slab((x, y + 0.19, -0.14), (0.2, 0.025, 0.21), Paint(colour=rgb(tone)), turn=0.1 * k)
    for k in range(3):
        at = (-0.5 + 0.055 * k, y, -0.08 - 0.02 * k)
        stage.turned(
            [
                (0, 0),
                (0.02, 0),
                (0.012, 0.012),
                (0.02, 0.05 + 0.01 * k),
                (0.014, 0.07 + 0.01 * k),
                (0, 0.075 + 0.01 * k),
            ],
            at,
            BRASS,
            _small(stage),
        )
    mug = Paint(texture=stage.texture(prints.poster(3)), gloss=0.1, printed=True)
    for k, x in enumerate((-0.24, -0.08, 0.1)):
        cup(
            stage,
            (x, y, -0.12),
            0.1,
            mug if k == 1 else Paint(colour=rgb(("2f7f7a", "ffffff", "d8a12f")[k]), gloss=0.12, shininess=70.0),
            _small(stage),
        )
    _candle(stage, (0.27, y, -0.1), 0.16)


def _desk(stage: Stage) -> None:
    """What lies nearest to the camera."""
    y = 0.715
    wheel = np.array([-0.42, y + 0.235, 0.42])
    cup(stage, (-0.44, y, 0.4), 0.085, Paint(colour=rgb("24507a"), gloss=0.12, shininess=80.0), _small(stage))
    wind_wheel(stage, wheel, (-0.44, y + 0.02, 0.4), (0.25, 0.25, 1.0), 0.085, vanes=8, vane=0.0075)
    for k, x in enumerate((-0.16, -0.1, -0.045)):
        person(
            stage,
            (x, y, 0.42 + 0.03 * k),
            0.3 - 0.2 * k,
            Person(
                height=0.105 - 0.01 * k,
                hair=("2a1c14", "8a5a2c", "14100e")[k],
                top=Paint(colour=rgb(("c8372d", "2f6f9f", "e3b53a")[k]), gloss=0.15),
                bottom=Paint(colour=rgb(("26304a", "7a3b2a", "2f4f3a")[k]), gloss=0.15),
                wide=1.1,
            ),
        )
        stage.add(
            "cylinder",
            place((x, y + 0.0025, 0.42 + 0.03 * k), (0.05, 0.005, 0.05)),
            Paint(colour=rgb("3f6b35")),
            _small(stage),
        )
    for x, z, size, tone in (
        (0.08, 0.5, 0.032, "2f9fd8"),
        (0.12, 0.46, 0.026, "e5322d"),
        (0.05, 0.55, 0.024, "4fb83a"),
        (0.14, 0.53, 0.028, "f7d31f"),
        (0.02, 0.49, 0.022, "8b35b5"),
    ):
        stage.ball((x, y + size / 2, z), size, Paint(colour=rgb(tone), gloss=0.3, shininess=150.0), _small(stage))
    for k, (x, z) in enumerate(((0.24, 0.5), (0.285, 0.53), (0.255, 0.56))):
        _die(stage, (x, y + 0.013, z), 0.5 + k, 0.026)
    for k in range(5):
        stage.add(
            "cylinder",
            place((0.38 + 0.001 * k, y + 0.003 + 0.0055 * k, 0.5), (0.042, 0.005, 0.042)),
            BRASS,
            _small(stage) if k == 4 else stage.label(),
        )
    for k, x in enumerate((0.48, 0.545)):
        _pawn(stage, (x, y, 0.47 + 0.05 * k), 0.075 - 0.02 * k, "1f1a17" if k else "efe3c8")
    for k, angle in enumerate((0.3, 0.42)):
        a = np.array([-0.34 + 0.02 * k, y + 0.004, 0.6])
        stage.rod(
            a,
            a + [0.17 * np.cos(angle), 0, -0.17 * np.sin(angle) + 0.05 * k],
            0.0078,
            Paint(colour=rgb(RAINBOW[1 + 3 * k])),
            stage.label(thin=True),
        )


def _die(stage: Stage, at: Vector, turn: float, size: float) -> None:
    label, frame = _small(stage), place(at, turn=turn)
    stage.slab((0, 0, 0), (size, size, size), WHITE, within=frame, label=label)
    ink = Paint(colour=rgb("15110f"))
    for x, z in ((-0.25, -0.25), (0.25, 0.25), (0, 0), (-0.25, 0.25), (0.25, -0.25)):
        stage.ball((x * size, size * 0.5, z * size), (0.2 * size, 0.03 * size, 0.2 * size), ink, label, frame)
    for x, y in ((-0.25, 0.25), (0.25, -0.25)):
        stage.ball((x * size, y * size, size * 0.5), (0.2 * size, 0.2 * size, 0.03 * size), ink, label, frame)
        stage.ball((size * 0.5, y * size, x * size), (0.03 * size, 0.2 * size, 0.2 * size), ink, label, frame)


def _pawn(stage: Stage, at: Vector, high: float, tone: str) -> None:
    h = high
    profile = [
        (0, 0),
        (0.27, 0),
        (0.28, 0.1),
        (0.17, 0.18),
        (0.1, 0.5),
        (0.2, 0.58),
        (0.09, 0.64),
        (0.19, 0.78),
        (0.14, 0.95),
        (0, 1.0),
    ]
    stage.turned(
        [(r * h, y * h) for r, y in profile], at, Paint(colour=rgb(tone), gloss=0.12, shininess=60.0), _small(stage)
    )


def _clock(stage: Stage, at: Vector, radius: float) -> None:
    side = 256
    picture = np.ones((side, side, 3)) * prints.srgb("f6f1e4")
    for hour in range(12):
        a = hour * np.pi / 6
        p, q = (
            np.array([side / 2 + np.sin(a) * side * r, side / 2 + np.cos(a) * side * r]).astype(int)
            for r in (0.36, 0.45)
        )
        cv2.line(
            picture, p.tolist(), q.tolist(), prints.srgb("2a2018").tolist(), 8 if hour % 3 == 0 else 4, cv2.LINE_AA
        )
    for a, r, thick in ((5.3, 0.24, 10), (1.05, 0.36, 6)):
        tip = (int(side / 2 + np.sin(a) * side * r), int(side / 2 + np.cos(a) * side * r))
        cv2.line(picture, (side // 2, side // 2), tip, prints.srgb("1a1512").tolist(), thick, cv2.LINE_AA)
    x, y, z = at
    label, middle = _small(stage), np.array([x, y + radius + 0.012, z])
    lying = about("x", np.pi / 2)[:3, :3]
    stage.add(
        "cylinder",
        place(middle, (2 * radius, 0.05, 2 * radius), rotation=lying),
        Paint(colour=rgb("b5332e"), gloss=0.12, shininess=60.0),
        label,
    )
    angle = np.linspace(0, 2 * np.pi, 49)

    def face(u: F64, v: F64) -> F64:
        a = np.interp(u, np.linspace(0, 1, 49), angle)
        return np.stack([v * np.cos(a) * 0.9, v * np.sin(a) * 0.9, 0 * a], -1)

    mesh = shapes.surface(face, 49, 3)
    mesh[:, 3:6] = (0, 0, 1)
    mesh[:, 6:] = mesh[:, :2] / 2 / 0.95 + 0.5
    stage.add(
        stage.mesh(mesh),
        place(middle + [0, 0, 0.0262], np.ones(3) * radius),
        Paint(texture=stage.texture(opaque(picture)), printed=True),
        label,
    )
    for side_x in (-1, 1):
        stage.rod(
            middle + [side_x * radius * 0.5, -radius * 0.8, 0],
            middle + [side_x * radius * 0.75, -radius - 0.012, 0.01],
            0.012,
            IRON,
            label,
        )
        stage.ball(middle + [side_x * radius * 0.5, radius * 1.05, 0], radius * 0.55, BRASS, label)


def _globe(stage: Stage, at: Vector, radius: float) -> None:
    from stage import fractal

    side = 256
    land = fractal(np.random.default_rng(12), side, 6, 0.55, 4)
    picture = np.where((land > 0.52)[..., None], prints.srgb("6f9a4a"), prints.srgb("2f6fae"))
    picture = np.where((land > 0.68)[..., None], prints.srgb("c9b06a"), picture)
    x, y, z = at
    label = _small(stage)
    stage.add(
        "sphere",
        place((x, y + radius * 1.35, z), np.ones(3) * 2 * radius, rotation=about("z", 0.4)[:3, :3]),
        Paint(texture=stage.texture(opaque(picture)), gloss=0.1, shininess=60.0, printed=True),
        label,
    )
    stage.turned(
        [
            (0, 0),
            (0.6 * radius, 0),
            (0.5 * radius, 0.08 * radius),
            (0.08 * radius, 0.2 * radius),
            (0.06 * radius, 0.4 * radius),
            (0, 0.4 * radius),
        ],
        at,
        BRASS,
        label,
    )
    stage.add(
        "ring",
        place((x, y + radius * 1.35, z), np.ones(3) * 2.2 * radius, rotation=about("y", 0.5)[:3, :3]),
        BRASS,
        stage.label(thin=True),
    )


def _frame(stage: Stage, at: Vector, wide: float, high: float, seed: int) -> None:
    x, y, z = at
    frame = place((x, y + high / 2, z)) @ about("x", -0.12)
    stage.slab((0, 0, 0), (wide, high, 0.018), Paint(colour=rgb("2e2019"), gloss=0.08), within=frame)
    picture = Paint(texture=stage.texture(prints.landscape(seed)), printed=True)
    stage.slab((0, 0, 0.010), (wide - 0.04, high - 0.04, 0.004), picture, within=frame)


def _bear(stage: Stage, at: Vector, high: float) -> None:
    fur, pale, dark = Paint(colour=rgb("a8713f")), Paint(colour=rgb("d9b382")), Paint(colour=rgb("1a1210"), gloss=0.3)
    frame, label = place(at, np.ones(3) * high, 0.25), _small(stage)
    for where, size, paint in (
        ((0, 0.3, 0), (0.46, 0.5, 0.4), fur),
        ((0, 0.3, 0.1), (0.3, 0.34, 0.24), pale),
        ((0, 0.72, 0.02), (0.46, 0.42, 0.42), fur),
        ((0, 0.66, 0.2), (0.2, 0.16, 0.16), pale),
        ((0, 0.69, 0.28), (0.07, 0.05, 0.04), dark),
        ((-0.09, 0.77, 0.2), (0.05, 0.05, 0.04), dark),
        ((0.09, 0.77, 0.2), (0.05, 0.05, 0.04), dark),
        ((-0.19, 0.9, 0), (0.16, 0.16, 0.08), fur),
        ((0.19, 0.9, 0), (0.16, 0.16, 0.08), fur),
        ((-0.28, 0.4, 0.08), (0.16, 0.34, 0.16), fur),
        ((0.28, 0.4, 0.08), (0.16, 0.34, 0.16), fur),
        ((-0.18, 0.1, 0.2), (0.2, 0.2, 0.36), fur),
        ((0.18, 0.1, 0.2), (0.2, 0.2, 0.36), fur),
        ((-0.18, 0.1, 0.37), (0.13, 0.13, 0.04), pale),
        ((0.18, 0.1, 0.37), (0.13, 0.13, 0.04), pale),
    ):
        stage.ball(where, size, paint, label, frame)


def _candle(stage: Stage, at: Vector, high: float) -> None:
    x, y, z = at
    stage.turned(
        [(0, 0), (0.032, 0), (0.034, 0.012), (0.012, 0.02), (0.014, 0.05), (0.018, 0.055), (0, 0.055)],
        at,
        BRASS,
        _small(stage),
    )
    stage.rod(
        (x, y + 0.05, z), (x, y + high, z), 0.014, Paint(colour=rgb("f2ead2"), through=0.3), stage.label(thin=True)
    )
    stage.rod((x, y + high, z), (x, y + high + 0.012, z), 0.003, IRON, stage.label(thin=True))


def portrait() -> Stage:
    """A portrait before a busy wall."""
    stage = Stage(
        18,
        Camera(eye=(0.03, 1.56, 1.5), target=(0.0, 1.49, 0.0), fovy=34.0, near=0.15, far=30.0, size_wh=(1200, 1600)),
    )
    paper = Paint(texture=stage.texture(prints.damask()), repeat=1.5, printed=True)
    stage.slab((0, 1.5, -1.02), (6, 4, 0.04), paper, plane=True, casts=0)
    places: list[tuple[float, float, float, float, Callable[[int], U8]]] = [
        (-0.62, 2.02, 0.46, 0.6, prints.poster),
        (-0.08, 2.22, 0.44, 0.34, prints.landscape),
        (0.48, 2.08, 0.5, 0.62, prints.poster),
        (-0.66, 1.42, 0.36, 0.46, prints.landscape),
        (0.66, 1.5, 0.34, 0.4, prints.poster),
        (-0.3, 1.62, 0.22, 0.3, prints.poster),
        (0.36, 1.62, 0.2, 0.2, prints.landscape),
        (-0.62, 0.98, 0.4, 0.3, prints.poster),
        (0.64, 1.06, 0.38, 0.36, prints.landscape),
    ]
    for number, (x, y, wide, high, kind) in enumerate(places):
        tone = ("2a1d16", "b08a3a", "efe9dc", "1c2a33")[number % 4]
        stage.slab((x, y, -0.985), (wide, high, 0.03), Paint(colour=rgb(tone), gloss=0.08))
        stage.slab(
            (x, y, -0.972),
            (wide - 0.05, high - 0.05, 0.02),
            Paint(texture=stage.texture(kind(number + 2)), gloss=0.03, printed=True),
        )
    _bunting(stage)
    knit = Paint(texture=stage.texture(_stripes()), gloss=0.0, printed=True)
    who = Person(height=1.7, skin="d9a384", hair="4a2a18", long_hair=0.42, top=knit, glasses=True, smile=0.75)
    body, (palm, _) = person(stage, (0, 0, 0), 0.14, who, gaze=(-0.06, 0.03), hands=((-0.13, 1.2, 0.3), None))
    head = body @ place((0, 1.475 + 0.0, 0))
    for side in (-1, 1):
        hoop = (head @ [side * 0.094, 0.045, 0.005, 1])[:3]
        stage.add("ring", place(hoop, (0.05, 0.05, 0.05), turn=0.9 * side), BRASS, stage.label(thin=True))
    wind_wheel(stage, palm + [-0.03, 0.19, 0.02], palm + [0.02, -0.1, 0], (0.15, 0.05, 1.0), 0.075, vanes=8, vane=0.006)
    stage.sky = Sky(
        sun=(-0.45, 0.55, 1.0),
        sun_colour=(1.9, 1.8, 1.65),
        sun_size=0.16,
        zenith=(0.32, 0.32, 0.33),
        horizon=(0.38, 0.37, 0.36),
        ground=(0.16, 0.13, 0.11),
        fill=(0.7, 0.72, 0.78),
        fill_from=(0.9, 0.2, 0.6),
    )
    stage.panes.append(((-2.0, 1.2, 2.2), (1.4, 0, 0.5), (0, 1.4, 0), (3, 3.05, 3.1)))
    stage.shadow_reach, stage.shadow_centre = 1.7, np.array([0, 1.5, -0.3])
    stage.look.exposure = 0.95
    return stage


def _stripes() -> U8:
    x, y = prints.grid(512)
    band = (y * 22).astype(int) % 3
    picture = np.stack([prints.srgb("26405e"), prints.srgb("e9e1cf"), prints.srgb("b8433a")])[band]
    knit = 0.88 + 0.12 * np.sin(x * 512 * 0.9) * np.sin(y * 512 * 1.1)
    return opaque(picture * knit[..., None])


def _bunting(stage: Stage) -> None:
    a, b = np.array([-0.95, 1.9, -0.86]), np.array([0.95, 1.95, -0.86])
    points = [a + (b - a) * t - [0, 0.5 * t * (1 - t), 0] for t in np.linspace(0, 1, 17)]
    cord = stage.label(thin=True)
    for number, (p, q) in enumerate(pairwise(points)):
        stage.rod(p, q, 0.005, WHITE, cord)
        middle = (p + q) / 2
        mesh = np.array([[*corner, 0, 0, 1, 0, 0] for corner in (p, q, middle - [0, 0.11, 0])], np.float32)
        stage.add(stage.mesh(mesh), np.eye(4), Paint(colour=rgb(RAINBOW[number % 8]), through=0.3), stage.label())
