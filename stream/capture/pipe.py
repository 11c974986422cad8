"""Standard input, named pipes and `/dev/fd/N` as sources: what can be read only once, from its start to its end.

A video is decoded as it arrives. What FFmpeg or Pillow can only read by seeking (one picture, an MP4 whose index comes
last) is first read to its end into a temporary file.
Invariant: every byte is read once and reaches the decoder; a wait for the writer ends at once after `stop`.
"""

import errno
import os
import select
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from stream.capture.base import CaptureLog, Source
from stream.capture.limits import Limits
from stream.capture.parse import STDIN
from stream.capture.resample import of_reader
from stream.config import CaptureConfig
from stream.errors import SourceError, StreamError, UsageError, reason_of
from stream.frames import Frame
from stream.media import av, refused_format
from stream.notes import note

_CHUNK = 1 << 16
_POLL_S = 0.1
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n"
_NEXT_PNG = b"IEND\xae\x42\x60\x82" + _PNG
"""The end of a PNG and the start of another: `ffmpeg -f image2pipe` writes videos like this."""
_LARGEST_PICTURE = 256 << 20
"""Bytes of a pipe that are kept in memory to see whether another picture follows the first one."""
_LEAST_PACKET, _PACKET_SHARE = 256 << 20, 0.125
"""Bytes that may come without a packet: so many, or this share of the budget if that is more. A raw frame takes up to 8
of the 120 bytes per pixel that a frame must find there."""
_BEFORE_INDEX = frozenset((b"ftyp", b"free", b"skip", b"wide", b"uuid", b"pnot", b"mdat"))
"""Boxes of MP4 and QuickTime files that may come before `moov`; `mdat` are the pictures themselves."""
_LONGEST_WALK = 1 << 20


class PipeReader:
    """Reads a pipe for FFmpeg, which takes an object with `read` and without `seek` as a stream that cannot seek.

    Args:
        name: of the pipe, for messages.
        fd: the descriptor to read; opened, and closed by `close`.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name, self._fd, self._head, self._stopped = name, fd, bytearray(), threading.Event()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, at least one before the end of the stream; b"" at the end and after `stop`."""
        if self._head:
            data = bytes(self._head[:size])
            del self._head[:size]
            return data
        return self._next(size)

    def peek(self, size: int) -> bytes:
        """Return the first `size` bytes that `read` will return, fewer if the stream ends earlier."""
        while len(self._head) < size and (data := self._next(_CHUNK)):
            self._head += data
        return bytes(self._head[:size])

    def stop(self) -> None:
        """End a running and every later wait for the writer, from any thread."""
        self._stopped.set()

    def shut(self) -> None:
        """Close the descriptor; not named `close`, which PyAV would call."""
        self.stop()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _next(self, size: int) -> bytes:
        # On Windows only sockets can be waited for; there a read blocks until the writer writes or ends.
        fd = self._fd
        if sys.platform != "win32":
            readable = select.poll()  # `select.select` takes no descriptor from 1024
            if self._stopped.is_set():
                return b""
            readable.register(fd, select.POLLIN)
            while not self._stopped.is_set() and not readable.poll(_POLL_S * 1000):
                pass
        return b"" if self._stopped.is_set() else os.read(fd, size)


class Metered:
    """What FFmpeg reads of a pipe: it allocates as much as a container claims a packet to have, if the bytes come.

    Args:
        reader: the pipe.
        most: bytes that may be read without a packet.
    """

    def __init__(self, reader: PipeReader, most: int) -> None:
        self.name, self._reader, self._most, self._taken = reader.name, reader, most, 0

    def read(self, size: int) -> bytes:
        """See `PipeReader`.

        Raises:
            OSError: too much was read without a packet.
        """
        data = self._reader.read(size)
        self._taken += len(data)
        if self._taken > self._most:
            raise OSError(errno.EFBIG, f"more than {self._most >> 20} MiB came that hold no whole picture")
        return data

    def renew(self) -> None:
        """See `media.Budget`."""
        self._taken = 0


