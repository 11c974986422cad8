"""What the text of a source means.

Invariant: decided from the text and the kind of file alone; nothing is opened. A file or folder that has exactly this
name is what is meant, whatever else the text could be; only `cam:N` always means the camera. `./NAME` always means a
file.
"""

import os
import re
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from stream.errors import SourceNotFoundError, UsageError, redacted
from stream.files import expanded, path_of_url
from stream.remote.urls import SCHEMES as REMOTE_SCHEMES
from stream.remote.urls import is_remote
from stream.remote.urls import parse as parse_remote

SCHEMES = (
    "rtsp",
    "rtsps",
    "rtmp",
    "rtmps",
    "http",
    "https",
    "udp",
    "tcp",
    "srt",
    "rtp",
    "hls",
    "hls+http",
    "hls+https",
)
"""URL schemes that are opened as a network source."""
MOST_CAMERA = 999_999
"""Far above any camera's number; OpenCV takes no more than 32 bits, Python converts no more than 4300 digits."""
_LONGEST = 40
"""An error shows so much of a number."""
_CAMERA = re.compile(r"cam:([0-9]+|/dev/.+)", re.IGNORECASE)
STDIN = "-"
_STDIN_PATH = "/dev/stdin"


class SourceForm(StrEnum):
    """The form of what was typed."""

    CAMERA = "camera"
    PATTERN = "pattern"
    NETWORK = "network"
    REMOTE = "remote"
    """A file, folder or glob in a bucket or on a file server."""
    FOLDER = "folder"
    GLOB = "glob"
    LIST = "list"
    PICTURE = "picture"
    VIDEO = "video"
    PIPE = "pipe"
    """Standard input, a named pipe or `/dev/fd/N`: read only once, from its start to its end."""


@dataclass(frozen=True, kw_only=True)
class ParsedSource:
    """What a source text means.

    Attributes:
        form: see `SourceForm`; a file is what its suffix says, and a video where that says nothing.
        value: camera index or device, pattern name, URL with a lower-case scheme, path or glob; `-` for standard input.
        note: what else the text could mean, and how to ask for that; "" if nothing.
    """

    form: SourceForm
    value: str
    note: str = ""


def parse_source(text: str) -> ParsedSource:
    """What `text` means, without opening anything.

    Blanks around a path are part of it; those around anything else are dropped.

    Raises:
        UsageError: blank, or neither a path nor a form that is known.
    """
    bare = text.strip()
    if not bare:
        raise UsageError("the source is empty", allowed="camera, file, folder, glob, .txt list, URL or pattern:NAME")
    if bare == STDIN:
        return _stdin()
    is_there = os.path.exists(text)
    if _is_endless(bare):
        raise UsageError(
            "is a device that never ends, or sends nothing of its own", where=bare, hint="name a camera or file"
        )
    if bare.startswith(("/dev/video", "/dev/v4l/")):
        return ParsedSource(form=SourceForm.CAMERA, value=bare)
    if camera := _CAMERA.fullmatch(bare):
        note = f"{text} is read as the camera; ./{text} is the {_kind(text)} of that name" if is_there else ""
        return ParsedSource(form=SourceForm.CAMERA, value=_camera(camera[1], bare), note=note)
    if is_there:
        return replace(_path(text), note=_other_meaning(text))
    prefix, _, rest = bare.partition(":")
    prefix = prefix.lower()
    if bare.isascii() and bare.isdecimal():
        return ParsedSource(form=SourceForm.CAMERA, value=_camera(bare, bare))
    if prefix == "cam":
        raise UsageError(f"{rest!r} is not a camera number", where=bare, allowed="cam:0, cam:1, … or /dev/videoN")
    if prefix == "pattern":
        return ParsedSource(form=SourceForm.PATTERN, value=rest)
    if prefix == "file":
        return _path(path_of_url(bare))
    if is_remote(bare):
        place = parse_remote(bare)
        return ParsedSource(form=SourceForm.REMOTE, value=place.with_path(place.path))
    if "://" in bare:
        return _url(bare)
    if prefix in SCHEMES:
        what, hint = "is neither a file nor a URL", f"a URL begins with {prefix}://"
        raise SourceNotFoundError(what, where=bare, hint=hint)
    return _path(expanded(text))


def may_be_live(text: str) -> bool:
    """Whether `text` means a camera, a test pattern or a network source, which may still turn out to be a file."""
    try:
        form = parse_source(text).form
    except UsageError:
        return False
    return form in (SourceForm.CAMERA, SourceForm.PATTERN, SourceForm.NETWORK)


def _camera(device: str, where: str) -> str:
    """A camera's number or path.

    Raises:
        UsageError: the number is too large for a camera's.
    """
    if device.isdecimal() and len(device.lstrip("0")) > len(str(MOST_CAMERA)):
        where = where if len(where) < _LONGEST else f"{where[:_LONGEST]}…"
        raise UsageError("is not a camera's number", where=where, allowed=f"0 to {MOST_CAMERA}")
    return device


def _kind(path: str) -> str:
    return "folder" if os.path.isdir(path) else "file"


def _other_meaning(text: str) -> str:
    """The note for a path that would be something else if it did not exist."""
    name = f"{text} is read as the {_kind(text)} of that name"
    if text.isascii() and text.isdecimal():
        return f"{name}; for the camera, name cam:{text}"
    if text.lower().startswith("pattern:"):
        return f"{name}, not as a test pattern"
    return f"{name}, not as a URL" if "://" in text else ""


def _stdin() -> ParsedSource:
    """A file where standard input was redirected from one (`< clip.mp4`): it can be read again."""
    with suppress(OSError):
        if stat.S_ISREG(os.fstat(0).st_mode) and os.path.exists(_STDIN_PATH):
            return _path(_STDIN_PATH)
    return ParsedSource(form=SourceForm.PIPE, value=STDIN)


def _url(text: str) -> ParsedSource:
    scheme, _, rest = text.partition("://")
    try:
        urlsplit(text)
    except ValueError:  # its message and the text may hold a password that cannot be told from the rest
        hint = "write the special characters of a password as %XX: %5B for ["
        raise UsageError("not a valid URL", where=f"{scheme}://…", hint=hint) from None
    if scheme.lower() not in SCHEMES:
        what = f"unknown kind of URL {scheme.lower()}://"
        raise UsageError(what, where=redacted(text), allowed=", ".join((*SCHEMES, *REMOTE_SCHEMES, "file")))
    return ParsedSource(form=SourceForm.NETWORK, value=f"{scheme.lower()}://{rest}")


def _path(path: str) -> ParsedSource:
    from stream.capture.stills.find import LIST_SUFFIX, is_pattern
    from stream.capture.stills.formats import SUFFIXES

    suffix = Path(path).suffix.lower()
    if os.path.isdir(path):
        form = SourceForm.FOLDER
    elif _is_pipe(path):
        form = SourceForm.PIPE
    elif is_pattern(path) and not os.path.exists(path):
        form = SourceForm.GLOB
    elif suffix == LIST_SUFFIX:
        form = SourceForm.LIST
    else:
        form = SourceForm.PICTURE if suffix in SUFFIXES else SourceForm.VIDEO
    return ParsedSource(form=form, value=path)


def _is_endless(path: str) -> bool:
    """Whether `path` is one of Linux's memory devices, such as `/dev/zero` and `/dev/urandom`, but for `/dev/null`."""
    if sys.platform != "linux" or path == _STDIN_PATH:
        return False
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) == 1 and os.minor(found.st_rdev) != 3


def _is_pipe(path: str) -> bool:
    """Whether `path` exists and can be read only once: a pipe, a socket, or a character device such as a terminal."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
