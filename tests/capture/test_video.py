"""Video files: every frame once, in order, at the container's own times, whichever part is asked for."""

import threading
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from stream.capture.base import CaptureLog
from stream.capture.video.decode import FrameMaker
from stream.capture.video.file import VideoSource
from stream.errors import UsageError
from stream.frames import Frame, SourceKind
from stream.media import av
from tests.support.media_files import FULL, number_of, remuxed, write_video

MS = Fraction(1, 1000)
UNEVEN_MS = (37, 47, 57, 87, 97, 147, 152, 167, 207, 212, 237, 297)
"""Variable rate, first pts not zero."""
LAST_MS = 90

CODECS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("libx264", "yuv420p", ".mp4", {"b_frames": 3}),
    ("libx264", "yuv420p", ".mkv", {"b_frames": 3}),
    ("libx264", "yuv420p", ".ts", {"b_frames": 3}),
    ("libx264", "yuv420p", ".avi", {}),
    ("libx264", "yuv420p", ".flv", {"b_frames": 2}),
    ("libx264", "yuv422p10le", ".mov", {"b_frames": 3}),
    ("libx265", "yuv420p", ".mp4", {"b_frames": 3}),
    ("libx265", "yuv420p10le", ".mkv", {"b_frames": 3}),
    ("libvpx-vp9", "yuv420p", ".webm", {}),
    ("libvpx-vp9", "yuv444p", ".mp4", {}),
    ("libsvtav1", "yuv420p", ".mp4", {"size_hw": (64, 64)}),
    ("libsvtav1", "yuv420p10le", ".webm", {"size_hw": (64, 64)}),
    ("mjpeg", "yuvj420p", ".avi", {"color_range": FULL}),
    ("mjpeg", "yuvj420p", ".mov", {"color_range": FULL}),
    ("prores_ks", "yuv422p10le", ".mov", {}),
    ("ffv1", "yuv444p", ".mkv", {}),
    ("gif", "rgb8", ".gif", {}),
    ("mpeg4", "yuv420p", ".avi", {}),
    ("mpeg4", "yuv420p", ".mp4", {"b_frames": 2}),
    ("mpeg2video", "yuv420p", ".mpg", {"b_frames": 2}),
    ("mpeg2video", "yuv420p", ".ts", {"b_frames": 2}),
)


def read(path: Path, **options: Any) -> tuple[VideoSource, list[Frame]]:
    with closing(VideoSource(path, **options)) as source:
        return source, list(source)


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.rgb) for frame in frames]


def packet_pts(path: Path) -> list[int]:
    """The container's own times in display order, counted from the first."""
    with av.open(str(path)) as container:
        times = sorted(packet.pts for packet in container.demux(video=0) if packet.pts is not None)
    return [time - times[0] for time in times]


def open_names() -> set[str]:
    return {Path(file.path).name for file in psutil.Process().open_files()}


# --- every frame, in order, in time ---


@pytest.mark.parametrize(("codec", "pixel_format", "suffix", "options"), CODECS)
def test_every_frame_of_a_file_comes_once_and_in_order(
    tmp_path: Path, codec: str, pixel_format: str, suffix: str, options: dict[str, Any]
) -> None:
    path = write_video(tmp_path / f"a{suffix}", codec=codec, pixel_format=pixel_format, frames=14, gop=6, **options)
    source, frames = read(path)
    assert numbers(frames) == list(range(14))
    assert [frame.index for frame in frames] == list(range(14))
    assert [frame.pts for frame in frames] == packet_pts(path)
    assert [float(b.time_s - a.time_s) for a, b in pairwise(frames)] == pytest.approx([0.04] * 13)
    assert {frame.size for frame in frames} == {source.info.size} == {options.get("size_hw", (48, 64))}
    assert source.info.rate == 25
    assert source.log == CaptureLog()


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
def test_uneven_times_come_out_exactly(tmp_path: Path, suffix: str, b_frames: int) -> None:
    path = write_video(tmp_path / f"a{suffix}", pts=UNEVEN_MS, time_base=MS, b_frames=b_frames)
    source, frames = read(path)
    assert numbers(frames) == list(range(12))
    assert [frame.pts * frame.time_base for frame in frames] == [(time - UNEVEN_MS[0]) * MS for time in UNEVEN_MS]
    assert [frame.pts for frame in frames] == packet_pts(path)
    assert {frame.time_base for frame in frames} == {source.info.time_base}
    assert source.log == CaptureLog()


