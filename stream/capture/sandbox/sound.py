"""Sound on its way out of a sandbox: still encoded, and never decoded outside of it.

A track's parameters come as a few numbers and names. From these a stream is made that outputs copy packets with; PyAV
can only make one for a codec that FFmpeg encodes too, which leaves out DTS and TrueHD.
Invariant: what is rebuilt has the codec, rate, layout, format and header (extradata) of the source's track.
"""

import io
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from stream.capture.sandbox.wire import Fields, pair
from stream.capture.video.sound import KEPT_BYTES, OVERHEAD_BYTES
from stream.channel import Broadcast
from stream.frames import Audio, AudioPacket
from stream.media import av

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet

_ENCODERS = {"mp3": "libmp3lame", "opus": "libopus", "amr_nb": "libopencore_amrnb"}
"""FFmpeg's encoders that are not named like their codec."""
_MOST_TRACKS, _MOST_CHANNELS, _LONGEST_HEADER, _MOST_TICKS = 64, 64, 1 << 16, 1 << 62
_SKIP: Final = "skip_samples"
"""Side data of 10 bytes: samples to leave out at the start and at the end of a packet."""


def described(audio: Audio) -> dict[str, object]:
    """What `Sound` needs to know. In the child."""
    lead_s = pair(audio.lead_s) if audio.lead_s > 0 else None
    return {"tracks": [_described(track) for track in audio.tracks], "lead_s": lead_s}


def packet_fields(item: AudioPacket) -> dict[str, object]:
    """What is sent along with the bytes of a packet. In the child."""
    packet = item.packet
    skip = bytes(packet.get_sidedata(_SKIP)).hex() if packet.has_sidedata(_SKIP) else None
    return {
        "sound": item.track,
        "pts": packet.pts,
        "dts": packet.dts,
        "duration": packet.duration,
        "ticks": pair(packet.time_base),
        "key": packet.is_keyframe,
        "skip": skip,
    }


class Sound:
    """The sound of a sandboxed source. In the parent.

    Args:
        fields: what `described` has made.
        add_note: takes what is said about tracks that are left out.

    Raises:
        ViolationError: the fields are not what they must be.
    """

    def __init__(self, fields: Fields, add_note: Callable[[str], None]) -> None:
        found = [_rebuilt(track) for track in fields.several("tracks", _MOST_TRACKS)]
        kept = [stream for stream in found if stream is not None]
        self._numbers = {at: kept.index(stream) for at, stream in enumerate(found) if stream is not None}
        if len(kept) < len(found):
            what = "the sound is" if not kept else f"{len(found) - len(kept)} of {len(found)} audio tracks are"
            add_note(f"--sandbox: {what} left out: its codec cannot be passed on without decoding it here")
        self._packets: Broadcast[AudioPacket] = Broadcast(KEPT_BYTES)
        self._count = len(found)
        self.audio: Audio | None = None
        if kept:
            lead_s = fields.fraction("lead_s", _MOST_TICKS) if "lead_s" in fields else Fraction(0)
            self.audio = Audio(tracks=tuple(kept), packets=self._packets, lead_s=lead_s, may_decode=False)

    def put(self, fields: Fields, data: bytes) -> None:
        """Pass a packet on.

        Raises:
            ViolationError: the fields are not what they must be.
        """
        number = self._numbers.get(fields.integer("sound", 0, self._count - 1))
        if number is None:
            return
        packet: Packet[Any] = av.Packet(data)
        packet.time_base = fields.fraction("ticks")
        if "pts" in fields:
            packet.pts = fields.integer("pts", -_MOST_TICKS, _MOST_TICKS)
        if "dts" in fields:
            packet.dts = fields.integer("dts", -_MOST_TICKS, _MOST_TICKS)
        if "duration" in fields:
            packet.duration = fields.integer("duration", 0, _MOST_TICKS)
        packet.is_keyframe = fields.truth("key")
        if "skip" in fields:
            _add_skip(packet, fields.data("skip", 16))
        self._packets.put(AudioPacket(track=number, packet=packet), len(data) + OVERHEAD_BYTES)

    def end(self) -> None:
        """Nothing more will come. Idempotent."""
        self._packets.end()


def _described(track: "AudioStream") -> dict[str, object]:
    context = track.codec_context
    return {
        "codec": context.codec.canonical_name,
        "rate": context.sample_rate,
        "layout": context.layout.name,
        "format": None if context.format is None else context.format.name,
        "bit_rate": context.bit_rate,
        "profile": context.profile,
        "header": (context.extradata or b"").hex(),
        "ticks": pair(Fraction(track.time_base or 1)),
        "disposition": int(track.disposition),
        "metadata": dict(track.metadata),
    }


def _rebuilt(fields: Fields) -> "AudioStream | None":
    """A stream with these parameters, in a container that is never written; None if PyAV cannot make it.

    A stream made from a template takes its parameters without being opened as an encoder would be, and writing the
    (empty) header of its container puts them where the next template is read.
    """
    codec, rate = fields.text("codec", 40), fields.integer("rate", 1, 10_000_000)
    layout, header = fields.text("layout", 200), fields.data("header", _LONGEST_HEADER)
    try:
        plain: Any = av.open(io.BytesIO(), "w", format="null").add_stream(_ENCODERS.get(codec, codec), rate=rate)
        if plain.type != "audio":
            return None
        container = av.open(io.BytesIO(), "w", format="null")
        stream: AudioStream = container.add_stream_from_template(plain)
        context = stream.codec_context
        context.layout = layout
        if not 1 <= context.layout.nb_channels <= _MOST_CHANNELS:
            return None
        if "format" in fields:
            context.format = fields.text("format", 40)
        if "bit_rate" in fields:
            context.bit_rate = fields.integer("bit_rate", 0, 1 << 40)
        if "profile" in fields:
            context.profile = fields.text("profile", 40)
        if header:
            context.extradata = header
        stream.time_base = fields.fraction("ticks")
        container.start_encoding()
    except (av.error.FFmpegError, ValueError, OverflowError):
        return None
    stream.disposition = av.stream.Disposition(fields.integer("disposition", 0, (1 << 22) - 1))
    metadata = fields.inner("metadata")
    for name in ("language", "title"):
        if name in metadata:
            stream.metadata[name] = metadata.text(name, 200)
    return stream


def _add_skip(packet: "Packet[Any]", data: bytes) -> None:
    kind = av.packet.packet_sidedata_type_from_literal(_SKIP)
    make: Any = av.packet.PacketSideData  # its stub has no constructor
    side_data = make(kind, len(data))
    side_data.update(data)
    side_data.to_packet(packet, True)
