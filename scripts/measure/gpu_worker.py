"""Measures the rows of one step of `gpu.py`, which starts it: `gpu_worker.py DEVICE CLIPS`.

Reads the step and the keys of its finished rows as a JSON line from standard input. Writes JSON lines to standard
output: `machine` first, `begin` with its key before each row that is computed alone, and each row; all that libraries
print goes to standard error.
Invariant: what this machine lacks is a row with an `error`.
"""

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import gpu_trace
import numpy as np
import parity
import pytest
import torch

from stream.bench import baseline, network, pipeline, report
from stream.bench.clip import write_clip
from stream.bench.suite import parse_size
from stream.bench.synthetic_weights import with_synthetic_weights
from stream.bench.timing import timed
from stream.capture.video import hwaccel
from stream.capture.video.file import VideoSource
from stream.config import Config
from stream.errors import StreamError
from stream.frames import Depth, DepthKind, Frame
from stream.infer.device import hardware_id
from stream.infer.engine import Engine
from stream.infer.temporal import Stepper
from stream.jobs.build import build_sinks
from stream.jobs.plan import plan_outputs
from stream.models import registry
from stream.models.registry import LoadedModel

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]
Unit = tuple[str, Callable[[], Row]]

SMALL = "640x480"
CLIP_FRAMES = {SMALL: 300, "1920x1080": 90, "3840x2160": 30}
"""Frames of the clips; making one of 4K takes half a second a frame."""
MODELS = ("depth_anything_v2_vits", "starter", "midas_v21_small_256", "video_depth_anything_vits",
          "depth_anything_v2_vitb", "dpt_swin2_large_384", "depth_anything_v2_vitl")  # fmt: skip
BATCHES = (1, 4, 8)
FAILURES = (StreamError, RuntimeError, OSError, ValueError, ImportError, torch.OutOfMemoryError)


