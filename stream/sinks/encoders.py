"""Which encoder and options write which video container: data, and the checks made before any work.

Invariant: a choice returned by `choose` names an encoder of this FFmpeg build that its container takes; whether it
also runs on this machine (a GPU encoder without its driver) is known only once it is opened.
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
        muxer: FFmpeg's name; given always, because FFmpeg takes `.m4v` for a raw MPEG-4 stream.
        codec: the encoder used where none is asked for.
        audio_codec: what audio is encoded as where it cannot be copied.
        audio_copied: codecs copied as they are: what players of the format know, which is less than the muxer takes.
        has_exact_ticks: keeps any time base; Matroska and WebM round to milliseconds.
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
"""By suffix. AVI has no timestamps, so the source's pts could not be kept; GIF no more than 256 colours."""

UNWRITTEN_SUFFIXES = frozenset(
    {".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".gif"}
)
"""Video formats that are read, not written: an output so named is refused rather than made a folder."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How an encoder is told quality and speed.

    Attributes:
        quality_option: FFmpeg's name of its constant-quality option, None without one.
        quality: its default here, `max_quality` its largest value (the worst picture).
        preset_option: the option that takes `--preset`, None without one.
        preset: its default here, one of `presets` where those are known.
        pixel_format: where another than yuv420p is right.
        options: set always.
        environment: variables its library reads and FFmpeg has no option for.
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

# libx264, 1330×480 (640×480 side by side, moving, with camera noise), CPU per frame on one core, size of 150 frames:
# medium crf 23 15.2 ms 241 kB; veryfast crf 20 6.0 to 6.9 ms 266 kB; superfast crf 20 4.7 ms 775 kB; ultrafast crf 20
# 3.0 ms 3.5 MB. B-frames are free there and more than halve the file (veryfast without them: 619 kB).
ENCODERS: Mapping[str, Encoder] = {
    "libx264": Encoder(quality=20, max_quality=51, preset="veryfast", presets=_X26X),
    "libx265": Encoder(
        quality=23, max_quality=51, preset="superfast", presets=_X26X, options={"x265-params": "log-level=none"}
    ),
    "libsvtav1": Encoder(
        quality=30,
        preset="9",
        presets=tuple(map(str, range(14))),
        environment={"SVT_LOG": "1"},  # errors only
    ),
    "libvpx-vp9": Encoder(
        quality=30, preset_option="deadline", preset="realtime", presets=_VPX, options={"cpu-used": "7", "row-mt": "1"}
    ),
    "libvpx": Encoder(
        quality=10, preset_option="deadline", preset="realtime", presets=_VPX, options={"cpu-used": "8", "b": "8M"}
    ),
    "h264_nvenc": Encoder(
        quality_option="cq", quality=21, max_quality=51, preset="p4", presets=_NVENC, options={"rc": "vbr"}
    ),
    "hevc_nvenc": Encoder(
        quality_option="cq", quality=24, max_quality=51, preset="p4", presets=_NVENC, options={"rc": "vbr"}
    ),
    "av1_nvenc": Encoder(quality_option="cq", quality=30, preset="p4", presets=_NVENC, options={"rc": "vbr"}),
    "prores_ks": Encoder(quality_option=None, preset_option=None, pixel_format="yuv422p10le"),
    "ffv1": Encoder(quality_option=None, preset_option=None, options={"level": "3"}),
    "mpeg4": Encoder(quality_option=None, preset_option=None, options=_FIXED_QUALITY),
    "mjpeg": Encoder(quality_option=None, preset_option=None, pixel_format="yuvj420p", options=_FIXED_QUALITY),
}
"""What is known of encoders; any other of the FFmpeg build is taken with its own defaults."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a video is written with: container, FFmpeg's encoder and pixel format names, options, see `Encoder`."""

    container: Container
    codec: str
    pixel_format: str
    options: Mapping[str, str]
    environment: Mapping[str, str]


def choose(
    path: Path, *, codec: str | None, crf: int | None, preset: str | None, pixel_format: str | None = None
) -> Choice:
    """What `path` is written with; arguments as of `VideoSink`.

    Raises:
        UsageError: a suffix, encoder or option that is unknown or does not fit the others.
    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        what = "cannot write this video format" if path.suffix.lower() in UNWRITTEN_SUFFIXES else "not a video suffix"
        raise UsageError(what, where=str(path), allowed=", ".join(CONTAINERS))
    wanted = codec or container.codec
    try:
        found = av.Codec(wanted, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise UsageError(f"unknown encoder '{wanted}'", where="--codec", allowed=_some_encoders()) from error
    if found.type != "video":
        raise UsageError(f"'{wanted}' is not a video encoder", where="--codec", allowed=_some_encoders())
    name = found.name
    encoder = ENCODERS.get(name, Encoder())
    options = dict(encoder.options)
    _set(options, encoder.quality_option, crf, encoder.quality, where="--crf", codec=name)
    if crf is not None and not 0 <= crf <= encoder.max_quality:
        raise UsageError(f"bad quality {crf} for {name}", where="--crf", allowed=f"0 to {encoder.max_quality}")
    _set(options, encoder.preset_option, preset, encoder.preset, where="--preset", codec=name)
    if preset is not None and encoder.presets and preset not in encoder.presets:
        raise UsageError(f"{name} has no preset '{preset}'", where="--preset", allowed=", ".join(encoder.presets))
    known = [f.name for f in found.video_formats or ()]
    chosen = pixel_format or encoder.pixel_format or ("yuv420p" if not known or "yuv420p" in known else known[0])
    if known and chosen not in known:
        raise UsageError(f"{name} does not take pixel format '{chosen}'", where=str(path), allowed=", ".join(known))
    _check_that_it_holds(container, name, path)
    return Choice(
        container=container, codec=name, pixel_format=chosen, options=options, environment=encoder.environment
    )


def _set(
    options: dict[str, str], option: str | None, asked: int | str | None, default: int | str | None, *, where: str,
    codec: str,
) -> None:  # fmt: skip
    if option is None and asked is not None:
        raise UsageError(f"{codec} has no such option", where=where, hint="leave it out or choose another --codec")
    value = default if asked is None else asked
    if option is not None and value is not None:
        options[option] = str(value)


def _check_that_it_holds(container: Container, codec: str, path: Path) -> None:
    with av.open(BytesIO(), "w", format=container.muxer) as nowhere:
        try:
            nowhere.add_stream(codec)
        except ValueError as error:
            hint = f"use {container.codec}, or .mkv, which holds nearly all"
            raise UsageError(f"{codec} does not go into {path.suffix} files", where="--codec", hint=hint) from error


def _some_encoders() -> str:
    """The encoders of `ENCODERS` that this FFmpeg build has."""
    return ", ".join(name for name in ENCODERS if name in av.codecs_available)
