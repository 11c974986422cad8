"""Outputs in a bucket: complete under their final names or not there, and never lost."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

import stream
from stream.errors import OutputError, SinkError
from stream.jobs import remote
from stream.media import av
from stream.metrics import Outcome
from stream.remote import access
from tests.support import picture_files
from tests.support.media_files import write_video
from tests.support.s3_server import SECRET, S3Server

QUICK: dict[str, Any] = {"input_size": 32}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where outputs are made; a temporary one."""
    monkeypatch.setattr(remote, "_folder", lambda: tmp_path / "cache" / "uploads")
    return tmp_path / "cache" / "uploads"


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".made"))


def packets(path: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux() if packet.size]


@pytest.mark.slow
def test_a_video_from_a_bucket_to_a_bucket_is_the_local_one(s3: S3Server, tmp_path: Path, folder: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=20, audio_s=0.8)
    s3.put("clips", {"in/clip.mp4": clip})
    stream.run(str(clip), output=tmp_path / "local.mp4", **QUICK)
    notes: list[str] = []
    stream.run(str(clip), output="s3://clips/out/[1]?.mp4", **QUICK)
    assert s3.content("clips", "out/[1]?.mp4") == (tmp_path / "local.mp4").read_bytes()
    s3.client().delete_object(Bucket="clips", Key="out/[1]?.mp4")
    report = stream.run("s3://clips/in/clip.mp4", output="s3://clips/out/depth.mp4", on_note=notes.append, **QUICK)
    assert report.outcome is Outcome.DONE
    assert report.outputs == ["s3://clips/out/depth.mp4"]
    assert s3.names("clips") == ["in/clip.mp4", "out/depth.mp4"]
    (tmp_path / "fetched.mp4").write_bytes(s3.content("clips", "out/depth.mp4"))
    assert packets(tmp_path / "fetched.mp4") == packets(tmp_path / "local.mp4")
    assert left_in(folder) == []
    assert f"written to {folder}" in notes[0]
    assert SECRET not in json.dumps(report.to_dict())
    with pytest.raises(OutputError, match=r"^s3://clips/out/depth.mp4: exists already; .* --overwrite"):
        stream.run("s3://clips/in/clip.mp4", output="s3://clips/out/depth.mp4", **QUICK)
    again = stream.run("s3://clips/in/clip.mp4", output="s3://clips/out/depth.mp4", overwrite=True, **QUICK)
    assert again.outcome is Outcome.DONE


