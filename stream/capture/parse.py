"""What the text of a source means.

Invariant: decided from the text and the kind of file alone; nothing is opened.
"""

import glob
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from stream.errors import UsageError

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
_PATTERN, _CAMERA = "pattern:", "cam:"


class SourceForm(StrEnum):
    """The form of what was typed."""

    CAMERA = "camera"
    PATTERN = "pattern"
    NETWORK = "network"
    FOLDER = "folder"
    GLOB = "glob"
    LIST = "list"
    PICTURE = "picture"
    VIDEO = "video"


@dataclass(frozen=True, kw_only=True)
class ParsedSource:
    """What a source text means.

    Attributes:
        form: see `SourceForm`; a file is what its suffix says, and a video where that says nothing.
        value: camera index or device, pattern name, URL, path or glob.
    """

    form: SourceForm
    value: str


def parse_source(text: str) -> ParsedSource:
    """What `text` means, without opening anything.

    Raises:
        UsageError: empty, or a URL whose scheme is unknown.
    """
    text = text.strip()
    if not text:
        raise UsageError("the source is empty", allowed="camera, file, folder, glob, .txt list, URL or pattern:NAME")
    if text.isdecimal():
        return ParsedSource(form=SourceForm.CAMERA, value=text)
    if text.startswith(_CAMERA):
        return _camera(text)
    if text.startswith(("/dev/video", "/dev/v4l/")):
        return ParsedSource(form=SourceForm.CAMERA, value=text)
    if text.startswith(_PATTERN):
        return ParsedSource(form=SourceForm.PATTERN, value=text.removeprefix(_PATTERN))
    if "://" in text and not os.path.exists(text):
        return _url(text)
    return _path(os.path.expanduser(text))


def _camera(text: str) -> ParsedSource:
    value = text.removeprefix(_CAMERA)
    if not value.isdecimal() and not value.startswith("/dev/"):
        raise UsageError(f"{value!r} is not a camera number", where=text, allowed="cam:0, cam:1, … or /dev/videoN")
    return ParsedSource(form=SourceForm.CAMERA, value=value)


def _url(text: str) -> ParsedSource:
    try:
        parts = urlsplit(text)
    except ValueError:  # its message and the text may hold a password that cannot be told from the rest
        hint = "write the special characters of a password as %XX: %5B for ["
        raise UsageError("not a valid URL", where=f"{text.partition('://')[0]}://…", hint=hint) from None
    if parts.scheme.lower() == "file":
        return _path(url2pathname(parts.path))
    if parts.scheme.lower() not in SCHEMES:
        from stream.capture.video.decode import redacted

        what = f"unknown kind of URL {parts.scheme}://"
        raise UsageError(what, where=redacted(text), allowed=", ".join((*SCHEMES, "file")))
    return ParsedSource(form=SourceForm.NETWORK, value=text)


def _path(path: str) -> ParsedSource:
    from stream.capture.stills.find import LIST_SUFFIX
    from stream.capture.stills.picture import SUFFIXES

    suffix = Path(path).suffix.lower()
    if os.path.isdir(path):
        form = SourceForm.FOLDER
    elif glob.has_magic(path) and not os.path.exists(path):
        form = SourceForm.GLOB
    elif suffix == LIST_SUFFIX:
        form = SourceForm.LIST
    else:
        form = SourceForm.PICTURE if suffix in SUFFIXES else SourceForm.VIDEO
    return ParsedSource(form=form, value=path)
