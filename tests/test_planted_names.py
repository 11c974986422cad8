"""Names that somebody else put into an output folder: nothing is written through a link, and no pipe is waited for."""

import json
import os
import secrets
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stream
from stream.errors import OutputError, StreamError
from stream.files import create_file, is_device_or_pipe, write_file
from stream.media import av
from tests.support.media_files import write_video

PRECIOUS = b"precious"
QUICK: dict[str, Any] = {"input_size": 64, "backend": "torch"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with one picture, and a file that must not change."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(tmp_path / "photos" / name)
    Path("victim").write_bytes(PRECIOUS)
    return tmp_path


def plant(name: str | Path, kind: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "link":
            path.symlink_to(Path("victim").absolute())
        case "link to nothing":
            path.symlink_to(Path("made").absolute())
        case "link to a pipe":
            if not Path("pipe").exists():
                os.mkfifo("pipe")
            path.symlink_to(Path("pipe").absolute())
        case "second name":
            path.hardlink_to("victim")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()


def assert_untouched() -> None:
    assert Path("victim").read_bytes() == PRECIOUS
    assert not Path("made").exists()


FILES = ("link", "link to nothing", "link to a pipe", "second name", "pipe")


@pytest.mark.parametrize("kind", [*FILES, "folder"])
def test_a_temporary_file_is_a_new_one(kind: str) -> None:
    plant("out/.a.json.partial", kind)
    for content in (b"1", b"2"):
        write_file(Path("out/a.json"), content)
        assert Path("out/a.json").read_bytes() == content
    assert_untouched()
    assert {path.name for path in Path("out").iterdir()} == {"a.json", ".a.json.partial"}


@pytest.mark.parametrize("kind", FILES)
def test_what_has_the_final_name_is_replaced(kind: str) -> None:
    plant("out/a.json", kind)
    write_file(Path("out/a.json"), b"1")
    assert stat.S_ISREG(Path("out/a.json").lstat().st_mode)
    assert Path("out/a.json").read_bytes() == b"1"
    assert_untouched()


def test_an_abandoned_temporary_file_is_removed_and_a_running_ones_is_not() -> None:
    old, new = Path(".a.json.partial"), Path(".b.json.partial")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3600,) * 2)
    for name in ("a.json", "b.json"):
        write_file(Path(name), b"1")
    assert not old.exists()
    assert new.read_bytes() == b"half"


def test_new_files_have_the_users_umask() -> None:
    before = os.umask(0o027)
    try:
        write_file(Path("a.json"), b"1")
        with create_file(Path("b.json")) as file:
            file.write(b"1")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(Path(name).stat().st_mode) for name in ("a.json", "b.json")} == {0o640}
    with pytest.raises(FileExistsError):
        create_file(Path("b.json"))


def test_the_lists_of_results_are_for_their_owner_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "cache" / "outputs"
    monkeypatch.setattr("stream.sinks.record.cache_folder", lambda: folder)
    stream.run("photos", output="out", **QUICK)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list(folder.iterdir())) == 1


def test_a_link_to_a_device_is_none_unless_it_is_the_systems() -> None:
    Path("null").symlink_to("/dev/null")
    assert not is_device_or_pipe(Path("null"))
    assert is_device_or_pipe(Path("/dev/null"))
    read, write = os.pipe()
    assert is_device_or_pipe(Path(f"/dev/fd/{write}"))
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_a_report_goes_into_an_open_file_by_its_system_name(folder: str, overwrite: bool) -> None:
    with Path("log").open("wb") as log:
        log.write(b"before\n")
        log.flush()
        stream.run("photos/a.png", output="x.png", report=f"{folder}/{log.fileno()}", overwrite=overwrite, **QUICK)
    first, line = Path("log").read_text().splitlines()
    assert first == "before"
    assert json.loads(line)["exit_code"] == 0


def test_a_redirected_stdout_keeps_its_order() -> None:
    write = "from stream.files import write_file; write_file(Path('/proc/self/fd/1'), b'2', may_be_pipe=True)"
    code = f"from pathlib import Path; print(end='1')\n{write}\nprint(end='3')"
    with Path("log").open("wb") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert Path("log").read_text() == "123"


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no such folder here")
def test_a_link_in_a_folder_for_everybody_is_not_the_systems() -> None:
    name = Path(f"/dev/shm/{secrets.token_hex(8)}")
    name.symlink_to("/dev/null")
    try:
        assert not is_device_or_pipe(name)
    finally:
        name.unlink()
    assert is_device_or_pipe(Path("/dev/stdout")) == Path("/dev/stdout").exists()


