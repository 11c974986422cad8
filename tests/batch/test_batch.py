"""Whole batches on real files, with real worker processes that are really killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from stream.batch.job import Batch
from stream.batch.processes import Processes
from stream.batch.results import Begun, Done
from stream.batch.schedule import Shard, Source
from stream.batch.summary import Hooks, Status, Summary
from stream.batch.worker import Worker
from stream.cli.main import invoke
from stream.config import Config
from stream.errors import OutputError, StreamError, UsageError
from stream.jobs.options import from_options
from stream.jobs.run import run_config
from stream.jobs.segments.rows import source_state
from tests.batch.test_worker import QUICK, frames_of, left_in
from tests.support.media_files import numbered, write_video
from tests.support.picture_files import save, scene

ARGUMENTS = ("-m", "starter", "--input-size", "64", "--device", "cpu", "--backend", "torch", "--threads", "1")


class Watched:
    """A batch whose processes a test can see."""

    def __init__(
        self, sources: Sequence[Path], out: Path, *, jobs: int = 1, shard: Shard | None = None, **options: Any
    ) -> None:
        self.processes: Processes | None = None
        self.finished: list[Source] = []
        self.statuses: list[Status] = []
        self.notes: list[str] = []
        self.on_status: Callable[[Status], None] = lambda status: None
        self.batch = Batch(
            from_options(None, {**QUICK, "output": out, **options}),
            [str(source) for source in sources],
            jobs=jobs,
            shard=shard,
            executor=self._make,
            hooks=Hooks(on_note=self.notes.append, on_source=self.finished.append, on_status=self._see),
        )

    def run(self) -> Summary:
        return self.batch.run()

    def _make(self, configs: Sequence[Config]) -> Processes:
        self.processes = Processes(configs)
        return self.processes

    def _see(self, status: Status) -> None:
        self.statuses.append(status)
        self.on_status(status)

    def pid_of(self, name: str) -> int | None:
        assert self.processes is not None
        return next((p.pid for p in self.processes._processes if p.task and p.task.get("name") == name), None)


def states(summary: Summary) -> dict[str, str]:
    return {source.item.name: source.state for source in summary.sources}


def tree(folder: Path) -> list[str]:
    hidden = folder / ".depthstream"
    files = (path for path in folder.rglob("*") if path.is_file() and hidden not in path.parents)
    return sorted(path.relative_to(folder).as_posix() for path in files)


class Inline:
    """Does tasks in this process: what the loop and the worker do needs no other."""

    slots = 1

    def __init__(self, configs: Sequence[Config]) -> None:
        self.worker, self.results = Worker(configs[0], scratch="inline"), list[dict[str, Any]]()

    def submit(self, task: Any) -> None:
        self.results.append(self.worker.run(task))

    def wait(self, timeout_s: float) -> list[dict[str, Any]]:
        taken, self.results = self.results, []
        return taken

    def frames(self) -> dict[int, int]:
        return {}

    def stop(self) -> None:
        """Nothing is in progress."""

    def close(self) -> None:
        self.worker.close()


def inline(sources: Sequence[Path], out: Path, **options: Any) -> Summary:
    config = from_options(None, {**QUICK, "output": out, **options})
    return Batch(config, [str(source) for source in sources], executor=Inline).run()


def test_a_tree_of_videos_and_pictures_is_mirrored_and_done_once(tmp_path: Path) -> None:
    holiday, out = tmp_path / "holiday", tmp_path / "out"
    (holiday / "sub").mkdir(parents=True)
    for name in ("a.mp4", "a.mov", "sub/b.mkv"):
        write_video(holiday / name, frames=3)
    for name in ("a.jpg", "sub/p.png"):
        save(holiday / name, scene(20, 30))
    (holiday / "bad.mp4").write_text("no video")
    first = inline([holiday], out, fps=50.0)  # of the videos; a picture has no rate
    wanted = ["holiday/a.mov.mp4", "holiday/a.mp4.mp4", "holiday/a.png", "holiday/sub/b.mp4", "holiday/sub/p.png"]
    assert tree(out) == ["failed/holiday/bad.mp4.txt", *wanted]
    assert len(frames_of(out / "holiday/sub/b.mp4")) == 6
    assert first.exit_code == 3
    (out / "holiday/a.png").unlink()
    again = inline([holiday], out, fps=50.0)
    assert sorted(source.item.name for source in again.sources if source.earlier) == [
        "holiday/a.mov",
        "holiday/a.mp4",
        "holiday/sub/b.mkv",
        "holiday/sub/p.png",
    ]
    assert tree(out) == ["failed/holiday/bad.mp4.txt", *wanted]
    other = inline([holiday], out, overwrite=True, fps=25.0)
    assert not any(source.earlier for source in other.sources)
    assert len(frames_of(out / "holiday/sub/b.mp4")) == 3


def test_a_changed_source_is_refused_by_name(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=3)
    assert inline([tmp_path / "a.mp4"], tmp_path / "out").exit_code == 0
    write_video(tmp_path / "a.mp4", frames=4)
    summary = inline([tmp_path / "a.mp4"], tmp_path / "out")
    assert "the source has changed since" in summary.sources[0].result["reason"]
    assert summary.exit_code == 1
    assert len(frames_of(tmp_path / "out/a.mp4")) == 3


@pytest.mark.slow
def test_fifty_clips_of_which_three_are_bad_and_pictures(tmp_path: Path) -> None:
    holiday, out = tmp_path / "holiday", tmp_path / "out"
    (holiday / "sub").mkdir(parents=True)
    for number in range(3):
        write_video(holiday / f"seed{number}.mp4", frames=2 + number)
    for number in range(44):
        shutil.copy(holiday / f"seed{number % 3}.mp4", holiday / "sub" / f"c{number}.mp4")
    (holiday / "empty.mp4").touch()
    (holiday / "text.mkv").write_text("no video" * 99)
    (holiday / "cut.mp4").write_bytes((holiday / "seed2.mp4").read_bytes()[:700])
    for name in ("p.png", "sub/p.jpg", "broken.png"):
        save(holiday / name, scene(48, 64))
    (holiday / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 99)
    (holiday / "notes.txt").write_text("left out")
    watched = Watched([holiday], out, jobs=2)
    summary = watched.run()
    bad = {"holiday/empty.mp4", "holiday/text.mkv", "holiday/cut.mp4", "holiday/broken.png"}
    assert {name for name, state in states(summary).items() if state == "failed"} == bad
    assert summary.exit_code == 3
    assert sum(source.frames or 0 for source in summary.having("done")) == 2 + 3 + 4 + 15 * 2 + 15 * 3 + 14 * 4 + 2
    reasons = {path: (out / "failed" / f"{path}.txt").read_text().splitlines() for path in bad}
    assert all(len(lines) == 2 and lines[1] == "1 attempt" for lines in reasons.values())
    assert "the file is empty" in reasons["holiday/empty.mp4"][0]
    assert [name for name in tree(out) if not name.startswith("failed/")] == sorted(
        [f"holiday/seed{n}.mp4" for n in range(3)]
        + [f"holiday/sub/c{n}.mp4" for n in range(44)]
        + ["holiday/p.png", "holiday/sub/p.png"]
    )
    assert any("no video and no picture: 1 file" in note for note in watched.notes)
    assert len(watched.finished) == len(summary.sources) == 53
    assert left_in(out) == []
    again = Watched([holiday], out, jobs=1)
    (holiday / "empty.mp4").write_bytes((holiday / "seed0.mp4").read_bytes())  # which mends it
    before = {name: (out / name).stat().st_mtime_ns for name in tree(out)}
    second = again.run()
    assert {source.item.name for source in again.finished} == bad, "nothing else is done again"
    assert states(second)["holiday/empty.mp4"] == "done"
    assert not (out / "failed/holiday/empty.mp4.txt").exists()
    assert all(
        (out / name).stat().st_mtime_ns == then for name, then in before.items() if not name.startswith("failed/")
    )


def long_clip(path: Path, frames: int = 1500) -> Path:
    write_video(path, frames=frames, options={"preset": "ultrafast"})
    return path


@pytest.mark.slow
def test_a_source_that_kills_its_worker_is_tried_three_times_and_stops_nothing(tmp_path: Path) -> None:
    poison, out = long_clip(tmp_path / "poison.mp4"), tmp_path / "out"
    for number in range(6):
        write_video(tmp_path / f"c{number}.mp4", frames=3)
    watched = Watched(sorted(tmp_path.glob("*.mp4")), out, jobs=2)
    killed = set[int]()

    def kill(_status: Status) -> None:
        pid = watched.pid_of("poison.mp4")
        is_loaded = "weights" in (watched.batch.records.settings() or {})  # it is no longer looked at, but done
        if is_loaded and pid is not None and pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    watched.on_status = kill
    summary = watched.run()
    assert len(killed) == 3
    assert states(summary).pop("poison.mp4") == "failed"
    assert set(states(summary).values()) == {"done", "failed"}
    assert summary.exit_code == 3
    lines = (out / "failed/poison.mp4.txt").read_text().splitlines()
    assert "SIGKILL" in lines[0]
    assert lines[1] == "3 attempts"
    assert left_in(out) == []
    assert poison.exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_is_replaced_and_the_result_is_the_same(tmp_path: Path) -> None:
    clip, out = long_clip(tmp_path / "clip.mp4", 300), tmp_path / "out"
    watched = Watched([clip], out)
    killed: list[int] = []

    def kill(status: Status) -> None:
        if not killed and any(frames > 20 for _, frames, _ in status.running):
            killed.append(watched.pid_of("clip.mp4") or 0)
            os.kill(killed[0], signal.SIGKILL)

    watched.on_status = kill
    summary = watched.run()
    assert len(killed) == 1
    assert states(summary) == {"clip.mp4": "done"}
    assert summary.sources[0].attempts == 2
    run_config(from_options(str(clip), {**QUICK, "output": tmp_path / "alone.mp4"}))
    for one, other in zip(frames_of(out / "clip.mp4"), frames_of(tmp_path / "alone.mp4"), strict=True):
        assert np.array_equal(one, other)


def test_shards_do_everything_once_between_them(tmp_path: Path) -> None:
    for number in range(7):
        save(tmp_path / f"p{number}.png", scene(20, 30))
    sources, out = sorted(tmp_path.glob("*.png")), tmp_path / "out"
    plans = [Watched(sources, out, shard=Shard(number=n, count=3)).batch._schedule().sources for n in (1, 2, 3)]
    shares = [{name for name, source in plan.items() if source.state != "elsewhere"} for plan in plans]
    assert sorted(name for share in shares for name in share) == [f"p{n}.png" for n in range(7)]
    assert all(share for share in shares)


@pytest.mark.slow
def test_three_shards_one_after_the_other_and_one_beside_itself(tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    for number in range(5):
        write_video(clips / f"c{number}.mp4", frames=3)
    command = [sys.executable, "-m", "stream", "batch", str(clips), "-o", str(out), *ARGUMENTS, "-q", "--json"]
    twice = [subprocess.Popen([*command, "--shard", "1/3"], stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.wait() for process in twice] == [0, 0]
    for process in twice:
        assert process.stdout is not None
        process.stdout.close()
    for shard in ("2/3", "3/3"):
        subprocess.run([*command, "--shard", shard], check=True, stdout=subprocess.DEVNULL)
    last = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    assert (last["done"], last["earlier"]) == (5, 5)
    assert [len(frames_of(path)) for path in sorted((out / "clips").glob("*.mp4"))] == [3] * 5


def test_changed_settings_and_unsuitable_options_are_refused_by_name(tmp_path: Path) -> None:
    picture, out = tmp_path / "p.png", tmp_path / "out"
    save(picture, scene(20, 30))
    records = Watched([picture], out).batch.records
    records.save_settings({"model.input_size": 64, "version": "0.0"})
    records.begin(Begun(name="p.png", source=source_state(str(picture)), output="p.png"))
    with pytest.raises(OutputError, match=r"--input-size: was 64, is 96.*--overwrite"):
        Watched([picture], out, input_size=96)
    for name, value, words in (
        ("serve", True, "--serve: does not go with many sources"),
        ("report", tmp_path / "r.json", "--report"),
        ("preview", True, "--preview"),
        ("resume", True, "--resume"),
        ("target_fps", 9.0, "--target-fps"),
        ("picture", "none", "nothing would be written"),
        ("output", None, "no OUT given"),
        ("output", "rtmp://a/b", "is no folder"),
    ):
        with pytest.raises(UsageError, match=words):
            Batch(from_options(None, {**QUICK, "output": tmp_path / "new", name: value}), [str(picture)])
    with pytest.raises(UsageError, match="--overwrite with --shard"):
        Watched([picture], out, overwrite=True, shard=Shard(number=1, count=2))


def test_what_is_made_again_must_not_leave_results_of_other_settings_beside_it(tmp_path: Path) -> None:
    pictures, out = [tmp_path / "p.png", tmp_path / "q.png"], tmp_path / "out"
    for picture in pictures:
        save(picture, scene(20, 30))
    records = Watched(pictures, out).batch.records
    records.save_settings({"model.input_size": 64, "version": "0.0"})
    for picture in pictures:
        records.save(Done(name=picture.name, source=source_state(str(picture)), outputs={}, frames=1))
    with pytest.raises(OutputError, match=r"not made again: 1 sources; name all SOURCES, q.png among them"):
        Watched(pictures[:1], out, overwrite=True)
    Watched(pictures, out, overwrite=True)


def test_a_start_without_any_result_binds_no_settings(tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.mp4", tmp_path / "out"
    bad.write_text("no video")
    assert inline([bad], out, input_size=64).exit_code == 1
    other = Watched([bad], out, input_size=96).batch  # what failed can be tried with other options
    records, state = other.records, source_state(str(bad))
    other.records.save_settings(other.settings)
    with records.making("a.mp4", "w"), pytest.raises(OutputError, match="has results of other settings"):
        Watched([bad], out)
    records.begin(Begun(name="a.mp4", source=state, output="a.mp4"))
    with pytest.raises(OutputError, match="has results of other settings"):
        Watched([bad], out)
    records.forget_begun("a.mp4")
    assert inline([bad], out, input_size=128).exit_code == 1
    assert (records.settings() or {})["model.input_size"] == 128
    records.save(Done(name="sub/a.mp4", source=state, outputs={}, frames=1))
    with pytest.raises(OutputError, match="--input-size: was 128, is 64"):
        inline([bad], out, input_size=64)


def test_an_unknown_model_is_the_commands_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "p.png", scene(20, 30))
    write_video(tmp_path / "a.mp4", frames=2)
    sources = [str(tmp_path / name) for name in ("p.png", "a.mp4")]
    assert invoke(["batch", *sources, "-o", str(tmp_path / "out"), "-m", "dav2-nosuch", "-q"]) == 2
    assert "unknown model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_the_batch_in_order(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"p{number}.png", scene(20, 30))
    out = tmp_path / "out"

    class Full:
        """An executor whose disk is full from the second picture on."""

        slots = 1

        def __init__(self) -> None:
            self.tasks: list[dict[str, Any]] = []
            self.stopped = self.closed = False

        def submit(self, task: Any) -> None:
            self.tasks.append(dict(task))

        def wait(self, timeout_s: float) -> list[dict[str, Any]]:
            task = self.tasks[-1]
            state = "full" if len(self.tasks) == 3 else "done"
            about = {key: task.get(key) for key in ("id", "what", "name", "attempt")}
            return [{**about, "state": state, "reason": "out: No space left", "retry": True, "seconds": 0.1}]

        def frames(self) -> dict[int, int]:
            return {}

        def stop(self) -> None:
            self.stopped = True

        def close(self) -> None:
            self.closed = True

    full = Full()
    config = from_options(None, {**QUICK, "output": out})
    summary = Batch(config, [str(tmp_path / "*.png")], executor=lambda _configs: full).run()
    assert (full.stopped, full.closed, len(full.tasks)) == (True, True, 3)
    assert summary.error == "out: No space left"
    assert sorted(states(summary).values()) == ["done", "planned", "planned"]
    assert summary.exit_code == 1
    assert not (out / "failed").exists(), "no source is to blame"


FRAMES = 1200
"""Of the long clip, 20 s at least: it has to last from when its worker runs until the other one has done a picture."""

SIGNALS = {
    "ctrl-c": [signal.SIGINT],
    "twice": [signal.SIGINT, signal.SIGINT],
    "hang up": [signal.SIGHUP],
    "kill -9": [signal.SIGKILL],
}


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_however_it_ends_no_process_is_left_and_the_same_command_goes_on(tmp_path: Path, how: str) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    long_clip(clips / "long.mp4", FRAMES)
    save(clips / "p.png", numbered(3, (48, 64)))
    command = [
        sys.executable,
        "-m",
        "stream",
        "batch",
        str(clips),
        "-o",
        str(out),
        *ARGUMENTS,
        "-q",
        "--json",
        "-j",
        "2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            assert first["name"] == "clips/p.png", "the other worker is at the long clip"
            workers = psutil.Process(process.pid).children()
            assert len(workers) == 2
            for sent in SIGNALS[how]:
                process.send_signal(sent)
            rest = process.stdout.read().splitlines()
            code = process.wait()
        finally:
            process.kill()
    totals = json.loads(rest[-1]) if rest else {}
    assert code == {"ctrl-c": 130, "twice": 130, "hang up": 129, "kill -9": -9}[how]
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() for worker in workers)
    assert not (out / "clips/long.mp4").exists()
    if how == "ctrl-c":
        assert left_in(out) == []
    if how == "twice":
        assert (totals["exit_code"], totals["left"]) == (130, 1)
    again = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert json.loads(again.stdout.splitlines()[-1])["earlier"] == 1
    assert len(frames_of(out / "clips/long.mp4")) == FRAMES
    assert tree(out) == ["clips/long.mp4", "clips/p.png"]
    assert left_in(out) == []


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_batch_and_blames_no_source(tmp_path: Path) -> None:
    save(tmp_path / "p.png", scene(20, 30))
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    watched = Watched([tmp_path / "p.png"], tmp_path / "out", weights=tmp_path / "bad.safetensors")
    with pytest.raises(StreamError, match=r"bad\.safetensors"):
        watched.run()
    assert not (tmp_path / "out/failed").exists()
    assert watched.processes is not None
    assert watched.processes.pids == []
