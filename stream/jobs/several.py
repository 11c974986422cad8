"""One run of several live sources: one model, and for each source what a run of its own has.

Each source has its own thread, in which it is opened and an ordinary pipeline runs (capture, renderer, sinks, range,
reconnection); the pipelines share one engine (`stream.infer.sharing`). The main thread owns what they have in common:
Ctrl-C, the window and the page.
Invariant: what happens to one source, whatever it is, changes nothing for the others. The run ends when all have ended.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream.config import Config
from stream.errors import SourceError, StreamError, redacted, shown
from stream.frames import DepthKind, SourceInfo
from stream.infer.base import Inference
from stream.jobs.build import LiveOutput, build_page, build_preview, build_renderer
from stream.jobs.clip import Job
from stream.jobs.each_source import check_is_for_several, config_of_one, known_of, names_of, stems_of
from stream.jobs.models import check_temporal, load_engine, preload, prepare, spec_meant, steadied, temporal
from stream.jobs.opening import closed_on_error
from stream.jobs.plan import OutputPlan, plan_outputs
from stream.jobs.ranges import check_has_end, video_mapping, why_two_passes
from stream.jobs.report import Report, ReportOfSeveral
from stream.jobs.skip import check_skip, skipping
from stream.jobs.source import open_config_source
from stream.jobs.supervise import OnSkip, StopSign, supervise
from stream.jobs.wiring import wired
from stream.metrics import Outcome
from stream.notes import Notes, OnNote, collected, logger, note
from stream.pipeline.runner import POLL_S, Interrupts, Pipeline, Progress
from stream.pipeline.threads import JOIN_DEADLINE_S

if TYPE_CHECKING:
    from stream.infer.sharing import SharedEngine
    from stream.live.browser import Page, TileSink
    from stream.live.grid import Grid, Tile
    from stream.models.weights.fetch import OnTransfer


@dataclass(frozen=True, kw_only=True)
class Part:
    """One source of a run, for a progress display.

    Attributes:
        state: `opening`, `live`, `done` or `failed`.
        progress: None before its first frame.
    """

    name: str
    state: str
    progress: Progress | None


OnParts = Callable[[Sequence[Part]], None]


def run_several(
    config: Config,
    *,
    on_parts: OnParts | None = None,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
    on_download: "OnTransfer | None" = None,
    stop: StopSign | None = None,
) -> ReportOfSeveral:
    """Run the sources of `config.sources` together.

    Args:
        on_parts: called about twenty times a second with the state of each source.
        on_note, on_skip, on_download: as for `run_config`; what concerns one source begins with its name.
        stop: ends the run in order when it is set, as Ctrl-C does.

    Returns:
        The reports of all sources, failed ones included.

    Raises:
        StreamError: the run could not begin: bad usage, or the model, the window or the page cannot be opened.
    """
    started = time.monotonic()
    with collected(Notes(on_note)) as notes, ExitStack() as resources:
        names, stems = names_of(config.sources), stems_of(config.sources)
        check_is_for_several(config)
        configs = [config_of_one(config, number, stems) for number in range(len(names))]
        plans = [plan_outputs(one, known_of(one), is_open=False) for one in configs]
        preload(config)
        kind = _check_model(configs, plans)
        shared = _shared_engine(configs, plans, on_download)
        run = _Run(config, shared, kind, started=started, notes=notes, on_skip=on_skip, stop=stop)
        for parts in zip(names, stems, configs, plans, strict=True):
            run.add(*parts)
        resources.callback(run.close)
        return run.run(on_parts)


def _check_model(configs: Sequence[Config], plans: Sequence[OutputPlan]) -> DepthKind:
    """Refuse options that do not suit the model or the sources, before weights are loaded; what the values mean."""
    config, spec = configs[0], spec_meant(configs[0])
    kind = spec.output
    for plan in plans:
        check_temporal(config, [spec], plan.info)
        check_skip(config, [spec], plan.info)
        if why := why_two_passes(config, kind, max_depth_m=spec.max_depth_m):
            check_has_end(plan.info, why)
        build_renderer(config, plan, kind)
        if plan.depth_video is not None:
            video_mapping(config, plan.depth_video, spec, None)
    return kind


def _shared_engine(
    configs: Sequence[Config], plans: Sequence[OutputPlan], on_download: "OnTransfer | None"
) -> "SharedEngine":
    """The engine, which takes a frame of every source at once where that is faster.

    On a GPU it is. On a CPU (two cores, starter, `scripts/measure/several.py --batches 4`) a frame of four at once
    takes 96 % of the time of one alone in ONNX Runtime, 97 % in OpenVINO and 81 % in torch, and each of them waits for
    all four: there each is computed alone.
    """
    from stream.infer.device import resolve_device
    from stream.infer.sharing import SharedEngine

    config = configs[0]
    device = resolve_device(config.inference.device, spec_meant(config))
    batch = _most_together(config, len(configs), device.type)
    wanted = config.inference.model_copy(update={"batch": batch})
    exact = bool(config.output.save) or any(plan.depth_video is not None for plan in plans)
    engine = load_engine(config.model_copy(update={"inference": wanted}), exact=exact, on_download=on_download)
    remembers = temporal(config, plans[0].info, engine.spec) != "off"
    return SharedEngine(engine, batch=batch, remembers=remembers)


def _most_together(config: Config, count: int, device: str) -> int:
    """How many frames of `count` sources the model may take at once: `--batch` wherever it is given."""
    is_given = "batch" in config.inference.model_fields_set
    return count if device == "cuda" and not is_given else config.inference.batch


class _One:
    """One source of the run, on a thread of its own.

    Attributes:
        state: see `Part`.
        report: None until it has ended.
    """

    def __init__(
        self,
        run: "_Run",
        name: str,
        config: Config,
        info: SourceInfo,
        share: Inference,
        views: Sequence[LiveOutput],
        notes: Notes,
    ) -> None:
        self.name, self._run, self._config, self._share, self._views = name, run, config, share, views
        self.state = "opening"
        self.report: Report | None = None
        self.pipeline: Pipeline | None = None
        self.progress: Progress | None = None
        self._called = [name, *names_of([config.source or ""]), shown(info.name)]  # `0 (2)`, `0`, `cam:0`
        self._shared_notes = notes
        self._notes = Notes(self._pass_on)
        # A daemon, which can be abandoned while it opens a source that does not answer.
        work = copy_context().run
        self.thread = threading.Thread(target=work, args=(self._guarded,), name=f"depthstream-{name}", daemon=True)

    @property
    def part(self) -> Part:
        """For a display."""
        return Part(name=self.name, state=self.state, progress=self.progress)

    def leave(self) -> None:
        """Leave the engine to the others."""
        self._share.close()

    def unfinished(self) -> Report:
        """The report of a source whose thread has not ended in time, or not begun."""
        self.state = "failed"
        report = self._without_frames(Outcome.INTERRUPTED)
        return report if self.thread.ident is None else replace(report, abandoned=[self.thread.name])

    def show(self, text: str) -> None:
        """Show the viewers why there are no more images."""
        self._run.show_end(self, text)

    def _pass_on(self, text: str) -> None:
        """A note, with the name of the source unless it is about the model."""
        shared = self._run.shared
        is_common = text == shared.fault or text in shared.engine.notes
        self._shared_notes.add(text if is_common else f"{self.name}: {self._unnamed(text)}")

    def _unnamed(self, text: str) -> str:
        """What is said of the source, without the name that it begins with."""
        return next((text.removeprefix(f"{name}: ") for name in self._called if text.startswith(f"{name}: ")), text)

    def _guarded(self) -> None:
        try:
            with collected(self._notes):
                self._work()
        except BaseException as error:  # noqa: BLE001  it must not disturb the others; the report has it
            if error is self._run.failure:  # the caller of the run gets it
                self.state = "failed"
                return
            is_ours = isinstance(error, StreamError)
            reason = shown(str(error) if is_ours else f"{type(error).__name__}: {error}")
            without = self._unnamed(reason)
            logger.warning("%s: %s", self.name, without, exc_info=None if is_ours else error)
            if self.report is None or self.report.outcome is not Outcome.FAILED:
                self.report = self._without_frames(Outcome.FAILED, reason)
            self.state = "failed"
            self.show(without)
            self._shared_notes.add(f"{self.name}: failed: {without}")
        finally:
            self.leave()
            self._run.changed.set()

    def _work(self) -> None:
        run, config = self._run, self._config
        source = open_config_source(config)
        try:
            if run.is_stopping():
                self.report = self._without_frames(Outcome.INTERRUPTED)
                source.close()
                return
            info = source.info
            if not info.is_live:
                hint = "run it alone, or add --live if it is one"
                raise SourceError("is a file, not a live stream", where=info.name, hint=hint)
            plan = plan_outputs(config, info)
            run.prepare(config, info)
            inference = skipping(config, info, steadied(config, info, self._share, [run.kind]))
        except BaseException:
            source.close()
            raise
        job = Job(source=source, plan=plan, kind=run.kind, engines=[run.shared.engine], inference=inference)
        with closed_on_error(job):
            alone = config.output.model_copy(update={"report": None})
            config = config.model_copy(update={"output": alone})
            pipeline = wired(config, job, ends=None, views=self._views)
        pipeline.stop_if = run.is_stopping
        self.pipeline, self.state = pipeline, "live"

        def look(progress: Progress) -> None:
            self.progress = progress
            run.show_waiting(self, source.log.waiting)

        def keep(report: Report) -> Report:
            self.report = replace(report, hung_up=run.hung_up)
            return self.report

        on_skip = run.on_skip
        supervise(
            pipeline,
            [run.shared.engine],
            config,
            started=run.started,
            notes=self._notes,
            on_progress=look,
            on_skip=None if on_skip is None else (lambda name, reason: on_skip(f"{self.name}: {name}", reason)),
            amend=keep,
        )
        self.state = "done"
        if not run.is_stopping():
            frames = self.report.written if self.report is not None else 0
            self.show("the source has ended")
            self._shared_notes.add(f"{self.name}: ended after {frames} frames")

    def _without_frames(self, outcome: Outcome, error: str | None = None) -> Report:
        report = Report.of_failure(
            error or "",
            source=shown(redacted((self._config.source or "").strip())),
            model=self._run.shared.engine.spec.name,
            duration_s=time.monotonic() - self._run.started,
        )
        return replace(report, outcome=outcome, error=error, notes=self._notes.said, hung_up=self._run.hung_up)


class _Run:
    """What the sources have in common; made and used on the main thread, except where methods say otherwise."""

    def __init__(
        self,
        config: Config,
        shared: "SharedEngine",
        kind: DepthKind,
        *,
        started: float,
        notes: Notes,
        on_skip: OnSkip | None,
        stop: StopSign | None,
    ) -> None:
        self.shared, self.kind, self.started, self.on_skip = shared, kind, started, on_skip
        self.changed = threading.Event()
        """Set when a source has a new image or has ended."""
        self.failure: BaseException | None = None
        """What ended the run as a whole: a second Ctrl-C, or a lost display."""
        self._config, self._notes, self._stop = config, notes, stop
        self._interrupts = Interrupts()
        self._is_prepared = False
        self._wants_stop = False
        self._ones: list[_One] = []
        self._tiles: dict[_One, tuple[Tile | None, TileSink | None]] = {}
        self._grid: Grid | None = None
        self._page: Page | None = None

    def add(self, name: str, stem: str, config: Config, plan: OutputPlan) -> None:
        """Add a source."""
        views: list[LiveOutput] = []
        tile = shown_in_page = None
        files = f"depthstream_{stem}"
        if plan.preview:
            from stream.live.grid import Tile, TileWindowSink

            tile = Tile(name, self.changed)
            preview = build_preview(config, plan, self.kind, name=files)
            views.append(LiveOutput(sink=TileWindowSink(tile, controls=preview), preview=preview))
        if config.output.serve is not None:
            from stream.live.browser import TileSink

            preview = build_preview(config, plan, self.kind, writes_text=False, name=files)
            shown_in_page = TileSink(controls=preview, name=name)
            shown_in_page.feed.state = preview.state() | {"waiting": "opening"}
            views.append(LiveOutput(sink=shown_in_page, preview=preview))
        one = _One(self, name, config, plan.info, self.shared.share(), views, self._notes)
        self._ones.append(one)
        self._tiles[one] = tile, shown_in_page

    @property
    def hung_up(self) -> bool:
        """Whether the terminal was closed."""
        return self._interrupts.hung_up

    def is_stopping(self) -> bool:
        """Whether the run shall end in order. From any thread."""
        return self._wants_stop or self._interrupts.count > 0 or (self._stop is not None and self._stop.is_set())

    def prepare(self, config: Config, info: SourceInfo) -> None:
        """Get the engine ready for frames of a source; the first one decides which backend runs. From any thread."""
        with self.shared.alone() as engine, collected(self._notes):  # they are about the model
            if self._is_prepared:
                engine.prepare(info.size)
            else:
                prepare(config, engine, info)
            self._is_prepared = True

    def show_waiting(self, one: _One, waiting: str) -> None:
        """Show what a source waits for, "" while it is live. From the thread of the source."""
        tile, _ = self._tiles[one]
        if tile is not None and tile.status != waiting and not tile.has_ended:
            tile.status = waiting
            self.changed.set()

    def show_end(self, one: _One, reason: str) -> None:
        """Show why a source has ended, if its sinks have not. From the thread of the source."""
        tile, in_page = self._tiles[one]
        if tile is not None:
            tile.end(reason)
        if in_page is not None and not in_page.feed.ended:
            in_page.feed.end(reason)

    def run(self, on_parts: OnParts | None) -> ReportOfSeveral:
        """Run all sources to their ends."""
        with self._interrupts.counted():
            try:
                self._open_views()
                for one in self._ones:
                    one.thread.start()
                self._watch(on_parts)
            except BaseException as error:
                self._fail(error)
                if isinstance(error, Exception):
                    try:
                        self._reported(shown(str(error)))
                    except OSError as second:
                        error.add_note(f"then the report could not be written: {second}")
                raise
        return self._reported()

    def _reported(self, error: str | None = None) -> ReportOfSeveral:
        report = ReportOfSeveral(
            names=[one.name for one in self._ones],
            sources=[one.report or one.unfinished() for one in self._ones],
            largest_batch=self.shared.largest_batch,
            duration_s=time.monotonic() - self.started,
            error=error,
        )
        if self._config.output.report is not None:
            report.save(self._config.output.report)
        return report

    def close(self) -> None:
        """Close window and page, and the engine if no source has begun."""
        if self._grid is not None:
            self._grid.close()
        if self._page is not None:
            self._page.close("the run has ended")
        for one in self._ones:
            if one.thread.ident is None:
                one.leave()

    def _open_views(self) -> None:
        output = self._config.output
        tiles = [tile for tile, _ in self._tiles.values() if tile is not None]
        feeds = [sink.feed for _, sink in self._tiles.values() if sink is not None]
        if output.serve is not None:
            from stream.live.server import Feed

            self._page = build_page(output, output.serve)
            self._page.open(Feed(), feeds)
        if tiles:
            from stream.live.grid import Grid

            self._grid = Grid(tiles, is_only_output=output.path is None and output.serve is None)
            self._grid.open()

    def _watch(self, on_parts: OnParts | None) -> None:
        stopped_s: float | None = None
        while any(one.thread.is_alive() for one in self._ones):
            self.changed.wait(POLL_S)
            self.changed.clear()
            if self._grid is not None:
                self._grid.poll()
                self._wants_stop |= self._grid.wants_stop
                if self._grid.note:
                    note(self._grid.note)
            if on_parts is not None:
                on_parts([one.part for one in self._ones])
            if not self.is_stopping():
                continue
            stopped_s = stopped_s or time.monotonic()
            is_late = time.monotonic() - stopped_s > JOIN_DEADLINE_S
            if is_late and not any(one.thread.is_alive() and one.pipeline is not None for one in self._ones):
                return  # those left are opening sources that do not answer

    def _fail(self, error: BaseException) -> None:
        """End every source at once, because of an error that is the run's own."""
        self._wants_stop, self.failure = True, error
        for one in self._ones:
            if one.pipeline is not None:
                one.pipeline.stages.fail(error)
        until_s = time.monotonic() + 2 * JOIN_DEADLINE_S
        for one in self._ones:
            if one.pipeline is not None:  # one that is still opening has nothing to keep
                one.thread.join(max(0.0, until_s - time.monotonic()))
