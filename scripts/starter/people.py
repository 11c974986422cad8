"""People near a camera: head, shoulders, arms, hands, hair, glasses, hats; made of shapes, or a furniture model."""

import numpy as np
import textures
from textures import F64
from world import Paint, Scene, Stock, place


def person(stock: Stock, scene: Scene, head_at: F64, turn: float = 0.0) -> None:
    """A person whose head's middle is at `head_at`, looking along −z when `turn` is 0."""
    if stock.chance(0.3):
        model = stock.pick(stock.standing)
        at = head_at - [0, model.size[1] - 0.12, 0]
        stock.model(scene, model, at, turn + np.pi)
        return
    tone = textures.skin(stock.rng)
    skin = Paint(colour=_linear(tone), specular=0.1, shininess=12.0)
    size = stock.uniform(0.21, 0.25) * stock.rng.uniform(0.92, 1.08, 3)
    body = place(head_at, turn=turn)
    nod = _rotation_x(stock.uniform(-0.3, 0.3)) @ _rotation_z(stock.uniform(-0.25, 0.25))
    face_turn = place((0, 0, 0), turn=stock.uniform(-0.7, 0.7)) @ nod
    face = f"fresh/face/{len(stock.textures)}"
    stock.textures[face] = textures.face(stock.rng, tone)
    head = body @ face_turn @ place((0, 0, 0), size)
    scene.add(stock.pick(stock.kinds["head"]), head, Paint(face, specular=0.1, shininess=12.0))
    _hair(stock, scene, body @ face_turn, size)
    wear = stock.surface() if stock.chance(0.6) else stock.plain(0, 0.9, 0.8)
    wide = stock.uniform(0.9, 1.15)
    scene.add(stock.pick(stock.kinds["torso"]), body @ place((0, -0.11, 0.02), (wide, 1, wide)), wear)
    scene.add("cylinder", body @ place((0, -0.13, 0.015), (0.11, 0.14, 0.11)), skin)
    for side in (-1, 1):
        _arm(stock, scene, body, side, wear, skin)


def _hair(stock: Stock, scene: Scene, head: F64, size: F64) -> None:
    shade = Paint(colour=stock.colour(0.005, 0.35, 0.6), specular=0.3, shininess=8.0)
    if stock.chance(0.35):
        long = stock.uniform(0.2, 0.45)
        at = (0, -long / 2 + 0.08, size[2] * 0.22)
        scene.add(
            stock.pick(stock.kinds["blob"]), head @ place(at, (size[0] * 0.95, long + 0.12, size[2] * 0.5)), shade
        )
    if stock.chance(0.25):
        at = (0, size[1] * 0.3, size[2] * 0.08)
        scene.add("sphere", head @ place(at, (size[0] * 0.85, size[1] * 0.55, size[2] * 0.95)), shade)
    if stock.chance(0.12):
        hat = stock.surface()
        scene.add(
            "cylinder", head @ place((0, size[1] * 0.45, 0), (size[0] * 0.75, size[1] * 0.35, size[2] * 0.85)), hat
        )
        scene.add("cylinder", head @ place((0, size[1] * 0.3, 0), (size[0] * 1.2, 0.012, size[2] * 1.3)), hat)
    if stock.chance(0.25):
        rim = stock.plain(0, 0.5, 0.4)
        for side in (-1, 1):
            at = np.array([side * size[0] * 0.15, size[1] * 0.03, -size[2] * 0.44])
            scene.add("ring", head @ place(at, (size[0] * 0.26, size[0] * 0.22, 0.1)), rim)
            start = (head @ [*(at + [side * size[0] * 0.13, 0, 0]), 1])[:3]
            scene.rod(start, (head @ [side * size[0] * 0.36, at[1], 0, 1])[:3], 0.005, rim)
    if stock.chance(0.15):
        band = stock.plain(0, 0.6)
        for side in (-1, 1):
            scene.add("cylinder", head @ place((side * size[0] * 0.36, 0, 0), (0.05, 0.08, 0.08)), band)


def _arm(stock: Stock, scene: Scene, body: F64, side: int, wear: Paint, skin: Paint) -> None:
    shoulder = np.array([side * 0.19, -0.3, 0.03])
    if stock.chance(0.25):
        elbow = shoulder + [side * stock.uniform(0, 0.15), -stock.uniform(0.1, 0.25), -stock.uniform(0, 0.2)]
        wrist = elbow + [stock.uniform(-0.1, 0.1), stock.uniform(0.05, 0.28), -stock.uniform(0.05, 0.22)]
        raised = True
    else:
        elbow = shoulder + [side * stock.uniform(0.02, 0.12), -0.28, stock.uniform(-0.1, 0.05)]
        wrist = elbow + [-side * stock.uniform(0, 0.2), stock.uniform(-0.2, 0.0), -stock.uniform(0.1, 0.25)]
        raised = False
    points = [(body @ [*point, 1])[:3] for point in (shoulder, elbow, wrist)]
    thick = stock.uniform(0.08, 0.11)
    sleeve = wear if stock.chance(0.7) else skin
    scene.rod(points[0], points[1], thick, wear)
    scene.add("sphere", place(points[0], (thick * 1.15,) * 3), wear)
    scene.add("sphere", place(points[1], (thick,) * 3), sleeve)
    scene.rod(points[1], points[2], thick * 0.7, sleeve)
    up = _rotation_z(stock.uniform(-0.5, 0.5)) @ _rotation_x(stock.uniform(-0.5, 0.5) + (0 if raised else -1.2))
    hand = body @ place(wrist) @ up @ place((0, 0, 0), (side * 1.0, 1, 1))
    scene.add(stock.pick(stock.kinds["hand"]), hand, skin)
    if raised and stock.chance(0.4):
        held = place((body @ [*(wrist + [0, 0.12, -0.05]), 1])[:3], stock.rng.uniform(0.04, 0.18, 3), stock.angle())
        scene.add(stock.pick(stock.solids), held, stock.surface())


def hands(stock: Stock, scene: Scene, eye: F64, forward: F64) -> None:
    """One's own hand held before the camera."""
    tone = textures.skin(stock.rng)
    skin = Paint(colour=_linear(tone), specular=0.1, shininess=12.0)
    at = eye + forward * stock.uniform(0.25, 0.6) + stock.rng.uniform(-0.15, 0.1, 3)
    turn = place(at, turn=stock.angle()) @ _rotation_x(stock.uniform(-1, 1))
    scene.add(stock.pick(stock.kinds["hand"]), turn, skin)
    wrist = (turn @ [0, 0.02, 0, 1])[:3]
    scene.rod(wrist, (turn @ [stock.uniform(-0.1, 0.1), -0.4, 0.1, 1])[:3], 0.065, skin)


def _linear(tone: F64) -> tuple[float, float, float]:
    r, g, b = np.asarray(tone) ** 2.2
    return float(r), float(g), float(b)


def _rotation_x(angle: float) -> F64:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])


def _rotation_z(angle: float) -> F64:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
