"""Network streams through PyAV: live ones without buffering, finite ones as files.

Invariant: no wait is longer than the given timeouts, so a peer that stalls ends the source with an error.
"""

import threading
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from fractions import Fraction
from urllib.parse import urlsplit

from stream.capture.base import CaptureLog
from stream.capture.decode import FrameMaker, explain, first_video_stream, nominal_step
from stream.capture.video import VideoSource
from stream.errors import SourceError
from stream.frames import Frame, SourceInfo, SourceKind
from stream.media import av

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt", "rtp"})
SCHEMES = LIVE_SCHEMES | {"http", "https", "hls"}
_NO_BUFFERING = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "500000", "analyzeduration": "1000000"}


class Liveness(StrEnum):
    """Whether a URL's newest frame wins (LIVE) or every frame counts (FILE)."""

    AUTO = "auto"
    LIVE = "live"
    FILE = "file"


def open_network(
    url: str,
    *,
    live: Liveness = Liveness.AUTO,
    open_timeout_s: float = 10.0,
    read_timeout_s: float = 10.0,
    start_s: float | None = None,
    end_s: float | None = None,
    max_frames: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "LiveSource | VideoSource":
    """A URL as a live stream or as a file.

    `Liveness.AUTO`: rtsp, rtmp, udp, tcp, srt and anything without a duration (unbounded HLS) are live; http(s) with a
    finite duration is a file.

    Args:
        open_timeout_s, read_timeout_s: limits for connecting, and for each wait for data.
        start_s, end_s, max_frames: as for `VideoSource`; only finite URLs take a start and an end.

    Raises:
        SourceError: it cannot be reached, opened or understood in time.
    """
    address = url.removeprefix("hls+")
    timeout_s = (open_timeout_s, read_timeout_s)
    if live is not Liveness.FILE:
        if live is Liveness.LIVE or urlsplit(address).scheme in LIVE_SCHEMES:
            return LiveSource(address, timeout_s=timeout_s, max_frames=max_frames, clock=clock)
        source = LiveSource(address, timeout_s=timeout_s, max_frames=max_frames, clock=clock)
        if not source.is_finite:
            return source
        source.close()
    return VideoSource(
        address,
        start_s=start_s,
        end_s=end_s,
        max_frames=max_frames,
        timeout_s=timeout_s,
        kind=SourceKind.NETWORK,
        clock=clock,
    )


class LiveSource:
    """Frames of a live stream, decoded as they arrive.

    Args:
        timeout_s: (open, read) limits in seconds.

    Raises:
        SourceError: it cannot be reached, opened or understood in time.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: tuple[float, float] = (10.0, 10.0),
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = CaptureLog()
        self._url, self._max_frames, self._clock = url, max_frames, clock
        self._timeout_s = timeout_s
        self._stopped = threading.Event()
        options = dict(_NO_BUFFERING)
        if urlsplit(url).scheme in ("rtsp", "rtsps"):
            options["rtsp_transport"] = "tcp"  # UDP loses packets behind most home routers
        try:
            self._container = av.open(url, options=options, timeout=timeout_s)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure("cannot be opened", error, timeout_s[0]) from error
        try:
            self._stream = stream = first_video_stream(self._container, url)
            stream.thread_type = "SLICE"  # frame threads would hold back one frame each
            self.is_finite = self._container.duration is not None and self._container.duration > 0
            context = stream.codec_context
            if not (context.width and context.height):
                raise SourceError("announces no picture size", where=url)
            aspect = context.sample_aspect_ratio
            self.info = SourceInfo(
                name=url,
                size=(context.height, max(1, round(context.width * aspect)) if aspect else context.width),
                is_live=True,
                time_base=stream.time_base or Fraction(1, 90_000),
                rate=stream.average_rate or stream.guessed_rate,
                frame_count=max_frames,
                kind=SourceKind.NETWORK,
            )
        except BaseException:
            self._container.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        stream, time_base = self._stream, self.info.time_base
        maker = FrameMaker(
            self.log,
            time_base=time_base,
            pixel_aspect=stream.codec_context.sample_aspect_ratio,
            step=nominal_step(stream, time_base),
            clock=self._clock,
        )
        damaged = 0
        try:
            for packet in self._container.demux(stream):
                if self._stopped.is_set():
                    return
                try:
                    decoded_frames = packet.decode()
                except av.error.EOFError:
                    break
                except av.error.FFmpegError:
                    damaged += 1  # joining mid-stream and lost packets are normal; counted below
                    continue
                for decoded in decoded_frames:
                    yield maker.make(decoded, maker.repaired(decoded.pts))
                    if self._stopped.is_set() or maker.count == self._max_frames:
                        return
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError) as error:
            if not self._stopped.is_set():
                raise self._failure("reading failed", error, self._timeout_s[1]) from error
        finally:
            if damaged:
                self.log.notes.append(f"{self._url}: {damaged} packets could not be decoded")
        if not maker.count and not self._stopped.is_set():
            raise SourceError("ended before the first frame", where=self._url)

    def interrupt(self) -> None:
        """See `Source`; takes effect when data arrives or the read timeout ends."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._container.close()

    def _failure(self, what: str, error: BaseException, limit_s: float) -> SourceError:
        if isinstance(error, av.error.ExitError | TimeoutError):
            return SourceError(f"{what}: no data for {limit_s:g} s", where=self._url, hint="is the sender running?")
        if isinstance(error, av.error.InvalidDataError):
            return SourceError(f"{what}: this is not a video stream", where=self._url)
        return SourceError(f"{what}: {explain(error)}", where=self._url)
