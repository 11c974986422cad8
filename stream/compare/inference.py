"""Several models as one inference stage: all in memory, or one in memory and the maps of the others on the disk.

Invariant: a frame that any model rejects is skipped with that model's reason; every other failure ends the run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stream.capture.base import Source
from stream.channel import Channel
from stream.compare.sheet import shrink
from stream.errors import ModelError, SinkError, reason_of
from stream.files import check_free_space
from stream.frames import ComparedDepth, Depth, DepthKind, Frame, Result, SourceInfo
from stream.infer.base import Inference
from stream.machine import resident_bytes
from stream.models.spec import ModelSpec

if TYPE_CHECKING:
    from stream.infer.engine import Engine


SizeOf = Callable[[tuple[int, int]], tuple[int, int]]
"""From the (height, width) of a frame to another size."""


@dataclass
class ModelUse:
    """What a model takes on this machine; complete when it has computed its last map.

    Attributes:
        spec: its row of the catalog.
        weights: a file of the user's own; None for the published one.
        device, precision, backend, weights_sha256: as it was loaded.
        load_s: seconds to load it.
        first_s: seconds for its first map, which may include preparations.
        frames: maps after the first.
        seconds: for these.
        memory_bytes: by how much the memory of the process grew while it was loaded and computed its first map. What
            earlier models have left free is used again, so of several models the later ones may seem smaller.
    """

    spec: ModelSpec
    weights: Path | None = None
    device: str = ""
    precision: str = ""
    backend: str = ""
    weights_sha256: str = ""
    load_s: float = 0.0
    first_s: float = 0.0
    frames: int = 0
    seconds: float = 0.0
    memory_bytes: int = 0
    _is_first: bool = True

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Measure what loading takes."""
        began, before = time.perf_counter(), resident_bytes()
        yield
        self.load_s, self.memory_bytes = time.perf_counter() - began, max(0, resident_bytes() - before)

    def describe(self, engine: "Engine") -> None:
        """Take over how it was loaded."""
        self.device, self.precision = str(engine.device), engine.precision
        self.backend, self.weights_sha256 = engine.backend, engine.model.weights_sha256

    def infer(self, engine: "Engine", frame: Frame) -> Depth:
        """The map of a frame, measured."""
        began = time.perf_counter()
        if self._is_first:
            before = resident_bytes()
            (depth,) = engine.infer([frame])
            self.first_s = time.perf_counter() - began
            self.memory_bytes += max(0, resident_bytes() - before)
            self._is_first = False
            return depth
        (depth,) = engine.infer([frame])
        self.seconds += time.perf_counter() - began
        self.frames += 1
        return depth


class MultiModelInference(Inference):
    """Runs every model on each frame.

    Args:
        engines: closed with this.
        uses: what each of them takes, in the same order; counted here.
        kept_size: the size that maps are reduced to, of the frame's; None: they keep the frame's.
    """

    def __init__(
        self, engines: Sequence["Engine"], uses: Sequence[ModelUse], *, kept_size: SizeOf | None = None
    ) -> None:
        self._engines, self._uses, self._kept_size = tuple(engines), tuple(uses), kept_size

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""
        for frame in frames:
            try:
                self._check(frame)
            except ModelError as error:
                on_skip(frame, str(error))
                continue
            first, *others = self._maps(frame)
            yield frame, ComparedDepth.of(first, others)

    def close(self) -> None:
        """Release the models."""
        for engine in self._engines:
            engine.close()

    def _check(self, frame: Frame) -> None:
        """Raise `ModelError` if a model rejects the frame."""
        for engine in self._engines:
            _check(engine, frame)

    def _maps(self, frame: Frame) -> list[Depth]:
        """The depth map of each model, in order."""
        return [
            self._kept(use.infer(engine, frame), frame) for use, engine in zip(self._uses, self._engines, strict=True)
        ]

    def _kept(self, depth: Depth, frame: Frame) -> Depth:
        """The map at the size at which it is kept."""
        if self._kept_size is None or depth.size == (size_hw := self._kept_size(frame.size)):
            return depth
        values = shrink(depth.values, size_hw)
        return replace(depth, values=values, valid=~np.isnan(values), confidence=None)


