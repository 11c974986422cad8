"""`depthstream render`."""

from typing import TYPE_CHECKING

import click

from stream.cli.console import run_job
from stream.cli.options import ConfigCommand, as_json, debug, own
from stream.jobs.keys import RENDER_KEYS

if TYPE_CHECKING:
    from stream.config import Config


@click.command(cls=ConfigCommand, keys=RENDER_KEYS, reads_file=True, needs_source=True)
@own(
    "--with",
    "clip",
    panel="Source",
    metavar="CLIP",
    help_text="The video that the depth was made from, for the layouts side and overlay and for its sound.",
)
@as_json
@debug
def render(config: "Config", clip: str | None, as_json: bool) -> int:
    """Make pictures or depth files again from a depth video, without the model.

    SOURCE is a depth video (NAME.depth.mkv or NAME.depth.mp4). Without --output, it becomes NAME_depth.mp4 in the
    current folder.
    """
    from stream.jobs.render import render_config

    return run_job(config, lambda **hooks: render_config(config, clip=clip, **hooks), as_json=as_json)
