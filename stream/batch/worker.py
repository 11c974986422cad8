"""The one function that does the work of a batch, wherever it runs: in local processes, in shards, in actors of Ray.

A task and its result are plain JSON: names, counts and about a bit for each segment, less than a kilobyte where paths
are not very long and segments not many thousands. Frames never leave the worker.
Invariant: `Worker.run` raises nothing but what is meant to end the process. Everything else that goes wrong with a task
is its result.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from stream.batch import long
from stream.batch.bucket import BucketRecords, records_of
from stream.batch.failures import failure
from stream.batch.records import entries
from stream.batch.results import (
    INTERRUPTED,
    Begun,
    Done,
    check_free,
    done_result,
    is_exact,
    is_same,
    record_of,
    tidy_picture,
)  # fmt: skip
from stream.batch.sources import ANIMATED
from stream.config import Config, defaults
from stream.errors import OutputError
from stream.frames import SourceKind
from stream.jobs.loaded import Model, borrowed, configured, engine_of, kept_engine, spec_of
from stream.jobs.models import spec_meant
from stream.jobs.plan import OutputKind, OutputPlan, plan_outputs, space_needed
from stream.jobs.run import run_config
from stream.jobs.segments.rows import SourceState, source_state
from stream.jobs.source import open_config_source
from stream.metrics import Outcome
from stream.notes import Notes, collected
from stream.sinks.naming import estimated_bytes

if TYPE_CHECKING:
    from stream.jobs.report import Report
    from stream.jobs.segments.work import OnReport
    from stream.models.weights.fetch import OnTransfer
    from stream.pipeline.runner import Progress

OF_VIDEOS = ("start", "end", "max_seconds", "max_frames", "fps", "hwaccel", "deinterlace")
"""Keys of `capture` that a picture does not take."""


class _UnloadedError(Exception):
    """The model cannot be loaded; `reason` says why."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Worker:
    """Does tasks, one after another, with one model that is loaded once.

    A task:

        what: "plan": look at the source; "load": load the model; "run": do the source; "rows": do some of its segments.
        id: any number, for the caller.
        name: of the source, relative to where the tree of the results begins; the key of its record.
        source: its path or URL.
        output: the path of its result.
        is_picture: by its name.
        attempt: 1 for the first.
        is_long: it has segments, which are beside its result.
        rows: the first and the last of those to be done.
        backend, precision: what another worker has decided for all, in place of `auto`.
        frames, size: of all the work, for "load": a choice between backends is worth its measurement only if there is
            much to do.

    A result has `id`, `what`, `name` and `attempt` of its task, `seconds`, and:

        state: "done"; "failed"; "busy": another run works on the same result; "interrupted": it was stopped, and is no
            attempt; "full": the disk is; "unloaded": the model cannot be loaded here, which is not the source's fault.
        reason: one line, where it is not done.
        retry: whether another attempt is worth it. It is not where the source or the call is at fault.
        exit_code: that of the error.
        frames, skipped, warnings: counts, where a source is done.
        frames, size, needs: of "plan": frames or None, [height, width], and estimated bytes of the result.
        rows, missing: of "plan": number of segments, and the numbers of those to be done, `packed`.
        model, weights_sha256, device, precision, backend: of "load".

    Args:
        config: of every run; its `output.path` is the folder of the results. `source` and `output.path` of a task take
            the place of its own.
        scratch: names this worker among all that share the output folder, in a few letters and digits.
        stop: ends the present task in order when it is set.
        on_frames: called with the number of frames of the present task that are done, now and then.
        on_note: called once with each thing worth knowing.
        on_download: see `run_config`.
    """

    def __init__(
        self,
        config: Config,
        *,
        scratch: str,
        stop: Event | None = None,
        on_frames: Callable[[int], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        on_download: "OnTransfer | None" = None,
    ) -> None:
        self.records = records_of(config)
        self._config, self._scratch, self._stop = config, scratch, stop or Event()
        self._on_frames, self._notes, self._on_download = on_frames, Notes(on_note), on_download
        self._model: Model | None = None

    def run(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Do a task; see the class."""
        started = time.monotonic()
        about = {
            "id": task.get("id"),
            "what": task["what"],
            "name": task.get("name"),
            "attempt": task.get("attempt", 1),
        }
        do = {"plan": self._plan, "load": self._load, "run": self._run, "rows": self._rows}[task["what"]]
        try:
            self._pin(task)
            result = do(task)
        except _UnloadedError as error:
            result = {**failure(error.reason), "state": "unloaded"}
        except Exception as error:  # noqa: BLE001  the boundary of the worker: whatever it is, the next task is done
            result = failure(error)
        if result["state"] == "failed" and self._stop.is_set():
            result["state"] = "interrupted"
        return {**about, **result, "seconds": round(time.monotonic() - started, 3)}

    def close(self) -> None:
        """Release the model, and remove what is left of the work."""
        if self._model is not None:
            self._model.close()
        self.records.discard_scratch(self._scratch)

    @property
    def model(self) -> Model:
        """The model, which is loaded when it is asked for."""
        if self._model is None:
            try:
                with collected(self._notes):
                    engine = kept_engine(self._config, exact=is_exact(self._config), on_download=self._on_download)
            except Exception as error:  # whatever it is, no source is to blame: `run` reports it as "unloaded"
                raise _UnloadedError(error) from error
            # As the config says, not as the engine is now: `auto` that was decided for all stays that in each worker.
            self._model = Model(engine, self._config, self._notes)
        return self._model

    def _pin(self, task: Mapping[str, Any]) -> None:
        """Use what another worker has decided, from before the model is loaded."""
        pinned = {key: task[key] for key in ("backend", "precision") if key in task}
        if pinned:
            inference = self._config.inference.model_copy(update=pinned)
            self._config = self._config.model_copy(update={"inference": inference})

    def _load(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Load the model, and let it choose a backend for all the work."""
        asked = self._config.inference.backend
        engine = borrowed(self.model)
        try:
            if asked == "auto" and task.get("size") and engine.may_change and not engine.spec.is_temporal:
                with collected(self._notes):
                    engine.use_fastest(tuple(task["size"]), frames=task["frames"])
        finally:
            engine.close()
        self._pin({"backend": engine.asked_backend, "precision": engine.precision})
        self._model = Model(engine, self._config, self._notes)
        facts = {key: getattr(self.model, key) for key in ("device", "precision")}
        return {
            "state": "done",
            "model": self.model.name,
            "weights_sha256": engine_of(self.model).model.weights_sha256,
            "backend": engine.asked_backend,
            **facts,
        }

    def _plan(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Look at a source without doing it."""
        config = self._of_long(task)
        if (earlier := self._earlier(task)) is not None:
            return {**done_result(earlier), "size": [1, 1]}
        plan, store = self._planned(task, config), self.records.store(self._output_of(task))
        info, segments = plan.info, long.look(config, plan, store, spec_meant(config))
        frames = info.frame_count
        if frames is not None and config.capture.max_frames is not None:
            frames = min(frames, config.capture.max_frames)
        needs = sum(need.size for need in space_needed(config, plan))
        if plan.kind is OutputKind.VIDEO and frames:
            needs += estimated_bytes("video", info.size, frames)
        return {"state": "done", "frames": frames, "size": list(info.size), "needs": needs, **segments}

    def _run(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Do a whole source."""
        name, source, output = task["name"], task["source"], self._output_of(task)
        if (earlier := self._earlier(task)) is not None:
            return done_result(earlier)
        if task.get("is_long"):
            return self._run_long(task)
        if task.get("is_picture") and self._is_animated(task):
            output = output.with_name(f"{Path(source).name}.mp4")
            place = f"{task['output'].removesuffix(Path(task['output']).name)}{output.name}"
            task = {**task, "is_picture": False, "output": place}
        check_free(self.records, name, task["output"], overwrite=self._config.output.overwrite)
        started, state = time.monotonic(), source_state(source)
        with self.records.making(name, self._scratch) as folder:
            report = self._run_config(self._of_run(task, folder / output.name))
            if report.outcome is Outcome.INTERRUPTED or self._stop.is_set():
                return dict(INTERRUPTED)
            if task.get("is_picture"):
                tidy_picture(folder, Path(source).stem, output, is_wanted=self._config.output.picture != "none")
            results = entries(folder, self.records.root, output.parent)
            record = record_of(task, state, report, results, seconds=time.monotonic() - started)
            self.records.move(folder, record, output.parent)
        return done_result(record)

    def _run_long(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is missing of a long video, and join it."""
        started, state, config = time.monotonic(), source_state(task["source"]), self._of_long(task)
        plan = self._planned(task, config)  # refuses what others have put in the place of the results
        made: list[Done] = []

        def save(report: "Report") -> None:
            results = self.records.outputs_of(report.outputs)
            made.append(record_of(task, state, report, results, seconds=time.monotonic() - started))
            self.records.save(made[-1])

        with self._begun(task):
            if isinstance(self.records, BucketRecords):
                return self._run_long_in_bucket(task, self.records, plan, state)
            report = self._run_config(config, on_made=save)
            if report.outcome is Outcome.INTERRUPTED:
                return dict(INTERRUPTED)
            if not made:  # in one piece
                save(report)
        self.records.forget_begun(task["name"])
        return done_result(made[-1])

    def _run_long_in_bucket(
        self, task: Mapping[str, Any], bucket: BucketRecords, plan: OutputPlan, state: SourceState
    ) -> dict[str, Any]:
        """The same where the segments and the result are objects."""
        started, output, model = time.monotonic(), self._output_of(task), self.model
        store = bucket.store(output)
        with bucket.making(task["name"], self._scratch) as folder:
            report = long.do_all(
                configured(model, self._of_long(task)), plan, store, folder / output.name, model=model,
                spec=spec_of(model), attempt=task.get("attempt", 1), stop=self._stop, on_note=self._notes.add,
                on_progress=self._progress,
            )  # fmt: skip
            if report is None:
                return dict(INTERRUPTED)
            results = entries(folder, bucket.root, output.parent)
            record = record_of(task, state, report, results, seconds=time.monotonic() - started)
            bucket.move(folder, record, output.parent)
        store.discard()
        bucket.forget_begun(task["name"])
        return done_result(record)

    def _rows(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Do some segments of a long video."""
        if (earlier := self._earlier(task)) is not None:
            return done_result(earlier)
        model = self.model
        config = configured(model, self._of_long(task))
        plan, store = self._planned(task, config), self.records.store(self._output_of(task))
        with self._begun(task):
            first, last = task["rows"]
            counts = long.do_rows(
                config, plan, store, range(first, last + 1), model=model, spec=spec_of(model),
                attempt=task.get("attempt", 1), stop=self._stop, on_note=self._notes.add, on_progress=self._progress,
            )  # fmt: skip
        return dict(INTERRUPTED) if counts is None else {"state": "done", **counts}

    @contextmanager
    def _begun(self, task: Mapping[str, Any]) -> Iterator[None]:
        """Work on a result in its place; where nothing comes of it, nothing says that it was begun."""
        output = self._output_of(task)
        state = source_state(task["source"])
        self.records.begin(Begun(name=task["name"], source=state, output=self.records.relative(output)))
        try:
            yield
        except Exception:  # raised again: only the mark of a beginning is taken back
            if not self.records.exists(output) and not self.records.has_segments(output):
                self.records.forget_begun(task["name"])
            raise

    def _output_of(self, task: Mapping[str, Any]) -> Path:
        return self.records.local(task["output"])

    def _earlier(self, task: Mapping[str, Any]) -> Done | None:
        """The record of a source that is done.

        Raises:
            OutputError: the source has changed since.
        """
        earlier = self.records.done(task["name"])
        if earlier is not None and not is_same(earlier.source, source_state(task["source"])):
            what = "the source has changed since its result was made"
            raise OutputError(what, where=task["source"], hint="pass --overwrite to make it again")
        return earlier

    def _planned(self, task: Mapping[str, Any], config: Config) -> OutputPlan:
        """The outputs of a source. Raises `StreamError` if it cannot be read, or others have made them."""
        if isinstance(self.records, BucketRecords):
            check_free(self.records, task["name"], task["output"], overwrite=config.output.overwrite)
        with collected(self._notes), closing(open_config_source(config)) as opened:
            return plan_outputs(config, opened.info)

    def _is_animated(self, task: Mapping[str, Any]) -> bool:
        if Path(task["source"]).suffix.lower() not in ANIMATED:
            return False
        with closing(open_config_source(self._of_run(task, self._output_of(task)))) as opened:
            return opened.info.kind is SourceKind.VIDEO

    def _run_config(self, config: Config, *, on_made: "OnReport | None" = None) -> "Report":
        return run_config(
            configured(self.model, config),
            model=self.model,
            stop=self._stop,
            on_note=self._notes.add,
            on_progress=self._progress,
            on_made=on_made,
        )

    def _of_run(self, task: Mapping[str, Any], output: Path) -> Config:
        """The config of one source; a picture has no time, so the options about it are the videos'."""
        config, capture = self._config, self._config.capture
        if task.get("is_picture"):
            capture = capture.model_copy(update={key: getattr(defaults().capture, key) for key in OF_VIDEOS})
        place = {"path": output, "overwrite": False, "quiet": True, "resume": False, "segment_seconds": 0.0}
        update = {
            "source": task["source"],
            "capture": capture,
            "output": config.output.model_copy(update=place),
        }
        return config.model_copy(update=update)

    def _of_long(self, task: Mapping[str, Any]) -> Config:
        """The config of a video whose result is made in its place, in segments if it is long."""
        config = self._of_run(task, self._output_of(task))
        given = self._config.output
        place = {"resume": True, "segment_seconds": given.segment_seconds, "overwrite": given.overwrite}
        return config.model_copy(update={"output": config.output.model_copy(update=place)})

    def _progress(self, progress: "Progress") -> None:
        if self._on_frames is not None:
            self._on_frames(progress.metrics.written)
