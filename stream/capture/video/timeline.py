"""The timeline of a source: one decision on its clock, for pictures and sound alike; pure arithmetic.

A recording may consist of parts whose timestamps start again or jump: transport streams and VOBs joined with `cat`, HLS
with discontinuities, an encoder that restarts, a looped sender. Each such part is a *stretch* with one offset for all
its streams. A demuxer may still deliver the sound of one stretch after the first picture of the next, so every stream
changes stretches on its own.
Invariant: within a stretch nothing is moved against anything else, and a stretch begins where the one before has ended.
"""

from dataclasses import dataclass
from enum import StrEnum

_FAR_S = 10.0
"""A jump forwards by more than this is not a pause but another clock (FFmpeg's own limit for such formats)."""
_BACK_S = 0.1
"""A jump backwards by more than this starts a stretch; decode times never go back within one, less is jitter (FFmpeg's
own limit)."""
_BACK_WITHOUT_DTS_S = 1.0
"""The same where decode times are estimated, or missing and replaced by display times."""
_PAUSE_S = 1.0
"""A live sender that was silent for longer than this before its clock jumped made a pause, which stays."""
_SAME_STEP = 0.1
"""Steps that differ by less than this ratio are the interval of a time-lapse recording, however long they are."""
_WILD_S = 1.0
"""A stream that leaves its stretch alone, for no longer than this, and comes back had damaged timestamps."""
_MOST_REORDERED = 16
"""Pictures that a decoder may hold back (H.264, A.3.1): a pts may be so many frames later than its dts."""
RTP = frozenset({"rtsp", "rtp", "sdp"})
"""Formats whose times FFmpeg corrects once, at a stream's first sender report (RFC 3550, 6.4.1)."""
_RESTARTING = frozenset({"flv", *RTP})
"""Formats of live senders, which FFmpeg does not mark as `TS_DISCONT`."""
_NO_TIMESTAMPS, _TS_DISCONT = 0x80, 0x200
"""FFmpeg's flags of a demuxer (avformat.h)."""
_WRAP_TICKS = 1 << 33
"""MPEG-TS and MPEG-PS count 1/90000 s in 33 bits: every 26.5 hours the clock starts again."""
_WRAP_TOLERANCE_S = 10.0


class Clock(StrEnum):
    """Where the times of a source come from."""

    CONTAINER = "container"
    """Its timestamps; gaps are pauses."""
    RESTARTS = "restarts"
    """Its timestamps, which may jump: such stretches are joined."""
    ARRIVAL = "arrival"
    """A live stream without timestamps: frames are timed when they arrive."""
    NOMINAL = "nominal"
    """A file without timestamps: the frame rate is an assumption."""


def clock_of(format_name: str, flags: int, *, is_live: bool) -> Clock:
    """Return the clock of a container format.

    Args:
        format_name: FFmpeg's name of the demuxer.
        flags: FFmpeg's `AVInputFormat.flags`.
        is_live: the source is a live stream.
    """
    if flags & _NO_TIMESTAMPS or format_name.endswith("_pipe"):
        return Clock.ARRIVAL if is_live else Clock.NOMINAL
    if flags & _TS_DISCONT or (is_live and format_name.removeprefix("live_") in _RESTARTING):
        return Clock.RESTARTS
    return Clock.CONTAINER


@dataclass
class _Stretch:
    offset_s: float
    first_s: float
    """Decode time of its first packet, on the stretch's own clock."""
    latest_s: float
    """Latest decode time of any stream, likewise."""
    is_jump: bool = True
    """False for the first one, and where a counter wrapped around."""


@dataclass
class _Stream:
    stretch: int
    last_s: float
    """Decode time of the last packet, on its stretch's own clock."""
    step_s: float = 0.0
    """Duration of the last packet that had one."""
    gap_s: float = 0.0
    """Time between the last two packets."""
    left: tuple[int, float] | None = None
    """The stretch that it has left, and its last decode time there."""
    is_corrected: bool = False
    """Its times were corrected by a sender report."""


