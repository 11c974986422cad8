"""Depth that was computed earlier as an inference stage, so that everything behind the model works as ever.

Invariant: a frame gets the depth of the frame of its time, or the run ends with an error.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from stream.channel import Channel
from stream.errors import SourceError
from stream.frames import Depth, Frame, Result
from stream.infer.base import Inference


@dataclass(kw_only=True)
class Replay(Inference):
    """Gives each frame its depth from `stored`.

    Attributes:
        stored: time in seconds and depth of each frame, in order.
        refused: why the model could not take frames, by their index; they have no depth.
        name: of the source of the frames, for errors.
        what: error of a frame whose depth is missing or of another size, or of depth without a frame.
        hint: what to do then.
        from_first: times count from the first frame and the first depth, as in a video that begins at zero.
        is_cut_short: whether the run ends before the frames do, so that depth may be left over.
    """

    stored: Iterable[tuple[Fraction, Depth]]
    name: str
    what: str
    hint: str
    refused: Mapping[int, str] = field(default_factory=dict)
    from_first: bool = False
    is_cut_short: Callable[[], bool] = lambda: False

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`.

        Raises:
            SourceError: the frames are not those of the depth.
        """
        stored = iter(self.stored)
        offset: Fraction | None = None if self.from_first else Fraction(0)
        for frame in frames:
            if frame.index in self.refused:
                on_skip(frame, self.refused[frame.index])
                continue
            found = next(stored, None)
            if found is None:
                raise self._error(f"the frame at {frame.time_s:.3f} s has no depth")
            time, depth = found
            if offset is None:
                offset = frame.pts * frame.time_base - time
            if time + offset != frame.pts * frame.time_base:
                raise self._error(
                    f"there is a frame at {frame.time_s:.3f} s, and depth at {float(time + offset):.3f} s"
                )
            if depth.size != frame.size:
                (height, width), (rows, columns) = frame.size, depth.size
                raise self._error(f"the frame has {width}×{height} pixels, and its depth {columns}×{rows}")
            yield frame, depth if depth.index == frame.index else replace(depth, index=frame.index)
        if next(stored, None) is not None and not self.is_cut_short():
            raise self._error("it has fewer frames than there are depth maps")

    def close(self) -> None:
        """Nothing to release: whoever made it closes what is stored."""

    def _error(self, why: str) -> SourceError:
        return SourceError(f"{self.what}: {why}", where=self.name, hint=self.hint)
