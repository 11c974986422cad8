"""Photos as cartoons, pencil drawings, posters and paintings, and without colour: the same scene, another look.

Invariant: a style is a function of the picture alone. All but `gray` work at one size, so a style looks the same at
every resolution of a photo; random numbers are seeded. Two machines differ by rounding at most, as far as OpenCV's
filters are the same on both.
"""

import difflib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream.errors import UsageError
from stream.frames import RgbImage
from stream.media import cv2

WORK_PX = 768
"""Longest side of a picture while it is drawn, larger and smaller ones alike; lengths here are in its pixels. A model
sees about as much."""
_SEED = 5
_Plane = NDArray[np.float32]


def parse_styles(text: str | None) -> tuple[str, ...]:
    """The styles of a list such as `cartoon,line`, each once, in the order in which they are named.

    Args:
        text: names with commas between them; "all" is every style. None is no style.

    Raises:
        UsageError: a name is unknown, or there is none.
    """
    if text is None:
        return ()
    found: dict[str, None] = {}
    for name in (part.strip().lower() for part in text.split(",")):
        if name != "all" and name not in STYLES:
            near = difflib.get_close_matches(name, STYLES, n=1)
            raise UsageError(
                f"there is no style {name!r}" if name else "a name is missing",
                where=f"--styles {text}",
                allowed=", ".join((*STYLES, "all")),
                hint=f"did you mean {near[0]}?" if near else "",
            )
        found |= dict.fromkeys(STYLES if name == "all" else [name])
    return tuple(found)


def styled(rgb: RgbImage, style: str) -> RgbImage:
    """A picture in another style.

    Args:
        rgb: uint8 H×W×3.
        style: one of `STYLES`.

    Returns:
        uint8 H×W×3.
    """
    return STYLES[style](rgb)


def _at_work_size(draw: Callable[[RgbImage], RgbImage]) -> Callable[[RgbImage], RgbImage]:
    def drawn(rgb: RgbImage) -> RgbImage:
        height, width = rgb.shape[:2]
        scale = WORK_PX / max(height, width)
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        shrinks, enlarges = (cv2.INTER_AREA, cv2.INTER_LINEAR) if scale < 1 else (cv2.INTER_CUBIC, cv2.INTER_AREA)
        small = np.asarray(cv2.resize(rgb, size_wh, interpolation=shrinks), np.uint8)
        return np.asarray(cv2.resize(draw(small), (width, height), interpolation=enlarges), np.uint8)

    return drawn


