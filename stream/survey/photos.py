"""The photos of a survey: one source text as everywhere, or several files, folders and globs together.

Invariant: no file is surveyed twice, and no picture that a survey has made unless it is named itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from stream.capture.base import CaptureLog, Skipped, Source, WrappedSource
from stream.capture.memory import Images
from stream.capture.open import open_images
from stream.capture.parse import ParsedSource, SourceForm, parse_source
from stream.capture.stills.depthfolder import DepthFolder
from stream.capture.stills.find import FoundPictures, common_folder, find_pictures, is_video_name, no_pictures
from stream.capture.stills.source import ImagesSource, ignored_note
from stream.config import Config
from stream.errors import SourceNotFoundError, UsageError
from stream.files import partial_path, real
from stream.frames import Frame, SourceInfo
from stream.jobs.plan import named_after
from stream.jobs.source import open_config_source
from stream.notes import note
from stream.survey.sink import NUMBERS, PICTURES

_MANY = (SourceForm.FOLDER, SourceForm.GLOB, SourceForm.LIST)
_FILES = (*_MANY, SourceForm.PICTURE, SourceForm.VIDEO)
_MOST_NAMED = 3
_MOST_FRAMES = 8
"""Frames of an animation among photos; it is surveyed as a clip if it is named alone."""


def open_photos(texts: Sequence[str], config: Config, truth: DepthFolder | None = None) -> Source:
    """Open what the user has named.

    Args:
        texts: one SOURCE of any form that `open_source` knows, or several files, folders, globs and lists of images.
        config: with the options of `capture`.
        truth: depth of photos. A file of it that lies among them is no photo.

    Raises:
        StreamError: one of them does not exist, has no images, or cannot be read.
        UsageError: several are named, and one of them is no image file, folder, glob or list.
    """
    parsed = [parse_source(text) for text in texts]
    if len(texts) == 1 and parsed[0].form not in _MANY:
        return open_config_source(config.model_copy(update={"source": texts[0], "sources": ()}))
    for text, one in zip(texts, parsed, strict=True):
        if one.form not in _FILES:
            raise UsageError("is no file or folder", where=text, hint="name it without others")
        if is_video_name(one.value):
            raise UsageError("a video is surveyed alone", where=text, hint="name it without others")
        if one.note:
            note(one.note)
    return _open_files(texts, parsed, config, truth)


def default_folder(info: SourceInfo) -> Path:
    """The folder for a survey of these photos, in the current folder: PHOTOS_survey."""
    if Path(info.name).is_file():
        name = Path(info.name).stem
    elif "://" in info.name:
        name = PurePosixPath(urlsplit(info.name).path).stem
    else:
        name = real(common_folder(info.files) if info.files else Path(info.name)).name
    return named_after(name or "photos", "_survey")


class _Found(WrappedSource):
    """Photos with the name by which the user knows them, and what happened when they were looked for."""

    def __init__(self, source: Source, *, name: str, log: CaptureLog) -> None:
        super().__init__(source)
        self.info = replace(source.info, name=name)
        self._found = log

    @property
    def log(self) -> CaptureLog:
        """See `Source`."""
        return self._found.plus(self._source.log)

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        return iter(self._source)


def _open_files(
    texts: Sequence[str], parsed: Sequence[ParsedSource], config: Config, truth: DepthFolder | None
) -> Source:
    log, files, repeated, made = CaptureLog(), dict[Path, Path](), list[str](), list[Path]()
    for one in parsed:
        found = find_pictures(one.value, recursive=config.capture.recursive or False)
        _log(found, log)
        for path in found.paths:
            if one.form in _MANY and _is_of_survey(path):
                made.append(path)
            elif files.setdefault(real(path), path) is not path:
                repeated.append(path.name)
    if repeated:
        log.notes.append(ignored_note(repeated, "the same file as one before"))
    if files and truth is not None and (depths := truth.among(files.values())):
        files = {key: path for key, path in files.items() if key not in depths}
        log.ignored += len(depths)
        log.notes.append(ignored_note([path.name for path in depths], "the depth of a photo"))
    if made:
        log.ignored += len(made)
        log.notes.append(ignored_note([str(path) for path in made], "made by a survey"))
    name = _name(texts)
    if not files:
        raise no_pictures(name, len(made)) if made else SourceNotFoundError("no images", where=name)
    images = Images([str(path) for path in files.values()])
    source = open_images(images, options=config.capture)
    if isinstance(source, ImagesSource):
        source.spread_animations(_MOST_FRAMES)
    return _Found(source, name=name, log=log)


def _log(found: FoundPictures, log: CaptureLog) -> None:
    log.ignored += len(found.ignored)
    log.notes += found.notes
    log.skipped += [Skipped(name=name, reason=f"cannot be read: {reason}") for name, reason in found.unreadable]
    if found.ignored:
        log.notes.append(ignored_note(found.ignored, found.ignored_because))


def _is_of_survey(path: Path) -> bool:
    """Whether a survey has made this picture: it lies in the pictures of a folder that has a survey's numbers."""
    return any(folder.name == PICTURES and _has_numbers(folder.parent) for folder in path.parents)


@cache
def _has_numbers(folder: Path) -> bool:
    return any(path.is_file() for path in (folder / NUMBERS, partial_path(folder / NUMBERS)))


def short_name(texts: Sequence[str]) -> str:
    """What the user has named, without the folders it lies in: for a report that others get."""
    return _name([_last(text) for text in texts])


def _last(text: str) -> str:
    if "://" in text:
        return PurePosixPath(urlsplit(text).path).name or urlsplit(text).netloc.rpartition("@")[2]
    return Path(text).name if Path(text).name not in ("", "..") else real(Path(text)).name


def _name(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return ", ".join(texts[:_MOST_NAMED]) + more
