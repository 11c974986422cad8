"""The source's audio track in the output: copied packet by packet, or encoded again where the container needs it.

Invariant: audio is read no further than the pictures written, so memory stays bounded; a track that cannot be read
is left out and named, and never costs the video.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from stream.frames import SourceInfo
from stream.media import av

if TYPE_CHECKING:
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

_OPUS_RATE = 48_000


class AudioTrack:
    """The first audio stream of `url`, on its way into an output container.

    Life: construct, `attach` before the header is written, `start` at the first picture, `write_until` after each,
    `finish`, `close`.

    Args:
        url: path or URL of the source.
        where: the output, for notes.
    """

    def __init__(self, url: str, *, where: str) -> None:
        self.notes: list[str] = []
        self._where = where
        self._input: InputContainer | None = None
        self._packets: Iterator[Packet] = iter(())
        self._next: Packet | None = None
        self._target: AudioStream | None = None
        self._resampler: AudioResampler | None = None
        self._shift = 0
        self._begin: Fraction | None = None
        self._end: Fraction | None = None
        self.time_base = Fraction(1, _OPUS_RATE)
        try:
            self._input = av.open(url)
            self._source = self._input.streams.audio[0]
            self.time_base = self._source.time_base or self.time_base
        except (av.error.FFmpegError, OSError, IndexError) as error:
            self._give_up(error)

    def attach(self, output: "OutputContainer") -> None:
        """Add the track to `output`: a copy if its format takes the codec, else AAC (Opus in WebM)."""
        if self._input is None:
            return
        context = self._source.codec_context
        if context is not None and context.name in _copyable(output):
            self._target = output.add_stream_from_template(self._source, opaque=False)
            self._target.time_base = self.time_base
            return
        codec = "libopus" if output.format.name == "webm" else "aac"
        rate = _OPUS_RATE if codec == "libopus" else context.sample_rate
        layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        self._target = output.add_stream(codec, rate=rate, layout=layout)
        self._resampler = av.AudioResampler(format=self._target.codec_context.format, layout=layout, rate=rate)
        name = getattr(context, "name", "unknown")
        self.notes.append(f"audio: {name} does not go into {output.format.name}, encoded as {codec}")

    def start(self, output: "OutputContainer", *, first_s: Fraction, info: SourceInfo) -> None:  # noqa: ARG002
        """The first picture stands at `first_s` of the source's clock; a part of a source is cut and moved with it."""
        if self._input is None:
            return
        if info.start_s:
            self._begin = first_s
            self._shift = -round(first_s / self.time_base)
            try:
                self._input.seek(-self._shift, stream=self._source)
            except av.error.FFmpegError:
                self._input.seek(0)  # no index: packets before the beginning are passed over below
        if info.end_s is not None:
            self._end = first_s + Fraction(info.end_s) - Fraction(info.start_s or 0)
        self._packets = self._input.demux(self._source)
        self._advance()

    def write_until(self, output: "OutputContainer", until_s: Fraction) -> None:
        """Write packets that start before `until_s` of the output's clock."""
        while self._next is not None and self._time(self._next) < until_s:
            self._write(output, self._next)
            self._advance()

    def finish(self, output: "OutputContainer", until_s: Fraction | None) -> None:
        """Write the rest, up to `until_s` if given, and what the encoder still holds."""
        if self._target is None:
            return
        self.write_until(output, Fraction(2**40) if until_s is None else until_s)
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                output.mux(self._target.encode(frame))
            output.mux(self._target.encode(None))

    def close(self) -> None:
        """Release the source. Idempotent."""
        if self._input is not None:
            self._input.close()
            self._input, self._next = None, None

    def _advance(self) -> None:
        self._next = None
        try:
            for packet in self._packets:
                if packet.pts is None or packet.size == 0:
                    continue
                start = packet.pts * self.time_base
                if self._begin is not None and start + (packet.duration or 0) * self.time_base <= self._begin:
                    continue
                if self._end is not None and start >= self._end:
                    return
                self._next = packet
                return
        except (av.error.FFmpegError, OSError) as error:
            self._give_up(error)

    def _time(self, packet: "Packet") -> Fraction:
        return (Fraction(packet.pts or 0) + self._shift) * self.time_base

    def _write(self, output: "OutputContainer", packet: "Packet") -> None:
        assert self._target is not None
        if self._resampler is None:
            if self._shift:
                packet.pts = (packet.pts or 0) + self._shift
                packet.dts = None if packet.dts is None else packet.dts + self._shift
            packet.stream = self._target
            output.mux(packet)
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            self._note(f"audio: a damaged packet was left out: {error.strerror}")
            return
        for decoded in frames:
            if decoded.pts is not None:
                decoded.pts += round(self._shift * self.time_base / decoded.time_base)
            for frame in self._resampler.resample(decoded):
                output.mux(self._target.encode(frame))

    def _give_up(self, error: BaseException) -> None:
        self._note(f"audio ends early or cannot be read: {getattr(error, 'strerror', None) or error}")
        self._packets, self._next = iter(()), None

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _copyable(output: "OutputContainer") -> frozenset[str]:
    """Decoder names of the audio codecs that `output`'s format takes."""
    if output.format.name == "webm":
        return frozenset({"opus", "libopus", "vorbis"})
    return frozenset(output.supported_codecs)
