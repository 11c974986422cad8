"""A run in segments that is interrupted goes on where it was, and its result is that of a run that was not."""

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from fractions import Fraction
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import stream
from stream.cli.main import invoke
from stream.errors import OutputError, UsageError
from stream.jobs.loaded import Model
from stream.jobs.segments import join as join_module
from stream.jobs.segments import resume
from stream.jobs.segments.rows import Piece
from stream.jobs.segments.store import LocalStore
from stream.media import av
from stream.metrics import Outcome
from stream.pipeline.runner import Progress
from tests.jobs.test_run import audio_packets, balanced, durations, video_times
from tests.support import forked
from tests.support.media_files import truncated, write_video
from tests.support.segments import decoded, same
from tests.support.tiny_model import own
from tests.support.waiting import until

QUICK: dict[str, Any] = {"segment_seconds": 1, "colormap": "gray", "range": "frame"}
"""Five segments of the clips here, without memory across their borders."""
LOSSLESS: dict[str, Any] = {**QUICK, "codec": "ffv1"}
STATES = 25
"""Frames of a segment."""


@pytest.fixture
def model() -> Iterator[Model]:
    with own() as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def clip(name: str = "clip.mp4", **changes: Any) -> Path:
    given = {"frames": 125, "gop": 25, "b_frames": 2, "time_base": Fraction(1, 12800), "audio_s": 5.0} | changes
    return write_video(Path(name), size_hw=given.pop("size_hw", (32, 48)), **given)


def stopped_at(frames: int, **options: Any) -> stream.Report:
    """A run that is stopped once so many frames are written."""
    stop = Event()

    def look(progress: Progress) -> None:
        if progress.metrics.written >= frames:
            stop.set()

    return stream.run("clip.mp4", stop=stop, on_progress=look, **options)


def length(path: Path) -> int | None:
    """Duration in microseconds."""
    with av.open(str(path)) as container:
        return container.duration


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


CLIPS: dict[str, dict[str, Any]] = {
    "B-frames and sound": {},
    "variable rate": {"pts": [512 * i + (i % 3) * 100 for i in range(125)], "last_duration": 7000},
    "rotated": {"rotation_deg": 90},
    "odd size": {"size_hw": (33, 47), "pixel_format": "yuv444p"},
    "open groups": {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}},
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "variable rate" else pytest.param(kind, marks=pytest.mark.slow) for kind in CLIPS]
)
def test_an_interrupted_run_that_is_resumed_is_a_run_that_was_not_interrupted(kind: str, model: Model) -> None:
    source = clip(**CLIPS[kind])
    stream.run("clip.mp4", output="whole.mkv", model=model, **{**LOSSLESS, "segment_seconds": 0})
    first = stopped_at(60, output="out.mkv", model=model, **LOSSLESS)
    assert first.outcome is Outcome.INTERRUPTED
    assert first.outputs == ["out.partial.mkv"]
    assert left() == ["clip.mp4", "out.mkv.segments", "out.partial.mkv", "whole.mkv"]
    partial, wanted = list(decoded(Path("out.partial.mkv"))), list(decoded(Path("whole.mkv")))
    assert len(partial) == first.written >= 60
    assert same(partial, wanted[: len(partial)])
    report = stream.run("clip.mp4", output="out.mkv", model=model, resume=True, **LOSSLESS)
    assert report.outcome is Outcome.DONE
    assert report.reused >= 50
    assert report.reused % STATES == 0
    assert report.inferred <= 125 - report.reused + STATES
    assert (report.written, report.captured, report.segments) == (125, 125, 5)
    assert balanced(report)
    assert left() == ["clip.mp4", "out.mkv", "whole.mkv"]
    assert same(list(decoded(Path("out.mkv"))), wanted)
    assert audio_packets(Path("out.mkv")) == audio_packets(Path("whole.mkv"))
    assert length(Path("out.mkv")) == length(Path("whole.mkv"))
    assert len(audio_packets(source)) == len(audio_packets(Path("out.mkv")))


