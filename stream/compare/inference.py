"""Several models as one inference stage: all in memory, or one in memory and the maps of the others on the disk.

Invariant: a frame that any model rejects is skipped with that model's reason; every other failure ends the run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stream.channel import Channel
from stream.compare.sheet import SheetRenderer, shrink
from stream.config import Config
from stream.errors import ModelError, SinkError, reason_of
from stream.files import check_free_space
from stream.frames import ComparedDepth, Depth, DepthKind, Frame, Result, SourceInfo
from stream.infer.base import Inference
from stream.jobs.source import open_config_source

if TYPE_CHECKING:
    from stream.infer.engine import Engine


class MultiModelInference(Inference):
    """Runs every model on each frame."""

    def __init__(self, engines: Sequence["Engine"]) -> None:
        self._engines = tuple(engines)

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""
        for frame in frames:
            try:
                self._check(frame)
            except ModelError as error:
                on_skip(frame, str(error))
                continue
            first, *others = self._maps(frame)
            yield frame, ComparedDepth(values=first.values, kind=first.kind, index=first.index, others=tuple(others))

    def close(self) -> None:
        """Release the models."""
        for engine in self._engines:
            engine.close()

    def _check(self, frame: Frame) -> None:
        """Raise `ModelError` if a model rejects the frame."""
        for engine in self._engines:
            engine.key(frame)

    def _maps(self, frame: Frame) -> list[Depth]:
        """The depth map of each model, in order."""
        return [engine.infer([frame])[0] for engine in self._engines]


class PrecomputedInference(MultiModelInference):
    """Runs the first model on each frame, and reads the maps of the others, which `precompute_maps` stored."""

    def __init__(self, engine: "Engine", folders: Sequence[Path]) -> None:
        super().__init__([engine])
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
                maps.append(Depth(values=stored["values"], kind=kind, index=frame.index))
        return maps


def precompute_maps(
    config: Config,
    info: SourceInfo,
    loaders: Mapping[str, Callable[[], "Engine"]],
    renderer: SheetRenderer,
    parent: Path,
) -> list[Path]:
    """Run each model over the whole source, one after the other, and store its maps at the size of a pane.

    Args:
        loaders: by model name; only one model is in memory at a time.
        parent: a folder for the maps.

    Returns:
        The folder of each model, for `PrecomputedInference`.

    Raises:
        OutputError: the maps would not fit on the disk of `parent`.
        SinkError: a map could not be written.
    """
    height, width = renderer.pane_size(info.size)
    count = (info.frame_count or 0) * len(loaders)
    check_free_space(parent, count * height * width * 4, f"{count} temporary depth maps")
    folders = []
    for name, load in loaders.items():
        folder = parent / name
        folder.mkdir()
        _store_maps(config, load(), folder, renderer)  # keep no reference to the model: the next one needs its memory
        folders.append(folder)
    return folders


def _store_maps(config: Config, engine: "Engine", folder: Path, renderer: SheetRenderer) -> None:
    source = open_config_source(config)
    try:
        for frame in source:
            np.savez(_stored_path(folder, frame), **_stored(engine, frame, renderer))  # type: ignore[arg-type]
    except OSError as error:
        hint = "free some space, or set TMPDIR to a folder on another disk"
        raise SinkError(f"cannot be written: {reason_of(error)}", where=str(folder), hint=hint) from error
    finally:
        source.close()
        engine.close()


def _stored(engine: "Engine", frame: Frame, renderer: SheetRenderer) -> dict[str, object]:
    """The stored arrays of one frame: its map, or why the model rejects the frame."""
    try:
        engine.key(frame)
    except ModelError as error:
        return {"rejection": f"{engine.spec.name}: {error}"}
    (depth,) = engine.infer([frame])
    return {"values": shrink(depth.values, renderer.pane_size(frame.size)), "kind": depth.kind.value}


def _stored_path(folder: Path, frame: Frame) -> Path:
    return folder / f"{frame.index}.npz"
