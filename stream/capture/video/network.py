"""Network streams through PyAV: live streams without buffering, finite URLs as files.

Invariant: no wait exceeds the timeouts, so a server that stalls ends the source with an error.
"""

import errno
import threading
import time
from collections.abc import Callable, Generator, Iterator
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stream.capture.base import CaptureLog, Source
from stream.capture.video import hwaccel
from stream.capture.video.decode import DecodeErrors, FrameMaker, choose_video_stream, decode, nominal_step, redacted
from stream.capture.video.file import VideoSource
from stream.config import defaults
from stream.errors import SourceError, reason_of
from stream.frames import Frame, SourceInfo, SourceKind
from stream.media import av

if TYPE_CHECKING:
    from av.container import InputContainer

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt", "rtp"})
_CAMERA_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "srt"})
_NO_BUFFERING = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "500000", "analyzeduration": "1000000"}
"""`nobuffer` discards the packets read while probing. Use it for live protocols only: a short file opened with --live
would lose its beginning."""
_BY_SCHEME = {
    "rtsp": {"rtsp_transport": "tcp"},  # UDP loses packets behind most home routers
    "rtsps": {"rtsp_transport": "tcp"},
    "udp": {"overrun_nonfatal": "1"},  # a slow reader loses packets rather than the stream
}
_OPENING, _READING = "cannot be opened", "reading failed"


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
    clock: Callable[[], float] = time.monotonic,
) -> "LiveSource | VideoSource":
    """Open a URL as a live stream or as a file, with one connection.

    With `Liveness.AUTO`, rtsp, rtmp, udp, tcp, srt, rtp and everything without a duration (unbounded HLS) is live;
    http(s) with a finite duration is a file.

    Args:
        url: with a scheme of `parse.SCHEMES`.
        live: see `Liveness`.
        open_timeout_s: limit for connecting and probing.
        read_timeout_s: limit for each wait for data.
        start_s, end_s: see `VideoSource`; ignored by a live stream.
        max_frames, decoder, clock: see `VideoSource`.

    Raises:
        SourceError: the URL cannot be reached or opened in time, or it is not a video.
    """
    address = url.removeprefix("hls+").replace("hls://", "http://", 1)
    scheme = urlsplit(address).scheme.lower()
    is_live = live is Liveness.LIVE or (live is Liveness.AUTO and scheme in LIVE_SCHEMES)
    no_buffering = _NO_BUFFERING if is_live and scheme in LIVE_SCHEMES else {}
    options = _BY_SCHEME.get(scheme, {}) | no_buffering
    started, log = clock(), CaptureLog()
    try:
        container = hwaccel.open_container(
            address, decoder, log, options=options, timeout=(open_timeout_s, read_timeout_s)
        )
    except (av.error.FFmpegError, OSError) as error:
        is_late = clock() - started >= open_timeout_s  # FFmpeg's rtsp calls its own timeout invalid data
        raise _failure(address, _OPENING, error, open_timeout_s, is_late=is_late) from error
    if is_live or (live is Liveness.AUTO and not container.duration):
        return LiveSource(
            container, address, read_timeout_s=read_timeout_s, max_frames=max_frames, log=log, clock=clock
        )
    return VideoSource(
        address,
        start_s=start_s,
        end_s=end_s,
        max_frames=max_frames,
        container=container,
        log=log,
        kind=SourceKind.NETWORK,
        clock=clock,
    )


def end_may_be_restart(url: str) -> bool:
    """Return True if end of stream may mean that a camera or relay restarts: these close the connection cleanly."""
    return urlsplit(url).scheme.lower() in _CAMERA_SCHEMES


class LiveSource(Source):
    """Yields the frames of a live stream, decoded as they arrive.

    Args:
        container: the open stream; closed with the source.
        url: its address, for messages.
        read_timeout_s: the timeout that the container was opened with, for messages.
        max_frames: stop after this many.
        log: the log from opening the container.
        clock: monotonic seconds.

    Raises:
        SourceError: the stream contains no video, or no frame arrives.
    """

    def __init__(
        self,
        container: "InputContainer",
        url: str,
        *,
        read_timeout_s: float,
        max_frames: int | None = None,
        log: CaptureLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = CaptureLog() if log is None else log
        self._url, self._container, self._read_timeout_s = url, container, read_timeout_s
        self._stopped = threading.Event()
        self._max_frames = max_frames
        try:
            self._stream = stream = choose_video_stream(container, redacted(url))
            stream.thread_type = "SLICE"  # frame threads would hold back one frame each
            time_base = stream.time_base or Fraction(1, 90_000)
            maker = FrameMaker(
                self.log,
                time_base=time_base,
                pixel_aspect=stream.sample_aspect_ratio,
                step=nominal_step(stream, time_base),
                clock=clock,
            )
            self._frames = self._deliver(maker)
            self._first = next(self._frames, None)  # only a frame shows the real size and orientation
            if self._first is None:
                raise SourceError("ended before the first frame", where=redacted(url))
            hwaccel.check_first_frame(stream.codec_context, self.log)
            self.info = SourceInfo(
                name=redacted(url),
                size=self._first.size,
                is_live=True,
                time_base=time_base,
                rate=stream.average_rate or stream.guessed_rate,
                frame_count=max_frames,
                kind=SourceKind.NETWORK,
                notes=tuple(self.log.notes),
            )
        except BaseException:
            container.close()
            raise
        self.log.notes.clear()

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        if self._first is not None and not self._stopped.is_set():
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def interrupt(self) -> None:
        """See `Source`; takes effect when data arrives or the read times out."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._first = None
        self._frames.close()
        self._container.close()

    def _deliver(self, maker: FrameMaker) -> Generator[Frame, None, None]:
        errors = DecodeErrors()
        try:
            for decoded in decode(self._container, self._stream, self._stopped, errors):
                if self._stopped.is_set():
                    return
                errors.frames += decoded.is_corrupt
                yield maker.make(decoded, maker.repair_pts(decoded.pts))
                if maker.count == self._max_frames:
                    return
        except (av.error.FFmpegError, OSError) as error:
            if not self._stopped.is_set():
                raise _failure(self._url, _READING, error, self._read_timeout_s) from error
        finally:
            if errors.packets or errors.frames:  # a note only: joining in mid-stream and packet loss are normal
                self.log.notes.append(f"{redacted(self._url)}: {errors}")


def _failure(url: str, what: str, error: BaseException, limit_s: float, *, is_late: bool = False) -> SourceError:
    where = redacted(url)
    if is_late or isinstance(error, av.error.ExitError | TimeoutError):
        return SourceError(f"{what}: no data for {limit_s:g} s", where=where, hint="is the sender running?")
    if isinstance(error, av.error.InvalidDataError):
        return SourceError(f"{what}: this is not a video stream", where=where)
    if getattr(error, "errno", None) == errno.EIO:  # the name does not resolve, or the peer closed early
        if what == _READING:
            return SourceError(f"{what}: the connection was lost", where=where)
        return SourceError(f"{what}: cannot be reached", where=where, hint="check the address and the network")
    return SourceError(f"{what}: {reason_of(error)}", where=where)
