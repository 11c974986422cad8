"""The pipeline on a video: how fast it is, and what limits it.

Invariant: parts and whole are measured on the same clip with the same engine settings.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stream.bench.timing import Timing, timed
from stream.channel import Channel, Closed
from stream.config import Config
from stream.frames import Depth, Frame, Result
from stream.infer.batcher import EngineInference
from stream.infer.engine import Engine
from stream.jobs.build import build_renderer, build_sinks
from stream.jobs.plan import plan_outputs
from stream.jobs.source import open_config_source
from stream.models.registry import LoadedModel
from stream.pipeline.runner import QUEUE, Pipeline

_SAMPLES = 12


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The pipeline, measured.

    Attributes:
        fps: results a second, from the first to the last one.
        bare: one frame of the network alone.
        model_cpu_s: of a frame: resizing to the network's input, the network, resizing back.
        other_cpu_s: of a frame: decoding, colour, encoding.
        cores: that this process may use.
        limit_fps: no pipeline can be faster: the smaller of the bare model's rate and `cores` ÷ all CPU seconds.
        efficiency: `fps` ÷ `limit_fps`.
        stages: seconds busy and waiting.
    """

    model: str
    backend: str
    precision: str
    size: str
    frames: int
    threads: int
    encoder: str
    fps: float
    bare: Timing
    model_cpu_s: float
    other_cpu_s: float
    cores: int
    limit_fps: float
    efficiency: float
    stages: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


class _Ready:
    """An inference stage that computes nothing: depth maps made before, in turn."""

    def __init__(self, depths: list[Depth]) -> None:
        self._depths = depths

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:  # noqa: ARG002
        """See `stages.Inference`."""
        while True:
            try:
                frame = frames.get()
            except Closed:
                return
            yield frame, replace(self._depths[frame.index % len(self._depths)], index=frame.index)

    def close(self) -> None:
        """Nothing to release."""


def measure(
    model: LoadedModel,
    clip: Path,
    folder: Path,
    *,
    make_engine: Callable[[LoadedModel], Engine],
    layout: str,
    batch: int,
    frames: int,
) -> Whole:
    """Run the pipeline on `clip`, its parts by themselves, and the bare model."""
    config = Config.model_validate(
        {
            "source": str(clip),
            "capture": {"max_frames": frames},
            "render": {"layout": layout},
            "output": {"path": folder / "out.mp4", "overwrite": True},
        }
    )
    engine = make_engine(model)
    samples = _first_frames(config, _SAMPLES)
    engine.prepare(samples[0].size)
    x = engine.network_input(samples[0], count=batch)
    bare = timed(lambda: engine.run_network(x))
    depths, model_cpu_s = _with_cpu(lambda: [engine.infer([frame])[0] for frame in samples])
    _, other_cpu_s = _with_cpu(lambda: pipeline_of(config, _Ready(depths)).run())
    pipeline = pipeline_of(config, EngineInference(engine, batch=batch, stills=False))
    backend, precision, threads = engine.backend, engine.precision, engine.threads
    pipeline.run()

    count = pipeline.metrics.written
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    model_cpu_s, other_cpu_s = model_cpu_s / len(samples), other_cpu_s / count
    limit_fps = min(batch / bare.median_s, cores / (model_cpu_s + other_cpu_s))
    fps = pipeline.metrics.rates["output"]
    stages = {**pipeline.stages.times(), "output": pipeline.output_time}
    height, width = samples[0].size
    return Whole(
        model=model.spec.name,
        backend=backend,
        precision=precision,
        size=f"{width}×{height}",
        frames=count,
        threads=threads,
        encoder="libx264 veryfast",
        fps=fps,
        bare=bare,
        model_cpu_s=model_cpu_s,
        other_cpu_s=other_cpu_s,
        cores=cores,
        limit_fps=limit_fps,
        efficiency=fps / limit_fps,
        stages={name: asdict(stage) for name, stage in stages.items()},
    )


def _first_frames(config: Config, count: int) -> list[Frame]:
    source = open_config_source(config)
    try:
        return [frame for frame, _ in zip(source, range(count), strict=False)]
    finally:
        source.close()


def pipeline_of(config: Config, inference: Any, *, queue: int = QUEUE) -> Pipeline:
    """What a run of `config` consists of, with this in the place of its model."""
    from stream.frames import DepthKind

    source = open_config_source(config)
    plan = plan_outputs(config, source.info)
    renderer = build_renderer(config, plan, DepthKind.RELATIVE_DISPARITY)
    return Pipeline(source, inference, renderer, build_sinks(config, plan), queue=queue)


def _with_cpu(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and the CPU seconds of the whole process that it took."""
    before = time.process_time()
    result = work()
    return result, time.process_time() - before