class PipedSource(Source):
    """A source that reads a pipe: `interrupt` also ends the wait for the writer. Owns the reader and the spooled file.

    Args:
        source: what decodes the pipe or the file.
        reader: the pipe.
        folder: the folder of the spooled file, None if there is none.
    """

    def __init__(self, source: Source, reader: PipeReader, folder: "tempfile.TemporaryDirectory[str] | None") -> None:
        self._source, self._reader, self._folder = source, reader, folder
        self.info = replace(source.info, name=reader.name)

    @property
    def log(self) -> CaptureLog:
        """See `Source`; messages name the pipe and not the spooled file."""
        log = self._source.log
        if self._folder is None:
            return log
        return log.renamed(str(Path(self._folder.name, Path(self._reader.name).name)), self._reader.name)

    @property
    def silence_limit_s(self) -> float | None:
        """See `Source`."""
        return self._source.silence_limit_s

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        return iter(self._source)

    def interrupt(self) -> None:
        """See `Source`."""
        self._source.interrupt()
        self._reader.stop()

    def close(self) -> None:
        """See `Source`."""
        self._source.close()
        self._reader.shut()
        if self._folder is not None:
            self._folder.cleanup()


def name_of(text: str) -> str:
    """Return what a pipe is called in messages and file names: `stdin`, `pipe` without a name, or its path."""
    number = _inherited(text)
    return text if number is None else "pipe" if number else "stdin"


def open_reader(text: str) -> PipeReader:
    """Open a pipe; a named one waits here until a program opens it for writing.

    Raises:
        UsageError: standard input is a terminal, or closed.
        SourceError: the pipe cannot be opened.
    """
    name = name_of(text)
    try:
        inherited = _inherited(text)
        fd = os.open(text, os.O_RDONLY) if inherited is None else os.dup(inherited)
    except OSError as error:
        if text == STDIN:
            raise UsageError("standard input is closed", where=STDIN, hint="pipe a video into it") from error
        raise SourceError(f"cannot be opened: {reason_of(error)}", where=name) from error
    if os.isatty(fd):
        os.close(fd)
        hint = "pipe a video into it, as in `cat clip.mkv | depthstream run -`"
        raise UsageError("is a terminal, not a video", where=name, hint=hint)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(fd, os.O_BINARY)
    return PipeReader(name, fd)


def _inherited(text: str) -> int | None:
    """The descriptor that `-`, `/dev/stdin` and `/dev/fd/N` stand for: opening the path again fails for a socket."""
    if text in (STDIN, "/dev/stdin"):
        return 0
    parent, _, number = text.rpartition("/")
    return int(number) if parent in ("/dev/fd", "/proc/self/fd") and number.isdecimal() else None


def open_pipe(reader: PipeReader, *, open_file: Callable[[Path], Source], open_video: Callable[[], Source]) -> Source:
    """Open what comes through a pipe; closes `reader` if that fails.

    Args:
        open_file: opens the temporary file, if one is needed.
        open_video: opens the video that `reader` gives.

    Raises:
        SourceError: the pipe ends without data, or what comes is neither a picture nor a video.
    """
    from stream.capture.stills.formats import PREFIX_BYTES, holds_picture

    folder: tempfile.TemporaryDirectory[str] | None = None
    try:
        head = reader.peek(PREFIX_BYTES)
        if not head:
            raise SourceError("ended without sending anything", where=reader.name)
        is_picture = holds_picture(head) and not _goes_on_with_pictures(reader, head)
        if not is_picture and not _index_comes_last(reader):
            return PipedSource(open_video(), reader, None)
        if not is_picture:
            note(f"{reader.name}: this MP4 has its index at the end, so it is first read to its end into {_temp()}")
        folder = tempfile.TemporaryDirectory(prefix="depthstream-", ignore_cleanup_errors=True)
        path = _spooled(reader, Path(folder.name))
        try:
            return PipedSource(open_file(path), reader, folder)
        except StreamError as error:
            if error.where != str(path):
                raise
            raise type(error)(error.what, where=reader.name, allowed=error.allowed, hint=error.hint) from error
    except BaseException:
        reader.shut()
        if folder is not None:
            folder.cleanup()
        raise