class Bench:
    """Rows of speed on one device."""

    def __init__(self, device: str, clips: Path) -> None:
        self.device, self._clips = device, clips
        self.half = "fp16" if torch.device(device).type != "cpu" else "fp32"

    def clip(self, size: str, codec: str = "libx264") -> Path:
        """The generated clip of a size; made once."""
        path = self._clips / f"{size}-{codec}.mp4"
        if not path.exists():
            self._clips.mkdir(parents=True, exist_ok=True)
            partial_path = path.with_suffix(".partial.mp4")
            write_clip(partial_path, parse_size(size), CLIP_FRAMES[size], codec=codec)
            partial_path.replace(path)
        return path

    def network(self, model: str, backend: str, precision: str, batch: int, provider: str = "auto") -> Row:
        """The network alone; see `stream.bench.network`."""
        frames = [noise(parse_size(SMALL), index) for index in range(2)]
        (result,) = network.measure(
            loaded(model), frames, device=self.device, backends=[backend], precisions=[precision], input_sizes=[None],
            batches=[batch], threads=None, on_result=lambda _: None, provider=provider,
        )  # fmt: skip
        row = result.to_dict()
        return row if result.fps is not None else {**row, "error": result.note}

    def launches(self, model: str, precision: str, batch: int) -> Row:
        """The network alone, its kernels launched one by one: what CUDA graphs save."""
        engine = self._engine(model, precision, batch)
        try:
            x, network = engine.network_input(noise(parse_size(SMALL), 0), count=batch), engine.eager().network

            def launched() -> None:
                with torch.inference_mode(), engine.executor.computing(None):
                    network(x)
                    engine.executor.event().synchronize()

            timing = timed(launched)
            return {"batch": batch, "fps": batch / timing.median_s, "timing": vars(timing)}
        finally:
            engine.close()

    def pipeline(self, model: str, size: str, precision: str, batch: int = 1, temporal: str | None = None) -> Row:
        """The whole pipeline; see `stream.bench.pipeline`."""
        with tempfile.TemporaryDirectory() as folder:
            return pipeline.measure(
                loaded(model), self.clip(size), Path(folder), batch=batch, frames=CLIP_FRAMES[size], layout="depth",
                temporal=temporal, make_engine=lambda _: self._engine(model, precision, batch),
            ).to_dict()  # fmt: skip

    def plain(self, model: str, size: str) -> Row:
        """The loop of the models' own scripts, in fp32; see `stream.bench.baseline`."""
        model_as_trained = with_synthetic_weights(registry.find(model), merge_norms=False)
        with tempfile.TemporaryDirectory() as folder:
            return baseline.measure(
                model_as_trained, self.clip(size), Path(folder), frames=min(60, CLIP_FRAMES[size] - 1), layout="depth",
                threads=torch.get_num_threads(), device=torch.device(self.device),
            ).to_dict()  # fmt: skip

    def steps(self, model: str, precision: str) -> Row:
        """A video model frame after frame, with all that it may know of earlier ones, resizing and copies included."""
        engine = self._engine(model, precision, 1)
        try:
            stepper, frames = Stepper(engine, is_live=False), [noise((480, 640), index) for index in range(200)]
            following = iter(frames)
            for frame in (next(following) for _ in range(45)):
                stepper.infer(frame)
            timing = timed(lambda: stepper.infer(next(following)), max_runs=100)
            return {"batch": 1, "fps": 1 / timing.median_s, "timing": vars(timing), "size": SMALL}
        finally:
            engine.close()

    def overlap(self, model: str, size: str, precision: str, frames: int = 24) -> Row:
        """How much of the copying is hidden by computation; see `gpu_trace`."""
        engine = self._engine(model, precision, 1)
        try:
            pictures = [noise(parse_size(size), index) for index in range(frames)]
            engine.infer(pictures[:1])
            return {"frames": frames, **gpu_trace.measure(lambda: run_through(engine, pictures))}
        finally:
            engine.close()

    def decode(self, size: str, codec: str, decoder: str) -> Row:
        """Decoding a clip to RGB in host memory."""
        clip = self.clip(size, codec)
        hwaccel.check(decoder)
        source = VideoSource(clip, decoder=decoder)
        try:
            started, times = time.perf_counter(), [time.perf_counter() for _ in source]
        finally:
            source.close()
        return {"frames": len(times), "fps": len(times) / (times[-1] - started)}

    def encode(self, size: str, codec: str) -> Row:
        """Encoding the frames of a clip from RGB in host memory."""
        clip = self.clip(size)
        source = VideoSource(clip)
        frames = [frame for frame, _ in zip(source, range(30), strict=False)]
        source.close()
        with tempfile.TemporaryDirectory() as folder:
            config = Config.model_validate(
                {"source": str(clip), "output": {"path": Path(folder) / "out.mp4", "codec": codec}}
            )
            (sink,) = build_sinks(config, plan_outputs(config, source.info))
            started = time.perf_counter()
            sink.open(source.info, source.info.size)
            depth = Depth(values=np.zeros(source.info.size, np.float32), kind=DepthKind.METRIC_DEPTH, index=0)
            for frame in frames:
                sink.write(frame, depth, frame.rgb)
            sink.finish()
            return {"frames": len(frames), "fps": len(frames) / (time.perf_counter() - started)}

    def _engine(self, model: str, precision: str, batch: int) -> Engine:
        return Engine(loaded(model), device=self.device, precision=precision, batch=batch)


@lru_cache(maxsize=1)
def loaded(name: str) -> LoadedModel:
    """A model with its own weights if it is built in, else with synthetic ones."""
    spec = registry.find(name)
    return registry.load(name) if spec.weights.packaged else with_synthetic_weights(spec)


