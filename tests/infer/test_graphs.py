"""Tests for stream.infer.backends.graphs: with a recorder that any device can have, and on CUDA with its own."""

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from stream.bench.synthetic_weights import with_synthetic_weights
from stream.infer.backends.eager import Eager
from stream.infer.backends.graphs import MOST_GRAPHS, UNUSED_CALLS, WARM_UP, CudaRecorder, Graphs, Tensors
from stream.infer.engine import Engine
from stream.infer.executor import SerialExecutor
from stream.infer.temporal import Stepper
from stream.models import registry
from stream.models.layers import SizeCache
from tests.support.tiny_model import Tiny, frame, loaded

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


OTHERS = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in (
        "da3_small", "dpt_beit_base_384", "dpt_hybrid_384", "dpt_large_384", "dpt_levit_224", "dpt_next_vit_large_384",
        "dpt_swin2_tiny_256", "midas_v21_384", "midas_v21_small_256", "moge_2_vits_normal", "zipdepth_base",
    )
]  # fmt: skip
"""The smallest network of each architecture, besides those of every run."""


class Recorder:
    """Records like CUDA: a replay reads the same inputs and overwrites the same outputs, and Python sees none of it."""

    def __init__(self) -> None:
        self.recorded = self.replays = 0

    def __call__(self, work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        outputs = work()
        self.recorded += 1

        def replay() -> None:
            self.replays += 1
            again = work()
            for ours, new in zip(as_tuple(outputs), as_tuple(again), strict=True):
                ours.copy_(new)

        return outputs, replay


def as_tuple(found: Tensors) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def graphs(record: Callable[..., tuple[Tensors, Callable[[], None]]]) -> tuple[Graphs, list[str], Counter[str]]:
    notes: list[str] = []
    counters: Counter[str] = Counter()
    return Graphs(record, notes, counters), notes, counters


def doubled(x: Tensor, scale: float = 2.0) -> Tensor:
    return x * scale


def sum_and_difference(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x + y, x - y


def test_calls_are_replayed_once_they_are_warm_and_results_stay() -> None:
    recorder = Recorder()
    run = graphs(recorder)[0].run
    results = [run(doubled, torch.full((2, 3), float(i))) for i in range(10)]
    assert (recorder.recorded, recorder.replays) == (1, 1 + 10 - WARM_UP)  # one replay is a check
    assert [float(result[0, 0]) for result in results] == [2.0 * i for i in range(10)]


def test_several_tensors_go_in_and_come_out() -> None:
    recorder = Recorder()
    run = graphs(recorder)[0].run
    pairs = [run(sum_and_difference, torch.tensor([float(i)]), torch.tensor([1.0])) for i in range(8)]
    assert recorder.replays
    assert [(float(a), float(b)) for a, b in pairs] == [(i + 1.0, i - 1.0) for i in range(8)]


def test_shapes_types_fixed_arguments_and_functions_are_told_apart() -> None:
    recorder = Recorder()
    run = graphs(recorder)[0].run
    for i in range(WARM_UP + 2):
        x = torch.arange(6.0) + i
        assert torch.equal(run(doubled, x.view(2, 3)), x.view(2, 3) * 2)
        assert torch.equal(run(doubled, x.view(2, 3), fixed=(3.0,)), x.view(2, 3) * 3)
        assert torch.equal(run(doubled, x.view(3, 2)), x.view(3, 2) * 2)
        assert run(doubled, x.double()).dtype == torch.float64
    assert recorder.recorded == 4


def test_no_more_are_kept_than_may_be() -> None:
    recorder = Recorder()
    run = graphs(recorder)[0].run
    for size in range(1, MOST_GRAPHS + 3):
        for i in range(WARM_UP + 2):
            assert torch.equal(run(doubled, torch.full((size,), float(i))), torch.full((size,), 2.0 * i))
    assert recorder.recorded == MOST_GRAPHS


def test_a_size_that_comes_no_more_makes_room_and_sizes_that_take_turns_do_not() -> None:
    recorder = Recorder()
    made = graphs(recorder)[0]
    for _ in range(2 * UNUSED_CALLS):
        for size in range(1, MOST_GRAPHS + 2):
            made.run(doubled, torch.zeros(size))
    assert recorder.recorded == MOST_GRAPHS
    for i in range(2 * UNUSED_CALLS):
        assert torch.equal(made.run(doubled, torch.full((9,), float(i))), torch.full((9,), 2.0 * i))
    assert recorder.recorded == MOST_GRAPHS + 1
    assert len(made.held) == MOST_GRAPHS
    assert {tuple(graph.inputs[0].shape) for graph in made.held} == {(2,), (3,), (4,), (9,)}


def test_sizes_that_do_not_come_again_are_not_recorded() -> None:
    recorder = Recorder()
    run = graphs(recorder)[0].run
    for size in range(1, 600):
        run(doubled, torch.zeros(size))
    assert recorder.recorded == 0


def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once() -> None:
    def refuse(_work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    made, notes, counters = graphs(refuse)
    for i in range(WARM_UP + 4):
        assert float(made.run(doubled, torch.tensor(float(i)))) == 2.0 * i
    assert counters == {"graph_failures": 1}
    (note,) = notes
    assert note.endswith("which only costs speed: operation not permitted when stream is capturing")


def test_a_network_that_fails_in_every_size_is_tried_no_more() -> None:
    tries = 0

    def refuse(_work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        nonlocal tries
        tries += 1
        raise RuntimeError("no")

    made, notes, _ = graphs(refuse)
    for size in range(1, 3 * MOST_GRAPHS):
        for _ in range(WARM_UP + 1):
            made.run(doubled, torch.zeros(size))
    assert tries == MOST_GRAPHS
    assert len(notes) == 1


def test_a_replay_that_gives_other_numbers_is_never_used() -> None:
    """As one would of a network whose result depends on more than its input."""
    calls = 0

    def counting(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x * calls

    made, notes, counters = graphs(Recorder())
    for i in range(1, WARM_UP + 1):
        assert made.run(counting, torch.arange(3.0)).tolist() == [0.0, i, 2.0 * i]
    assert not made.held
    assert counters == {"graph_failures": 1}
    assert notes == ["the network runs without CUDA graphs, which only costs speed: a replay gave other numbers"]


def test_one_size_that_fails_keeps_no_other_from_a_graph() -> None:
    recorder = Recorder()

    def picky(work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        if len(as_tuple(work())[0]) == 2:
            raise RuntimeError("not this one")
        return recorder(work)

    made = graphs(picky)[0]
    for size in (2, 3):
        for _ in range(WARM_UP + 1):
            made.run(doubled, torch.zeros(size))
    assert [tuple(graph.inputs[0].shape) for graph in made.held] == [(3,)]


def test_graphs_are_given_back_once_and_made_no_more() -> None:
    made, notes, counters = graphs(Recorder())
    assert not made.give_back()
    for _ in range(WARM_UP + 1):
        made.run(doubled, torch.zeros(2))
    assert made.give_back()
    assert not made.give_back()
    for i in range(WARM_UP + 1):
        assert torch.equal(made.run(doubled, torch.full((2,), float(i))), torch.full((2,), 2.0 * i))
    assert not made.held
    assert counters == {"graph_failures": 1}
    assert notes == ["the network runs without CUDA graphs, which only costs speed: their memory is needed"]


class Hungry(Tiny):
    """Has no memory for more than `most` frames, or for none while anything is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.fits: Callable[[int], bool] = lambda _: True

    def forward(self, x: Tensor) -> Tensor:
        if not self.fits(len(x)):
            raise torch.OutOfMemoryError("no memory")
        return super().forward(x)


def test_an_engine_gives_graphs_back_before_it_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Hungry()
    engine = Engine(loaded(network), device="cpu", precision="fp32", batch=4, executor=SerialExecutor(CPU))
    backend = Eager(network, "fp32", batch=4, record=Recorder())
    monkeypatch.setattr(engine, "_backend", backend)
    pictures = [frame(i) for i in range(2)]
    for _ in range(WARM_UP + 1):
        expected = engine.infer(pictures)
    assert backend.graphs == 1
    network.fits = lambda _: backend.graphs == 0
    found = engine.infer([frame(i) for i in range(4)])
    assert backend.graphs == 0
    np.testing.assert_array_equal(found[0].values, expected[0].values)
    assert engine.counters == {"graph_failures": 1}
    assert engine.batch == 4


def test_a_network_ends_with_its_backend() -> None:
    """Without the garbage collector: it holds the device's memory."""
    network = Tiny()
    ended = weakref.ref(network)
    backend = Eager(network, "fp32", batch=1, record=Recorder())
    with torch.inference_mode():
        for _ in range(WARM_UP + 2):
            backend(torch.zeros(1, 3, 8, 8))
    assert backend.graphs == 1
    gc.disable()
    try:
        del network, backend
        assert ended() is None
    finally:
        gc.enable()


@torch.inference_mode()
def test_a_stream_through_recordings_is_the_stream() -> None:
    network = with_synthetic_weights(registry.find("video_depth_anything_vits")).network
    recorder = Recorder()
    backend = Eager(network, "fp32", batch=1, record=recorder)
    past = plain_past = None
    for i in range(WARM_UP + 4):
        x = torch.full((1, 3, 28, 28), i / 8)
        found, past = backend.step(x, past)
        expected, plain_past = backend.temporal.step(x, plain_past)
        torch.testing.assert_close(found, expected)
    assert recorder.replays
    (features,), (expected_features,) = backend.features(x), backend.temporal.features(x)
    assert all(torch.equal(a, b) for a, b in zip(features, expected_features, strict=True))


def test_tables_of_a_recorded_size_outlive_the_cache() -> None:
    cache = SizeCache()
    kept: list[Tensor] = []

    def shifted(x: Tensor) -> Tensor:
        size = (int(x.shape[0]), 1)
        return x + cache.get(size, x.device, x.dtype, lambda: torch.full((1,), float(size[0])))

    class Keeping(Recorder):
        def __call__(self, work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
            found = super().__call__(work)
            kept.append(cache.get((2, 1), torch.device("cpu"), torch.float32, lambda: torch.zeros(1)))
            return found

    made = graphs(Keeping())[0]
    for _ in range(WARM_UP + 1):
        made.run(shifted, torch.zeros(2))
    (graph,) = made.held
    assert any(table is kept[0] for table in graph.tables)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("name", ["starter", "depth_anything_v2_vits", "depth_anything_metric_depth_indoor", *OTHERS])
def test_a_graph_gives_what_the_network_gives(name: str) -> None:
    spec = registry.find(name)
    model = registry.load(name) if spec.weights.packaged else with_synthetic_weights(spec)
    engine, plain = (Engine(m, device="cuda", precision="fp16") for m in (model, replace(model, spec=unnamed(spec))))
    for i in range(3 * WARM_UP):
        picture = frame(i, 640, 480)
        found, expected = engine.infer([picture])[0].values, plain.infer([picture])[0].values
        np.testing.assert_array_equal(found, expected)
    assert engine.eager().graphs == 1
    assert plain.eager().graphs == 0
    assert not engine.counters
    engine.close()
    plain.close()


def unnamed(spec: registry.ModelSpec) -> registry.ModelSpec:
    """The same row outside the catalog, so that nothing is recorded."""
    return replace(spec, name=f"{spec.name}_plain")


@pytest.mark.cuda
@needs_cuda
def test_a_stream_of_a_video_model_is_the_same_with_graphs() -> None:
    spec = registry.find("video_depth_anything_vits")
    model = with_synthetic_weights(spec)
    engine, plain = (Engine(m, device="cuda", precision="fp16") for m in (model, replace(model, spec=unnamed(spec))))
    steppers = [Stepper(one, is_live=False) for one in (engine, plain)]
    for i in range(50):
        picture = frame(i % 5, 160, 128)
        found, expected = (stepper.infer(replace(picture, index=i, pts=i)).values for stepper in steppers)
        np.testing.assert_allclose(found, expected, atol=2e-2 * expected.std())
    assert engine.eager().graphs >= 1
    assert not engine.counters
    engine.close()
    plain.close()


@pytest.mark.cuda
@needs_cuda
def test_cuda_survives_a_function_that_waits_for_the_device() -> None:
    made, notes, counters = graphs(CudaRecorder())

    def waiting(x: Tensor) -> Tensor:
        return x * float(x.sum())

    with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(WARM_UP + 3):
            x = torch.ones(4, device="cuda")
            assert made.run(waiting, x).tolist() == [4.0] * 4
        big = torch.ones(1 << 20, device="cuda")
        assert float((big + 1).sum()) == float(2 << 20)
    assert counters == {"graph_failures": 1}
    assert len(notes) == 1
