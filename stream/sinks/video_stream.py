"""The output container's options and its video stream, set up for exact times and files that survive a crash; and how
many frames a finished file gives back.

Invariant: MP4 and MOV are written in fragments, so that a file that ends anywhere can be played up to there.
"""

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stream.machine import encoder_threads
from stream.media import RgbConverter, file_url, open_input
from stream.sinks.encoders import Encoding

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

_FRAGMENT_US = 1_000_000
"""What a killed process loses at most, besides the encoder's delay: about 40 frames with libx264, none if live."""
_WITH_LOW_LATENCY = ("libx264", "libx265")
_MAX_TIMESCALE = 2**31 - 1  # 32 bits in MP4, and FFmpeg's option is a signed int
_SLICES = 2
"""Threads of an encoder that cuts each picture into as many slices."""
DEFAULT_RATE = Fraction(30)
"""For the encoder's rate control alone, if the source has no rate."""


def container_options(encoding: Encoding, time_base: Fraction, audio_rate: int | None) -> dict[str, str]:
    """Return FFmpeg's options for the container.

    Args:
        encoding: the container to write, among others.
        time_base: of the video stream.
        audio_rate: samples per second of the audio track, None without one.
    """
    options = {"flush_packets": "1"}  # complete packets go to the disk at once, instead of into a buffer
    if encoding.container.muxer == "nut":
        return options | {
            "avoid_negative_ts": "disabled"
        }  # the default moves the pictures if the first dts is negative
    if encoding.container.muxer in ("matroska", "webm"):
        # The default would delay all frames by the 21 ms of silence before a copied AAC track.
        return options | {"avoid_negative_ts": "disabled", "cluster_time_limit": str(_FRAGMENT_US // 1000)}
    # The offset of a first pts other than zero is stored in the movie's timescale: choose one that is exact for both
    # tracks.
    scale = time_base.denominator
    both = math.lcm(scale, audio_rate) if audio_rate is not None else scale
    return options | {
        "video_track_timescale": str(scale),
        "movie_timescale": str(both if both <= _MAX_TIMESCALE else scale),
        # delay_moov: with B-frames, the first dts is unknown when the header would be written.
        "movflags": "+hybrid_fragmented+delay_moov",
        "frag_duration": str(_FRAGMENT_US),
    }


def add_video_stream(
    output: "OutputContainer",
    encoding: Encoding,
    converter: RgbConverter,
    *,
    size_hw: tuple[int, int],
    time_base: Fraction,
    rate: Fraction | None,
    is_live: bool,
) -> "VideoStream":
    """Add the video stream to `output`; its encoder is not open yet.

    Args:
        converter: tags the stream with its colour space.
        size_hw: (height, width) of the encoded frames, in pixels.
        rate: of the source, None if unknown.
        is_live: no frame waits in the encoder.
    """
    for name, value in encoding.environment.items():
        os.environ.setdefault(name, value)
    options = dict(encoding.options)
    if is_live and encoding.codec in _WITH_LOW_LATENCY:
        options["tune"] = "zerolatency"  # a killed process loses no frames that wait for later ones
    nominal = encoding.nominal_rate(rate or DEFAULT_RATE)
    stream = cast("VideoStream", output.add_stream(encoding.codec, rate=nominal, options=options))
    context = stream.codec_context
    context.height, context.width = size_hw
    context.pix_fmt = encoding.pixel_format
    stream.time_base, context.time_base = time_base, encoding.clock(time_base, nominal)
    # Frame threads run in parallel to the rest of the pipeline. Slice threads, PyAV's default, do not, and they make
    # the file larger; but they add no delay. FFV1 has none but slices.
    has_slices = is_live or encoding.codec == "ffv1"
    context.thread_type = "SLICE" if has_slices else "FRAME"
    context.thread_count = _SLICES if has_slices else encoder_threads()
    tag_video_stream(stream, encoding, converter)
    return stream


def tag_video_stream(stream: "VideoStream", encoding: Encoding, converter: RgbConverter) -> None:
    """State the colour space, and the codec as players expect it, before the header is written."""
    context = stream.codec_context
    converter.tag(context)
    if context.codec.canonical_name == "hevc" and encoding.container.has_exact_ticks:
        context.codec_tag = "hvc1"  # the tag that Apple's players require


def count_frames(path: Path) -> int:
    """Return the number of frames that the file's index, edit list included, gives to a player; decodes none.

    The index of an MP4 or MOV file lists every frame. Other files are read to their end: an hour at 25 fps (90 000
    packets, 7.8 GB) takes 1.8 s on one core if the file is still in memory, and as long as the disk needs if it is not.

    Raises:
        av.error.FFmpegError, OSError: the file cannot be read.
    """
    with open_input(file_url(path)) as written:
        stream = written.streams.video[0]
        entries = stream.index_entries
        if stream.frames and len(entries) == stream.frames:
            return sum(1 for entry in entries if not entry.is_discard)
        return sum(1 for packet in written.demux(video=0) if packet.size and not packet.is_discard)
