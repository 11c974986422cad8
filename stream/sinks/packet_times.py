"""Durations of encoded video packets, so that the last frame ends when it should; pure arithmetic.

MP4 has no field for the end of a track; players add up the decode deltas. Encoders with B-frames report no durations,
and their last dts is `delay` frames early, so with a variable frame rate the sum comes out short.
Invariant: a packet is released only once its duration is known, and the decode deltas add up to at least the end of the
last frame.
"""

from typing import Generic, Protocol, TypeVar


class TimedPacket(Protocol):
    """The part of a packet that is used here; times in ticks of the encoder's time base."""

    pts: int | None
    dts: int | None
    duration: int | None


P = TypeVar("P", bound=TimedPacket)


class PacketTimes(Generic[P]):
    """Sets the durations of packets; holds one packet back, because the last one is treated differently.

    Args:
        default_duration: of a video of one frame without a duration, in ticks.
    """

    def __init__(self, *, default_duration: int = 1) -> None:
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

    def ready(self, packets: list[P]) -> list[P]:
        """Take new `packets` and return those that can be written, in decoding order."""
        released: list[P] = []
        for packet in packets:
            if self._held is not None:
                released.append(self._timed(self._held))
            self._held = packet
        return released

    def rest(self, packets: list[P]) -> list[P]:
        """Like `ready` for the encoder's last packets, and releases the very last packet too."""
        released = self.ready(packets)
        if self._held is None:
            return released
        last = self._timed(self._held)
        self._held = None
        if last.pts is not None and last.dts is not None and last.duration is not None and self._first_dts is not None:
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
