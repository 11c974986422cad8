"""The video sink: every pts, duration, colour and audio packet is read back unchanged; no incomplete file stays."""

import errno
import itertools
import math
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stream.errors import OutputError, SinkError, UsageError
from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo, SourceKind
from stream.media import RgbConverter, av, chroma_steps
from stream.sinks.packet_times import PacketTimes
from stream.sinks.video import VIDEO_SUFFIXES, AudioPolicy, VideoSink
from tests.support import forked
from tests.support.media_files import audio_of
from tests.support.paths import REPOSITORY

SIZE = (48, 64)
TICK = Fraction(1, 15360)


def moving_image(index: int, size: tuple[int, int] = SIZE) -> RgbImage:
    """Moving shapes with some texture, so that the encoder uses B-frames."""
    y, x = np.mgrid[: size[0], : size[1]]
    red, green = (x * 3 + index * 5) % 256, (y * 4 + index * 3) % 256
    return np.stack([red, green, (x + y) * 2 % 256], axis=-1).astype(np.uint8)


def make_frame(
    index: int, pts: int, *, tick: Fraction = TICK, duration: int | None = None, size: tuple[int, int] = SIZE
) -> Frame:
    return Frame(
        index=index, pts=pts, time_base=tick, captured_at=0.0, rgb=np.zeros((*size, 3), np.uint8), duration=duration
    )


def depth_of(frame: Frame) -> Depth:
    return Depth(values=np.zeros(frame.size, np.float32), kind=DepthKind.RELATIVE_DISPARITY, index=frame.index)


def make_info(
    *,
    size: tuple[int, int] = SIZE,
    tick: Fraction = TICK,
    rate: Fraction | None = Fraction(30),
    audio: Path | None = None,
    is_live: bool = False,
    start_s: float | None = None,
    end_s: float | None = None,
) -> SourceInfo:
    return SourceInfo(
        name="test", size=size, is_live=is_live, time_base=tick, rate=rate, frame_count=None, kind=SourceKind.VIDEO,
        audio=None if audio is None else audio_of(audio), start_s=start_s, end_s=end_s,
    )  # fmt: skip


def feed(
    sink: VideoSink, pts: list[int], *, tick: Fraction = TICK, last: int | None = None, size: tuple[int, int] = SIZE
) -> None:
    for index, time in enumerate(pts):
        duration = last if index == len(pts) - 1 else None
        frame = make_frame(index, time, tick=tick, duration=duration, size=size)
        assert sink.write(frame, depth_of(frame), moving_image(index, size))


def write(path: Path, pts: list[int], *, last: int | None = None, info: SourceInfo | None = None, **options: object):
    info = info or make_info()
    sink = VideoSink(path, **options)  # type: ignore[arg-type]
    sink.open(info, info.size)
    feed(sink, pts, tick=info.time_base, last=last, size=info.size)
    sink.finish()
    assert sink.outputs == [str(path)]
    assert [p.name for p in path.parent.iterdir() if "partial" in p.name] == []
    return sink


@dataclass
class Media:
    """What a reader sees of a file; times in seconds, exact."""

    tick: Fraction
    pts: list[int]
    times: list[Fraction]
    dts: list[int]
    duration: Fraction | None
    container_duration: Fraction
    images: list[RgbImage]
    audio: list[tuple[Fraction, bytes]]
    audio_codec: str | None
    audio_duration: Fraction | None


def read(path: Path) -> Media:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        tick, duration = video.time_base, video.duration
        track = next(iter(container.streams.audio), None)
        codec = None if track is None else track.codec_context.codec.canonical_name
        audio_duration = None if track is None or track.duration is None else track.duration * track.time_base
        total = Fraction(container.duration, av.time_base)
        dts: list[int] = []
        audio: list[tuple[Fraction, bytes]] = []
        frames = []
        for packet in container.demux():
            if packet.size and packet.stream.type == "audio":
                audio.append((packet.pts * packet.time_base, bytes(packet)))
            elif packet.stream.type == "video":
                dts += [packet.dts] if packet.size else []
                frames += packet.decode()
    return Media(
        tick=tick,
        pts=[f.pts for f in frames],
        times=[f.pts * tick for f in frames],
        dts=dts,
        duration=None if duration is None else duration * tick,
        container_duration=total,
        images=[f.to_ndarray(format="rgb24") for f in frames],
        audio=audio,
        audio_codec=codec,
        audio_duration=audio_duration,
    )


