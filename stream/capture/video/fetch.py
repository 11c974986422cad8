"""An image behind a URL: downloaded through FFmpeg, with the options of any network source, and opened like a file.

Invariant: the download is deleted when the source is closed, and no message names it.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from stream.capture.base import CaptureLog, Source
from stream.capture.stills import raw
from stream.capture.stills.formats import SUFFIXES, holds_picture
from stream.capture.video.mjpeg import is_jpeg_stream
from stream.capture.video.reach import Bytes, Reach
from stream.errors import SourceError, reason_of, redacted
from stream.frames import Frame
from stream.media import av

if TYPE_CHECKING:
    from av.container import InputContainer

MAX_BYTES = 1 << 30
_FIRST_LOOK = 1 << 20
"""After so many bytes, and each time that they have doubled, a download is looked at for whether it is one image."""
_MOST_S = 600.0
"""For a whole image, however steadily it drips: 100 MB at 170 kB/s."""
_MAX_NAME = 100
_CHUNK = 1 << 16
_DEMUXERS = frozenset(("image2", "ico", "gif", "apng", "webp"))
"""Of images and of animations, which have no stated duration; others end in `_pipe`."""
_BRANDS = frozenset(("avif", "avis", "heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"))


class NotAVideoError(SourceError):
    """A URL holds an image, or something that FFmpeg does not know; `open_fetched` looks what it is."""


def is_image(container: "InputContainer", url: str) -> bool:
    """Return True if FFmpeg has opened an image or an animation as if it were a video.

    It knows few RAW photos, and takes others for anything: here their suffix decides.
    """
    name = container.format.name
    is_raw = Path(urlsplit(url).path).suffix.lower() in raw.SUFFIXES
    return is_raw or name in _DEMUXERS or name.endswith("_pipe") or container.metadata.get("major_brand") in _BRANDS


def open_fetched(url: str, open_file: Callable[[Path], Source], reach: Reach) -> Source | None:
    """Download an image and open it with `open_file`; None if the content is no image.

    Args:
        url: with http or https.
        open_file: opens the downloaded file.
        reach: of this URL, with its options and time limits.

    Raises:
        SourceError: the download fails, or the image cannot be read.
    """
    folder = TemporaryDirectory(prefix="depthstream-")
    path = Path(folder.name, file_name(url))
    try:
        with path.open("wb") as file, about(url):
            is_picture = _download(url, file, reach)
        if is_picture:
            with about(url):
                return FetchedSource(open_file(path), url, folder, path)
    except BaseException:
        folder.cleanup()
        raise
    folder.cleanup()
    return None


def _download(url: str, file: BinaryIO, reach: Reach) -> bool:
    """Write what a URL holds; return False as soon as it is seen to be no image."""
    with closing(Bytes(reach, url)) as source:
        size, looked_at = 0, _FIRST_LOOK
        is_endless = source.size <= 0  # the server states no size
        ends_s = reach.clock() + _MOST_S
        while data := source.read(_CHUNK):
            if size == 0 and not holds_picture(data, Path(file.name).suffix):
                return False
            reach.opened()
            reach.renew()
            size += file.write(data)
            if is_endless and size >= looked_at:
                looked_at *= 2
                file.flush()
                if is_jpeg_stream(Path(file.name), is_named_photo=True):
                    what = "is no image but a stream of JPEGs without a stated end"
                    raise SourceError(what, where=redacted(url), hint="add --live live")
            if reach.clock() > ends_s:
                what = f"the image does not arrive within {_MOST_S / 60:g} minutes"
                raise SourceError(what, where=redacted(url), hint="download it with another program")
            if size > MAX_BYTES:
                what = f"the image does not end within {MAX_BYTES >> 30} GiB"
                raise SourceError(what, where=redacted(url), hint="if it is a video stream, add --live live")
        if source.error is not None:
            raise source.error
    return size > 0


def file_name(url: str) -> str:
    """Return the last part of a URL as a file name, without the suffix of a script (`snapshot.cgi`)."""
    return plain_name(Path(unquote(urlsplit(redacted(url)).path)).name)


def plain_name(name: str) -> str:
    """Return a name from elsewhere as one that any disk takes; it has the suffix of a picture or none."""
    name = re.sub(r"[^\w.-]", "_", name)[-_MAX_NAME:].strip(".") or "image"
    return name if Path(name).suffix.lower() in SUFFIXES else Path(name).stem


@contextmanager
def about(url: str) -> Iterator[None]:
    """Let errors name the URL and not the downloaded file."""
    try:
        yield
    except SourceError as error:
        raise SourceError(error.what, where=redacted(url), allowed=error.allowed, hint=error.hint) from error
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(f"reading failed: {reason_of(error)}", where=redacted(url)) from error


class FetchedSource(Source):
    """Reads `source`, and deletes the folder of its file with it."""

    def __init__(self, source: Source, url: str, folder: "TemporaryDirectory[str]", path: Path) -> None:
        self._source, self._url, self._folder, self._path = source, url, folder, str(path)
        notes = tuple(note.replace(self._path, redacted(url)) for note in source.info.notes)
        self.info = replace(source.info, name=redacted(url), notes=notes)

    @property
    def log(self) -> CaptureLog:
        """See `Source`; messages name the URL."""
        return self._source.log.renamed(self._path, redacted(self._url))

    @property
    def silence_limit_s(self) -> float | None:
        """See `Source`."""
        return self._source.silence_limit_s

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        with about(self._url):
            yield from self._source

    def interrupt(self) -> None:
        """See `Source`."""
        self._source.interrupt()

    def close(self) -> None:
        """See `Source`."""
        self._source.close()
        self._folder.cleanup()
