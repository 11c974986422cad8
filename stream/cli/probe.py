"""`depthstream probe` and `depthstream cameras`: what there is to read from."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from stream.cli.console import print_json
from stream.cli.options import SETTINGS, ConfigCommand, as_json, debug
from stream.errors import printable

if TYPE_CHECKING:
    from stream.config import Config


@click.command(context_settings=SETTINGS)
@as_json
@debug
def cameras(as_json: bool) -> None:
    """List the cameras of this machine and, where the system reports them, their modes."""
    from stream.capture.devices import list_cameras

    found = list_cameras()
    if as_json:
        print_json([asdict(camera) for camera in found], indent=2)
        return
    if not found:
        print("no camera is connected; pattern:testsrc2 can be used instead of one", file=sys.stderr)
    for camera in found:
        print(printable(f"{camera.index:>3}  {camera.name}" + (f"  {camera.path}" if camera.path else "")))
        for mode in camera.modes:
            print(printable(f"     {mode}"))


@click.command(cls=ConfigCommand, keys=("source",), needs_source=True)
@as_json
@debug
def probe(config: "Config", as_json: bool) -> None:
    """Open SOURCE and show what it is: size, rate, frames, audio, kind."""
    from stream.jobs.source import open_config_source

    opened = open_config_source(config)
    try:
        info = opened.info
        height, width = info.size
        rate = None if info.rate is None else float(info.rate)
        facts = {
            "source": info.name,
            "kind": info.kind.value,
            "live": info.is_live,
            "width": width,
            "height": height,
            "fps": rate,
            "time_base": str(info.time_base),
            "frames": info.frame_count,
            "duration_s": info.frame_count / rate if info.frame_count and rate and not info.names else None,
            "audio": info.audio is not None,
            "ignored_files": opened.log.ignored,
            "notes": list(info.notes),
        }
    finally:
        opened.close()
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if value not in (None, [], 0) or value is False:
            text = "; ".join(value) if isinstance(value, list) else str(value)
            print(f"{key:>14}  {printable(text)}")
