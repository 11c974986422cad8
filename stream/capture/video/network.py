"""Network streams through PyAV: live streams without buffering, finite URLs as files.

Invariant: no wait exceeds the timeouts, so a server that stalls ends the source with an error.
"""

import errno
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from enum import StrEnum
from itertools import chain, islice
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stream.capture.base import CaptureLog, Source
from stream.capture.limits import Limits
from stream.capture.video import deinterlace as deinterlacing
from stream.capture.video import hwaccel
from stream.capture.video.decode import FrameMaker, PacketReader, choose_video_stream, nominal_step
from stream.capture.video.fetch import NotAVideoError, is_image
from stream.capture.video.file import VideoSource
from stream.capture.video.live import BEHIND, LivePackets
from stream.capture.video.reach import Reach
from stream.capture.video.timeline import Clock
from stream.config import FOLDER, INPUT_OPTIONS, PRIVATE, REACH, defaults
from stream.errors import SourceError, UsageError, reason_of, redacted
from stream.frames import Frame, SourceInfo, SourceKind
from stream.media import av, refused_format

if TYPE_CHECKING:
    from av.container import InputContainer

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt", "rtp"})
_CAMERA_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "srt"})
_ENDLESS = frozenset({"hls", "mpjpeg"})
"""Formats whose size over HTTP says nothing about the video's end: of a playlist, or invented by a camera."""
_NO_BUFFERING = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "500000", "analyzeduration": "1000000"}
"""`nobuffer` discards the packets read while probing. Use it for live protocols only: a short file opened with --live
would lose its beginning."""
_BY_SCHEME = {
    "rtsp": {"rtsp_transport": "tcp"},  # UDP loses packets behind most home routers
    "rtsps": {"rtsp_transport": "tcp"},
    "udp": {"overrun_nonfatal": "1"},  # a slow reader loses packets rather than the stream
}
_LEAST_S = 0.5
"""Even the last attempt to open gets this long."""
_OPENING, _READING = "cannot be opened", "reading failed"
_NO_VIDEO = f"{_OPENING}: this is not a video stream"


class Liveness(StrEnum):
    """Whether a URL is treated as live (frames may be dropped) or as a file (every frame is processed)."""

    AUTO = "auto"
    LIVE = "live"
    FILE = "file"


