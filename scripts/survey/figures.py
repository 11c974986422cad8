"""People, from formulas: a head with a face, hair, clothes, arms that reach for a place; and the wind wheel they hold.

In a figure's own frame it stands on y = 0 and looks along +z; its right hand is at −x.
"""

from dataclasses import dataclass

import numpy as np
import shapes
from stage import F32, F64, U8, Colour, Paint, Stage, Vector, about, fractal, opaque, place, rgb

_SIDE = 512


_RED, _BLUE = Paint(colour=rgb("7a2f2f")), Paint(colour=rgb("2b3550"))


@dataclass(frozen=True, kw_only=True)
class Person:
    """How somebody looks. `sleeve` and `leg` are the lengths that are covered, 0 to 1."""

    height: float = 1.7
    skin: str = "d9a684"
    hair: str = "3a2518"
    long_hair: float = 0.0
    tail: bool = False
    hat: str = ""
    top: Paint = _RED
    bottom: Paint = _BLUE
    shoes: str = "2a2320"
    skirt: bool = False
    sleeve: float = 1.0
    leg: float = 1.0
    child: bool = False
    smile: float = 0.5
    glasses: bool = False
    wide: float = 1.0


def person(
    stage: Stage,
    at: Vector,
    turn: float,
    who: Person,
    *,
    hands: tuple[Vector | None, Vector | None] = (None, None),
    seated: float = 0.0,
    step: float = 0.0,
    gaze: tuple[float, float] = (0.0, 0.0),
) -> tuple[F64, tuple[F64, F64]]:
    """Put somebody on the stage.

    Args:
        at: of the feet, or of the place below the hips if seated.
        hands: where the right and the left hand reach, in the figure's own frame; None lets it hang.
        seated: height of the seat.
        step: how far the legs are apart in walking, metres.
        gaze: turn (to the left) and nod (down) of the head, radians.

    Returns:
        The matrix of the figure, and its palms, right and left.
    """
    h, wide = who.height, who.wide
    head_high = h / (5.6 if who.child else 7.3)
    body = place(at, turn=turn)
    skin = Paint(colour=rgb(who.skin), gloss=0.03, shininess=12.0)
    shoes = Paint(colour=rgb(who.shoes), gloss=0.05)

    def world(p: Vector) -> F64:
        return np.asarray((body @ [*p, 1.0])[:3])

    neck = h - head_high * 0.98
    hip = neck * 0.6
    drop = 0.0
    if seated:
        drop = hip - seated - 0.07 * h
        body = body @ place((0, -drop, 0))
    width = 0.118 * h * wide * (0.92 if who.child else 1.0)
    cloth = stage.label()
    torso = stage.mesh(_torso(width, hip * 0.97, neck))
    stage.add(torso, body, who.top, cloth)
    stage.limb(
        world((0, neck - 0.05 * h, 0)),
        world((0, neck + 0.25 * head_high, 0.01)),
        0.034 * h,
        0.03 * h,
        skin,
        stage.label(),
    )
    pelvis = stage.label()
    stage.ball((0, hip, 0), (width * 1.75, 0.17 * h, width * 1.25), who.bottom, pelvis, body)
    if who.skirt:
        profile = np.array(
            [(width * 1.75, hip * 0.48), (width * 1.3, hip * 0.75), (width * 0.8, hip * 1.1), (width * 0.5, hip * 1.14)]
        )
        stage.add(stage.mesh(shapes.lathe(profile, 41)), body @ place((0, 0, 0), (1, 1, 0.8)), who.bottom, pelvis)
    for side in (-1, 1):
        leg = stage.label()
        hip_at = np.array([side * width * 0.48, hip - 0.01 * h, 0])
        stride = side * step / 2
        if seated:
            knee = hip_at + [side * 0.02, 0.0, hip * 0.48]
            ankle = knee + [0, -(seated - 0.02 * h) if seated < hip * 0.55 else -hip * 0.48, 0.02]
        else:
            knee = np.array([side * width * 0.48, hip * 0.52, stride * 0.55 + 0.01 * abs(step)])
            ankle = np.array([side * width * 0.5, 0.045 * h, stride])
        bare = skin if who.leg < 0.5 or who.skirt else who.bottom
        stage.limb(world(hip_at), world(knee), 0.052 * h * wide, 0.036 * h, bare if who.skirt else who.bottom, leg)
        stage.limb(world(knee), world(ankle), 0.036 * h, 0.024 * h, bare, leg)
        stage.ball(ankle + [0, -0.02 * h, 0.035 * h], (0.055 * h, 0.05 * h, 0.15 * h), shoes, stage.label(), body)
    right, left = (
        _arm(stage, body, who, skin, side, target, width, neck) for side, target in zip((-1, 1), hands, strict=True)
    )
    head = body @ place((0, neck + head_high * 0.5, 0.012 * h)) @ about("y", gaze[0]) @ about("x", gaze[1])
    _head(stage, head @ place((0, 0, 0), np.ones(3) * head_high), who)
    return body, (right, left)


