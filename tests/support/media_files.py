"""Writes real media files for tests with PyAV; every frame shows its number, so a test can check which one it got.

Colours are converted to YUV here, with the formulas of ITU-T H.273 in numpy, so that a test of the decoder's colours
does not depend on the converter under test.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.capture.video.sound import SoundReader
from stream.capture.video.timeline import Clock
from stream.frames import Audio
from stream.machine import scheduling_kept
from stream.media import av

Rgb = NDArray[np.uint8]
Draw = Callable[[int, tuple[int, int]], Rgb]

_BITS = 8
MATRICES = {"bt601": (6, 0.299, 0.114), "bt709": (1, 0.2126, 0.0722), "bt2020": (9, 0.2627, 0.0593)}
"""Name → (H.273 MatrixCoefficients, Kr, Kb)."""
LIMITED, FULL = 1, 2
PQ, HLG = 16, 18
BT2020_PRIMARIES = 9
UNSPECIFIED = 2

COLOURS = ((235, 20, 20), (20, 200, 30), (30, 40, 220), (240, 240, 240))
"""red, green, blue, white: the quarters of `quarters`, in reading order."""


def numbered(index: int, size_hw: tuple[int, int]) -> Rgb:
    """Eight vertical gray bars: the bits of `index`, most significant at the left."""
    height, width = size_hw
    bits = [(index >> (_BITS - 1 - b)) & 1 for b in range(_BITS)]
    column = np.array([bits[x * _BITS // width] for x in range(width)], np.uint8)
    return np.broadcast_to((40 + 170 * column)[None, :, None], (height, width, 3)).astype(np.uint8)


def number_of(rgb: Rgb) -> int:
    """The number that `numbered` drew, read back from a picture of any size."""
    height, width, _ = rgb.shape
    centres = [(2 * b + 1) * width // (2 * _BITS) for b in range(_BITS)]
    value = 0
    for x in centres:
        value = value << 1 | int(rgb[height // 4 : max(height // 4 + 1, 3 * height // 4), x].mean() > 125)
    return value


def quarters(_index: int, size_hw: tuple[int, int]) -> Rgb:
    """Four coloured quarters, from which an orientation can be recognised."""
    height, width = size_hw
    picture = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate(COLOURS):
        rows = slice(0, height // 2) if i < 2 else slice(height // 2, height)
        columns = slice(0, width // 2) if i % 2 == 0 else slice(width // 2, width)
        picture[rows, columns] = colour
    return picture


def quarters_of(rgb: Rgb) -> list[int]:
    """Indices into `COLOURS` of a picture's quarters, in reading order."""
    height, width, _ = rgb.shape
    found = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            distance = np.abs(np.array(COLOURS, int) - rgb[y, x].astype(int)).sum(1)
            found.append(int(distance.argmin()))
    return found


def flat(colour: Sequence[int]) -> Draw:
    """Pictures of one colour."""
    return lambda _index, size_hw: np.full((*size_hw, 3), colour, np.uint8)


def yuv_planes(rgb: Rgb, matrix: str, color_range: int, bits: int = 8) -> tuple[NDArray[Any], ...]:
    """Y, Cb and Cr planes at full resolution, by H.273's equations."""
    _, kr, kb = MATRICES[matrix]
    r, g, b = (rgb[..., i].astype(np.float64) / 255 for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    scale, top = 2 ** (bits - 8), 2**bits - 1
    if color_range == FULL:
        planes = (y * top, cb * top + 128 * scale, cr * top + 128 * scale)
    else:
        planes = ((219 * y + 16) * scale, (224 * cb + 128) * scale, (224 * cr + 128) * scale)
    dtype = np.uint8 if bits == 8 else np.uint16
    return tuple(np.clip(np.rint(p), 0, top).astype(dtype) for p in planes)


def yuv_frame(rgb: Rgb, pixel_format: str, matrix: str, color_range: int) -> "av.VideoFrame":
    """A frame in `yuv420p`, `yuvj420p`, `yuv422p10le`, `yuv420p10le` or `yuv444p`; sizes must be even where halved."""
    bits = 10 if "10" in pixel_format else 8
    planes = list(yuv_planes(rgb, matrix, color_range, bits))
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pixel_format)
    down, across = (2 if "420" in pixel_format else 1), (1 if "444" in pixel_format else 2)
    for plane, values in zip(frame.planes, planes, strict=True):
        target_h, target_w = plane.height, plane.width
        if (target_h, target_w) != values.shape:
            values = _shrunk(values, down, across)[:target_h, :target_w]
        row_bytes = values.dtype.itemsize * target_w
        padded = np.zeros((target_h, plane.line_size), np.uint8)
        padded[:, :row_bytes] = np.ascontiguousarray(values).view(np.uint8).reshape(target_h, row_bytes)
        plane.update(padded.tobytes())
    frame.color_range = color_range
    return frame


