"""The source's sound in the output video: copied packet by packet, or encoded again if the container requires it.

Invariant: no sound is written far ahead of the video, and what waits is bounded. Sound that cannot be read is left out
with a note, and never fails the video.
"""

import io
import math
from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from stream.channel import Listener
from stream.frames import Audio, AudioPacket, SourceInfo
from stream.media import av
from stream.sinks.encoders import Container

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.bitstream import BitStreamFilterContext
    from av.container import OutputContainer
    from av.packet import Packet

_BIT_RATE_PER_CHANNEL = 80_000  # AAC is transparent for most material from about 128 kbit/s stereo on
_RATES = {"aac": (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 96_000, 88_200, 8_000), "libopus": (48_000,)}
_LAYOUTS = {"aac": {1: "mono", 6: "5.1", 8: "7.1"}, "libopus": {1: "mono"}}
"""By number of channels; other numbers, and channels of unknown order, become stereo."""
_WAITING_BYTES = 144 << 20
"""Most that waits for the video: an hour of AAC; a file whose sound lies farther from its pictures loses some."""


class AudioPolicy(StrEnum):
    """Whether the output keeps the source's audio."""

    KEEP = "keep"
    NONE = "none"


class AudioTracks:
    """The audio tracks of a source, on their way into one output.

    Life cycle: the constructor starts to listen; `attach` before the output's header is written; `start` at the first
    frame; `until` after each frame; `rest` at the end; `close`. The caller writes the packets, so that a full disk is
    not mistaken for damaged audio.
    """

    def __init__(self, audio: Audio, notes: list[str]) -> None:
        self._tracks = [_Track(stream, may_decode=audio.may_decode) for stream in audio.tracks]
        self._listener: Listener[AudioPacket] = Listener(audio.packets, _WAITING_BYTES)
        self._notes, self._lead_s = notes, audio.lead_s
        self._may_copy = True
        self._shift_s = Fraction(0)
        self._begin_s: Fraction | None = None
        self._end_s: Fraction | None = None

    @property
    def ticks_per_s(self) -> int:
        """Common multiple of the sample rates, which are the timescales of copied tracks in MP4."""
        return math.lcm(*(track.source.sample_rate for track in self._tracks))

    def attach(self, output: "OutputContainer", container: Container) -> None:
        """Add the tracks to `output`, each copied if `container` lists its codec, else encoded or left out.

        May be called again for another output until `start`.
        """
        for track in self._tracks:
            track.attach(output, container, may_copy=self._may_copy)

    def encode_instead(self) -> bool:
        """Make the next `attach` encode instead of copying; False if it does so already."""
        was_copying = any(track.copies for track in self._tracks)
        self._may_copy = False
        return was_copying

    def start(self, first_s: Fraction, shift_s: Fraction, info: SourceInfo) -> Fraction:
        """Decide which part is written, and return by how much the video must be delayed, in seconds.

        Args:
            first_s: time of the first frame on the source's clock.
            shift_s: added to all times of the video, and of the audio with it.
            info: of the source; its `start_s` and `end_s` limit the audio too.
        """
        self._notes += dict.fromkeys(track.encoded_note for track in self._tracks if not track.copies)
        self._end_s = None if info.end_s is None else Fraction(info.end_s)
        lead_s = Fraction(0)
        if info.start_s or info.is_live:
            self._begin_s = first_s
        else:
            lead_s = self._lead_s
        self._shift_s = shift_s + lead_s
        return lead_s

    def until(self, time_s: Fraction) -> Iterator["Packet[Any]"]:
        """Yield the packets of the audio that starts up to `time_s` on the output's clock."""
        self._collect()
        for track in self._tracks:
            while track.waiting and _start_s(track.waiting[0]) + self._shift_s <= time_s:
                yield from self._written(track)

    def rest(self, end_s: Fraction, *, to_source_end: bool) -> Iterator["Packet[Any]"]:
        """Yield the remaining packets and flush the encoders.

        Args:
            end_s: end of the video on the output's clock.
            to_source_end: continue after it, if the source was read to its end.
        """
        is_open = not (to_source_end and self._listener.has_ended)
        self._collect()
        for track in self._tracks:
            while track.waiting and (not is_open or _start_s(track.waiting[0]) + self._shift_s < end_s):
                yield from self._written(track)
            yield from track.flushed()
        lost = sum(track.lost for track in self._tracks)
        if lost:
            self._notes.append(f"audio: {lost} damaged packets left out")
        if self._listener.lost:
            self._notes.append(f"audio: {self._listener.lost} packets left out, too far from the pictures in the file")

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._listener.close()
        for track in self._tracks:
            track.waiting.clear()

    def _collect(self) -> None:
        for item in self._listener.take():
            track, packet = self._tracks[item.track], item.packet
            if track.is_left_out:
                continue
            if packet.pts is None:
                track.lost += 1
                continue
            start_s = _start_s(packet)
            if (self._begin_s is None or start_s >= self._begin_s) and (self._end_s is None or start_s < self._end_s):
                track.waiting.append(packet)

    def _written(self, track: "_Track") -> list["Packet[Any]"]:
        return track.written(track.waiting.popleft(), self._shift_s)