def _arm(
    stage: Stage, body: F64, who: Person, skin: Paint, side: int, target: Vector | None, width: float, neck: float
) -> F64:
    h, label = who.height, stage.label()
    shoulder = np.array([side * width * 1.0, neck - 0.075 * h, 0.0])
    upper, lower = 0.172 * h, 0.155 * h
    hand = shoulder + [side * 0.05 * h, -0.315 * h, 0.04 * h] if target is None else np.asarray(target, float)
    way = hand - shoulder
    far = float(np.clip(np.linalg.norm(way), 0.05 * h, (upper + lower) * 0.995))
    way = way / np.linalg.norm(way)
    hand = shoulder + way * far
    along = (upper**2 - lower**2 + far**2) / (2 * far)
    pole = np.array([side * 0.6, -0.8, -0.35])
    pole -= way * (pole @ way)
    pole /= np.linalg.norm(pole)
    elbow = shoulder + way * along + pole * np.sqrt(max(upper**2 - along**2, 0))

    def world(p: F64) -> F64:
        return np.asarray((body @ [*p, 1.0])[:3])

    sleeve = who.top
    stage.limb(world(shoulder), world(elbow), 0.036 * h, 0.027 * h, sleeve if who.sleeve > 0.2 else skin, label)
    stage.limb(world(elbow), world(hand), 0.027 * h, 0.018 * h, sleeve if who.sleeve > 0.7 else skin, label)
    fist = stage.label()
    towards = (hand - elbow) / np.linalg.norm(hand - elbow)
    palm = hand + towards * 0.03 * h
    stage.ball(palm, (0.042 * h, 0.05 * h, 0.034 * h), skin, fist, body)
    for finger in range(4):
        up = palm + np.array([0.0, 0.016 - 0.0105 * finger, 0.017]) * h
        stage.limb(world(up + [-0.016 * h, 0, 0]), world(up + [0.016 * h, 0, 0]), 0.0065 * h, 0.0058 * h, skin, fist)
    stage.limb(
        world(palm + [-0.014 * h, 0.012 * h, 0.01 * h]),
        world(palm + [0.0, 0.034 * h, 0.02 * h]),
        0.0065 * h,
        0.005 * h,
        skin,
        fist,
    )
    return world(palm + [0, 0, 0.012 * h])


def _torso(width: float, low: float, neck: float) -> F32:
    tall = neck - low
    y = low + tall * np.array([0, 0.1, 0.28, 0.5, 0.68, 0.8, 0.88, 0.94, 0.98, 1.02])
    r = width * np.array([0.5, 0.88, 0.84, 0.9, 1.0, 1.04, 0.98, 0.66, 0.36, 0.3])
    deep = np.array([0.6, 0.66, 0.68, 0.68, 0.66, 0.6, 0.56, 0.62, 0.9, 1.0])

    def function(u: F64, v: F64) -> F64:
        at, row = v * (len(y) - 1), np.arange(len(y))
        radius, angle = np.interp(at, row, r), 2 * np.pi * u
        square = 1 + 0.06 * np.cos(4 * angle) * 0
        z = radius * np.interp(at, row, deep) * np.cos(angle) * square
        return np.stack([radius * np.sin(angle), np.interp(at, row, y), z], -1)

    return shapes.surface(function, 33, 33)