def open_piped_video(reader: PipeReader, options: CaptureConfig, *, decoder: str) -> Source:
    """Open a video that is decoded as it arrives: a file, or live if `options.live` says so.

    Raises:
        SourceError: it is not a video.
        UsageError: see `VideoSource`.
    """
    from stream.capture.video import hwaccel
    from stream.capture.video.file import VideoSource, list_refused
    from stream.capture.video.network import LiveSource

    options, log, limits = of_reader(options), CaptureLog(), Limits.of(options)
    metered = Metered(reader, max(_LEAST_PACKET, int(_PACKET_SHARE * limits.room)))
    try:
        container = hwaccel.open_container(reader.name, decoder, log, limits=limits, file=metered, budget=metered)
    except (av.error.FFmpegError, OSError) as error:
        if demuxer := refused_format(error):
            raise list_refused(demuxer, reader.name) from error
        is_unknown = isinstance(error, av.error.InvalidDataError)
        what = "is not a video in a supported format" if is_unknown else f"cannot be opened: {reason_of(error)}"
        raise SourceError(what, where=reader.name) from error
    if options.live == "live":
        return LiveSource(
            container,
            reader.name,
            open_timeout_s=options.open_timeout_s,
            read_timeout_s=options.read_timeout_s,
            max_frames=options.max_frames,
            deinterlace=options.deinterlace,
            limits=limits,
            log=log,
        )
    return VideoSource(
        reader.name,
        start_s=options.start,
        end_s=options.until,
        max_frames=options.max_frames,
        decoder=decoder,
        container=container,
        log=log,
        is_pipe=True,
        limits=limits,
        deinterlace=options.deinterlace,
    )


def open_sandboxed_video(reader: PipeReader, options: CaptureConfig) -> Source:
    """Open a video that is decoded as it arrives, in a sandbox: a thread passes on what arrives.

    Raises:
        SourceError: it is not a video.
        UsageError: see `VideoSource`.
    """
    from stream.capture.sandbox.source import SandboxedSource

    theirs, ours = os.pipe()
    is_waiting = True

    def pump() -> None:
        nonlocal is_waiting
        with suppress(OSError):  # the child has ended
            while data := reader.read(_CHUNK):
                is_waiting = False
                view = memoryview(data)
                while view:
                    view = view[os.write(ours, view) :]
                is_waiting = True
        is_waiting = False
        os.close(ours)

    threading.Thread(target=pump, name="depthstream-pipe", daemon=True).start()
    try:
        return SandboxedSource(
            {"pipe": reader.name}, name=reader.name, options=options, stdin=theirs, is_starved=lambda: is_waiting
        )
    except BaseException:
        reader.stop()
        raise
    finally:
        os.close(theirs)


def _temp() -> str:
    return f"a temporary file in {tempfile.gettempdir()}"


def _spooled(reader: PipeReader, folder: Path) -> Path:
    """The rest of the pipe as a file, named after the pipe because the frames of pictures are named after theirs."""
    path = folder / Path(reader.name).name
    try:
        with path.open("wb") as file:
            while data := reader.read(_CHUNK):
                file.write(data)
    except OSError as error:
        hint = "free some space, or set TMPDIR to a folder on another disk"
        raise SourceError(f"cannot be kept in {_temp()}: {reason_of(error)}", where=reader.name, hint=hint) from error
    return path


def _goes_on_with_pictures(reader: PipeReader, head: bytes) -> bool:
    """Whether another picture follows the first one; reads to the end of the stream if none does.

    Raises:
        SourceError: the stream is too long to be one picture.
    """
    from stream.capture.video.mjpeg import starts_jpeg_stream

    if not head.startswith((_JPEG, _PNG)):
        return False
    size = 0
    while len(data := reader.peek(max(2 * size, _CHUNK))) > size:
        is_jpeg, seen = head.startswith(_JPEG), max(0, size - len(_NEXT_PNG))
        if starts_jpeg_stream(data, 2) if is_jpeg else data.find(_NEXT_PNG, seen) >= 0:
            return True
        size = len(data)
        if size >= _LARGEST_PICTURE:
            what = f"starts like a picture, but neither ends nor goes on with another one within {size >> 20} MiB"
            raise SourceError(what, where=reader.name, hint="save it to a file first")
    return False


def _index_comes_last(reader: PipeReader) -> bool:
    """Whether this is an MP4 or QuickTime file whose pictures (`mdat`) come before its index (`moov`)."""
    at = 0
    while at < _LONGEST_WALK:
        box = reader.peek(at + 16)[at:]
        if len(box) < 16 or box[4:8] not in _BEFORE_INDEX:
            return False
        if box[4:8] == b"mdat":
            return True
        size = int.from_bytes(box[:4], "big")
        size = int.from_bytes(box[8:16], "big") if size == 1 else size
        if size < 8:
            return False
        at += size
    return False