def make_source(
    path: Path,
    *,
    pts: list[int],
    tick: Fraction = TICK,
    last: int = 512,
    audio_codec: str = "aac",
    audio_s: float = 1.0,
    audio_start_s: float = 0.0,
    rate: int = 44_100,
) -> Path:
    """A small H.264 file with a sine tone, made with PyAV alone."""
    options = {"movie_timescale": str(math.lcm(tick.denominator, rate)), "video_track_timescale": str(tick.denominator)}
    with av.open(str(path), "w", container_options=options if path.suffix in (".mp4", ".mov") else {}) as out:
        video = out.add_stream("libx264", rate=30, width=64, height=48, time_base=tick, options={"bf": "0"})
        track = out.add_stream(audio_codec, rate=rate, layout="stereo")
        for index, time in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(moving_image(index))
            frame.pts, frame.time_base = time, tick
            for packet in video.encode(frame):
                packet.duration = dict(itertools.zip_longest(pts, pts[1:], fillvalue=0)).get(packet.pts, 0) - packet.pts
                packet.duration = packet.duration if packet.duration > 0 else last
                out.mux(packet)
        for packet in video.encode(None):
            following = [p for p in pts if p > packet.pts]
            packet.duration = following[0] - packet.pts if following else last
            out.mux(packet)
        start = round(audio_start_s * rate)
        for offset in range(0, round(audio_s * rate), 1024):
            wave = np.sin(np.arange(offset, offset + 1024) * 0.05).astype(np.float32) * 0.3
            block = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            block.sample_rate, block.pts, block.time_base = rate, start + offset, Fraction(1, rate)
            out.mux(track.encode(block))
        out.mux(track.encode(None))
    return path


CFR = [i * 512 for i in range(40)]
RNG = np.random.default_rng(11)
VFR = [int(t) for t in 4567 + np.cumsum(RNG.integers(900, 20_000, 45))]
CASES = {
    "constant": (CFR, TICK, 512),
    "29.97": ([i * 1001 for i in range(40)], Fraction(1, 30_000), 1001),
    "29.97 by a tick of 1001/30000": (list(range(20)), Fraction(1001, 30_000), 1),
    "first pts not zero": ([1234 + i * 1001 for i in range(40)], Fraction(1, 30_000), 1001),
    "coarse ticks": (list(range(7, 47)), Fraction(1, 30), 1),
    "variable": (VFR, Fraction(1, 90_000), 12_345),
    "microseconds, far from zero": ([12_345_678_901 + t for t in VFR], Fraction(1, 1_000_000), 40_001),
    "pause at the start": ([0, 90_000, *range(91_000, 131_000, 1000)], Fraction(1, 90_000), 1000),
    "pause at the end": ([*range(0, 40_000, 1000)], Fraction(1, 90_000), 90_000),
    "one frame": ([5], TICK, 700),
    "two frames": ([100, 1500], Fraction(1, 90_000), 90_000),
}


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("case", CASES)
def test_times_are_kept_to_the_tick(case: str, suffix: str, tmp_path: Path) -> None:
    pts, tick, last = CASES[case]
    path = tmp_path / f"out{suffix}"
    write(path, pts, last=last, info=make_info(tick=tick))
    media = read(path)
    assert media.times == [t * tick for t in pts]
    assert media.tick == Fraction(1, tick.denominator)
    assert media.duration == (pts[-1] + last - pts[0]) * tick
    assert all(a < b for a, b in itertools.pairwise(media.dts))


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
@pytest.mark.parametrize("case", ["29.97", "first pts not zero", "variable"])
def test_matroska_rounds_to_milliseconds(case: str, suffix: str, tmp_path: Path) -> None:
    pts, tick, last = CASES[case]
    path = tmp_path / f"out{suffix}"
    write(path, pts, last=last, info=make_info(tick=tick))
    media = read(path)
    assert media.pts == [math.floor(t * tick * 1000 + Fraction(1, 2)) for t in pts]
    assert abs(media.container_duration - (pts[-1] + last) * tick) <= Fraction(2, 1000)