@pytest.mark.slow
def test_a_depth_video_goes_with_its_description_and_depth_files(s3: S3Server, tmp_path: Path, folder: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=4)
    s3.put("clips", {})
    report = stream.run(str(clip), output="s3://clips/d/clip.depth.mkv", save=["npy"], range="0:10", **QUICK)
    assert s3.names("clips") == [
        "d/clip.depth.json",
        "d/clip.depth.mkv",
        *(f"d/clip_depth/{n:06}.npy" for n in range(4)),
    ]
    assert set(report.outputs) <= {
        "s3://clips/d/clip.depth.mkv",
        "s3://clips/d/clip.depth.json",
        "s3://clips/d/clip_depth",
    }
    assert left_in(folder) == []
    with pytest.raises(OutputError, match="s3://clips/d/clip_depth: exists already"):
        stream.run(str(clip), output="s3://clips/d/clip.mp4", save=["npy"], **QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("url", ["s3://album/out/", "s3://album/out", "s3://album/out/deep/"])
def test_a_folder_of_pictures_becomes_a_folder(s3: S3Server, folder: Path, url: str) -> None:
    s3.put("album", {f"in/{n}.png": picture_files.png_bytes(n) for n in range(3)})
    stream.run("s3://album/in/", output=url, **QUICK)
    below = url.removeprefix("s3://album/").rstrip("/")
    assert s3.names("album")[3:] == [f"{below}/{n}.png" for n in range(3)]
    assert left_in(folder) == []
    with pytest.raises(OutputError, match="exists already"):
        stream.run("s3://album/in/", output=url, **QUICK)


@pytest.mark.slow
def test_an_upload_that_fails_leaves_nothing_there_and_everything_here(
    s3: S3Server, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_PART_BYTES", 5 << 20)
    data = tmp_path / "large.bin"
    data.write_bytes(bytes(range(256)) * (12 << 12))
    s3.put("clips", {})
    s3.refuses = lambda method, path: method == "PUT" and "partNumber=3" in path
    with pytest.raises(SinkError, match=r"^s3://clips/large.bin: writing failed: Please reduce your request rate"):
        access.Remote("s3://clips/large.bin", kind=SinkError).upload(data, "s3://clips/large.bin", replace=False)
    assert any("partNumber=2" in path for method, path in s3.requests if method == "PUT")
    assert s3.names("clips") == s3.unfinished("clips") == []

    clip = write_video(tmp_path / "clip.mp4", frames=4)
    s3.refuses = lambda method, _path: method == "PUT"
    said: list[str] = []
    arguments: dict[str, Any] = {"output": "s3://clips/o.mp4", "report": tmp_path / "r.json", **QUICK}
    with pytest.raises(SinkError, match=r"^s3://clips/o.mp4: writing failed: .*kept in .*: o.mp4$"):
        stream.run(str(clip), on_note=said.append, **arguments)
    assert [line.rpartition("; ")[2] for line in said if "lost" in line] == [f"retry {n} of 3" for n in (1, 2, 3)]
    assert s3.names("clips") == []
    assert left_in(folder) == ["o.mp4"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["outcome"] == "failed"
    assert "writing failed" in report["error"]
    s3.refuses = lambda _method, _path: False
    with pytest.raises(OutputError, match=r"could not be finished or uploaded; kept in .*o.mp4"):
        stream.run(str(clip), **arguments)
    assert stream.run(str(clip), overwrite=True, **arguments).outcome is Outcome.DONE
    assert s3.names("clips") == ["o.mp4"]
    assert json.loads((tmp_path / "r.json").read_text())["outputs"] == ["s3://clips/o.mp4"]


def test_what_cannot_be_written_is_refused_before_any_work(
    s3: S3Server, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=4)
    with pytest.raises(SinkError, match=r"^s3://nowhere/o.mp4: no such file or bucket"):
        stream.run(str(clip), output="s3://nowhere/o.mp4", **QUICK)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    with pytest.raises(SinkError, match=r"^s3://nowhere/o.mp4: access denied"):
        stream.run(str(clip), output="s3://nowhere/o.mp4", **QUICK)
    assert not folder.exists()


@pytest.mark.slow
def test_an_interrupted_run_uploads_nothing_and_keeps_the_partial(s3: S3Server, tmp_path: Path, folder: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=400)
    s3.put("clips", {"clip.mp4": clip})

    event = threading.Event()

    def stop_after(progress: Any) -> None:
        if progress.metrics.written:
            event.set()

    report = stream.run("s3://clips/clip.mp4", output="s3://clips/o.mp4", stop=event, on_progress=stop_after, **QUICK)
    assert report.outcome is Outcome.INTERRUPTED
    assert s3.names("clips") == ["clip.mp4"]
    assert left_in(folder) == ["o.partial.mp4"]
    assert report.outputs == [str(path) for path in folder.rglob("o.partial.mp4")]


@pytest.mark.slow
def test_two_runs_do_not_replace_each_others_upload(s3: S3Server, tmp_path: Path, folder: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=4)
    s3.put("clips", {})

    def meanwhile(_progress: Any) -> None:
        s3.client().put_object(Bucket="clips", Key="o.mp4", Body=b"of another")

    with pytest.raises(SinkError, match=r"made by someone else meanwhile; kept in .*o\.mp4"):
        stream.run(str(clip), output="s3://clips/o.mp4", on_progress=meanwhile, **QUICK)
    assert s3.content("clips", "o.mp4") == b"of another"
