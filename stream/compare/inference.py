"""Several models as one inference stage: together on each frame, or one after the other by way of the disk.

Invariant: a frame that any of the models refuses is skipped with that model's reason; all else that fails ends the run.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stream.channel import Channel, Closed
from stream.compare.sheet import SheetRenderer, shrink
from stream.config import Config
from stream.errors import ModelError, SinkError
from stream.frames import ComparedDepth, Depth, DepthKind, Frame, Result, SourceInfo
from stream.jobs.source import open_config_source
from stream.models.spec import ModelSpec

if TYPE_CHECKING:
    from stream.infer.engine import Engine


class Together:
    """Runs every model on each frame in turn."""

    def __init__(self, engines: Sequence["Engine"]) -> None:
        self._engines = tuple(engines)

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `stages.Inference`."""
        while True:
            try:
                frame = frames.get()
            except Closed:
                return
            try:
                yield frame, self.compared(frame)
            except ModelError as error:
                if not self._is_refusal(frame):
                    raise
                on_skip(frame, str(error))

    def compared(self, frame: Frame) -> ComparedDepth:
        """The maps of all models for one frame."""
        first, *others = (engine.infer([frame])[0] for engine in self._engines)
        return _joined(first, others)

    def close(self) -> None:
        """Release the models."""
        for engine in self._engines:
            engine.close()

    def _is_refusal(self, frame: Frame) -> bool:
        for engine in self._engines:
            try:
                engine.key(frame)
            except ModelError:
                return True
        return False


class FromDisk(Together):
    """Runs the first model; the others' maps were computed before."""

    def __init__(self, engines: Sequence["Engine"], folders: Sequence[Path]) -> None:
        super().__init__(engines)
        self._folders = tuple(folders)

    def compared(self, frame: Frame) -> ComparedDepth:
        """See `Together`."""
        (first,) = self._engines[0].infer([frame])
        others = []
        for folder in self._folders:
            path = folder / f"{frame.index}.npz"
            with np.load(path) as stored:
                if "refusal" in stored:
                    raise ModelError(str(stored["refusal"]))
                kind = DepthKind(str(stored["kind"]))
                others.append(Depth(values=stored["values"], kind=kind, index=frame.index))
        return _joined(first, others)

    def _is_refusal(self, frame: Frame) -> bool:
        for folder in self._folders:
            with np.load(folder / f"{frame.index}.npz") as stored:
                if "refusal" in stored:
                    return True
        return super()._is_refusal(frame)


def _joined(first: Depth, others: Sequence[Depth]) -> ComparedDepth:
    return ComparedDepth(values=first.values, kind=first.kind, index=first.index, others=tuple(others))


def spooled(
    config: Config,
    info: SourceInfo,
    specs: Sequence[ModelSpec],
    load: Callable[[ModelSpec], "Engine"],
    renderer: SheetRenderer,
    resources: ExitStack,
) -> list[Path]:
    """Run each model over the source by itself; gives a folder of its maps, as large as a pane, for each.

    Raises:
        OutputError: the maps would not fit into the temporary folder.
        SinkError: it is full all the same.
    """
    from stream.files import check_free_space

    height, width = renderer.pane_size(info.size)
    parent = Path(tempfile.mkdtemp(prefix="depthstream-compare-"))
    resources.callback(shutil.rmtree, parent, ignore_errors=True)
    count = (info.frame_count or 0) * len(specs)
    check_free_space(parent, count * height * width * 4, f"{count} depth maps that wait for the sheets")
    folders = []
    for spec in specs:
        folder = parent / spec.name
        folder.mkdir()
        _spool(config, load(spec), folder, renderer)  # nothing here refers to the model when the next one is loaded
        folders.append(folder)
    return folders


def _spool(config: Config, engine: "Engine", folder: Path, renderer: SheetRenderer) -> None:
    source = open_config_source(config)
    try:
        for frame in source:
            np.savez(folder / f"{frame.index}.npz", **_stored(engine, frame, renderer))  # type: ignore[arg-type]
    except OSError as error:
        raise SinkError(f"cannot be written: {error.strerror or error}", where=str(folder)) from error
    finally:
        source.close()
        engine.close()


def _stored(engine: "Engine", frame: Frame, renderer: SheetRenderer) -> dict[str, object]:
    """What is kept of one frame: its map, or why the model cannot take it."""
    try:
        engine.key(frame)
    except ModelError as error:
        return {"refusal": f"{engine.spec.name}: {error}"}
    (depth,) = engine.infer([frame])
    return {"values": shrink(depth.values, renderer.pane_size(frame.size)), "kind": depth.kind.value}