class Timeline:
    """Returns the offset that puts each packet on one continuous timeline. Packets come in the demuxer's order.

    Args:
        clock: see `Clock`.
        is_rtp: the format is one of `RTP`.
    """

    def __init__(self, clock: Clock, *, is_rtp: bool = False) -> None:
        self.clock, self._is_rtp = clock, is_rtp
        self.jumps = 0
        """Times that the clock jumped and a stretch was joined to the one before."""
        self._stretches: dict[int, _Stretch] = {}
        """By number. Those that every stream has left are gone: a looped sender begins thousands a day."""
        self._count = 0
        self._streams: dict[int, _Stream] = {}
        self._end_s = float("-inf")
        self._arrived_s: float | None = None

    def offset(
        self, stream: int, dts: int | None, pts: int | None, duration: int, tick_s: float, arrived_s: float | None
    ) -> int:
        """Return what to add to a packet's times.

        Args:
            stream: its index.
            dts, pts, duration: in units of `tick_s` seconds, None and 0 if unknown.
            arrived_s: monotonic seconds at which a live source delivered it, None for a recording.
        """
        decode = pts if dts is None else dts
        if not self.trusts(stream, dts, pts, tick_s):
            pts = None
        known = self._streams.get(stream)
        if decode is None or (dts is None and self.clock is not Clock.RESTARTS):  # display times may go back a little
            return 0 if known is None else round(self._stretches[known.stretch].offset_s / tick_s)
        time_s = decode * tick_s
        silent_s = 0.0
        if arrived_s is not None:
            silent_s = 0.0 if self._arrived_s is None else arrived_s - self._arrived_s
            self._arrived_s = arrived_s
        shown_s = (decode if pts is None else pts) * tick_s
        tolerance_s = _BACK_S if self.clock is Clock.RESTARTS and dts is not None else _BACK_WITHOUT_DTS_S
        gap_s = 0.0 if known is None else time_s - known.last_s
        if known is None or self._jumps(known, time_s, silent_s, tolerance_s):
            known = self._placed(stream, known, time_s, shown_s, silent_s)
        state, stretch = known, self._stretches[known.stretch]
        if duration > 0:
            state.step_s = duration * tick_s
        elif 0 < time_s - state.last_s < _PAUSE_S:
            state.step_s = time_s - state.last_s
        state.last_s, state.gap_s = time_s, gap_s
        stretch.latest_s = max(stretch.latest_s, time_s)
        self._end_s = max(self._end_s, shown_s + stretch.offset_s + state.step_s)
        return round(stretch.offset_s / tick_s) if stretch.offset_s else 0

    def stretch(self, stream: int) -> int:
        """Return the number of the stretch that a stream has reached, from 0."""
        return self._streams[stream].stretch if stream in self._streams else 0

    def trusts(self, stream: int, dts: int | None, pts: int | None, tick_s: float) -> bool:
        """Return False if a packet's pts is too far from its dts to be true; see `offset`."""
        if dts is None or pts is None or self.clock is not Clock.RESTARTS:
            return True
        step_s = self._streams[stream].step_s if stream in self._streams else 0.0
        return abs(pts - dts) * tick_s <= _FAR_S + _MOST_REORDERED * step_s

    def _placed(self, stream: int, state: _Stream | None, time_s: float, shown_s: float, silent_s: float) -> _Stream:
        """Return the state of a new stream, or of one that jumps, in the stretch to which `time_s` belongs."""
        if state is not None and self._returns(stream, state, time_s):
            return state
        near = [
            (abs(time_s - stretch.latest_s), number)
            for number, stretch in self._stretches.items()
            if state is None or (number > state.stretch and abs(time_s - stretch.latest_s) < _FAR_S)
        ]
        number = min(near)[1] if near else self._begun(time_s, shown_s, silent_s)
        if state is None:
            state = self._streams[stream] = _Stream(number, time_s)
        state.stretch, state.last_s = number, time_s
        slowest = min(stream.stretch if stream.left is None else stream.left[0] for stream in self._streams.values())
        self._stretches = {number: stretch for number, stretch in self._stretches.items() if number >= slowest}
        return state

    def _returns(self, stream: int, state: _Stream, time_s: float) -> bool:
        """Let a stream go on where it was before damaged timestamps; else remember where it is, and return False.

        No other stream has followed it meanwhile, so the stretches that it began for them are none.
        """
        before, last_s = state.left or (state.stretch, state.last_s)
        others = max((other.stretch for index, other in self._streams.items() if index != stream), default=before)
        present = self._stretches[state.stretch]
        is_far = abs(present.first_s - last_s) > _FAR_S
        if state.stretch == before or others > before or not is_far or state.last_s - present.first_s > _WILD_S:
            state.left = state.stretch, state.last_s
            return False
        if not -_BACK_S <= time_s - last_s < _FAR_S:
            return False
        for number in [number for number in self._stretches if number > before]:
            self.jumps -= self._stretches.pop(number).is_jump
        state.stretch, state.left = before, None
        return True

    def _jumps(self, state: _Stream, time_s: float, silent_s: float, tolerance_s: float) -> bool:
        step_s = time_s - state.last_s
        if step_s < 0:
            if self._is_rtp and len(self._streams) > 1 and not state.is_corrected and -step_s < _FAR_S:
                state.is_corrected = step_s < -tolerance_s
                return False
            return step_s < -tolerance_s
        if self.clock is not Clock.RESTARTS or step_s <= _FAR_S or abs(step_s - state.gap_s) <= _SAME_STEP * step_s:
            return False
        # A gap in one stream while another one goes on is a pause, and so is one that was waited for.
        return time_s - self._stretches[state.stretch].latest_s - silent_s > _FAR_S

    def _begun(self, time_s: float, shown_s: float, silent_s: float) -> int:
        """Begin a stretch at `shown_s`, and return its number."""
        number, self._count = self._count, self._count + 1
        offset_s, is_jump = 0.0, number > 0
        if number:
            before = self._stretches[max(self._stretches)]
            wrap_s = _WRAP_TICKS / 90_000
            is_jump = self.clock is not Clock.RESTARTS or abs(time_s + wrap_s - before.latest_s) >= _WRAP_TOLERANCE_S
            pause_s = silent_s if silent_s > _PAUSE_S else 0.0
            offset_s = self._end_s + pause_s - shown_s if is_jump else before.offset_s + wrap_s
        self.jumps += is_jump
        self._stretches[number] = _Stretch(offset_s, time_s, time_s, is_jump)
        return number

    def __str__(self) -> str:
        times = "once" if self.jumps == 1 else f"{self.jumps} times"
        return f"the timestamps start again or jump {times}; the parts were joined"
