"""A batch or a join into a bucket that is really killed at the moment of one request, and the same command again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.remote.test_batch import batch, frames_in, results
from tests.support.media_files import write_video
from tests.support.s3_server import S3Server
from tests.support.segments import decoded, same

pytestmark = pytest.mark.slow
OPTIONS = ("--input-size", "32", "--segment-seconds", "1", "--range", "0:10")
BATCH = ("batch", "s3://clips/in/", "-o", "s3://clips/out", *OPTIONS)

Moment = Callable[[str, str], bool]
"""Whether a request is the one; it is not answered."""


def the_second(is_it: Moment) -> Moment:
    seen: list[str] = []

    def second(method: str, path: str) -> bool:
        seen.extend([path] * is_it(method, path))
        return len(seen) > 1

    return second


def is_removal(method: str, path: str) -> bool:
    return method == "DELETE" or (method == "POST" and "?delete" in path)


MOMENTS: dict[str, Moment] = {
    "the plan": lambda method, path: method == "PUT" and "/plan.json" in path,
    "a piece": lambda method, path: method == "PUT" and "/0002." in path and "video.nut" in path,
    "a record of a segment": lambda method, path: method == "PUT" and "/0002.json" in path,
    "the result": lambda method, path: method == "PUT" and path.startswith("/clips/out/in/a.mp4") and "seg" not in path,
    "the record": lambda method, path: method == "PUT" and "/done/" in path,
    "the segments are removed": the_second(is_removal),
}


def kill_at(s3: S3Server, tmp_path: Path, moment: Moment, *arguments: str) -> None:
    """Run a command, and kill it with its workers at the moment of a request."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "stream", *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    killed: list[str] = []

    def kill(method: str, path: str) -> bool:
        if not killed and moment(method, path):
            killed.append(path)
            main = psutil.Process(process.pid)
            for one in [main, *main.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        return bool(killed)

    s3.refuses = kill
    _, said = process.communicate(timeout=120)
    s3.refuses = lambda _method, _path: False
    assert killed, said
    assert process.returncode == -9


def source(s3: S3Server, tmp_path: Path) -> Any:
    """A long video in the bucket; the frames of its result."""
    clip = write_video(tmp_path / "clip.mp4", frames=100, gop=10, b_frames=2, audio_s=4.0)
    s3.put("clips", {"in/a.mp4": clip})
    local = batch(tmp_path, *OPTIONS[2:], source=str(clip), out="local")
    assert local.returncode == 0, local.stderr
    return list(decoded(tmp_path / "local" / "clip.mp4"))


@pytest.mark.parametrize("at", MOMENTS)
def test_a_batch_that_was_killed_goes_on_and_leaves_nothing_behind(s3: S3Server, tmp_path: Path, at: str) -> None:
    whole = source(s3, tmp_path)
    kill_at(s3, tmp_path, MOMENTS[at], *BATCH)
    is_recorded = at == "the segments are removed"
    assert any("/done/" in name for name in s3.names("clips")) == is_recorded
    again = batch(tmp_path, *OPTIONS[2:])
    assert again.returncode == 0, again.stderr
    totals = json.loads(again.stdout.splitlines()[-1])
    assert (totals["done"], totals["earlier"]) == (1, int(is_recorded))
    assert results(s3) == ["out/in/a.mp4"]
    kept = [name for name in s3.names("clips") if "/.depthstream/" in name]
    assert kept == ["out/.depthstream/batch.json", "out/.depthstream/done/in/a.mp4.json"]
    assert same(frames_in(s3, "out/in/a.mp4", tmp_path), whole)


@pytest.mark.parametrize("at", ["the result", "the record", "the segments are removed"])
def test_a_join_that_was_killed_goes_on(s3: S3Server, tmp_path: Path, at: str) -> None:
    whole = source(s3, tmp_path)
    for shard in ("1/2", "2/2"):
        assert batch(tmp_path, *OPTIONS[2:], "--shard", shard).returncode == 0
    kill_at(s3, tmp_path, is_removal if "removed" in at else MOMENTS[at], "join", "s3://clips/out")
    command = [sys.executable, "-m", "stream", "join", "s3://clips/out"]
    joined = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert joined.returncode == 0, joined.stderr
    assert results(s3) == ["out/in/a.mp4"]
    assert same(frames_in(s3, "out/in/a.mp4", tmp_path), whole)
    assert json.loads(batch(tmp_path, *OPTIONS[2:]).stdout.splitlines()[-1])["earlier"] == 1


def test_a_worker_that_was_killed_before_its_record_is_tried_again(s3: S3Server, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=6)
    s3.put("clips", {"in/a.mp4": clip})
    killed: list[int] = []

    def kill(method: str, path: str) -> bool:
        if not killed and method == "PUT" and "/done/" in path:
            (main,) = [one for one in psutil.Process().children() if "batch" in one.cmdline()]
            (worker,) = main.children()
            killed.append(worker.pid)
            worker.kill()
            return True
        return False

    s3.refuses = kill
    done = batch(tmp_path, "-j", "1")
    assert done.returncode == 0, done.stderr
    assert killed
    assert json.loads(done.stdout.splitlines()[0])["attempts"] == 2
    assert results(s3) == ["out/in/a.mp4"]
    assert list((tmp_path / "cache" / "depthstream" / "batches").rglob("*")) == []


def test_actors_of_ray_need_no_common_folder(s3: S3Server, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    whole = source(s3, tmp_path)
    done = batch(tmp_path, *OPTIONS[2:], "--ray", "local", "-j", "2")
    assert done.returncode == 0, done.stderr
    assert results(s3) == ["out/in/a.mp4"]
    assert same(frames_in(s3, "out/in/a.mp4", tmp_path), whole)
