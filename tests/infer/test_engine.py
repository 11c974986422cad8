"""The engine: parity, batches, precision fallback, memory, and the order of work on a device."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stream.errors import ModelError, UsageError
from stream.frames import DepthKind, Frame
from stream.infer.backends.exported import TOLERANCE
from stream.infer.engine import Engine
from stream.infer.executor import Event, SerialExecutor
from stream.models import registry
from stream.models.registry import LoadedModel
from stream.notes import Notes, collected, note
from tests.support.paths import DATA
from tests.support.reference import image
from tests.support.tiny_model import SPEC, Tiny, frame, loaded

EXPECTED = json.loads((DATA / "starter_expected.json").read_text())
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
MIXED = [(64, 48), (640, 480), (100, 75), (1, 1), (33, 24), (31, 25)]
"""(width, height)."""


@pytest.fixture(scope="module")
def starter() -> LoadedModel:
    return registry.load("starter")


def cpu(model: LoadedModel | None = None, **options: object) -> Engine:
    return Engine(model or loaded(), device="cpu", **options)  # type: ignore[arg-type]


def grid(values: np.ndarray) -> np.ndarray:
    rows, columns = (np.round(np.arange(24) * (side - 1) / 23).astype(int) for side in values.shape)
    return values[np.ix_(rows, columns)]


def assert_expected(values: np.ndarray, wanted: dict[str, object], tolerance: float) -> None:
    assert list(values.shape) == wanted["shape"]
    limit = tolerance * float(wanted["std"])  # type: ignore[arg-type]
    assert np.abs(grid(values) - np.array(wanted["grid24"])).max() <= limit
    for name in ("min", "max", "mean", "std"):
        assert getattr(values, name)() == pytest.approx(wanted[name], abs=limit)


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: "{}x{}".format(*case["image"]))
def test_starter_gives_the_expected_depth(starter: LoadedModel, case: dict[str, object]) -> None:
    width, height = case["image"]  # type: ignore[misc]
    picture = replace(frame(0), rgb=image(width, height))
    engine = cpu(starter)
    (depth,) = engine.infer([picture])
    assert_expected(depth.values, case["full"], 1e-3)  # type: ignore[arg-type]
    # At its own input size nothing is resized afterwards.
    size_hw = engine.plan((height, width))
    x = engine._phases.preprocess(torch.tensor(picture.rgb), size_hw, torch.float32)
    with torch.inference_mode():
        assert_expected(starter.network(x)[0].numpy(), case["net"], 1e-3)  # type: ignore[arg-type]
    engine.close()


def test_a_depth_belongs_to_its_frame_and_to_nobody_else() -> None:
    engine = cpu(loaded(output=DepthKind.METRIC_DEPTH))
    first = engine.infer([frame(3)])[0]
    kept = first.values.copy()
    engine.infer([frame(4)])
    assert (first.index, first.kind, first.size) == (3, DepthKind.METRIC_DEPTH, (48, 64))
    assert np.array_equal(first.values, kept)


def grouped(engine: Engine, frames: list[Frame]) -> dict[tuple[int, int], list[Frame]]:
    groups: dict[tuple[int, int], list[Frame]] = {}
    for picture in frames:
        groups.setdefault(engine.key(picture), []).append(picture)
    return groups


@pytest.mark.parametrize("network", ["tiny", "starter"])
def test_a_batch_of_mixed_sizes_equals_one_by_one(network: str, starter: LoadedModel) -> None:
    model = loaded() if network == "tiny" else starter
    frames = [frame(i, *size) for i, size in enumerate(MIXED)]
    alone, together = cpu(model), cpu(model, batch=4)
    for group in grouped(together, frames).values():
        for picture, depth in zip(group, together.infer(group), strict=True):
            wanted = alone.infer([picture])[0]
            assert depth.index == picture.index
            assert depth.size == picture.size
            np.testing.assert_allclose(depth.values, wanted.values, atol=1e-4 * (1e-6 + wanted.values.std()) + 1e-5)


def test_more_frames_than_a_batch_are_split() -> None:
    sizes: list[int] = []
    model = loaded()
    model.network.register_forward_hook(lambda _m, args, _out: sizes.append(len(args[0])))
    assert [d.index for d in cpu(model, batch=2).infer([frame(i) for i in range(5)])] == list(range(5))
    assert sizes == [2, 2, 1]


def test_frames_of_different_network_sizes_are_no_batch() -> None:
    engine = cpu(batch=2)
    with pytest.raises(ValueError, match="network sizes"):
        engine.submit([frame(0, 64, 48), frame(1, 48, 64)])
    with pytest.raises(ValueError, match="0 frames"):
        engine.submit([])


def test_no_more_batches_than_in_flight() -> None:
    engine = cpu()
    assert engine.in_flight == 3
    for index in range(3):
        engine.submit([frame(index)])
    with pytest.raises(ValueError, match="3 pending"):
        engine.submit([frame(3)])
    for index in range(3):
        ((picture, depth),) = engine.collect()
        assert picture.index == depth.index == index
    with pytest.raises(IndexError):
        engine.collect()
    engine.close()


def test_the_phases_of_a_batch_overlap_with_those_of_the_next() -> None:
    first_is_computing, second_is_prepared = threading.Event(), threading.Event()

    class Waiting(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            first_is_computing.set()
            assert second_is_prepared.wait(20)
            return super().forward(x)

    engine = cpu(loaded(Waiting()))
    prepare, workers = engine._phases.preprocess, set[str]()

    def prepared(*args: object) -> Tensor:
        workers.add(threading.current_thread().name)
        if first_is_computing.is_set():
            second_is_prepared.set()
        return prepare(*args)  # type: ignore[arg-type]

    engine._phases.preprocess = prepared  # type: ignore[assignment]
    engine.submit([frame(0)])
    assert first_is_computing.wait(20)
    engine.submit([frame(1)])  # without overlap neither of them would ever end
    assert [engine.collect()[0][0].index for _ in range(2)] == [0, 1]
    assert workers == {"depthstream-prepare_0"}
    engine.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("depthstream-")]


def test_an_error_in_a_phase_is_raised_by_collect() -> None:
    class Broken(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("broken")

    engine = cpu(loaded(Broken()))
    engine.submit([frame(0)])
    with pytest.raises(RuntimeError, match="broken"):
        engine.collect()
    engine.submit([frame(1)])
    engine.close()  # although a batch failed or never began


def test_a_note_from_the_thread_that_runs_networks_reaches_the_run() -> None:
    class Noting(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            note("from the network")
            return super().forward(x)

    engine, said = cpu(loaded(Noting())), list[str]()
    for _ in range(2):  # threads outlive a run
        with collected(Notes(said.append)):
            engine.infer([frame(0)])
    engine.close()
    assert said == ["from the network"] * 2


def test_a_closed_engine_keeps_its_notes_and_computes_no_more() -> None:
    engine = cpu(loaded(Overflowing()), precision="bf16")
    engine.infer([uniform(0, 250)])
    before = engine.backend, engine.notes, engine.counters
    engine.close()
    assert (engine.backend, engine.notes, engine.counters) == before
    assert engine.notes
    assert engine.counters
    with pytest.raises(RuntimeError, match="the engine is closed"):
        engine.infer([frame(1)])


def test_the_network_size_follows_the_options() -> None:
    assert cpu().plan((48, 64)) == (24, 32)
    assert cpu(input_size=48).plan((48, 64)) == (48, 64)
    assert cpu(square=True).plan((48, 64)) == (24, 24)
    with pytest.raises(UsageError, match="--input-size 100000"):
        cpu(input_size=100_000)
    with pytest.raises(UsageError):
        cpu(input_size=0)


def test_bf16_casts_once_and_spares_fp32_keys(starter: LoadedModel) -> None:
    engine = cpu(replace(starter, spec=replace(starter.spec, fp32_keys=("ctx.*", "head.2.*"))), precision="bf16")
    for name, parameter in engine._backend.network.named_parameters():  # type: ignore[attr-defined]
        stays_fp32 = name.startswith(("ctx.", "head.2."))
        assert parameter.dtype == (torch.float32 if stays_fp32 else torch.bfloat16), name
    assert all(p.dtype == torch.float32 for p in starter.network.parameters())


def test_bf16_is_close(starter: LoadedModel) -> None:
    picture = frame(0, 160, 120)
    (wanted,) = cpu(starter).infer([picture])
    (got,) = cpu(starter, precision="bf16").infer([picture])
    assert np.corrcoef(got.values.ravel(), wanted.values.ravel())[0, 1] > 0.99


class Overflowing(Tiny):
    """Gives NaN in half precision for bright inputs, as overflow in fp16 does."""

    def __init__(self, *, limit: float = 1.0, always: bool = False) -> None:
        super().__init__()
        self.limit, self.always = limit, always

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        y = super().forward(x)
        is_bright = x.mean((1, 2, 3), keepdim=True)[:, 0] > self.limit
        broken = torch.full_like(y, torch.nan)
        return torch.where(is_bright, broken, y) if self.always or y.dtype != torch.float32 else y


def uniform(index: int, level: int, name: str = "") -> Frame:
    return replace(frame(index, name=name), rgb=np.full((48, 64, 3), level, np.uint8))


def test_what_is_not_finite_is_computed_again_in_fp32_and_said_once() -> None:
    engine = cpu(loaded(Overflowing()), precision="bf16", batch=3)
    exact = cpu(loaded(Overflowing()))
    frames = [uniform(0, 20), uniform(1, 250), uniform(2, 30)]
    for _ in range(2):
        depths = engine.infer(frames)
    np.testing.assert_allclose(depths[1].values, exact.infer([frames[1]])[0].values, atol=1e-5)
    assert engine.counters["precision_fallbacks"] == 2
    assert engine.notes == ["tiny gave non-finite depth in bf16: such frames use fp32"]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_is_never_finite_is_an_error_that_names_the_frame(precision: str) -> None:
    engine = cpu(loaded(Overflowing(always=True)), precision=precision, batch=2)
    with pytest.raises(ModelError, match=r"tiny: the depth of sun\.jpg is not finite in fp32"):
        engine.infer([uniform(0, 20, "dark.jpg"), uniform(1, 250, "sun.jpg")])


class Greedy(Tiny):
    """Runs out of memory for more than `most` frames, `times` times."""

    def __init__(self, *, most: int = 1, times: int = 1000) -> None:
        super().__init__()
        self.most, self.times = most, times
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        self.seen.append(len(x))
        if len(x) > self.most and self.times > 0:
            self.times -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().forward(x)


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    network = Greedy(most=2)
    engine = cpu(loaded(network), batch=8)
    frames = [frame(i) for i in range(8)]
    for _ in range(2):
        for depth, wanted in zip(engine.infer(frames), cpu(batch=8).infer(frames), strict=True):
            np.testing.assert_allclose(depth.values, wanted.values, atol=1e-5)
    assert network.seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert engine.counters["batch_halvings"] == 2
    assert engine.notes == [f"cpu ran out of memory: batch reduced to {n}" for n in (4, 2)]


def test_a_batch_that_was_never_full_is_halved_from_its_own_size() -> None:
    network = Greedy(most=1)
    engine = cpu(loaded(network), batch=8)
    assert len(engine.infer([frame(0), frame(1)])) == 2
    assert network.seen == [2, 1, 1]
    assert engine.counters["batch_halvings"] == 1


def test_out_of_memory_once_is_tried_again() -> None:
    network = Greedy(times=1)
    engine = cpu(loaded(network), batch=2)
    assert len(engine.infer([frame(0), frame(1)])) == 2
    assert network.seen == [2, 1, 1]


def test_a_cpu_out_of_memory_is_distinguished_from_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Tiny()
    engine = cpu(loaded(network))
    monkeypatch.setattr(network, "forward", lambda _x: torch.empty(2**60))
    with pytest.raises(ModelError, match="one frame does not fit into the memory of cpu"):
        engine.infer([frame(0)])
    monkeypatch.setattr(network, "forward", lambda x: x.view(-1, 7))
    with pytest.raises(RuntimeError, match="shape"):
        engine.infer([frame(0)])


def test_one_frame_that_does_not_fit_is_an_error() -> None:
    engine = cpu(loaded(Greedy(most=0)), batch=2)
    with pytest.raises(ModelError, match="one frame does not fit into the memory of cpu; use a smaller --input-size"):
        engine.infer([frame(0), frame(1)])


class Watched(SerialExecutor):
    """Has two batches in flight and records the order of work, so that tests can check the rules for slots."""

    in_flight = 2

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.log: list[str] = []
        self.context = ""

    def device_buffer(self, host: Tensor) -> Tensor:
        return torch.empty_like(host)  # as on a GPU: not the host's memory

    @contextmanager
    def _in(self, context: str, after: Event | None) -> Iterator[None]:
        self.context = context
        self.log.append(f"{context} after {after}" if after else context)
        yield

    def uploading(self, after: Event | None):  # type: ignore[no-untyped-def]
        return self._in("upload", after)

    def computing(self, after: Event | None):  # type: ignore[no-untyped-def]
        return self._in("compute", after)

    def downloading(self, after: Event | None):  # type: ignore[no-untyped-def]
        return self._in("download", after)

    def event(self) -> Event:
        number = sum(line.startswith(f"{self.context} done") for line in self.log)
        event = WatchedEvent(self.log, f"{self.context} done {number}")
        self.log.append(event.name)
        return event


class WatchedEvent:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def __str__(self) -> str:
        return self.name

    def synchronize(self) -> None:
        self.log.append(f"host waits for {self.name}")


def test_the_order_of_work_on_a_device() -> None:
    executor = Watched()
    engine = cpu(executor=executor)
    assert engine.in_flight == 2
    frames = [frame(i) for i in range(3)]
    engine.submit(frames[:1])
    engine.submit(frames[1:2])
    assert engine.pending == 2
    results = engine.collect()
    engine.submit(frames[2:])
    results += engine.collect() + engine.collect()
    assert executor.log == [
        "upload", "upload done 0",
        "compute after upload done 0", "compute done 0",  # to network inputs: the slot's last reader
        "compute", "compute", "compute done 1",  # the network, and back to the picture's size
        "download after compute done 1", "download done 0",
        "upload", "upload done 1",
        "compute after upload done 1", "compute done 2",
        "compute", "compute", "compute done 3",
        "download after compute done 3", "download done 1",
        "host waits for download done 0",
        # Slot 0 again: its host buffer after its upload, its device buffer after whoever computed from it.
        "host waits for upload done 0",
        "upload after compute done 0", "upload done 2",
        "compute after upload done 2", "compute done 4",
        "compute", "compute", "compute done 5",
        "download after compute done 5", "download done 2",
        "host waits for download done 1",
        "host waits for download done 2",
    ]  # fmt: skip
    for picture, depth in results:
        np.testing.assert_array_equal(depth.values, cpu().infer([picture])[0].values)


def test_slots_grow_and_are_reused() -> None:
    executor = Watched()
    engine = cpu(executor=executor)
    wanted = cpu()
    for index, size in enumerate([(32, 24), (64, 48), (32, 24), (128, 96), (16, 12), (64, 48)]):
        picture = frame(index, *size)
        np.testing.assert_array_equal(engine.infer([picture])[0].values, wanted.infer([picture])[0].values)


def test_on_the_cpu_uploading_costs_nothing() -> None:
    executor = SerialExecutor(torch.device("cpu"))
    host = executor.host_buffer(8)
    assert executor.device_buffer(host).data_ptr() == host.data_ptr()


def test_closing_ends_threads_and_can_be_repeated() -> None:
    engine = cpu()
    engine.submit([frame(0)])
    engine.close()
    engine.close()
    assert engine.pending == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("depthstream-")]


def test_engines_share_the_thread_that_runs_networks() -> None:
    seen: list[tuple[str, int]] = []

    class Seeing(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((threading.current_thread().name, torch.get_num_threads()))
            return super().forward(x)

    before = torch.get_num_threads()
    first, second = cpu(loaded(Seeing()), threads=2), cpu(loaded(Seeing()), threads=1)
    for engine in (first, second, first):
        engine.infer([frame(0)])
    first.close()
    second.infer([frame(1)])  # works without the other engine
    second.close()
    assert seen == [("depthstream-compute_0", threads) for threads in (2, 1, 2, 1)]
    assert torch.get_num_threads() == before  # of the calling thread


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_cuda_agrees_with_the_cpu(starter: LoadedModel, precision: str) -> None:
    frames = [frame(i, 640, 480) for i in range(8)]
    wanted = cpu(starter, batch=4).infer(frames)
    engine = Engine(starter, device="cuda", precision=precision, batch=4)
    assert engine.in_flight == 2
    engine.submit(frames[:4])
    engine.submit(frames[4:])
    for (_, depth), reference in zip(engine.collect() + engine.collect(), wanted, strict=True):
        error = np.abs(depth.values - reference.values) / reference.values.std()
        assert (error.max() if precision == "fp32" else np.sqrt(np.square(error).mean())) <= TOLERANCE[precision]


@pytest.mark.cuda
@needs_cuda
def test_cuda_keeps_batches_apart(starter: LoadedModel) -> None:
    engine, reference = (
        Engine(starter, device="cuda", precision="fp32"),
        Engine(starter, device="cuda", precision="fp32"),
    )
    frames = [frame(i, 320 + 64 * (i % 3), 240) for i in range(40)]
    got: list[tuple[Frame, np.ndarray]] = []
    for picture in frames:
        if engine.pending == engine.in_flight:
            got += [(f, d.values) for f, d in engine.collect()]
        engine.submit([picture])
    while engine.pending:
        got += [(f, d.values) for f, d in engine.collect()]
    assert [f.index for f, _ in got] == list(range(40))
    for picture, values in got:
        np.testing.assert_allclose(values, reference.infer([picture])[0].values, atol=1e-3)


@pytest.mark.cuda
@needs_cuda
def test_cuda_out_of_memory_is_survived() -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(MAY_TAKE)
    try:
        engine = Engine(loaded(Hungry()), device="cuda", precision="fp32", batch=4)
        assert len(engine.infer([frame(i) for i in range(4)])) == 4
        assert engine.batch < 4
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


MAY_TAKE = 0.1
"""Of the device's memory; other tests may run on it at the same time."""


class Hungry(nn.Module):
    """Allocates 40 % of what it may take for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.tiny = Tiny()

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        total = torch.cuda.get_device_properties(x.device).total_memory
        _ballast = torch.empty(len(x) * int(total * MAY_TAKE * 0.4), dtype=torch.uint8, device=x.device)
        y: Tensor = self.tiny(x)
        return y


def test_the_spec_is_that_of_the_model() -> None:
    assert cpu().spec is SPEC or cpu().spec == SPEC