@pytest.mark.parametrize("kind", FILES)
def test_a_folder_of_results(kind: str) -> None:
    for name in (".a.png.partial", ".a.npy.partial", "a.png", "a.npy"):
        plant(f"out/{name}", kind)
    report = stream.run("photos", output="out", save="npy", overwrite=True, recursive=False, **QUICK)
    assert report.written == 1
    assert np.load("out/a.npy").shape == (24, 32)
    for name in ("out/a.png", "out/a.npy"):
        assert stat.S_ISREG(Path(name).lstat().st_mode)
    assert_untouched()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_subfolder_that_is_a_link_is_not_followed(overwrite: bool) -> None:
    Path("elsewhere").mkdir()
    Path("out").mkdir()
    Path("out/sub").symlink_to(Path("elsewhere").absolute())
    Path("out/sub2").symlink_to(Path("elsewhere").absolute())
    if not overwrite:
        with pytest.raises(OutputError, match="exists and is not empty"):
            stream.run("photos", output="out", recursive=True, **QUICK)
    report = stream.run("photos", output="out", recursive=True, overwrite=True, **QUICK)
    assert [(one["name"], "is a link" in one["reason"] or "folder" in one["reason"]) for one in report.skipped] == [
        ("sub/b.png", True)
    ]
    assert list(Path("elsewhere").iterdir()) == []


def test_a_folder_that_the_user_did_not_name_is_no_link() -> None:
    Path("elsewhere").mkdir()
    Path("photos_depth").symlink_to("elsewhere")
    with pytest.raises(OutputError, match="photos_depth: is a link to another folder; name the folder with -o"):
        stream.run("photos", overwrite=True, **QUICK)
    assert list(Path("elsewhere").iterdir()) == []
    stream.run("photos", output="photos_depth", **QUICK)
    assert len(list(Path("elsewhere").iterdir())) == 1


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["x.png", "x.partial.png", ".x.partial.png.partial"])
def test_one_picture(kind: str, name: str) -> None:
    plant(name, kind)
    if not name.startswith("."):
        with pytest.raises(OutputError, match=r"exists|interrupted run"):
            stream.run("photos/a.png", output="x.png", **QUICK)
    stream.run("photos/a.png", output="x.png", overwrite=True, **QUICK)
    with Image.open("x.png") as image:
        assert image.size[1] == 24
    assert not Path("x.png").is_symlink()
    assert_untouched()


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["x.mp4", "x.partial.mp4"])
def test_a_video(kind: str, name: str) -> None:
    write_video(Path("clip.mp4"), frames=3)
    plant(name, kind)
    with pytest.raises(OutputError, match=r"exists|interrupted run"):
        stream.run("clip.mp4", output="x.mp4", **QUICK)
    stream.run("clip.mp4", output="x.mp4", overwrite=True, **QUICK)
    with av.open("x.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
    assert not Path("x.mp4").is_symlink()
    assert_untouched()


def test_a_folder_under_the_partial_name_is_one_line() -> None:
    write_video(Path("clip.mp4"), frames=3)
    plant("x.partial.mp4", "folder")
    with pytest.raises(StreamError, match=r"x\.mp4: cannot be created: Is a directory"):
        stream.run("clip.mp4", output="x.mp4", overwrite=True, **QUICK)


@pytest.mark.parametrize("kind", ["link", "link to nothing", "link to a pipe", "second name"])
@pytest.mark.parametrize("name", ["r.json", ".r.json.partial"])
def test_a_report(kind: str, name: str) -> None:
    plant(name, kind)
    if not name.startswith(".") and kind != "link to a pipe":
        with pytest.raises(OutputError, match=r"not a report|a link to nothing"):
            stream.run("photos/a.png", output="x.png", report="r.json", **QUICK)
    stream.run("photos/a.png", output="x.png", report="r.json", overwrite=True, **QUICK)
    assert b"exit_code" in Path("r.json").read_bytes()
    assert not Path("r.json").is_symlink()
    assert_untouched()


def test_a_report_that_is_nested_too_deeply_or_too_long_is_none() -> None:
    for content in ("[" * 200_000, '{"exit_code": ' + "9" * 10_000 + "}", " " * 20_000_000 + '{"exit_code": 0}'):
        Path("r.json").write_text(content)
        with pytest.raises(OutputError, match="is not a report"):
            stream.run("photos/a.png", output="x.png", report="r.json", **QUICK)


def test_the_measurements_of_bench() -> None:
    from stream.bench import report

    plant("b.json", "link")
    plant(".b.json.partial", "link to nothing")
    report.save(report.Results(settings={}), Path("b.json"))
    assert not Path("b.json").is_symlink()
    assert_untouched()