def content(name: str) -> dict[str, bytes]:
    """Of all files of an output, by name; of a video, its times and pixels."""
    found = {}
    for path in sorted(Path().glob(f"{name}*")):
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in (".mkv", ".mp4"):
                frames = list(decoded(file))
                found[file.name.replace(name, "")] = repr([(time, pixels.sum()) for time, pixels in frames]).encode()
            elif file.is_file():
                found[file.name.replace(name, "")] = file.read_bytes()
    return found


OUTPUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "files": ("", {"save": ("npy", "png16"), "range": "-3:3", "png16_unit": None}),
    "a video and its depth": (".mkv", {"codec": "ffv1", "save": ("video16",), "range": "-3:3"}),
    "two passes": (".mkv", {"codec": "ffv1", "range": "clip"}),
    "two passes, depth video": (".depth.mkv", {}),
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "files" else pytest.param(kind, marks=pytest.mark.slow) for kind in OUTPUTS]
)
def test_every_output_of_a_resumed_run_is_that_of_one_run(kind: str, model: Model) -> None:
    suffix, given = OUTPUTS[kind]
    clip(frames=75, audio_s=None)
    options = {key: value for key, value in ({"colormap": "gray"} | given).items() if value is not None}
    stream.run("clip.mp4", output=f"one{suffix}", model=model, segment_seconds=0, **options)
    first = stopped_at(40, output=f"two{suffix}", model=model, segment_seconds=1, **options)
    assert first.outcome is Outcome.INTERRUPTED
    report = stream.run("clip.mp4", output=f"two{suffix}", model=model, segment_seconds=1, resume=True, **options)
    assert report.outcome is Outcome.DONE
    assert report.reused == 25
    assert report.inferred <= 50
    assert balanced(report)
    assert not list(Path().glob("*.segments"))
    assert not list(Path().glob("*.partial*"))
    assert content("two") == content("one")


@pytest.fixture
def interrupted(model: Model) -> LocalStore:
    """Two of three segments are done."""
    clip(frames=75, audio_s=None)
    stopped_at(55, output="out.mkv", model=model, **LOSSLESS)
    store = LocalStore(Path("out.mkv.segments"))
    assert [number for number in range(3) if store.record(number)] == [0, 1]
    return store


def resumed(model: Model, **changes: Any) -> stream.Report:
    return stream.run("clip.mp4", output="out.mkv", model=model, **{"resume": True, **LOSSLESS, **changes})


