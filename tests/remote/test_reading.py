"""Videos and pictures in a bucket: the same frames as from a local file, few requests, and errors in one line."""

import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from stream.capture.open import open_source
from stream.capture.parse import SourceForm, parse_source
from stream.capture.remote import RemoteVideo
from stream.config import CaptureConfig
from stream.errors import MissingExtraError, SourceError, SourceNotFoundError, StreamError, UsageError
from stream.frames import Frame
from stream.jobs.plan import default_output
from stream.notes import Notes, collected
from stream.remote import access, reading
from tests.support import picture_files
from tests.support.media_files import Rgb, write_video
from tests.support.s3_server import SECRET, S3Server


def noise(index: int, size_hw: tuple[int, int]) -> Rgb:
    return np.random.default_rng(index).integers(0, 256, (*size_hw, 3), np.uint8)


def frames_of(source: str | Path, **options: object) -> list[Frame]:
    with open_source(str(source), options=CaptureConfig.model_validate(options)) as opened:
        return list(opened)


def same(found: list[Frame], expected: list[Frame]) -> None:
    assert [(f.index, f.pts, f.duration) for f in found] == [(f.index, f.pts, f.duration) for f in expected]
    assert all(np.array_equal(one.rgb, other.rgb) for one, other in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 frames of noise, a key frame each 10, 24 s of sound behind them, the index at the end; 8 MB."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    options = {"qp": "8", "preset": "ultrafast"}
    return write_video(path, size_hw=(96, 128), frames=600, gop=10, draw=noise, options=options, audio_s=24.0)


@pytest.fixture
def long(s3: S3Server, long_clip: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """It in a bucket, and blocks that are as small beside it as the real ones are beside a file of 130 MB."""
    monkeypatch.setattr(reading, "BLOCK_BYTES", reading.BLOCK_BYTES // 16)
    s3.put("clips", {"long.mp4": long_clip})
    return "s3://clips/long.mp4"


def test_a_clip_gives_the_frames_of_the_local_file(s3: S3Server, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a b.mp4", frames=20, b_frames=2, audio_s=0.8)
    s3.put("clips", {"tâche/a b.mp4": clip})
    url = "s3://clips/tâche/a b.mp4"
    same(frames_of(url), frames_of(clip))
    with open_source(url) as source:
        assert source.info.name == url
        assert not source.info.is_live
        assert source.info.audio is not None


@pytest.mark.slow
def test_a_file_whose_name_looks_like_a_glob_is_read_by_its_name(s3: S3Server, tmp_path: Path) -> None:
    clip, other = write_video(tmp_path / "a.mp4", frames=3), write_video(tmp_path / "b.mp4", frames=2)
    names = ["v/clip[1].mp4", "v/what?.mp4", "v/st*r.mp4", "v[1]/c.mp4"]
    s3.put("clips", dict.fromkeys(names, clip) | {"v/clip1.mp4": other, "v/whats.mp4": other})
    for name in names:
        url = f"s3://clips/{name}"
        with open_source(url) as source:
            assert source.info.name == url
            assert str(default_output(source.info)) == f"{Path(name).stem}_depth.mp4"
            assert len(list(source)) == 3


@pytest.mark.slow
def test_a_picture_and_a_folder_with_such_names_are_read(s3: S3Server) -> None:
    picture, one = picture_files.png_bytes(), "s3://album/p[1]/a?b.png"
    s3.put("album", {f"p[1]/{name}": picture for name in ("a?b.png", "c.png")} | {"p1/a.png": picture})
    with open_source(one) as source:
        assert (source.info.name, len(list(source))) == (one, 1)
        assert str(default_output(source.info)) == "a_b_depth.png"
    with open_source("s3://album/p[1]/") as source:
        assert [frame.name for frame in source] == ["a?b.png", "c.png"]
        assert str(default_output(source.info)) == "p[1]_depth"
    with open_source("s3://album/p[123]/*.png") as source:  # a glob, as on a disk
        assert [frame.name for frame in source] == ["a.png"]
        assert str(default_output(source.info)) == "depth_out"


@pytest.mark.slow
def test_a_whole_run_asks_seldom_and_fetches_each_byte_about_once(s3: S3Server, long: str, long_clip: Path) -> None:
    same(frames_of(long), frames_of(long_clip))
    gets = [path for method, path in s3.requests if method == "GET"]
    assert len(gets) < 60  # the file has 600 packets of video and 1125 of sound
    assert s3.sent < 1.1 * long_clip.stat().st_size


@pytest.mark.slow
def test_a_part_from_the_middle_fetches_little(s3: S3Server, long: str, long_clip: Path) -> None:
    found = frames_of(long, start=13.0, end=13.2)
    same(found, frames_of(long_clip, start=13.0, end=13.2))
    assert len(found) == 5
    assert s3.sent < long_clip.stat().st_size / 4
    assert len(s3.requests) < 40


@pytest.mark.slow
def test_memory_for_what_was_read_is_bounded(s3: S3Server, long: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BLOCKS", 40)
    with closing(open_source(long)) as source:
        assert isinstance(source, RemoteVideo)
        for _ in source:
            assert len(source.file._blocks) <= 40
        assert source.file.fetched_bytes == s3.sent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi", "clip.ts", "clip.webm"])
def test_other_containers_are_read_and_sought(s3: S3Server, tmp_path: Path, name: str) -> None:
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(Path(name).suffix, "libx264")
    clip = write_video(tmp_path / name, frames=30, gop=5, codec=codec)
    s3.put("clips", {name: clip})
    same(frames_of(f"s3://clips/{name}"), frames_of(clip))
    same(frames_of(f"s3://clips/{name}", start=0.6, max_frames=4), frames_of(clip, start=0.6, max_frames=4))


@pytest.mark.slow
def test_a_picture_and_a_folder_of_pictures_are_read(s3: S3Server, tmp_path: Path) -> None:
    local = tmp_path / "photos"
    (local / "sub").mkdir(parents=True)
    for number in (10, 9, 2, 1):
        picture_files.save(local / f"p{number}.png", picture_files.scene() + np.uint8(number))
    picture_files.save(local / "sub" / "deep.jpg", picture_files.scene())
    (local / "notes.txt").write_text("no picture")
    s3.put("album", {f"photos/{path.relative_to(local)}": path for path in local.rglob("*") if path.is_file()})
    for options in ({}, {"recursive": True}):
        found, expected = frames_of("s3://album/photos/", **options), frames_of(local, **options)
        assert [frame.name for frame in found] == [frame.name for frame in expected]
        same(found, expected)
    same(frames_of("s3://album/photos/p*.png"), frames_of(f"{local}/p*.png"))
    same(frames_of("s3://album/photos/p9.png"), frames_of(local / "p9.png"))


@pytest.mark.slow
def test_many_pictures_are_kept_on_the_disk_only_while_they_are_needed(s3: S3Server) -> None:
    files = {f"many/{n:03}.png": picture_files.png_bytes(n) for n in range(40)}
    s3.put("album", files)
    with open_source("s3://album/many/") as source:
        folder = Path(source._files.name)  # type: ignore[attr-defined]
        most = 0
        for _ in source:
            most = max(most, len(list(folder.iterdir())))
    assert most <= 24
    assert not folder.exists()


@pytest.mark.slow
def test_a_broken_picture_is_skipped_by_its_name(s3: S3Server) -> None:
    s3.put("album", {"p/1.png": picture_files.png_bytes(1), "p/2.png": b"no picture", "p/../3.png": b"x"})
    with open_source("s3://album/p/", options=CaptureConfig(recursive=True)) as source:
        assert len(list(source)) == 1
        assert [skipped.name for skipped in source.log.skipped][:1] == ["2.png"]


def message(url: str, kind: type[StreamError] = SourceError, **options: object) -> str:
    with pytest.raises(kind) as caught:
        frames_of(url, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text
    return text


def test_what_is_not_there_is_named(s3: S3Server) -> None:
    s3.put("clips", {"a.mp4": b"no video at all"})
    url = "s3://clips/b.mp4"
    assert message(url, SourceNotFoundError) == f"{url}: no such file or bucket; check the name"
    assert "not a video" in message("s3://clips/a.mp4")


@pytest.mark.slow
def test_a_bucket_or_folder_that_is_not_there_and_an_empty_file_are_named(s3: S3Server) -> None:
    s3.put("clips", {"empty.mp4": b""})
    url = "s3://nowhere/a.mp4"
    assert message(url, SourceNotFoundError) == f"{url}: no such file or bucket; check the name"
    for url in ("s3://nowhere/photos/", "s3://clips/photos/", "s3://clips/*.png"):
        assert message(url, SourceNotFoundError).startswith(f"{url}: no")
    assert "the file is empty" in message("s3://clips/empty.mp4")


def test_a_wrong_login_and_none_are_told_apart(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put("clips", {"a.mp4": b"x"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    assert message("s3://clips/a.mp4").startswith("s3://clips/a.mp4: access denied (")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert message("s3://clips/a.mp4").startswith("s3://clips/a.mp4: no credentials found; set AWS_ACCESS_KEY_ID")


@pytest.mark.slow
def test_a_busy_server_is_asked_again_and_that_is_said(s3: S3Server, long: str, long_clip: Path) -> None:
    left = [2]

    def refuses(method: str, _path: str) -> bool:
        if method != "GET" or s3.sent < 4_000_000 or not left[0]:
            return False
        left[0] -= 1
        return True

    with open_source(long) as source:
        s3.refuses = refuses
        found = list(source)
        assert source.log.reconnects == 2
        lost = f"{long}: connection lost (Please reduce your request rate.); retry"
        assert source.log.notes == [f"{lost} 1 of 3", f"{lost} 2 of 3"]
    same(found, frames_of(long_clip))


@pytest.mark.slow
def test_each_loss_is_said_while_the_source_is_opened(s3: S3Server) -> None:
    s3.put("clips", {"a.mp4": b"no video"})
    s3.refuses = lambda method, _path: method == "GET"
    said: list[str] = []
    with collected(Notes(said.append)), pytest.raises(SourceError, match="reading failed"):
        open_source("s3://clips/a.mp4")
    lost = "s3://clips/a.mp4: connection lost (Please reduce your request rate.); retry"
    assert said == [f"{lost} {number} of 3" for number in (1, 2, 3)]


@pytest.mark.slow
def test_a_server_that_dies_ends_the_source_with_an_error(s3: S3Server, long: str) -> None:
    with open_source(long) as source:
        frames = iter(source)
        next(frames)
        s3.die()
        with pytest.raises(SourceError, match=f"^{long}: reading failed: "):
            list(frames)
        assert source.log.reconnects == len(access.PAUSES_S)


@pytest.mark.slow
def test_a_file_that_changes_while_it_is_read_is_not_mixed(s3: S3Server, long: str, long_clip: Path) -> None:
    with open_source(long) as source:
        frames = iter(source)
        next(frames)
        s3.client().put_object(Bucket="clips", Key="long.mp4", Body=long_clip.read_bytes() + b"more")
        with pytest.raises(SourceError, match="has changed while it was read"):
            list(frames)


@pytest.mark.slow
def test_interrupting_ends_the_wait_for_a_lost_server(s3: S3Server, long: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PAUSES_S", (3600.0,))
    with open_source(long) as source:
        frames = iter(source)
        next(frames)
        s3.die()
        asked = threading.Event()
        source.file._on_retry = lambda _line: asked.set()  # type: ignore[attr-defined]
        reader = threading.Thread(target=lambda: list(frames))
        reader.start()
        assert asked.wait(10)
        source.interrupt()
        reader.join(10)
        assert not reader.is_alive()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:secret@bucket/a.mp4", "a login in the URL is not used"),
        ("sftp://me:secret@host/a.mp4", "a login in the URL is not used"),
        ("s3:///a.mp4", "names no bucket"),
    ],
)
def test_a_url_with_a_login_or_without_a_bucket_is_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_source(url)
    assert "secret" not in str(caught.value)


def test_http_is_read_as_before() -> None:
    assert parse_source("https://example.org/a.mp4").form is SourceForm.NETWORK
    assert parse_source("S3://bucket/A.mp4").value == "s3://bucket/A.mp4"


def test_the_sandbox_refuses_by_name(s3: S3Server) -> None:
    with pytest.raises(UsageError, match=r"--sandbox.*remote source.*save the source to a file first"):
        open_source("s3://clips/a.mp4", options=CaptureConfig(sandbox=True))


def test_without_the_extra_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(MissingExtraError, match=r"s3fs is not installed; pip install 'depthstream\[remote\]'"):
        open_source("s3://clips/a.mp4")


@pytest.mark.slow
def test_a_list_of_files_is_not_followed(s3: S3Server) -> None:
    s3.put("clips", {"list.ffconcat": b"ffconcat version 1.0\nfile '/etc/passwd'\n"})
    assert "names other files or hosts" in message("s3://clips/list.ffconcat")