def _gray(rgb: RgbImage) -> RgbImage:
    """Luminance alone (Rec. 601 luma)."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def _cartoon(rgb: RgbImage) -> RgbImage:
    """Flat colours and dark outlines (Winnemöller, Olsen, Gooch 2006, "Real-time video abstraction", section 3)."""
    flat = _flattened(rgb, rounds=4)
    lab = np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2LAB), np.uint8)
    levels = np.arange(256, dtype=np.float64)
    step = 255 / 7
    steps = np.rint(levels / step) * step
    soft = steps + step / 2 * np.tanh((levels - steps) / 4) * 0.5
    vivid = 128 + 1.35 * (levels - 128)
    table = np.clip(np.rint(np.stack([soft, vivid, vivid], axis=-1)), 0, 255).astype(np.uint8)[:, None]
    colours = np.asarray(cv2.cvtColor(cv2.LUT(lab, table), cv2.COLOR_LAB2RGB), np.float32)
    return _rounded(colours * (1 - _outlines(flat))[..., None])


def _outlines(rgb: RgbImage) -> _Plane:
    """Ink of the outlines, 0 to 1: where a narrow blur is darker than a wide one (op. cit., equation 4).

    In any of the three channels, since two colours may have the same luminance.
    """
    light = rgb.astype(np.float32) * np.float32(100 / 255)
    narrow, wide = cv2.GaussianBlur(light, (0, 0), 1.2), cv2.GaussianBlur(light, (0, 0), 1.9)
    darker = (np.float32(0.985) * wide - narrow).max(axis=2) - np.float32(0.2)
    return np.asarray(np.tanh(np.float32(1.2) * np.maximum(darker, 0)), np.float32)


def _flattened(rgb: RgbImage, *, rounds: int) -> RgbImage:
    """Without texture, but with edges: a bilateral filter, several times (Tomasi, Manduchi 1998)."""
    for _ in range(rounds):
        rgb = np.asarray(cv2.bilateralFilter(rgb, 9, 38, 5), np.uint8)
    return rgb


def _line(rgb: RgbImage) -> RgbImage:
    """A pencil drawing: straight strokes along edges, and light hatching for tone.

    Strokes as in Lu, Xu, Jia 2012, "Combining sketch and tone for pencil drawing production", section 3.1.
    """
    flat = _flattened(rgb, rounds=1)
    grey = np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)
    slope = _slope(np.asarray(cv2.GaussianBlur(flat, (0, 0), 0.8), np.uint8)) / np.float32(255)
    lines = [_stroke(angle) for angle in np.arange(8) * (np.pi / 8)]
    along = np.stack([cv2.filter2D(slope, -1, line, borderType=cv2.BORDER_REFLECT) for line in lines])
    best = along.argmax(axis=0)
    strokes = np.zeros_like(grey)
    for number, line in enumerate(lines):
        strokes += cv2.filter2D(slope * (best == number), -1, line, borderType=cv2.BORDER_REFLECT)
    ink = np.clip((strokes - 0.009) / 0.06, 0, 1) ** np.float32(0.8)
    noise = np.random.default_rng(_SEED).random(grey.shape, np.float32) - np.float32(0.5)
    hatching = cv2.filter2D(noise, -1, _stroke(-np.pi / 4), borderType=cv2.BORDER_REFLECT) * np.float32(2)
    shade = (1 - cv2.GaussianBlur(grey, (0, 0), 1.5)) ** np.float32(2)
    paper = 1 - np.clip(shade * (0.3 + hatching), 0, 1)
    return _rounded(np.repeat((252 * paper * (1 - 0.9 * ink))[..., None], 3, axis=2))


_STROKE_PX = 5
"""Half the length of a stroke: OpenCV computes kernels up to 11×11 directly, which is faster than by Fourier here."""


def _stroke(angle: float) -> _Plane:
    """A kernel that averages along a line, antialiased."""
    y, x = np.mgrid[-_STROKE_PX : _STROKE_PX + 1, -_STROKE_PX : _STROKE_PX + 1]
    across = np.abs(x * np.sin(angle) - y * np.cos(angle))
    kernel = np.clip(1 - across, 0, 1) * (np.hypot(x, y) < _STROKE_PX + 0.5)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _slope(rgb: RgbImage) -> _Plane:
    """The length of the gradient in the channel where it is longest."""
    across, down = (np.asarray(cv2.Scharr(rgb, cv2.CV_32F, *axis, scale=1 / 32)) for axis in ((1, 0), (0, 1)))
    return np.asarray(np.sqrt((across * across + down * down).max(axis=2)), np.float32)


_POSTER_COLOURS = 8


def _poster(rgb: RgbImage) -> RgbImage:
    """A few flat colours in large areas."""
    flat = cv2.medianBlur(_flattened(rgb, rounds=2), 5)
    lab = np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2LAB), np.float32)
    palette = _palette(lab.reshape(-1, 3)[:: max(1, lab.size // 3 // 8192)], _POSTER_COLOURS)
    nearest = _nearest(lab.reshape(-1, 3), palette).reshape(lab.shape[:2])
    best, areas = np.full(nearest.shape, -1, np.float32), np.zeros(nearest.shape, np.intp)
    for number in range(len(palette)):  # each pixel gets the colour that is most frequent around it
        share = cv2.GaussianBlur((nearest == number).astype(np.float32), (0, 0), 2.0)
        areas[share > best] = number
        best = np.maximum(best, share)
    vivid = palette + (palette - 128) * np.array([0.1, 0.35, 0.35], np.float32)
    colours = np.asarray(cv2.cvtColor(_rounded(vivid[None]), cv2.COLOR_LAB2RGB), np.uint8)[0]
    return np.asarray(colours[areas])


def _palette(samples: _Plane, count: int) -> _Plane:
    """Up to `count` colours that stand for the samples: median cut, then Lloyd's iteration. Needs no random start."""
    boxes = [samples]
    while len(boxes) < count:
        spread = [float((box.max(axis=0) - box.min(axis=0)).max()) for box in boxes]
        widest = int(np.argmax(spread))
        if spread[widest] < 1:
            break
        box = boxes.pop(widest)
        channel = int(np.argmax(box.max(axis=0) - box.min(axis=0)))
        is_above = box[:, channel] > (box[:, channel].max() + box[:, channel].min()) / 2
        boxes += [box[~is_above], box[is_above]]
    palette = np.stack([box.mean(axis=0) for box in boxes])
    for _ in range(8):
        nearest = _nearest(samples, palette)
        palette = np.stack(
            [
                samples[nearest == number].mean(axis=0) if (nearest == number).any() else old
                for number, old in enumerate(palette)
            ]
        )
    return palette


def _nearest(samples: _Plane, palette: _Plane) -> NDArray[np.intp]:
    """The number of the colour that is nearest to each sample."""
    return np.asarray(((palette**2).sum(axis=1) - 2 * samples @ palette.T).argmin(axis=1))


