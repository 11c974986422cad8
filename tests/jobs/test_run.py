"""Whole runs on real files with the built-in model: what goes in comes out, in order, upright, and accounted for."""

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import stream
from stream.capture.pattern import PatternSource
from stream.capture.video.file import VideoSource
from stream.errors import ModelError, OutputError, SinkError, SourceError, SourceNotFoundError
from stream.infer.engine import Engine
from stream.jobs.options import from_options
from stream.jobs.run import run_config
from stream.jobs.supervise import Relay
from stream.media import av
from stream.metrics import Outcome
from stream.pipeline.runner import Pipeline, Progress
from stream.render.layout import Layout
from stream.render.range import EmaRange
from stream.render.renderer import Renderer
from stream.sinks.base import Unwritten
from stream.sinks.video import VideoSink
from tests.support import forked
from tests.support.fakes import RecordingSink, ScriptedSource
from tests.support.media_files import number_of, numbered, truncated, write_video
from tests.support.paths import REPOSITORY
from tests.support.picture_files import save, save_heic, scene, stored
from tests.support.tiny_model import depths, run

CONFIGS = REPOSITORY / "configs"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def video_times(path: Path) -> list[tuple[int, Fraction]]:
    with av.open(str(path)) as container:
        return [(f.pts, f.time_base) for f in container.decode(video=0)]


def audio_packets(path: Path) -> list[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        return [(p.pts, bytes(p)) for p in container.demux(container.streams.audio[0]) if p.size]


def durations(path: Path) -> tuple[Any, ...]:
    with av.open(str(path)) as container:
        return (*tuple(s.duration * s.time_base for s in container.streams), container.duration)


def balanced(report: stream.Report) -> bool:
    return report.captured == report.written + sum(report.dropped.values()) + len(report.skipped)


VIDEOS: dict[str, dict[str, Any]] = {
    "h264 with audio": {"frames": 40, "audio_s": 1.6, "b_frames": 2, "time_base": Fraction(1, 12800)},
    "variable rate": {
        "pts": [0, 100, 150, 400, 401, 900, 1000, 1700, 1733, 2500, 2600, 3000],
        "time_base": Fraction(1, 1000),
        "audio_s": 3.0,
    },
    "variable rate, b-frames": {
        "pts": [0, 100, 150, 400, 401, 900, 1000, 1700, 1733, 2500, 2600, 3000],
        "time_base": Fraction(1, 1000),
        "b_frames": 2,
        "audio_s": 3.0,
    },
    "a long last frame": {
        "pts": [5, 100, 150, 400],
        "time_base": Fraction(1, 1000),
        "last_duration": 777,
        "b_frames": 2,
        "audio_s": 1.0,
    },
    "29.97": {"frames": 30, "rate": Fraction(30000, 1001), "time_base": Fraction(1, 30000), "audio_s": 1.0},
    "rotated": {"rotation_deg": 90, "audio_s": 0.5, "time_base": Fraction(1, 90000)},
    "10 bit hevc": {"codec": "libx265", "pixel_format": "yuv420p10le", "size_hw": (64, 96), "audio_s": 0.5},
    "odd size": {"size_hw": (45, 63), "pixel_format": "yuv444p", "audio_s": 0.5},
}


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_keeps_frames_times_audio_and_duration(name: str, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", **VIDEOS[name])
    report = run(str(clip), output=tmp_path / "out.mp4", layout="side")
    assert report.outcome is Outcome.DONE
    assert video_times(tmp_path / "out.mp4") == video_times(clip)
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(clip)
    assert durations(tmp_path / "out.mp4") == durations(clip)
    assert report.captured == report.written == report.inferred == len(video_times(clip))
    assert balanced(report)


def test_a_disk_that_fills_up_ends_the_run_with_a_playable_partial_and_a_report(tmp_path: Path) -> None:
    def noise(index: int, size_hw: tuple[int, int]) -> Any:
        return np.random.default_rng(index).integers(0, 255, (*size_hw, 3), np.uint8)

    write_video(tmp_path / "clip.mp4", size_hw=(64, 128), frames=120, draw=noise)

    # The system's own ENOSPC needs a disk; a limit on the size of files needs nothing.
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (400_000, 400_000))
    options = ["--layout", "side", "--input-size", "64", "--backend", "torch", "--preset", "ultrafast"]
    done = forked.run(["run", "clip.mp4", "--report", "r.json", *options], first=full)
    assert done.returncode == 1, done.stderr
    *_, kept, error = done.stderr.decode().splitlines()
    assert kept == "note: partial output kept: clip_depth.partial.mp4"
    assert error.startswith("depthstream: clip_depth.mp4: cannot be written")
    assert not Path("clip_depth.mp4").exists()
    report = json.loads(Path("r.json").read_text())
    assert (report["outcome"], report["exit_code"]) == ("failed", 1)
    assert report["error"] in error
    assert report["outputs"] == ["clip_depth.partial.mp4"]
    playable = VideoSource("clip_depth.partial.mp4")  # the last packet may be cut, which a player passes over
    try:
        assert 20 < sum(1 for _ in playable) <= report["captured"] < 120
    finally:
        playable.close()


def test_a_report_that_cannot_be_saved_does_not_hide_why_the_run_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=5)

    def fail(*_args: object) -> None:
        raise SinkError("the true reason")

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoSink, "write", fail)
    monkeypatch.setattr(stream.Report, "save", full)
    with pytest.raises(SinkError, match="the true reason") as caught:
        run(str(clip), output=tmp_path / "out.mp4", report=tmp_path / "r.json")
    assert "No space left" in " ".join(caught.value.__notes__)


