"""Videos in a bucket are cut and resumed like local files, with few requests."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stream
from stream.config import Config
from stream.errors import OutputError, SinkError, SourceError
from stream.jobs import remote
from stream.jobs.opening import spec_named
from stream.jobs.plan import plan_outputs
from stream.jobs.segments.cutting import cut
from stream.jobs.segments.rows import Row
from stream.jobs.source import open_config_source
from stream.metrics import Outcome
from stream.notes import Notes, collected
from stream.remote import reading
from tests.support import picture_files
from tests.support.media_files import Rgb, write_video
from tests.support.s3_server import S3Server
from tests.support.segments import decoded, same

QUICK: dict[str, Any] = {"input_size": 32, "segment_seconds": 1.0, "range": "0:10"}


def noise(index: int, size_hw: tuple[int, int]) -> Rgb:
    return np.random.default_rng(index).integers(0, 256, (*size_hw, 3), np.uint8)


def rows_of(source: str | Path, segment_seconds: float = 1.0, **capture: object) -> tuple[Row, ...] | str:
    config = Config.model_validate(
        {
            "source": str(source),
            "capture": capture,
            "output": {"path": "out.mp4", "segment_seconds": segment_seconds},
            "render": {"range": "0:10"},
        }
    )
    with closing(open_config_source(config)) as opened:
        return cut(config, opened.info, plan_outputs(config, opened.info), spec_named(config))


def clip_of(path: Path, frames: int = 100, **options: Any) -> Path:
    return write_video(path, frames=frames, gop=10, b_frames=2, **options)


def test_a_video_in_a_bucket_is_cut_like_the_local_file(s3: S3Server, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a#1.mp4")
    s3.put("clips", {"a#1.mp4": clip})
    found = rows_of("s3://clips/a#1.mp4")
    assert len(found) == 5
    assert found == rows_of(clip)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "clip.mov"])
def test_other_containers_are_cut_alike(s3: S3Server, tmp_path: Path, name: str) -> None:
    clip = clip_of(tmp_path / name)
    s3.put("clips", {name: clip})
    assert len(rows_of(f"s3://clips/{name}")) > 2
    assert rows_of(f"s3://clips/{name}") == rows_of(clip)
    assert rows_of(f"s3://clips/{name}", start=0.5, end=3.1) == rows_of(clip, start=0.5, end=3.1)


@pytest.mark.slow
def test_an_mp4_is_cut_with_few_requests_and_another_container_says_what_it_reads(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr("stream.capture.video.scan._TOLD_BYTES", 1 << 20)
    options: dict[str, Any] = {"size_hw": (96, 128), "draw": noise, "options": {"qp": "8", "preset": "ultrafast"}}
    clip = clip_of(tmp_path / "clip.mp4", 500, **options)
    other = clip_of(tmp_path / "clip.mkv", 500, **options)
    s3.put("clips", {"clip.mp4": clip, "clip.mkv": other})
    notes: list[str] = []
    with collected(Notes(notes.append)):
        rows = rows_of("s3://clips/clip.mp4", 3.0)
        assert len(rows) == 7
        assert len(s3.requests) < 40
        assert s3.sent < clip.stat().st_size / 5
        assert notes == []
        rows_of("s3://clips/clip.mkv")
    (said,) = notes
    assert said.startswith(f"s3://clips/clip.mkv: all of its {other.stat().st_size / 1e6:.0f} MB are read to find")


@pytest.mark.slow
def test_a_connection_that_is_lost_while_a_video_is_cut_is_an_error(s3: S3Server, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mkv")
    s3.put("clips", {"clip.mkv": clip})
    config = Config.model_validate(
        {"source": "s3://clips/clip.mkv", "output": {"path": "out.mp4", "segment_seconds": 1.0}}
    )
    with closing(open_config_source(config)) as opened:
        s3.refuses = lambda method, _path: method == "GET"
        with pytest.raises(SourceError, match="reading failed"):
            cut(config, opened.info, plan_outputs(config, opened.info), spec_named(config))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where outputs are made; a temporary one, here and in child processes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = tmp_path / "cache" / "depthstream" / "uploads"
    monkeypatch.setattr(remote, "_folder", lambda: found)
    return found


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def stopped_run(**arguments: Any) -> stream.Report:
    """Interrupt a run when a segment is done."""
    event = threading.Event()

    def stop(progress: Any) -> None:
        if progress.metrics.written > 30:
            event.set()

    return stream.run("s3://clips/in/clip.mp4", stop=event, on_progress=stop, **arguments, **QUICK)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_a_changed_object_is_refused(s3: S3Server, tmp_path: Path, folder: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 100, audio_s=4.0)
    s3.put("clips", {"in/clip.mp4": clip})
    out = tmp_path / "out.mp4"
    report = stopped_run(output=out)
    assert report.outcome is Outcome.INTERRUPTED
    content = s3.content("clips", "in/clip.mp4")
    s3.client().put_object(Bucket="clips", Key="in/clip.mp4", Body=content + b"more")
    with pytest.raises(OutputError, match=r"cannot be resumed: source: its size was \d+, is \d+; source: its ETag was"):
        stream.run("s3://clips/in/clip.mp4", output=out, resume=True, **QUICK)
    s3.client().put_object(Bucket="clips", Key="in/clip.mp4", Body=content)
    again = stream.run("s3://clips/in/clip.mp4", output=out, resume=True, **QUICK)
    assert again.outcome is Outcome.DONE
    assert again.reused
    stream.run(str(clip), output=tmp_path / "whole.mp4", **QUICK)
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def until(is_so: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < give_up, what
        threading.Event().wait(0.01)


@pytest.mark.slow
def test_a_killed_run_from_bucket_to_bucket_goes_on(s3: S3Server, tmp_path: Path, folder: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 250, audio_s=10.0)
    s3.put("clips", {"in/clip.mp4": clip})
    options = ["--segment-seconds", "1", "--range", "0:10", "--input-size", "64"]
    command = [sys.executable, "-m", "stream", "run", "s3://clips/in/clip.mp4", "-o", "s3://clips/out.mp4", *options]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    until(lambda: any(folder.rglob("0001.json")) or running.poll() is not None, "the second segment")
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    assert s3.names("clips") == ["in/clip.mp4"]
    refused = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    done = subprocess.run(
        [*command, "--resume", "--report", "report.json"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert s3.names("clips") == ["in/clip.mp4", "out.mp4"]
    assert json.loads((tmp_path / "report.json").read_text())["reused"] >= 40
    assert left_in(folder) == []
    (tmp_path / "found.mp4").write_bytes(s3.content("clips", "out.mp4"))
    stream.run(str(clip), output=tmp_path / "whole.mp4", **{**QUICK, "input_size": 64})
    assert same(list(decoded(tmp_path / "found.mp4")), list(decoded(tmp_path / "whole.mp4")))


@pytest.mark.slow
def test_what_could_not_be_uploaded_is_not_computed_again(s3: S3Server, tmp_path: Path, folder: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 20)
    s3.put("clips", {"in/clip.mp4": clip})
    arguments: dict[str, Any] = {"output": "s3://clips/o.mp4", "report": tmp_path / "r.json", **QUICK}
    s3.refuses = lambda method, _path: method == "PUT"
    with pytest.raises(SinkError, match="writing failed"):
        stream.run("s3://clips/in/clip.mp4", **arguments)
    s3.refuses = lambda _method, _path: False
    with pytest.raises(OutputError, match=r"cannot be resumed: --crf"):
        stream.run("s3://clips/in/clip.mp4", resume=True, crf=30, **arguments)
    (made,) = folder.rglob("o.mp4")
    content = made.read_bytes()
    steps: list[Any] = []
    report = stream.run("s3://clips/in/clip.mp4", resume=True, on_progress=steps.append, **arguments)
    assert report.outcome is Outcome.DONE
    assert report.written == 20
    assert report.outputs == ["s3://clips/o.mp4"]
    assert json.loads((tmp_path / "r.json").read_text())["outputs"] == ["s3://clips/o.mp4"]
    assert steps == []
    assert s3.content("clips", "o.mp4") == content
    assert left_in(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("source", ["pattern:testsrc2", "s3://clips/in/", "photos"])
def test_what_was_uploaded_in_part_is_finished_whatever_the_source(
    s3: S3Server, tmp_path: Path, folder: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("a.png", "b.png"):
        Path("photos", name).write_bytes(picture_files.png_bytes())
    s3.put("clips", {f"in/{path.name}": path for path in Path("photos").iterdir()})
    extra: dict[str, Any] = {"max_frames": 2} if source.startswith("pattern") else {}
    arguments: dict[str, Any] = {"output": "s3://clips/o", "picture": "png", "save": ["npy"], "input_size": 32, **extra}
    seen: list[str] = []

    def refuses(method: str, path: str) -> bool:
        seen.extend([path] * (method == "PUT" and path not in seen))
        return len(seen) > 2

    s3.refuses = refuses
    with pytest.raises(SinkError, match="writing failed"):
        stream.run(source, **arguments)
    s3.refuses = lambda _method, _path: False
    with pytest.raises(OutputError, match=r"could not be finished or uploaded; .* pass --resume"):
        stream.run(source, **arguments)
    notes: list[str] = []
    report = stream.run(source, resume=True, on_note=notes.append, **arguments)
    assert any(line.endswith("and only uploaded") for line in notes)
    assert report.outputs == ["s3://clips/o"]
    assert len([name for name in s3.names("clips") if name.startswith("o/")]) == 4
    assert left_in(folder) == []


@pytest.mark.slow
def test_a_note_of_an_upload_that_ended_is_not_taken_for_what_comes_later(
    s3: S3Server, tmp_path: Path, folder: Path
) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 100)
    s3.put("clips", {"in/clip.mp4": clip})
    s3.refuses = lambda method, _path: method == "PUT"
    with pytest.raises(SinkError, match="writing failed"):
        stream.run("s3://clips/in/clip.mp4", output="s3://clips/o.mp4", **QUICK)
    s3.refuses = lambda _method, _path: False
    (made,) = folder.rglob("o.mp4")
    made.unlink()  # killed between the upload and the end
    assert stopped_run(output="s3://clips/o.mp4").outcome is Outcome.INTERRUPTED
    report = stream.run("s3://clips/in/clip.mp4", output="s3://clips/o.mp4", resume=True, **QUICK)
    assert (report.outcome, report.written) == (Outcome.DONE, 100)
    assert s3.names("clips") == ["in/clip.mp4", "o.mp4"]
