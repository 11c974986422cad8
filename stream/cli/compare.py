"""`depthstream compare`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from stream.cli.console import run_job
from stream.cli.options import ConfigCommand, as_json, debug, own

if TYPE_CHECKING:
    from stream.config import Config

_KEYS = (
    "source",
    "model.weights_dir",
    "model.offline",
    "model.commercial_only",
    "capture.start",
    "capture.end",
    "capture.max_frames",
    "capture.recursive",
    "inference.device",
    "inference.precision",
    "render.colormap",
    "render.range",
    "output.path",
    "output.picture",
    "output.report",
    "output.overwrite",
    "output.quiet",
)


@click.command(cls=ConfigCommand, keys=_KEYS, reads_file=True, needs_source=True)
@own(
    "-m",
    "--model",
    "models",
    multiple=True,
    required=True,
    panel="Model",
    metavar="MODEL[=FILE]",
    help_text="Model, or a checkpoint of yours for it; twice or more.  [repeatable]",
)
@as_json
@debug
def compare(config: "Config", models: Sequence[str], as_json: bool) -> int:
    """Compare models on the same images, as labelled sheets and numbers.

    A sheet shows an image and its depth by each model. Near is bright in all of them, and each is fitted to the first
    by a scale and a shift, so that colours can be compared. Images give the folder SOURCE_compare/ and a video
    SOURCE_compare.mp4; the numbers are in compare.json.
    """
    from stream.compare.job import compare_config

    return run_job(config, lambda **hooks: compare_config(config, models, **hooks), as_json=as_json)