def skull(u: F64, v: F64, *, features: bool = True) -> F64:
    """Points of a head 1 high; u goes round with the face (+z) at 0.5, v from the chin to the crown."""
    angle, tilt = 2 * np.pi * (u - 0.5), np.pi * (v - 0.5)
    y, belt = 0.5 * np.sin(tilt), np.cos(tilt) ** 0.75
    wide = 0.355 * np.interp(y, [-0.5, -0.36, -0.2, 0.0, 0.2, 0.5], [0.52, 0.68, 0.86, 0.98, 1.0, 1.0])
    deep = 0.42 * np.interp(y, [-0.5, -0.3, 0.0, 0.5], [0.72, 0.84, 1.0, 1.0])
    x, z = wide * belt * np.sin(angle), deep * belt * np.cos(angle)
    z = z + np.where(np.cos(angle) < 0, -0.0, 0.0) + 0.05 * np.interp(y, [-0.5, -0.2, 0.1], [1.0, 0.3, 0.0])
    if features:
        front = np.clip(np.cos(angle) * 2.5, 0, 1)

        def bump(cx: float, cy: float, sx: float, sy: float) -> F64:
            return np.asarray(np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2))

        rise = 0.075 * bump(0, -0.125, 0.05, 0.045) + 0.05 * bump(0, -0.05, 0.035, 0.085)
        rise += 0.03 * (bump(-0.045, -0.14, 0.028, 0.028) + bump(0.045, -0.14, 0.028, 0.028))
        rise -= 0.055 * (bump(-0.15, 0.0, 0.075, 0.05) + bump(0.15, 0.0, 0.075, 0.05))
        rise += 0.012 * (bump(-0.14, 0.08, 0.1, 0.03) + bump(0.14, 0.08, 0.1, 0.03))
        rise += 0.014 * (bump(-0.19, -0.15, 0.08, 0.08) + bump(0.19, -0.15, 0.08, 0.08))
        rise += (
            0.022 * bump(0, -0.245, 0.085, 0.018)
            + 0.024 * bump(0, -0.295, 0.07, 0.02)
            - 0.012 * bump(0, -0.27, 0.1, 0.008)
        )
        rise += 0.03 * bump(0, -0.43, 0.1, 0.06)
        z = z + rise * front
    return np.stack([x, y, z], -1)


