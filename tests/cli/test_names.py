"""Names that look like something else, that are too long, or that are not UTF-8: through whole runs."""

import json
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from stream.capture.stills import find
from stream.cli.main import invoke
from stream.media import av, file_url
from tests.support import forked
from tests.support import picture_files as files
from tests.support.media_files import write_video

QUICK = ("--backend", "torch", "--input-size", "64")
NOT_UTF8 = os.fsdecode(b"caf\xe9")
needs_any_bytes = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames with sound."""
    return write_video(tmp_path_factory.mktemp("clip") / "x.mp4", frames=3, audio_s=0.2)


def content(path: Path) -> tuple[int, int]:
    """Frames and audio streams of a video."""
    with av.open(file_url(path)) as container:
        return sum(1 for _ in container.decode(video=0)), len(container.streams.audio)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("12:30:05.mp4", "12_30_05_depth.mp4"),
        ("C:x.mp4", "C_x_depth.mp4"),
        ("file:x.mp4", "file_x_depth.mp4"),
        ("clip.mp4 ", "clip_depth.mp4"),
        (" clip.mp4", " clip_depth.mp4"),
        ("a[1]?%04d*.mp4", "a[1]?%04d*_depth.mp4"),
        ("~x.mp4", "~x_depth.mp4"),
    ],
)
def test_a_video_is_read_and_named_after_whatever_its_name_is(
    name: str, output: str, clip: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(clip, there / name)
    assert invoke(["run", name, "-q", *QUICK]) == 0, capsys.readouterr().err
    assert content(there / output) == (3, 1), "with its sound"
    assert invoke(["probe", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == name


def test_a_folder_of_digits_is_read_and_the_camera_is_named(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.save(_made(there / "2024") / "a.png", files.scene())
    assert invoke(["run", "2024", "-o", "out", *QUICK]) == 0
    assert "note: 2024 is read as the folder of that name; for the camera, name cam:2024" in capsys.readouterr().err
    assert (there / "out/a.png").exists()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_paths_of_options_begin_at_home(there: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(_made(there / "home")))
    monkeypatch.setenv("USERPROFILE", str(there / "home"))
    arguments = ["run", str(clip), "-o", "~/y.mp4", "--report=~/r.json", "-q", *QUICK]
    assert invoke(arguments) == 0
    assert {path.name for path in (there / "home").iterdir()} == {"y.mp4", "r.json"}
    assert not (there / "~").exists()


@pytest.mark.parametrize("stem", ["n" * 251, "é" * 125, "日" * 83])
def test_an_output_is_named_after_the_longest_name(
    stem: str, clip: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(clip, there / f"{stem}.mp4")
    assert invoke(["run", f"{stem}.mp4", *QUICK]) == 0
    (output,) = [path for path in there.iterdir() if path.name != f"{stem}.mp4"]
    assert output.name.startswith(stem[:70])
    assert output.name.endswith("_depth.mp4")
    assert f"is too long for a name; the output is {output.name}" in capsys.readouterr().err
    assert content(output) == (3, 1)


@needs_any_bytes
def test_a_name_that_is_not_utf8_is_printed_and_reported(
    there: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a terminal that takes ASCII alone, too."""
    folder = _made(there / NOT_UTF8)
    files.save(folder / f"{NOT_UTF8}.png", files.scene())
    (folder / f"{NOT_UTF8}2.png").write_bytes(b"broken")
    options = ["-o", f"{NOT_UTF8}-out", "--save", "npy", "--report", "r.json", "--json"]
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = forked.run(["run", NOT_UTF8, *options, *QUICK])
    assert done.returncode == 3, done.stderr
    assert b"skipped caf\\xe92.png: " in done.stderr
    assert done.stderr.isascii()
    for report in (json.loads(done.stdout), json.loads((there / "r.json").read_text(encoding="utf-8"))):
        assert report["source"] == r"caf\xe9"
        assert [item["name"] for item in report["skipped"]] == [r"caf\xe92.png"]
    assert sorted(os.listdir(there / f"{NOT_UTF8}-out")) == [f"{NOT_UTF8}.npy", f"{NOT_UTF8}.png"]
    shutil.copy(clip, there / f"{NOT_UTF8}.mp4")
    assert invoke(["run", f"{NOT_UTF8}.mp4", "-q", *QUICK]) == 0
    assert content(there / f"{NOT_UTF8}_depth.mp4") == (3, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="names like these are not allowed there")
