"""Sources in buckets and on file servers: a video is read where it lies, pictures are fetched one by one.

Invariant: no more of a video is fetched than is read of it, and no file of a source stays on the disk after `close`.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from stream.capture.base import CaptureLog, Source, WrappedSource
from stream.capture.limits import Limits
from stream.capture.stills.source import ImagesSource
from stream.errors import SourceError, SourceNotFoundError, StreamError, redacted
from stream.frames import Frame, SourceKind
from stream.notes import note
from stream.remote.access import Entry, Remote
from stream.remote.urls import parse

if TYPE_CHECKING:
    from stream.capture.stills.picture import Picture
    from stream.config import CaptureConfig
    from stream.remote.reading import RemoteFile

_FETCHED_AHEAD = 8
"""Pictures that are fetched before they are asked for."""
_KEPT_BEHIND = 8
"""Files of pictures that stay, because they may still be decoded."""
_WORKERS = 4
_VIDEOS = frozenset((".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"))


def open_remote(
    url: str,
    options: "CaptureConfig",
    *,
    decoder: str,
    rate: Fraction | None,
    check_video: Callable[[], None],
    for_stills: "Callable[[CaptureConfig], CaptureConfig]",
    open_file: Callable[[Path], Source],
) -> Source:
    """Open what a URL names: a video, a picture, or the pictures of a folder (`…/photos/`) or glob.

    Args:
        decoder: see `VideoSource`.
        rate: of pictures that become a video.
        check_video: refuses options that do not apply to a video.
        for_stills: the options of a reader of stills, after refusing those that do not apply to one.
        open_file: opens a picture that was fetched.

    Raises:
        SourceNotFoundError: there is nothing of that name.
        SourceError: it cannot be read.
        UsageError: an option does not apply to it.
    """
    from stream.capture.stills.formats import PREFIX_BYTES, holds_picture
    from stream.remote.reading import RemoteFile

    stop = threading.Event()
    remote = Remote(url, timeout_s=options.read_timeout_s, stop=stop)
    entry = remote.named(url)
    if entry is None:
        return _open_pictures(remote, url, for_stills(options), rate)
    if not entry.size:
        raise SourceError("the file is empty", where=url)
    log = CaptureLog()

    def on_retry(line: str) -> None:
        log.reconnects += 1
        log.notes.append(line)
        note(line)  # nobody looks at the log until the source is open

    file = RemoteFile(remote, entry, stop=stop, on_retry=on_retry)
    head = file.read(PREFIX_BYTES)
    file.check()
    if holds_picture(head, PurePosixPath(entry.name).suffix):
        return _open_picture(remote, entry, open_file)
    file.seek(0)
    check_video()
    return _open_video(file, options, log, decoder)


def remote_file(url: str, options: "CaptureConfig") -> "RemoteFile":
    """A file as `open_remote` reads it, for who looks at its container.

    Raises:
        SourceError: there is none.
    """
    from stream.remote.reading import RemoteFile

    stop = threading.Event()
    remote = Remote(url, timeout_s=options.read_timeout_s, stop=stop)
    return RemoteFile(remote, remote.state(url), stop=stop)


def _open_video(file: "RemoteFile", options: "CaptureConfig", log: CaptureLog, decoder: str) -> Source:
    from stream.capture import resample
    from stream.capture.video import hwaccel
    from stream.capture.video.file import VideoSource, list_refused
    from stream.errors import reason_of
    from stream.media import av, refused_format

    limits = Limits.of(options)
    try:
        container = hwaccel.open_container(file.url, decoder, log, limits=limits, file=file)
        source = VideoSource(
            file.url,
            container=container,
            log=log,
            kind=SourceKind.NETWORK,
            start_s=options.start,
            end_s=options.until,
            max_frames=resample.of_reader(options).max_frames,
            deinterlace=options.deinterlace,
            limits=limits,
        )
    except (av.error.FFmpegError, OSError, StreamError) as error:
        file.check()
        if isinstance(error, StreamError):
            raise
        if isinstance(error, av.error.InvalidDataError):
            what = "is not a video in a supported format, or its header is missing (cut off?)"
            raise SourceError(what, where=file.url) from error
        if demuxer := refused_format(error):
            raise list_refused(demuxer, redacted(file.url)) from error
        raise SourceError(f"cannot be opened: {reason_of(error)}", where=file.url) from error
    return RemoteVideo(source, file)


class RemoteVideo(WrappedSource):
    """A video that is read through `file`."""

    def __init__(self, source: Source, file: "RemoteFile") -> None:
        super().__init__(source)
        self.info = replace(source.info, name=file.url)  # which holds no secret, and may hold what looks like one
        self.file = file

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        for frame in self._source:
            self.file.check()  # what is decoded after an error is half a frame
            yield frame
        self.file.check()

    def read_sound(self, until_s: float | None) -> None:
        """See `Source`."""
        super().read_sound(until_s)
        self.file.check()

    def interrupt(self) -> None:
        """See `Source`; it ends the wait for a lost connection, too."""
        self.file.stop()
        super().interrupt()

    def close(self) -> None:
        """See `Source`."""
        super().close()
        self.file.close()


def _open_picture(remote: Remote, entry: Entry, open_file: Callable[[Path], Source]) -> Source:
    """Fetch a picture, and open it like a file."""
    from stream.capture.video.fetch import FetchedSource, about, plain_name

    folder = TemporaryDirectory(prefix="depthstream-")
    try:
        path = Path(folder.name, plain_name(entry.name))
        _fetch(remote, entry, path)
        with about(entry.url):
            opened = open_file(path)
        fetched = FetchedSource(opened, entry.url, folder, path)
        fetched.info = replace(fetched.info, name=entry.url)  # with all of a name that looks like a query
        return fetched
    except BaseException:
        folder.cleanup()
        raise


def _fetch(remote: Remote, entry: Entry, path: Path) -> Path:
    from stream.capture.video.fetch import MAX_BYTES

    if entry.size > MAX_BYTES:
        raise SourceError(f"the image has {entry.size} bytes", where=entry.url, allowed=f"up to {MAX_BYTES >> 30} GiB")
    remote.fetch(entry.url, path)
    return path


def _open_pictures(remote: Remote, url: str, options: "CaptureConfig", rate: Fraction | None) -> Source:
    """The pictures of a folder, with --recursive of those below it too, or those that match a glob."""
    from stream.capture.stills.find import no_pictures, pictures_among

    found = remote.files(url, recursive=options.recursive)
    if not found and parse(url).is_pattern:
        raise SourceNotFoundError("no file matches", where=url)
    root = _root_of(url, found)
    entries = {entry.url.removeprefix(root): entry for entry in found}
    visible = [name for name in entries if not any(part.startswith(".") for part in name.split("/"))]
    names, ignored, because = pictures_among(visible)
    if not names:
        has_video = any(PurePosixPath(name).suffix.lower() in _VIDEOS for name in ignored)
        raise no_pictures(url, len(ignored), hint="name one of its videos" if has_video else "")
    return RemoteImages(
        remote, {name: entries[name] for name in names}, url, options, rate, ignored=ignored, ignored_because=because
    )


class RemoteImages(ImagesSource):
    """Fetches each picture before it is opened, and deletes it some pictures later.

    Args:
        entries: by the names of the frames.
        url: as the user typed it.
        rate: frames per second if they become a video.
        ignored, ignored_because: see `ImagesSource`.
    """

    def __init__(
        self,
        remote: Remote,
        entries: Mapping[str, Entry],
        url: str,
        options: "CaptureConfig",
        rate: Fraction | None,
        *,
        ignored: Sequence[str] = (),
        ignored_because: str = "",
    ) -> None:
        self._remote, self._files = remote, TemporaryDirectory(prefix="depthstream-")
        folder = Path(self._files.name)  # names in a bucket may be anything, such as ../a.jpg
        self._names = {folder / f"{n}{PurePosixPath(name).suffix}": name for n, name in enumerate(entries)}
        self._entries = {path: entries[name] for path, name in self._names.items()}
        self._upcoming = deque(self._names)
        self._fetching: dict[Path, Future[Path]] = {}
        self._behind: deque[Path] = deque()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="depthstream-fetch")
        try:
            super().__init__(
                list(self._names),
                name=url,
                rate=rate,
                max_frames=options.max_frames,
                limits=Limits.of(options),
                ignored=ignored,
                ignored_because=ignored_because,
            )
        except BaseException:
            self._discard()
            raise
        self.info = replace(self.info, files=())  # nothing that an output could replace

    def interrupt(self) -> None:
        """See `Source`."""
        self._remote.stop()
        super().interrupt()

    def close(self) -> None:
        """See `Source`."""
        super().close()
        self._discard()

    def _discard(self) -> None:
        self._remote.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._files.cleanup()

    def _open(self, path: Path) -> "Picture":
        self._fetch_ahead()
        if (coming := self._fetching.pop(path, None)) is not None:
            coming.result()
        elif not path.exists():
            _fetch(self._remote, self._entries[path], path)
        self._behind.append(path)
        while len(self._behind) > _KEPT_BEHIND:
            with suppress(OSError):  # still open, on Windows; or opened twice, as the first one is
                self._behind.popleft().unlink()
        try:
            return super()._open(path)
        except SourceError as error:
            where = self._entries[path].url
            raise SourceError(error.what, where=where, allowed=error.allowed, hint=error.hint) from error

    def _fetch_ahead(self) -> None:
        while self._upcoming and len(self._fetching) < _FETCHED_AHEAD:
            path = self._upcoming.popleft()
            self._fetching[path] = self._pool.submit(
                copy_context().run, _fetch, self._remote, self._entries[path], path
            )

    def _name_of(self, path: Path) -> str:
        return self._names[path]


def _root_of(url: str, found: list[Entry]) -> str:
    """What the names of pictures are relative to: the folder, or what all that match a glob have in common."""
    if not parse(url).is_pattern:
        return url.rstrip("/") + "/"
    folders = {entry.url.rpartition("/")[0] for entry in found}
    shortest = min(folders, key=len)
    while not all(folder == shortest or folder.startswith(f"{shortest}/") for folder in folders):
        shortest = shortest.rpartition("/")[0]
    return f"{shortest}/"
