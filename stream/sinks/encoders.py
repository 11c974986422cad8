"""Video containers and encoders: a table of their options, and the checks made before any work.

Invariant: an `Encoding` names an encoder of this FFmpeg build that its container supports. Whether it runs on this
machine (a GPU encoder needs its driver) is known only when it is opened.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from stream.errors import UsageError
from stream.media import av

if TYPE_CHECKING:
    from av.codec import Codec

_MAX_RATE_DENOMINATOR = 1_000_000
"""FFmpeg stores both numbers of a rate in 32 bits."""
_EVERYWHERE = frozenset({"aac", "mp3", "ac3", "eac3", "alac"})
_PCM = frozenset(
    f"pcm_{name}" for name in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "mulaw", "alaw")
)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A file format.

    Attributes:
        muxer: FFmpeg's name; always passed on, because FFmpeg would write a raw MPEG-4 stream to `.m4v`.
        codec: the default video encoder.
        audio_codec: the encoder for audio that cannot be copied.
        audio_copied: audio codecs that are copied: those that players of the format support, fewer than the muxer does.
        refused: video codecs that the muxer lists but does not write.
        has_exact_ticks: stores any time base; Matroska and WebM round to milliseconds.
    """

    muxer: str
    codec: str = "libx264"
    audio_codec: str = "aac"
    audio_copied: frozenset[str]
    refused: frozenset[str] = frozenset()
    has_exact_ticks: bool


_MP4 = Container(muxer="mp4", audio_copied=_EVERYWHERE | {"opus", "flac"}, has_exact_ticks=True)
CONTAINERS: Mapping[str, Container] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(
        muxer="mov",
        audio_copied=_EVERYWHERE | _PCM,
        refused=frozenset({"vp8", "vp9", "av1"}),
        has_exact_ticks=True,
    ),
    ".mkv": Container(
        muxer="matroska",
        audio_copied=_EVERYWHERE | {"opus", "flac", "vorbis", "dts", "truehd", "pcm_s16le", "pcm_s24le", "pcm_f32le"},
        refused=frozenset({"rv10", "rv20"}),
        has_exact_ticks=False,
    ),
    ".webm": Container(
        muxer="webm",
        codec="libvpx-vp9",
        audio_codec="libopus",
        audio_copied=frozenset({"opus", "vorbis"}),
        has_exact_ticks=False,
    ),
}
"""By suffix. AVI is missing because it has no timestamps and would lose the source's pts; GIF has only 256 colours."""

