"""A source in which each photo is followed by its styles, and how far depth moves from one to the other.

Invariant: a style has the size and the camera of its photo, comes right after it, and is measured against the same
model's depth of the photo itself. A photo that is skipped has no styles.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from stream.capture.base import Source, WrappedSource
from stream.compare.agreement import agreement, moved
from stream.depthdata.accuracy import errors
from stream.depthdata.alignment import fitted
from stream.errors import UsageError
from stream.frames import Frame, SourceKind
from stream.survey.findings.base import Number
from stream.survey.scene import Scene
from stream.survey.styles import styled


class StyledSource(WrappedSource):
    """Yields each photo of `source`, then the photo in each of the styles.

    `Frame.index` is that of the photo times (1 + number of styles), plus the number of the style from 1; the photo
    itself has 0. See `place_of`.

    Args:
        source: of photos.
        styles: names, see `styles.STYLES`.
    """

    def __init__(self, source: Source, styles: Sequence[str]) -> None:
        super().__init__(source)
        self._styles, self._stop = tuple(styles), threading.Event()
        info, each = source.info, 1 + len(self._styles)
        self.info = replace(
            info,
            time_base=info.time_base / each,
            rate=None if info.rate is None else info.rate * each,
            frame_count=None if info.frame_count is None else info.frame_count * each,
        )

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        each, time_base = 1 + len(self._styles), self.info.time_base
        for photo in self._source:
            first = replace(photo, index=photo.index * each, pts=photo.pts * each, time_base=time_base)
            yield first
            for number, style in enumerate(self._styles, 1):
                if self._stop.is_set():
                    return
                yield replace(
                    first,
                    index=first.index + number,
                    pts=first.pts + number,
                    rgb=styled(photo.rgb, style),
                    name=_name_in(photo.name, style),
                    captured_at=time.monotonic(),
                )

    def end_before(self, number: int) -> None:
        """See `Source`."""
        self._source.end_before(-(-number // (1 + len(self._styles))))

    def interrupt(self) -> None:
        """See `Source`: no further style is drawn."""
        self._stop.set()
        super().interrupt()


def open_styled(opener: Callable[[], Source], styles: Sequence[str]) -> Source:
    """Open photos with their styles.

    Args:
        opener: opens the photos.
        styles: none of them for the photos alone.

    Raises:
        UsageError: there are styles, but what was opened is no photo.
        StreamError: see `opener`.
    """
    source = opener()
    if not styles:
        return source
    if source.info.kind is not SourceKind.STILLS:
        source.close()
        hint = "remove --styles, or save some frames as images"
        raise UsageError(f"applies to photos, and {source.info.name} is none", where="--styles", hint=hint)
    return StyledSource(source, styles)


def is_of_style(name: str, styles: Sequence[str]) -> bool:
    """Whether a frame of a `StyledSource` with this name shows a photo in a style."""
    return name.endswith(tuple(_name_in("", style) for style in styles))


def _name_in(photo: str, style: str) -> str:
    return f"{photo} ({style})"


def place_of(index: int, styles: Sequence[str]) -> tuple[int, str]:
    """The number of the photo and the style that a frame of a `StyledSource` shows; "" for the photo itself."""
    photo, style = divmod(index, 1 + len(styles))
    return photo, styles[style - 1] if style else ""


MOVED = (
    "For each model, the root mean square of s·d' + t − d in shares of the standard deviation of d: d is its own "
    "disparity of the photo, d' that of the photo in the style, and s ≥ 0 and t are the least-squares scale and shift. "
    "That is √(1 − r²) with their linear correlation r: 0 if depth does not move, 1 if nothing of it is left. It is no "
    "error: a model may be wrong in the same way in both, and one that answers the same to every picture does not move "
    "at all. So neither less nor more is better by itself: read it beside the other findings."
)
"""What the number of a style is."""
MOVED_DETAILS = {
    "spearman": "rank correlation of the two; 1 is best",
    "abs_rel": "AbsRel of the style's own depth against the truth, as in accuracy; only where a truth is known",
}


def measure_styled(photo: Scene, style: Scene) -> dict[str, Number]:
    """How far each model's depth moves from that of the photo, see `MOVED`.

    Args:
        photo: with the truth if there is one.
        style: the same photo in a style.
    """
    numbers = {}
    for model, values in style.raw.items():
        own = photo.raw[model]
        value, details = moved(values, own), {}
        if value is not None and (alike := agreement(values, own)) is not None:
            details["spearman"] = alike.spearman
        if photo.truth is not None:
            right = errors(fitted(values, photo.truth.disparity), photo.truth.disparity)
            details |= {} if right is None else {"abs_rel": right.abs_rel}
        numbers[model] = Number(value=value, details=details)
    return numbers
