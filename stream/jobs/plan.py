"""Plans what a run writes and shows, and refuses what cannot work before any work is done.

Invariant: once `plan_outputs` returns, nothing will be replaced without --overwrite, and the output fits on the disk.
"""

import glob
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from stream.config import Config
from stream.errors import ConfigError, OutputError
from stream.files import check_free_space, check_partial
from stream.frames import SourceInfo, SourceKind
from stream.jobs.report import is_report


class OutputKind(StrEnum):
    """Kind of OUT, by its suffix."""

    VIDEO = "video"
    PICTURE = "picture"
    FOLDER = "folder"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """What a run writes and shows.

    Attributes:
        path: OUT; None if the run is only shown.
        kind: see `OutputKind`.
        depth_path: folder (or OUT's own, for one picture) of the `--save` files, None without them.
        preview: show a window.
        shown_elsewhere: a page or a virtual camera shows the pictures.
    """

    info: SourceInfo
    path: Path | None
    kind: OutputKind
    depth_path: Path | None
    preview: bool
    shown_elsewhere: bool


def output_kind(path: Path) -> OutputKind:
    """Kind of output at a path: by its suffix a video or a picture, otherwise a folder."""
    from stream.sinks import images
    from stream.sinks.encoders import UNWRITTEN_SUFFIXES
    from stream.sinks.video import VIDEO_SUFFIXES

    suffix = path.suffix.lower()
    if path.is_dir():
        return OutputKind.FOLDER
    if suffix in VIDEO_SUFFIXES | UNWRITTEN_SUFFIXES:
        return OutputKind.VIDEO
    if suffix in images.SUFFIXES:
        return OutputKind.PICTURE
    return OutputKind.FOLDER


def default_output(info: SourceInfo) -> Path | None:
    """Path of the results if OUT is not given: None (a preview) for live sources, else a name in the current folder."""
    if info.is_live:
        return None
    if info.kind is SourceKind.STILLS:
        source = Path(info.name)
        if source.is_dir():
            return Path(f"{source.resolve().name}_depth")
        if (glob.has_magic(info.name) and not source.exists()) or source.suffix.lower() == ".txt":
            return Path("depth_out")
        return Path(f"{source.stem}_depth.png")
    stem = Path(urlsplit(info.name).path).stem if info.kind is SourceKind.NETWORK else Path(info.name).stem
    return Path(f"{(stem or 'stream').replace(':', '_')}_depth.mp4")


def plan_outputs(config: Config, info: SourceInfo) -> OutputPlan:
    """Decide and check everything that will be written.

    Raises:
        OutputError: an output exists, is the input, cannot be written or will not fit.
        ConfigError: options contradict each other or the source.
    """
    plan = _decide(config, info)
    _check_name(config, plan)
    _check_options(config, plan)
    _check_files(config, plan)
    _check_space(config, plan)
    return plan


def _decide(config: Config, info: SourceInfo) -> OutputPlan:
    """Interpret the options for this source, without checking anything."""
    output = config.output
    shown_live = output.virtual_camera or (output.serve is not None and info.is_live)
    path = output.path or (None if shown_live else default_output(info))
    kind = OutputKind.NONE if path is None else output_kind(path)
    only_previewed = info.is_live and output.path is None and not shown_live
    return OutputPlan(
        info=info,
        path=path,
        kind=kind,
        depth_path=_depth_path(path, kind, info) if output.save else None,
        preview=output.preview == "window" or (output.preview == "auto" and only_previewed),
        shown_elsewhere=shown_live,
    )


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
    from stream.live.server import parse_address

    output, info, is_video = config.output, plan.info, plan.kind is OutputKind.VIDEO
    if output.serve_token is not None and output.serve is None:
        raise ConfigError("needs --serve", where="--serve-token", hint="add --serve, or remove it")
    is_open = output.serve is not None and not parse_address(output.serve).is_loopback
    if is_open and output.quiet and output.serve_token is None:
        hint = "set one with --serve-token, or remove --quiet"
        raise ConfigError("--quiet hides the token that viewers need", where="--serve", hint=hint)
    if output.virtual_camera_device is not None and not output.virtual_camera:
        raise ConfigError(
            "needs --virtual-camera", where="--virtual-camera-device", hint="add --virtual-camera, or remove it"
        )
    if info.kind is SourceKind.STILLS:
        if is_video and config.capture.fps is None and len(info.names) > 1:
            raise ConfigError("still images have no frame rate", where="--fps", hint="add for example --fps 24")
        if not is_video and config.capture.fps is not None:
            raise ConfigError(
                "only applies to still images that become a video", where="--fps", hint="name a video (.mp4) for OUT"
            )
    if plan.kind is OutputKind.FOLDER and output.picture == "none" and not output.save:
        raise ConfigError(
            "nothing would be written", where="--picture none", hint="add --save npy, or choose png, jpg or webp"
        )
    if plan.path is None and plan.depth_path is None and not plan.preview and not plan.shown_elsewhere:
        raise ConfigError("nothing would be written or shown", hint="name an output with -o, or remove --no-preview")


