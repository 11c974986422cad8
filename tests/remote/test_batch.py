"""A batch over a bucket: every video and picture below a prefix, with mirrored names."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote

import pytest

from stream.batch.job import Batch
from stream.batch.schedule import Shard
from stream.batch.sources import find_sources
from stream.batch.summary import Summary
from stream.cli.main import invoke
from stream.config import Config
from stream.errors import SourceNotFoundError
from stream.jobs.options import from_options
from stream.jobs.segments.rows import source_state
from tests.batch.test_batch import Inline, states
from tests.batch.test_worker import QUICK
from tests.support import picture_files
from tests.support.media_files import write_video
from tests.support.s3_server import S3Server
from tests.support.segments import Timed, decoded, same


@pytest.mark.slow
def test_a_prefix_a_glob_and_a_file_give_the_sources_of_a_batch(s3: S3Server, tmp_path: Path) -> None:
    names = ["in/a/1.mp4", "in/a/2.mov", "in/a/.hidden.mp4", "in/b.png", "in/notes.txt", "other/../c.mp4", "d e.mp4"]
    s3.put("clips", dict.fromkeys(names, b"12345"))
    found = find_sources(["s3://clips/in/"], Config(), out=tmp_path)
    assert [(item.name, item.source, item.size) for item in found.items] == [
        ("in/a/1.mp4", "s3://clips/in/a/1.mp4", 5),
        ("in/a/2.mov", "s3://clips/in/a/2.mov", 5),
        ("in/b.png", "s3://clips/in/b.png", 5),
    ]
    assert found.notes == ("left out, no video and no picture: 2 files",)
    assert [item.output for item in found.items] == ["in/a/1.mp4", "in/a/2.mp4", "in/b.png"]
    found = find_sources(["s3://clips/in/a/*.mp4", "s3://clips/d e.mp4"], Config(), out=tmp_path)
    assert [item.name for item in found.items] == ["1.mp4", "d e.mp4"]
    assert len([path for method, path in s3.requests if "list-type" in path]) < 8
    everything = find_sources(["s3://clips/"], Config(), out=tmp_path)
    assert all(".." not in item.output for item in everything.items)
    with pytest.raises(SourceNotFoundError, match="no such file or bucket"):
        find_sources(["s3://nowhere/in/"], Config(), out=tmp_path)


@pytest.mark.slow
def test_names_that_look_like_globs_or_queries_are_kept(s3: S3Server, tmp_path: Path) -> None:
    names = ["clip[1].mp4", "tag#2.mp4", "what?.mp4", "100%25.mp4"]
    s3.put("clips", dict.fromkeys([*(f"v[1]/{name}" for name in names), "v1/clip1.mp4"], b"12345"))
    found = find_sources(["s3://clips/v[1]/"], Config(), out=tmp_path)
    listed = {item.name: (item.source, item.output) for item in found.items}
    assert listed == {f"v[1]/{name}": (f"s3://clips/v[1]/{name}", f"v[1]/{name}") for name in names}
    found = find_sources([source for source, _output in listed.values()], Config(), out=tmp_path)
    assert {item.name: item.source for item in found.items} == {name: f"s3://clips/v[1]/{name}" for name in names}


@pytest.mark.slow
def test_a_changed_object_is_another_source(s3: S3Server) -> None:
    s3.put("clips", {"a.mp4": b"12345"})
    before = source_state("s3://clips/a.mp4")
    assert (before.uri, before.size) == ("s3://clips/a.mp4", 5)
    assert source_state("s3://clips/a.mp4") == before
    s3.client().put_object(Bucket="clips", Key="a.mp4", Body=b"54321")
    assert source_state("s3://clips/a.mp4").stamp != before.stamp
    assert source_state("s3://clips/b.mp4").size is None


@pytest.mark.slow
def test_a_batch_reads_a_bucket_and_names_what_fails(s3: S3Server, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=6)
    s3.put("clips", {"in/a.mp4": clip, "in/sub/b.mp4": clip, "in/c.png": picture_files.png_bytes(), "in/bad.mp4": b"?"})
    s3.put("clips", {"in/d[1]?.mp4": clip})
    command = [sys.executable, "-m", "stream", "batch", "s3://clips/in/", "-o", "out", "--input-size", "32", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3, done.stderr
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out/in").rglob("*.*"))
    assert written == ["in/a.mp4", "in/c.png", "in/d[1]?.mp4", "in/sub/b.mp4"]
    assert "s3://clips/in/bad.mp4" in done.stderr + done.stdout
    assert json.loads(done.stdout.splitlines()[-1])


def batch(tmp_path: Path, *more: str, source: str = "s3://clips/in/", out: str = "s3://clips/out") -> Any:
    """Run a batch into a bucket; its work is below `tmp_path`.

    It has processes of its own where it names how many; or else all is done here, without importing torch twice more.
    """
    arguments = ["batch", source, "-o", out, "--input-size", "32", "--json", *more]
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    if "-j" in more:
        command, env = [sys.executable, "-m", "stream", *arguments], {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    said, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch("stream.batch.job.Processes", lambda configs, **_: Inline(configs)),
        contextlib.chdir(tmp_path),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(errors),
    ):
        code = invoke(arguments)
    return subprocess.CompletedProcess(arguments, code, said.getvalue(), errors.getvalue())


def results(s3: S3Server, below: str = "out/") -> list[str]:
    """The results in the bucket, without what the batch keeps for itself."""
    return [name for name in s3.names("clips") if name.startswith(below) and "/.depthstream/" not in name]


def frames_in(s3: S3Server, name: str, tmp_path: Path) -> list[Timed]:
    (tmp_path / "fetched.mp4").write_bytes(s3.content("clips", name))
    return list(decoded(tmp_path / "fetched.mp4"))


@pytest.mark.slow
def test_the_results_of_a_batch_go_to_a_bucket_and_stay_done(s3: S3Server, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=6)
    files = {"in/a.mp4": clip, "in/sub/b.mp4": clip, "in/c.png": picture_files.png_bytes(), "in/bad.mp4": b"?"}
    s3.put("clips", files)
    done = batch(tmp_path, "--save", "npy", out="s3://clips/out/")
    assert done.returncode == 3, done.stderr
    numbers = [f"{n:06}.npy" for n in range(6)]
    assert results(s3) == sorted(
        [
            "out/failed/in/bad.mp4.txt",
            "out/in/a.mp4",
            *(f"out/in/a_depth/{name}" for name in numbers),
            "out/in/c.npy",
            "out/in/c.png",
            "out/in/sub/b.mp4",
            *(f"out/in/sub/b_depth/{name}" for name in numbers),
        ]
    )
    assert b"not a video" in s3.content("clips", "out/failed/in/bad.mp4.txt")
    kept = sorted(name for name in s3.names("clips") if "/.depthstream/" in name)
    assert kept == [
        "out/.depthstream/batch.json",
        *(f"out/.depthstream/done/in/{name}.json" for name in ("a.mp4", "c.png", "sub/b.mp4")),
    ]
    assert list((tmp_path / "cache" / "depthstream" / "batches").rglob("*")) == []
    before = {name: s3.content("clips", name) for name in s3.names("clips")}

    s3.client().put_object(Bucket="clips", Key="in/bad.mp4", Body=clip.read_bytes())
    s3.forget()
    again = batch(tmp_path, "--save", "npy")
    assert again.returncode == 0, again.stderr
    totals = json.loads(again.stdout.splitlines()[-1])
    assert (totals["done"], totals["earlier"]) == (4, 3)
    assert "out/failed/in/bad.mp4.txt" not in s3.names("clips")
    changed = {name for name in before if name in s3.names("clips") and s3.content("clips", name) != before[name]}
    assert changed == {"in/bad.mp4"}

    s3.client().put_object(Bucket="clips", Key="in/a.mp4", Body=write_video(tmp_path / "x.mp4", frames=7).read_bytes())
    refused = batch(tmp_path, "--save", "npy")
    assert "the source has changed since its result was made" in refused.stdout
    assert batch(tmp_path, "--save", "npy", "--input-size", "64").returncode == 2
    assert batch(tmp_path, "--save", "npy", "--overwrite").returncode == 0
    assert len(frames_in(s3, "out/in/a.mp4", tmp_path)) == 7


@pytest.mark.slow
def test_results_of_others_are_not_replaced_and_those_of_a_killed_worker_are(s3: S3Server, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=6)
    s3.put("clips", {"in/a.mp4": clip, "in/b.mp4": clip, "out/in/a.mp4": b"of another", "out/in/b.mp4": b"half"})
    s3.client().put_object(Bucket="clips", Key="out/.depthstream/uploading/in/b.mp4.json", Body=b"{}")
    done = batch(tmp_path)
    assert done.returncode == 3
    assert s3.content("clips", "out/in/a.mp4") == b"of another"
    assert b"no record of this batch names it" in s3.content("clips", "out/failed/in/a.mp4.txt")
    assert len(frames_in(s3, "out/in/b.mp4", tmp_path)) == 6
    assert not any("/uploading/" in name for name in s3.names("clips"))
    assert batch(tmp_path, out="s3://nowhere/out").stderr.startswith("depthstream: s3://nowhere/out: no such file or b")


@pytest.mark.slow
def test_many_records_take_few_listings(s3: S3Server, tmp_path: Path) -> None:
    files = {f"in/{n:02}.png": picture_files.png_bytes(n) for n in range(12)}
    s3.put("clips", files)
    assert batch(tmp_path).returncode == 0
    s3.forget()
    again = batch(tmp_path)
    assert json.loads(again.stdout.splitlines()[-1])["earlier"] == 12
    assert len(s3.requests) < 12 + 15  # each record is read, side by side
    assert len([path for _, path in s3.requests if "list-type" in path]) < 8


@pytest.mark.slow
def test_an_object_in_the_place_of_a_long_result_is_not_replaced(s3: S3Server, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=100, gop=10)
    s3.put("clips", {"in/a.mp4": clip, "out/in/a.mp4": b"of another"})
    options = ("--segment-seconds", "1", "--range", "0:10")
    done = batch(tmp_path, *options)
    assert done.returncode == 1
    assert "no record of this batch names it" in json.loads(done.stdout.splitlines()[0])["reason"]
    assert s3.content("clips", "out/in/a.mp4") == b"of another"
    for shard in ("1/2", "2/2"):
        s3.client().delete_object(Bucket="clips", Key="out/in/a.mp4")
        assert batch(tmp_path, *options, "--shard", shard).returncode == 0
        s3.client().put_object(Bucket="clips", Key="out/in/a.mp4", Body=b"of another")
    command = [sys.executable, "-m", "stream", "join", "s3://clips/out"]
    joined = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert joined.returncode == 2
    assert "s3://clips/out/in/a.mp4: exists already; pass --overwrite" in joined.stderr
    assert s3.content("clips", "out/in/a.mp4") == b"of another"
    assert batch(tmp_path, *options, "--overwrite").returncode == 0
    assert results(s3) == ["out/in/a.mp4"]
    assert len(frames_in(s3, "out/in/a.mp4", tmp_path)) == 100


@pytest.mark.slow
def test_numbers_of_a_long_video_are_made_in_one_piece(s3: S3Server, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=60, gop=10)
    s3.put("clips", {"in/a.mp4": clip})
    options = ("--segment-seconds", "1", "--range", "clip", "--save", "npy,video16", "-j", "2")
    done = batch(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert results(s3) == [
        "out/in/a.depth.json",
        "out/in/a.depth.mkv",
        "out/in/a.mp4",
        *(f"out/in/a_depth/{n:06}.npy" for n in range(60)),
    ]
    assert json.loads(batch(tmp_path, *options).stdout.splitlines()[-1])["earlier"] == 1
    s3.client().delete_object(Bucket="clips", Key="out/in/a.depth.mkv")
    again = json.loads(batch(tmp_path, *options).stdout.splitlines()[-1])
    assert (again["earlier"], again["failed"], again["done"]) == (0, 1, 0), "the files that are left are not replaced"


@pytest.mark.slow
def test_a_long_video_goes_to_a_bucket_and_stays_done(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clip = write_video(tmp_path / "a[1].mp4", frames=40, gop=10, size_hw=(32, 48))
    s3.put("clips", {})
    options = {**QUICK, "input_size": 32, "output": "s3://clips/out", "segment_seconds": 0.5, "range": "0:10"}

    def run(**more: Any) -> Summary:
        return Batch(from_options(None, options), [str(clip)], executor=Inline, **more).run()

    assert states(run(shard=Shard(number=1, count=2))) == {"a[1].mp4": "segments"}
    listings = [path for _, path in s3.requests if "list-type" in path and "segments" in path]
    assert any("0001." in unquote(path) for path in listings), "to put one segment does not list them all"
    assert states(run()) == {"a[1].mp4": "done"}
    assert results(s3) == ["out/a[1].mp4"]
    assert len(frames_in(s3, "out/a[1].mp4", tmp_path)) == 40
    assert run().sources[0].earlier


@pytest.mark.slow
def test_long_videos_of_two_processes_and_of_shards_are_joined(s3: S3Server, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=100, gop=10, b_frames=2, audio_s=4.0)
    s3.put("clips", {"in/a.mp4": clip})
    options = ("--segment-seconds", "1", "--range", "0:10")
    local = batch(tmp_path, *options, out="local")
    assert local.returncode == 0, local.stderr
    whole = list(decoded(tmp_path / "local" / "in" / "a.mp4"))

    done = batch(tmp_path, *options, "-j", "2", out="s3://clips/two")
    assert done.returncode == 0, done.stderr
    assert results(s3, "two/") == ["two/in/a.mp4"]
    assert same(frames_in(s3, "two/in/a.mp4", tmp_path), whole)

    for shard in ("1/2", "2/2"):  # with caches of their own, like two machines
        machine = tmp_path / f"machine{shard[0]}"
        machine.mkdir()
        part = batch(machine, *options, "--shard", shard)
        assert part.returncode == 0, part.stderr
    assert "out/in/a.mp4" not in s3.names("clips")
    assert any(name.startswith("out/in/a.mp4.segments/0004.") for name in s3.names("clips"))
    command = [sys.executable, "-m", "stream", "join", "s3://clips/out", "--json"]
    joined = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert joined.returncode == 0, joined.stderr
    assert json.loads(joined.stdout)[0]["outputs"] == ["s3://clips/out/in/a.mp4"]
    assert results(s3) == ["out/in/a.mp4"]
    assert same(frames_in(s3, "out/in/a.mp4", tmp_path), whole)
    assert json.loads(batch(tmp_path, *options).stdout.splitlines()[-1])["done"] == 1
    assert any(name == "out/.depthstream/done/in/a.mp4.json" for name in s3.names("clips"))