def _shrunk(plane: NDArray[Any], down: int, across: int) -> NDArray[Any]:
    """Box average, odd edges repeated."""
    plane = np.pad(plane, ((0, -plane.shape[0] % down), (0, -plane.shape[1] % across)), mode="edge")
    height, width = plane.shape
    blocks = plane.reshape(height // down, down, width // across, across).astype(np.float64)
    return np.rint(blocks.mean((1, 3))).astype(plane.dtype)


def write_video(
    path: Path,
    *,
    size_hw: tuple[int, int] = (48, 64),
    frames: int = 12,
    rate: Fraction = Fraction(25),
    time_base: Fraction | None = None,
    pts: Sequence[int] | None = None,
    last_duration: int | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    b_frames: int = 0,
    gop: int = 12,
    rotation_deg: int = 0,
    flip_x: bool = False,
    pixel_aspect: Fraction | None = None,
    matrix: str = "bt601",
    color_range: int = LIMITED,
    matrix_tag: int | None = None,
    range_tag: int | None = None,
    transfer_tag: int = UNSPECIFIED,
    primaries_tag: int = UNSPECIFIED,
    audio_s: float | None = None,
    audio_codec: str = "aac",
    container_format: str | None = None,
    options: dict[str, str] | None = None,
    mux_options: dict[str, str] | None = None,
    draw: Draw = numbered,
) -> Path:
    """Write a video and return `path`.

    Args:
        pts: of each frame in `time_base` units (then `frames` is ignored); default: evenly at `rate`.
        last_duration: of the last frame in `time_base` units; default: one frame at `rate`.
        rotation_deg: clockwise turn that a player must apply.
        flip_x: a mirror on top of it.
        matrix, color_range: of the pixels; the tags say the same unless `matrix_tag` or `range_tag` differ.
        audio_s: add a sine of so many seconds.
        draw: (index, size) → RGB; sizes are those of the coded picture.
    """
    time_base = time_base or 1 / rate
    times = list(pts) if pts is not None else [round(i / rate / time_base) for i in range(frames)]
    if path.suffix in (".mp4", ".mov"):
        mux_options = {"video_track_timescale": str(time_base.denominator), **(mux_options or {})}
    with av.open(str(path), "w", format=container_format, options=mux_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=_encoder_options(codec) | (options or {}))
        stream.height, stream.width = size_hw
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        context = stream.codec_context
        context.gop_size = gop
        if codec in ("libx264", "libx265", "mpeg4", "mpeg2video"):
            context.max_b_frames = b_frames
        if pixel_aspect:
            context.sample_aspect_ratio = stream.sample_aspect_ratio = pixel_aspect
        context.colorspace = MATRICES[matrix][0] if matrix_tag is None else matrix_tag
        context.color_range = color_range if range_tag is None else range_tag
        context.color_trc, context.color_primaries = transfer_tag, primaries_tag
        if rotation_deg or flip_x:
            stream.set_display_rotation(-rotation_deg, hflip=flip_x)
        with scheduling_kept():
            context.open()
        packets: list[av.Packet] = []
        sound = container.add_stream(audio_codec, rate=48_000, layout="mono") if audio_s else None
        for index, time in enumerate(times):
            frame = _encodable(draw(index, size_hw), pixel_format, matrix, color_range)
            frame.pts, frame.time_base = time, time_base
            frame.colorspace, frame.color_range = context.colorspace, context.color_range
            frame.color_trc, frame.color_primaries = transfer_tag, primaries_tag
            packets += stream.encode(frame)
        packets += stream.encode(None)
        shown = sorted(times)
        lasts = {a: b - a for a, b in pairwise(shown)}
        for packet in packets:
            packet.duration = lasts.get(packet.pts, last_duration or round(1 / rate / time_base))
            container.mux(packet)
        if sound is not None:
            for packet in _sine(sound, audio_s or 0.0):
                container.mux(packet)
    return path


def write_audio(path: Path, *, seconds: float = 0.5) -> Path:
    """Write a file with an audio stream and nothing else."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        for packet in _sine(stream, seconds):
            container.mux(packet)
    return path


def audio_of(path: Path) -> Audio:
    """The sound of a file as its source passes it on, but with the file's own times, as far as it can be read."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        reader = SoundReader(container, video, Clock.CONTAINER)
        reader.begin(Fraction(0))
        with suppress(av.error.FFmpegError):
            for packet in container.demux(*reader.streams):
                reader.put(packet)
    reader.end()
    assert reader.audio is not None
    return reader.audio


def truncated(source: Path, target: Path, *, share: float) -> Path:
    """Write the first `share` of a file's bytes, like an interrupted copy."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def remuxed(
    source: Path, target: Path, change: Callable[[list[Any]], Iterable[Any]], *, container_format: str | None = None
) -> Path:
    """The video packets of `source` after `change` (which may drop, alter or reorder them), in a new container."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=container_format) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [p for p in old.demux(old.streams.video[0]) if p.dts is not None]
        for packet in change(packets):
            packet.stream = stream
            new.mux(packet)
    return target


def packet_bytes(path: Path, index: int) -> tuple[int, int]:
    """(offset, size) of the `index`-th video packet of a file, to damage it in place."""
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(container.streams.video[0]) if p.size][index]
        assert packet.pos is not None
        return packet.pos, packet.size


