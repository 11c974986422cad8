"""The model alone: what a network takes for a batch of its own inputs, without resizing before and after.

Invariant: a combination that is not possible here is a row that says why, never one that is missing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from stream.bench.timing import Timing, timed
from stream.errors import StreamError
from stream.frames import Frame
from stream.infer.backends.cache import ModelCache
from stream.infer.engine import Engine
from stream.models.registry import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Row:
    """One combination.

    Attributes:
        size: of the network's input, "width×height".
        timing: of one batch, None where it was not possible.
        fps: pictures a second.
        rms: difference of the depth from torch's in fp32, root mean square, in standard deviations; None for that.
        prepare_s: until the first batch could start: placing or exporting, or finding an earlier export.
        note: why it was not possible.
    """

    model: str
    backend: str
    precision: str
    size: str
    batch: int
    threads: int
    timing: Timing | None = None
    fps: float | None = None
    rms: float | None = None
    prepare_s: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def rows(
    model: LoadedModel,
    frames: Sequence[Frame],
    *,
    device: str,
    backends: Sequence[str],
    precisions: Sequence[str],
    input_sizes: Sequence[int | None],
    batches: Sequence[int],
    threads: int | None,
    on_row: Callable[[Row], None],
    cache: ModelCache | None = None,
) -> list[Row]:
    """Measure every combination, torch in fp32 first.

    Args:
        frames: at least one; of these the depth is compared, and int8 is calibrated on them.
        on_row: told of each as it is done.
    """
    done = []
    for input_size in input_sizes:
        exact: np.ndarray[Any, np.dtype[np.float32]] | None = None
        for backend, precision, batch in product(backends, precisions, batches):
            base = {"model": model.spec.name, "backend": backend, "precision": precision, "batch": batch}
            try:
                row, depth = _measured(
                    model, frames, base, device=device, input_size=input_size, threads=threads, cache=cache, exact=exact
                )
            except StreamError as error:
                row = Row(**base, size="", threads=threads or 0, note=str(error))  # type: ignore[arg-type]
            else:
                exact = depth if exact is None else exact
            on_row(row)
            done.append(row)
    return done


def _measured(
    model: LoadedModel,
    frames: Sequence[Frame],
    base: dict[str, Any],
    *,
    device: str,
    input_size: int | None,
    threads: int | None,
    cache: ModelCache | None,
    exact: np.ndarray[Any, np.dtype[np.float32]] | None,
) -> tuple[Row, np.ndarray[Any, np.dtype[np.float32]]]:
    started = time.perf_counter()
    engine = Engine(
        model, device=device, precision=base["precision"], backend=base["backend"], batch=base["batch"],
        input_size=input_size, threads=threads, calibration=lambda: frames, cache=cache,
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
            rms = float(np.sqrt(np.square(values - exact).mean()) / exact.std())
        backend = engine.backend
        row = Row(
            **{**base, "backend": backend}, size=f"{width}×{height}", threads=engine.threads, timing=timing,
            fps=base["batch"] / timing.median_s, rms=rms, prepare_s=prepare_s,
            note="; ".join(note for note in engine.notes if "needs a" in note),
        )  # fmt: skip
        return row, values
    finally:
        engine.close()
