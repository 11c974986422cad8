"""A model whose values pump: the true depth of a moving scene, in another scale and shift for each frame."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from stream.channel import Channel
from stream.frames import Depth, DepthKind, Frame, Result
from stream.infer.base import Inference
from stream.infer.steady import Steady
from stream.media import cv2
from tests.support.scenes import textured

SIZE = 120, 160
FPS = 25


@dataclass(frozen=True, kw_only=True)
class View:
    """A picture (uint8 H×W×3) and its true disparity (float32 H×W)."""

    rgb: np.ndarray
    disparity: np.ndarray


def views(count: int, *, seed: int = 0, speed: float = 1.5, size: tuple[int, int] = SIZE) -> list[View]:
    """A camera that pans over a wall and a floor with shapes on them, in front of which two things move."""
    height, width = size
    rng = np.random.default_rng(seed)
    wide = textured(seed, (2 * height, 2 * width + int(speed * count)))
    smooth = rng.random((6, 12)).astype(np.float32)
    truth = 2 + cv2.resize(smooth, wide.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    truth += np.linspace(0, 3, 2 * height, dtype=np.float32)[:, None]  # the floor comes nearer
    things = [textured(seed + 50 + number, (40, 40))[:30, :26] for number in range(2)]
    made = []
    for number in range(count):
        top, left = height / 2 + 4 * np.sin(number / 5), speed * number
        centre = (left + width / 2, top + height / 2)
        rgb = cv2.getRectSubPix(wide, (width, height), centre)
        disparity = cv2.getRectSubPix(truth, (width, height), centre)
        for at, thing in enumerate(things):  # one to the left, one to the right, and both come nearer
            row, column = (height - 55, 20 + 2 * number) if at else (height // 6, width - 50 - 2 * number)
            column = min(max(column, 0), width - 26)
            rgb[row : row + 30, column : column + 26] = thing
            disparity[row : row + 30, column : column + 26] = 5 + 0.01 * number
        made.append(View(rgb=rgb, disparity=disparity))
    return made


def frame_of(view: View, index: int, *, step: int = 1) -> Frame:
    return Frame(
        index=index, pts=index * step, time_base=Fraction(1, FPS), captured_at=0.0, rgb=view.rgb
    )  # fmt: skip


def depth_of(
    view: View,
    index: int,
    *,
    scale: float = 1.0,
    shift: float = 0.0,
    kind: DepthKind = DepthKind.RELATIVE_DISPARITY,
    valid: np.ndarray | None = None,
    model: str = "",
) -> Depth:
    pumped = scale * view.disparity + shift
    values = pumped if kind.is_disparity else 1 / pumped
    return Depth(values=values.astype(np.float32), kind=kind, index=index, valid=valid, model=model)


class Given(Inference):
    """Yields results that were made before."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results, self.is_closed = results, False

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        yield from self.results

    def close(self) -> None:
        self.is_closed = True


def steadied(results: Sequence[Result], *, adjust: bool = True) -> tuple[list[Depth], Steady]:
    """The maps of a `Steady` stage over `results`, and the stage."""
    stage = Steady(Given(results), adjust=adjust)
    none: Channel[Frame] = Channel(1)
    return [depth for _, depth in stage.stream(none, lambda *_: None)], stage
