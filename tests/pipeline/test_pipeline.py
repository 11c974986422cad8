"""The pipeline under faults, interruption and load: the right exception, no thread left, nothing half-written."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ModelError, SourceError
from stream.media import av
from stream.metrics import Metrics, Outcome
from stream.pipeline.runner import Pipeline, Progress
from stream.pipeline.threads import Stages
from stream.sinks.video import VideoSink
from tests.support.fakes import Fault, Hook, RecordingSink, ScriptedInference, ScriptedRenderer, ScriptedSource

STAGES = ["source", "model", "render", "sink"]
WHEN = {"open": -1, "first frame": 0, "middle": 12, "finish": -1}
QUEUES = ["empty", "full"]
COUNT = 30
HELD = {"source": 6, "model": 9}
"""Where the renderer stops so that both queues (of two) are full when the source or model comes to frame 12."""


class Scene:
    """Puts the queues into a state when the fault strikes: lockstep keeps them empty, a held consumer fills them."""

    def __init__(self, stage: str, when: str, queues: str) -> None:
        self.stage, self.when, self.queues = stage, when, queues
        self.error = Fault(f"{stage} at {when}")
        self.written = threading.Semaphore(1)
        self.release = threading.Event()
        self.pipeline: Pipeline | None = None

    def hook(self, stage: str) -> Hook:
        def hook(moment: str, index: int) -> None:
            strikes = stage == self.stage and (
                (self.when in ("open", "finish") and moment == self.when)
                or (moment == "frame" and self.when not in ("open", "finish") and index == WHEN[self.when])
            )
            if strikes:
                if self.queues == "full" and moment == "frame":
                    self._wait_until_full()
                self.release.set()
                self.written.release(COUNT)  # a source that waits for its turn may go on, and end
                raise self.error
            if moment != "frame":
                return
            if self.queues == "empty" and stage == "source":
                self.written.acquire(timeout=5)
            if self.queues == "empty" and stage == "sink":
                self.written.release()
            if self.queues == "full" and stage == "render" and index == HELD.get(self.stage) and self.when == "middle":
                self.release.wait(5)

        return hook

    def _wait_until_full(self) -> None:
        assert self.pipeline is not None
        stages = self.pipeline.stages
        channels = {
            "source": [stages.frames, stages.results],
            "model": [stages.frames, stages.results],
            "render": [stages.frames, stages.results],
            "sink": [stages.frames, stages.results],
        }[self.stage]
        if self.when == "first frame" and self.stage in ("source", "model"):
            channels = [] if self.stage == "source" else [stages.frames]
        deadline = time.monotonic() + 5
        while any(len(c) < c.capacity for c in channels) and time.monotonic() < deadline:
            threading.Event().wait(0.001)
        assert all(len(c) == c.capacity for c in channels)


@pytest.mark.parametrize("queues", QUEUES)
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("stage", STAGES)
def test_fault_table(stage: str, when: str, queues: str, tmp_path: Path) -> None:
    if (stage, when) in [("source", "open"), ("model", "open"), ("render", "finish")]:
        pytest.skip("has no such moment in a pipeline of open stages; see test_run.py for opening")
    scene = Scene(stage, when, queues)
    source = ScriptedSource(COUNT, hook=scene.hook("source"))
    inference = ScriptedInference(hook=scene.hook("model"))
    faulty = RecordingSink(hook=scene.hook("sink"))
    target = tmp_path / "out.mp4"
    pipeline = Pipeline(
        source, inference, ScriptedRenderer(hook=scene.hook("render")), [faulty, VideoSink(target)], queue=2
    )
    scene.pipeline = pipeline

    with pytest.raises(Fault) as caught:
        pipeline.run()

    assert caught.value is scene.error
    assert not [t for t in threading.enumerate() if t.name.startswith("depthstream-")]
    assert source.closed >= 1
    assert inference.closed >= 1
    assert not target.exists()
    partial = tmp_path / "out.partial.mp4"
    written = pipeline.metrics.written
    if when in ("open", "first frame"):
        assert list(tmp_path.iterdir()) == []
    else:
        with av.open(str(partial)) as container:
            assert sum(1 for _ in container.decode(video=0)) == written
        assert written == {"middle": 12, "finish": COUNT}[when] if stage in ("render", "sink") else written >= 1
    assert len(faulty.endings) <= 1 or faulty.endings == ["finish"]


@given(
    count=st.integers(1, 40),
    queue=st.integers(1, 5),
    skip=st.frozensets(st.integers(0, 39), max_size=5),
    refuse=st.frozensets(st.integers(0, 39), max_size=5),
)
def test_nothing_is_lost_or_reordered_and_counts_add_up(
    count: int, queue: int, skip: frozenset[int], refuse: frozenset[int]
) -> None:
    source, sink = ScriptedSource(count, skip=skip), RecordingSink()
    pipeline = Pipeline(source, ScriptedInference(refuse=refuse), ScriptedRenderer(), [sink], queue=queue)
    wanted = [i for i in range(count) if i not in skip | refuse]
    if not wanted and any(i in refuse and i not in skip for i in range(count)):
        with pytest.raises(ModelError, match="too large"):
            pipeline.run()
        return
    outcome = pipeline.run()
    assert sink.indices == wanted
    metrics = pipeline.metrics
    captured = metrics.delivered + len(source.log.skipped)
    skipped = len(source.log.skipped) + len(pipeline.stages.refused)
    assert captured == count == metrics.written + sum(metrics.dropped.values()) + skipped
    if wanted:
        assert outcome is (Outcome.DONE_WITH_SKIPS if skipped else Outcome.DONE)


def test_a_live_source_drops_the_oldest_and_counts_by_cause() -> None:
    sink = RecordingSink()
    shown = threading.Event()
    produced = threading.Event()

    def slow_model(moment: str, index: int) -> None:
        if index == 0 and moment == "frame":
            produced.wait(5)

    def camera(moment: str, index: int) -> None:
        if index == 19:
            produced.set()
            shown.wait(0.05)

    source = ScriptedSource(20, live=True, hook=camera)
    pipeline = Pipeline(source, ScriptedInference(hook=slow_model), ScriptedRenderer(), [sink])
    assert pipeline.run() is Outcome.DONE
    assert sink.indices == sorted(sink.indices)
    assert sink.indices[-1] == 19
    dropped = pipeline.metrics.dropped
    assert dropped["model_busy"] > 0
    assert sum(dropped.values()) + len(sink.indices) == 20


@pytest.mark.parametrize(("live", "outcome", "ending"), [
    (False, Outcome.INTERRUPTED, "keep_partial"),
    (True, Outcome.DONE, "finish"),
])  # fmt: skip
def test_ctrl_c(live: bool, outcome: Outcome, ending: str) -> None:
    sink = RecordingSink()

    def press(moment: str, index: int) -> None:
        if moment == "frame" and len(sink.indices) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    sink.hook = press
    before = signal.getsignal(signal.SIGINT)
    source = ScriptedSource(10_000, live=live)
    assert Pipeline(source, ScriptedInference(), ScriptedRenderer(), [sink]).run() is outcome
    assert sink.endings == [ending]
    assert len(sink.indices) < 100
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
@pytest.mark.parametrize(("live", "ending"), [(False, "keep_partial"), (True, "finish")])
def test_a_terminal_that_closes_ends_a_run_in_order_however_often_it_says_so(live: bool, ending: str) -> None:
    sink = RecordingSink()

    def close(moment: str, _index: int) -> None:
        if moment == "frame":  # the first one: a live source that is dropped from may end before many are written
            signal.raise_signal(signal.SIGHUP)  # the kernel and the shell send one each

    sink.hook = close
    pipeline = Pipeline(ScriptedSource(10_000, live=live), ScriptedInference(), ScriptedRenderer(), [sink])
    assert pipeline.run() is (Outcome.DONE if live else Outcome.INTERRUPTED)
    assert pipeline.hung_up
    assert sink.endings == [ending]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_terminal_that_closes_does_not_end_a_run_under_nohup() -> None:
    sink = RecordingSink()

    def close(moment: str, index: int) -> None:
        if moment == "frame" and index == 3:
            signal.raise_signal(signal.SIGHUP)

    sink.hook = close
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = Pipeline(ScriptedSource(20), ScriptedInference(), ScriptedRenderer(), [sink]).run()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert outcome is Outcome.DONE
    assert len(sink.indices) == 20


def test_closing_a_preview_ends_a_file_job_quietly() -> None:
    window = RecordingSink(is_lossless=False, stop_after=2)
    outcome = Pipeline(ScriptedSource(10_000), ScriptedInference(), ScriptedRenderer(), [window]).run()
    assert outcome is Outcome.DONE
    assert window.endings == ["finish"]


def test_a_reader_stuck_in_a_driver_is_abandoned_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.pipeline.threads.JOIN_DEADLINE_S", 0.05)
    stuck = threading.Event()

    def driver(moment: str, index: int) -> None:
        if moment == "frame" and index == 2:
            stuck.wait(20)

    sink = RecordingSink(stop_after=1, is_lossless=False)
    pipeline = Pipeline(ScriptedSource(10, live=True, hook=driver), ScriptedInference(), ScriptedRenderer(), [sink])
    assert pipeline.run() is Outcome.DONE
    assert pipeline.stages.abandoned == ["depthstream-capture"]
    stuck.set()


@pytest.mark.parametrize("live", [True, False])
def test_a_model_that_takes_long_does_not_hold_up_ctrl_c(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.pipeline.threads.JOIN_DEADLINE_S", 0.1)
    busy, may_end, written = threading.Event(), threading.Event(), threading.Event()
    calls = 0

    def camera(moment: str, index: int) -> None:
        if moment == "frame" and index == 1:
            assert written.wait(5)  # a live source would drop frames until the model sees the last one only

    def model(moment: str, index: int) -> None:
        nonlocal calls
        calls += moment == "frame"
        if calls > 1:  # calls, not indices: of a live source the model sees some frames only
            busy.set()
            may_end.wait(20)

    def write(moment: str, index: int) -> None:
        if moment == "frame":
            written.set()

    def look(_progress: Progress) -> None:
        if busy.is_set() and pipeline.metrics.written:
            signal.raise_signal(signal.SIGINT)
            busy.clear()

    source, sink = ScriptedSource(1000, live=live, hook=camera), RecordingSink(hook=write)
    inference = ScriptedInference(hook=model)
    pipeline = Pipeline(source, inference, ScriptedRenderer(), [sink], on_progress=look)
    outcome = pipeline.run()
    assert not may_end.is_set()  # it came back while the model was still at it
    assert pipeline.stages.abandoned == ["depthstream-inference"]
    assert outcome is (Outcome.DONE if live else Outcome.INTERRUPTED)
    assert sink.endings == ["finish" if live else "keep_partial"]
    assert sink.indices
    may_end.set()


def test_a_good_end_is_not_taken_for_a_frozen_camera() -> None:
    now, may_end = [0.0], threading.Event()

    def model(moment: str, index: int) -> None:
        if moment == "frame" and index == 1:
            assert may_end.wait(20)

    def look(progress: Progress) -> None:
        if pipeline.stages.has_captured_all:
            now[0] += 30.0
            may_end.set()

    source, sink = ScriptedSource(2, silence_limit_s=10.0), RecordingSink()
    pipeline = Pipeline(
        source, ScriptedInference(hook=model), ScriptedRenderer(), [sink], metrics=Metrics(clock=lambda: now[0]),
        on_progress=look,
    )  # fmt: skip
    assert pipeline.run() is Outcome.DONE
    assert sink.indices == [0, 1]


def test_a_camera_that_freezes_is_given_up_and_its_recording_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.pipeline.threads.JOIN_DEADLINE_S", 0.05)
    stuck, now = threading.Event(), [0.0]

    def driver(moment: str, index: int) -> None:
        if moment == "frame" and index == 2:
            stuck.wait(20)

    def look(progress: Progress) -> None:
        if progress.metrics.delivered == 2 and progress.metrics.written:
            now[0] += 3.0  # each time that the display looks

    source, sink = ScriptedSource(10, live=True, hook=driver, silence_limit_s=10.0), RecordingSink()
    metrics = Metrics(clock=lambda: now[0])
    pipeline = Pipeline(source, ScriptedInference(), ScriptedRenderer(), [sink], metrics=metrics, on_progress=look)
    with pytest.raises(
        SourceError, match="scripted: no new frame for 10 s; the device is connected but delivers nothing"
    ):
        pipeline.run()
    stuck.set()
    assert sink.indices in ([0, 1], [1])
    assert sink.endings == ["keep_partial"]
    assert pipeline.stages.abandoned == ["depthstream-capture"]


def test_a_second_failure_is_attached_to_the_first() -> None:
    class Broken(RecordingSink):
        def keep_partial(self, reason: str) -> None:
            raise OSError("disk gone")

    def fail(moment: str, index: int) -> None:
        if moment == "frame" and index == 3:
            raise Fault("first")

    pipeline = Pipeline(ScriptedSource(9), ScriptedInference(hook=fail), ScriptedRenderer(), [Broken()], queue=1)
    with pytest.raises(Fault, match="first") as caught:
        pipeline.run()
    if pipeline.metrics.written:
        assert any("disk gone" in note for note in caught.value.__notes__)


def test_closing_stages_early_stops_full_queues() -> None:
    stages = Stages(ScriptedSource(10_000), ScriptedInference(), Metrics(), queue=2)
    stages.start()
    assert stages.get(5)[0].index == 0
    stages.close()
    stages.close()
    assert not stages.abandoned


def test_stages_never_started_are_closed() -> None:
    source, inference = ScriptedSource(3), ScriptedInference()
    Stages(source, inference, Metrics(), queue=2).close()
    assert (source.closed, inference.closed) == (1, 1)


def test_busy_and_waiting_times_are_told_apart() -> None:
    pipeline = Pipeline(ScriptedSource(50), ScriptedInference(), ScriptedRenderer(), [RecordingSink()], queue=2)
    pipeline.run()
    times = pipeline.stages.times()
    assert set(times) == {"capture", "inference"}
    assert all(t.busy_s >= 0 and t.waiting_s >= 0 for t in times.values())