def lasting(packets: list[Any]) -> list[Any]:
    """Let the decoding steps, which are all that MP4 stores, sum up to the end of the last frame shown."""
    end = UNEVEN_MS[-1] + LAST_MS - UNEVEN_MS[0]
    last = packets[-1]
    last.duration = round(end * MS / last.time_base) - (last.dts - packets[0].dts)
    return packets


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_last_frame_lasts_as_long_as_the_container_says(tmp_path: Path, suffix: str, b_frames: int) -> None:
    path = write_video(
        tmp_path / f"whole{suffix}", pts=UNEVEN_MS, time_base=MS, b_frames=b_frames, last_duration=LAST_MS
    )
    if suffix != ".mkv":  # which stores a duration with every frame
        path = remuxed(path, tmp_path / f"a{suffix}", lasting)
    for options in ({}, {"max_frames": len(UNEVEN_MS)}):
        last = read(path, **options)[1][-1]
        assert last.duration is not None
        assert last.duration * last.time_base == LAST_MS * MS


def test_a_frame_whose_duration_the_container_does_not_tell_has_none(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", pts=UNEVEN_MS, time_base=MS, b_frames=3)
    assert {frame.duration for frame in read(path)[1]} == {None}


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_decoder_threads_changes_nothing(tmp_path: Path, threads: int) -> None:
    path = write_video(tmp_path / "a.mp4", frames=30, b_frames=3, gop=10)
    assert numbers(read(path, threads=threads)[1]) == list(range(30))


def test_frames_carry_the_clock_of_their_delivery(tmp_path: Path) -> None:
    now = [100.0]
    with closing(VideoSource(write_video(tmp_path / "a.mp4", frames=3), clock=lambda: now[0])) as source:
        seen = []
        now[0] = 107.0  # opening decodes the first frame; then the model is loaded
        for frame in source:
            seen.append(frame.captured_at)
            now[0] += 1
    assert seen == [107, 108, 109]


@pytest.mark.parametrize(("audio_s", "has_audio"), [(None, False), (0.3, True)])
def test_info_describes_the_file(tmp_path: Path, audio_s: float | None, has_audio: bool) -> None:
    path = write_video(tmp_path / "a.mp4", frames=9, rate=Fraction(30000, 1001), audio_s=audio_s)
    source, frames = read(path, start_s=0.1, end_s=0.2)
    info = source.info
    assert (info.name, info.kind, info.is_live) == (str(path), SourceKind.VIDEO, False)
    assert (info.size, info.rate) == ((48, 64), Fraction(30000, 1001))
    assert (info.start_s, info.end_s, info.names, info.notes) == (0.1, 0.2, (), ())
    assert [track.codec_context.name for track in (info.audio.tracks if info.audio else ())] == ["aac"] * has_audio
    assert info.frame_count == len(frames) == 3


# --- parts of a file ---

EVEN_MS = tuple(range(0, 1600, 40))
PARTED: dict[str, dict[str, Any]] = {
    "long-gop.mp4": {"gop": 250, "b_frames": 3},
    "long-gop.mkv": {"gop": 250, "b_frames": 3},
    "short-gop.mp4": {"gop": 5, "b_frames": 3},
    "open-gop.mp4": {"gop": 10, "b_frames": 3, "codec": "libx265"},
    "open-gop.mkv": {"gop": 10, "b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "late.ts": {"gop": 10, "b_frames": 3, "first": 5_000, "time_base": Fraction(1, 25)},
    "late.mp4": {"gop": 10, "b_frames": 3, "first": 700},
    "uneven.mp4": {"gop": 10, "b_frames": 3, "first": 37, "times": [i * i for i in range(40)]},
    "uneven.mkv": {"gop": 10, "b_frames": 0, "times": [i * i for i in range(40)]},
    "uneven.ts": {"gop": 10, "b_frames": 3, "first": 37, "times": [i * i for i in range(40)]},
    "a.gif": {"codec": "gif", "pixel_format": "rgb8", "time_base": Fraction(1, 100)},
    "a.apng": {"codec": "apng", "pixel_format": "rgb24", "time_base": Fraction(1, 25)},
    "a.webm": {"codec": "libvpx-vp9", "gop": 15},
    "a.avi": {"codec": "mpeg4", "gop": 15, "time_base": Fraction(1, 25)},
    "a.flv": {"gop": 10, "b_frames": 2},
    "a.mpg": {"codec": "mpeg2video", "gop": 10, "b_frames": 2, "time_base": Fraction(1, 25)},
    "mpeg2.ts": {"codec": "mpeg2video", "gop": 10, "b_frames": 2, "time_base": Fraction(1, 25)},
    "a.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le"},
}
WINDOWS: tuple[tuple[float | None, float | None], ...] = (
    (0.4, None), (0.41, 0.8), (0.04, 0.08), (0.28, 0.64), (None, 0.44), (1.2, 1.4), (1.521, 9.0)
)  # fmt: skip


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parted")
    for name, given in PARTED.items():
        options = dict(given)
        first, times = options.pop("first", 0), options.pop("times", EVEN_MS)
        time_base = options.setdefault("time_base", MS)
        write_video(folder / name, pts=[round((first + t) * MS / time_base) for t in times], **options)
    return folder


@pytest.mark.parametrize(("start_s", "end_s"), WINDOWS)
@pytest.mark.parametrize("name", PARTED)
def test_start_and_end_give_exactly_the_frames_between(
    parted: Path, name: str, start_s: float | None, end_s: float | None
) -> None:
    times_ms = PARTED[name].get("times", EVEN_MS)
    wanted = [i for i, t in enumerate(times_ms) if (start_s or 0) * 1000 <= t and (end_s is None or t < end_s * 1000)]
    if not wanted:
        with pytest.raises(UsageError):
            read(parted / name, start_s=start_s, end_s=end_s)
        return
    source, frames = read(parted / name, start_s=start_s, end_s=end_s)
    assert numbers(frames) == wanted
    assert [frame.index for frame in frames] == list(range(len(wanted)))
    every = packet_pts(parted / name)
    assert [frame.pts for frame in frames] == [every[i] for i in wanted]
    assert source.log == CaptureLog()


@pytest.mark.parametrize("start_s", [None, 0.3])
@pytest.mark.parametrize("name", PARTED)
def test_max_frames_counts_from_the_start_asked_for(parted: Path, name: str, start_s: float | None) -> None:
    times_ms = PARTED[name].get("times", EVEN_MS)
    wanted = [i for i, t in enumerate(times_ms) if t >= (start_s or 0) * 1000]
    source, frames = read(parted / name, start_s=start_s, max_frames=3)
    assert numbers(frames) == wanted[:3]
    assert source.info.frame_count == (None if name == "a.apng" else 3)  # APNG tells no length
    assert source.log.warnings == []


@pytest.mark.parametrize(
    ("start_s", "end_s", "text"),
    [
        (1.6, None, "ends at 1.6 s, before --start 1.6"),
        (900, None, "ends at 1.6 s, before --start 900"),
        (900, 901, "ends at 1.6 s, before --start 900"),
        (0.8, 0.4, "--end 0.4 is not after --start 0.8"),
        (0.4, 0.4, "--end 0.4 is not after --start 0.4"),
        (None, 0, "--end 0 is not after --start 0"),
        (0.41, 0.42, "no frame lies between --start 0.41 and --end 0.42"),
    ],
)
@pytest.mark.parametrize("name", ["long-gop.mp4", "late.ts", "a.gif"])
def test_a_part_without_a_frame_is_refused(
    parted: Path, name: str, start_s: float | None, end_s: float | None, text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        VideoSource(parted / name, start_s=start_s, end_s=end_s)
    assert str(caught.value) == f"{parted / name}: {text}"
    assert name not in open_names()


# --- times that a file does not have ---


def test_a_stream_without_times_gets_the_nominal_rate_and_a_count_of_it(tmp_path: Path) -> None:
    source, frames = read(write_video(tmp_path / "a.h264", b_frames=2))
    assert numbers(frames) == list(range(12))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 25 for i in range(12)])
    assert source.log.repaired_pts == 12


