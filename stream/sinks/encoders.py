"""Video containers and encoders: a table of their options, and the checks made before any work.

Invariant: an `Encoding` names an encoder of this FFmpeg build that its container supports. Whether it runs on this
machine (a GPU encoder needs its driver) is known only when it is opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from stream.errors import UsageError
from stream.media import av

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
        has_exact_ticks: stores any time base; Matroska and WebM round to milliseconds.
    """

    muxer: str
    codec: str = "libx264"
    audio_codec: str = "aac"
    audio_copied: frozenset[str]
    has_exact_ticks: bool


_MP4 = Container(muxer="mp4", audio_copied=_EVERYWHERE | {"opus", "flac"}, has_exact_ticks=True)
CONTAINERS: Mapping[str, Container] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(muxer="mov", audio_copied=_EVERYWHERE | _PCM, has_exact_ticks=True),
    ".mkv": Container(
        muxer="matroska",
        audio_copied=_EVERYWHERE | {"opus", "flac", "vorbis", "dts", "truehd", "pcm_s16le", "pcm_s24le", "pcm_f32le"},
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
    "ffv1": EncoderProfile(quality_option=None, preset_option=None, options={"level": "3"}),
    "mpeg4": EncoderProfile(quality_option=None, preset_option=None, options=_FIXED_QUALITY),
    "mjpeg": EncoderProfile(quality_option=None, preset_option=None, pixel_format="yuvj420p", options=_FIXED_QUALITY),
}
"""By FFmpeg's name; any other encoder of the FFmpeg build runs with its own defaults."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The container, encoder and options of one video.

    Attributes:
        codec, pixel_format: FFmpeg's names.
        options, environment: see `EncoderProfile`.
    """

    container: Container
    codec: str
    pixel_format: str
    options: Mapping[str, str]
    environment: Mapping[str, str]


def choose_encoding(path: Path, *, codec: str | None, crf: int | None, preset: str | None) -> Encoding:
    """Return how to write the video `path`; see `VideoSink` for the arguments.

    Raises:
        UsageError: the suffix, the encoder or an option is unknown, or they do not fit together.
    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        what = "cannot write this video format" if path.suffix.lower() in UNWRITTEN_SUFFIXES else "not a video suffix"
        raise UsageError(what, where=str(path), allowed=", ".join(CONTAINERS))
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
    _check_container(container, name, path)
    return Encoding(
        container=container, codec=name, pixel_format=pixel_format, options=options, environment=profile.environment
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


def _check_container(container: Container, codec: str, path: Path) -> None:
    with av.open(BytesIO(), "w", format=container.muxer) as dummy:
        try:
            dummy.add_stream(codec)
        except ValueError as error:
            hint = f"use {container.codec}, or an .mkv file, which supports nearly all encoders"
            raise UsageError(f"{path.suffix} files do not support {codec}", where="--codec", hint=hint) from error


def _available_encoders() -> str:
    """Those of `ENCODERS` that this FFmpeg build has."""
    return ", ".join(name for name in ENCODERS if name in av.codecs_available)
