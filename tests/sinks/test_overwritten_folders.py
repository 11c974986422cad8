"""--overwrite replaces a folder's earlier results as a whole, and removes nothing that this program did not write."""

import os
from pathlib import Path

import pytest
from PIL import Image

from stream.depthdata.storage import read_description
from stream.errors import OutputError
from stream.jobs.options import from_options
from stream.jobs.report import Report
from stream.jobs.run import run_config
from stream.metrics import Outcome
from tests.support.media_files import write_video


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("clip.mp4"), frames=6)


def run(source: str = "clip.mp4", **options: object) -> Report:
    given = {"output": "out", "overwrite": True, "input_size": 64, "backend": "torch", "quiet": True, **options}
    return run_config(from_options(source, given))


def written() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir())


def test_frames_of_an_earlier_run_do_not_stay_between_the_new_ones() -> None:
    run(save="png16")
    assert len(written()) == 13
    assert read_description(Path("out", "depth.json")).frame_count == 6
    report = run(max_frames=2, save="png16")
    assert written() == ["000000.depth16.png", "000000.png", "000001.depth16.png", "000001.png", "depth.json"]
    assert read_description(Path("out", "depth.json")).frame_count == 2
    removed = [f"out: removed 4 {suffix} files of an earlier run of this source" for suffix in (".png", ".depth16.png")]
    assert (report.outcome, report.notes) == (Outcome.DONE, removed)


def test_a_run_that_adds_another_format_keeps_the_first() -> None:
    run()
    run(picture="none", save="npy")
    assert len(written()) == 12


def test_what_others_made_or_changed_stays_and_is_counted() -> None:
    run()
    Path("out", "mine.png").write_bytes(b"mine")
    Path("out", "000004.png").write_bytes(b"edited by hand")
    report = run(max_frames=2)
    assert written() == ["000000.png", "000001.png", "000004.png", "mine.png"]
    assert report.notes[1:] == ["out: 2 .png files that this run did not write stay"]


def test_without_a_list_old_files_stay_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr("stream.sinks.record.cache_folder", lambda: tmp_path / "lost")
    report = run(max_frames=5)
    assert len(written()) == 6
    assert report.notes == ["out: 1 .png file that this run did not write stays"]


def test_a_list_that_was_tampered_with_removes_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = tmp_path / "lists"
    monkeypatch.setattr("stream.sinks.record.cache_folder", lambda: lists)
    run()
    victim = tmp_path / "victim.png"
    victim.write_bytes(b"x")
    state = f'[{victim.stat().st_size}, {victim.stat().st_mtime_ns}, "{Path("clip.mp4").resolve()}"]'
    (found,) = lists.iterdir()
    found.write_text(f'{{"../victim.png": {state}, "{victim}": {state}}}')
    run(max_frames=1)
    assert victim.exists()
    assert os.listdir("out") != []


def photos(folder: str, *names: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (64, 48)).save(Path(folder, name))


def test_an_input_below_the_output_folder_is_never_replaced_or_removed() -> None:
    photos("in/sub", "c.jpg")
    run("in", recursive=True)
    with pytest.raises(OutputError, match="contains the input"):
        run("out/sub/c.png")
    assert Path("out/sub/c.png").exists()


def test_the_results_of_other_sources_and_of_inputs_that_are_not_read_again_stay() -> None:
    photos("in", "a.jpg", "b.jpg")
    run("in")
    report = run("in/a.jpg")
    assert report.notes == ["out: 1 .png file that this run did not write stays"]
    run("in", max_frames=1)
    Path("in/b.jpg").write_bytes(b"no longer a picture")
    assert run("in").outcome is Outcome.DONE_WITH_SKIPS
    run()
    assert written() == [*(f"{index:06d}.png" for index in range(6)), "a.png", "b.png"]


def test_the_result_of_an_input_that_is_gone_is_removed() -> None:
    photos("in", "a.jpg", "b.jpg")
    run("in")
    Path("in/b.jpg").unlink()
    assert run("in").notes == ["out: removed 1 .png file of an earlier run of this source"]
    assert written() == ["a.png"]


def test_the_results_of_folders_that_are_not_searched_again_stay() -> None:
    photos("in", "a.jpg")
    photos("in/sub", "c.jpg")
    run("in", recursive=True)
    assert run("in").notes == []
    assert Path("out/sub/c.png").exists()


def test_other_folders_are_not_looked_through() -> None:
    photos("out/elsewhere", "x.png")
    assert run(max_frames=1).notes == []