UNWRITTEN_SUFFIXES = frozenset(
    {".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".gif"}
)
"""Video formats that are read but not written; an output with such a suffix is an error, not a folder."""


@dataclass(frozen=True, kw_only=True)
class EncoderProfile:
    """The options of one encoder.

    Attributes:
        quality_option: FFmpeg's name of the constant-quality option, None if there is none.
        quality: the default of that option here.
        max_quality: its largest value (the worst quality).
        preset_option: the option that `--preset` sets, None if there is none.
        preset: the default of that option here.
        presets: its allowed values, empty if unknown.
        pixel_format: None for yuv420p.
        options: further options, always set.
        environment: environment variables that the encoder's library reads where FFmpeg has no option.
        max_ticks: the largest denominator of its time base, None without a limit.
        max_rate: the largest nominal frame rate, None without a limit.
    """

    quality_option: str | None = "crf"
    quality: int | None = None
    max_quality: int = 63
    preset_option: str | None = "preset"
    preset: str | None = None
    presets: Sequence[str] = ()
    pixel_format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    max_ticks: int | None = None
    max_rate: int | None = None


_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
_NVENC = tuple(f"p{level}" for level in range(1, 8))
_VPX = ("realtime", "good", "best")
_FIXED_QUALITY = {"flags": "+qscale", "global_quality": str(3 * 118)}  # quantiser 3 of 31, times FF_QP2LAMBDA

# libx264 at 1330×480 (640×480 side by side, moving, with camera noise): CPU per frame on one core, size of 150 frames:
# medium crf 23 15.2 ms 241 kB; veryfast crf 20 6.0 to 6.9 ms 266 kB; superfast crf 20 4.7 ms 775 kB; ultrafast crf 20
# 3.0 ms 3.5 MB. With veryfast, B-frames cost no time and more than halve the file (619 kB without them).
ENCODERS: Mapping[str, EncoderProfile] = {
    "libx264": EncoderProfile(quality=20, max_quality=51, preset="veryfast", presets=_X26X),
    "libx265": EncoderProfile(
        quality=23, max_quality=51, preset="superfast", presets=_X26X, options={"x265-params": "log-level=none"}
    ),
    "libsvtav1": EncoderProfile(
        quality=30,
        preset="9",
        presets=tuple(map(str, range(14))),
        environment={"SVT_LOG": "1"},  # errors only
        max_rate=240,
    ),
    "libvpx-vp9": EncoderProfile(
        quality=30, preset_option="deadline", preset="realtime", presets=_VPX, options={"cpu-used": "7", "row-mt": "1"}
    ),
    "libvpx": EncoderProfile(
        quality=10, preset_option="deadline", preset="realtime", presets=_VPX, options={"cpu-used": "8", "b": "8M"}
    ),
    "h264_nvenc": EncoderProfile(
        quality_option="cq", quality=21, max_quality=51, preset="p4", presets=_NVENC, options={"rc": "vbr"}
    ),
    "hevc_nvenc": EncoderProfile(
        quality_option="cq", quality=24, max_quality=51, preset="p4", presets=_NVENC, options={"rc": "vbr"}
    ),
    "av1_nvenc": EncoderProfile(quality_option="cq", quality=30, preset="p4", presets=_NVENC, options={"rc": "vbr"}),
    "prores_ks": EncoderProfile(quality_option=None, preset_option=None, pixel_format="yuv422p10le"),
    "ffv1": EncoderProfile(  # lossless: 4:2:0 would throw away what it is chosen for
        quality_option=None, preset_option=None, pixel_format="bgr0", options={"level": "3", "slicecrc": "1"}
    ),
    "mpeg4": EncoderProfile(  # its bitstream has 16 bits for the ticks of a second
        quality_option=None, preset_option=None, options=_FIXED_QUALITY, max_ticks=65_535
    ),
    "mpeg1video": EncoderProfile(options={"strict": "unofficial"}),  # its frame rates below 23.976 are unofficial
    "mjpeg": EncoderProfile(quality_option=None, preset_option=None, pixel_format="yuvj420p", options=_FIXED_QUALITY),
}
"""By FFmpeg's name; any other encoder of the FFmpeg build runs with its own defaults."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The container, encoder and options of one video.

    Attributes:
        codec, pixel_format: FFmpeg's names.
        options, environment, max_ticks, max_rate: see `EncoderProfile`.
        rates: the only frame rates that the encoder knows, empty if it takes any.
    """

    container: Container
    codec: str
    pixel_format: str
    options: Mapping[str, str]
    environment: Mapping[str, str]
    max_ticks: int | None = None
    max_rate: int | None = None
    rates: Sequence[Fraction] = ()

    def nominal_rate(self, rate: Fraction) -> Fraction:
        """The rate nearest to `rate` that the encoder takes; the times of the frames do not depend on it."""
        if self.rates:
            return min(self.rates, key=lambda known: abs(math.log(known / rate)))
        if self.max_rate is not None:
            rate = min(rate, Fraction(self.max_rate))
        return rate.limit_denominator(_MAX_RATE_DENOMINATOR)

    def clock(self, time_base: Fraction, rate: Fraction) -> Fraction:
        """The time base that the encoder takes: `time_base` itself wherever possible.

        Args:
            rate: see `nominal_rate`.
        """
        if self.rates:
            return 1 / rate
        if self.max_ticks is not None and time_base.denominator > self.max_ticks:
            return Fraction(1, self.max_ticks)
        return time_base


def choose_encoding(path: Path, *, codec: str | None, crf: int | None, preset: str | None) -> Encoding:
    """Return how to write the video `path`; see `VideoSink` for the arguments.

    Raises:
        UsageError: the suffix, the encoder or an option is unknown, or they do not fit together.
    """
    suffix = path.suffix.lower()
    container = CONTAINERS.get(suffix)
    if container is None:
        what = "cannot write this video format" if suffix in UNWRITTEN_SUFFIXES else "not a video suffix"
        raise UsageError(what, where=str(path), allowed=", ".join(CONTAINERS))
    return encoding_in(container, f"{path.suffix} files", codec=codec, crf=crf, preset=preset)


def encoding_in(
    container: Container, named: str, *, codec: str | None, crf: int | None, preset: str | None
) -> Encoding:
    """Return how to encode for `container`, which messages call `named` (in the plural).

    Raises:
        UsageError: the encoder or an option is unknown, or they do not fit together.
    """
    wanted = codec or container.codec
    try:
        encoder = av.Codec(wanted, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise UsageError(f"unknown encoder '{wanted}'", where="--codec", allowed=_available_encoders()) from error
    if encoder.type != "video":
        raise UsageError(f"'{wanted}' is not a video encoder", where="--codec", allowed=_available_encoders())
    name = encoder.name
    profile = ENCODERS.get(name, EncoderProfile())
    options = dict(profile.options)
    _set(options, profile.quality_option, crf, profile.quality, where="--crf", codec=name)
    if crf is not None and not 0 <= crf <= profile.max_quality:
        raise UsageError(f"bad quality {crf} for {name}", where="--crf", allowed=f"0 to {profile.max_quality}")
    _set(options, profile.preset_option, preset, profile.preset, where="--preset", codec=name)
    if preset is not None and profile.presets and preset not in profile.presets:
        raise UsageError(f"{name} has no preset '{preset}'", where="--preset", allowed=", ".join(profile.presets))
    formats = [f.name for f in encoder.video_formats or ()]
    pixel_format = profile.pixel_format or ("yuv420p" if not formats or "yuv420p" in formats else formats[0])
    _check_container(container, encoder, named)
    return Encoding(
        container=container,
        codec=name,
        pixel_format=pixel_format,
        options=options,
        environment=profile.environment,
        max_ticks=profile.max_ticks,
        max_rate=profile.max_rate,
        rates=[Fraction(rate.numerator, rate.denominator) for rate in encoder.frame_rates or ()],
    )


def _set(
    options: dict[str, str], option: str | None, asked: int | str | None, default: int | str | None, *, where: str,
    codec: str,
) -> None:  # fmt: skip
    if option is None and asked is not None:
        raise UsageError(f"{codec} has no such option", where=where, hint="omit it or choose another --codec")
    value = default if asked is None else asked
    if option is not None and value is not None:
        options[option] = str(value)


def _check_container(container: Container, encoder: "Codec", named: str) -> None:
    codec = encoder.name
    with av.open(BytesIO(), "w", format=container.muxer) as dummy:
        try:
            if encoder.canonical_name in container.refused:
                raise ValueError(encoder.canonical_name)
            dummy.add_stream(codec)
        except ValueError as error:
            hint = f"use {container.codec}, or an .mkv file, which supports nearly all encoders"
            raise UsageError(f"{named} do not support {codec}", where="--codec", hint=hint) from error


def _available_encoders() -> str:
    """Those of `ENCODERS` that this FFmpeg build has."""
    return ", ".join(name for name in ENCODERS if name in av.codecs_available)
