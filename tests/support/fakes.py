"""Scripted stages for pipeline tests: they keep the real contracts, and their hooks fail or wait where a test wants."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from stream.capture.base import CaptureLog, Skipped, Source
from stream.channel import Channel, Closed
from stream.frames import Depth, DepthKind, Frame, Result, RgbImage, SourceInfo, SourceKind
from stream.infer.base import Inference
from stream.render.base import BaseRenderer
from stream.sinks.base import Sink

SIZE = (24, 32)


class Fault(Exception):
    """What the injected faults raise."""


def frame(index: int, size: tuple[int, int] = SIZE) -> Frame:
    rgb = np.full((*size, 3), index % 256, np.uint8)
    return Frame(
        index=index, pts=index * 512, time_base=Fraction(1, 12800), captured_at=time.monotonic(), rgb=rgb, duration=512
    )


def depth_of(frame: Frame) -> Depth:
    values = np.linspace(0, 1 + frame.index, frame.rgb[..., 0].size, dtype=np.float32).reshape(frame.size)
    return Depth(values=values, kind=DepthKind.RELATIVE_DISPARITY, index=frame.index)


Hook = Callable[[str, int], None]
"""Called as hook(when, index); raises to inject a fault."""


def no_hook(_when: str, _index: int) -> None:
    """Nothing happens."""


@dataclass
class ScriptedSource(Source):
    """Yields `count` frames; `hook` is called before each one and at close."""

    count: int = 20
    live: bool = False
    hook: Hook = no_hook
    skip: frozenset[int] = frozenset()
    closed: int = 0
    silence_limit_s: float | None = None

    def __post_init__(self) -> None:
        self._log = CaptureLog()
        self.interrupted = threading.Event()
        kind = SourceKind.CAMERA if self.live else SourceKind.VIDEO
        self.info = SourceInfo(
            name="scripted", size=SIZE, is_live=self.live, time_base=Fraction(1, 12800), rate=Fraction(25),
            frame_count=self.count, kind=kind,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            if self.interrupted.is_set():
                return
            self.hook("frame", index)
            if index in self.skip:
                self.log.skipped.append(Skipped(name=f"item {index}", reason="scripted"))
                continue
            yield frame(index)

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1
        self.hook("finish", self.count)


@dataclass
class ScriptedInference(Inference):
    """Computes a ramp for every frame."""

    hook: Hook = no_hook
    refuse: frozenset[int] = frozenset()
    closed: int = 0

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        while True:
            try:
                item = frames.get()
            except Closed:
                return
            if item.index in self.refuse:
                on_skip(item, "too large")
                continue
            self.hook("frame", item.index)
            yield item, depth_of(item)

    def close(self) -> None:
        self.closed += 1
        self.hook("finish", -1)


@dataclass
class ScriptedRenderer(BaseRenderer):
    """Shows the frame itself."""

    hook: Hook = no_hook

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        self.hook("open", -1)
        return size_hw

    def render(self, frame: Frame, depth: Depth) -> RgbImage:
        self.hook("frame", depth.index)
        return frame.rgb


@dataclass
class RecordingSink(Sink):
    """Remembers what it was given and how it ended."""

    hook: Hook = no_hook
    is_lossless: bool = True
    indices: list[int] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    wants_stop: bool = False
    stop_after: int | None = None

    @property
    def outputs(self) -> list[str]:
        return ["memory"]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        self.hook("open", -1)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        assert frame.index == depth.index
        self.hook("frame", frame.index)
        self.indices.append(frame.index)
        self.wants_stop = self.stop_after is not None and len(self.indices) >= self.stop_after
        return True

    def finish(self) -> None:
        self.endings.append("finish")
        self.hook("finish", -1)

    def keep_partial(self, reason: str) -> None:
        self.endings.append("keep_partial")

    def abort(self, error: BaseException) -> None:
        self.endings.append("abort")
