"""Two passes over a source in segments: the depth of each row waits in the store, with the ends of its values.

The first pass is done in rows. Its pieces are `depth.spool` (the maps, see `depthdata.spool`), `ends.npz` and what
else is to be known of them (`about.json`). The second pass is one run from the first frame to the last. It does no
work of the network and writes the output itself, with the sound, so there is nothing to join.
Invariant: the ends of the clip are those that a run in one piece finds, whatever the order of the rows.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from stream.config import Config
from stream.depthdata.spool import Maps, check_maps_fit
from stream.errors import OutputError
from stream.files import as_sink_error, json_text, read_json, write_file
from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo
from stream.infer.replay import Replay
from stream.jobs.clip import EndsOfClip
from stream.jobs.loaded import Model, configured, spec_of
from stream.jobs.opening import closed_on_error, opened
from stream.jobs.ranges import why_two_passes
from stream.jobs.report import Report
from stream.jobs.segments.rows import Plan, Row
from stream.jobs.segments.store import Store
from stream.jobs.supervise import OnSkip, StopSign, supervise
from stream.jobs.wiring import wired
from stream.notes import Notes, OnNote, collected, current
from stream.pipeline.runner import ProgressHook
from stream.sinks.base import Sink

SPOOL, ENDS, ABOUT = "depth.spool", "ends.npz", "about.json"


class SpoolPieceSink(Sink):
    """Stores the depth of the frames of a row and the ends of its values.

    Args:
        folder: the pieces are made in it.
        keeps_confidence: store that as well.
        refused: why the model could not take frames of the row, by index; complete at `finish`.
        count: maps that will be stored from here on, which must fit on the disk; None if unknown.
    """

    needs_image = False

    def __init__(
        self,
        folder: Path,
        *,
        keeps_confidence: bool,
        refused: Callable[[], Mapping[int, str]],
        count: int | None,
    ) -> None:
        self._folder, self._keeps_confidence, self._refused = folder, keeps_confidence, refused
        self._count = count
        self._ends = EndsOfClip()
        self._maps: Maps | None = None

    @property
    def is_lossless(self) -> bool:
        """Every frame is kept for the second pass."""
        return True

    @property
    def outputs(self) -> list[str]:
        """None that stays."""
        return []

    @property
    def ends(self) -> tuple[float, float] | None:
        """The least and the largest value."""
        found = self._ends.ends
        return found.values if found.is_known else None

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - that of the picture
        """Create the file. Raises `OutputError` if the maps will not fit on the disk."""
        check_maps_fit(self._folder, info.size, self._count, keeps_confidence=self._keeps_confidence)
        with as_sink_error(self._folder):
            file = (self._folder / SPOOL).open("xb")
        self._maps = Maps(file, self._folder, keeps_confidence=self._keeps_confidence)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - depth only
        """See `Sink`."""
        assert self._maps is not None
        self._maps.append(frame, depth)
        self._ends.add(depth)
        return True

    def finish(self) -> None:
        """Complete the pieces."""
        assert self._maps is not None
        with as_sink_error(self._folder):
            self._maps.close()
            with (self._folder / ENDS).open("xb") as file:
                self._ends.save(file)
            refused = [[index, reason] for index, reason in sorted(self._refused().items())]
            about = {"kind": str(self._maps.kind), "model": self._maps.model, "refused": refused}
            write_file(self._folder / ABOUT, json_text(about).encode())

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - nothing can be made of it
        """Nothing is kept: there is no output without the whole clip."""
        self._discard()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002
        """See `keep_partial`."""
        self._discard()

    def _discard(self) -> None:
        if self._maps is not None:
            self._maps.close()
        (self._folder / SPOOL).unlink(missing_ok=True)


def second_pass(
    config: Config,
    plan: Plan,
    store: Store,
    *,
    model: Model,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
    stop: StopSign | None = None,
) -> Report:
    """Write the outputs from the depth of all rows, which are done; the store stays as it is.

    Args:
        config: of the whole job.
        model: the one that the rows were done with; the network does nothing.
        on_progress, on_note, on_skip, stop: see `stream.jobs.run.run_config`.

    Returns:
        The report of this pass, with the range of the clip. What is said of the network is that of no frame.

    Raises:
        StreamError: see `stream.jobs.run.run_config`; or a segment is missing or damaged.
    """
    config, started = configured(model, config), time.monotonic()
    with collected(Notes(on_note) if on_note else current() or Notes()) as notes:
        found = [_Stored(store, row) for row in plan.rows]
        ends = EndsOfClip()
        for one in found:
            ends.merge(one.ends)
        replay = Replay(
            stored=_Chain(found),
            refused={index: reason for one in found for index, reason in one.refused.items()},
            name=plan.source.uri,
            what="the source is not the one that the segments were made of",
            hint="run again with --overwrite",
        )
        job = opened(config, None, model, on_download=None)
        with closed_on_error(job):
            pipeline = wired(config, replace(job, inference=replay), ends=ends.ends, part="pass 2 of 2")
        replay.is_cut_short = lambda: pipeline.stages.stopped_early
        try:
            return supervise(
                pipeline,
                job.engines,
                config,
                started=started,
                notes=notes,
                on_progress=on_progress,
                on_skip=on_skip,
                stop=stop,
                amend=lambda report: replace(report, clip_range=ends.ends.as_fields()),
            )
        finally:
            job.inference.close()  # gives the model back


def has_two_passes(config: Config, model: Model) -> bool:
    """Whether the rows of a job with this model are those of a first pass."""
    spec = spec_of(model)
    return bool(why_two_passes(config, spec.output, max_depth_m=spec.max_depth_m))


class _Stored:
    """The depth of one row that is done. Raises `OutputError` if it is not, or damaged."""

    def __init__(self, store: Store, row: Row) -> None:
        self._where, self._row = store.where, row
        record = store.record(row.number)
        if record is None:
            raise self._damaged("is not done")
        self.frames = record.frames
        self._folder = store.folder(row.number)
        self.ends, self.refused = EndsOfClip(), dict[int, str]()
        self._kind, self._model = DepthKind.RELATIVE_DISPARITY, ""
        if not record.frames:
            return
        try:
            with (self._folder / ENDS).open("rb") as file:
                self.ends = EndsOfClip.load(file)
            about = read_json(self._folder / ABOUT)
            assert isinstance(about, dict)
            self._kind, self._model = DepthKind(about["kind"]), str(about["model"])
            self.refused = {int(index): str(reason) for index, reason in about["refused"]}
        except (OSError, KeyError, ValueError, TypeError, AssertionError) as error:
            raise self._damaged("is damaged") from error

    def __iter__(self) -> Iterator[tuple[Fraction, Depth]]:
        if not self.frames:
            return
        with as_sink_error(self._folder):
            file = (self._folder / SPOOL).open("rb")
        with closing(Maps(file, self._folder, kind=self._kind, model=self._model)) as maps:
            yield from maps

    def _damaged(self, what: str) -> OutputError:
        return OutputError(f"segment {self._row.number} {what}", where=self._where, hint="run it again with --resume")


class _Chain:
    """The depth of all rows, one after the other; only one of their files is open."""

    def __init__(self, rows: Sequence[_Stored]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[Fraction, Depth]]:
        for row in self._rows:
            yield from row