class _Track:
    """One track: its parameters, and the packets that wait for the video."""

    def __init__(self, source: "AudioStream", *, may_decode: bool = True) -> None:
        self.source, self._may_decode = source, may_decode
        self.is_left_out = False
        self.waiting: deque[Packet[Any]] = deque()
        self.copies = True
        self.encoded_note = ""
        self.lost = 0
        self._target: AudioStream | None = None
        self._decoder: Any = None
        self._filter: BitStreamFilterContext | None = None
        self._last_dts: int | None = None
        self._form: tuple[str, str, int] | None = None
        self._resamplers: dict[tuple[str, str, int], AudioResampler] = {}

    def attach(self, output: "OutputContainer", container: Container, *, may_copy: bool) -> None:
        """Add the track to `output`."""
        context = self.source.codec_context
        name = context.codec.canonical_name
        self.copies = may_copy and name in container.audio_copied
        self.is_left_out = not self.copies and not self._may_decode
        if self.is_left_out:
            self._target = None
            what = f"audio: {container.muxer} cannot take {name} as it is, and sandboxed sound is not decoded"
            self.encoded_note = f"{what}: left out"
            return
        if self.copies:
            self._target = output.add_stream_from_template(self.source)
            if name == "aac" and not context.extradata:  # from MPEG-TS, where every packet has its own header
                self._filter = av.bitstream.BitStreamFilterContext("aac_adtstoasc", self.source)
        else:
            codec = container.audio_codec
            rate = context.sample_rate if context.sample_rate in _RATES[codec] else _RATES[codec][0]
            layout = _LAYOUTS[codec].get(context.layout.nb_channels, "stereo")
            bit_rate = _BIT_RATE_PER_CHANNEL * av.AudioLayout(layout).nb_channels
            added = output.add_stream(codec, rate=rate, layout=layout, bit_rate=bit_rate)
            self._target = cast("AudioStream", added)
            self.encoded_note = f"audio: {container.muxer} does not support {name}; encoded as {codec}"
            # A decoder of its own: other outputs decode the same packets.
            self._decoder = av.open(io.BytesIO(), "w", format="null").add_stream_from_template(self.source)
        for key in ("language", "title"):
            if self.source.metadata.get(key):
                self._target.metadata[key] = self.source.metadata[key]
        self._target.disposition = self.source.disposition

    def written(self, packet: "Packet[Any]", shift_s: Fraction) -> list["Packet[Any]"]:
        """Convert a packet of the source into packets of the output, `shift_s` later."""
        assert self._target is not None, "attach comes first"
        packet = _copied(packet)
        if packet.pts is None or packet.dts is None:
            return []
        if self.copies:
            if self._last_dts is not None and packet.dts <= self._last_dts:
                self.lost += 1  # muxers reject a repeated time
                return []
            self._last_dts = packet.dts
            shift = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            out = [packet] if self._filter is None else self._filter.filter(packet)
            for copy in out:
                copy.stream = self._target
            return out
        encoded: list[Packet[Any]] = []
        try:
            for frame in self._decoder.codec_context.decode(packet):
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts += round(shift_s / frame.time_base)
                for even in self._evened(frame):
                    encoded += self._target.encode(even)
        except (av.error.FFmpegError, ValueError):
            self.lost += 1
        return encoded

    def _evened(self, frame: "AudioFrame") -> "list[AudioFrame]":
        """Convert a frame to the format of the first one: broadcasts change between stereo and 5.1."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._form is None:
            self._form = form
        if form == self._form:
            return [frame]
        if form not in self._resamplers:
            self._resamplers[form] = av.AudioResampler(*self._form)
        evened = list(self._resamplers[form].resample(frame))
        for one in evened:  # the resampler counts in samples
            if one.pts is not None and one.time_base is not None and frame.time_base is not None:
                one.pts, one.time_base = round(one.pts * one.time_base / frame.time_base), frame.time_base
        return evened

    def flushed(self) -> list["Packet[Any]"]:
        """Return what an encoder still holds."""
        return [] if self.copies or self._target is None else self._target.encode(None)


def _start_s(packet: "Packet[Any]") -> Fraction:
    return (packet.pts or 0) * packet.time_base


def _copied(packet: "Packet[Any]") -> "Packet[Any]":
    """Return a packet that may be changed: the source's own may be written by several outputs."""
    copy: Packet[Any] = av.Packet(bytes(packet))
    copy.pts, copy.dts, copy.duration, copy.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    copy.is_keyframe = packet.is_keyframe
    if packet.has_sidedata("skip_samples"):
        packet.get_sidedata("skip_samples").to_packet(copy)
    return copy