def test_no_name_and_no_kind_of_file_ends_a_folder(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Digits of any script, pipes, sockets, links that lead to themselves or to a device: used, or named as skipped."""
    folder = _made(there / "in ²")
    good = ["5²5.png", "1٣1.png", "1a1.png", "１2.png", "①.png", "9" * 200 + ".png", "12:30.png", "-o.png", "%d.png"]
    for name in good:
        files.save(folder / name, files.scene())
    os.mkfifo(folder / "pipe.png")
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(folder)  # the name of a socket is short
    listener.bind("socket.png")
    os.chdir(there)
    (folder / "self.png").symlink_to("self.png")
    (folder / "self").symlink_to("self")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "nowhere.png").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    _made(folder / "folder.png")
    code = invoke(["run", "in ²", "--recursive", "-o", "out ²", "--report", "r.json", *QUICK])
    listener.close()
    assert code == 3, capsys.readouterr().err
    report = json.loads((there / "r.json").read_text(encoding="utf-8"))
    assert report["written"] == len(good)
    skipped = {item["name"]: item["reason"] for item in report["skipped"]}
    assert skipped == {
        "pipe.png": "cannot be read: a named pipe, not a file",
        "socket.png": "cannot be read: a socket, not a file",
        "self.png": "cannot be read: Too many levels of symbolic links",
        "zero.png": "cannot be read: a device, not a file",
        "nowhere.png": "cannot be read: No such file or directory",
    }
    assert len(os.listdir(there / "out ²")) == len(good)
    assert invoke(["run", "in ²/*.png", "-o", "globbed", "-q", *QUICK]) == 3
    assert len(os.listdir(there / "globbed")) == len(good)


@pytest.mark.skipif(sys.platform == "win32", reason="names like these are not allowed there")
def test_no_line_of_a_list_ends_it(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.save(there / "a.png", files.scene())
    files.save(there / "b\x0b\x85\u2028c.png", files.scene())
    _made(there / "folder.png")
    (there / "self.png").symlink_to("self.png")
    lines = [
        "a.png",
        "nul\0byte.png",
        "\0",
        "b\x0b\x85\u2028c.png",
        "/dev/zero",
        "folder.png",
        "self.png",
        "x" * 300,
        "~",
    ]
    (there / "l.txt").write_text("\n".join(lines), encoding="utf-8")
    assert invoke(["run", "l.txt", "-o", "out", "--report", "r.json", *QUICK]) == 3
    report = json.loads((there / "r.json").read_text(encoding="utf-8"))
    assert (report["written"], len(report["skipped"])) == (2, 7)
    assert {"name": "nul\0byte.png", "reason": "cannot be read: no name holds a NUL"} in report["skipped"]
    assert "skipped nul\\x00byte.png: cannot be read: no name holds a NUL" in capsys.readouterr().err


def test_a_very_deep_folder_is_searched(there: Path) -> None:
    """Deeper than Python's stack; what lies too deep for the system is named."""
    levels = 1300
    _made(there / "deep")
    files.save(there / "deep" / "a.png", files.scene())
    os.chdir("deep")
    for _ in range(levels):
        os.mkdir("d")
        os.chdir("d")
    try:
        found = find.find_pictures(there / "deep", recursive=True)
    finally:
        for _ in range(levels):  # pytest's own way to remove folders is not made for this
            os.chdir("..")
            os.rmdir("d")
    assert [path.name for path in found.paths] == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "a\0.png"], "SOURCE: holds a NUL"),
        (["run", "x.png", "-o", "a\0b.png"], "--output a\\x00b.png: holds a NUL"),
        (["run", "x.png", "--set", 'output.report="a\\0b"'], "holds a NUL"),
        (["run", "*\0.png"], "SOURCE: holds a NUL"),
    ],
)
def test_a_nul_is_refused_everywhere(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems number devices differently")
def test_an_endless_device_is_refused(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device in ("/dev/zero", "/dev/urandom", "/dev/full"):
        (there / "x.mp4").unlink(missing_ok=True)
        (there / "x.mp4").symlink_to(device)
        for name in (device, "x.mp4"):
            assert invoke(["probe", name]) == 2
            assert f"{name}: is a device that never ends" in capsys.readouterr().err
