"""`--backend auto`: torch at once, something faster between two frames, and nothing lost, doubled or left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from stream.channel import Channel, WhenFull
from stream.frames import Depth, Frame
from stream.infer import engine as engines
from stream.infer.backends import auto, child, choose
from stream.infer.backends.auto import Auto
from stream.infer.backends.cache import ModelCache
from stream.infer.backends.choose import BackendOptions
from stream.infer.backends.eager import Eager
from stream.infer.backends.exported import Call, Exported
from stream.infer.batcher import Grouping, infer_stream
from stream.infer.engine import Engine
from stream.models.registry import LoadedModel
from tests.support import slow_export
from tests.support.paths import REPOSITORY
from tests.support.portable import Portable
from tests.support.tiny_model import Tiny, frame, loaded

WAIT_S = 120.0
"""A busy machine takes seconds to start a child."""
TORCH_S, FAST_S = 1.0, 0.5


class Clock:
    """Seconds that pass while networks compute, and not otherwise."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.fast_s = FAST_S

    def __call__(self) -> float:
        return self.now_s


class Slow(Tiny):
    """Takes a second a call in torch, and nothing in an export."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        self._clock.now_s += TORCH_S
        return super().forward(x)


class Fast(Portable):
    """Takes half a second a call."""

    name = "openvino"

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def load(self, folder: Path) -> Call:
        call = super().load(folder)

        def timed(x: Tensor) -> tuple[Tensor, ...]:
            self._clock.now_s += self._clock.fast_s
            return call(x)

        return timed


@dataclass(kw_only=True)
class Bench:
    """An engine whose exports are made by `tests.support.slow_export`."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    how: str = "works"

    @property
    def model(self) -> LoadedModel:
        network = Slow(self.clock).eval()
        return LoadedModel(spec=loaded().spec, make_network=lambda: network, weights_sha256="0" * 64, origin={})

    @property
    def cache(self) -> ModelCache:
        return ModelCache(self.folder / "cache")

    def make(self, name: str, options: BackendOptions) -> Eager | Exported:
        eager = Eager(options.model.network, "fp32", batch=1)
        if name == "torch":
            return eager
        return Exported(options.model, Fast(self.clock), eager=lambda: eager, batch=1, cache=options.cache)

    def engine(self, *, frames: float | None = float("inf"), cache: ModelCache | None = None) -> Engine:
        made = Engine(self.model, device="cpu", cache=cache or self.cache, threads=1)
        made.use_fastest((48, 64), frames=frames)
        return made

    def let_go(self) -> None:
        (self.folder / "go").touch()

    @property
    def started(self) -> list[int]:
        """The numbers of all children so far."""
        path = self.folder / "started"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(folder=tmp_path)
    monkeypatch.setattr(auto, "PAYS_FROM_S", 20.0)
    monkeypatch.setattr(auto, "LIVE_FROM_S", 3.0)
    monkeypatch.setattr(choose, "make", made.make)
    monkeypatch.setattr(choose, "candidates", lambda options: ["openvino"] if options.model.origin is not None else [])
    monkeypatch.setattr(engines, "Auto", timed_by(made.clock))
    monkeypatch.setattr(child, "command", lambda: slow_export.command(tmp_path, made.how))
    made.make("openvino", options_of(made, tmp_path / "made")).prepare((24, 32))
    made.clock.now_s = 0.0
    yield made
    for number in made.started:
        assert not psutil.pid_exists(number), "a child is left"
    assert not list(tmp_path.glob("cache/making.*")), "files of a child are left"


def timed_by(clock: Clock) -> type[Auto]:
    """The class with this clock."""

    class Timed(Auto):
        def __init__(self, options: BackendOptions, eager: Eager) -> None:
            super().__init__(options, eager, clock=clock)

    return Timed


def options_of(bench: Bench, folder: Path) -> BackendOptions:
    return BackendOptions(
        model=bench.model, device=torch.device("cpu"), precision="fp32", batch=1, threads=1, provider="auto",
        cache=ModelCache(folder),
    )  # fmt: skip


def until(condition: Callable[[], object], step: Callable[[], object] = lambda: time.sleep(0.01)) -> None:
    """Repeat `step` until `condition` holds."""
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        step()


def compute(engine: Engine, count: int = 1) -> list[Depth]:
    return [engine.infer([frame(number)])[0] for number in range(count)]


def notes_about(engine: Engine, word: str) -> list[str]:
    return [text for text in engine.notes if word in text]


def test_the_backend_changes_between_two_frames_and_none_is_lost(bench: Bench) -> None:
    """Through a channel, with batches in flight: before, while and after a slow export takes the place of torch."""
    engine, last = bench.engine(), 40
    channel: Channel[Frame] = Channel(4, when_full=WhenFull.BLOCK)
    switched_at: list[int] = []

    def feed() -> None:
        number = 0
        while not switched_at or number < switched_at[0] + last:
            channel.put(frame(number))
            number += 1
            if number == 12:  # torch goes on for as long as the child takes
                until(lambda: bench.started)
                assert engine.backend == "torch"
                bench.let_go()
            if engine.backend != "torch" and not switched_at:
                switched_at.append(number)
        channel.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    reference = Engine(loaded(), device="cpu", threads=1)
    indices, errors = [], []
    for shown, depth in infer_stream(channel, engine, batch=1, grouping=Grouping.NONE, on_skip=lambda *_: None):
        indices.append(shown.index)
        assert depth.index == shown.index
        if shown.index < 200:
            errors.append(np.abs(depth.values - reference.infer([shown])[0].values).max())
    feeder.join()
    assert indices == list(range(len(indices)))
    assert len(indices) == switched_at[0] + last
    assert max(errors) < 1e-4
    made = {name: count for name, count in engine.counters.items() if name.endswith("_frames")}
    assert sum(made.values()) == len(indices)
    assert made["torch_frames"] > 12
    assert made["openvino_frames"] >= auto.TRIAL_RUNS
    (said,) = notes_about(engine, "backend")
    assert said.startswith("backend openvino from frame ")
    assert said.endswith(": openvino 500 ms, torch 1e+03 ms a frame of 32×24 in fp32")
    assert len(bench.started) == 1
    engine.close()
    reference.close()


