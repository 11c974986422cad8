"""`--skip`: what it suits, and the stage that does it.

Invariant: it is refused before a model is loaded.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stream.config import Config
from stream.errors import UsageError
from stream.frames import SourceInfo, SourceKind
from stream.infer.base import Inference
from stream.jobs.models import temporal

if TYPE_CHECKING:
    from stream.models.spec import ModelSpec


def is_skipping(config: Config) -> bool:
    """Whether the model sees fewer frames than there are."""
    return config.inference.skip not in (None, 1)


def check_skip(config: Config, specs: Sequence["ModelSpec"], info: SourceInfo) -> None:
    """Refuse `--skip` for what it does not suit.

    Raises:
        UsageError: still images, a model that sees several frames at once, or a rate to keep where there is none.
    """
    if not is_skipping(config):
        return
    skip, where = config.inference.skip, f"--skip {config.inference.skip}"
    if info.kind is SourceKind.STILLS and config.capture.fps is None:
        hint = "leave it out; with --fps they are the frames of a video"
        raise UsageError("nothing moves from one still image to the next", where=where, hint=hint)
    for spec in specs:
        if temporal(config, info, spec) != "off":
            hint = "leave it out, or add --temporal off, with which each frame is taken alone"
            raise UsageError(f"{spec.name} sees every frame, together with others", where=where, hint=hint)
    if skip != "auto":
        return
    if not info.is_live:
        what, hint = "keeps the rate of a live source, and a file waits", "give a number, such as --skip 4"
        raise UsageError(what, where=where, hint=hint)
    if config.inference.target_fps is not None and len(specs) > 1:
        hint = "name one model, or give a number, such as --skip 4"
        raise UsageError("with --target-fps, chooses for one model", where=where, hint=hint)


def model_fps(config: Config) -> float | None:
    """Frames a second that the model itself has to reach for `--target-fps`."""
    skip, target = config.inference.skip, config.inference.target_fps
    return target / skip if target is not None and isinstance(skip, int) else target


def skipping(config: Config, info: SourceInfo, inference: Inference) -> Inference:
    """`inference` with `--skip`, if the config asks for it."""
    skip = config.inference.skip
    if skip is None or skip == 1:
        return inference
    from stream.infer.skip import Skipping

    return Skipping(
        inference,
        every=None if skip == "auto" else skip,
        is_live=info.is_live,
        batch=1 if info.is_live else config.inference.batch,
        target_fps=config.inference.target_fps,
    )