@pytest.mark.parametrize("suffix", [".mkv", ".nut"])
def test_times_that_go_back_or_stand_still_are_repaired_and_counted(tmp_path: Path, suffix: str) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=6, codec="mjpeg", pixel_format="yuvj420p", color_range=FULL)
    times = [0, 200, 120, 240, 240, 300]

    def disturb(packets: list[Any]) -> list[Any]:
        for index, packet in enumerate(packets):
            packet.pts, packet.dts = times[index], index
        return packets

    source, frames = read(remuxed(whole, tmp_path / f"a{suffix}", disturb))
    assert numbers(frames) == list(range(6))
    tick = MS / source.info.time_base
    assert [frame.pts for frame in frames] == [0, 200 * tick, 200 * tick + 1, 240 * tick, 240 * tick + 1, 300 * tick]
    assert source.log.repaired_pts == 2
    assert source.log.warnings == []


@pytest.mark.parametrize(
    ("given", "repaired", "count"),
    [
        ([None, None, None], [0, 40, 80], 3),
        ([100, None, 180], [100, 140, 180], 1),
        ([100, 50, 101, 102], [100, 101, 102, 103], 3),
        ([-5, -5, 0], [-5, -4, 0], 1),
        ([5, 6, 7], [5, 6, 7], 0),
    ],
)
def test_a_missing_or_backward_time_becomes_the_nearest_later_one(
    given: list[int | None], repaired: list[int], count: int
) -> None:
    log = CaptureLog()
    maker = FrameMaker(log, time_base=MS, step=40)
    assert [maker.repair_pts(pts) for pts in given] == repaired
    assert log.repaired_pts == count


