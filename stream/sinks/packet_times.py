"""Durations of encoded video packets, so that the last frame ends when it should; pure arithmetic.

Two ends of an MP4 track follow from its packets. A player of fragments adds up the decode deltas: encoders with
B-frames report no durations, and their last dts is `delay` frames early, so with a variable frame rate the sum comes
out short. A player of the finished file obeys the edit list, whose end FFmpeg computes from the last fragment alone: if
that holds a B-frame and the frame after it is in the fragment before, the edit list cuts off the film's last frame.
Invariant: a packet is released only once its duration is known; the last packet lasts until the end of the last frame,
and the decode deltas add up to at least that.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


class TimedPacket(Protocol):
    """The part of a packet that is used here; times in ticks of its time base."""

    pts: int | None
    dts: int | None
    duration: int | None
    time_base: Fraction


P = TypeVar("P", bound=TimedPacket)


class PacketTimes(Generic[P]):
    """Sets the durations of packets; holds one packet back, because the last one is treated differently.

    Args:
        default_duration: of a video of one frame without a duration, in ticks.
        holds_last: False releases every packet at once, for a stream that has no end to compute.
    """

    def __init__(self, *, default_duration: int = 1, holds_last: bool = True) -> None:
        self._holds_last = holds_last
        self.last_pts: int | None = None
        """Of the newest frame."""
        self._first_pts = 0
        self._first_dts: int | None = None
        self._last_duration = max(1, default_duration)
        self._durations: dict[int, int] = {}
        self._held: P | None = None

    @property
    def end(self) -> int:
        """The end of the newest frame, as far as it is known."""
        return 0 if self.last_pts is None else self.last_pts + self._last_duration

    def add_frame(self, pts: int, duration: int | None) -> None:
        """Register a frame before it is encoded; the next frame's pts overrides its `duration`."""
        if self.last_pts is None:
            self._first_pts = pts
        else:
            self._last_duration = self._durations[self.last_pts] = pts - self.last_pts
        self.last_pts = pts
        if duration:
            self._last_duration = duration

    def set_last_duration(self, duration: int) -> None:
        """Register how long the newest frame lasts, if no other follows."""
        self._last_duration = duration

    def ready(self, packets: list[P]) -> list[P]:
        """Take new `packets` and return those that can be written, in decoding order."""
        if not self._holds_last:
            return [self._timed(packet) for packet in packets]
        released: list[P] = []
        for packet in packets:
            if self._held is not None:
                released.append(self._timed(self._held))
            self._held = packet
        return released

    def rest(self, packets: list[P]) -> list[P]:
        """Like `ready` for the encoder's last packets, and releases the very last packet too."""
        if self._held is None and self._holds_last:
            _set_dts(packets)
        released = self.ready(packets)
        if self._held is None:
            return released
        last = self._timed(self._held)
        self._held = None
        if last.pts is not None and last.dts is not None and last.duration is not None and self._first_dts is not None:
            last.duration = max(last.duration, self.end - last.pts)
            # dts + duration - first dts must reach end - first pts: delay the dts as far as the pts allows, then
            # extend the duration.
            due = self.end - self._first_pts + self._first_dts
            if due > last.dts + last.duration:
                last.dts = min(last.pts, due - last.duration)
                last.duration = due - last.dts
        return [*released, last]

    def _timed(self, packet: P) -> P:
        if self._first_dts is None:
            self._first_dts = packet.dts
        if packet.pts is not None:
            packet.duration = self._durations.pop(packet.pts, self._last_duration)
        return packet


def _set_dts(packets: Sequence[TimedPacket]) -> None:
    """Set the dts of a whole video whose packets are in display order.

    libx265 leaves the dts uninitialised if a video has no more frames than its delay.
    """
    pts = [packet.pts for packet in packets if packet.pts is not None]
    if len(pts) == len(packets) and pts == sorted(pts):
        for packet in packets:
            packet.dts = packet.pts


def decode_times(pieces: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Decode times for the packets of videos that follow one another: their display times in order, delayed.

    The delay is the least with which no packet is decoded after its display time; like encoders, the first packets are
    decoded as much earlier as the delay lasts.

    Args:
        pieces: int64, the display times of each video's packets in decoding order, in any unit; none of a later video
            is smaller.

    Returns:
        int64, increasing, for all packets.
    """
    delay, ordered = 0, [np.sort(pts) for pts in pieces]
    for pts, shown in zip(pieces, ordered, strict=True):
        delay = max(delay, int((np.arange(len(pts)) - np.searchsorted(shown, pts)).max(initial=0)))
    times = np.concatenate(ordered)
    first = times[:delay] - (times[delay] - times[0]) if delay else times[:0]
    return np.concatenate([first, times[: len(times) - delay]])


class EncoderClock:
    """Lets an encoder count in ticks that are coarser than those of the file, and restores the exact times afterwards.

    Args:
        time_base: of the file.
        encoder: time base of the encoder.
    """

    def __init__(self, time_base: Fraction, encoder: Fraction) -> None:
        self._time_base, self._encoder = time_base, encoder
        self._last: int | None = None
        self._exact: dict[int, int] = {}

    def ticks(self, pts: int) -> int:
        """Return `pts` in the encoder's ticks, larger than the last one."""
        if self._time_base == self._encoder:
            return pts
        ticks = round(pts * self._time_base / self._encoder)
        if self._last is not None and ticks <= self._last:
            ticks = self._last + 1
        self._last, self._exact[ticks] = ticks, pts
        return ticks

    def restore(self, packets: list[P]) -> list[P]:
        """Give the encoder's `packets` the times that their frames had before `ticks`."""
        if self._time_base == self._encoder:
            return packets
        for packet in packets:
            pts = packet.pts
            if packet.dts is not None:
                packet.dts = self._restored(packet.dts)
            if pts is not None:
                packet.pts = self._restored(pts)
                self._exact.pop(pts, None)
            packet.duration, packet.time_base = 0, self._time_base
        return packets

    def _restored(self, ticks: int) -> int:
        return self._exact.get(ticks, math.floor(ticks * self._encoder / self._time_base))