class PrecomputedInference(MultiModelInference):
    """Runs the first model on each frame, and reads the maps of the others, which `precompute_maps` stored."""

    def __init__(
        self, engine: "Engine", use: ModelUse, folders: Sequence[Path], *, kept_size: SizeOf | None = None
    ) -> None:
        super().__init__([engine], [use], kept_size=kept_size)
        self._folders = tuple(folders)

    def _check(self, frame: Frame) -> None:
        for folder in self._folders:
            with np.load(_stored_path(folder, frame)) as stored:
                if "rejection" in stored:
                    raise ModelError(str(stored["rejection"]))
        super()._check(frame)

    def _maps(self, frame: Frame) -> list[Depth]:
        maps = super()._maps(frame)
        for folder in self._folders:
            with np.load(_stored_path(folder, frame)) as stored:
                kind = DepthKind(str(stored["kind"]))
                values = stored["values"]
                refined = bool(stored["refined"])
                valid = ~np.isnan(values)
                maps.append(Depth(values=values, kind=kind, index=frame.index, valid=valid, refined=refined))
        return maps


def _check(engine: "Engine", frame: Frame) -> None:
    """Raise `ModelError`, which names the model, if it rejects the frame."""
    try:
        engine.key(frame)
    except ModelError as error:
        raise ModelError(f"{engine.spec.name}: {error}") from error


def precompute_maps(
    info: SourceInfo,
    loaders: Sequence[tuple[ModelUse, Callable[[], "Engine"]]],
    kept_size: SizeOf,
    parent: Path,
    *,
    reopen: Callable[[], Source],
) -> list[Path]:
    """Run each model over the whole source, one after the other, and store its maps.

    Args:
        loaders: only one model is in memory at a time.
        kept_size: the size of a stored map.
        parent: a folder for the maps.
        reopen: opens the source from its beginning.

    Returns:
        The folder of each model, for `PrecomputedInference`.

    Raises:
        OutputError: the maps would not fit on the disk of `parent`.
        SinkError: a map could not be written.
    """
    height, width = kept_size(info.size)
    count = (info.frame_count or 0) * len(loaders)
    check_free_space(parent, count * height * width * 4, f"{count} temporary depth maps")
    folders = []
    for use, load in loaders:
        folder = parent / use.spec.name
        folder.mkdir()
        _store_maps(reopen, load(), use, folder, kept_size)  # keep no model: the next one needs its memory
        folders.append(folder)
    return folders


def _store_maps(reopen: Callable[[], Source], engine: "Engine", use: ModelUse, folder: Path, kept_size: SizeOf) -> None:
    source = reopen()
    try:
        for frame in source:
            np.savez(_stored_path(folder, frame), **_stored(engine, use, frame, kept_size))  # type: ignore[arg-type]
    except OSError as error:
        hint = "free some space, or set TMPDIR to a folder on another disk"
        raise SinkError(f"cannot be written: {reason_of(error)}", where=str(folder), hint=hint) from error
    finally:
        source.close()
        engine.close()


def _stored(engine: "Engine", use: ModelUse, frame: Frame, kept_size: SizeOf) -> dict[str, object]:
    """The stored arrays of one frame: its map, or why the model rejects the frame."""
    try:
        _check(engine, frame)
    except ModelError as error:
        return {"rejection": str(error)}
    depth = use.infer(engine, frame)
    values = shrink(depth.values, kept_size(frame.size))  # NaN: no answer
    return {"values": values, "kind": depth.kind.value, "refined": depth.refined}


def _stored_path(folder: Path, frame: Frame) -> Path:
    return folder / f"{frame.index}.npz"