@pytest.mark.slow
def test_a_real_size_video_keeps_everything(tmp_path: Path) -> None:
    clip = write_video(
        tmp_path / "clip.mp4", size_hw=(1080, 1920), frames=90, rate=Fraction(30), b_frames=2, audio_s=3.0
    )
    stream.run(str(clip), output=tmp_path / "out.mp4")
    assert video_times(tmp_path / "out.mp4") == video_times(clip)
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(clip)
    assert durations(tmp_path / "out.mp4") == durations(clip)


def test_side_layout_shows_the_same_pictures_in_order(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", size_hw=(64, 96), frames=20)
    stream.run(str(clip), output=tmp_path / "out.mp4", layout="side", batch=4, input_size=64, backend="torch")
    with av.open(str(tmp_path / "out.mp4")) as container:
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert pictures[0].shape == (64, 2 * 96 + 50, 3)
    assert [number_of(p[:, :96]) for p in pictures] == list(range(20))


def test_a_part_of_a_video_starts_at_zero_with_its_audio(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=50, audio_s=2.0)
    report = run(str(clip), output=tmp_path / "out.mp4", start="0.4", end="1.2")
    times = video_times(tmp_path / "out.mp4")
    assert report.written == len(times) == 20
    assert times[0][0] == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        audio = container.streams.audio[0]
        assert audio.duration is not None
        assert float(audio.duration * audio.time_base) == pytest.approx(0.8, abs=0.05)


def test_a_truncated_video_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=100, size_hw=(64, 96))
    cut = truncated(whole, tmp_path / "cut.mkv", share=0.6)
    report = run(str(cut), output=tmp_path / "out.mp4")
    assert report.outcome is Outcome.DONE_WITH_SKIPS
    assert 20 < report.written < 100
    assert len(report.warnings) >= 1
    assert "cut.mkv" in report.warnings[0]
    assert len(video_times(tmp_path / "out.mp4")) == report.written


