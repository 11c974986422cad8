"""The first of two passes: the model runs over the whole clip, its depth waits on the disk, and the ends are gathered.

The second pass is an ordinary run with the source opened again and `Replay` in the place of the model.
Invariant: memory does not grow with the clip, and the first pass writes nothing but its spool.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from stream.capture.base import Source
from stream.channel import Channel
from stream.config import Config
from stream.depthdata.ends import Ends
from stream.depthdata.spool import Spool
from stream.frames import Depth, DepthKind, Frame, Result, RgbImage, SourceInfo
from stream.infer.base import Inference, Wrapped
from stream.infer.replay import Replay
from stream.jobs.build import build_renderer
from stream.jobs.models import most_staged_bytes
from stream.jobs.plan import OutputPlan, space_needed
from stream.jobs.ranges import PERCENTILES, ClipEnds
from stream.pipeline.runner import QUEUE, Pipeline
from stream.render.range import displayed
from stream.sinks.base import Sink

if TYPE_CHECKING:
    from stream.depthdata.description import Description
    from stream.infer.engine import Engine
    from stream.infer.switching import Switching

_SAMPLES = 100_000
"""Pixels of a frame, on a regular grid, that the percentiles are made of, or a few more."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run reads and computes with, open, and the plan of what it writes.

    Attributes:
        description: of depth that is there already, so that there are no engines.
    """

    source: Source
    plan: OutputPlan
    kind: DepthKind
    engines: "list[Engine]"
    inference: Inference
    switching: "Switching | None" = None
    description: "Description | None" = None

    @property
    def info(self) -> SourceInfo:
        return self.source.info


class EndsOfClip:
    """The ends of depth maps that are added one by one."""

    def __init__(self) -> None:
        self._values, self._shown = (math.inf, -math.inf), Ends()
        self._kind = DepthKind.RELATIVE_DISPARITY

    def add(self, depth: Depth) -> None:
        """Take a map into account; pixels without an answer are left out."""
        answers = depth.answers
        if not answers.size:
            return
        self._kind = depth.kind
        lo, hi = self._values
        self._values = min(lo, float(answers.min())), max(hi, float(answers.max()))
        shown = displayed(depth)
        if depth.valid is None:
            step = max(1, math.isqrt(shown.size // _SAMPLES))
            self._shown.add(shown[::step, ::step])
        else:  # a grid could miss all answers where there are few
            self._shown.add(shown[depth.valid][:: max(1, answers.size // _SAMPLES)])

    def merge(self, other: "EndsOfClip") -> None:
        """Take the maps into account that another one has."""
        (lo, hi), (low, high) = self._values, other._values
        self._values = min(lo, low), max(hi, high)
        self._shown.merge(other._shown)
        if low <= high:
            self._kind = other._kind

    def save(self, file: BinaryIO) -> None:
        """Write them, for `load`."""
        arrays: dict[str, Any] = {**self._shown.as_arrays(), "values": self._values, "kind": str(self._kind)}
        np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, file: BinaryIO) -> Self:
        """The inverse of `save`. Raises `OSError`, `KeyError` or `ValueError`."""
        found = cls()
        with np.load(file) as stored:
            lo, hi = stored["values"]
            found._values, found._kind = (float(lo), float(hi)), DepthKind(str(stored["kind"]))
            found._shown = Ends.of_arrays(stored["bins"], stored["counts"], stored["extremes"])
        return found

    @property
    def ends(self) -> ClipEnds:
        """The ends so far; any, if nothing had an answer."""
        lo, hi = self._values
        if lo > hi:
            return ClipEnds.unknown()
        return ClipEnds(shown=self._shown.percentiles(*PERCENTILES), values=self._values, kind=self._kind)


class Clip:
    """The depth of a whole clip, on the disk; use it as a context manager."""

    def __init__(self, config: Config, info: SourceInfo, plan: OutputPlan) -> None:
        count = info.frame_count
        if count is not None and config.capture.max_frames is not None:
            count = min(count, config.capture.max_frames)
        self._name = info.name
        keeps_confidence = "conf" in config.output.save
        self.spool = Spool(info.size, count, space_needed(config, plan), keeps_confidence=keeps_confidence)
        self.ends_so_far = EndsOfClip()
        self._refused: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.spool.close()

    @property
    def ends(self) -> ClipEnds:
        """The ends of the depth that was recorded."""
        return self.ends_so_far.ends

    def watched(self, inference: Inference) -> Inference:
        """The inference of the first pass: what the model refuses, it refuses in the second pass as well."""
        return _Watched(inference, self._refused)

    def replay(self) -> Replay:
        """The inference of the second pass."""
        return Replay(
            stored=self.spool,
            refused=self._refused,
            name=self._name,
            what="the source has changed between the two passes",
            hint="run again when it is complete",
        )


def first_pass(config: Config, job: Job, ends: EndsOfClip, spool: Spool | None = None) -> Pipeline:
    """The pipeline of the first pass.

    Args:
        spool: stores the depth; None if it is on the disk already.
    """
    return Pipeline(
        job.source,
        job.inference,
        build_renderer(config, job.plan, job.kind, ClipEnds.unknown()),
        [_Recorder(ends, spool)],
        queue=max(QUEUE, config.inference.batch),
        most_bytes=most_staged_bytes(config, job.info, job.inference),
        part="pass 1 of 2",
    )


class _Watched(Wrapped):
    """Notes the frames that `inference` refuses, by index."""

    def __init__(self, inference: Inference, refused: dict[int, str]) -> None:
        super().__init__(inference)
        self._refused = refused

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""

        def refuse(frame: Frame, reason: str) -> None:
            self._refused[frame.index] = reason
            on_skip(frame, reason)

        return self._inference.stream(frames, refuse)


class _Recorder(Sink):
    """Stores the depth of each frame, and takes it into account for the ends."""

    needs_image = False

    def __init__(self, ends: EndsOfClip, spool: Spool | None) -> None:
        self._ends, self._spool = ends, spool

    @property
    def is_lossless(self) -> bool:
        """Every frame is kept for the second pass."""
        return True

    @property
    def outputs(self) -> list[str]:
        """None that stays."""
        return []

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Nothing to prepare."""

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - depth only
        """See `Sink`."""
        if self._spool is not None:
            self._spool.append(frame, depth)
        self._ends.add(depth)
        return True

    def finish(self) -> None:
        """The second pass goes on from here."""

    def keep_partial(self, reason: str) -> None:
        """Nothing to keep: `Clip` discards the spool."""

    def abort(self, error: BaseException) -> None:
        """See `keep_partial`."""
