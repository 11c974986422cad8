"""Keeps a live stream at the present: reads ahead of the decoder, skips what it cannot decode in time, and tells how
old a frame is.

Invariant: packets are read when they arrive, however slow the decoder is; what is skipped is counted and ends at a key
frame, so that nothing undecodable is delivered.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from stream.capture.base import CaptureLog
from stream.capture.video.timeline import Clock, clock_of
from stream.errors import SourceError
from stream.media import packets_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

BEHIND = "behind_the_stream"
"""Cause of the frames that were skipped because the decoder was too slow."""
LIMIT_S = 1.0
"""Packets of more than this may not wait for the decoder. It is counted in arrival times, so a burst (an HLS segment,
what a network held up) is decoded in full if the decoder is done with it before the next."""
_FEWEST, _MOST = 32, 240
"""Limits of how many packets may wait before a sender that is faster than real time is made to wait."""
_BURST_S = LIMIT_S / 10
"""Packets that arrived within this, although they fill the queue, come from such a sender."""
_MOST_BYTES = 64 << 20
_HOLD_S = 0.1
"""As long as packets arrive on time, within this, the decoder gets as long to take one before the next is read: a read
that waits for the sender cannot be ended, and one that nobody needs would delay `close`."""
_GRACE_S = 2.0
"""Before frames are wanted, packets wait in the system for this long; then they are read and dropped, because servers
disconnect who reads too slowly."""
_CATCH_UP_S = 0.5
"""Reading what has waited in the system takes much less."""
_WAKE_S = 0.5
_JOIN_S = 0.3
_WINDOW_S = 30.0
_CLOCK_RESTART_S = 1.0
"""Timestamps that go back by more than this are those of another clock; less is the order of B-frames."""


class StreamClock:
    """Estimates when a live picture was taken, from its timestamp.

    The smallest difference of arrival and timestamp is the transport's least delay; whatever comes later than that has
    waited somewhere. Only the last 30 to 60 seconds count, so that a clock that drifts or a longer way is followed.
    """

    def __init__(self) -> None:
        self._now_s = self._before_s = math.inf
        self._since_s = self._latest_s = -math.inf

    def arrived(self, time_s: float, at_s: float) -> None:
        """Record that the picture of stream time `time_s` arrived at `at_s`, monotonic seconds."""
        if time_s < self._latest_s - _CLOCK_RESTART_S:
            self._now_s = self._before_s = math.inf
        elif at_s - self._since_s > _WINDOW_S:
            self._before_s, self._now_s, self._since_s = self._now_s, math.inf, at_s
        self._latest_s = time_s
        self._now_s = min(self._now_s, at_s - time_s)

    def captured_at(self, time_s: float, now_s: float) -> float:
        """Return when the picture of stream time `time_s` would have arrived with the least delay; `now_s` at most."""
        return min(now_s, time_s + min(self._now_s, self._before_s))


class LivePackets:
    """Reads the packets of a live container in a thread of its own; `demux` yields those that are not too old.

    Args:
        container: open; `close` closes it.
        stream: the video stream.
        log: skipped frames are counted and noted here.
        name: of the source, for notes.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        container: "InputContainer",
        stream: "VideoStream",
        log: CaptureLog,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._container, self._stream, self._log, self._name, self.clock = container, stream, log, name, clock
        self._queue: deque[tuple[Packet[Any], float]] = deque()
        self._changed = threading.Condition()
        self._bytes = 0
        rate = stream.average_rate or stream.guessed_rate or 0
        self._capacity = min(_MOST, max(_FEWEST, math.ceil(1.25 * LIMIT_S * rate)))
        self._stopped = self._has_ended = self._is_closed = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._lacks_key = self._must_flush = self._has_new_key = False
        self._skipped = 0
        self._begun = self._counts = self._is_outdated = self._newest_is_late = False
        self._opened_s = clock()
        self.limit_s = math.inf
        """How long after opening packets are yielded; the source sets it until it has the first picture."""
        self.arrived_s = 0.0
        """When the packet that was yielded last arrived."""
        # Where the demuxer counts frames for want of timestamps, only the arrival says when a picture was taken.
        has_clock = clock_of(container.format.name, container.format.flags, is_live=True) is not Clock.ARRIVAL
        self._age = StreamClock() if has_clock else None

    def demux(self, *streams: "Stream") -> "Iterator[Packet[Any]]":
        """Yield the packets of `streams` like `InputContainer.demux`, without those that are skipped.

        Raises:
            av.error.FFmpegError, OSError: reading failed.
            SourceError: `limit_s` is over.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, args=(streams,), name="depthstream-reader", daemon=True)
            self._thread.start()
        while (packet := self._next()) is not None:
            if self.clock() - self._opened_s > self.limit_s:
                what = f"none of its pictures could be decoded within {self.limit_s:g} s"
                raise SourceError(what, where=self._name, hint="raise --open-timeout if its key frames are rare")
            yield packet
        if self._error is not None and not self._stopped:
            raise self._error

    def begin(self) -> bool:
        """Drop what became too old while nobody wanted frames; from now on, count what is skipped.

        Returns:
            Whether a frame that was yielded before is outdated.
        """
        with self._changed:
            self._begun, self._newest_is_late = True, True
            self._changed.notify_all()
            if self._age is not None:  # what the system holds back is read at once
                self._changed.wait_for(
                    lambda: not self._newest_is_late or self._has_ended or self._stopped, _CATCH_UP_S
                )
            oldest = next((packet for packet, _ in self._queue if self._is_picture(packet)), None)
            now_s = self.clock()
            captured_s = self._captured_at(oldest.pts, now_s) if oldest is not None else None
            if self._is_outdated or self._is_behind() or (captured_s is not None and now_s - captured_s > LIMIT_S):
                self._skip()
            self._counts = True
            return self._is_outdated

    def take_skipped(self) -> int:
        """Return how many frames were skipped since the last call, not counting those before `begin`."""
        with self._changed:
            skipped, self._skipped = self._skipped, 0
        return skipped

    def stop(self) -> None:
        """End `demux` at once, from any thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and close the container as soon as a read that waits for the sender has ended. Idempotent."""
        self.stop()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        with self._changed:
            closes = not self._is_closed and (self._thread is None or self._has_ended)
            self._is_closed = True
            self._queue.clear()
        if closes:
            self._container.close()

    def _read(self, streams: "tuple[Stream, ...]") -> None:
        try:
            for packet in packets_of(self._container, *streams):
                if not self._put(packet):
                    break
        except BaseException as error:  # noqa: BLE001  `demux` raises it in the consumer's thread
            self._error = error
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
            closes = self._is_closed
        if closes:
            self._container.close()

    def _put(self, packet: "Packet[Any]") -> bool:
        """Queue a packet; False after `stop`."""
        arrived_s = self.clock()
        with self._changed:
            if self._lacks_key and self._is_picture(packet):
                if not packet.is_keyframe:
                    self._count(1)
                    return not self._stopped
                self._lacks_key = False
            self._queue.append((packet, arrived_s))
            self._bytes += packet.size
            self._changed.notify_all()
            if self._age is not None and packet.pts is not None and self._is_picture(packet):
                self._age.arrived(float(packet.pts * packet.time_base), arrived_s)
            if self._is_picture(packet):
                self._has_new_key |= packet.is_keyframe
                self._newest_is_late = not self._is_on_time(packet, arrived_s)
            self._hold(arrived_s)
            while len(self._queue) >= self._capacity and not self._stopped:
                if self._is_behind():
                    self._skip()
                    break
                if self.clock() - arrived_s > LIMIT_S and self._span_s() > _BURST_S:
                    break  # nobody takes frames yet, and the sender does not wait
                self._changed.wait(_WAKE_S)
            return not self._stopped

    def _hold(self, arrived_s: float) -> None:
        """Wait until the decoder takes a packet, as long as that makes no later one late."""
        begun = self._begun
        limit_s = 0.0 if self._newest_is_late else _HOLD_S
        if not begun:
            limit_s = self._opened_s + _GRACE_S - arrived_s
        if limit_s > 0:
            self._changed.wait_for(lambda: not self._queue or self._stopped or self._begun != begun, limit_s)

    def _next(self) -> "Packet[Any] | None":
        with self._changed:
            if self._is_behind():
                self._skip()
            while not (self._queue or self._has_ended or self._stopped):
                self._changed.wait(_WAKE_S)
            if self._stopped or not self._queue:
                return None
            packet, self.arrived_s = self._queue.popleft()
            self._bytes -= packet.size
            self._changed.notify_all()
            must_flush = self._must_flush and self._is_picture(packet)
        if must_flush:
            self._must_flush = False
            self._stream.codec_context.flush_buffers()
        return packet

    def _captured_at(self, pts: int | None, at_s: float) -> float | None:
        """When a picture that has just been read was taken; None if the timestamps do not tell."""
        if self._age is None or pts is None or self._stream.time_base is None:
            return None
        return self._age.captured_at(float(pts * self._stream.time_base), at_s)

    def _is_on_time(self, packet: "Packet[Any]", arrived_s: float) -> bool:
        """Whether a picture comes as early as those before, compared with its timestamp."""
        captured_s = self._captured_at(packet.pts, arrived_s) if self._is_picture(packet) else None
        return captured_s is not None and arrived_s - captured_s < _HOLD_S

    def _is_picture(self, packet: "Packet[Any]") -> bool:
        return packet.stream.index == self._stream.index and packet.size > 0

    def _span_s(self) -> float:
        return self._queue[-1][1] - self._queue[0][1] if self._queue else 0.0

    def _is_behind(self) -> bool:
        return self._span_s() > LIMIT_S

    def _skip(self) -> None:
        """Drop the pictures before the newest key frame, or all of them if there is none and too much waits.

        Sound goes with them while nobody takes frames. Each key frame is looked for once: what follows it may be long.
        """
        newest = 0
        if self._has_new_key:
            newest = max((n for n, (packet, _) in enumerate(self._queue) if self._starts(packet)), default=0)
            self._has_new_key = False
        if not newest and self._bytes < _MOST_BYTES:
            if self._counts:
                self._note(f"{self._name}: behind the stream, and no key frame to skip to has arrived yet")
            return
        self._lacks_key = not newest
        until = newest or len(self._queue)
        before, kept = list(self._queue)[:until], list(self._queue)[until:]
        sound = [entry for entry in before if not self._is_picture(entry[0])]
        self._count(len(before) - len(sound))
        kept = sound + kept if self._counts else kept
        self._queue = deque(kept)
        self._bytes = sum(packet.size for packet, _ in kept)
        self._must_flush = self._is_outdated = True
        if self._counts:
            self._note(f"{self._name}: decoding is slower than the stream; skipping to the newest key frame")

    def _starts(self, packet: "Packet[Any]") -> bool:
        return self._is_picture(packet) and packet.is_keyframe

    def _count(self, skipped: int) -> None:
        self._skipped += skipped if self._counts else 0

    def _note(self, text: str) -> None:
        if text not in self._log.notes:
            self._log.notes.append(text)