def test_b_frames_are_used_and_have_their_durations(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", CFR)
    with av.open(str(tmp_path / "out.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert [p.pts for p in packets] != sorted(p.pts for p in packets)
    assert {p.duration for p in packets} == {512}


def test_a_frame_in_other_ticks_is_rescaled(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4")
    sink.open(make_info(tick=Fraction(1, 90_000)), SIZE)
    feed(sink, list(range(10)), tick=Fraction(1, 25))
    sink.finish()
    assert read(tmp_path / "out.mp4").times == [Fraction(i, 25) for i in range(10)]


def test_nanosecond_ticks_become_microseconds(tmp_path: Path) -> None:
    tick = Fraction(1, 1_000_000_000)
    pts = [int(t * 33_333_333) for t in range(10)] + [700_000_000_000]
    write(tmp_path / "out.mp4", pts, info=make_info(tick=tick, is_live=True))
    assert read(tmp_path / "out.mp4").times == [Fraction(round(p / 1000), 1_000_000) for p in pts]


def test_a_part_and_a_live_recording_start_at_zero(tmp_path: Path) -> None:
    write(tmp_path / "part.mp4", [5120 + t for t in CFR], info=make_info(start_s=0.3))
    write(tmp_path / "live.mp4", [5120 + t for t in CFR], info=make_info(is_live=True))
    write(tmp_path / "early.mp4", [t - 1000 for t in CFR])
    for name in ("part", "live", "early"):
        assert read(tmp_path / f"{name}.mp4").pts == CFR


def test_times_must_increase(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4")
    sink.open(make_info(), SIZE)
    feed(sink, [0, 512])
    with pytest.raises(SinkError, match=r"pts 512 follows 512"):
        feed(sink, [512])
    sink.keep_partial("test")
    assert read(tmp_path / "out.partial.mp4").pts == [0, 512]


@dataclass
class FakePacket:
    pts: int | None
    dts: int | None
    duration: int | None = None


@pytest.mark.parametrize("seed", range(50))
def test_packet_times_add_up(seed: int) -> None:
    """An encoder with two frames of delay, any frame times: the decode deltas reach the end of the video."""
    rng = np.random.default_rng(seed)
    pts = [int(t) for t in np.cumsum(rng.integers(1, 1000, rng.integers(3, 30)))]
    last = int(rng.integers(1, 5000))
    delay = min(2, len(pts) - 1)
    order = sorted(range(len(pts)), key=lambda i: (i + 1 + i % 2, -i))  # 0 2 1 4 3 …
    lead = pts[delay] - pts[0]
    dts = [pts[i] - lead if i < delay else pts[i - delay] for i in range(len(pts))]
    times: PacketTimes[FakePacket] = PacketTimes()
    given: list[FakePacket] = []
    for i, time in enumerate(pts):
        times.add_frame(time, last if i == len(pts) - 1 else None)
        if i >= delay:
            given += times.ready([FakePacket(pts[order[i - delay]], dts[i - delay])])
    given += times.rest([FakePacket(pts[order[i]], dts[i]) for i in range(len(pts) - delay, len(pts))])
    assert [p.pts for p in given] == [pts[i] for i in order]
    assert [p.dts for p in given[:-1]] == dts[:-1]
    lengths = dict(zip(pts, [b - a for a, b in itertools.pairwise(pts)] + [last], strict=True))
    assert all(p.duration == lengths[p.pts] for p in given[:-1])
    final = given[-1]
    assert final.dts <= final.pts
    assert final.dts > given[-2].dts
    assert final.dts + final.duration - dts[0] >= pts[-1] + last - pts[0]
    assert final.pts + final.duration <= pts[-1] + last or final.duration == lengths[final.pts]


# --- images ---

PATCHES = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255), "black": (0, 0, 0),
    "gray": (128, 128, 128), "skin": (224, 172, 140), "inferno": (188, 55, 84),
}  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", None), (".webm", None), (".mp4", "libx265"), (".mov", "prores_ks"), (".mkv", "mjpeg")],
)
def test_colours_come_back_and_are_tagged(suffix: str, codec: str | None, tmp_path: Path) -> None:
    patches = np.array(list(PATCHES.values()), np.uint8)
    image = np.repeat(np.repeat(patches[None], 32, axis=1), 64, axis=0)
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(path, codec=codec, crf=4 if codec in (None, "libx265") else None)
    sink.open(make_info(size=image.shape[:2]), image.shape[:2])
    for i in range(3):
        frame = make_frame(i, i * 512, size=image.shape[:2])
        sink.write(frame, depth_of(frame), image)
    sink.finish()
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        frame = next(container.decode(video=0))
        is_jpeg = codec == "mjpeg"  # BT.601 at full range for every decoder
        if not is_jpeg:
            assert (context.colorspace, context.color_range) == (1, 1)
            assert (context.color_primaries, context.color_trc) == (1, 1)
            y, cb, cr = (frame.reformat(format="yuv444p").to_ndarray()[p, 32, 16::32].astype(int) for p in range(3))
            expected = np.array([bt709(*rgb) for rgb in PATCHES.values()])
            assert np.abs(np.stack([y, cb, cr], -1) - expected).max() <= 2
        back = frame.to_ndarray(
            format="rgb24", src_colorspace=5 if is_jpeg else 1, src_color_range=2 if is_jpeg else 1, dst_color_range=2
        )
    centres = back[32, 16::32].astype(int)
    assert np.abs(centres - patches).max() <= 5


def bt709(red: int, green: int, blue: int) -> tuple[int, int, int]:
    """8-bit limited-range Y'CbCr of R'G'B', ITU-R BT.709-6, 3.2 to 3.4."""
    r, g, b = red / 255, green / 255, blue / 255
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return round(219 * y + 16), round(224 * (b - y) / 1.8556 + 128), round(224 * (r - y) / 1.5748 + 128)


def test_converter_is_lossless_where_it_can_be() -> None:
    image = moving_image(3)
    for name in ("rgb24", "gbrp"):
        frame = RgbConverter(name).convert(image)
        assert np.array_equal(frame.to_ndarray(format="rgb24"), image)


@pytest.mark.parametrize(
    ("name", "steps"), [("yuv420p", (2, 2)), ("yuv422p10le", (1, 2)), ("yuv444p", (1, 1)), ("gbrp", (1, 1))]
)
def test_chroma_steps(name: str, steps: tuple[int, int]) -> None:
    assert chroma_steps(name) == steps


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64), (1, 1), (1, 200), (333, 3)])
def test_odd_sizes_lose_no_pixel(size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    path = tmp_path / "out.mp4"
    ramp = np.linspace(40, 200, height * width).reshape(size).astype(np.uint8)
    image = np.repeat(ramp[..., None], 3, axis=-1)
    sink = VideoSink(path, crf=1)
    sink.open(make_info(size=size), size)
    frame = make_frame(0, 0, size=size)
    sink.write(frame, depth_of(frame), image)
    sink.finish()
    back = read(path).images[0]
    assert back.shape[:2] == (height + height % 2, width + width % 2)
    assert np.abs(back[:height, :width, 1].astype(int) - ramp).max() <= 6
    assert np.abs(back[-1, -1, 1].astype(int) - int(ramp[-1, -1])) <= 6


def test_odd_size_is_kept_exactly_without_chroma_subsampling(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", CFR[:3], info=make_info(size=(47, 63)), codec="libx264rgb")
    assert read(tmp_path / "out.mp4").images[0].shape == (47, 63, 3)


def test_images_of_other_sizes_are_letterboxed_and_noted_once(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", crf=1)
    sink.open(make_info(), SIZE)
    for i, size in enumerate([SIZE, (96, 64), (24, 64), (48, 64), (200, 200)]):
        frame = make_frame(i, i * 512, size=size)
        sink.write(frame, depth_of(frame), np.full((*size, 3), 255, np.uint8))
    sink.finish()
    assert sink.notes == ["images of other sizes are fitted into 64×48 with black bars"]
    full, tall, wide, same, square = (p[..., 1] for p in read(tmp_path / "out.mp4").images)
    assert full.min() > 250
    assert same.min() > 250
    assert tall[:, :14].max() < 12
    assert tall[:, 18:46].min() > 240
    assert wide[:10].max() < 12
    assert wide[14:34].min() > 240
    assert square[:, :6].max() < 12
    assert square[:, 10:54].min() > 240


def test_the_image_buffer_may_be_reused(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mkv", codec="libx264rgb", crf=0)
    sink.open(make_info(), SIZE)
    buffer = np.empty((*SIZE, 3), np.uint8)
    for i in range(8):
        frame = make_frame(i, i * 512)
        buffer[:] = moving_image(i)
        sink.write(frame, depth_of(frame), buffer)
        buffer[:] = 0
    sink.finish()
    for i, back in enumerate(read(tmp_path / "out.mkv").images):
        assert np.array_equal(back, moving_image(i))


# --- audio ---


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("audio_start_s", [0.0, 0.3])
def test_audio_is_copied_packet_by_packet(suffix: str, audio_start_s: float, tmp_path: Path) -> None:
    pts = [2000 + t for t in CFR]
    source = make_source(tmp_path / "in.mp4", pts=pts, audio_s=1.6, audio_start_s=audio_start_s)
    path = tmp_path / f"out{suffix}"
    sink = write(path, pts, last=512, info=make_info(audio=source))
    before, after = read(source), read(path)
    assert sink.notes == []
    assert after.audio == before.audio
    assert len(after.audio) > 60
    assert after.pts == before.pts == pts
    assert (after.duration, after.audio_duration) == (before.duration, before.audio_duration)
    assert after.container_duration == before.container_duration


def test_audio_in_matroska_does_not_shift_the_video(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", pts=CFR, audio_s=1.3)
    write(tmp_path / "out.mkv", CFR, info=make_info(audio=source))
    before, after = read(source), read(tmp_path / "out.mkv")
    assert after.pts == [math.floor(t * TICK * 1000 + Fraction(1, 2)) for t in CFR]
    assert [data for _, data in after.audio] == [data for _, data in before.audio]
    assert all(abs(a - b) <= Fraction(1, 1000) for (a, _), (b, _) in zip(after.audio, before.audio, strict=True))


def test_audio_is_encoded_again_if_it_must_be(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mkv", pts=CFR, audio_s=1.3, audio_codec="pcm_f32le")
    sink = write(tmp_path / "out.mp4", CFR, info=make_info(audio=source))
    after = read(tmp_path / "out.mp4")
    assert sink.notes == ["audio: mp4 does not support pcm_f32le; encoded as aac"]
    assert after.audio_codec == "aac"
    assert abs(after.audio_duration - Fraction(13, 10)) < Fraction(1, 20)
    assert tone_start_s(tmp_path / "out.mp4") == pytest.approx(tone_start_s(source), abs=0.002)


def test_webm_gets_opus(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", pts=CFR, audio_s=1.3, audio_start_s=0.4)
    sink = write(tmp_path / "out.webm", CFR, info=make_info(audio=source))
    assert read(tmp_path / "out.webm").audio_codec == "opus"
    assert sink.notes == ["audio: webm does not support aac; encoded as libopus"]
    assert tone_start_s(tmp_path / "out.webm") == pytest.approx(tone_start_s(source), abs=0.005)


def tone_start_s(path: Path) -> float:
    """When the audio rises above a tenth of its amplitude, on the file's clock."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(np.float64)).reshape(-1, frame.samples)[0]
            loud = np.flatnonzero(samples > 0.03)
            if loud.size:
                return float(frame.pts * frame.time_base) + float(loud[0]) / frame.sample_rate
    raise AssertionError("silent")


def test_a_part_gets_its_part_of_the_audio(tmp_path: Path) -> None:
    pts = [i * 512 for i in range(90)]
    source = make_source(tmp_path / "in.mp4", pts=pts, audio_s=3.0)
    info = make_info(audio=source, start_s=1.0, end_s=2.0)
    write(tmp_path / "out.mp4", pts[30:60], info=info)
    before, after = read(source), read(tmp_path / "out.mp4")
    assert after.pts == pts[:30]
    part = [(t - 1, data) for t, data in before.audio if 1 <= t < 2]
    assert after.audio == part
    assert len(part) > 40


def test_audio_ends_with_the_video_if_the_run_was_cut(tmp_path: Path) -> None:
    pts = [i * 512 for i in range(90)]
    source = make_source(tmp_path / "in.mp4", pts=pts, audio_s=3.0)
    write(tmp_path / "out.mp4", pts[:30], info=make_info(audio=source), audio_to_source_end=False, last=512)
    sink = VideoSink(tmp_path / "kept.mp4")
    sink.open(make_info(audio=source), SIZE)
    feed(sink, pts[:30])
    sink.keep_partial("test")
    before = read(source)
    for name in ("out.mp4", "kept.partial.mp4"):
        assert read(tmp_path / name).audio == [(t, data) for t, data in before.audio if t < 1]


def test_a_recording_that_begins_in_mid_stream_has_the_sound_of_its_frames(tmp_path: Path) -> None:
    """Two at once, of the same packets: neither changes what the other one gets."""
    pts = [i * 512 for i in range(90)]
    source = make_source(tmp_path / "in.mp4", pts=pts, audio_s=3.0)
    info = make_info(audio=source, is_live=True)
    sinks = [VideoSink(tmp_path / "a.mp4"), VideoSink(tmp_path / "b.mp4"), VideoSink(tmp_path / "c.webm")]
    for sink in sinks:
        sink.open(info, SIZE)
    for sink in sinks:
        feed(sink, pts[30:60])
        sink.finish()
    wanted = [(t - 1, data) for t, data in read(source).audio if t >= 1]
    for name in ("a.mp4", "b.mp4"):
        assert read(tmp_path / name).audio == wanted
    assert read(tmp_path / "c.webm").audio_codec == "opus"
    assert len(wanted) > 40


def test_sound_that_plays_before_the_first_frame_delays_it(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", pts=CFR, audio_s=1.3)
    audio = replace(audio_of(source), lead_s=Fraction(1, 2))
    info = replace(make_info(), audio=audio)
    write(tmp_path / "out.mp4", CFR, info=info)
    before, after = read(source), read(tmp_path / "out.mp4")
    assert after.times == [Fraction(1, 2) + t * TICK for t in CFR]
    assert after.audio == [(t + Fraction(1, 2), data) for t, data in before.audio]


def test_stereo_that_becomes_mono_and_back_is_encoded_to_the_end(tmp_path: Path) -> None:
    """Broadcasts change between films and news, in the middle of a track."""
    data = b""
    for number, layout in enumerate(("stereo", "mono", "stereo")):
        with av.open(str(tmp_path / f"{number}.mp2"), "w") as out:
            track = out.add_stream("mp2", rate=48_000, layout=layout)
            wave = (np.sin(np.arange(48_000) * 0.05) * 9000).astype(np.int16)
            channels = 2 if layout == "stereo" else 1
            block = av.AudioFrame.from_ndarray(np.repeat(wave, channels)[None], format="s16", layout=layout)
            block.sample_rate = 48_000
            out.mux(track.encode(block))
            out.mux(track.encode(None))
        data += (tmp_path / f"{number}.mp2").read_bytes()
    (tmp_path / "all.mp2").write_bytes(data)
    with av.open(str(tmp_path / "all.mp2")) as sound, av.open(str(tmp_path / "in.mkv"), "w") as out:
        video = out.add_stream("libx264", rate=30, width=64, height=48)
        copied = out.add_stream_from_template(sound.streams.audio[0])
        for index in range(90):
            out.mux(video.encode(av.VideoFrame.from_ndarray(moving_image(index))))
        out.mux(video.encode(None))
        for packet in sound.demux():
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    sink = write(tmp_path / "out.webm", [i * 512 for i in range(90)], info=make_info(audio=tmp_path / "in.mkv"))
    assert [note for note in sink.notes if "damaged" in note] == []
    with av.open(str(tmp_path / "out.webm")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == pytest.approx(3 * 48_000, abs=3000)


def test_audio_longer_than_the_video_is_kept_whole(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", pts=CFR[:10], audio_s=2.0)
    write(tmp_path / "out.mp4", CFR[:10], info=make_info(audio=source))
    assert read(tmp_path / "out.mp4").audio == read(source).audio


def test_audio_can_be_left_out(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", pts=CFR)
    sink = write(tmp_path / "out.mp4", CFR, info=make_info(audio=source), audio=AudioPolicy.NONE)
    assert read(tmp_path / "out.mp4").audio_codec is None
    assert sink.notes == []


def test_truncated_audio_keeps_what_was_readable(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mkv", pts=CFR, audio_s=1.3)
    whole = read(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    write(tmp_path / "out.mp4", CFR, info=make_info(audio=source))
    media = read(tmp_path / "out.mp4")
    assert media.pts == CFR
    assert 5 < len(media.audio) < len(whole.audio)
    assert [d for _, d in media.audio] == [d for _, d in whole.audio][: len(media.audio)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_adts_audio_of_a_transport_stream_is_copied(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    source = make_source(tmp_path / "in.ts", pts=[9000 + i * 3000 for i in range(40)], tick=Fraction(1, 90_000))
    first = read(source).pts[0]
    pts = [first + i * 3000 for i in range(40)]
    sink = write(path, pts, info=make_info(audio=source, tick=Fraction(1, 90_000)))
    before, after = read(source), read(path)
    assert sink.notes == []
    assert [d for _, d in after.audio] == [d[7:] for _, d in before.audio]  # without the 7 bytes of ADTS header
    with av.open(str(path)) as container:
        assert sum(f.samples for f in container.decode(audio=0)) > 40_000


def test_audio_the_muxer_rejects_is_encoded(tmp_path: Path) -> None:
    """MP4 takes MP3, but not at 8 kHz."""
    source = make_source(tmp_path / "in.mkv", pts=CFR, audio_codec="libmp3lame", rate=8000)
    sink = write(tmp_path / "out.mp4", CFR, info=make_info(audio=source))
    assert sink.notes == ["audio: mp4 does not support mp3; encoded as aac"]
    assert read(tmp_path / "out.mp4").audio_codec == "aac"


def test_audio_is_interleaved_with_the_video(tmp_path: Path) -> None:
    pts = [i * 512 for i in range(150)]
    source = make_source(tmp_path / "in.mp4", pts=pts, audio_s=5.0)
    write(tmp_path / "out.mp4", pts, info=make_info(audio=source))
    with av.open(str(tmp_path / "out.mp4")) as container:
        places = [(p.pos, p.stream.type, float(p.dts * p.time_base)) for p in container.demux() if p.size]
    newest = {"video": 0.0, "audio": 0.0}
    for _, kind, time in sorted(places):
        newest[kind] = time
        assert abs(newest["video"] - newest["audio"]) < 1.3  # a fragment is a second


# --- life cycle ---


def test_partial_until_finished(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "out.mp4"
    sink = VideoSink(path)
    sink.open(make_info(), SIZE)
    feed(sink, CFR)
    assert [p.name for p in path.parent.iterdir()] == ["out.partial.mp4"]
    sink.finish()
    assert [p.name for p in path.parent.iterdir()] == ["out.mp4"]
    assert sink.is_lossless


def test_keep_partial_is_playable(tmp_path: Path) -> None:
    for suffix in VIDEO_SUFFIXES:
        sink = VideoSink(tmp_path / f"out{suffix}")
        sink.open(make_info(), SIZE)
        feed(sink, CFR[:20])
        sink.keep_partial("test")
        partial = tmp_path / f"out.partial{suffix}"
        assert sink.outputs == [str(partial)]
        assert len(read(partial).pts) == 20
        assert not (tmp_path / f"out{suffix}").exists()


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", pts=CFR)
    sink = VideoSink(tmp_path / "new" / "deep" / "out.mp4")
    sink.abort(RuntimeError("before open"))
    sink.open(make_info(audio=source), SIZE)
    sink.abort(RuntimeError("test"))
    sink.abort(RuntimeError("again"))
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_existing_output(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    sink = VideoSink(path)
    with pytest.raises(OutputError, match="exists"):
        sink.open(make_info(), SIZE)
    sink.abort(RuntimeError("test"))
    assert path.read_bytes() == b"precious"
    (tmp_path / "out.partial.mp4").write_bytes(b"of an earlier run")
    write(path, CFR[:3], overwrite=True)
    assert len(read(path).pts) == 3


def test_an_output_that_appears_during_the_run_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = VideoSink(path)
    sink.open(make_info(), SIZE)
    feed(sink, CFR[:3])
    path.write_bytes(b"precious")
    with pytest.raises(SinkError, match="created by another program"):
        sink.finish()
    assert path.read_bytes() == b"precious"
    assert len(read(tmp_path / "out.partial.mp4").pts) == 3


def test_outputs_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    for path in (tmp_path / "file" / "out.mp4", tmp_path / "folder.mp4"):
        with pytest.raises(OutputError, match="folder"):
            VideoSink(path, overwrite=True).open(make_info(), SIZE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="not writable"):
        VideoSink(tmp_path / "out.mp4").open(make_info(), SIZE)


def test_write_and_finish_need_open(tmp_path: Path) -> None:
    frame = make_frame(0, 0)
    with pytest.raises(SinkError, match="not open"):
        VideoSink(tmp_path / "out.mp4").write(frame, depth_of(frame), moving_image(0))


def test_names_with_colons_and_other_letters(tmp_path: Path) -> None:
    write(tmp_path / "http: 100% ü.mp4", CFR[:3])
    assert len(read(tmp_path / "http: 100% ü.mp4").pts) == 3


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("out.avi", {}, "cannot write this video format (allowed: .mp4"),
        ("out.xyz", {}, "not a video suffix"),
        ("out.mp4", {"codec": "h265x"}, "unknown encoder 'h265x' (allowed: libx264, libx265"),
        ("out.mp4", {"codec": "aac"}, "'aac' is not a video encoder"),
        ("out.webm", {"codec": "libx264"}, ".webm files do not support libx264; use libvpx-vp9"),
        ("out.mp4", {"crf": 60}, "--crf: bad quality 60 for libx264 (allowed: 0 to 51)"),
        ("out.mp4", {"preset": "quick"}, "--preset: libx264 has no preset 'quick' (allowed: ultrafast, superfast"),
        ("out.mov", {"codec": "prores_ks", "crf": 20}, "--crf: prores_ks has no such option"),
    ],
)
def test_bad_options_are_refused_at_once(name: str, options: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        VideoSink(tmp_path / name, **options)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_options_the_encoder_does_not_know(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mkv", codec="mpeg2video", crf=3)
    with pytest.raises(UsageError, match="mpeg2video does not know crf=3"):
        sink.open(make_info(tick=Fraction(1, 25), rate=Fraction(25)), SIZE)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_does_not_work_here(tmp_path: Path) -> None:
    try:
        with av.open(str(tmp_path / "probe.mp4"), "w") as probe:
            probe.add_stream("h264_nvenc", rate=30, width=256, height=256).codec_context.open()
    except av.error.FFmpegError:
        pass
    else:
        pytest.skip("this machine has that encoder")
    for options in ({}, {"preset": "p2", "crf": 20}):
        sink = VideoSink(tmp_path / "out.mp4", codec="h264_nvenc", **options)  # type: ignore[arg-type]
        with pytest.raises(SinkError, match=r"h264_nvenc does not work here.*; use --codec libx264"):
            sink.open(make_info(size=(256, 256)), (256, 256))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is known of this")
def test_no_encoder_takes_the_machine_for_itself(tmp_path: Path) -> None:
    """SVT-AV1 makes its threads and its caller real-time ones where it may, as root: the machine then stands still."""

    def scheduling() -> set[tuple[int, int]]:
        tasks = [int(task) for task in os.listdir("/proc/self/task")]
        return {(os.sched_getscheduler(task), os.sched_getparam(task).sched_priority) for task in tasks}

    before = scheduling()
    sink = VideoSink(tmp_path / "a.mkv", codec="libsvtav1")
    sink.open(make_info(size=(64, 96)), (64, 96))
    frame = make_frame(0, 0, size=(64, 96))
    sink.write(frame, depth_of(frame), frame.rgb)
    during = scheduling()
    sink.finish()
    assert during == before


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libvpx-vp9", "mpeg4", "mjpeg", "ffv1"])
def test_other_encoders_keep_times_too(codec: str, tmp_path: Path) -> None:
    tick = Fraction(1, 12_800)  # MPEG-4 part 2 counts in 16 bits
    pts = [300 + i * 512 for i in range(12)]
    info = make_info(size=(64, 96), tick=tick, rate=Fraction(25))
    write(tmp_path / "out.mp4", pts, last=512, info=info, codec=codec)
    assert read(tmp_path / "out.mp4").pts == pts
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert (container.streams.video[0].codec_context.codec_tag == "hvc1") == (codec == "libx265")


CHILD = """
    import os, resource, signal, sys
    sys.path.insert(0, {root!r})
    from tests.sinks.test_video import *
    path, pts = Path(sys.argv[1]), [i * 512 for i in range(1200)]
    noise = np.random.default_rng(0).integers(0, 255, (1200, *SIZE, 3), dtype=np.uint8)
    sink = VideoSink(path, crf=5)
    sink.open(make_info(), SIZE)
"""


def run_child(body: str, path: Path) -> subprocess.CompletedProcess[str]:
    root = str(REPOSITORY)
    code = textwrap.dedent(CHILD.format(root=root)) + textwrap.dedent(body)
    done = forked.run([str(path)], code=code)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_is_an_error_and_keeps_what_was_written(suffix: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writes fail in the same place, with EFBIG for ENOSPC."""
    path = tmp_path / f"out{suffix}"
    child = run_child(
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))
        try:
            for i, time in enumerate(pts):
                frame = make_frame(i, time)
                sink.write(frame, depth_of(frame), noise[i])
        except SinkError as error:
            print(i, error.__cause__.errno, error)
            sink.keep_partial("full")
        """,
        path,
    )
    count, number, message = child.stdout.split(maxsplit=2)
    assert int(number) == errno.EFBIG
    assert message.strip() == f"{path}: cannot be written: {os.strerror(errno.EFBIG)}"
    assert child.returncode == 0, child.stderr
    assert not path.exists()
    kept = read_what_is_there(tmp_path / f"out.partial{suffix}")
    assert 30 <= kept <= int(count)


def test_a_full_disk_at_the_end_never_gives_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    child = run_child(
        """
        for i, time in enumerate(pts[:100]):
            frame = make_frame(i, time)
            sink.write(frame, depth_of(frame), noise[i])
        size = (path.parent / "out.partial.mp4").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            sink.finish()
        except SinkError as error:
            print(error)
        """,
        path,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == f"{path}: cannot be completed: {os.strerror(errno.EFBIG)}"
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial.mp4"]
    assert read_what_is_there(tmp_path / "out.partial.mp4") >= 30


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_killed_recording_can_be_played(suffix: str, tmp_path: Path) -> None:
    child = run_child(
        """
        for i, time in enumerate(pts[:200]):
            frame = make_frame(i, time)
            sink.write(frame, depth_of(frame), moving_image(i))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / f"out{suffix}",
    )
    assert child.returncode == -9, child.stderr
    assert read_what_is_there(tmp_path / f"out.partial{suffix}") >= 200 - 60 - 31  # delay of the encoder, a fragment


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_killed_live_recording_loses_a_second_at_any_rate(suffix: str, tmp_path: Path) -> None:
    child = run_child(
        """
        sink.abort(RuntimeError())
        sink = VideoSink(path)
        sink.open(make_info(is_live=True), SIZE)
        for i in range(60):  # three a second: a slow model
            frame = make_frame(i, i * 5120)
            sink.write(frame, depth_of(frame), moving_image(i))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / f"out{suffix}",
    )
    assert child.returncode == -9, child.stderr
    assert len(list(decoded_pts(tmp_path / f"out.partial{suffix}"))) >= 60 - 2 * 3


def read_what_is_there(path: Path) -> int:
    """How many frames a player gets out of a file that may end anywhere; checks that they are in order and in time."""
    pts = list(decoded_pts(path))
    tick = 512 if path.suffix in (".mp4", ".mov") else None
    if tick:
        assert pts == [i * tick for i in range(len(pts))]
    return len(pts)


def decoded_pts(path: Path) -> Iterator[int]:
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                yield frame.pts
        except av.error.FFmpegError:
            return


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/task") if Path("/proc/self/task").exists() else []
    threads, files = set(threading.enumerate()), open_files()
    endings: list[Callable[[VideoSink], None]] = [
        VideoSink.finish, lambda s: s.keep_partial("x"), lambda s: s.abort(RuntimeError())
    ]  # fmt: skip
    source = make_source(tmp_path / "in.mp4", pts=CFR)
    for number, end in enumerate(endings):
        sink = VideoSink(tmp_path / f"{number}.mp4")
        sink.open(make_info(audio=source), SIZE)
        feed(sink, CFR[:10])
        end(sink)
        del sink
    assert set(threading.enumerate()) <= threads  # other tests' libraries may have left pools of their own
    assert open_files() == files
    after = os.listdir("/proc/self/task") if before else []
    assert len(after) <= len(before)


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.mark.slow
def test_memory_is_flat(tmp_path: Path) -> None:
    import psutil

    size = (480, 640)
    images = [moving_image(i, size) for i in range(8)]
    sink = VideoSink(tmp_path / "out.mp4")
    sink.open(make_info(size=size), size)
    process = psutil.Process()
    seen = {}
    for i in range(2000):
        frame = make_frame(i, i * 512, size=size)
        sink.write(frame, depth_of(frame), images[i % 8])
        if i in (199, 1999):
            seen[i] = process.memory_info().rss
    sink.finish()
    assert seen[1999] - seen[199] < 8 << 20
