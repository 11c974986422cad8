"""Several models on one source, whatever is made of their maps: comparisons and surveys are both this.

Invariant: all maps that come together are of the same frame. Models that do not fit into memory together run one after
the other, and their maps are kept on the disk in between. Nothing is computed twice.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from stream.capture.base import Source
from stream.capture.parse import SourceForm, parse_source
from stream.compare.candidates import Candidate, config_of, device_and_threads, fit_into_memory
from stream.compare.inference import ModelUse, MultiModelInference, PrecomputedInference, SizeOf, precompute_maps
from stream.config import Config
from stream.errors import UsageError
from stream.frames import SourceInfo
from stream.infer.base import Inference
from stream.jobs.models import find_weights, load_engine, most_staged_bytes, steadied
from stream.jobs.report import Report
from stream.jobs.source import announced_source, check_readable_again
from stream.jobs.supervise import supervise
from stream.notes import Notes, note
from stream.pipeline.runner import Pipeline, ProgressHook, signals
from stream.render.base import BaseRenderer
from stream.sinks.base import Sink

if TYPE_CHECKING:
    from stream.infer.engine import Engine
    from stream.models.weights.fetch import OnTransfer


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What is made of the maps.

    Attributes:
        renderer: makes the image of each result, which is a `ComparedDepth`.
        sinks: not yet open.
        kept_size: the (height, width) at which maps are kept on the disk, of the frame's.
        is_video: a video is written, and how much depth changes between frames is measured.
        reduces: no map is needed larger than `kept_size`, so it is reduced as soon as it is computed.
        begun: called before the first frame with the pipeline, the inference and what the models take, in their order;
            all of them grow while it runs.
        amend: makes the report complete.
    """

    renderer: BaseRenderer
    sinks: Sequence[Sink]
    kept_size: SizeOf
    is_video: bool
    reduces: bool = False
    begun: Callable[[Pipeline, Inference, Sequence[ModelUse]], None] = lambda _pipeline, _inference, _uses: None
    amend: Callable[[Report], Report] = lambda report: report


def open_recorded(
    config: Config, candidates: Sequence[Candidate], opener: Callable[[], Source], *, done: str = "compared"
) -> Source:
    """Open a source while the models' code is loaded. The caller closes it.

    Args:
        done: what is done with its frames, for errors.

    Raises:
        UsageError: the source is live.
        StreamError: see `opener`.
    """
    from stream.models import registry

    if config.source is not None:
        check_recorded(config.source, done)
    if config.inference.backend in ("auto", "torch"):
        for candidate in candidates:
            registry.preload(candidate.spec)
    _refuse_live(announced_source(config), done)
    source = opener()
    try:
        _refuse_live(source.info, done)
    except UsageError:
        source.close()
        raise
    return source


def run_models(
    config: Config,
    candidates: Sequence[Candidate],
    source: Source,
    outputs: Outputs,
    *,
    reopen: Callable[[], Source],
    started: float,
    notes: Notes,
    on_progress: ProgressHook | None = None,
    on_download: "OnTransfer | None" = None,
) -> Report:
    """Run every model on every frame, and feed the outputs.

    Args:
        config: of each model's run.
        source: open; it is closed, whatever happens.
        reopen: opens it once more, for models that run one after the other.
        started, notes, on_progress, on_download: see `supervise`.

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """
    with ExitStack() as resources, ExitStack() as unless_running:
        unless_running.callback(source.close)
        info = source.info
        device, threads = device_and_threads(config, candidates)
        uses = [ModelUse(candidate.spec, weights=candidate.weights) for candidate in candidates]
        kept_size = outputs.kept_size if outputs.reduces else None

        def load(use: ModelUse, candidate: Candidate) -> "Engine":
            with use.loading():
                wanted = config_of(config, candidate, threads)
                engine = load_engine(wanted, exact=True, on_download=on_download)
            use.describe(engine)
            return engine

        def keep(engine: "Engine") -> "Engine":
            unless_running.callback(engine.close)
            return engine

        if video_models := [candidate.spec.name for candidate in candidates if candidate.spec.is_temporal]:
            note(f"{', '.join(video_models)}: a comparison takes each frame alone")
        with signals(_raise_interrupt):  # so that a terminated program removes its temporary files too
            if fit_into_memory(candidates, device):
                engines = [keep(load(use, candidate)) for use, candidate in zip(uses, candidates, strict=True)]
                inference: Inference = MultiModelInference(engines, uses, kept_size=kept_size)
            else:
                check_readable_again(config)
                note("the models do not fit into memory together; running them one after the other")
                for candidate in candidates:  # find or download all weights before hours of work
                    find_weights(config_of(config, candidate, threads), on_download=on_download)
                folder = tempfile.TemporaryDirectory(prefix="depthstream-compare-", ignore_cleanup_errors=True)
                parent = Path(resources.enter_context(folder))
                loaders = [(use, partial(load, use, one)) for use, one in zip(uses[1:], candidates[1:], strict=True)]
                folders = precompute_maps(info, loaders, outputs.kept_size, parent, reopen=reopen)
                engines = [keep(load(uses[0], candidates[0]))]
                inference = PrecomputedInference(engines[0], uses[0], folders, kept_size=kept_size)
        kinds = [candidate.spec.output for candidate in candidates]
        inference = steadied(config, info, inference, kinds, measure=outputs.is_video, hint="")
        size = outputs.renderer.output_size(info.size)
        most = most_staged_bytes(config, info, inference, size, encodes=outputs.is_video)
        pipeline = Pipeline(source, inference, outputs.renderer, list(outputs.sinks), most_bytes=most)
        outputs.begun(pipeline, inference, uses)
        unless_running.pop_all()
        model = " | ".join(candidate.spec.name for candidate in candidates)
        return supervise(
            pipeline,
            engines,
            config,
            started=started,
            notes=notes,
            on_progress=on_progress,
            model=model,
            amend=outputs.amend,
        )


def check_recorded(text: str, done: str) -> None:
    """Refuse a camera or a test pattern before it is looked for. Raises `UsageError`; `done` as in `open_recorded`."""
    if parse_source(text).form in (SourceForm.CAMERA, SourceForm.PATTERN):
        _raise_live(text, done)


def _refuse_live(info: SourceInfo | None, done: str) -> None:
    if info is not None and info.is_live:
        _raise_live(info.name, done)


def _raise_live(name: str, done: str) -> NoReturn:
    raise UsageError(f"a live source cannot be {done}", where=name, hint="record it first")


def _raise_interrupt() -> None:
    raise KeyboardInterrupt