_BRUSHES = (18, 9, 5)
"""Radii of the brushes, coarse to fine."""
_STEPS = 6
"""Longest stroke, in radii."""
_TOLERANCE = 28.0
"""A finer brush repaints what is so far off, in the distance of RGB colours."""


def _paint(rgb: RgbImage) -> RgbImage:
    """Brush strokes in layers, coarse to fine, along the edges (Hertzmann 1998, "Painterly rendering with curved brush
    strokes of multiple sizes", section 2)."""
    rng = np.random.default_rng(_SEED)
    canvas = np.empty_like(rgb)
    canvas[:] = _rounded(rgb.reshape(-1, 3).mean(axis=0))
    for layer, radius in enumerate(_BRUSHES):
        aim = np.asarray(cv2.GaussianBlur(rgb, (0, 0), radius / 2), np.uint8)
        lines, colours = _strokes(canvas, aim, radius, rng, everywhere=layer == 0)
        for line, colour in zip(lines, colours.tolist(), strict=True):
            cv2.polylines(canvas, [line], False, colour, radius, cv2.LINE_8, 3)
    return canvas


def _strokes(
    canvas: RgbImage, aim: RgbImage, radius: int, rng: np.random.Generator, *, everywhere: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The strokes of a layer, in the order in which they are painted.

    Returns:
        Lines N×P×1×2 of x and y in eighths of a pixel, and their colours N×3.
    """
    height, width = aim.shape[:2]
    rows, columns = (max(1, round(side * 1.4 / radius)) for side in (height, width))
    y, x = (part.ravel() for part in np.mgrid[:rows, :columns].astype(np.float32))
    jitter = rng.random((3, y.size), np.float32)
    shade = rng.random((y.size, 1), np.float32)
    y, x = (y + jitter[0]) * np.float32(height / rows), (x + jitter[1]) * np.float32(width / columns)
    order = np.argsort(jitter[2], kind="stable")
    y, x, shade = y[order], x[order], shade[order]
    goal = aim.astype(np.float32)
    distance = np.sqrt(((goal - canvas) ** 2).sum(axis=2))
    if not everywhere:
        off = cv2.boxFilter(distance, -1, (radius, radius))[_at(y, height), _at(x, width)]
        y, x, shade = (part[off > _TOLERANCE] for part in (y, x, shade))
    colour = goal[_at(y, height), _at(x, width)]
    along_x, along_y = _along(aim, radius)
    line = np.empty((y.size, _STEPS + 1, 2), np.float32)
    line[:, 0] = np.stack([x, y], axis=-1)
    is_going, dx, dy = np.ones(y.size, bool), np.zeros_like(x), np.zeros_like(y)
    for step in range(1, _STEPS + 1):
        row, column = _at(y, height), _at(x, width)
        ahead_x, ahead_y = along_x[row, column], along_y[row, column]
        turn = np.where(ahead_x * dx + ahead_y * dy < 0, np.float32(-1), np.float32(1))
        dx, dy = turn * ahead_x, turn * ahead_y
        own = np.sqrt(((goal[row, column] - colour) ** 2).sum(axis=1))
        is_going &= (step <= 2) | (own <= np.maximum(distance[row, column], _TOLERANCE / 2))
        x, y = x + is_going * radius * dx, y + is_going * radius * dy
        line[:, step] = np.stack([x, y], axis=-1)
    colours = np.clip(np.rint(colour + (shade - 0.5) * 22), 0, 255).astype(np.int64)
    return np.rint(line * 8).astype(np.int32)[:, :, None], colours


def _along(aim: RgbImage, radius: int) -> tuple[_Plane, _Plane]:
    """Unit vectors along the edges, from the smoothed structure tensor, so that strokes near an edge follow it."""
    grey = cv2.cvtColor(aim, cv2.COLOR_RGB2GRAY)
    gx, gy = (cv2.Scharr(grey, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    side = 3 * radius, 3 * radius
    xx, xy, yy = (cv2.blur(cv2.blur(part, side), side) for part in (gx * gx, gx * gy, gy * gy))
    angle = np.arctan2(2 * xy, xx - yy) / 2 + np.float32(np.pi / 2)
    return np.asarray(np.cos(angle), np.float32), np.asarray(np.sin(angle), np.float32)


def _at(place: _Plane, side: int) -> NDArray[np.intp]:
    return np.clip(place, 0, side - 1).astype(np.intp)


def _rounded(values: NDArray[np.floating]) -> RgbImage:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


STYLES: dict[str, Callable[[RgbImage], RgbImage]] = {
    "cartoon": _at_work_size(_cartoon),
    "line": _at_work_size(_line),
    "poster": _at_work_size(_poster),
    "paint": _at_work_size(_paint),
    "gray": _gray,
}
"""What draws each style."""