def _check_files(config: Config, plan: OutputPlan) -> None:
    """Refuse to replace an input, or without --overwrite anything that exists."""
    from stream.sinks.naming import check_output

    path, overwrite, inputs = plan.path, config.output.overwrite, _inputs(plan.info)
    is_picture = plan.kind is OutputKind.PICTURE
    if path is not None:
        check_output(path, overwrite=overwrite, inputs=inputs)
        if is_picture or plan.kind is OutputKind.VIDEO:
            check_partial(path, overwrite=overwrite)
    if plan.depth_path not in (None, path) and not is_picture:
        check_output(plan.depth_path, overwrite=overwrite, inputs=inputs)
    files = _planned_files(config, plan)
    if is_picture:  # its depth files go into the folder beside it, which may hold anything
        for file in files:
            check_output(file, overwrite=overwrite, inputs=inputs)
    originals = {original.resolve() for original in inputs}
    for file in files:
        if file.resolve() in originals:
            raise OutputError("would replace an input", where=str(file), hint="choose another folder with -o")
    if config.output.report is not None:
        targets = files if path is None else [*files, path]
        _check_report(config.output.report, targets, inputs, overwrite=overwrite)


_LOOKS_LIKE_A_FILE = re.compile(r"[^.]\.[A-Za-z][A-Za-z0-9]{1,4}$")
"""A folder may have a dot in its name (`v1.2`), but `x.txt` or `film.mp` is a mistake."""
_DEPTH_SUFFIXES = {".npy", ".pfm", ".exr"}


def _inputs(info: SourceInfo) -> list[Path]:
    """Paths that must not be replaced: the files to be read, and the folder or list that was named."""
    if info.kind not in (SourceKind.STILLS, SourceKind.VIDEO):
        return []
    source = Path(info.name)
    return [source, *info.files] if source.exists() else list(info.files)


def _planned_files(config: Config, plan: OutputPlan) -> list[Path]:
    """Files that still pictures will give, as far as their names are known in advance; without OUT itself."""
    from stream.sinks.naming import FrameNames

    names = plan.info.names or ("000000",) * (plan.kind is OutputKind.PICTURE)
    files = []
    for folder, suffixes in suffixes_by_folder(config, plan).items():
        stems = FrameNames(names, suffixes)
        for name in names:
            stem = stems.stem_of(name, 0)
            files += [folder / (stem + suffix) for suffix in suffixes]
    return files


def suffixes_by_folder(config: Config, plan: OutputPlan) -> dict[Path, list[str]]:
    """Suffixes of the files in each output folder."""
    from stream.sinks.depthfiles import FILE_SUFFIX, DepthFormat

    folders: dict[Path, list[str]] = {}
    if plan.path is not None and plan.kind is OutputKind.FOLDER and config.output.picture != "none":
        folders.setdefault(plan.path, []).append(f".{config.output.picture}")
    if plan.depth_path is not None:
        folders.setdefault(plan.depth_path, []).extend(FILE_SUFFIX[DepthFormat(name)] for name in config.output.save)
    return folders


def _check_report(report: Path, outputs: list[Path], inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse a report that would replace an input, an output or, without `overwrite`, any file but an earlier report.

    Raises:
        OutputError: the path is an input, an output or a folder, or cannot be created.
    """
    from stream.sinks.naming import check_output

    if report.is_dir():
        raise OutputError("is a folder, not a file", where=f"--report {report}")
    if report.resolve() in {path.resolve() for path in outputs}:
        raise OutputError("is an output of this run", where=f"--report {report}", hint="choose another name")
    files = [path for path in inputs if not path.is_dir()]
    check_output(report, overwrite=True, inputs=[path for path in files if path.resolve() == report.resolve()])
    if report.is_file() and not overwrite and not is_report(report):
        hint = "choose another name or pass --overwrite"
        raise OutputError("the file exists and is not a report", where=f"--report {report}", hint=hint)


def _depth_path(path: Path | None, kind: OutputKind, info: SourceInfo) -> Path:
    if path is None:
        return Path(f"{info.name.replace(':', '_').replace('/', '_')}_depth")
    if kind is OutputKind.VIDEO:
        return path.with_name(f"{path.stem}_depth")
    return path.parent if kind is OutputKind.PICTURE else path


def _check_space(config: Config, plan: OutputPlan) -> None:
    """Refuse a run whose files do not fit on the disk."""
    from stream.sinks.naming import estimated_bytes

    count, folder = plan.info.frame_count, plan.depth_path or plan.path
    if count is None or folder is None:
        return
    count = min(count, config.capture.max_frames or count)
    formats: list[str] = list(config.output.save)
    if plan.kind is OutputKind.FOLDER and config.output.picture != "none":
        formats.append(config.output.picture)
    if formats:
        needed = sum(estimated_bytes(name, plan.info.size, count) for name in formats)
        check_free_space(folder, needed, f"{count} × {' + '.join(formats)}")
