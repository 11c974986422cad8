"""The output of a survey of a clip: a video of sheets, numbers over time, and some frames measured like photos.

Invariant: the video is written in step with the numbers, and the report that names it is written after it. Memory does
not grow with the length of the clip: of most frames, only sums are kept.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from stream.compare.sheet import shrink
from stream.files import partial_path
from stream.frames import ComparedDepth, Depth, Frame, RgbImage, SourceInfo
from stream.infer.base import DepthChange
from stream.motion.cuts import CutDetector
from stream.motion.flow import Gray, OpticalFlow, flow_size, reduced
from stream.render.range import displayed
from stream.sinks.base import Sink
from stream.sinks.video import VideoSink
from stream.survey.clip.cuts import CutMeter
from stream.survey.clip.drift import DriftMeter
from stream.survey.clip.findings import CLIP_FINDINGS, clip_numbers
from stream.survey.clip.strip import AT_CUTS, AT_DIFFERENCES, EVENLY, MOST_FRAMES, Evenly, Highest, difference
from stream.survey.record import ClipRow, CutRow, PhotoRow, StripRow, Survey
from stream.survey.sink import SurveySink

VIDEO = "side_by_side.mp4"
MOST_CUTS = 100
"""Cuts that the report lists; the numbers are of all."""

Why = Literal["even", "cut", "difference"]


@dataclass(kw_only=True)
class _Looked:
    """A frame that is measured like a photo, and why."""

    frame: int
    time_s: float
    difference: float
    why: set[Why] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    """The frame of the current part of the clip in which the models differ most."""

    frame: Frame
    depth: ComparedDepth
    image: RgbImage
    difference: float


class ClipSink(Sink):
    """Surveys a clip into a folder.

    Args:
        report: measures the frames that are looked at, and writes the report; its folder gets the video.
        video: `VIDEO` in the same folder.
        models: names, in the order of the maps.
        notes: what a reader must know of these models in a clip.
    """

    def __init__(self, report: SurveySink, video: VideoSink, models: Sequence[str], *, notes: Sequence[str]) -> None:
        self._report, self._video, self._models, self._said = report, video, tuple(models), tuple(notes)
        self.changes: Callable[[], Sequence[DepthChange | None]] = tuple
        """How steady the models were, asked for at the end."""
        report.amend = self._amended
        self.notes = video.notes = report.notes
        self.warnings = video.warnings = report.warnings
        self._detector, self._flow = CutDetector(), OpticalFlow()
        self._drift, self._cuts = DriftMeter(), CutMeter()
        self._gray: Gray | None = None
        self._size: tuple[int, int] | None = None
        self._frames = self._cut_count = 0
        self._times = 0.0, 0.0
        self._looked: dict[int, _Looked] = {}
        self._written: list[int] = []
        self._unused: list[str] = []
        self._even: Evenly[int] = Evenly(EVENLY)
        self._at_cuts: Evenly[int] = Evenly(AT_CUTS)
        self._differing: Highest[int] = Highest(AT_DIFFERENCES)
        self._candidate: _Candidate | None = None

    @property
    def is_lossless(self) -> bool:
        """True: every frame is included."""
        return True

    @property
    def outputs(self) -> list[str]:
        """The report and the video, once they are there."""
        return [*self._report.outputs, *self._video.outputs]

    @property
    def counters(self) -> dict[str, int]:
        """Those of the video."""
        return dict(self._video.counters)

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Create the video. Raises `StreamError` if the folder may not be used, or the encoder does not work."""
        self._report.open(replace(info, frame_count=MOST_FRAMES), size)
        self._video.open(info, size)
        self._even = Evenly(EVENLY, info.frame_count)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Take one result. Always True."""
        if not isinstance(depth, ComparedDepth):
            raise TypeError(f"a survey needs ComparedDepth, not {type(depth).__name__}")
        self._video.write(frame, depth, image)
        self._times = (frame.time_s if not self._frames else self._times[0]), frame.time_s
        self._frames += 1
        size_hw = flow_size(frame.size)
        is_cut = self._detector.is_cut(frame.rgb) or self._size not in (None, frame.size)
        self._size = frame.size
        maps = [shrink(displayed(one), size_hw) for one in depth.all]
        apart = difference(maps)
        if not self._detector.is_flash:
            gray = reduced(frame.rgb, size_hw)
            onward = None if is_cut or self._gray is None else self._flow.between(gray, self._gray)
            self._drift.add(frame.time_s, maps, onward)
            self._cuts.add(frame.index, frame.time_s, maps, onward, is_cut=is_cut)
            self._gray = gray
        self._choose(_Candidate(frame=frame, depth=depth, image=image, difference=apart), is_cut=is_cut)
        return True

    def finish(self) -> None:
        """Complete the video, then the report. Raises `SinkError`."""
        self._close()
        self._video.finish()
        self._report.include(VIDEO)
        self._report.finish()
        self._remove_unused()

    def keep_partial(self, reason: str) -> None:
        """Keep a video that can be played and a report of what is finished, which says so. Raises `SinkError`."""
        with contextlib.ExitStack() as each:  # the last one first, and all of them, whatever fails
            each.callback(self._remove_unused)
            each.callback(self._report.keep_partial, reason)
            each.callback(self._keep_video, reason)
            each.callback(self._close)

    def _keep_video(self, reason: str) -> None:
        self._video.keep_partial(reason)
        self._report.include(partial_path(Path(VIDEO)).name)

    def abort(self, error: BaseException) -> None:
        """Remove the video: nothing was written."""
        self._video.abort(error)
        self._report.abort(error)

    def _choose(self, one: _Candidate, *, is_cut: bool) -> None:
        """Look at this frame, if it is one of those that are spread evenly, or the first after a cut."""
        if is_cut:
            self._cut_count += 1
            if self._at_cuts.is_due:
                self._look(one, "cut")
            self._drop(self._at_cuts.add(one.frame.index), "cut")
        if self._even.is_due:
            self._end_part()
            self._look(one, "even")
        self._drop(self._even.add(one.frame.index), "even")
        if self._candidate is None or one.difference > self._candidate.difference:
            self._candidate = one

    def _end_part(self) -> None:
        """Look at the frame of this part in which the models differ most, if they differ more than elsewhere."""
        one, self._candidate = self._candidate, None
        if one is not None and self._differing.would_keep(one.difference):
            self._look(one, "difference")
            self._drop(self._differing.add(one.difference, one.frame.index), "difference")

    def _look(self, one: _Candidate, why: Why) -> None:
        index = one.frame.index
        if index not in self._looked:
            if index not in self._written:
                self._report.write(one.frame, one.depth, one.image)
                self._written.append(index)
            self._looked[index] = _Looked(frame=index, time_s=one.frame.time_s, difference=one.difference)
        self._looked[index].why.add(why)

    def _drop(self, indexes: Sequence[int], why: Why) -> None:
        for index in indexes:
            if index in self._looked:
                self._looked[index].why.discard(why)
                if not self._looked[index].why:
                    del self._looked[index]

    def _close(self) -> None:
        self._drift.end()
        self._cuts.end()
        self._end_part()

    def _amended(self, survey: Survey) -> Survey:
        """The survey with what was measured over time, and of the frames those that are kept."""
        rows = dict(zip(self._written, survey.photos, strict=True))
        self._unused = [path for index, row in rows.items() if index not in self._looked for path in _files(row)]
        looked = [self._looked[index] for index in sorted(self._looked)]
        names = {one.frame: f"frame {one.frame}, {clock(one.time_s)}" for one in looked}
        photos = [rows[one.frame].model_copy(update={"name": names[one.frame]}) for one in looked]
        video = self._video.outputs
        clip = ClipRow(
            video=Path(video[0]).name if video else "",
            frames=self._frames,
            start_s=self._times[0],
            end_s=self._times[1],
            findings=list(CLIP_FINDINGS),
            numbers=clip_numbers(self._models, self.changes(), self._drift.stretches, self._cuts.cuts),
            cut_count=self._cut_count,
            cuts=[
                CutRow(
                    frame=cut.frame,
                    time_s=cut.time_s,
                    leftover=dict(zip(self._models, cut.leftover, strict=True)),
                    late=dict(zip(self._models, cut.late, strict=True)),
                )
                for cut in self._cuts.cuts[:MOST_CUTS]
            ],
            strip=[
                StripRow(
                    name=names[one.frame],
                    frame=one.frame,
                    time_s=one.time_s,
                    why=sorted(one.why),
                    difference=one.difference,
                )
                for one in looked
            ],
            notes=list(self._said),
        )
        return survey.model_copy(
            update={
                "photos": photos,
                "summary": self._report.summarised(photos),
                "video": clip,
            }
        )

    def _remove_unused(self) -> None:
        """Remove the pictures of frames that others have replaced."""
        for name in self._unused:
            with contextlib.suppress(OSError):  # what the report does not name does no harm
                (self._report.folder / name).unlink()


def _files(row: PhotoRow) -> list[str]:
    return [*row.pictures.values(), *(path for pictures in row.styled_pictures.values() for path in pictures.values())]


def clock(time_s: float) -> str:
    """A time for people: 1:02:03.4."""
    minutes, seconds = divmod(round(time_s, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"