# --- the life of a source ---


def test_interrupt_from_another_thread_ends_the_iteration(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=60)
    seen = []
    with closing(VideoSource(path)) as source:
        for frame in source:
            seen.append(number_of(frame.rgb))
            if len(seen) == 3:
                other = threading.Thread(target=source.interrupt)
                other.start()
                other.join()
        assert list(source) == []
    assert seen == [0, 1, 2]
    assert source.log.warnings == []


def test_a_frame_that_is_being_decoded_at_an_interrupt_is_not_delivered(tmp_path: Path) -> None:
    made = []

    def clock() -> float:
        made.append(1)
        if len(made) == 4:  # the first frame is stamped when it is decoded, and again when it is delivered
            source.interrupt()
        return 0.0

    with closing(VideoSource(write_video(tmp_path / "a.mp4"), clock=clock)) as source:
        assert [number_of(frame.rgb) for frame in source] == [0, 1]


def test_an_interrupt_before_the_first_frame_leaves_nothing_to_iterate(tmp_path: Path) -> None:
    with closing(VideoSource(write_video(tmp_path / "a.mp4"))) as source:
        source.interrupt()
        assert list(source) == []


@pytest.mark.parametrize("taken", [0, 1, 5, 12])
def test_close_can_be_called_at_any_time_and_again_and_lets_the_file_go(tmp_path: Path, taken: int) -> None:
    path = write_video(tmp_path / "closing.mp4")
    source = VideoSource(path)
    frames = iter(source)
    assert [number_of(next(frames).rgb) for _ in range(taken)] == list(range(taken))
    assert "closing.mp4" in open_names()
    source.close()
    assert "closing.mp4" not in open_names()
    source.close()
    assert list(source) == []
    source.interrupt()


def test_a_change_of_size_is_noted_and_every_frame_still_comes(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.ts", frames=6)
    large = write_video(tmp_path / "large.ts", frames=6, size_hw=(96, 80))

    def followed(packets: list[Any]) -> list[Any]:
        with av.open(str(large)) as container:
            later = [packet for packet in container.demux(video=0) if packet.dts is not None]
        for packet in later:
            packet.pts, packet.dts = packet.pts + 6 * 3600, packet.dts + 6 * 3600
        return packets + later

    source, frames = read(remuxed(small, tmp_path / "a.ts", followed))
    assert [frame.size for frame in frames] == [(48, 64)] * 6 + [(96, 80)] * 6
    assert numbers(frames) == [*range(6), *range(6)]
    assert source.log.notes == ["the frame size changed to 80×96 at frame 6"]
    assert source.log.warnings == []
