"""Plans what a run writes and shows, and refuses what cannot work before any work is done.

Invariant: once `plan_outputs` returns, nothing will be replaced without --overwrite, and the output fits on the disk.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stream.config import GENERATED_TOKEN, RERUN_VIEWER, Config, OutputConfig, defaults
from stream.depthdata.description import DepthCodec
from stream.errors import ConfigError, OutputError, UsageError
from stream.files import Need, by_disk, check_free_space, check_partial, fitted_stem, is_device_or_pipe, real
from stream.frames import SourceInfo, SourceKind
from stream.jobs.options import OPTIONS
from stream.jobs.report import is_report, is_stdout
from stream.jobs.segments.store import LocalStore
from stream.notes import note
from stream.remote.urls import is_remote, parse

if TYPE_CHECKING:
    from stream.sinks.target import StreamTarget


class OutputKind(StrEnum):
    """Kind of OUT, by its suffix."""

    VIDEO = "video"
    DEPTH_VIDEO = "depth video"
    PICTURE = "picture"
    FOLDER = "folder"
    STREAM = "stream"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """What a run writes and shows.

    Attributes:
        path: OUT; None if the run is only shown, or streamed.
        target: where the run is streamed to, None if it is not.
        kind: see `OutputKind`.
        depth_path: folder (or OUT's own, for one picture) of the `--save` files, None without them.
        depth_video: the depth video, be it OUT or one of `--save video16`; None without one.
        preview: show a window.
        shown_elsewhere: a page, a virtual camera or Rerun shows the pictures.
    """

    info: SourceInfo
    path: Path | None
    target: "StreamTarget | None" = None
    kind: OutputKind
    depth_path: Path | None
    depth_video: Path | None = None
    preview: bool
    shown_elsewhere: bool


DEPTH_VIDEO_SUFFIXES = tuple(dict.fromkeys(codec.suffix for codec in DepthCodec))
"""The ends of names that make an output path a depth video."""
_NO_FILES = frozenset({"video16"})
"""The values of `--save` that give no file for each frame."""


def output_kind(path: Path) -> OutputKind:
    """Kind of output at a path: by its suffix a video or a picture, otherwise a folder."""
    from stream.sinks import images
    from stream.sinks.encoders import UNWRITTEN_SUFFIXES
    from stream.sinks.video import VIDEO_SUFFIXES

    suffix = path.suffix.lower()
    if path.is_dir():
        return OutputKind.FOLDER
    if path.name.lower().endswith(DEPTH_VIDEO_SUFFIXES):
        return OutputKind.DEPTH_VIDEO
    if suffix in VIDEO_SUFFIXES | UNWRITTEN_SUFFIXES:
        return OutputKind.VIDEO
    if suffix in images.SUFFIXES:
        return OutputKind.PICTURE
    return OutputKind.FOLDER


def default_output(info: SourceInfo) -> Path | None:
    """Path of the results if OUT is not given: None (a preview) for live sources, else a name in the current folder."""
    if info.is_live:
        return None
    if not info.name:
        raise ConfigError("images in memory have no name to name it after", where="output", hint="pass output=")
    if info.kind is SourceKind.STILLS:
        from stream.capture.stills.find import is_pattern

        if "://" in info.name:
            return _default_of_url(info)
        source = Path(info.name)
        if source.is_dir():
            return named_after(real(source).name, "_depth")
        if (is_pattern(info.name) and not source.exists()) or source.suffix.lower() == ".txt":
            return Path("depth_out")
        return named_after(source.stem, "_depth.png")
    path = info.name
    if info.kind is SourceKind.NETWORK:
        path = parse(path).path if is_remote(path) else urlsplit(path).path
    stem = Path(path).stem
    return named_after((stem or "stream").replace(":", "_"), "_depth.mp4")


def _default_of_url(info: SourceInfo) -> Path:
    """The default output for a picture, folder or glob behind a URL."""
    place = parse(info.name) if is_remote(info.name) else None
    if place is not None and place.is_folder:
        return named_after(place.name or place.host.partition(":")[0], "_depth")
    if place is not None and place.is_pattern and not info.files:  # else one picture, which was fetched
        return Path("depth_out")
    return Path(f"{Path(info.names[0]).stem}_depth.png")


def named_after(stem: str, suffix: str) -> Path:
    """A name in the current folder; a shortened one is noted."""
    name = fitted_stem(stem, f".partial{suffix}") + suffix
    if name != stem + suffix:
        note(f"{stem}{suffix} is too long for a name; the output is {name}")
    return Path(name)


def plan_outputs(config: Config, info: SourceInfo, *, is_open: bool = True) -> OutputPlan:
    """Decide and check everything that will be written.

    Args:
        is_open: `info` is that of the open source. If it is only what is known in advance, errors are raised already,
            but what needs the size, and the notes, are left to the plan of the open source.

    Raises:
        OutputError: an output exists, is the input, cannot be written or will not fit.
        ConfigError: options contradict each other or the source.
    """
    plan = _decide(config, info)
    _check_name(config, plan)
    _check_options(config, plan)
    _check_files(config, plan)
    if is_open:
        _check_space(config, plan)
        _note_unused(config, plan)
        _note_plain_http(config.output)
        if plan.kind is OutputKind.VIDEO and config.output.codec == "ffv1" and config.render.colormap == "gray":
            note("--colormap gray has 8 bits; --save video16 or -o NAME.depth.mkv writes 16, with what they mean")
    return plan


def _decide(config: Config, info: SourceInfo) -> OutputPlan:
    """Interpret the options for this source, without checking anything."""
    output = config.output
    shown_live = output.virtual_camera or output.rerun is not None or (output.serve is not None and info.is_live)
    target = stream_target(config)
    given = output.path if isinstance(output.path, Path) else None
    path = given or (None if shown_live or target is not None else default_output(info))
    kind = OutputKind.STREAM if target is not None else OutputKind.NONE if path is None else output_kind(path)
    only_previewed = info.is_live and output.path is None and not shown_live
    return OutputPlan(
        info=info,
        path=path,
        target=target,
        kind=kind,
        depth_path=_depth_path(path, kind, info) if file_formats(config) else None,
        depth_video=_depth_video(config, path, kind, info),
        preview=output.preview == "window" or (output.preview == "auto" and only_previewed),
        shown_elsewhere=shown_live,
    )


def stream_target(config: Config) -> "StreamTarget | None":
    """Where `config` streams to, None if it writes files.

    Raises:
        UsageError: a URL that nothing is streamed to, or an option that needs a file.
    """
    output = config.output
    if not isinstance(output.path, str):
        return None
    from stream.sinks.target import parse_target

    target = parse_target(output.path)
    if target.is_stdout and output.save:
        hint = "name a file, or remove --save"
        raise ConfigError("depth files have no place beside stdout", where="--save with -o -", hint=hint)
    if target.is_stdout and output.report is not None and is_stdout(output.report):
        raise OutputError("stdout has the video", where=f"--report {output.report}", hint="choose a file")
    return target


def _check_name(config: Config, plan: OutputPlan) -> None:
    """Refuse an OUT with the suffix of a format that cannot be written."""
    path, info = plan.path, plan.info
    if path is None:
        return
    if plan.kind is OutputKind.FOLDER and not path.is_dir():
        if path.suffix.lower() in _DEPTH_SUFFIXES:
            hint = "name a folder, and add --save npy"
            raise OutputError("OUT cannot name a depth file", where=str(path), hint=hint)
        if _LOOKS_LIKE_A_FILE.search(path.name):
            raise OutputError(
                f"cannot write {path.suffix} files",
                where=str(path),
                allowed="a video (.mp4, .m4v, .mov, .mkv, .webm), a picture (.png, .jpg, .webp), or a folder",
            )
    is_one_picture = (info.kind is SourceKind.STILLS and len(info.names) == 1) or config.capture.max_frames == 1
    if plan.kind is OutputKind.PICTURE and not is_one_picture:
        hint = "name a video (.mp4) or a folder for OUT"
        raise OutputError("a single image cannot hold several frames", where=str(path), hint=hint)


def _check_options(config: Config, plan: OutputPlan) -> None:
    """Refuse options that contradict each other, the source or OUT."""
    output, info = config.output, plan.info
    is_video = plan.kind in (OutputKind.VIDEO, OutputKind.STREAM) or plan.depth_video is not None
    _check_page(output)
    _check_depth_video(config, plan)
    if output.rerun is not None:
        from stream.sinks.rerun import check_installed

        check_installed()
    if output.virtual_camera_device is not None and not output.virtual_camera:
        raise ConfigError(
            "needs --virtual-camera", where="--virtual-camera-device", hint="add --virtual-camera, or remove it"
        )
    if info.kind is SourceKind.STILLS:
        if is_video and config.capture.fps is None and len(info.names) != 1:
            raise ConfigError("still images have no frame rate", where="--fps", hint="add for example --fps 24")
        if not is_video and config.capture.fps is not None:
            raise ConfigError(
                "applies to still images only if they become a video", where="--fps", hint="name a video (.mp4) for OUT"
            )
    if plan.kind is OutputKind.FOLDER and output.picture == "none" and not output.save:
        raise ConfigError(
            "nothing would be written", where="--picture none", hint="add --save npy, or choose png, jpg or webp"
        )
    outputs = plan.path, plan.target, plan.depth_path, plan.depth_video
    has_output = any(output is not None for output in outputs)
    if not has_output and not plan.preview and not plan.shown_elsewhere:
        raise ConfigError("nothing would be written or shown", hint="name an output with -o, or remove --no-preview")


def _check_depth_video(config: Config, plan: OutputPlan) -> None:
    """Refuse a depth video whose name does not fit its codec, or that several models would write."""
    path = plan.depth_video
    if path is None:
        return
    codec = depth_codec(config, path)
    if not path.name.lower().endswith(codec.suffix):
        hint = f"name it NAME{codec.suffix}, or remove --depth-codec"
        raise ConfigError(f"{codec} does not go into {path.suffix}", where=f"--depth-codec with {path}", hint=hint)
    if config.model.also:
        what = f"{path.name} can hold the numbers of one model"
        raise ConfigError(what, where="-m", hint="name one model, or remove the depth video")


def _check_page(output: OutputConfig) -> None:
    """Refuse options of the live page that cannot be carried out."""
    from stream.live.address import parse_address, tls_context

    for flag in "--serve-token", "--serve-name", "--serve-cert", "--serve-key":
        if getattr(output, flag.removeprefix("--").replace("-", "_")) and output.serve is None:
            raise ConfigError("needs --serve", where=flag, hint="add --serve, or remove it")
    if output.serve is None:
        return
    is_open = not parse_address(output.serve).is_loopback
    is_generated = output.serve_token == GENERATED_TOKEN or (is_open and output.serve_token is None)
    if is_generated and output.quiet:
        hint = "set one with --serve-token=TOKEN, or remove --quiet"
        raise ConfigError("--quiet hides the token that viewers need", where="--serve", hint=hint)
    if output.serve_cert is not None:
        tls_context(output.serve_cert, output.serve_key)
    elif output.serve_key is not None:
        raise ConfigError("needs --serve-cert", where="--serve-key", hint="add --serve-cert, or remove it")


def _note_plain_http(output: OutputConfig) -> None:
    """Say that others on the network can read what a page that is served to them shows."""
    from stream.live.address import parse_address

    if output.serve is not None and output.serve_cert is None and not parse_address(output.serve).is_loopback:
        note(
            "--serve: plain HTTP: whoever is between here and a viewer can read the images and the token; "
            "add --serve-cert and --serve-key for TLS"
        )


def _note_unused(config: Config, plan: OutputPlan) -> None:
    """Say which of the options that were set have no effect on this source and this output."""
    info, kinds = plan.info, SourceKind
    is_shown = plan.preview or config.output.serve is not None  # a viewer may record, and choose the layout
    no_camera = info.kind is not kinds.CAMERA and "the source is no camera"
    no_mode = info.kind is not kinds.PATTERN and no_camera
    no_folder = not (info.kind is kinds.STILLS and Path(info.name).is_dir()) and "the source is no folder"
    is_file = info.kind is kinds.VIDEO and Path(info.name).is_file()
    no_stream = (is_file or info.kind in (kinds.STILLS, kinds.CAMERA, kinds.PATTERN)) and "the source is no stream"
    is_numbers = plan.kind is OutputKind.DEPTH_VIDEO and not is_shown
    no_picture = is_numbers and not plan.shown_elsewhere and "the output holds numbers, no picture"
    no_video = plan.kind not in (OutputKind.VIDEO, OutputKind.STREAM) and not is_shown and "no video is written"
    no_images = plan.kind is not OutputKind.FOLDER and "no folder of images is written"
    no_points = "ply" not in config.output.save and config.output.rerun is None
    no_overlay = config.render.layout != "overlay" and not is_shown and "the layout is not overlay"
    unused: dict[str, str | bool] = {
        "capture.camera_size": no_mode,
        "capture.camera_fps": no_mode,
        "capture.camera_fourcc": no_camera,
        "capture.recursive": no_folder,
        "capture.live": no_stream,
        "output.codec": no_video,
        "output.crf": no_video,
        "output.preset": no_video,
        "output.picture": no_images,
        "output.png16_unit": "png16" not in config.output.save and "png16 is not saved",
        "output.every": not file_formats(config) and "no file is saved for each frame (--save)",
        "output.fov": no_points and not _uses_fov(config) and "no points are saved (--save ply) or shown (--rerun)",
        "output.depth_codec": plan.depth_video is None and "no depth video is written",
        "render.layout": no_picture,
        "render.colormap": no_picture,
        "render.alpha": no_overlay,
    }
    flags = {option.key: option.flag for option in OPTIONS.values()}
    for key, why in unused.items():
        section, _, name = key.partition(".")
        if why and getattr(getattr(config, section), name) != getattr(getattr(defaults(), section), name):
            note(f"{flags[key]} has no effect: {why}")


def _uses_fov(config: Config) -> bool:
    """Whether the depth of a model depends on the camera."""
    from stream.models import registry

    names = (config.model.name or registry.DEFAULT, *(text.partition("=")[0] for text in config.model.also))
    with suppress(UsageError):  # a module of the caller's own
        return any(registry.find(name).uses_fov for name in names)
    return False


def _check_files(config: Config, plan: OutputPlan) -> None:
    """Refuse to replace an input, or without --overwrite anything that exists."""
    from stream.sinks.naming import check_output

    path, overwrite, inputs = plan.path, config.output.overwrite, _inputs(plan.info)
    store = _interrupted(config, path)

    def may_exist(output: Path) -> bool:
        return overwrite or (store is not None and (output.is_dir() or store.has_result(output)))

    for folder in {path, plan.depth_path}:  # a link that the user names is where results are wanted
        if folder is not None and folder != config.output.path and folder.is_symlink() and folder.is_dir():
            hint = "name the folder with -o, or remove the link"
            raise OutputError("is a link to another folder", where=str(folder), hint=hint)
    is_picture = plan.kind is OutputKind.PICTURE
    if path is not None:
        check_output(path, overwrite=may_exist(path), inputs=inputs)
        if is_picture or plan.kind is OutputKind.VIDEO:
            check_partial(path, overwrite=overwrite or store is not None)
    if plan.depth_path is not None and plan.depth_path != path and not is_picture:
        check_output(plan.depth_path, overwrite=may_exist(plan.depth_path), inputs=inputs)
    if plan.depth_video is not None:
        from stream.sinks.depthvideo import check_sidecar_is_free

        may_replace = may_exist(plan.depth_video)
        if plan.depth_video != path:
            check_output(plan.depth_video, overwrite=may_replace, inputs=inputs)
        check_partial(plan.depth_video, overwrite=overwrite or store is not None)
        check_output(plan.depth_video.with_suffix(".json"), overwrite=may_replace, inputs=inputs)
        check_sidecar_is_free(plan.depth_video)
    files = _planned_files(config, plan)
    if is_picture:  # its depth files go into the folder beside it, which may hold anything
        for file in files:
            check_output(file, overwrite=overwrite, inputs=inputs)
    originals = {real(original) for original in inputs}
    for file in files:
        if real(file) in originals:
            raise OutputError("would replace an input", where=str(file), hint="choose another folder with -o")
    if (recording := rerun_path(config.output)) is not None:
        check_output(recording, overwrite=overwrite, inputs=inputs)
        check_partial(recording, overwrite=overwrite)
        files.append(recording)
    if config.output.report is not None:
        video = plan.depth_video
        numbers = [] if video is None else [video, video.with_suffix(".json")]
        targets = [*files, *numbers, *([] if path is None else [path])]
        _check_report(config.output.report, targets, inputs, overwrite=overwrite)


_LOOKS_LIKE_A_FILE = re.compile(r"[^.]\.[A-Za-z][A-Za-z0-9]{1,4}$")
"""A folder may have a dot in its name (`v1.2`), but `x.txt` or `film.mp` is a mistake."""
_DEPTH_SUFFIXES = {".npy", ".pfm", ".exr", ".ply"}


def _inputs(info: SourceInfo) -> list[Path]:
    """Paths that must not be replaced: the files to be read, and the folder or list that was named."""
    if info.kind not in (SourceKind.STILLS, SourceKind.VIDEO):
        return []
    if not info.name:  # images in memory
        return list(info.files)
    source = Path(info.name)
    return [source, *info.files] if source.exists() else list(info.files)


def rerun_path(output: OutputConfig) -> Path | None:
    """The file that `--rerun` records to, None if it shows a viewer or is not given."""
    return None if output.rerun in (None, RERUN_VIEWER) else Path(str(output.rerun))


def _planned_files(config: Config, plan: OutputPlan) -> list[Path]:
    """Files that still pictures will give, as far as their names are known in advance; without OUT itself."""
    from stream.sinks.depthfiles import DESCRIPTION
    from stream.sinks.naming import FrameNames, sequence_name

    names = plan.info.names or ("000000",) * (plan.kind is OutputKind.PICTURE)
    sequence = "" if plan.info.names else sequence_name(plan.info)
    files = []
    for folder, suffixes in suffixes_by_folder(config, plan).items():
        stems = FrameNames(names, suffixes)
        for name in names:
            stem = stems.stem_of(name, 0)
            files += [folder / ((sequence if suffix == ".exr" else "") + stem + suffix) for suffix in suffixes]
    if plan.depth_path is not None and plan.kind is not OutputKind.PICTURE and "png16" in config.output.save:
        files.append(plan.depth_path / DESCRIPTION)
    return files


def suffixes_by_folder(config: Config, plan: OutputPlan) -> dict[Path, list[str]]:
    """Suffixes of the files in each output folder."""
    from stream.sinks.depthfiles import FILE_SUFFIX, DepthFormat
    from stream.sinks.ply import SUFFIX

    saved = [SUFFIX if name == "ply" else FILE_SUFFIX[DepthFormat(name)] for name in file_formats(config)]
    folders: dict[Path, list[str]] = {}
    if plan.path is not None and plan.kind is OutputKind.FOLDER and config.output.picture != "none":
        folders.setdefault(plan.path, []).append(f".{config.output.picture}")
    if plan.depth_path is not None:
        folders.setdefault(plan.depth_path, []).extend(saved)
    return folders


def _check_report(report: Path, outputs: list[Path], inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse a report that would replace an input, an output or, without `overwrite`, any file but an earlier report.

    Raises:
        OutputError: the path is an input, an output or a folder, or cannot be created.
    """
    from stream.sinks.naming import check_output

    if report.is_dir():
        raise OutputError("is a folder, not a file", where=f"--report {report}")
    if real(report) in {real(path) for path in outputs}:
        raise OutputError("is an output of this run", where=f"--report {report}", hint="choose another name")
    files = [path for path in inputs if not os.path.isdir(path)]
    check_output(report, overwrite=True, inputs=[path for path in files if real(path) == real(report)])
    if report.is_symlink() and not report.exists() and not overwrite:
        raise OutputError("is a link to nothing", where=f"--report {report}", hint="remove it or pass --overwrite")
    if report.is_file() and not is_device_or_pipe(report) and not overwrite and not is_report(report):
        hint = "choose another name or pass --overwrite"
        raise OutputError("the file exists and is not a report", where=f"--report {report}", hint=hint)


def _depth_path(path: Path | None, kind: OutputKind, info: SourceInfo) -> Path:
    if path is None:
        return Path(fitted_stem(re.sub(r"[:/?#*]", "_", info.name), "_depth") + "_depth")
    if kind in (OutputKind.VIDEO, OutputKind.DEPTH_VIDEO):
        stem = Path(path.stem).stem if kind is OutputKind.DEPTH_VIDEO else path.stem
        return path.with_name(fitted_stem(stem, "_depth") + "_depth")
    return path.parent if kind is OutputKind.PICTURE else path


def file_formats(config: Config) -> list[str]:
    """Those of `--save` that give a file for each frame."""
    return [name for name in config.output.save if name not in _NO_FILES]


def depth_codec(config: Config, path: Path) -> DepthCodec:
    """How the depth video `path` stores its numbers: as --depth-codec says, else as its suffix does."""
    if config.output.depth_codec is not None:
        return DepthCodec(config.output.depth_codec)
    is_mp4 = path.name.lower().endswith(DepthCodec.HEVC12.suffix)
    return DepthCodec.HEVC12 if is_mp4 else DepthCodec.FFV1


def _depth_video(config: Config, path: Path | None, kind: OutputKind, info: SourceInfo) -> Path | None:
    """OUT itself, or a file beside OUT, in the folder OUT, or in the current folder."""
    if kind is OutputKind.DEPTH_VIDEO:
        return path
    if "video16" not in config.output.save:
        return None
    suffix = DepthCodec(config.output.depth_codec or DepthCodec.FFV1).suffix
    if path is None:
        return Path(fitted_stem(re.sub(r"[:/?#*]", "_", info.name), f".partial{suffix}") + suffix)
    if kind is OutputKind.FOLDER:
        return path / f"video{suffix}"
    return path.with_name(fitted_stem(path.stem, f".partial{suffix}") + suffix)


def _interrupted(config: Config, path: Path | None) -> LocalStore | None:
    """The segments that this run goes on with; None if there are none, or it starts again.

    Raises:
        OutputError: there are some, and it is not said which of the two is wanted.
    """
    store = None if path is None else LocalStore.beside(path)
    if store is None or not store.exists:
        return None
    if config.output.resume:
        return store
    if not config.output.overwrite:
        what = f"an interrupted run has left what is done of {path}"
        raise OutputError(what, where=store.where, hint="--resume goes on from there, --overwrite starts again")
    return None


def _check_space(config: Config, plan: OutputPlan) -> None:
    """Refuse a run whose files do not fit on the disk; of a resumed one, many are there already."""
    if _interrupted(config, plan.path) is not None:
        return
    for need in by_disk(space_needed(config, plan)):
        check_free_space(need.folder, need.size, need.what)


def space_needed(config: Config, plan: OutputPlan) -> list[Need]:
    """The space that the files of a run take, by folder; videos of pictures are small beside them, and left out."""
    from stream.sinks.naming import estimated_bytes

    size, count, every = plan.info.size, plan.info.frame_count, config.output.every
    if count is None:
        return []
    count = min(count, config.capture.max_frames or count)
    files: list[tuple[Path, str, int]] = []
    if plan.depth_path is not None:
        files += [(plan.depth_path, name, -(-count // every)) for name in file_formats(config)]
    if plan.depth_video is not None:
        name = f"depth video ({depth_codec(config, plan.depth_video)})"
        files.append((plan.depth_video.parent, name, count))
    if plan.path is not None and plan.kind is OutputKind.FOLDER and config.output.picture != "none":
        files.append((plan.path, config.output.picture, count))
    if (recording := rerun_path(config.output)) is not None:
        files.append((recording.parent, "rrd", count))
    return [
        Need(folder=folder, size=estimated_bytes(name, size, number), what=f"{number} × {name}")
        for folder, name, number in files
    ]