def _face(stage: Stage, who: Person) -> str:
    """The texture of a head: lips, cheeks, brows' shade."""
    u, v = np.meshgrid((np.arange(_SIDE) + 0.5) / _SIDE, (np.arange(_SIDE) + 0.5) / _SIDE)
    p = skull(u, v)
    x, y, front = p[..., 0], p[..., 1], np.clip(np.cos(2 * np.pi * (u - 0.5)) * 3, 0, 1)
    tone = np.array([int(who.skin[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    picture = (
        np.ones((_SIDE, _SIDE, 3))
        * tone
        * (0.97 + 0.06 * fractal(np.random.default_rng(3), _SIDE, 7, 0.8, 8)[..., None])
    )

    def paint(mask: F64, colour: F64) -> None:
        m = np.clip(mask * front, 0, 1)[..., None]
        picture[:] = picture * (1 - m) + colour * m

    def spot(cx: float, cy: float, sx: float, sy: float) -> F64:
        return np.asarray(np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2))

    for side in (-1, 1):
        paint(0.35 * spot(side * 0.2, -0.15, 0.08, 0.07), tone * [1.0, 0.72, 0.7])
        paint(0.4 * spot(side * 0.15, 0.0, 0.1, 0.06), tone * [0.86, 0.74, 0.72])
    paint(0.25 * spot(0, -0.13, 0.05, 0.04), tone * [1.0, 0.78, 0.74])
    curve = y + 0.27 - who.smile * 1.8 * x**2
    lips = np.clip(1.6 - (np.abs(curve) / 0.036) ** 2 - (x / 0.125) ** 4 * 1.4, 0, 1)
    paint(lips, tone * [0.86, 0.48, 0.48])
    paint(np.clip(1.4 - (np.abs(curve) / 0.006) ** 2 - (x / 0.125) ** 4, 0, 1) * 0.8, tone * [0.4, 0.18, 0.18])
    paint(np.clip(1.2 - ((np.abs(x) - 0.035) / 0.014) ** 2 - ((y + 0.172) / 0.01) ** 2, 0, 1) * 0.6, tone * 0.4)
    return stage.texture(opaque(picture))


def _hair_texture(stage: Stage, who: Person) -> str:
    """Strands, transparent where the face and the neck are free."""
    u, v = np.meshgrid((np.arange(_SIDE) + 0.5) / _SIDE, (np.arange(_SIDE) + 0.5) / _SIDE)
    y = 0.5 * np.sin(np.pi * (v - 0.5))
    away = np.abs(u - 0.5) * 2
    rough = 0.02 * np.sin(u * 170) + 0.012 * np.sin(u * 411)
    low = np.interp(away, [0, 0.16, 0.3, 0.42, 0.5, 0.62, 1.0], [0.25, 0.23, 0.1, -0.06, 0.02, -0.18, -0.3]) + rough
    tone = np.array([int(who.hair[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    rng = np.random.default_rng(9)
    strands = np.repeat(rng.random((1, _SIDE)), _SIDE, 0) * 0.6 + 0.4 * fractal(rng, _SIDE, 6, 0.7, 16)
    picture = np.clip(tone * (0.6 + 0.8 * strands[..., None]), 0, 1)
    made: U8 = opaque(picture)
    made[..., 3] = np.where(y > low, 255, 0)
    return stage.texture(made)


def _head(stage: Stage, head: F64, who: Person) -> None:
    fine = np.linalg.norm(head[:3, 3] - stage.camera.eye) < 12 * np.linalg.norm(head[:3, 1])
    kind = "fine" if fine else "far"
    if f"{kind} head" not in stage.meshes:
        stage.meshes[f"{kind} head"] = shapes.surface(skull, *((129, 97) if fine else (49, 41)))
        stage.meshes[f"{kind} scalp"] = shapes.surface(_scalp, *((97, 73) if fine else (33, 25)))
    skin = Paint(texture=_face(stage, who), gloss=0.035, shininess=14.0, printed=True)
    plain = Paint(colour=rgb(who.skin), gloss=0.03, shininess=14.0)
    dark, white = (
        Paint(colour=rgb("15100d"), gloss=0.25, shininess=80.0),
        Paint(colour=rgb("efeae4"), gloss=0.2, shininess=90.0),
    )
    hair = Paint(texture=_hair_texture(stage, who), gloss=0.06, shininess=10.0)
    flat_hair = Paint(colour=rgb(who.hair), gloss=0.06, shininess=10.0)
    face, eyes, mane = stage.label(), stage.label(), stage.label()
    stage.add(f"{kind} head", head, skin, face)
    stage.add(f"{kind} scalp", head, hair, mane)
    iris = Paint(colour=rgb("4a3423"), gloss=0.2, shininess=90.0)

    def world(p: Vector) -> F64:
        return np.asarray((head @ [*p, 1.0])[:3])

    size = float(np.linalg.norm(head[:3, 0]))
    for side in (-1, 1):
        at = np.array([side * 0.148, 0.002, 0.33])
        stage.ball(at, (0.125, 0.1, 0.1), white, eyes, head)
        stage.ball(at + [-side * 0.004, 0, 0.032], (0.062, 0.066, 0.05), iris, eyes, head)
        stage.ball(at + [-side * 0.004, 0, 0.046], (0.03, 0.032, 0.026), dark, eyes, head)
        stage.ball(at + [0, 0.05, -0.016], (0.15, 0.07, 0.115), plain, face, head)
        stage.ball(at + [0, -0.054, -0.016], (0.14, 0.05, 0.1), plain, face, head)
        for a, b in ((-0.06, 0.0), (0.0, 0.06)):
            lash = [at + [t, 0.026 - 5 * t * t, 0.043 - 5 * t * t] for t in (a, b)]
            stage.limb(world(lash[0]), world(lash[1]), 0.006 * size, 0.006 * size, dark, eyes)
            brow = [at + [1.5 * t + side * 0.005, 0.115 - 5 * t * t, 0.04 - 4 * t * t] for t in (a, b)]
            stage.limb(world(brow[0]), world(brow[1]), 0.013 * size, 0.013 * size, flat_hair, eyes)
        stage.ball((side * 0.352, -0.03, -0.01), (0.06, 0.2, 0.13), plain, face, head)
        if who.glasses:
            rim = Paint(colour=rgb("1c1a1a"), gloss=0.2)
            thin = stage.label(thin=True)
            stage.add("ring", head @ place((side * 0.155, -0.01, 0.42), (0.23, 0.2, 0.22)), rim, thin)
            stage.rod(world((side * 0.27, 0.01, 0.41)), world((side * 0.37, 0.02, 0.0)), 0.012 * size, rim, thin)
            stage.rod(world((0.0, 0.0, 0.425)), world((side * 0.05, 0.0, 0.42)), 0.014 * size, rim, thin)
    if who.long_hair:
        long = who.long_hair
        stage.ball((0, 0.1 - long / 2, -0.2), (0.74, 0.62 + long, 0.4), flat_hair, mane, head)
        for side in (-1, 1):
            stage.ball((side * 0.34, 0.02 - long / 2, -0.1), (0.2, 0.6 + long * 0.9, 0.42), flat_hair, mane, head)
    if who.tail:
        for side in (-1, 1):
            stage.ball((side * 0.42, 0.1, -0.18), (0.24, 0.24, 0.24), flat_hair, mane, head)
            stage.ball((side * 0.48, -0.12, -0.18), (0.2, 0.45, 0.2), flat_hair, mane, head)
            stage.ball((side * 0.37, 0.13, -0.15), (0.1, 0.14, 0.14), Paint(colour=rgb("d83a3a")), stage.label(), head)
    if who.hat:
        felt, brim = Paint(colour=rgb(who.hat)), stage.label()
        stage.add("cylinder", head @ place((0, 0.43, -0.03), (0.72, 0.3, 0.82)), felt, brim)
        stage.add("cylinder", head @ place((0, 0.28, 0), (1.15, 0.03, 1.25)), felt, brim)


def _scalp(u: F64, v: F64) -> F64:
    p = skull(u, v, features=False)
    return np.asarray(p * [1.1, 1.08, 1.1] + [0, 0.015, -0.02])


RAINBOW = ("e5322d", "f28c1e", "f7d31f", "4fb83a", "1f9fd8", "3b4fc1", "8b35b5", "e0409a")


def wind_wheel(
    stage: Stage, hub: Vector, foot: Vector, facing: Vector, radius: float, vanes: int = 8, vane: float = 0.022
) -> None:
    """A coloured wind wheel: a stick from `foot` to `hub`, thin vanes round it, and a hoop between their tips."""
    hub, facing = np.asarray(hub, float), np.asarray(facing, float) / np.linalg.norm(facing)
    right = np.cross([0, 1.0, 0], facing)
    right /= np.linalg.norm(right)
    up = np.cross(facing, right)
    front = hub + facing * 0.02
    stick = stage.label(thin=True)
    stage.rod(np.asarray(foot, float), hub, 0.008, Paint(colour=rgb("7a4a24")), stick)
    frame = np.eye(4)
    frame[:3, :3] = np.stack([right, up, facing], 1)
    frame[:3, 3] = front
    for number in range(vanes):
        paint = Paint(colour=rgb(RAINBOW[number % len(RAINBOW)]), through=0.35)
        turn = frame @ about("z", 2 * np.pi * number / vanes + 0.2) @ place((0, 0, 0), rotation=about("y", 0.5)[:3, :3])
        stage.add(stage.mesh(_vane(radius, vane)), turn, paint, stage.label(thin=True))
    hoop = Paint(colour=rgb("f6f6f6"), gloss=0.1)
    stage.add("ring", frame @ place((0, 0, 0), np.ones(3) * 2 * radius), hoop, stage.label(thin=True))
    stage.ball(front, 0.026, Paint(colour=rgb("ffd21f"), gloss=0.2), stage.label())


def _vane(radius: float, width: float) -> F32:
    def function(u: F64, v: F64) -> F64:
        half = width * np.interp(v, [0, 0.15, 0.75, 1.0], [0.25, 0.6, 1.0, 0.15]) / 2
        return np.stack([(2 * u - 1) * half, v * radius, 0.4 * width * (2 * u - 1) * np.sin(np.pi * v)], -1)

    return shapes.surface(function, 5, 17)


def mixed(a: str, b: str, share: float) -> Colour:
    """Between two sRGB colours, linear."""
    x, y = np.array(rgb(a)), np.array(rgb(b))
    r, g, c = x + (y - x) * share
    return float(r), float(g), float(c)