def _encoder_options(codec: str) -> dict[str, str]:
    if codec == "libx264":
        return {"preset": "ultrafast", "crf": "10", "threads": "1"}
    if codec == "libx265":
        return {"preset": "ultrafast", "crf": "10", "x265-params": "log-level=none:pools=1:frame-threads=1"}
    if codec == "libvpx-vp9":
        return {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "0", "threads": "1"}
    if codec == "libsvtav1":
        return {"preset": "8", "crf": "5", "svtav1-params": "lp=1"}
    if codec in ("mjpeg", "mpeg4", "mpeg2video"):
        return {"qmin": "2", "qmax": "3"}
    return {}


def _encodable(rgb: Rgb, pixel_format: str, matrix: str, color_range: int) -> "av.VideoFrame":
    if pixel_format.startswith("yuv"):
        return yuv_frame(rgb, pixel_format, matrix, color_range)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)


def _sine(stream: Any, seconds: float) -> Iterable[Any]:
    total, step = int(seconds * 48_000), 1024
    wave = (0.3 * np.sin(2 * np.pi * 440 * np.arange(total) / 48_000)).astype(np.float32)
    for start in range(0, total, step):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + step], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        yield from stream.encode(frame)
    yield from stream.encode(None)


VIDEO_FILES: dict[str, dict[str, Any]] = {
    "a.mp4": {"audio_s": 0.3, "b_frames": 2},
    "fragments.mp4": {"mux_options": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc.mp4": {"codec": "libx265"},
    "a.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p", "rotation_deg": 90},
    "a.mkv": {"audio_s": 0.3},
    "ffv1.mkv": {"codec": "ffv1"},
    "a.webm": {"codec": "libvpx-vp9", "audio_s": 0.3, "audio_codec": "libopus"},
    "a.ts": {"audio_s": 0.3},
    "a.mpg": {"codec": "mpeg2video", "audio_s": 0.3, "audio_codec": "mp2"},
    "a.flv": {"audio_s": 0.3},
    "a.avi": {"codec": "mpeg4"},
    "a.h264": {},
    "a.m2v": {"codec": "mpeg2video", "container_format": "mpeg2video"},
}
"""Arguments of `write_video` for one file of each container and codec that is read in a way of its own."""
