"""`depthstream compare`."""

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.console import Debug, option, tell


def compare(
    source: Annotated[str, typer.Argument(help="A picture, folder, glob, .txt list or video.")],
    model: Annotated[list[str], option("-m --model", "Model, or MODEL=FILE with its weights; twice or more.")],
    output: Annotated[str | None, option("-o --output", "Folder for sheets of pictures, video for a video.")] = None,
    weights_dir: Annotated[str | None, option("--weights-dir", "Folder to look for weights in first.")] = None,
    offline: Annotated[bool | None, option("--offline", "Never download weights.")] = None,
    commercial_only: Annotated[bool | None, option("--commercial-only", "Refuse non-commercial licences.")] = None,
    config: Annotated[Path | None, option("--config", "YAML file, see configs/.")] = None,
    set_: Annotated[list[str] | None, option("--set", "KEY=VALUE of the config; repeatable.")] = None,
    colormap: Annotated[str | None, option("--colormap", "inferno, magma, viridis, turbo, spectral_r, …")] = None,
    range_: Annotated[str | None, option("--range", "frame, ema or LO:HI, of the first model.")] = None,
    picture: Annotated[str | None, option("--picture", "Format of the sheets: png, jpg, webp.")] = None,
    device: Annotated[str | None, option("--device", "auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, option("--precision", "auto, fp32, bf16 or fp16.")] = None,
    start: Annotated[str | None, option("--start", "Start of the part of a video: seconds or [HH:]MM:SS.")] = None,
    end: Annotated[str | None, option("--end", "End of the part of a video.")] = None,
    max_frames: Annotated[int | None, option("--max-frames", "Stop after this many frames.")] = None,
    recursive: Annotated[bool | None, option("--recursive", "Read the folders below a folder too.")] = None,
    report: Annotated[str | None, option("--report", "Write the run's numbers to this JSON file.")] = None,
    overwrite: Annotated[bool | None, option("--overwrite", "Replace what exists.")] = None,
    quiet: Annotated[bool | None, option("--quiet -q", "Nothing on stderr but errors.")] = None,
    json_: Annotated[bool, option("--json", "Print the report on stdout.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Compare models on the same pictures: labelled sheets, a contact sheet, and how well they agree.

    Near is bright in all of them, and each is fitted to the first by a scale and a shift, so that colours can be
    compared. Pictures give the folder SOURCE_compare/, a video gives SOURCE_compare.mp4; numbers are in compare.json.
    """
    from stream import config as configs
    from stream.compare.job import compare_config

    base = configs.load(config) if config is not None else {}
    configs.apply_assignments(base, set_ or [])
    options: dict[str, object] = {
        "output": output,
        "weights_dir": weights_dir,
        "offline": offline,
        "commercial_only": commercial_only,
        "colormap": colormap,
        "range": range_,
        "picture": picture,
        "device": device,
        "precision": precision,
        "start": start,
        "end": end,
        "max_frames": max_frames,
        "recursive": recursive,
        "report": report,
        "overwrite": overwrite,
        "quiet": quiet,
    }
    resolved = configs.from_options(source, options, base=base)
    tell(resolved, lambda **hooks: compare_config(resolved, model, **hooks), as_json=json_)
