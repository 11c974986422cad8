"""`depthstream run` and `depthstream demo`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.console import Debug, default_model_line, option, tell
from stream.errors import ConfigError

Source = Annotated[
    str | None,
    typer.Argument(
        help="Camera (0, cam:1), video, picture, folder, glob, .txt list, URL (rtsp, http, udp, tcp, hls) or "
        "pattern:NAME.",
        show_default=False,
    ),
]


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


def _run_and_tell(config: Any, *, as_json: bool = False) -> None:
    """Run, and say which model is used where none was named."""
    from stream.jobs.run import run_config

    first = default_model_line() if config.model.name is None else ""
    tell(config, lambda **hooks: run_config(config, **hooks), first=first, as_json=as_json)