def noise(size_hw: tuple[int, int], index: int) -> Frame:
    """A frame that differs from the others."""
    block = np.random.default_rng(index % 4).integers(0, 256, (60, 80, 3), np.uint8)
    rgb = np.tile(block, (size_hw[0] // 60 + 1, size_hw[1] // 80 + 1, 1))[: size_hw[0], : size_hw[1]]
    return Frame(index=index, pts=index, time_base=Fraction(1, 30), captured_at=0.0, rgb=np.ascontiguousarray(rgb))


def run_through(engine: Engine, frames: Sequence[Frame]) -> None:
    """Compute frames with as many in flight as the engine allows."""
    for frame in frames:
        if engine.pending == engine.in_flight:
            engine.collect()
        engine.submit([frame])
    while engine.pending:
        engine.collect()


def first(bench: Bench) -> Iterator[Unit]:
    """The speeds that matter most."""
    half, small, video = bench.half, MODELS[0], "video_depth_anything_vits"
    yield f"{video} torch {half} frame after frame", partial(bench.steps, video, half)
    for mode in ("stream", "window"):
        key = f"{video} torch {half} pipeline {SMALL} {mode}"
        yield key, partial(bench.pipeline, video, SMALL, half, temporal=mode)
    for batch in BATCHES:
        yield f"{small} torch {half} network ×{batch}", partial(bench.network, small, "torch", half, batch)
    for name in (small, "starter"):
        yield f"{name} launches {half} network ×1", partial(bench.launches, name, half, 1)
        yield f"{name} torch {half} pipeline {SMALL} ×1", partial(bench.pipeline, name, SMALL, half)
    yield f"{small} plain fp32 pipeline {SMALL}", partial(bench.plain, small, SMALL)


def everything(bench: Bench) -> Iterator[Unit]:
    """All speeds: what takes seconds before what takes minutes to prepare."""
    half = bench.half
    for batch in BATCHES:
        for name in MODELS:
            yield f"{name} torch {half} network ×{batch}", partial(bench.network, name, "torch", half, batch)
        for size, name in product(CLIP_FRAMES, MODELS):
            yield f"{name} torch {half} pipeline {size} ×{batch}", partial(bench.pipeline, name, size, half, batch)
    for size, name in product(CLIP_FRAMES, MODELS):
        yield f"{name} plain fp32 pipeline {size}", partial(bench.plain, name, size)
    for name, batch in product(MODELS, BATCHES):
        yield f"{name} torch fp32 network ×{batch}", partial(bench.network, name, "torch", "fp32", batch)
        yield f"{name} launches {half} network ×{batch}", partial(bench.launches, name, half, batch)
    for name, provider, batch in product(MODELS, ("cuda", "tensorrt"), BATCHES):
        key = f"{name} onnx-{provider} {half} network ×{batch}"
        yield key, partial(bench.network, name, "onnx", half, batch, provider)
    for name, batch in product(MODELS, BATCHES):
        yield f"{name} compile {half} network ×{batch}", partial(bench.network, name, "compile", half, batch)


def traces(bench: Bench) -> Iterator[Unit]:
    """Copies under computation."""
    half = bench.half
    for name, size in product((MODELS[0], "starter"), ("3840x2160", "1920x1080", SMALL)):
        yield f"{name} {half} {size}", partial(bench.overlap, name, size, half)


def codecs(bench: Bench) -> Iterator[Unit]:
    """Decoders and encoders, each on the GPU and on the CPU."""
    for size, codec, decoder in product(CLIP_FRAMES, ("libx264", "libx265"), ("cuda", hwaccel.OFF)):
        yield f"decode {codec[3:]} {size} {decoder}", partial(bench.decode, size, codec, decoder)
    for size, codec in product(CLIP_FRAMES, ("h264_nvenc", "hevc_nvenc", "av1_nvenc", "libx264", "libx265")):
        yield f"encode {size} {codec}", partial(bench.encode, size, codec)


def accuracy(device: str, *, is_all: bool) -> Iterator[Unit]:
    """Errors against the official code; the smallest model of each architecture, or all others."""
    specs = {path: registry.find(parity.reference(path)["model"]) for path in parity.PATHS}
    by_size = sorted(specs, key=lambda path: (specs[path].parameters_m, path.stem))
    smallest = {specs[path].architecture: path for path in reversed(by_size)}.values()
    for path in by_size:
        if (path in smallest) is not is_all:
            precisions = [name for name in ("fp32", "fp16", "bf16") if name in specs[path].precisions]
            if torch.device(device).type == "cpu":
                precisions.remove("fp16")
            yield path.stem, partial(errors, path, device, precisions)


def errors(path: Path, device: str, precisions: Sequence[str]) -> Row:
    """The largest error of all cases of a reference, in standard deviations, by precision."""
    found = parity.errors(path, device=device, precisions=precisions)
    return {"cases": len(found["fp32"]), **{name: float(np.max(values)) for name, values in found.items()}}


class Recorder:
    """Sends the outcome of each test that pytest runs."""

    def __init__(self, send: Callable[[Row], None]) -> None:
        self._send = send

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest for each phase of a test; a test that fails in its setup or is skipped has no other."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            row: Row = {"key": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
            if report.failed:
                row["error"] = str(report.longrepr)[-2000:]
            self._send(row)


def cuda_files() -> list[str]:
    """The files that hold tests marked `cuda`, so that pytest need not import all others."""
    found = (path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in path.read_text())
    return [str(path) for path in found]


def run_tests(paths: Sequence[str], marks: str, done: Sequence[str], send: Callable[[Row], None], *more: str) -> None:
    """Run the tests that are not done."""
    count = min(6, (os.cpu_count() or 1) // 2)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*paths, "-m", marks, "-n", str(count if count > 1 else 0), "--dist", "load", "-q", *more]
        arguments += ["-p", "no:cacheprovider", "--basetemp", f"{folder}/pytest", "--timeout", "150"]
        arguments += ["-p", "no:benchmark"]  # where that is installed, it refuses to run beside xdist
        arguments += [part for key in done for part in ("--deselect", key)]
        code = pytest.main(arguments, plugins=[Recorder(send)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"pytest ended with {code}")


def run_units(units: Iterable[Unit], done: Sequence[str], send: Callable[[Row], None]) -> None:
    """Compute the rows that are not done, one after the other."""
    for key, compute in units:
        if key in done:
            continue
        send({"begin": key})
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        try:
            row = compute()
        except FAILURES as error:
            traceback.print_exc()
            row = {"error": (str(error).strip().splitlines() or [type(error).__name__])[0]}
        row |= {"key": key, "seconds": round(time.perf_counter() - started, 2)}
        if torch.cuda.is_available():
            row["peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
        send(row)


def machine(device: torch.device) -> Row:
    """The card, and what computes with it."""
    facts: Row = {"card": hardware_id(device), **report.machine(), "versions": report.versions()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"memory_gb": round(properties.total_memory / 1e9, 1), "cuda": torch.version.cuda,
                  "cudnn": torch.backends.cudnn.version()}  # fmt: skip
    return facts


def main() -> None:
    """Run a step."""
    device, clips = sys.argv[1], Path(sys.argv[2])
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    step, done = asked["step"], asked["done"]
    facts = machine(torch.device(device))

    def send(message: Row) -> None:
        on = {} if "begin" in message or "machine" in message else {"card": facts["card"]}
        print(json.dumps({**message, **on}), file=channel)

    send({"machine": facts})
    bench = Bench(device, clips)
    if step.startswith("tests"):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        which = "(slow or release)" if step == "tests-large" else "not slow and not release"
        run_tests(cuda_files(), f"cuda and {which}", done, send)
        return
    units = {
        "parity": lambda: accuracy(device, is_all=False), "parity-all": lambda: accuracy(device, is_all=True),
        "first": lambda: first(bench), "overlap": lambda: traces(bench), "bench": lambda: everything(bench),
        "codecs": lambda: codecs(bench),
    }  # fmt: skip
    run_units(units[step](), done, send)


if __name__ == "__main__":
    main()
