"""From a config to loaded models, ready to run.

Invariant: a returned engine is ready to use; the caller closes it.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import Source
from stream.config import Config
from stream.errors import ConfigError, UsageError
from stream.frames import DepthKind, Frame, SourceInfo, SourceKind
from stream.infer.batcher import EngineInference
from stream.jobs.plan import OutputPlan
from stream.machine import free_memory_bytes
from stream.notes import note
from stream.pipeline.memory import ceiling_bytes

if TYPE_CHECKING:
    from stream.infer.engine import Engine
    from stream.models.spec import ModelSpec
    from stream.models.weights.fetch import OnTransfer


def engine_inference(config: Config, source: Source, engine: "Engine") -> EngineInference:
    """The inference stage for one engine: live sources take batches of 1, stills are grouped by shape."""
    batch = 1 if source.info.is_live else config.inference.batch
    return EngineInference(engine, batch=batch, stills=source.info.kind is SourceKind.STILLS)


def find_weights(config: Config, *, on_download: "OnTransfer | None" = None) -> None:
    """Make sure that the model's weights are on this machine; download them if they are not.

    Raises:
        StreamError: they cannot be found or downloaded.
    """
    from stream.models import registry

    model = config.model
    registry.files(
        registry.find(model.name or registry.DEFAULT),
        weights=model.weights,
        weights_dir=model.weights_dir,
        offline=model.offline,
        commercial_only=model.commercial_only,
        on_progress=on_download,
    )


def preload(config: Config) -> None:
    """Start the slow imports of the models that `config` names, in the background; a named export may not need them."""
    from stream.models import registry

    if config.inference.backend in ("auto", "torch"):
        for text in (config.model.name or registry.DEFAULT, *config.model.also):
            with suppress(UsageError):  # an unknown name is reported when the model is loaded
                registry.preload(registry.find(text.partition("=")[0]))


def load_engine(
    config: Config,
    *,
    exact: bool = False,
    on_download: "OnTransfer | None" = None,
) -> "Engine":
    """Load the model that `config` names, ready to run.

    Args:
        exact: see `infer.device.resolve_precision`.
        on_download: called with the progress of a download of the weights.

    Raises:
        StreamError: the weights are missing or damaged, or the options do not suit the model.
    """
    from stream.infer.engine import Engine
    from stream.infer.executor import without_pool
    from stream.models import registry

    spec, asked = registry.find(config.model.name or registry.DEFAULT), config.inference
    runtime, backend = registry.runtime_of(spec), asked.backend
    if runtime != "torch" and backend not in ("auto", runtime):
        raise UsageError(
            f"{spec.name} only runs in {runtime}", where=f"--backend {backend}", allowed=f"auto, {runtime}"
        )
    if backend == "auto" and asked.precision == "int8":
        backend = "openvino"
    if backend not in ("auto", "torch") and asked.target_fps is not None:
        hint = "--target-fps changes the inference size; only torch can follow that quickly"
        raise UsageError("cannot be combined with --target-fps", where=f"--backend {backend}", hint=hint)
    with without_pool():
        model = registry.load(
            spec,
            weights=config.model.weights,
            weights_dir=config.model.weights_dir,
            offline=config.model.offline,
            commercial_only=config.model.commercial_only,
            on_progress=on_download,
            # An exported network may be in the cache; then torch's own need not be built at all.
            build_now=backend in ("auto", "torch") or runtime != "torch",
        )
    if backend == "auto" or runtime != "torch":
        backend = "torch"
    return Engine(
        model,
        device=asked.device,
        precision=asked.precision,
        exact=exact,
        backend=backend,
        provider=asked.provider,
        calibration=lambda: _calibration(config),
        batch=asked.batch,
        input_size=config.model.input_size,
        square=config.model.square,
        threads=asked.threads,
    )


def _calibration(config: Config) -> Sequence[Frame]:
    from stream.infer.backends.int8 import CALIBRATION_IMAGES
    from stream.jobs.source import sample

    return sample(config, CALIBRATION_IMAGES)


def prepare(config: Config, engine: "Engine", info: SourceInfo) -> None:
    """Get the backend ready. `--backend auto` picks the fastest one on this machine if the job is long enough for a
    benchmark, see `infer.backends.choose`."""
    asked, most = config.inference, config.capture.max_frames or math.inf
    is_free = asked.backend == "auto" and asked.precision != "int8" and asked.target_fps is None
    if is_free and engine.may_change:
        frames = math.inf if info.is_live or info.frame_count is None else min(most, info.frame_count)
        engine.use_fastest(info.size, frames=frames, may_measure=not info.is_live)
    if engine.backend != "torch" and engine.may_change:
        note(f"{engine.spec.name} runs in {engine.backend}; converting it takes a while the first time")
    engine.prepare(info.size)


def warn_of_memory(
    config: Config,
    info: SourceInfo,
    engine: "Engine",
    out_size: tuple[int, int],
    queue: int,
) -> None:
    """Warn if the frames of a run may need more memory than is free."""
    batch = 1 if info.is_live else config.inference.batch
    queue = 1 if info.is_live else queue
    ceiling = ceiling_bytes(info.size, out_size, batch=batch, in_flight=engine.in_flight, queue=queue)
    free = free_memory_bytes()
    if free is not None and ceiling > free:
        hint = "try a smaller --batch" if batch > 1 else "close other programs"
        note(f"buffered frames may need {ceiling / 1e9:.1f} GB but only {free / 1e9:.1f} GB is free; {hint}")


def model_configs(config: Config, outputs: OutputPlan) -> list[Config]:
    """One config for each model to load.

    Raises:
        UsageError: --target-fps or several models do not suit the source and the outputs.
    """
    also, adaptive = config.model.also, config.inference.target_fps is not None
    if adaptive and not outputs.info.is_live:
        raise UsageError("only applies to live sources", where="--target-fps", hint="for a file, set --input-size")
    if adaptive and config.model.input_size is not None:
        raise UsageError("chooses the inference size itself", where="--target-fps", hint="remove --input-size")
    if also and not outputs.preview and config.output.serve is None and not adaptive:
        hint = "`depthstream compare` puts them side by side"
        raise UsageError(
            "several models only make sense in a preview, which switches between them", where="-m", hint=hint
        )
    names = [config.model.name or "", *(text.partition("=")[0] for text in also)]
    if len(set(names)) < len(names):
        raise UsageError("the same model is named twice", where="-m")
    configs = [config]
    for text in also:
        name, _, file = text.partition("=")
        model = config.model.model_copy(update={"name": name, "weights": Path(file) if file else None})
        configs.append(config.model_copy(update={"model": model}))
    return configs


def common_kind(config: Config, specs: Sequence["ModelSpec"]) -> DepthKind:
    """What the first model's values mean.

    Raises:
        ConfigError: a fixed range would mean metres for one model and disparity for another.
    """
    kinds = list(dict.fromkeys(spec.output for spec in specs))
    if len(kinds) > 1 and ":" in (config.render.range or ""):
        raise ConfigError("means metres for one model and disparity for another", where="--range", allowed="frame, ema")
    return kinds[0]
