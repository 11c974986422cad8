"""The source's audio in the output video: copied packet by packet, or encoded again if the container requires it.

Invariant: audio is read no further than the video is written, so memory stays bounded. Audio that cannot be read is
left out with a note, and never fails the video.
"""

from collections.abc import Iterator
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self, cast

from stream.config import defaults
from stream.errors import reason_of
from stream.frames import SourceInfo
from stream.media import av
from stream.sinks.encoders import Container

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.bitstream import BitStreamFilterContext
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

_BIT_RATE_PER_CHANNEL = 80_000  # AAC is transparent for most material from about 128 kbit/s stereo on
_RATES = {"aac": (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 96_000, 88_200, 8_000), "libopus": (48_000,)}
_LAYOUTS = {"aac": {1: "mono", 6: "5.1", 8: "7.1"}, "libopus": {1: "mono"}}
"""By number of channels; other numbers, and channels of unknown order, become stereo."""


class AudioPolicy(StrEnum):
    """Whether the output keeps the source's audio."""

    KEEP = "keep"
    NONE = "none"


class AudioTrack:
    """The first audio stream of a source.

    Life cycle: `load`; `attach` before the output's header is written; `start` at the first frame; `until` after each
    frame; `rest` at the end; `close`. The caller writes the packets, so that a full disk is not mistaken for damaged
    audio.
    """

    def __init__(self, source: "InputContainer", stream: "AudioStream", notes: list[str]) -> None:
        self._input = source
        self._source = stream
        self._notes = notes
        self._target: AudioStream | None = None
        self._may_copy = self._copies = True
        self._encoded_note = ""
        self._filter: BitStreamFilterContext | None = None
        self._shift_s = Fraction(0)
        self._begin_s: Fraction | None = None
        self._end_s: Fraction | None = None
        self._read_s = Fraction(0)
        self._last_dts: int | None = None
        self._lost = 0
        self._packets: Iterator[Packet[Any]] = iter(())
        self._next: Packet[Any] | None = None

    @classmethod
    def load(cls, url: str, notes: list[str]) -> Self | None:
        """Open `url`. None, with a note, if it has no audio that can be decoded or copied."""
        try:
            source = av.open(url, timeout=defaults().capture.read_timeout_s, metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            notes.append(f"no audio: {url} cannot be read again for its audio: {reason_of(error)}")
            return None
        stream = next(iter(source.streams.audio), None)
        if stream is None or stream.codec_context is None or not stream.sample_rate or not stream.time_base:
            source.close()
            notes.append(f"no audio: {url} has no audio track that FFmpeg can read")
            return None
        return cls(source, stream, notes)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the source, which is the timescale of a copied track in MP4."""
        return self._source.sample_rate

    def attach(self, output: "OutputContainer", container: Container) -> None:
        """Add the track to `output`: copied if `container` lists the codec, else encoded.

        May be called again for another output until `start`.
        """
        context = self._source.codec_context
        name = context.codec.canonical_name
        self._copies = self._may_copy and name in container.audio_copied
        if self._copies:
            self._target = output.add_stream_from_template(self._source)
            if name == "aac" and not context.extradata:  # from MPEG-TS, where every packet has its own header
                self._filter = av.bitstream.BitStreamFilterContext("aac_adtstoasc", self._source)
        else:
            codec = container.audio_codec
            rate = context.sample_rate if context.sample_rate in _RATES[codec] else _RATES[codec][0]
            layout = _LAYOUTS[codec].get(context.layout.nb_channels, "stereo")
            bit_rate = _BIT_RATE_PER_CHANNEL * av.AudioLayout(layout).nb_channels
            added = output.add_stream(codec, rate=rate, layout=layout, bit_rate=bit_rate)
            self._target = cast("AudioStream", added)
            self._encoded_note = f"audio: {container.muxer} does not support {name}; encoded as {codec}"
        if self._source.language:
            self._target.metadata["language"] = self._source.language

    def encode_instead(self) -> bool:
        """Make the next `attach` encode instead of copying; False if it does so already."""
        was_copying = self._copies
        self._may_copy = False
        return was_copying

    def start(self, first_s: Fraction, shift_s: Fraction, info: SourceInfo) -> None:
        """Start reading.

        Args:
            first_s: time of the first frame on the source's clock.
            shift_s: added to all times of the video, and of the audio with it.
            info: of the source; its `start_s` and `end_s` limit the audio too.
        """
        if not self._copies:
            self._notes.append(self._encoded_note)
        self._shift_s = shift_s
        origin_s = first_s
        if info.start_s:
            self._begin_s = first_s
            video = next(iter(self._input.streams.video), None)
            if video is not None and video.start_time is not None and video.time_base is not None:
                origin_s = video.start_time * video.time_base
            try:
                self._input.seek(int(first_s * av.time_base))
            except av.error.FFmpegError:
                # No index, or a stream that cannot seek: read from the start and skip what lies before.
                self._input.seek(0)
        if info.end_s is not None:
            self._end_s = origin_s + Fraction(info.end_s)
        self._packets = self._wanted()
        self._next = next(self._packets, None)

    def until(self, time_s: Fraction) -> Iterator["Packet[Any]"]:
        """Yield the packets of the audio that starts up to `time_s` on the output's clock."""
        while self._next is not None and self._start_s(self._next) + self._shift_s <= time_s:
            packet, self._next = self._next, next(self._packets, None)
            yield from self._written(packet)

    def rest(self, end_s: Fraction | None) -> Iterator["Packet[Any]"]:
        """Yield the remaining packets, up to `end_s` on the output's clock if given, and flush the encoder."""
        while self._next is not None and (end_s is None or self._start_s(self._next) + self._shift_s < end_s):
            packet, self._next = self._next, next(self._packets, None)
            yield from self._written(packet)
        if not self._copies and self._target is not None:
            yield from self._target.encode(None)
        if self._lost:
            self._notes.append(f"audio: {self._lost} damaged packets left out")

    def close(self) -> None:
        """Release the source. Idempotent."""
        self._packets, self._next = iter(()), None
        self._input.close()

    def _wanted(self) -> Iterator["Packet[Any]"]:
        """Yield the source's packets between start and end; stops early, with a note, if reading fails."""
        try:
            for packet in self._input.demux(self._source):
                if not packet.size:
                    continue
                packet.pts = packet.dts if packet.pts is None else packet.pts
                if packet.pts is None:
                    self._lost += 1
                    continue
                self._read_s = self._start_s(packet)
                if self._begin_s is not None and self._read_s < self._begin_s:
                    continue
                if self._end_s is not None and self._read_s >= self._end_s:
                    return
                yield packet
        except (av.error.FFmpegError, OSError) as error:
            self._notes.append(f"the audio ends at {float(self._read_s):.1f} s: {reason_of(error)}")

    def _start_s(self, packet: "Packet[Any]") -> Fraction:
        return (packet.pts or 0) * packet.time_base

    def _written(self, packet: "Packet[Any]") -> list["Packet[Any]"]:
        """Convert a packet of the source into packets of the output."""
        assert self._target is not None, "attach comes first"
        if self._copies:
            shift = round(self._shift_s / packet.time_base)
            dts = packet.pts if packet.dts is None else packet.dts
            if dts is None or packet.pts is None or (self._last_dts is not None and dts <= self._last_dts):
                self._lost += 1  # muxers reject a repeated time
                return []
            self._last_dts = dts
            packet.pts, packet.dts = packet.pts + shift, dts + shift
            out = [packet] if self._filter is None else self._filter.filter(packet)
            for copy in out:
                copy.stream = self._target
            return out
        encoded: list[Packet[Any]] = []
        try:
            for frame in self._source.decode(packet):
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts += round(self._shift_s / frame.time_base)
                encoded += self._target.encode(frame)
        except av.error.InvalidDataError:
            self._lost += 1
        return encoded
