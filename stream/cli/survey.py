"""`depthstream survey`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.cli.console import run_job
from stream.cli.options import (
    KEYS_OF_SEVERAL_MODELS,
    ConfigCommand,
    FilePath,
    as_json,
    debug,
    file_names,
    own,
    several_models,
)

if TYPE_CHECKING:
    from stream.config import Config
    from stream.jobs.report import Report

_FOLDER = "Folder to write; default: PHOTOS_survey, in the current folder."


@click.command(cls=ConfigCommand, keys=KEYS_OF_SEVERAL_MODELS, reads_file=True, help_of={"output.path": _FOLDER})
@click.argument("photos", nargs=-1, metavar="[PHOTOS]...", shell_complete=file_names)
@several_models
@own(
    "--truth",
    type=FilePath(path_type=Path),
    panel="Source",
    metavar="DIR",
    help_text="Folder of measured depth for photos NAME: NAME.png (16-bit, mm), NAME.npy, .exr or .pfm (metres).",
)
@own(
    "--builtin",
    is_flag=True,
    panel="Source",
    help_text="Survey the built-in scenes, whose depth is known exactly, instead of PHOTOS.",
)
@own(
    "--styles",
    panel="Source",
    metavar="LIST",
    help_text="Also draw each photo as cartoon, line, poster, paint, gray or all of them, and measure how far depth "
    "moves.",
)
@as_json
@debug
def survey(
    config: "Config",
    photos: Sequence[str],
    models: Sequence[str],
    truth: Path | None,
    builtin: bool,
    styles: str | None,
    as_json: bool,
) -> int:
    """Survey what models see in photos or a clip: thin things, printed floors, backgrounds, edges, skies.

    PHOTOS are images, folders, globs and .txt lists, or one video. The folder PHOTOS_survey/ gets report.html, a page
    to look at with its pictures, and the same numbers as survey.json and survey.csv. Of a video, it also gets the depth
    of all models side by side, and how much depth flickers and drifts.
    """
    from stream.survey.job import survey_config

    def job(**hooks: Any) -> "Report":
        return survey_config(config, photos, models, truth=truth, builtin=builtin, styles=styles, **hooks)

    return run_job(config, job, as_json=as_json, last=_where, stills="picture" if styles else "photo")


def _where(report: "Report") -> str:
    """How to look at the report; "" if there is none."""
    pages = (Path(path) for path in report.outputs if path.endswith(".html"))
    return next((f"look at it: {path.absolute().as_uri()}" for path in pages), "")
