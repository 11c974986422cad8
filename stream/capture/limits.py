"""How large a picture or a frame may be: what `--max-pixels` allows, and what fits into the budget for memory.

Invariant: a limit is checked against a header or the decoder's own limit, before the pixels take memory.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

from stream.config import CaptureConfig, defaults
from stream.errors import SourceError
from stream.machine import memory_budget_bytes

PROGRAM_BYTES = 600_000_000
"""What the program takes beside its images, with torch and the starter; part of what `--max-memory` states."""
PICTURE_BYTES, _LARGER_SHARE = 1_900_000_000, 0.1
"""Most that decoding one picture may take unless `--max-memory` is given: so many bytes, which is the usual JPEG and
PNG up to the default of `--max-pixels`, WebP of 90 megapixels, OpenEXR of 50; or this share of the budget if that is
more."""
_PICTURE_SHARE = 0.45
"""Share of the budget for decoding one picture; the rest holds those before it."""
_AHEAD_SHARE = 0.25
"""Share of the budget for pictures that are decoded ahead."""
_PIPELINE_BYTES = 25
"""Bytes per pixel that one picture takes behind its decoder; see `stream.pipeline.memory`."""
_FRAME_BYTES = 90
"""Bytes per pixel that the frames of a video take in front of its encoder: 60 in the decoder, which holds 20 images of
up to 3 bytes, and 30 behind it."""
_FIRST_SHARE, _LATER_SHARE = 0.75, 0.25
"""Share of the budget for frames of the first one's size, and of a size that comes later: then the encoder, which was
opened for the first one's size, has its memory already. `stream.pipeline.memory.least_bytes` refuses a first size whose
encoder does not fit."""


class TooLargeError(SourceError):
    """A frame is larger than the limits of its source."""


@dataclass(frozen=True)
class Limits:
    """The limits of one source.

    Args:
        max_pixels: of a picture or a frame.
        max_memory: of the whole run, in bytes, if the user has stated it.
        sharers: how many sources the run has; each has an equal part of the budget.
    """

    max_pixels: int = field(default_factory=lambda: defaults().capture.max_pixels)
    max_memory: int | None = None
    sharers: int = 1

    @classmethod
    def of(cls, options: CaptureConfig) -> "Limits":
        """The limits that the options of a run set."""
        return cls(options.max_pixels, options.max_memory, options.sharers)

    @cached_property
    def room(self) -> int:
        """Bytes for images of this source, at least 1: nothing may be free."""
        stated = self.max_memory
        budget = memory_budget_bytes() if stated is None else memory_budget_bytes(stated) - PROGRAM_BYTES
        return max(1, budget // self.sharers)

    @cached_property
    def picture_bytes(self) -> int:
        """Most that decoding one picture may take."""
        share = max(1, int(_PICTURE_SHARE * self.room))
        most = max(PICTURE_BYTES, int(_LARGER_SHARE * self.room))
        return min(share, most) if self.max_memory is None else share

    @cached_property
    def ahead_bytes(self) -> int:
        """Most that pictures which are decoded ahead may take together, except for one alone."""
        return int(_AHEAD_SHARE * self.room)

    @cached_property
    def frame_pixels(self) -> int:
        """Most pixels of a video's first frame."""
        return min(self.max_pixels, int(_FIRST_SHARE * self.room) // _FRAME_BYTES)

    def later_pixels(self, first: int) -> int:
        """Most pixels of a later frame, if the first one has `first`."""
        return max(first, min(self.max_pixels, int(_LATER_SHARE * self.room) // _FRAME_BYTES))

    def check_picture(self, size_hw: tuple[int, int], decoding_bytes: int, where: str) -> None:
        """Refuse a picture that is too large.

        Args:
            size_hw: its (height, width).
            decoding_bytes: what decoding it takes at most.

        Raises:
            SourceError: it is.
        """
        pixels = size_hw[0] * size_hw[1]
        if pixels > self.max_pixels:
            raise _too_many_pixels(size_hw, self.max_pixels, where)
        decoding = decoding_bytes, self.picture_bytes, _PICTURE_SHARE
        behind = pixels * _PIPELINE_BYTES, max(1, int(self.room * (1 - _AHEAD_SHARE))), 1 - _AHEAD_SHARE
        taken, most, share = max(decoding, behind, key=lambda one: one[0] / one[1])
        if taken > most:
            raise SourceError(
                f"{size_hw[1]}×{size_hw[0]} may take {_size(taken)} of memory",
                where=where,
                allowed=f"up to {_size(most)}",
                hint=self.more_memory(taken / share),
            )

    def too_large(self, size_hw: tuple[int, int], most: int, where: str, number: int) -> TooLargeError:
        """The error for frame `number` of a video, which has more than `most` pixels."""
        return self._refusal(f"frame {number} has {size_hw[1]}×{size_hw[0]} pixels", size_hw, most, where, number)

    def undecodable(self, most: int, where: str, size_hw: tuple[int, int] | None = None) -> TooLargeError:
        """The error for a frame whose decoder refuses its size, which it may not tell."""
        if size_hw is None:
            return self._refusal("a frame is too large, or its stated size is damaged", None, most, where)
        return self._refusal(f"a frame has {size_hw[1]}×{size_hw[0]} pixels", size_hw, most, where)

    def more_memory(self, room: float | None = None) -> str:
        """What to do if the images of this source need more bytes than there is `room`.

        Args:
            room: the least that would hold them; None if it is unknown.
        """
        size = "" if room is None else f" {max(10, math.ceil((room * self.sharers + PROGRAM_BYTES) / 1e8)) / 10:g}G"
        return f"set --max-memory{size} if there is enough"

    def _refusal(
        self, what: str, size_hw: tuple[int, int] | None, most: int, where: str, number: int = 0
    ) -> TooLargeError:
        share = _LATER_SHARE if number else _FIRST_SHARE
        needed = None if size_hw is None else size_hw[0] * size_hw[1] * _FRAME_BYTES / share
        hint = "raise --max-pixels if there is enough memory" if most == self.max_pixels else self.more_memory(needed)
        return TooLargeError(what, where=where, allowed=f"up to {most / 1e6:.3g} megapixels", hint=hint)


def _too_many_pixels(size_hw: tuple[int, int], max_pixels: int, where: str) -> SourceError:
    height, width = size_hw
    return SourceError(
        f"{width}×{height} is {width * height / 1e6:.0f} megapixels",
        where=where,
        allowed=f"up to {max_pixels / 1e6:g} megapixels",
        hint="raise --max-pixels if there is enough memory",
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e8 else f"{round(count / 1e6, 1):.2g} MB"
