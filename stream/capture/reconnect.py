"""A live stream that is reopened when it breaks.

Invariant: every frame delivered was received. None is invented during an interruption; the pts of the next frame
include the time that passed.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from stream.capture.base import CaptureLog, Source
from stream.channel import Broadcast
from stream.errors import SourceError, SourceNotFoundError, StreamError
from stream.frames import Audio, AudioPacket, Frame

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

MIN_OPEN_S = 0.5
"""Every attempt to open the stream gets at least this long, the last one too."""
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 8.0
"""Delays between attempts double from `FIRST_DELAY_S` to this. Each is shortened at random by up to half, so that many
clients of one camera do not reconnect at the same moment."""


class ReconnectingSource(Source):
    """Yields the frames of a live source and reopens it when reading fails.

    Args:
        opened: the source, just opened; it must be live and have no frame limit of its own.
        reopen: opens the source again, within the given number of seconds; raises `SourceError` if that fails.
        give_up_after_s: longest interruption, in seconds.
        ends: True if end of stream is final. False if it may be a restart: cameras that reboot close the connection
            cleanly, so reconnect, and accept the end only if that fails.
        max_frames: stop after this many frames.
        clock: monotonic seconds.
        wait: waits for an event for at most so many seconds; returns whether it is set.
        chance: a random number in [0, 1).

    Raises:
        SourceError: from iteration: the source did not come back in time.
    """

    def __init__(
        self,
        opened: Source,
        reopen: Callable[[float], Source],
        *,
        give_up_after_s: float,
        ends: bool,
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        chance: Callable[[], float] = random.random,
    ) -> None:
        audio = opened.info.audio
        if audio is not None:
            audio = Audio(tracks=audio.tracks, packets=Broadcast(audio.packets.capacity))
        self.info = replace(opened.info, frame_count=max_frames, audio=audio)
        self._source, self._reopen, self._ends, self._max_frames = opened, reopen, ends, max_frames
        self._give_up_after_s, self._clock, self._wait, self._chance = give_up_after_s, clock, wait, chance
        self._stopped = threading.Event()
        self._past, self._now = CaptureLog(), opened.log
        self._last: Frame | None = None
        self._is_interrupted = False

    @property
    def log(self) -> CaptureLog:
        """The events of all connections together."""
        return self._past.plus(self._now)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the end of the stream, `interrupt`, `max_frames`, or too long an interruption."""
        try:
            yield from self._all()
        finally:
            if self.info.audio is not None:
                self.info.audio.packets.end()

    def _all(self) -> Iterator[Frame]:
        delivered = 0
        while True:
            failure: StreamError | None = None
            joined = self._last
            first: Frame | None = None
            try:
                for frame in self._source:
                    is_first = first is None
                    first, self._is_interrupted = first or frame, False
                    self._last = _continued(frame, first, joined, self._last)
                    if is_first:
                        self._continue_sound(self._last.time_s - frame.time_s)
                    yield self._last
                    delivered += 1
                    if delivered == self._max_frames:
                        return
            except SourceError as error:
                failure = error
            if self._stopped.is_set() or (failure is None and self._ends):
                return
            if not self._reconnect(failure):
                return

    @property
    def silence_limit_s(self) -> float | None:
        """The limit of the source itself; None from an interruption until the first frame after it."""
        return None if self._is_interrupted else self._source.silence_limit_s

    def interrupt(self) -> None:
        """See `Source`; also ends the delay between two attempts."""
        self._stopped.set()
        self._source.interrupt()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._source.close()

    def _continue_sound(self, shift_s: float) -> None:
        """Pass on the sound of the present connection, moved by as much as its frames."""
        outer, inner = self.info.audio, self._source.info.audio
        if outer is None:
            return
        if inner is None or [_format(track) for track in inner.tracks] != [_format(track) for track in outer.tracks]:
            self._now.notes.append(f"{self.info.name}: no audio after the interruption, its format has changed")
            return

        def moved(item: AudioPacket, size: int) -> None:
            packet = item.packet
            shift = round(shift_s / packet.time_base)
            if shift and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            outer.packets.put(item, size)

        inner.packets.listen(moved)

    def _reconnect(self, failure: StreamError | None) -> bool:
        """Reopen the source; False after `interrupt`, or if the stream had ended and cannot be reopened."""
        self._is_interrupted = True
        self._source.close()
        past = self._past = self._past.plus(self._now)
        self._now = CaptureLog()
        lost, limit_s = self._clock(), self._give_up_after_s
        note = f"{self.info.name}: interrupted ({_why(failure)}); reconnecting for up to {limit_s:g} s"
        past.notes += [] if note in past.notes else [note]
        attempt = 0
        while True:
            left_s = limit_s - (self._clock() - lost)
            if left_s <= 0:
                past.waiting = ""
                if failure is None:
                    return False
                hint = "raise --reconnect-for to wait longer"
                what = f"{_why(failure)}, and the source did not come back within {limit_s:g} s"
                raise SourceError(what, where=self.info.name, hint=hint) from failure
            delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2**attempt) * (1 - self._chance() / 2)
            attempt += 1
            past.waiting = f"reconnecting (attempt {attempt})"
            if self._wait(self._stopped, min(delay_s, left_s)):
                return False
            try:
                source = self._reopen(max(MIN_OPEN_S, limit_s - (self._clock() - lost)))
            except (SourceError, SourceNotFoundError) as error:  # an unplugged camera is "not found"
                failure = failure and error
                continue
            self._source, self._now = source, source.log
            past.waiting = ""
            past.reconnects += 1
            return not self._stopped.is_set()  # `interrupt` may have reached the old one only


def _format(track: "AudioStream") -> tuple[object, ...]:
    """Return what an output needs to know about a track before its first packet."""
    context = track.codec_context
    return context.name, context.sample_rate, context.layout.name, context.extradata


def _why(failure: StreamError | None) -> str:
    return "the stream ended" if failure is None else failure.what


def _continued(frame: Frame, first: Frame, before: Frame | None, latest: Frame | None) -> Frame:
    """`frame`, renumbered and retimed to continue the previous connection.

    Args:
        first: the first frame of this connection.
        before: the last frame of the previous connection, None in the first one.
        latest: the frame delivered last.
    """
    if before is None or latest is None:
        return frame
    base = before.time_base
    gap_s = max(0.0, first.captured_at - before.captured_at)
    ticks = round(gap_s / base) + round((frame.pts - first.pts) * frame.time_base / base)
    return replace(
        frame,
        index=before.index + 1 + frame.index - first.index,
        pts=max(latest.pts + 1, before.pts + ticks),
        time_base=base,
        duration=None if frame.duration is None else round(frame.duration * frame.time_base / base),
    )
