"""What video generators ask of a control video: a frame rate, sides that are multiples of a number, a duration."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import stream
from stream.capture.base import CaptureLog, Source
from stream.capture.crop import CroppedSource
from stream.capture.memory import Images
from stream.capture.open import open_images, open_source
from stream.capture.resample import ResampledSource
from stream.channel import Broadcast
from stream.cli.configfile import load
from stream.config import CaptureConfig
from stream.errors import SourceError
from stream.frames import Audio, Frame, Intrinsics, SourceInfo, SourceKind
from stream.jobs.options import from_options
from stream.jobs.run import run_config
from stream.notes import Notes, collected
from tests.support.ffmpeg import program
from tests.support.media_files import write_video
from tests.support.paths import REPOSITORY
from tests.support.picture_files import save, scene


class Listed(Source):
    """Frames at the given times, in milliseconds, whose first pixel is their number."""

    def __init__(self, times: list[int], *, last_duration: int | None = 40, end_s: float | None = None) -> None:
        self._times, self._last_duration, self._log = times, last_duration, CaptureLog()
        self.info = SourceInfo(
            name="t", size=(37, 53), is_live=False, time_base=Fraction(1, 1000), rate=Fraction(25),
            frame_count=len(times), kind=SourceKind.VIDEO, end_s=end_s,
        )  # fmt: skip

    def __iter__(self):
        for number, pts in enumerate(self._times):
            self.read_ms = pts
            rgb = np.full((37, 53, 3), number, np.uint8)
            is_last = number + 1 == len(self._times)
            yield Frame(
                index=number, pts=pts, time_base=Fraction(1, 1000), captured_at=0.0, rgb=rgb,
                duration=self._last_duration if is_last else None,
                intrinsics=Intrinsics(fx=50, fy=50, cx=26.5, cy=18.5),
            )  # fmt: skip

    def interrupt(self) -> None: ...
    def close(self) -> None: ...


def resampled(source: Source, rate: int, most: int | None = None) -> tuple[list[tuple[int, int]], list[str]]:
    """(pts in 1/rate, number of the source's frame) of what is delivered, and the notes."""
    with collected(Notes()) as notes:
        frames = list(ResampledSource(source, rate=Fraction(rate), max_frames=most))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert {(frame.time_base, frame.duration) for frame in frames} <= {(Fraction(1, rate), 1)}
    return [(frame.pts, int(frame.rgb[0, 0, 0])) for frame in frames], notes.said


def counted(repeated: int, left_out: int) -> str:
    return f"--fps: {repeated} {'frame was' if repeated == 1 else 'frames were'} repeated, {left_out} left out"


@pytest.mark.parametrize(
    ("times", "rate", "expected"),
    [
        (range(0, 200, 40), 25, [0, 1, 2, 3, 4]),
        (range(0, 200, 40), 50, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),  # of two that are as near, the first
        (range(0, 400, 40), 10, [0, 2, 5, 7]),
        (range(0, 400, 40), 16, [0, 2, 3, 5, 6, 8, 9]),
        ([0, 90, 110, 400], 10, [0, 1, 2, 3, 3]),  # at 0.3 s, 0.4 s is nearer than 0.11 s
        ([0, 1000], 4, [0, 0, 0, 1, 1]),
        ([0], 25, [0]),
    ],
)
def test_each_output_time_gets_the_frame_nearest_to_it(times: Sequence[int], rate: int, expected: list[int]) -> None:
    delivered, notes = resampled(Listed(list(times)), rate)
    assert delivered == list(enumerate(expected))
    for pts, number in delivered:
        away = [abs(time * rate - pts * 1000) for time in times]  # exact
        assert away[number] == min(away)
    repeated, left_out = len(expected) - len(set(expected)), len(times) - len(set(expected))
    assert "each the nearest in time" in notes[0]
    assert notes[1:] == [counted(repeated, left_out)]


def test_a_start_within_the_clip_keeps_the_grid_of_times(tmp_path: Path) -> None:
    delivered, _ = resampled(Listed([1001, 1041, 1081, 1121]), 16)
    assert delivered == [(17, 2), (18, 3)], "17/16 s is the first such time; the clip ends at 1.161 s"
    assert resampled(Listed([1001], last_duration=1), 16)[0] == [(17, 0)], "one frame at least"


def test_the_most_frames_and_the_end_count_what_comes_out() -> None:
    assert resampled(Listed(list(range(0, 4000, 40))), 10, most=7)[0][-1][0] == 6
    assert len(resampled(Listed(list(range(0, 4000, 40)), end_s=4.0), 10)[0]) == 40
    assert len(resampled(Listed([0], last_duration=10_000, end_s=2.0), 10)[0]) == 20, "a long last frame is cut too"


@pytest.mark.parametrize(("rate", "most", "repeated", "left_out"), [(5, 3, 0, 8), (1000, 50, 48, 0), (50, 2, 1, 0)])
@pytest.mark.parametrize("has_sound", [False, True])
def test_the_note_counts_what_the_output_repeats_and_leaves_out(
    rate: int, most: int, repeated: int, left_out: int, has_sound: bool
) -> None:
    source = Listed(list(range(0, 8000, 40)))
    if has_sound:
        source.info = replace(source.info, audio=Audio(tracks=(), packets=Broadcast(1)))
    delivered, notes = resampled(source, rate, most)
    assert len(delivered) == most
    assert notes[1:] == [counted(repeated, left_out)]


def test_sound_is_read_only_a_little_further_than_the_last_frame() -> None:
    source = Listed(list(range(0, 60_000, 40)))
    source.info = replace(source.info, audio=Audio(tracks=(), packets=Broadcast(1)))
    assert len(resampled(source, 5, 3)[0]) == 3
    assert 2600 < source.read_ms <= 2700, "the output ends at 0.6 s, and sound may lie 2 s behind"


def test_a_crop_is_central_never_pads_and_moves_the_camera() -> None:
    with collected(Notes()) as notes:
        source = CroppedSource(Listed([0, 40]), multiple=16)
        frames = list(source)
    assert source.info.size == (32, 48)
    assert {frame.size for frame in frames} == {(32, 48)}
    camera = frames[0].intrinsics
    assert camera is not None
    assert (camera.cx, camera.cy, camera.fx) == (24.5, 16.5, 50), "2 columns and 2 rows are cut off before it"
    assert notes.said == ["--multiple-of: t is cropped from 53×37 to 48×32"]


def test_pictures_that_are_too_small_are_skipped_and_the_others_cropped(tmp_path: Path) -> None:
    for name, size in (("a", (20, 90)), ("b", (40, 70)), ("c", (33, 65))):
        save(tmp_path / f"{name}.png", scene(*size))
    with closing(open_source(str(tmp_path), options=CaptureConfig(multiple_of=32))) as source:
        frames = list(source)
    assert [(frame.name, frame.size) for frame in frames] == [("b.png", (32, 64)), ("c.png", (32, 64))]
    assert np.array_equal(frames[0].rgb, scene(40, 70)[4:36, 3:67])
    assert [(one.name, one.reason) for one in source.log.skipped] == [
        ("a.png", "90×20 has less than 32 pixels on a side")
    ]
    with pytest.raises(SourceError, match="no image has 128 pixels on both sides"):
        open_source(str(tmp_path), options=CaptureConfig(multiple_of=128))


@pytest.fixture
def some_small(tmp_path: Path) -> Path:
    """Seven pictures: the first and the fourth have less than 16 pixels on a side, the third is cut off."""
    for number in range(7):
        save(tmp_path / f"{number}.png", scene(12, 40) if number in (0, 3) else scene(40, 70))
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    return tmp_path


@pytest.mark.parametrize("way", ["folder", "sandbox", "names", "mixed", "iterator"])
def test_pictures_that_are_too_small_neither_leave_gaps_nor_count(some_small: Path, way: str) -> None:
    if way == "sandbox" and sys.platform != "linux":
        pytest.skip("the sandbox is Linux's")

    def opened(**options: object) -> Source:
        config = CaptureConfig.model_validate({"multiple_of": 16, "sandbox": way == "sandbox", **options})
        if way in ("folder", "sandbox"):
            return open_source(str(some_small), options=config)
        names: list[object] = sorted(some_small.iterdir())
        if way != "names":
            names[3] = scene(12, 40)
        return open_images(Images(iter(names) if way == "iterator" else names), options=config)

    cases: list[tuple[dict[str, object], list[int]]] = [
        ({"fps": 5, "max_frames": 3}, [0, 1, 2]),
        ({}, [1, 4, 5, 6]),
        ({"fps": 5}, [0, 1, 2, 3]),
        ({"fps": 5, "max_seconds": 0.6}, [0, 1, 2]),
        ({"max_frames": 3}, [1, 4, 5]),
    ]
    # The sandbox starts a process for each, and what takes the options is outside of it, as for a folder.
    for options, expected in cases[:2] if way == "sandbox" else cases:
        with closing(opened(**options)) as source:
            assert source.info.size == (32, 64), "of the first picture that is large enough"
            frames = list(source)
            assert [frame.pts for frame in frames] == expected, options
            assert [frame.index for frame in frames] == [1, 4, 5, 6][: len(expected)]
            assert {frame.size for frame in frames} == {(32, 64)}
            skipped = [one.name for one in source.log.skipped]
            assert len(skipped) == 3
            assert skipped[0] == "0.png"


def test_a_film_with_pictures_that_are_too_small_has_the_size_and_length_of_the_others(some_small: Path) -> None:
    out = some_small.parent / "film.mp4"
    report = stream.run(some_small, output=out, fps=5, multiple_of=16)
    assert (report.exit_code, report.written, len(report.skipped)) == (3, 4, 3)
    streams, times = probed(out)
    assert (streams["video"]["width"], streams["video"]["height"]) == (64, 32)
    assert times == pytest.approx([0, 0.2, 0.4, 0.6])
    assert float(streams["video"]["duration"]) == pytest.approx(0.8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(
        tmp_path_factory.mktemp("clip") / "clip.mp4", size_hw=(50, 90), frames=60, rate=Fraction(30), audio_s=2.0
    )


def probed(path: Path) -> tuple[dict[str, dict[str, str]], list[float]]:
    """The streams of a video by their type, and the times of its pictures, by ffprobe."""
    command = [
        program("ffprobe"),
        "-v",
        "error",
        "-show_streams",
        "-show_entries",
        "packet=pts_time,codec_type",
        "-of",
        "json",
    ]
    found = json.loads(subprocess.run([*command, str(path)], capture_output=True, check=True, text=True).stdout)
    streams = {one["codec_type"]: one for one in found["streams"]}
    return streams, sorted(float(one["pts_time"]) for one in found["packets"] if one["codec_type"] == "video")


def test_the_control_config_makes_what_a_generator_takes(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "control.mp4"
    config = from_options(str(clip), {"output": out}, base=load(REPOSITORY / "configs" / "control.yaml"))
    report = run_config(config)
    assert report.exit_code == 0
    assert report.captured == report.written == 32
    streams, times = probed(out)
    assert streams.keys() == {"video"}
    assert (streams["video"]["width"], streams["video"]["height"]) == (80, 48)
    assert Fraction(streams["video"]["avg_frame_rate"]) == 16
    assert times == pytest.approx([k / 16 for k in range(32)], abs=1e-4)
    with closing(open_source(str(out))) as made:
        frame = next(iter(made))
    assert np.ptp(frame.rgb.astype(int), axis=2).max() <= 3, "gray"


def test_sound_keeps_its_speed_and_length(clip: Path, tmp_path: Path) -> None:
    quick = {"fps": 10, "input_size": 64, "backend": "torch"}
    stream.run(clip, output=tmp_path / "all.mp4", **quick)
    stream.run(clip, output=tmp_path / "part.mp4", start=0.5, max_seconds=1, **quick)
    stream.run(clip, output=tmp_path / "most.mp4", max_frames=5, **quick)
    for name, frames, seconds in (("all", 20, 2.0), ("part", 10, 1.0), ("most", 5, 0.5)):
        streams, times = probed(tmp_path / f"{name}.mp4")
        assert len(times) == frames
        assert float(streams["audio"]["duration"]) == pytest.approx(seconds, abs=0.05), name


@pytest.mark.parametrize("sandbox", [False, True])
def test_the_options_hold_for_every_way_to_read_a_video(clip: Path, sandbox: bool) -> None:
    if sandbox and sys.platform != "linux":
        pytest.skip("the sandbox is Linux's")
    options = {"fps": 15, "max_frames": 8, "start": 0.5, "max_seconds": 1.0, "multiple_of": 16, "mirror": True}
    with closing(open_source(str(clip), options=CaptureConfig(**options, sandbox=sandbox))) as source:
        frames = list(source)
    assert [frame.pts for frame in frames] == list(range(8, 16)), "7.5/15 s lies between two times"
    assert source.info.size == frames[0].size == (48, 80)
    shorter = CaptureConfig(**{**options, "max_frames": None}, sandbox=sandbox)
    with closing(open_source(str(clip), options=shorter)) as source:
        assert len(list(source)) == 15


def test_stills_become_a_video_of_so_many_seconds(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"{number}.png", scene())
    with closing(open_source(str(tmp_path), options=CaptureConfig(fps=2, max_seconds=1.5))) as source:
        assert len(list(source)) == source.info.frame_count == 3


def test_iterating_resamples_too(clip: Path) -> None:
    frames = [frame for frame, _ in stream.iter_depth(clip, fps=6, max_seconds=1, multiple_of=16)]
    assert [(frame.time_s, frame.size) for frame in frames] == [(k / 6, (48, 80)) for k in range(6)]
