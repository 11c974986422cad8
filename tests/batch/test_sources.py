"""The sources of a batch, and the names of their results."""

import os
from pathlib import Path
from typing import Any

import pytest

from stream.batch.sources import Item, find_sources
from stream.capture.stills.find import not_found
from stream.errors import SourceNotFoundError, UsageError
from stream.jobs.options import from_options


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def outputs(*texts: str, out: str = "out", **options: Any) -> dict[str, str]:
    found = find_sources(texts, from_options(None, options), out=Path(out))
    assert all(Path(item.source).is_absolute() for item in found.items)
    return {item.name: item.output for item in found.items}


def test_a_folder_keeps_its_name_and_the_folder_here_has_none() -> None:
    touch("holiday/b.MOV", "holiday/sub/p.jpg", "holiday/.hidden.mp4", "holiday/x.depth.mkv", "holiday/notes.txt")
    expected = {"holiday/b.MOV": "holiday/b.mp4", "holiday/sub/p.jpg": "holiday/sub/p.png"}
    assert (
        outputs("holiday") == outputs("holiday/") == outputs("./holiday") == outputs("holiday", "holiday") == expected
    )
    assert outputs(".") == expected
    notes = find_sources(["holiday"], from_options(None, {}), out=Path("out")).notes
    assert notes == ("left out, no video and no picture: 2 files",)


def test_folders_of_one_name_are_told_apart() -> None:
    touch("2023/clips/a.mp4", "2024/clips/a.mp4", "b/a.mp4")
    assert outputs("2023/clips", "2024/clips", "b") == {
        "2023/clips/a.mp4": "2023/clips/a.mp4",
        "2024/clips/a.mp4": "2024/clips/a.mp4",
        "b/a.mp4": "b/a.mp4",
    }


def test_files_globs_and_lists_begin_at_the_folder_they_share() -> None:
    touch("x/a.mp4", "x/y/b.mp4", "x/y/c.png", "x/y/readme.md")
    Path("list.txt").write_text("# mine\nx/a.mp4\nx/y/b.mp4\nx/y/b.mp4\n")
    assert outputs("x/a.mp4") == {"a.mp4": "a.mp4"}
    assert outputs("x/a.mp4", "x/y/b.mp4") == outputs("list.txt") == {"a.mp4": "a.mp4", "y/b.mp4": "y/b.mp4"}
    assert outputs("x/y/*") == {"b.mp4": "b.mp4", "c.png": "c.png"}
    assert outputs("x/**/*.mp4") == {"a.mp4": "a.mp4", "y/b.mp4": "y/b.mp4"}
    assert "y/b.mp4" in outputs("x/*")
    assert find_sources(["x", "x/a.mp4"], from_options(None, {}), out=Path("out")).notes == (
        "left out, no video and no picture: 1 file",
        "named more than once, done once: 1 file",
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"a.mov": "a.mov.mp4", "a.mp4": "a.mp4.mp4", "a.jpg": "a.jpg.png", "A.png": "A.png.png"}),
        ({"picture": "jpg"}, {"a.mov": "a.mov.mp4", "a.jpg": "a.jpg.jpg", "A.png": "A.png.jpg"}),
        ({"picture": "none", "save": "npy"}, {"a.mov": "a.mov", "a.mp4": "a.mp4", "a.jpg": "a.jpg.png"}),
        (
            {"picture": "none", "save": "video16"},
            {"a.mov": "a.mov.depth.mkv", "a.jpg": "a.jpg.png", "c.mp4": "c.depth.mkv"},
        ),
        ({"picture": "none", "save": "video16", "depth_codec": "hevc12"}, {"a.mov": "a.mov.depth.mp4"}),
    ],
)
def test_names_that_clash_keep_their_suffix(options: dict[str, Any], expected: dict[str, str]) -> None:
    touch("h/a.mov", "h/a.mp4", "h/a.jpg", "h/A.png", "h/c.mp4")
    found = outputs("h/a.mov", "h/a.mp4", "h/a.jpg", "h/A.png", "h/c.mp4", **options)
    assert {name: found[name] for name in expected} == expected
    assert len({output.casefold() for output in found.values()}) == len(found)


def test_what_lies_in_the_output_folder_is_no_source() -> None:
    touch("h/a.mp4", "h/depth/h/a.mp4")
    assert outputs("h", out="h/depth") == {"h/a.mp4": "h/a.mp4"}
    for texts, out in ((["h"], "."), (["h"], "h"), (["h/a.mp4"], "h"), (["."], ".")):
        with pytest.raises(UsageError, match="lies in the output folder"):
            outputs(*texts, out=out)


def test_what_has_no_end_or_is_not_there_is_refused_by_name() -> None:
    touch("readme.md")
    Path("empty").mkdir()
    for text in ("0", "pattern:testsrc2", "-", "rtsp://camera/1"):
        with pytest.raises(UsageError, match="depthstream run"):
            outputs(text)
    for text in ("missing.mp4", "*.mp4", "empty"):
        with pytest.raises(SourceNotFoundError, match=r"no such file|no file matches|no video and no picture"):
            outputs(text)


def test_a_pipe_is_left_out_wherever_it_is_found() -> None:
    """Opening one would wait for ever."""
    touch("h/a.mp4")
    os.mkfifo("h/pipe.mp4")
    Path("list.txt").write_text("h/a.mp4\nh/pipe.mp4\n")
    for text in ("h", "h/*.mp4", "list.txt"):
        assert len(outputs(text)) == 1


def test_a_link_to_nothing_is_named_as_one() -> None:
    Path("dangling.mp4").symlink_to("gone.mp4")
    assert str(not_found(Path("dangling.mp4"))) == "dangling.mp4: is a link to gone.mp4, which is not there"


def test_urls_are_named_by_their_last_part_unless_it_is_shared() -> None:
    texts = ["http://h/x/a.mp4", "http://k/y/a.mp4", "https://k/b%20c.webm?token=1"]
    found = find_sources(texts, from_options(None, {}), out=Path("out"))
    assert [item.output for item in found.items] == ["b c.mp4", "h/x/a.mp4", "k/y/a.mp4"]


def test_two_sources_of_one_name_are_refused() -> None:
    touch("x/h/a.mp4", "h/a.mp4", "b.mp4")
    with pytest.raises(UsageError, match="would have the same name"):
        outputs("x/h", "h/a.mp4", "b.mp4")


def test_sizes_and_kinds() -> None:
    touch("a.mp4", "p.png")
    items = find_sources(["a.mp4", "p.png"], from_options(None, {}), out=Path("out")).items
    assert items == (
        Item(name="a.mp4", source=str(Path("a.mp4").absolute()), output="a.mp4", is_picture=False, size=1),
        Item(name="p.png", source=str(Path("p.png").absolute()), output="p.png", is_picture=True, size=1),
    )
