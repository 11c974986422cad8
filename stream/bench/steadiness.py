"""How much a model's depth changes from frame to frame of a clip, as it is and with `--steady`.

Invariant: the frames are the same for every model, so that the numbers compare.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stream.capture.video.file import VideoSource
from stream.channel import Channel
from stream.frames import Frame, Result
from stream.infer.base import Inference
from stream.infer.engine import Engine
from stream.infer.steady import Steady

FRAMES = 25
"""Frames that are compared, a second of the clip."""
DEMO = Path(__file__).parents[1] / "data" / "demo.mp4"


@dataclass(frozen=True, kw_only=True)
class SteadinessResult:
    """See `DepthChange`.

    Attributes:
        raw, steadied: mean change of disparity along the motion of the picture, in shares of the maps' range.
    """

    model: str
    frames: int
    raw: float
    steadied: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable values."""
        return asdict(self)


class _Maps(Inference):
    """Runs an engine on the frames of the clip."""

    def __init__(self, engine: Engine, frames: Iterator[Frame]) -> None:
        self._engine, self._frames = engine, frames

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:  # noqa: ARG002
        """See `Inference`."""
        for frame in self._frames:
            yield frame, self._engine.infer([frame])[0]

    def close(self) -> None:
        """Release the model."""
        self._engine.close()


def measure(engine: Engine, clip: Path = DEMO, frames: int = FRAMES) -> SteadinessResult | None:
    """Measure on the first frames of a clip, and close the engine; None if no two maps could be compared."""
    source = VideoSource(clip)
    stage = Steady(_Maps(engine, islice(source, frames)))
    try:
        for _ in stage.stream(Channel(1), lambda *_: None):
            pass
    finally:
        source.close()
        stage.close()
    (change,) = stage.depth_changes
    if change is None or change.steadied is None:
        return None
    return SteadinessResult(model=engine.spec.name, frames=frames, raw=change.raw, steadied=change.steadied)
