"""From a config to loaded models, ready to run.

Invariant: a returned engine is ready to use; the caller closes it.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import Source
from stream.capture.limits import Limits
from stream.config import Config, defaults
from stream.errors import ConfigError, SourceError, UsageError
from stream.files import expanded
from stream.frames import DepthKind, Frame, SourceInfo, SourceKind
from stream.infer.base import Inference
from stream.infer.batcher import LOOKAHEAD_BATCHES, EngineInference
from stream.jobs.plan import OutputPlan
from stream.machine import free_memory_bytes
from stream.motion.align import MOST_SCALE
from stream.notes import note
from stream.pipeline.memory import ceiling_bytes, least_bytes, staged_bytes, stills_ceiling_bytes

if TYPE_CHECKING:
    from stream.capture.memory import Images
    from stream.infer.engine import Engine
    from stream.models.registry import LoadedModel
    from stream.models.spec import ModelSpec
    from stream.models.weights.fetch import OnTransfer


TEMPORAL_WINDOW, TEMPORAL_STREAM = "window", "stream"


def temporal(config: Config, info: SourceInfo, spec: "ModelSpec") -> str:
    """How a model sees the frames of a source: a value of `--temporal`.

    Raises:
        UsageError: a live source cannot be seen in windows.
    """
    if not spec.is_temporal:
        return "off"
    wanted = config.inference.temporal or (TEMPORAL_STREAM if info.is_live else TEMPORAL_WINDOW)
    if wanted == TEMPORAL_WINDOW and info.is_live:
        raise UsageError("a live source cannot wait for windows", where="--temporal window", allowed="stream, off")
    return wanted


def check_temporal(config: Config, specs: Sequence["ModelSpec"], info: SourceInfo) -> None:
    """Refuse a way to see time that does not suit the models or the source.

    Raises:
        UsageError: it does not.
    """
    wanted = config.inference.temporal
    if wanted not in (None, "off") and not any(spec.is_temporal for spec in specs):
        hint = "use --steady for any model, or a video model such as vda-small"
        raise UsageError(f"{specs[0].name} takes each frame alone", where=f"--temporal {wanted}", hint=hint)
    if wanted == TEMPORAL_WINDOW and len(specs) > 1:
        what = "several models in a preview take one frame at a time"
        raise UsageError(what, where="--temporal window", allowed="stream, off")
    for spec in specs:
        temporal(config, info, spec)


def engine_inference(config: Config, source: Source, engine: "Engine") -> Inference:
    """The inference stage for one engine: live sources take batches of 1, stills are grouped by shape, and a model that
    sees several frames at once gets them as `temporal` says."""
    info, how = source.info, temporal(config, source.info, engine.spec)
    if how != "off":
        from stream.infer.temporal import Streaming, Windowed

        if info.kind is SourceKind.STILLS and info.frame_count != 1 and config.inference.temporal is None:
            note(f"{engine.spec.name} takes the images for the frames of one clip; --temporal off takes each alone")
        return Streaming(engine, is_live=info.is_live) if how == TEMPORAL_STREAM else Windowed(engine)
    batch = 1 if source.info.is_live else config.inference.batch
    return EngineInference(engine, batch=batch, stills=source.info.kind is SourceKind.STILLS)


def steadied(
    config: Config,
    info: SourceInfo,
    inference: Inference,
    kinds: Iterable[DepthKind],
    *,
    measure: bool = False,
    hint: str = "; with --fps they are the frames of a video",
) -> Inference:
    """`inference` with `--steady`, if the config asks for it and the source is a video.

    Args:
        kinds: the meaning of the values of each model.
        measure: without `--steady`, measure how much depth changes nevertheless.
        hint: how still images become a video, the end of a note.
    """
    wanted = config.inference.steady
    if info.kind is SourceKind.STILLS and config.capture.fps is None:
        if wanted:
            note(f"--steady has no effect on still images{hint}")
        return inference
    if not wanted and not measure:
        return inference
    if wanted and DepthKind.METRIC_DEPTH in kinds:
        most = MOST_SCALE[DepthKind.METRIC_DEPTH] - 1
        note(f"--steady scales metres by up to {most:.0%} to keep them steady")
    from stream.infer.steady import Steady

    return Steady(inference, adjust=wanted)


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


def spec_meant(config: Config) -> "ModelSpec":
    """The row of the model that `config` names, with the kind and the largest depth that it states.

    Raises:
        UsageError: there is none, or the options do not suit it.
    """
    from stream.models import registry
    from stream.models.kinds import KINDS, meant

    model = config.model
    spec = registry.find(model.name or registry.DEFAULT)
    return meant(spec, kind=KINDS[model.kind] if model.kind else None, max_depth_m=model.max_depth)


def load_engine(
    config: Config,
    *,
    exact: bool = False,
    on_download: "OnTransfer | None" = None,
    images: "Images | None" = None,
) -> "Engine":
    """Load the model that `config` names, ready to run.

    Args:
        exact: see `infer.device.resolve_precision`.
        images: what is read instead of the source that `config` names.
        on_download: called with the progress of a download of the weights.

    Raises:
        StreamError: the weights are missing or damaged, or the options do not suit the model.
    """
    from stream.infer.backends import choose
    from stream.infer.executor import without_pool
    from stream.models import registry
    from stream.models.kinds import KINDS

    spec, asked = registry.find(config.model.name or registry.DEFAULT), config.inference
    runtime, backend = registry.runtime_of(spec), asked.backend
    if asked.precision == "int8" and images is not None and not images.can_repeat:
        hint = f"{images.instead}, or choose another precision"
        what = f"is calibrated on the images first, which {images.giver} gives only once"
        raise UsageError(what, where="precision int8", hint=hint)
    if runtime != "torch" and backend not in ("auto", runtime):
        raise UsageError(
            f"{spec.name} only runs in {runtime}", where=f"--backend {backend}", allowed=f"auto, {runtime}"
        )
    if backend == "auto" and asked.precision == "int8":
        backend = "openvino"
    if backend == "auto" and asked.provider != "auto":
        backend = "onnx"
    if asked.provider != "auto" and backend != "onnx":
        hint = "remove it, or add --backend onnx"
        raise UsageError("only applies to ONNX Runtime", where=f"--provider {asked.provider}", hint=hint)
    if backend != "auto" and runtime == "torch":
        choose.check(backend, spec)
    if backend not in ("auto", "torch") and resizes(config):
        hint = "--target-fps changes the inference size; only torch can follow that quickly"
        raise UsageError("cannot be combined with --target-fps", where=f"--backend {backend}", hint=hint)
    if spec.is_temporal and asked.temporal != "off" and backend not in ("auto", "torch"):
        what, hint = f"--backend {backend}", "add --temporal off for that, or use torch"
        if asked.precision == "int8":
            what, hint = "--precision int8", "add --temporal off for that, or choose another precision"
        raise UsageError("can only take each frame alone", where=what, hint=hint)
    with without_pool():
        model = registry.load(
            spec,
            weights=config.model.weights,
            weights_dir=config.model.weights_dir,
            offline=config.model.offline,
            commercial_only=config.model.commercial_only,
            on_progress=on_download,
            max_depth_m=config.model.max_depth,
            kind=KINDS[config.model.kind] if config.model.kind else None,
            # An exported network may be in the cache; then torch's own need not be built at all.
            build_now=backend in ("auto", "torch") or runtime != "torch",
        )
    if backend == "auto" or runtime != "torch":
        backend = "torch"
    return make_engine(config, model, backend=backend, exact=exact, images=images)


def make_engine(
    config: Config, model: "LoadedModel", *, backend: str, exact: bool, images: "Images | None" = None
) -> "Engine":
    """An engine for a loaded model with the options of `config`; arguments and errors as for `load_engine`."""
    from stream.infer.engine import Engine

    asked = config.inference
    return Engine(
        model,
        device=asked.device,
        precision=asked.precision,
        exact=exact,
        backend=backend,
        provider=asked.provider,
        calibration=lambda: _calibration(config, images),
        batch=asked.batch,
        input_size=config.model.input_size,
        square=config.model.square,
        refines=asked.refine,
        fov=config.output.fov,
        threads=asked.threads,
    )


def _calibration(config: Config, images: "Images | None") -> Sequence[Frame]:
    from stream.infer.backends.int8 import CALIBRATION_IMAGES
    from stream.jobs.source import sample

    return sample(config, CALIBRATION_IMAGES, images)


def prepare(config: Config, engine: "Engine", info: SourceInfo) -> None:
    """Get the backend ready. With `--backend auto` a faster one may take the place of torch, now or while the job runs:
    see `infer.backends.auto`."""
    asked, most = config.inference, config.capture.max_frames or math.inf
    is_free = asked.backend == "auto" and asked.precision != "int8" and not resizes(config)
    if is_free and engine.may_change and temporal(config, info, engine.spec) == "off":
        known = math.inf if info.is_live else info.frame_count
        frames = min(most, math.inf if known is None else known)
        engine.use_fastest(info.size, frames=None if known is None and math.isinf(frames) else frames)
    elif engine.backend != "torch" and engine.may_change:
        note(f"{engine.spec.name} runs in {engine.backend}; converting it takes a while the first time")
    engine.prepare(info.size)


def most_staged_bytes(
    config: Config,
    info: SourceInfo,
    inference: Inference,
    out_size: tuple[int, int] = (0, 0),
    *,
    encodes: bool = False,
) -> int:
    """Bytes of images that may be on their way from the source to the output, so that the run stays in its budget.

    Args:
        out_size: of the output images, (0, 0) for none.
        encodes: a video is written.

    Raises:
        SourceError: the video is too large for the budget.
    """
    limits, holds, kept = Limits.of(config.capture), inference.holds, inference.kept_bytes(info.size)
    room = limits.room
    if info.kind is SourceKind.STILLS:
        return staged_bytes(room, (0, 0), out_size, encodes=encodes, holds=holds, kept=kept)
    least = least_bytes(info.size, out_size, encodes=encodes, holds=holds, kept=kept)
    if least > room:
        what = f"a video of {info.size[1]}×{info.size[0]} takes {least / 1e9:.1f} GB of memory"
        hint = limits.more_memory(least)
        if holds:
            what, hint = f"{what} in windows of {holds}", f"{hint}, or use --temporal stream"
        each = f" for each of {limits.sharers} sources" if limits.sharers > 1 else ""
        raise SourceError(what, where=info.name, allowed=f"up to {room / 1e9:.1f} GB{each}", hint=hint)
    return staged_bytes(room, info.size, out_size, encodes=encodes, holds=holds, kept=kept)


def warn_of_memory(
    config: Config,
    info: SourceInfo,
    engine: "Engine",
    out_size: tuple[int, int],
    queue: int,
    inference: Inference,
) -> None:
    """Warn if the frames of a run may need more memory than is free."""
    batch = 1 if info.is_live else config.inference.batch
    queue = 1 if info.is_live else queue
    holds, kept = inference.holds, inference.kept_bytes(info.size)
    settings = {"batch": batch, "in_flight": engine.in_flight, "queue": queue, "holds": holds, "kept": kept}
    if info.kind is SourceKind.STILLS:
        count, grouped = info.frame_count or queue, batch * LOOKAHEAD_BATCHES
        ceiling = stills_ceiling_bytes(info.size, out_size, count=count, grouped=grouped, **settings)
    else:
        ceiling = ceiling_bytes(info.size, out_size, **settings)
    free = free_memory_bytes()
    sharers = config.capture.sharers
    if free is not None and ceiling > free // sharers:
        hint = "try a smaller --batch" if batch > 1 else "close other programs"
        left = f"{free / sharers / 1e9:.1f} GB is free" + (f" for each of {sharers} sources" if sharers > 1 else "")
        note(f"buffered frames may need {ceiling / 1e9:.1f} GB but only {left}; {hint}")


def model_configs(config: Config, outputs: OutputPlan) -> list[Config]:
    """One config for each model to load.

    Raises:
        UsageError: --target-fps or several models do not suit the source and the outputs.
    """
    also, adaptive = config.model.also, config.inference.target_fps is not None
    if adaptive and not outputs.info.is_live:
        raise UsageError("only applies to live sources", where="--target-fps", hint="for a file, set --input-size")
    if resizes(config) and config.model.input_size is not None:
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
        weights = Path(expanded(file)) if file else None
        only_here = {"weights": weights, "max_depth": None, "kind": None}  # these are the first model's
        model = config.model.model_copy(update={"name": name, **only_here})
        configs.append(config.model_copy(update={"model": model}))
    return configs


def resizes(config: Config) -> bool:
    """Whether the inference size changes to keep up with `--target-fps`: `--skip auto` skips more frames instead."""
    return config.inference.target_fps is not None and config.inference.skip != "auto"


def check_one_model(config: Config) -> None:
    """Refuse what only a run can do: several models, and a frame rate to aim at.

    Raises:
        UsageError: `config` asks for it.
    """
    if config.model.also:
        hint = "name one model, and call iter_depth once for each"
        raise UsageError("iter_depth gives the depth of one model", where="model", hint=hint)
    if config.inference.target_fps is not None:
        hint = "set input_size= for a faster model, or use run"
        raise UsageError("does not apply to iter_depth", where="target_fps", hint=hint)


def common_kind(config: Config, specs: Sequence["ModelSpec"]) -> DepthKind:
    """What the first model's values mean.

    Raises:
        ConfigError: a fixed range would mean metres for one model and something else for another.
    """
    kinds = list(dict.fromkeys(spec.output for spec in specs))
    if len(kinds) > 1 and ":" in (config.render.range or ""):
        one, other, *_ = (kind.quantity for kind in kinds)
        raise ConfigError(f"means {one} for one model and {other} for another", where="--range", allowed="frame, ema")
    is_saved = "png16" in config.output.save and config.output.png16_unit != defaults().output.png16_unit
    if is_saved and DepthKind.METRIC_DEPTH not in kinds:
        note(f"--png16-unit has no effect: {specs[0].name} gives no metres")
    return kinds[0]