def test_what_has_changed_is_refused_by_name_and_nothing_is_lost(
    interrupted: LocalStore, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match=r"out.mkv.segments: .*--resume goes on from there, --overwrite starts again"):
        resumed(model, resume=False)
    with pytest.raises(OutputError, match=r"cannot be resumed: --colormap: was gray, is magma; .*--overwrite"):
        resumed(model, colormap="magma")
    with (
        stream.load("starter", input_size=96, device="cpu", threads=1) as other,
        pytest.raises(OutputError, match=r"--model: was own, is starter; --input-size: was the default, is 96"),
    ):
        resumed(other)
    with monkeypatch.context() as changed:
        changed.setattr(resume, "__version__", "99")
        with pytest.raises(OutputError, match=r"version: was \S+, is 99"):
            resumed(model)
    before = Path("clip.mp4").stat()
    clip(frames=75, audio_s=None, gop=20)
    with pytest.raises(OutputError, match=r"source: its size was \d+, is \d+; source: its time of change was"):
        resumed(model)
    clip(frames=75, audio_s=None)
    os.utime("clip.mp4", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert resumed(model).reused == 50
    assert left() == ["clip.mp4", "out.mkv"]


def test_overwrite_starts_again(interrupted: LocalStore, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    results, close = list[bytes](), LocalStore.close

    def closed(store: LocalStore, *arguments: Any) -> None:
        close(store, *arguments)
        results.append((store.root / "results.json").read_bytes())

    monkeypatch.setattr(LocalStore, "close", closed)
    report = resumed(model, resume=False, overwrite=True, colormap="magma")
    assert (report.reused, report.written) == (0, 75)
    assert left() == ["clip.mp4", "out.mkv"]
    interrupted.root.mkdir()
    (interrupted.root / "results.json").write_bytes(results[0])  # by a run that was killed when the plan was gone
    report = resumed(model, resume=False, overwrite=True)
    assert (report.reused, report.inferred) == (0, 75)
    assert left() == ["clip.mp4", "out.mkv"]


def test_overwrite_removes_nothing_that_is_not_its_own(interrupted: LocalStore, model: Model) -> None:
    (interrupted.root / "mine.txt").write_text("mine")
    assert resumed(model, resume=False, overwrite=True).reused == 0
    assert [path.name for path in interrupted.root.iterdir()] == ["mine.txt"]
    (interrupted.root / "0000").mkdir()
    (interrupted.root / "plan.json").write_text('{"my": "project"}')
    with pytest.raises(OutputError, match=r"plan.json: is no plan of segments: .*; remove the folder"):
        resumed(model, resume=False, overwrite=True)
    assert sorted(path.name for path in interrupted.root.iterdir()) == ["0000", "mine.txt", "plan.json"]
    assert Path("out.mkv").exists()


def report_of(name: str = "report.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(name).read_text())
    return found


@pytest.mark.parametrize("pieces", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_second_ctrl_c_ends_at_once_and_is_reported(model: Model, pieces: int) -> None:
    clip()

    def twice(progress: Progress) -> None:
        if progress.metrics.written >= 30:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stream.run(
            "clip.mp4", output="out.mkv", report="report.json", model=model, on_progress=twice,
            **{**LOSSLESS, "segment_seconds": pieces},
        )  # fmt: skip
    report = report_of()
    assert (report["outcome"], report["error"]) == ("interrupted", None)
    assert report["written"] >= 25


@pytest.mark.parametrize("how", ["stop", pytest.param("ctrl-c", marks=pytest.mark.slow)])
def test_an_interruption_while_finished_segments_are_read_is_reported(
    model: Model, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    clip()
    options = {**LOSSLESS, "range": "clip", "output": "out.mkv", "model": model}
    stopped_at(80, **options)
    stop, read = Event(), list[Path]()
    really = join_module.piece_of

    def reading(path: Path, name: str) -> Piece:
        read.append(path)
        signal.raise_signal(signal.SIGINT) if how == "ctrl-c" else stop.set()
        return really(path, name)

    notes: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(join_module, "piece_of", reading)
        interrupted = pytest.raises(KeyboardInterrupt) if how == "ctrl-c" else nullcontext()
        with interrupted:
            stream.run("clip.mp4", resume=True, report="report.json", stop=stop, on_note=notes.append, **options)
    assert {path.parent.name for path in read} == {"0000"}, "of the first segment alone"
    assert report_of()["outcome"] == "interrupted"
    assert any("--resume" in line for line in notes)
    assert stream.run("clip.mp4", resume=True, **options).outcome is Outcome.DONE


def test_two_runs_do_not_share_a_job(interrupted: LocalStore, model: Model) -> None:
    with resume.locked(interrupted), pytest.raises(OutputError, match="segments: another run is working on it"):
        resumed(model)
    assert resumed(model).reused == 50


def test_a_clock_that_is_set_back_changes_nothing(interrupted: LocalStore, model: Model) -> None:
    ahead = 4e9
    for path in interrupted.root.rglob("*"):
        os.utime(path, (ahead, ahead))
    assert resumed(model).reused == 50


def test_a_damaged_segment_is_done_again_and_half_a_record_is_none(
    interrupted: LocalStore, model: Model, notes: list[str]
) -> None:
    piece = interrupted.folder(0) / "video.nut"
    data = bytearray(piece.read_bytes())
    data[len(data) // 2] ^= 1
    piece.write_bytes(data)
    record = interrupted.root / "0001.json"
    record.write_bytes(record.read_bytes()[:100])
    said: list[str] = []
    report = resumed(model, on_note=said.append)
    assert "segment 0 is damaged since it was made: done again" in said
    assert (report.reused, report.written) == (0, 75)
    stream.run("clip.mp4", output="one.mkv", model=model, **{**LOSSLESS, "segment_seconds": 0})
    assert same(list(decoded(Path("out.mkv"))), list(decoded(Path("one.mkv"))))


DAMAGED: dict[str, tuple[str, dict[str, Any], str]] = {
    "values between two passes": (".mkv", {"codec": "ffv1", "range": "clip"}, "two.mkv.segments/0000/depth.spool"),
    "a file in its place": ("", {"save": "npy", "picture": "none"}, "two/000003.npy"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_file_of_a_finished_segment_that_keeps_its_size_but_not_its_content_is_made_again(
    what: str, model: Model
) -> None:
    suffix, given, name = DAMAGED[what]
    clip(frames=30, gop=10, audio_s=None)
    options = {"colormap": "gray", "segment_seconds": 0.4, "model": model} | given
    stream.run("clip.mp4", output=f"one{suffix}", **{**options, "segment_seconds": 0})
    stopped_at(15, output=f"two{suffix}", **options)
    data = Path(name).read_bytes()
    middle = len(data) // 2
    Path(name).write_bytes(data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :])
    said: list[str] = []
    report = stream.run("clip.mp4", output=f"two{suffix}", resume=True, on_note=said.append, **options)
    assert "segment 0 is damaged since it was made: done again" in said
    assert (report.outcome, report.reused + report.inferred) == (Outcome.DONE, 30)
    assert content("two") == content("one")


def test_a_run_that_dies_before_it_has_cleaned_up_is_done_when_it_is_resumed(
    interrupted: LocalStore, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_store: LocalStore, *_arguments: Any) -> None:
        raise KeyboardInterrupt

    for moment in ("close", "discard"):
        with monkeypatch.context() as dying:
            dying.setattr(LocalStore, moment, die)
            with pytest.raises(KeyboardInterrupt):
                resumed(model)
        made = Path("out.mkv").stat()
    with monkeypatch.context() as dying:
        dying.setattr(shutil, "rmtree", dies_at_its_second_call(shutil.rmtree))
        with pytest.raises(KeyboardInterrupt):
            resumed(model)
    assert [interrupted.folder(number).exists() for number in range(3)].count(False) == 1
    report = resumed(model)
    assert (report.reused, report.written, report.inferred, report.outputs) == (75, 75, 0, ["out.mkv"])
    assert Path("out.mkv").stat() == made
    assert left() == ["clip.mp4", "out.mkv"]


def dies_at_its_second_call(call: Callable[..., None]) -> Callable[..., None]:
    calls: list[Any] = []

    def dying(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) > 1:
            raise KeyboardInterrupt
        call(*arguments, **options)

    return dying


def test_an_output_that_is_removed_before_its_segments_are_is_made_again(
    interrupted: LocalStore, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dying:
        dying.setattr(LocalStore, "discard", dies_at_its_second_call(lambda _store: Path("out.mkv").unlink()))
        assert resumed(model).written == 75
    assert resumed(model).written == 75
    assert left() == ["clip.mp4", "out.mkv"]


def test_the_output_of_another_program_is_not_replaced(interrupted: LocalStore, model: Model) -> None:
    Path("out.mkv").write_text("mine")
    with pytest.raises(OutputError, match=r"out\.mkv: the file exists"):
        resumed(model)
    assert Path("out.mkv").read_text() == "mine"
    assert interrupted.exists


def test_what_cannot_be_resumed_is_refused_by_name_and_what_is_short_just_runs(model: Model) -> None:
    clip(frames=30, audio_s=None)
    with pytest.raises(UsageError, match="--resume: cannot be resumed: a live source has no second chance"):
        stream.run("pattern:testsrc2", output="x.mp4", max_frames=5, resume=True, model=model)
    with pytest.raises(UsageError, match="--resume: cannot be resumed: a page is served"):
        stream.run("clip.mp4", output="x.mp4", serve="0", resume=True, model=model)
    with pytest.raises(UsageError, match="--resume: cannot be resumed: --segment-seconds is 0"):
        stream.run("clip.mp4", output="x.mp4", segment_seconds=0, resume=True, model=model)
    report = stream.run("clip.mp4", output="x.mp4", resume=True, model=model)
    assert (report.segments, report.written) == (0, 30)
    assert left() == ["clip.mp4", "x.mp4"]


def test_a_truncated_source_gives_what_a_run_in_one_piece_gives(model: Model) -> None:
    source = clip(name="whole.mp4", frames=75, audio_s=3.0, mux_options={"movflags": "faststart"})
    truncated(source, Path("clip.mp4"), share=0.7)
    one = stream.run("clip.mp4", output="one.mkv", model=model, **{**LOSSLESS, "segment_seconds": 0})
    two = stream.run("clip.mp4", output="two.mkv", model=model, **LOSSLESS)
    assert one.outcome is two.outcome is Outcome.DONE_WITH_SKIPS
    assert two.written == one.written
    assert same(list(decoded(Path("two.mkv"))), list(decoded(Path("one.mkv"))))
    assert audio_packets(Path("two.mkv")) == audio_packets(Path("one.mkv"))


COMMAND = ["run", "clip.mp4", "-o", "out.mp4", "--segment-seconds", "1", "--range", "frame", "--input-size", "64"]


@pytest.mark.slow
def test_a_full_disk_while_joining_loses_nothing() -> None:
    """No file may be larger than the pieces are, which is less than all of them together."""
    clip(audio_s=None)
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (12_000, 12_000))
    said = forked.run(COMMAND, first=full).stderr.decode()
    assert "to go on: depthstream run clip.mp4 -o out.mp4 " in said
    assert "--resume" in said
    assert said.splitlines()[-1].startswith("depthstream: out.mp4: cannot be")
    assert left() == ["clip.mp4", "out.mp4.segments"]
    assert invoke([*COMMAND, "--resume"]) == 0
    assert left() == ["clip.mp4", "out.mp4"]


@pytest.mark.slow
def test_kills_at_thirty_random_moments_change_nothing() -> None:
    clip(frames=250, audio_s=10.0)
    assert invoke([*COMMAND[:3], "whole.mp4", *COMMAND[4:]]) == 0
    moments, kills, jobs, said = random.Random(17), 0, 0, Path("said.txt")
    whole, store = list(decoded(Path("whole.mp4"))), LocalStore(Path("out.mp4.segments"))
    while kills < 30:
        done: dict[str, bytes] = {}
        more: list[str] = []
        while not Path("out.mp4").exists() or store.exists:
            with said.open("wb") as file:
                running = forked.start([*COMMAND, *more], stderr=file)
            if moments.random() < 0.3:  # while it joins the segments or removes them, or soon after
                until(lambda running=running: any(Path().glob("out*.mp4")) or not running.is_alive(), "the end")
                running.join(moments.uniform(0, 0.05))
            else:
                running.join(moments.uniform(0, 3))
            if running.is_alive():
                running.kill()
            running.join()
            assert running.exitcode in (0, -signal.SIGKILL), said.read_text()
            kills += running.exitcode != 0
            more = ["--resume"]
            kept = {path.name: path.read_bytes() for path in store.root.glob("0*.json")}
            if not Path("out.mp4").exists():  # otherwise it was killed while it removed them
                assert done.items() <= kept.items(), "a segment that was done was done again"
            done = kept
        jobs += 1
        assert same(list(decoded(Path("out.mp4"))), whole)
        assert audio_packets(Path("out.mp4")) == audio_packets(Path("whole.mp4")) == audio_packets(Path("clip.mp4"))
        assert durations(Path("out.mp4")) == durations(Path("whole.mp4"))
        assert video_times(Path("out.mp4")) == video_times(Path("clip.mp4"))
        Path("out.mp4").unlink()
        shutil.rmtree(store.root, ignore_errors=True)
    assert jobs
