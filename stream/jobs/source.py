"""From a config to an open source, and to a few sample frames from all over it.

Invariant: `sample` closes whatever it opens, and decodes no more frames than its seeks need.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import Source, WrappedSource
from stream.config import CaptureConfig, Config
from stream.errors import ConfigError, SourceError, UsageError
from stream.frames import Frame, SourceInfo, SourceKind

if TYPE_CHECKING:
    from stream.capture.memory import Images


def check_source(config: Config) -> None:
    """Refuse a source that cannot be one, without opening it.

    Raises:
        UsageError: the text means nothing, or the file or folder does not exist.
    """
    from stream.capture.parse import SourceForm, parse_source
    from stream.capture.stills.find import not_found

    parsed = parse_source(_named(config))
    is_path = parsed.form in (SourceForm.FOLDER, SourceForm.LIST, SourceForm.PICTURE, SourceForm.VIDEO)
    if is_path and not os.path.lexists(parsed.value):
        raise not_found(Path(parsed.value))


def open_config_source(config: Config, *, first: int = 0) -> Source:
    """Open the source that `config` names.

    Args:
        first: see `open_source`.

    Raises:
        StreamError: the source is missing, cannot be opened, or does not take one of the options.
    """
    from stream.capture.open import open_source

    name = _named(config)
    if name.lower().endswith((".depth.mkv", ".depth.mp4")) and Path(name).is_file():
        what, hint = "is a depth video, whose numbers are no picture", f"`depthstream render {name}` shows it"
        raise UsageError(what, where=name, hint=hint)
    return open_source(name, options=config.capture, first=first)


def open_given(config: Config, images: "Images") -> Source:
    """Open images that the caller has given, instead of the source that `config` names.

    Raises:
        StreamError: none of them can be read, or one of the options does not apply to images.
    """
    from stream.capture.open import open_images

    return open_images(images, options=config.capture)


class OpenedSource(WrappedSource):
    """A source that a program has opened, with what a run that takes it must know.

    Attributes:
        text: what it was opened with; None for images.
        options: those that it was opened with.
    """

    def __init__(self, source: Source, *, text: str | None, options: CaptureConfig) -> None:
        super().__init__(source)
        self.text, self.options = text, options
        self._is_read = False

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`; a second time is an error.

        Raises:
            UsageError: it has been read, or is being read.
        """
        if self._is_read:
            name = self.info.name or "source"
            raise UsageError("has been read already: a source is read once", where=name, hint="open it again")
        self._is_read = True
        return iter(self._source)


def opened_source(source: object, options: Mapping[str, object]) -> OpenedSource:
    """Open a source for a program; see `stream.open_source`."""
    from stream.capture.memory import Images, Opened, given
    from stream.jobs.keys import is_of_source
    from stream.jobs.options import check_only, from_options

    check_only(options, is_of_source, to="a source")
    found = given(source)
    if isinstance(found, Opened):
        raise UsageError("it is open already", where="source")
    text = None if isinstance(found, Images) else found
    config = from_options(text, options)
    opened = open_given(config, found) if isinstance(found, Images) else open_config_source(config)
    return OpenedSource(opened, text=text, options=config.capture)


def of_opened(source: Source, options: Mapping[str, object]) -> Config:
    """The config of a run that reads a source which is open.

    Args:
        options: those of the run.

    Raises:
        UsageError: one of them had to be given when the source was opened.
    """
    from stream.jobs.keys import is_of_source
    from stream.jobs.options import check_free, from_options

    check_free(options, is_of_source, by="a source that is open already", opener="stream.open_source")
    if not isinstance(source, OpenedSource):
        return from_options(None, options)
    return from_options(source.text, options).model_copy(update={"capture": source.options})


def _named(config: Config) -> str:
    if config.sources:
        hint = "`depthstream run` takes them together; in Python, start one run for each"
        raise ConfigError("only one source can be read here", where="sources", hint=hint)
    if config.source is None:
        raise ConfigError("no SOURCE given", hint="name a camera, file, folder or URL")
    return config.source


def announced_source(config: Config) -> SourceInfo | None:
    """What is known of a live source before it is opened, see `capture.open.announced`; None for any other source.

    Raises:
        StreamError: there is no such source, or it does not take one of the options.
    """
    from stream.capture.open import announced

    return None if config.source is None else announced(config.source, config.capture)


def check_readable_again(config: Config) -> None:
    """Check that the source can be opened more than once.

    Raises:
        UsageError: it is a pipe.
    """
    from stream.capture.parse import SourceForm, parse_source

    if config.source is not None and parse_source(config.source).form is SourceForm.PIPE:
        raise UsageError("a pipe can be read only once", where=config.source, hint="save it to a file first")


def sample(config: Config, count: int, images: "Images | None" = None) -> list[Frame]:
    """Up to `count` frames: spread evenly over a video, a folder or `images`, the first ones of a live source.

    Raises:
        StreamError: the source cannot be opened or read, or only once.
    """
    if images is not None:
        with closing(open_given(config, images.spread(count))) as source:
            return list(source)
    check_readable_again(config)
    with closing(open_config_source(config)) as source:
        info = source.info
        parts = _parts(config, info, count)
        if not parts:
            frames = []
            for frame in source:
                frames.append(frame)
                if len(frames) == count:
                    break
            return frames
    found = []
    for part in parts:
        try:
            with closing(open_config_source(part)) as source:
                found += [frame for frame, _ in zip(source, range(1), strict=False)]
        except SourceError:
            continue  # the run itself names what cannot be read
    return found


def _parts(config: Config, info: SourceInfo, count: int) -> list[Config]:
    """One config for each sample; none if the source has to be read from its start."""
    capture = config.capture
    if info.kind is SourceKind.STILLS and len(info.files) > count:
        chosen = [info.files[len(info.files) * number // count] for number in range(count)]
        return [config.model_copy(update={"source": str(path)}) for path in chosen]
    if info.kind is SourceKind.VIDEO and info.rate and info.frame_count and info.frame_count > count:
        start_s = capture.start or 0.0
        length_s = float(info.frame_count / info.rate)
        starts = [start_s + length_s * (number + 0.5) / count for number in range(count)]
        updates = [{"start": start, "end": None, "max_frames": 1} for start in starts]
        return [config.model_copy(update={"capture": capture.model_copy(update=update)}) for update in updates]
    return []
