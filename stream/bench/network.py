"""Speed of the network alone: a batch of its inputs, without the resizing before and after.

Invariant: a combination that is not possible on this machine gives a result that says why; none is omitted.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from stream.bench.timing import Timing, timed
from stream.config import defaults
from stream.errors import StreamError
from stream.frames import Frame
from stream.infer.backends.cache import ModelCache
from stream.infer.engine import Engine
from stream.models.registry import LoadedModel


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """Speed of one combination.

    Attributes:
        size: of the network's input, "width×height".
        input_size: the inference size that was asked for; None for the model's own.
        timing: of one batch; None if the combination is not possible.
        fps: images per second.
        rms: root mean square difference from the first combination's depth (torch in fp32), in standard deviations;
            None for that combination itself.
        prepare_s: time before the first batch could start: placing or exporting the network, or loading an export.
        note: why the combination is not possible.
    """

    model: str
    backend: str
    precision: str
    size: str
    batch: int
    threads: int
    input_size: int | None = None
    timing: Timing | None = None
    fps: float | None = None
    rms: float | None = None
    prepare_s: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable values."""
        return asdict(self)


def measure(
    model: LoadedModel,
    frames: Sequence[Frame],
    *,
    device: str,
    backends: Sequence[str],
    precisions: Sequence[str],
    input_sizes: Sequence[int | None],
    batches: Sequence[int],
    threads: int | None,
    on_result: Callable[[NetworkResult], None],
    cache: ModelCache | None = None,
    provider: str = defaults().inference.provider,
) -> list[NetworkResult]:
    """Measure every combination, torch in fp32 first.

    Args:
        frames: at least one; depth is compared on the first, and int8 is calibrated on all.
        provider: of ONNX Runtime, see `backends.onnx`.
        on_result: called with each result as soon as it is measured.
    """
    results = []
    for input_size in input_sizes:
        exact: np.ndarray[Any, np.dtype[np.float32]] | None = None
        for backend, precision, batch in product(backends, precisions, batches):
            base = {
                "model": model.spec.name, "backend": backend, "precision": precision, "batch": batch,
                "input_size": input_size,
            }  # fmt: skip
            try:
                result, depth = _measured(
                    model, frames, base, device=device, input_size=input_size, threads=threads, cache=cache,
                    exact=exact, provider=provider,
                )  # fmt: skip
            except StreamError as error:
                result = NetworkResult(**base, size="", threads=threads or 0, note=str(error))  # type: ignore[arg-type]
            else:
                exact = depth if exact is None else exact
            on_result(result)
            results.append(result)
    return results


def _measured(
    model: LoadedModel,
    frames: Sequence[Frame],
    base: dict[str, Any],
    *,
    device: str,
    input_size: int | None,
    threads: int | None,
    cache: ModelCache | None,
    provider: str,
    exact: np.ndarray[Any, np.dtype[np.float32]] | None,
) -> tuple[NetworkResult, np.ndarray[Any, np.dtype[np.float32]]]:
    started = time.perf_counter()
    engine = Engine(
        model, device=device, precision=base["precision"], backend=base["backend"], batch=base["batch"],
        input_size=input_size, threads=threads, calibration=lambda: frames, cache=cache, provider=provider,
    )  # fmt: skip
    try:
        engine.prepare(frames[0].size)
        prepare_s = time.perf_counter() - started
        values = engine.infer(frames[:1])[0].values
        height, width = engine.plan(frames[0].size)
        x = engine.network_input(frames[0], count=base["batch"])
        timing = timed(lambda: engine.run_network(x))
        rms = None
        if exact is not None:
            rms = float(np.sqrt(np.nanmean(np.square(values - exact))) / np.nanstd(exact))  # NaN: no answer
        backend = engine.backend
        result = NetworkResult(
            **{**base, "backend": backend}, size=f"{width}×{height}", threads=engine.threads, timing=timing,
            fps=base["batch"] / timing.median_s, rms=rms, prepare_s=prepare_s,
            note="; ".join(note for note in engine.notes if "needs a" in note),
        )  # fmt: skip
        return result, values
    finally:
        engine.close()