def test_a_mixed_folder_is_upright_complete_and_names_what_it_skipped(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    upright = scene(48, 72)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(photos / f"exif{orientation}.jpg", stored(upright, orientation), exif=exif.tobytes(), quality=95)
    save_heic(photos / "phone.heic", upright)
    save(photos / "deep.png", Image.fromarray(upright[..., 0].astype(np.uint16) * 257))
    (photos / "notes.txt").write_text("not a picture")
    (photos / "broken.jpg").write_bytes((photos / "exif1.jpg").read_bytes()[:200])

    report = run("photos", output="out", layout="side", save="npy", report="r.json")

    assert report.exit_code == 3
    assert [item["name"] for item in report.skipped] == ["broken.jpg"]
    assert report.counters["ignored_files"] == 1
    assert "ignored (not an image): notes.txt" in report.notes
    assert balanced(report)
    stems = {f"exif{i}" for i in range(1, 9)} | {"phone", "deep"}
    assert {p.name for p in Path("out").iterdir()} == {f"{s}.png" for s in stems} | {f"{s}.npy" for s in stems}
    for i in range(1, 9):
        with Image.open(f"out/exif{i}.png") as made:
            shown = np.asarray(made)[:, :72].astype(int)
        assert np.abs(shown - upright).mean() < 6
    assert json.loads(Path("r.json").read_text())["skipped"][0]["reason"]


def test_mixed_shapes_in_batches_equal_one_by_one_and_stay_in_order(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(5)
    for i in range(10):
        size = (48, 64) if i % 2 else (64, 48)
        save(
            photos / f"p{i}.png",
            np.kron(rng.integers(0, 255, (*[s // 8 for s in size], 3), np.uint8), np.ones((8, 8, 1), np.uint8)),
        )
    one, four = (list(stream.iter_depth("photos", batch=b, input_size=96)) for b in (1, 4))
    assert [f.name for f, _ in four] == [f"p{i}.png" for i in range(10)]
    for (frame_a, a), (frame_b, b) in zip(one, four, strict=True):
        assert (frame_a.index, a.index, a.size) == (frame_b.index, b.index, b.size)
        assert np.abs(a.values - b.values).max() < 1e-3 * a.values.std()


def test_folder_to_video_unifies_sizes_and_says_so_once(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(6):
        save(photos / f"p{i}.png", numbered(i, (48, 64) if i % 2 == 0 else (64, 48)))
    report = run("photos", output="film.mp4", fps=24)
    assert [float(p * tb) for p, tb in video_times(Path("film.mp4"))] == pytest.approx([i / 24 for i in range(6)])
    assert sum("black bars" in note for note in report.notes) == 1
    with pytest.raises(stream.ConfigError, match="--fps"):
        stream.run("photos", output="other.mp4")


@pytest.mark.parametrize("name", ["video", "photos"])
def test_shipped_configs_run(name: str, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", frames=5)
    (tmp_path / "shots").mkdir()
    save(tmp_path / "shots" / "a.png", scene())
    source = "clip.mp4" if name == "video" else "shots"
    from stream.cli.configfile import load

    report = run_config(from_options(source, {}, base=load(CONFIGS / f"{name}.yaml")))
    assert report.exit_code == 0
    assert report.written == (5 if name == "video" else 1)


def test_stills_that_clash_keep_their_suffix(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    save(photos / "a.jpg", scene())
    save_heic(photos / "a.heic", scene())
    run("photos", output="out", save="npy")
    assert {p.name for p in Path("out").iterdir()} == {"a.jpg.png", "a.heic.png", "a.jpg.npy", "a.heic.npy"}


def test_saved_depth_beside_a_video_and_by_frame_index(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", frames=3)
    run("clip.mp4", output="out.mp4", save=("npy", "pfm"))
    names = {f"{i:06d}.{suffix}" for i in range(3) for suffix in ("npy", "pfm")}
    assert {p.name for p in Path("out_depth").iterdir()} == names
    (_, depth), *_ = depths("clip.mp4")
    assert np.array_equal(np.load("out_depth/000000.npy"), depth.values)


def test_closing_the_generator_early_stops_every_thread(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", frames=100)
    results = stream.iter_depth("clip.mp4", input_size=64)
    frame, depth = next(results)
    assert frame.index == depth.index == 0
    assert any(t.name.startswith("depthstream-") for t in threading.enumerate())
    results.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("depthstream-")]


def test_outputs_are_never_replaced_unasked(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=3)
    Path("out.mp4").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        stream.run("clip.mp4", output="out.mp4")
    assert Path("out.mp4").read_text() == "precious"
    for same in (clip, Path("clip.mp4")):
        with pytest.raises(OutputError, match="input"):
            stream.run("clip.mp4", output=same, overwrite=True)
    run("clip.mp4", output="out.mp4", overwrite=True)
    assert len(video_times(Path("out.mp4"))) == 3


@pytest.mark.parametrize("fault", ["source", "model"])
def test_a_stage_that_fails_to_open_leaves_nothing(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "clip.mp4", frames=3)
    error = RuntimeError("cannot open")

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    target = {"source": "stream.capture.open.open_source", "model": "stream.models.registry.load"}[fault]
    monkeypatch.setattr(target, fail)
    with pytest.raises(RuntimeError) as caught:
        stream.run("clip.mp4", output="out.mp4")
    assert caught.value is error
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_no_room_on_the_disk_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "clip.mp4", frames=30, size_hw=(480, 640))
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(OutputError, match="npy"):
        stream.run("clip.mp4", output="out.mp4", save="npy")
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_errors_of_the_api_are_the_public_ones() -> None:
    with pytest.raises(SourceNotFoundError):
        stream.run("nowhere.mp4")
    Path("empty.mp4").write_bytes(b"")
    with pytest.raises(SourceError):
        next(iter(stream.iter_depth("empty.mp4")))
    with pytest.raises(stream.ConfigError, match="not both"):
        stream.run("a.mp4", config=from_options("b.mp4", {}))


def soak(target: Path, seen: list[tuple[int, int]]) -> None:
    """2,000 frames through the whole pipeline; after each 200, the bytes resident and those Python holds."""
    from stream.capture.pattern import Pacing
    from stream.infer.batcher import EngineInference
    from stream.models import registry

    process = psutil.Process()
    tracemalloc.start()
    source = PatternSource("testsrc2", size_hw=(240, 320), pacing=Pacing.NONE, max_frames=2000)
    inference = EngineInference(Engine(registry.load("starter"), input_size=64), batch=1, stills=False)
    renderer = Renderer(layout=Layout.SIDE, colormap="inferno", range_policy=EmaRange())

    def watch(progress: Any) -> None:
        if progress.metrics.written >= 200 * (len(seen) + 1):
            gc.collect()
            seen.append((process.memory_info().rss, tracemalloc.get_traced_memory()[0]))

    assert Pipeline(source, inference, renderer, [VideoSink(target)], on_progress=watch).run() is Outcome.DONE


@pytest.mark.slow
def test_memory_is_flat_over_two_thousand_frames(tmp_path: Path) -> None:
    code = (
        "import json, pathlib; from tests.jobs import test_run as t; "
        "s = []; t.soak(pathlib.Path('out.mp4'), s); print(json.dumps(s))"
    )
    root = REPOSITORY
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # a process of its own: other tests leave freed memory that would hide or fake growth
    seen = json.loads(done.stdout)
    assert len(video_times(tmp_path / "out.mp4")) == 2000
    assert len(seen) >= 9
    resident, traced = zip(*seen, strict=True)
    # What Python and NumPy hold does not grow. C code's share creeps while the allocator's arenas fill (over 8,000
    # frames 399 MiB at 200, 408 at 2,000, 410 at 4,000, 412 at the end), but by less than the smallest picture of one
    # frame, the network's 64×96 disparity of 24 KiB: a leak of any buffer would be 33 MiB in the last 1,400 frames.
    assert max(traced) - traced[0] < 2**18, traced
    assert max(resident) - resident[0] < 24 * 2**20, [s >> 20 for s in resident]
    assert max(resident[3:]) - min(resident[3:]) < 8 * 2**20, [s >> 20 for s in resident]


def test_iterating_leaves_no_thread_where_the_backend_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise ModelError("cannot be exported", where="starter")

    monkeypatch.setattr(Engine, "prepare", fail)
    with pytest.raises(ModelError, match="cannot be exported"):
        next(stream.iter_depth("pattern:testsrc", max_frames=1))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("depthstream-")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
@pytest.mark.parametrize(
    ("source", "code", "name"), [("clip.mp4", 129, "out.partial.mp4"), ("pattern:testsrc2", 0, "out.mp4")]
)
def test_a_terminal_that_closes_leaves_a_playable_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, code: int, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", frames=500)

    def close(progress: Progress) -> None:
        if progress.metrics.written >= 3:
            signal.raise_signal(signal.SIGHUP)

    options = {"output": "out.mp4", "input_size": 64, "backend": "torch"}
    report = run_config(from_options(source, options), on_progress=close)
    assert (report.exit_code, report.hung_up) == (code, True)
    assert [path.name for path in tmp_path.glob("out*")] == [name]
    with av.open(name) as container:
        assert sum(1 for _ in container.decode(video=0)) == report.written


class Watched(list[Any]):
    """Counts the items that are looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Any]:
        Watched.looked_at += len(self)
        return super().__iter__()

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        Watched.looked_at += len(found)
        return found


def test_a_tick_looks_only_at_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "looked_at", 0)
    source, sinks = ScriptedSource(1), [RecordingSink(), RecordingSink()]
    lists = [Watched() for _ in range(8)]
    source.log.notes, source.log.warnings, source.log.skipped = lists[:3]
    stages: Any = SimpleNamespace(refused=lists[3])
    for sink, unwritten, notes in zip(sinks, lists[4:6], lists[6:], strict=True):
        sink.unwritten, sink.notes = unwritten, notes
    skipped: list[str] = []
    relay = Relay(source, stages, [], sinks, on_skip=lambda name, _reason: skipped.append(name))
    for index in range(50):
        for some in lists[4:6]:  # both sinks lose the same result
            some.append(Unwritten(index=index, name=f"{index}.jpg", reason="full"))
        for some in (*lists[:2], *lists[6:]):
            some.append(f"note {index}")
        relay()
    assert skipped == [f"{index}.jpg" for index in range(50)]
    assert Watched.looked_at == 6 * 50