def open_network(
    url: str,
    *,
    live: Liveness = Liveness.AUTO,
    open_timeout_s: float = defaults().capture.open_timeout_s,
    read_timeout_s: float = defaults().capture.read_timeout_s,
    start_s: float | None = None,
    end_s: float | None = None,
    max_frames: int | None = None,
    decoder: str = hwaccel.OFF,
    deinterlace: str = deinterlacing.AUTO,
    input_options: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "LiveSource | VideoSource":
    """Open a URL as a live stream or as a file.

    A playlist or a camera's JPEGs are asked for twice: FFmpeg says what they are, and they are then read by `Reach`.

    With `Liveness.AUTO`, rtsp, rtmp, udp, tcp, srt, rtp and everything without a duration and a size (unbounded HLS) is
    live; http(s) with a finite duration or size is a file.

    Args:
        url: with a scheme of `parse.SCHEMES`.
        live: see `Liveness`.
        open_timeout_s: limit for connecting and probing.
        read_timeout_s: limit for each wait for data.
        start_s, end_s: see `VideoSource`; ignored by a live stream.
        max_frames, decoder, deinterlace, limits, clock: see `VideoSource`.
        input_options: options of FFmpeg that passed `check_input_options`.

    Raises:
        NotAVideoError: it holds an image, or nothing that FFmpeg knows.
        SourceError: the URL cannot be reached or opened in time.
    """
    address = url.removeprefix("hls+").replace("hls://", "http://", 1)
    scheme = urlsplit(address).scheme.lower()
    is_live = is_certainly_live(url, live)
    no_buffering = _NO_BUFFERING if is_live and scheme in LIVE_SCHEMES else {}
    given = as_ffmpeg_takes(input_options)
    options = _BY_SCHEME.get(scheme, {}) | no_buffering | given
    private, reaches = may_be_private(input_options), list[Reach]()
    started, log = clock(), CaptureLog()

    def opened() -> "InputContainer":
        limit_s = max(_LEAST_S, open_timeout_s - (clock() - started))
        reach = Reach(address, options, private=private, open_timeout_s=limit_s, read_timeout_s=read_timeout_s)
        reaches.append(reach)
        # A part of a file may only come after all that is before it was read.
        limit_s = math.inf if start_s else open_timeout_s
        return reach.open_source(
            lambda url, **given: hwaccel.open_container(url, decoder, log, limits=limits, **given),
            picture_within_s=limit_s,
        )

    try:
        try:
            container = opened()
        except (av.error.FFmpegError, OSError) as error:
            refuses_tcp = scheme == "rtsp" and error.errno == errno.EPROTONOSUPPORT
            if not refuses_tcp or "rtsp_transport" in given:
                raise
            options["rtsp_transport"] = "udp"
            container = opened()
            log.transport_fallbacks += 1
            log.notes.append(f"{redacted(address)}: refuses TCP; receiving over UDP, which may lose packets")
    except (av.error.FFmpegError, OSError) as error:
        is_late = clock() - started >= open_timeout_s  # FFmpeg's rtsp calls its own timeout invalid data
        if (isinstance(error, av.error.InvalidDataError) or refused_format(error)) and not is_late:
            raise NotAVideoError(_NO_VIDEO, where=redacted(address)) from error
        raise _failure(address, _OPENING, error, open_timeout_s, is_late=is_late) from error
    if not is_live and is_image(container, address):
        container.close()
        raise NotAVideoError(_NO_VIDEO, where=redacted(address))
    if is_live or (live is Liveness.AUTO and not _has_end(container, scheme)):
        source: LiveSource | VideoSource = LiveSource(
            container,
            address,
            open_timeout_s=open_timeout_s,
            read_timeout_s=read_timeout_s,
            max_frames=max_frames,
            deinterlace=deinterlace,
            limits=limits,
            log=log,
            clock=clock,
        )
    else:
        source = VideoSource(
            address,
            start_s=start_s,
            end_s=end_s,
            max_frames=max_frames,
            container=container,
            log=log,
            kind=SourceKind.NETWORK,
            deinterlace=deinterlace,
            limits=limits,
            clock=clock,
        )
    reaches[-1].begun()
    return source


def _has_end(container: "InputContainer", scheme: str) -> bool:
    """Whether the server states an end: a raw stream, and a recording of a live one, have a size without a duration."""
    is_sized = scheme in ("http", "https") and container.format.name not in _ENDLESS and container.size > 0
    return bool(container.duration) or is_sized


def as_ffmpeg_takes(input_options: Mapping[str, str] | None) -> dict[str, str]:
    """Return the options with each header on a line of its own, ended as in HTTP."""
    given = dict(input_options or {})
    given.pop(REACH, None)
    if headers := given.get("headers"):
        given["headers"] = "".join(f"{line}\r\n" for line in headers.splitlines() if line)
    return given


def may_be_private(input_options: Mapping[str, str] | None) -> bool:
    """Return True if redirects and playlists may lead to private addresses: the user has asked for it."""
    return (input_options or {}).get(REACH) == PRIVATE


def check_input_options(url: str, input_options: Mapping[str, str] | None) -> None:
    """Check that a URL takes these options.

    Raises:
        UsageError: FFmpeg would ignore one.
    """
    scheme = urlsplit(url).scheme.lower()
    if (input_options or {}).get(REACH) == FOLDER:
        raise UsageError(f"{REACH}={FOLDER} is for a local playlist", where="--input-option", allowed=PRIVATE)
    for key in input_options or ():
        if (schemes := INPUT_OPTIONS[key]) and scheme not in schemes:
            allowed = ", ".join(name for name, takers in INPUT_OPTIONS.items() if not takers or scheme in takers)
            raise UsageError(f"{scheme}:// does not take {key}", where="--input-option", allowed=allowed)


def is_certainly_live(url: str, live: str) -> bool:
    """Return True if `open_network` opens `url` as a live stream, whatever it finds there."""
    by_scheme = urlsplit(url).scheme.lower() in LIVE_SCHEMES
    return live == Liveness.LIVE or (live == Liveness.AUTO and by_scheme)


def end_may_be_restart(url: str) -> bool:
    """Return True if end of stream may mean that a camera or relay restarts: these close the connection cleanly."""
    return urlsplit(url).scheme.lower() in _CAMERA_SCHEMES


class LiveSource(Source):
    """Yields the frames of a live stream, decoded as they arrive.

    Args:
        container: the open stream; closed with the source.
        url: its address, for messages.
        open_timeout_s: limit for the first picture.
        read_timeout_s: the timeout that the container was opened with, for messages.
        max_frames: stop after this many.
        deinterlace: see `Deinterlacer`.
        limits: larger frames are refused.
        log: the log from opening the container.
        clock: monotonic seconds.

    Raises:
        SourceError: the stream contains no video, or no frame arrives that can be decoded.
    """

    def __init__(
        self,
        container: "InputContainer",
        url: str,
        *,
        open_timeout_s: float = defaults().capture.open_timeout_s,
        read_timeout_s: float,
        max_frames: int | None = None,
        deinterlace: str = deinterlacing.AUTO,
        limits: Limits | None = None,
        log: CaptureLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = CaptureLog() if log is None else log
        self._url, self._read_timeout_s = url, read_timeout_s
        self._stopped = threading.Event()
        self._max_frames = max_frames
        self._origin: int | None = None
        self._has_begun = False
        try:
            self._stream = stream = choose_video_stream(container, redacted(url))
        except BaseException:
            container.close()
            raise
        self._packets = LivePackets(container, stream, self.log, name=redacted(url), clock=clock)
        try:
            stream.thread_type = "SLICE"  # frame threads would hold back one frame each
            self._reader = PacketReader(
                container,
                stream,
                self.log,
                self._stopped,
                live=self._packets,
                deinterlace=deinterlace,
                limits=limits,
                name=redacted(url),
            )
            has_rate = self._reader.clock is not Clock.ARRIVAL  # otherwise the demuxer has invented it
            time_base = self._reader.time_base
            maker = FrameMaker(
                self.log,
                name=redacted(url),
                time_base=time_base,
                pixel_aspect=stream.sample_aspect_ratio,
                step=nominal_step(stream, time_base),
                limits=limits,
                clock=clock,
            )
            self._frames = self._deliver(maker)
            self._packets.limit_s = open_timeout_s
            self._first = next(self._frames, None)  # only a frame shows the real size and orientation
            self._packets.limit_s = math.inf
            if self._first is None:
                raise SourceError("ended before the first frame", where=redacted(url))
            hwaccel.check_first_frame(stream.codec_context, self.log)
            self.info = SourceInfo(
                name=redacted(url),
                size=self._first.size,
                is_live=True,
                time_base=time_base,
                rate=stream.average_rate or stream.guessed_rate if has_rate else None,
                frame_count=max_frames,
                kind=SourceKind.NETWORK,
                audio=self._reader.sound.audio,
                not_kept=self._reader.sound.not_kept,
                notes=tuple(self.log.notes),
            )
        except BaseException:
            self._packets.close()
            raise
        self.log.notes.clear()

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`; the frame decoded while opening comes first, unless it is outdated by now."""
        first, self._first = self._first, None
        if first is not None:
            self._has_begun = True
            if self._packets.begin():
                first = self._origin = None
                self._reader.sound.forget()
            else:
                self._begin_sound()
        yield from islice(self._frames if first is None else chain([first], self._frames), self._max_frames)

    def interrupt(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._packets.stop()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._first = None
        self._packets.stop()
        self._frames.close()
        self._packets.close()

    def _deliver(self, maker: FrameMaker) -> Generator[Frame, None, None]:
        reader = self._reader
        errors = reader.errors
        try:
            for decoded in reader.frames():
                if self._stopped.is_set():
                    return
                maker.count += self._count_skipped()
                errors.frames += decoded.is_corrupt
                pts = maker.repair_pts(decoded.pts)
                if self._origin is None:
                    self._origin = pts
                    self._begin_sound()
                yield maker.make(decoded, pts - self._origin, captured_at=reader.captured_at(decoded.pts))
        except (av.error.FFmpegError, OSError) as error:
            if not self._stopped.is_set():
                raise _failure(self._url, _READING, error, self._read_timeout_s) from error
        finally:
            reader.finish()
            self._count_skipped()
            if errors.packets or errors.frames:  # a note only: joining in mid-stream and packet loss are normal
                # Without numbers, the note is the same after every reconnection, and said once.
                self.log.notes.append(f"{redacted(self._url)}: packets were lost or damaged")
                errors.count_in(self.log)

    def _begin_sound(self) -> None:
        """Pass on the sound, once it is certain which picture is the first."""
        if self._has_begun and self._origin is not None:
            self._reader.sound.begin(self._origin * self._reader.time_base)

    def _count_skipped(self) -> int:
        """Count in the log what was skipped since the last call, and return it."""
        skipped = self._packets.take_skipped()
        if skipped:
            self.log.dropped[BEHIND] = self.log.dropped.get(BEHIND, 0) + skipped
        return skipped


def _failure(url: str, what: str, error: BaseException, limit_s: float, *, is_late: bool = False) -> SourceError:
    where = redacted(url)
    if is_late or isinstance(error, av.error.ExitError | TimeoutError):
        return SourceError(f"{what}: no data for {limit_s:g} s", where=where, hint="is the sender running?")
    if isinstance(error, av.error.InvalidDataError):
        return SourceError(f"{what}: this is not a video stream", where=where)
    is_io = isinstance(error, av.error.FFmpegError | OSError) and error.errno == errno.EIO
    if is_io:  # the name does not resolve, or the peer closed early
        if what == _READING:
            return SourceError(f"{what}: the connection was lost", where=where)
        return SourceError(f"{what}: cannot be reached", where=where, hint="check the address and the network")
    return SourceError(f"{what}: {reason_of(error)}", where=where)
