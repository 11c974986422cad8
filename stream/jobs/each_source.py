"""What each of several sources is before the run begins: what it is called, its config, and what is known of it.

Invariant: nothing is opened but patterns, which need no device.
"""

import re
from collections.abc import Sequence
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

from stream.capture.parse import SourceForm, may_be_live, parse_source
from stream.config import CaptureConfig, Config, defaults
from stream.errors import ConfigError, OutputError, SourceNotFoundError, UsageError, redacted, shown
from stream.files import fitted_stem
from stream.frames import SourceInfo, SourceKind
from stream.jobs.plan import OutputKind, output_kind
from stream.jobs.source import announced_source, open_config_source

_FOR_ONE = {
    "model.also": "-m several times",
    "inference.target_fps": "--target-fps",
    "output.virtual_camera": "--virtual-camera",
    "output.rerun": "--rerun",
    "output.resume": "--resume",
}
"""Keys that apply to one source, and how they are typed."""
_TAKEN_BY = {
    "input_options": {SourceForm.NETWORK},
    "hwaccel": {SourceForm.NETWORK},
    "deinterlace": {SourceForm.NETWORK},
    "live": {SourceForm.NETWORK},
    "camera_size": {SourceForm.CAMERA, SourceForm.PATTERN},
    "camera_fps": {SourceForm.CAMERA, SourceForm.PATTERN},
    "camera_fourcc": {SourceForm.CAMERA},
}
"""Options of capture that only some kinds of sources take."""


def check_is_for_several(config: Config) -> None:
    """Refuse what applies to one source.

    Raises:
        UsageError: `config` asks for it.
    """
    for key, flag in _FOR_ONE.items():
        section, _, name = key.partition(".")
        if getattr(getattr(config, section), name) != getattr(getattr(defaults(), section), name):
            raise ConfigError("does not apply to several sources", where=flag, hint="start a run for each source")
    path = config.output.path
    if isinstance(path, str) or (path is not None and output_kind(path) is not OutputKind.FOLDER):
        what, hint = "several sources need a folder, which gets a video for each", "name a folder with -o"
        raise OutputError(what, where=f"-o {redacted(str(path))}", hint=hint)
    if path is None and config.output.save:
        raise ConfigError("several sources need a folder for that", where="--save", hint="name a folder with -o")


def names_of(sources: Sequence[str]) -> list[str]:
    """What messages call each source; numbered where two would have the same name."""
    names: list[str] = []
    for source in sources:
        name = shown(redacted(source.strip()))
        numbered, count = name, 1
        while numbered in names:
            count += 1
            numbered = f"{name} ({count})"
        names.append(numbered)
    return names


def stems_of(sources: Sequence[str]) -> list[str]:
    """What the files of each source are called, without secrets; clashes are numbered."""
    stems: list[str] = []
    for source in sources:
        parsed = parse_source(source)
        text = parsed.value
        if parsed.form is SourceForm.CAMERA:
            text = f"cam{text}"
        elif parsed.form is SourceForm.NETWORK:
            url = urlsplit(redacted(text))
            text = f"{url.netloc.rpartition('@')[2]}{url.path}"
        stem = re.sub(r"[^\w.-]+", "_", text).strip("._") or "source"
        stem = fitted_stem(stem, "-999.partial.depth.mkv")
        numbered, count = stem, 1
        while numbered.casefold() in (before.casefold() for before in stems):
            count += 1
            numbered = f"{stem}-{count}"
        stems.append(numbered)
    return stems


def config_of_one(config: Config, number: int, stems: Sequence[str]) -> Config:
    """The config of one source.

    Options of capture that its kind does not take are left out if another source takes them.
    """
    forms = [parse_source(source).form for source in config.sources]
    own = forms[number]
    names = [name for name, kinds in _TAKEN_BY.items() if own not in kinds and kinds & set(forms)]
    untouched = defaults().capture
    capture: CaptureConfig = config.capture.model_copy(update={name: getattr(untouched, name) for name in names})
    capture = capture.shared_by(len(forms))
    folder = config.output.path
    path = folder / f"{stems[number]}.mp4" if isinstance(folder, Path) else None
    output = config.output.model_copy(update={"path": path})
    update = {"source": config.sources[number], "sources": (), "capture": capture, "output": output}
    return config.model_copy(update=update)


def known_of(config: Config) -> SourceInfo:
    """What is known of a source before the run begins.

    Raises:
        UsageError: it is not live, there is no such pattern, or it does not take one of the options.
    """
    source = config.source or ""
    form = parse_source(source).form
    if not may_be_live(source):
        hint = "`depthstream batch` works through files"
        raise UsageError("only live sources can run together", where=redacted(source), hint=hint)
    if form is SourceForm.PATTERN:
        with closing(open_config_source(config)) as opened:
            return opened.info
    with suppress(SourceNotFoundError):  # a camera that is absent: its own thread says so
        if (announced := announced_source(config)) is not None:
            return announced
    name, kind = redacted(source), SourceKind.NETWORK  # it may end: known only when it is open
    if form is SourceForm.CAMERA:
        value = parse_source(source).value
        name, kind = f"cam:{value}" if value.isdecimal() else value, SourceKind.CAMERA
    return SourceInfo(
        name=name, size=(1, 1), is_live=True, time_base=Fraction(1), rate=None, frame_count=None, kind=kind
    )