def test_what_was_faster_once_is_used_from_the_first_frame(bench: Bench) -> None:
    bench.let_go()
    engine = bench.engine()
    until(lambda: engine.backend == "openvino", lambda: compute(engine))
    until(lambda: (known := list(bench.folder.glob("cache/*/entry.json"))) and len(known) == 2)
    engine.close()
    again = bench.engine(frames=20)
    compute(again)
    assert again.backend == "openvino"
    assert again.counters == {"openvino_frames": 1}
    assert notes_about(again, "measured earlier")
    again.close()
    short = bench.engine(frames=2)  # torch has done it before the runtime is loaded
    assert short.backend == "torch"
    short.close()
    assert len(bench.started) == 1


def test_what_is_not_faster_is_not_used_nor_tried_again(bench: Bench) -> None:
    bench.let_go()
    bench.clock.fast_s = TORCH_S / 1.1
    engine = bench.engine()
    until(lambda: notes_about(engine, "still torch"), lambda: compute(engine))
    until(lambda: len(list(bench.folder.glob("cache/*/entry.json"))) == 2)
    assert engine.backend == "torch"
    engine.close()
    again = bench.engine()
    compute(again, 20)
    assert again.counters == {"torch_frames": 20}
    assert not again.notes
    again.close()
    assert len(bench.started) == 1


@pytest.mark.parametrize(
    ("how", "said", "tries"),
    [
        ("refuses", "openvino is not used: tiny: differs from torch", 1),  # it will do so every time
        ("fills", "No space left on device", 2),
        ("dies", "openvino is not used: the export ended with signal 9", 2),
    ],
)
def test_an_export_that_fails_is_said_once_and_the_run_goes_on(bench: Bench, how: str, said: str, tries: int) -> None:
    bench.how = how
    bench.let_go()
    engine = bench.engine()
    until(lambda: engine.counters["export_failures"], lambda: compute(engine))
    assert len(notes_about(engine, said)) == 1
    compute(engine, 3)
    assert engine.backend == "torch"
    assert "openvino_frames" not in engine.counters
    if how == "refuses":
        until(lambda: list(bench.folder.glob("cache/*/entry.json")))
    engine.close()
    again = bench.engine()
    compute(again, 5)
    if tries > 1:
        until(lambda: again.counters["export_failures"])
    again.close()
    assert len(bench.started) == tries


def test_the_end_of_the_run_ends_the_child(bench: Bench) -> None:
    engine = bench.engine()
    compute(engine, 5)
    until(lambda: bench.started)
    (number,) = bench.started
    assert psutil.Process(number).is_running()
    engine.close()
    assert not psutil.pid_exists(number)
    assert not engine.counters["export_failures"]  # nothing has failed


def test_a_cache_that_cannot_be_written_costs_no_more_than_the_export(bench: Bench) -> None:
    (bench.folder / "file").touch()
    bench.let_go()
    engine = bench.engine(cache=ModelCache(bench.folder / "file" / "cache"))
    until(lambda: engine.backend == "openvino", lambda: compute(engine))
    assert len(notes_about(engine, "not writable")) == 1
    engine.close()


def test_runs_beside_each_other_export_once(bench: Bench) -> None:
    both = [bench.engine(), bench.engine()]
    for engine in both:
        compute(engine, 5)
    until(lambda: bench.started)
    bench.let_go()
    until(lambda: all(engine.backend == "openvino" for engine in both), lambda: [compute(engine) for engine in both])
    for engine in both:
        engine.close()
    assert len(bench.started) == 1


@pytest.mark.parametrize(
    ("frames", "computed", "starts"),
    [
        (1, 1, False),  # a photo
        (20, 19, False),  # torch needs less than 20 s for the rest
        (30, 5, True),
        (None, 10, False),  # a pipe that may end at any moment
        (None, 21, True),  # it has run for 20 s already
        (float("inf"), 3, False),
        (float("inf"), 5, True),  # a camera, for more than 3 s
    ],
)
def test_an_export_starts_where_it_pays(bench: Bench, frames: float | None, computed: int, starts: bool) -> None:
    engine = bench.engine(frames=frames)
    compute(engine, computed)
    assert any(thread.name == "depthstream-export" for thread in threading.enumerate()) == starts
    if starts:
        until(lambda: bench.started)
    engine.close()
    assert bool(bench.started) == starts


def test_what_is_known_of_a_batch_is_not_forgotten_with_its_first_source(bench: Bench) -> None:
    engine = bench.engine(frames=500)
    engine.use_fastest((48, 64), frames=3)
    engine.use_fastest((48, 64), frames=None)
    compute(engine, 5)
    until(lambda: bench.started)
    engine.close()


@pytest.mark.skipif(sys.platform == "win32", reason="uses SIGKILL")
def test_a_child_ends_with_a_parent_that_is_killed(bench: Bench) -> None:
    cache = bench.folder / "cache" / "making.x"
    cache.mkdir(parents=True)
    code = (
        "from pathlib import Path; from tests.support.slow_export import export_and_wait;"
        f"export_and_wait(Path({str(bench.folder)!r}), Path({str(cache)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    until(lambda: bench.started)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not psutil.pid_exists(bench.started[0]))
    assert not cache.exists()
