"""`depthstream run` and `depthstream demo`."""

from typing import TYPE_CHECKING

import click

from stream.cli.console import default_model_line, run_job, run_sources
from stream.cli.options import EVERY_KEY, ConfigCommand, as_json, debug, own
from stream.errors import ConfigError

if TYPE_CHECKING:
    from stream.config import Config


@click.command(cls=ConfigCommand, keys=EVERY_KEY, reads_file=True, needs_source=True, takes_several=True)
@own("--print-config", is_flag=True, help_text="Print the resulting config as YAML, and stop.")
@as_json
@debug
def run(config: "Config", print_config: bool, as_json: bool) -> int:
    """Turn SOURCE into depth: a video, images, depth files or a preview.

    SOURCE is a camera (0, cam:1), a video, image, folder, glob or .txt list, a URL (rtsp, http, udp, tcp, hls) or
    pattern:NAME, a test pattern. The word `run` may be left out. Several cameras, streams and patterns run together
    with one model.

    Without --output, a camera is previewed; video X becomes X_depth.mp4, image X becomes X_depth.png and folder X
    becomes X_depth/, all in the current folder. Options override --set, which overrides --config.

    Exit codes: 0 done, 1 failed, 2 bad usage, 3 done but inputs were skipped, 130 interrupted.
    """
    if as_json and config.output.path == "-":
        raise ConfigError("stdout has the video", where="--json with -o -", hint="write the numbers with --report FILE")
    if print_config:
        from stream.cli.configfile import to_yaml

        print(to_yaml(config), end="")
        return 0
    return _run(config, as_json=as_json, again=click.get_current_context().obj or "")


@click.command(cls=ConfigCommand, keys=("output.path", "model.name", "output.overwrite", "output.quiet"))
@debug
def demo(config: "Config") -> int:
    """Run on a short clip that comes with the package, as a first look.

    Without --output, the result is demo_depth.mp4, which replaces that of an earlier demo.
    """
    from importlib.resources import as_file, files
    from pathlib import Path

    output = config.output
    if output.path is None:
        output = output.model_copy(update={"path": Path("demo_depth.mp4"), "overwrite": True})
    with as_file(files("stream") / "data" / "demo.mp4") as clip:
        render = config.render.model_copy(update={"layout": "side"})
        return _run(config.model_copy(update={"source": str(clip), "output": output, "render": render}))


def _run(config: "Config", *, as_json: bool = False, again: str = "") -> int:
    """Run, and say which model is used where none was named; `again` is the command line that resumes it."""
    first = default_model_line() if config.model.name is None else ""
    if config.sources:
        from stream.jobs.several import run_several

        return run_sources(config, lambda **hooks: run_several(config, **hooks), first=first, as_json=as_json)
    from stream.jobs.run import run_config

    return run_job(config, lambda **hooks: run_config(config, **hooks), first=first, as_json=as_json, again=again)
