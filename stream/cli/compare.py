"""`depthstream compare`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from stream.cli.console import run_job
from stream.cli.options import KEYS_OF_SEVERAL_MODELS, ConfigCommand, as_json, debug, several_models

if TYPE_CHECKING:
    from stream.config import Config

_KEYS = ("source", *KEYS_OF_SEVERAL_MODELS, "inference.steady", "render.range", "output.picture")
_OUT = "Folder to write, or a video of a video; default: SOURCE_compare or SOURCE_compare.mp4, in the current folder."


@click.command(cls=ConfigCommand, keys=_KEYS, reads_file=True, needs_source=True, help_of={"output.path": _OUT})
@several_models
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
