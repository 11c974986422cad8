"""The sound of a video source, read in the same pass as its pictures.

Invariant: what is passed on is on the frames' clock, and its tracks stay valid after the source's container is closed.
"""

import io
from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from stream.capture.video.timeline import Clock
from stream.channel import Broadcast
from stream.frames import Audio, AudioPacket
from stream.media import av

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

KEPT_BYTES = 20 << 20
"""Kept for an output that opens later: 8 minutes of AAC at 128 kbit/s, 100 s of stereo PCM."""
OVERHEAD_BYTES = 512
"""What a packet needs beside its data: AMR's have 32 bytes, and 8 MiB of these took 185 MB."""
_LEAD_S = 0.1
"""Sound that begins this much before the first picture is not counted as a lead: encoders put some silence before the
first sample (AAC up to 2112 samples)."""


class SoundReader:
    """Takes the sound packets of a container and passes them on.

    Args:
        container: its chosen audio streams are enabled, see `choose_video_stream`, which has disabled them.
        video: the chosen video stream.
        clock: of the source.
    """

    def __init__(self, container: "InputContainer", video: "VideoStream", clock: Clock) -> None:
        self._container, self._clock = container, clock
        found = _chosen(container, video)
        # The containers of the copies are kept with them.
        self._copies = {stream.index: copy for stream in found if (copy := _independent(stream)) is not None}
        self.streams = tuple(stream for stream in found if stream.index in self._copies)
        for stream in self.streams:
            stream.discard = av.stream.Discard.default
        self._unreadable = len(found) - len(self.streams)
        self._video, self._left_out = video, _left_out(container, found)
        self._tracks = {stream.index: number for number, stream in enumerate(self.streams)}
        self._packets: Broadcast[AudioPacket] = Broadcast(KEPT_BYTES)
        self._origin_s: Fraction | None = None
        self._held: deque[Packet[Any]] = deque()
        """Wait for the first picture, which sets the clock."""
        self._held_bytes = 0
        self.lost = 0
        """Packets that were dropped because too many came before the first picture."""
        self._ends_s: dict[int, float] = {}
        self._lead_s = Fraction(0)
        self._shifts: dict[int, tuple[int, float]] = {}
        """By stream: what to subtract from its times, and its tick in seconds."""

    @property
    def audio(self) -> Audio | None:
        """The sound, once the first picture is known; None if there is none."""
        if not self.streams:
            return None
        return Audio(tracks=tuple(self._copies.values()), packets=self._packets, lead_s=self._lead_s)

    @property
    def not_kept(self) -> str:
        """What no output takes of the container: other pictures, other sound, subtitles, chapters, attached files."""
        streams = self._container.streams
        is_multiplex = _has_variants(self._container)
        further = 0 if is_multiplex else sum(s != self._video and not _is_cover(s) for s in streams.video)
        counts = (
            (further, "further video track", "further video tracks"),
            (self._left_out, "audio track in another language", "audio tracks in other languages"),
            (self._unreadable, "audio track that FFmpeg cannot read", "audio tracks that FFmpeg cannot read"),
            (len(streams.subtitles), "subtitle track", "subtitle tracks"),
            (len(self._container.chapters()), "chapter", "chapters"),
            (len(streams.attachments), "attached file", "attached files"),
        )
        said = [f"{count} {one if count == 1 else many}" for count, one, many in counts if count]
        has_programmes = is_multiplex and self._container.format.name == "mpegts"
        return ", ".join(["other programmes", *said] if has_programmes else said)

    @property
    def is_wanted(self) -> bool:
        """True if an output takes the sound."""
        return self._packets.has_listeners

    def begin(self, origin_s: Fraction) -> None:
        """Pass on everything from now on, and what was held; `origin_s` is the time of the first picture."""
        self._origin_s = origin_s
        self._shifts.clear()
        self._ends_s.clear()
        held = list(self._held)
        self._held.clear()
        starts_s = [packet.pts * packet.time_base for packet in held if packet.pts is not None]
        if starts_s and self._clock is Clock.CONTAINER:
            first_s = min(starts_s)
            # If the sound begins at the file's own zero, the time before the first picture is intended.
            lead_s = origin_s if first_s <= 0 else origin_s - first_s
            self._lead_s = lead_s if lead_s > (0 if first_s <= 0 else _LEAD_S) else Fraction(0)
        for packet in held:
            self._pass_on(packet, origin_s, is_joined=False)

    def forget(self) -> None:
        """Drop what is held, until the next `begin`: it will be read again, or is outdated."""
        self._origin_s = None
        self._held.clear()
        self._held_bytes = self.lost = 0

    def put(self, packet: "Packet[Any]", *, is_joined: bool = False) -> None:
        """Take a packet of one of `streams`, its times already on the source's timeline.

        Args:
            is_joined: the recording consists of parts. Where the sound of one starts before its pictures, it overlaps
                with the end of the part before, and is left out so far.
        """
        if not packet.size:
            return
        if self._origin_s is not None:
            self._pass_on(packet, self._origin_s, is_joined=is_joined)
            return
        self._held.append(packet)
        self._held_bytes += packet.size + OVERHEAD_BYTES
        while self._held_bytes > KEPT_BYTES:
            self._held_bytes -= self._held.popleft().size + OVERHEAD_BYTES
            self.lost += 1

    def reaches(self, time_s: float) -> bool:
        """True if every track was read up to `time_s` after the first picture."""
        return len(self._ends_s) == len(self.streams) and min(self._ends_s.values(), default=time_s) >= time_s

    def end(self) -> None:
        """Nothing more will come."""
        self._packets.end()

    def _pass_on(self, packet: "Packet[Any]", origin_s: Fraction, *, is_joined: bool) -> None:
        index = packet.stream.index
        if index not in self._shifts:
            self._shifts[index] = round(origin_s / packet.time_base), float(packet.time_base)
        shift, tick_s = self._shifts[index]
        packet.pts = packet.dts if packet.pts is None else packet.pts
        if packet.pts is not None:
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            start_s = packet.pts * tick_s
            # A recording that was joined in the middle of a broadcast has sound before its first whole picture.
            if start_s < -_LEAD_S and self._clock is not Clock.CONTAINER:
                return
            duration_s = (packet.duration or 0) * tick_s
            if is_joined and start_s < self._ends_s.get(index, start_s) - duration_s / 2:
                return
            self._ends_s[index] = start_s + duration_s
        self._packets.put(AudioPacket(track=self._tracks[index], packet=packet), packet.size + OVERHEAD_BYTES)


