"""Atomic writes: a file is complete or as it was before, and nothing else stays in the folder."""

import json
import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from stream.errors import SinkError
from stream.files import (
    CreatedFolders,
    as_sink_error,
    expanded,
    fitted_stem,
    is_device_or_pipe,
    json_text,
    partial_path,
    write_file,
)


def test_a_file_is_written_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    seen: list[list[str]] = []

    def content(file: BinaryIO) -> None:
        file.write(b"new")
        file.flush()
        seen.append([path.read_text(), *(p.name for p in tmp_path.iterdir() if p != path)])

    write_file(path, b"old")
    write_file(path, content)
    assert seen == [["old", ".a.json.partial"]]
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), ValueError("bad"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_alone(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def content(file: BinaryIO) -> None:
        file.write(b"ne")
        raise failure

    with pytest.raises(type(failure)):
        write_file(path, content)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["ü" * 125 + ".png", "x" * 255])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    write_file(tmp_path / name, b"1")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_device_or_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    assert is_device_or_pipe(pipe)
    assert not is_device_or_pipe(tmp_path)
    assert not is_device_or_pipe(tmp_path / "missing")
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_file(pipe, b"{}", may_be_pipe=True)
    reader.join(10)
    assert received == [b"{}"]
    assert is_device_or_pipe(pipe)
    assert list(tmp_path.iterdir()) == [pipe]


def test_an_error_of_the_system_becomes_a_sink_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"a\.npy: cannot be written: No space left.*; free some space"):
        fail_to_write(tmp_path / "a.npy", OSError(28, "No space left on device"))
    with pytest.raises(SinkError, match=r"cannot be written: Permission denied$"):
        fail_to_write(tmp_path / "a.npy", OSError(13, "Permission denied"))


def fail_to_write(path: Path, error: OSError) -> None:
    with as_sink_error(path):
        raise error


def test_created_folders_go_again_if_they_are_empty(tmp_path: Path) -> None:
    folders = CreatedFolders()
    folders.create(tmp_path / "a" / "b")
    folders.create(tmp_path / "a" / "c")
    (tmp_path / "a" / "c" / "kept").touch()
    folders.remove_empty()
    folders.remove_empty()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["a", "a/c", "a/c/kept"]
    with pytest.raises(NotADirectoryError):
        folders.create(tmp_path / "a" / "c" / "kept" / "d")


@pytest.mark.parametrize(
    "stem", ["short", "n" * 300, "é" * 140, "日本" * 60, os.fsdecode(b"\xe9" * 300), "a" + "😀" * 80]
)
def test_a_name_fits_with_its_partial_name(stem: str, tmp_path: Path) -> None:
    name = fitted_stem(stem, "_depth.partial.mp4") + "_depth.mp4"
    partial = partial_path(tmp_path / name)
    for path in (tmp_path / name, partial):
        path.touch()
    assert partial.name == name.removesuffix(".mp4") + ".partial.mp4"
    kept = name.removesuffix("_depth.mp4")
    assert kept == stem or (stem.startswith(kept[:-9]) and len(os.fsencode(kept)) >= 230)
    assert fitted_stem(stem + "x", "_depth.partial.mp4") != kept


def test_the_partial_name_of_the_longest_name_fits(tmp_path: Path) -> None:
    longest = tmp_path / ("n" * 251 + ".mp4")
    longest.touch()
    partial_path(longest).touch()
    assert partial_path(longest).name.endswith(".partial.mp4")


def test_json_holds_any_name() -> None:
    text = json_text({"name": os.fsdecode(b"caf\xe9 \x1b\\\n") + "é"})
    assert json.loads(text.encode()) == {"name": "caf\\xe9 \x1b\\\n\u00e9"}


def test_home_is_expanded_unless_a_file_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of")
    monkeypatch.setenv("USERPROFILE", "/home/of")
    assert expanded(Path("~/a")) == os.path.join("/home/of", "a")
    assert expanded("~nobody-here/a") == "~nobody-here/a"
    Path("~x").touch()
    assert expanded("~x") == "~x"
