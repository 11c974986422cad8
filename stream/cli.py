"""The command line.

Invariant: this module imports nothing heavy, so `depthstream --help` is instant; stderr is for people (one line
an error), stdout for programs (`--json`).
"""

import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stream import __version__, weights_cli
from stream.bench_cli import bench
from stream.cameras_cli import cameras
from stream.console import Debug, default_model_line, fail, option, tell
from stream.errors import ConfigError, StreamError

app = typer.Typer(
    name="depthstream",
    help="Depth from a camera, a video or a pile of photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(weights_cli.app, name="weights")

Source = Annotated[
    str | None,
    typer.Argument(
        help="Camera (0, cam:1), video, picture, folder, glob, .txt list, URL (rtsp, http, udp, tcp, hls) or "
        "pattern:NAME.",
        show_default=False,
    ),
]


# typer carries a click of its own in recent versions, so its errors are found through typer.
_CommandLineError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"depthstream {__version__}")
        raise typer.Exit


@app.command()
def run(
    source: Source = None,
    output: Annotated[str | None, option("-o --output", "Video, picture or folder to write.")] = None,
    model: Annotated[list[str] | None, option("-m --model", "Model name; several for a preview that switches.")] = None,
    weights: Annotated[str | None, option("--weights", "Checkpoint file to use.")] = None,
    weights_dir: Annotated[str | None, option("--weights-dir", "Folder to look for weights in first.")] = None,
    offline: Annotated[bool | None, option("--offline", "Never download weights.")] = None,
    commercial_only: Annotated[bool | None, option("--commercial-only", "Refuse non-commercial licences.")] = None,
    config: Annotated[Path | None, option("--config", "YAML file, see configs/.")] = None,
    set_: Annotated[list[str] | None, option("--set", "KEY=VALUE of the config; repeatable.")] = None,
    layout: Annotated[str | None, option("--layout", "side, depth or overlay.")] = None,
    colormap: Annotated[str | None, option("--colormap", "inferno, magma, viridis, turbo, spectral_r, …")] = None,
    alpha: Annotated[float | None, option("--alpha", "Strength of the depth in the overlay, 0 to 1.")] = None,
    range_: Annotated[str | None, option("--range", "frame, ema or LO:HI.")] = None,
    save: Annotated[str | None, option("--save", "Depth files: npy, png16, pfm, exr; comma-separated.")] = None,
    picture: Annotated[str | None, option("--picture", "Pictures in a folder: png, jpg, webp, none.")] = None,
    preview: Annotated[bool | None, option("--preview/--no-preview", "Show a window while running.")] = None,
    serve: Annotated[str | None, option("--serve", "Show the run in browsers at [HOST:PORT].")] = None,
    serve_token: Annotated[str | None, option("--serve-token", "What viewers must know off this machine.")] = None,
    virtual_camera: Annotated[bool | None, option("--virtual-camera", "Be a webcam for video calls and OBS.")] = None,
    virtual_camera_device: Annotated[str | None, option("--virtual-camera-device", "Which one, by name.")] = None,
    codec: Annotated[str | None, option("--codec", "Video encoder, such as libx264, libx265, libsvtav1.")] = None,
    crf: Annotated[int | None, option("--crf", "Video quality, smaller is better.")] = None,
    preset: Annotated[str | None, option("--preset", "Encoder preset, such as veryfast or slow.")] = None,
    audio: Annotated[bool | None, option("--audio/--no-audio", "Keep the source's audio (default).")] = None,
    device: Annotated[str | None, option("--device", "auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, option("--precision", "auto, fp32, bf16, fp16 or int8.")] = None,
    backend: Annotated[str | None, option("--backend", "auto, torch, compile, onnx or openvino.")] = None,
    provider: Annotated[str | None, option("--provider", "Of ONNX Runtime: cpu, cuda, tensorrt, …")] = None,
    batch: Annotated[int | None, option("--batch", "Frames per forward pass.")] = None,
    target_fps: Annotated[float | None, option("--target-fps", "Choose the size that keeps up with this rate.")] = None,
    threads: Annotated[int | None, option("--threads", "CPU threads of the model.")] = None,
    input_size: Annotated[int | None, option("--input-size", "Inference size in pixels.")] = None,
    square: Annotated[bool | None, option("--square", "Squeeze pictures to a square network input.")] = None,
    fps: Annotated[float | None, option("--fps", "Pictures per second when stills become a video.")] = None,
    start: Annotated[str | None, option("--start", "Start of the part of a video: seconds or [HH:]MM:SS.")] = None,
    end: Annotated[str | None, option("--end", "End of the part of a video.")] = None,
    max_frames: Annotated[int | None, option("--max-frames", "Stop after reading this many frames.")] = None,
    recursive: Annotated[bool | None, option("--recursive", "Read the folders below a folder too.")] = None,
    live: Annotated[bool | None, option("--live/--no-live", "Treat a URL as live, or as a file.")] = None,
    camera_size: Annotated[str | None, option("--camera-size", "Ask the camera for WIDTHxHEIGHT.")] = None,
    camera_fps: Annotated[float | None, option("--camera-fps", "Ask the camera for this rate.")] = None,
    camera_fourcc: Annotated[str | None, option("--camera-fourcc", "Ask the camera for a codec: MJPG.")] = None,
    hwaccel: Annotated[str | None, option("--hwaccel", "Decode videos with: off, auto, cuda, vaapi, …")] = None,
    open_timeout_s: Annotated[float | None, option("--open-timeout-s", "Seconds to open a URL.")] = None,
    read_timeout_s: Annotated[float | None, option("--read-timeout-s", "Seconds to wait for data.")] = None,
    reconnect_for: Annotated[float | None, option("--reconnect-for", "Seconds to get a live stream back.")] = None,
    mirror: Annotated[bool | None, option("--mirror", "Exchange left and right, as in a mirror.")] = None,
    max_pixels: Annotated[int | None, option("--max-pixels", "Skip pictures with more pixels.")] = None,
    report: Annotated[str | None, option("--report", "Write the run's numbers to this JSON file.")] = None,
    overwrite: Annotated[bool | None, option("--overwrite", "Replace what exists.")] = None,
    quiet: Annotated[bool | None, option("--quiet -q", "Nothing on stderr but errors.")] = None,
    print_config: Annotated[bool, option("--print-config", "Print the resolved config as YAML, and stop.")] = False,
    json_: Annotated[bool, option("--json", "Print the report on stdout.")] = False,
    debug: Debug = False,  # noqa: ARG001  read in `invoke`
) -> None:
    """Turn SOURCE into depth: a video, pictures, depth files or a preview.

    Without -o: a camera is previewed; video X becomes X_depth.mp4, picture X X_depth.png, folder X X_depth/, all in
    the current folder. Settings come from --config, then --set, then options. Exit codes: 0 done, 1 failed,
    2 bad usage, 3 done but inputs were skipped, 130 interrupted.
    """
    from stream import config as configs

    base = configs.load(config) if config is not None else {}
    configs.apply_assignments(base, set_ or [])
    options: dict[str, object] = {
        "output": output,
        "model": model[0] if model else None,
        "also": model[1:] if model else None,
        "weights": weights,
        "weights_dir": weights_dir,
        "offline": offline,
        "commercial_only": commercial_only,
        "layout": layout,
        "colormap": colormap,
        "alpha": alpha,
        "range": range_,
        "save": save,
        "picture": picture,
        "preview": None if preview is None else "window" if preview else "off",
        "serve": serve,
        "serve_token": serve_token,
        "virtual_camera": virtual_camera,
        "virtual_camera_device": virtual_camera_device,
        "codec": codec,
        "crf": crf,
        "preset": preset,
        "audio": audio,
        "device": device,
        "precision": precision,
        "backend": backend,
        "provider": provider,
        "batch": batch,
        "target_fps": target_fps,
        "threads": threads,
        "input_size": input_size,
        "square": square,
        "fps": fps,
        "start": start,
        "end": end,
        "max_frames": max_frames,
        "recursive": recursive,
        "live": None if live is None else "live" if live else "file",
        "camera_size": camera_size,
        "camera_fps": camera_fps,
        "camera_fourcc": camera_fourcc,
        "hwaccel": hwaccel,
        "open_timeout_s": open_timeout_s,
        "read_timeout_s": read_timeout_s,
        "reconnect_for": reconnect_for,
        "mirror": mirror,
        "max_pixels": max_pixels,
        "report": report,
        "overwrite": overwrite,
        "quiet": quiet,
    }
    resolved = configs.from_options(source, options, base=base)
    if print_config:
        print(configs.to_yaml(resolved), end="")
        return
    if resolved.source is None:
        raise ConfigError("no SOURCE given", hint="try `depthstream run 0` for the camera, or `depthstream demo`")
    _run_and_tell(resolved, as_json=json_)


@app.command()
def demo(
    output: Annotated[Path | None, option("-o --output", "Video to write instead of demo_depth.mp4.")] = None,
    model: Annotated[str | None, option("-m --model", "Model name, see `depthstream models`.")] = None,
    overwrite: Annotated[bool, option("--overwrite", "Replace what exists; demo_depth.mp4 always is.")] = False,
    quiet: Annotated[bool, option("--quiet -q", "Nothing on stderr but errors.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Run the main job on a short clip that comes with the package; replaces the result of an earlier demo."""
    from importlib.resources import as_file, files

    from stream import config as configs

    with as_file(files("stream") / "data" / "demo.mp4") as clip:
        options: dict[str, object] = {"output": output or "demo_depth.mp4", "model": model, "layout": "side"}
        options["overwrite"] = overwrite or output is None
        _run_and_tell(configs.from_options(str(clip), {**options, "quiet": quiet or None}))


@app.command()
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
    from stream.compare import compare_config

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


def _run_and_tell(config: Any, *, as_json: bool = False) -> None:
    """Run, and say which model is used where none was named."""
    from stream.jobs import run_config

    first = default_model_line() if config.model.name is None else ""
    tell(config, lambda **hooks: run_config(config, **hooks), first=first, as_json=as_json)


@app.command()
def models(as_json: Annotated[bool, option("--json", "Print as JSON.")] = False) -> None:
    """List the models: size, licence, output, input size, whether the weights are here, what they are good for."""
    from stream.models import catalog
    from stream.models.locate import search

    here = {spec.name: search(spec) for spec in catalog.MODELS}
    if as_json:
        rows = [
            {**spec.describe(), "present": found is not None, "path": str(found.path) if found else None}
            for spec in catalog.MODELS
            for found in [here[spec.name]]
        ]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    widest = max(len(spec.name) for spec in catalog.MODELS)
    for spec in catalog.MODELS:
        height, width = spec.input.size_hw
        unit = "metres" if spec.max_depth_m else "disparity"
        also = f"  also {', '.join(spec.aliases)}" if spec.aliases else ""
        place = "here" if here[spec.name] else "not here"
        facts = f"{spec.parameters_m:>7.1f} M  {spec.licence:<12}  {unit:<9}  {width}×{height}  {place}"
        print(f"{spec.name:<{widest}}  {facts}\n    {spec.summary}{also}")


app.command()(cameras)
app.command()(bench)


@app.command()
def probe(
    source: Annotated[str, typer.Argument(help="As for `run`.")],
    as_json: Annotated[bool, option("--json", "Print as JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Open SOURCE and tell what is there: size, rate, frames, audio, kind."""
    from stream.config import from_options
    from stream.jobs import open_config_source

    opened = open_config_source(from_options(source, {}))
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
        print(json.dumps(facts, ensure_ascii=False))
        return
    for key, value in facts.items():
        if value not in (None, [], 0) or value is False:
            print(f"{key:>14}  {'; '.join(value) if isinstance(value, list) else value}")


def main() -> NoReturn:
    """Entry point: every error becomes one line on stderr and the right exit code."""
    code = invoke(sys.argv[1:])
    if any(thread.name.startswith("depthstream-") for thread in threading.enumerate()):
        # Stuck in a driver, a network call or a large model, and said so: Python would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


_ADDRESS = re.compile(r"(?!cam:)[\w.\[\]:-]*:\d+|(\d{1,3}\.){3}\d{1,3}|localhost")


def _with_address(arguments: list[str]) -> list[str]:
    """`--serve` may stand alone: what follows it is its value only if it looks like HOST:PORT."""
    given = list(arguments)
    if "--serve" in given:
        from stream.config import DEFAULT_SERVE

        after = given.index("--serve") + 1
        if after == len(given) or not _ADDRESS.fullmatch(given[after]):
            given[after - 1] = f"--serve={DEFAULT_SERVE}"
    return given


def invoke(arguments: list[str]) -> int:
    """Run a command line and return its exit code: 0, 1, 2, 3 or 130."""
    debug = "--debug" in arguments
    arguments = _with_address(arguments)
    if arguments in ([], ["weights"]):
        arguments = [*arguments, "--help"]
    try:
        code = app(arguments, standalone_mode=False)
    except StreamError as error:
        return fail(str(error), error.exit_code, debug=debug)
    except typer.Exit as done:
        return int(done.exit_code)
    except _CommandLineError as error:
        message = getattr(error, "format_message", error.__str__)()
        hint = "; quote a pattern ('*.jpg') or name the folder" if "unexpected extra argument" in message else ""
        return fail(f"{' '.join(message.split()).rstrip('.')}{hint}; see --help", 2, debug=debug)
    except (KeyboardInterrupt, typer.Abort):
        return fail("interrupted", 130, debug=debug)
    except OSError as error:
        return fail(f"{error.filename or 'output'}: {error.strerror or error}", 1, debug=debug)
    except Exception as error:  # noqa: BLE001  the last boundary: a defect of ours, told in one line
        hint = "" if debug else "; --debug shows where, and the bug tracker would like to know"
        return fail(f"{type(error).__name__}: {' '.join(str(error).split())}{hint}", 1, debug=debug)
    return code if isinstance(code, int) else 0
