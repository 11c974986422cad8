"""How long each encoded picture lasts, and when the last one is decoded; pure arithmetic on packets.

MP4 stores no end of a track: it is the sum of the decoding steps. An encoder with B-frames tells no durations, and its
decoding times end `delay` pictures early, so that with a variable rate the sum misses the true end.
Invariant: a packet is given out once its duration is known, and the decoding steps sum up to the end of the last
picture wherever they would fall short of it.
"""

from typing import Generic, Protocol, TypeVar


class TimedPacket(Protocol):
    """The part of a packet that matters here; times in the encoder's ticks."""

    pts: int | None
    dts: int | None
    duration: int | None


P = TypeVar("P", bound=TimedPacket)


class PacketTimes(Generic[P]):
    """Sets durations, and holds one packet back until it is known whether it is the last.

    Args:
        default_duration: of a single picture whose frame does not tell, in ticks.
    """

    def __init__(self, *, default_duration: int = 1) -> None:
        self.last_pts: int | None = None
        """Of the newest picture."""
        self._first_pts = 0
        self._first_dts: int | None = None
        self._last_duration = max(1, default_duration)
        self._durations: dict[int, int] = {}
        self._held: P | None = None

    @property
    def end(self) -> int:
        """When the newest picture ends, as far as is known."""
        return 0 if self.last_pts is None else self.last_pts + self._last_duration

    def add_picture(self, pts: int, duration: int | None) -> None:
        """A picture is about to be encoded; `duration` is its own, the next picture's pts goes before it."""
        if self.last_pts is None:
            self._first_pts = pts
        else:
            self._last_duration = self._durations[self.last_pts] = pts - self.last_pts
        self.last_pts = pts
        if duration:
            self._last_duration = duration

    def ready(self, packets: list[P]) -> list[P]:
        """Those of the held and the new `packets`, in decoding order, that can be written."""
        given: list[P] = []
        for packet in packets:
            if self._held is not None:
                given.append(self._timed(self._held))
            self._held = packet
        return given

    def rest(self, packets: list[P]) -> list[P]:
        """Like `ready` for the encoder's last packets, and the very last one with them."""
        given = self.ready(packets)
        if self._held is None:
            return given
        last = self._timed(self._held)
        self._held = None
        if last.pts is not None and last.dts is not None and last.duration is not None and self._first_dts is not None:
            # dts - first dts + duration must come to end - first pts; decode later, and for the rest last longer.
            due = self.end - self._first_pts + self._first_dts
            if due > last.dts + last.duration:
                last.dts = min(last.pts, due - last.duration)
                last.duration = due - last.dts
        return [*given, last]

    def _timed(self, packet: P) -> P:
        if self._first_dts is None:
            self._first_dts = packet.dts
        if packet.pts is not None:
            packet.duration = self._durations.pop(packet.pts, self._last_duration)
        return packet