def _chosen(container: "InputContainer", video: "VideoStream") -> "list[AudioStream]":
    """Return the audio streams that belong to `video`, the default one first."""
    found = list(container.streams.audio)
    if _has_variants(container):
        # Each variant, and each programme of a multiplex, has its own sound; a variant's would be downloaded too.
        best = container.streams.best("audio", related=video)
        found = [stream for stream in found if best is not None and stream.index == best.index]
    return sorted(found, key=lambda stream: not stream.disposition & av.stream.Disposition.default)


def _has_variants(container: "InputContainer") -> bool:
    """Whether it holds several programmes, or the same one several times."""
    name = container.format.name
    return name == "hls" or (name == "mpegts" and len(container.streams.video) > 1)


def _left_out(container: "InputContainer", found: "list[AudioStream]") -> int:
    """Count the languages of HLS that are not taken; each variant may have its own copy of each."""
    if container.format.name != "hls":
        return 0
    names = {(s.language, s.metadata.get("comment")) for s in container.streams.audio if s.language}
    return len(names - {(s.language, s.metadata.get("comment")) for s in found})


def _is_cover(stream: "VideoStream") -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _independent(stream: "AudioStream") -> "AudioStream | None":
    """Return a copy of a stream's parameters, in a container that is never written; None if FFmpeg cannot read it."""
    if stream.codec_context is None or not stream.sample_rate or not stream.time_base:
        return None
    try:
        copy = av.open(io.BytesIO(), "w", format="null").add_stream_from_template(stream)
    except (av.error.FFmpegError, ValueError):
        return None
    copy.disposition = stream.disposition
    for name in ("language", "title"):
        if stream.metadata.get(name):
            copy.metadata[name] = stream.metadata[name]
    return copy
