"""A picture whose result cannot be written is skipped and named; what concerns every file ends the run."""

import errno
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from stream.errors import SinkError
from stream.files import partial_path, write_file
from stream.frames import SourceInfo, SourceKind
from stream.jobs.options import from_options
from stream.jobs.plan import default_output
from stream.jobs.report import Report
from stream.jobs.run import run_config
from stream.metrics import Outcome
from stream.sinks import images, per_frame
from stream.sinks.naming import FrameNames
from tests.support.media_files import write_video

WIDE = (17_000, 20)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photos(**sizes: tuple[int, int]) -> str:
    Path("photos").mkdir()
    for name, size in sizes.items():
        Image.new("RGB", size).save(Path("photos", f"{name}.png"))
    return "photos"


def run(source: str, **options: object) -> Report:
    return run_config(from_options(source, {"output": "out", "input_size": 64, "backend": "torch", **options}))


def written() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir() if not path.name.startswith("."))


def test_a_panorama_too_wide_for_the_format_is_skipped() -> None:
    report = run(photos(a=(96, 64), b=WIDE, c=(96, 64)), picture="webp", save="npy")
    assert (report.outcome, report.exit_code) == (Outcome.DONE_WITH_SKIPS, 3)
    assert [item["name"] for item in report.skipped] == ["b.png"]
    assert "does not fit the webp format (allowed: sides up to 16383)" in report.skipped[0]["reason"]
    assert (report.captured, report.written) == (3, 2)
    assert written() == ["a.npy", "a.webp", "b.npy", "c.npy", "c.webp"]


def test_if_nothing_can_be_written_the_run_fails() -> None:
    with pytest.raises(SinkError, match="does not fit the webp format"):
        run(photos(a=WIDE), picture="webp")


def test_the_frames_of_a_video_are_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(images._MAX_SIDE, "png", 50)
    write_video(Path("clip.mp4"))
    with pytest.raises(SinkError, match="does not fit the png format"):
        run("clip.mp4")


def test_a_name_too_long_for_its_new_suffix_is_shortened() -> None:
    long = "ä" * 125  # 250 bytes, 254 with .png: .depth16.png does not fit
    report = run(photos(a=(96, 64), **{long: (96, 64)}), save="png16")
    assert (report.outcome, report.written) == (Outcome.DONE, 2)
    names = [name for name in written() if name != "depth.json"]
    assert len(names) == 4
    assert all(len(name.encode()) <= 255 for name in names)
    assert [name for name in names if name.startswith("a")] == ["a.depth16.png", "a.png"]
    assert any("are shortened" in note for note in report.notes)


def test_shortened_names_stay_apart_and_are_the_same_each_time() -> None:
    names = [f"sub/{'x' * 248}{end}.jpg" for end in ("1", "2")] + [f"sub/{'x' * 248}1.png"]
    first, second = (FrameNames(names, {".depth16.png", ".png"}) for _ in range(2))
    stems = [first.stem_of(name, 0) for name in names]
    assert stems == [second.stem_of(name, 0) for name in names]
    assert len(set(stems)) == 3
    assert all(len(Path(stem).name) + len(".depth16.png") <= 255 for stem in stems)
    assert all(stem.startswith("sub/xxx") for stem in stems)


@pytest.mark.parametrize(
    ("number", "is_one"), [(errno.ENAMETOOLONG, True), (errno.EILSEQ, True), (errno.ENOSPC, False), (errno.EIO, False)]
)
def test_a_file_that_cannot_be_written_ends_the_run_only_if_the_disk_is_at_fault(
    number: int, is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, content: object) -> None:
        if path.name == "b.png":
            raise OSError(number, "no")
        write_file(path, content)  # type: ignore[arg-type]

    monkeypatch.setattr(per_frame, "write_file", failing)
    source = photos(a=(96, 64), b=(96, 64), c=(96, 64))
    if is_one:
        report = run(source)
        assert ([item["name"] for item in report.skipped], report.written) == (["b.png"], 2)
        assert written() == ["a.png", "c.png"]
    else:
        with pytest.raises(SinkError, match="cannot be written: no"):
            run(source)


def test_a_folder_in_the_place_of_a_file_concerns_that_file_only() -> None:
    source = photos(a=(96, 64), b=(96, 64))
    Path("out", "b.png").mkdir(parents=True)
    report = run(source, overwrite=True)
    assert ([item["name"] for item in report.skipped], report.written) == (["b.png"], 1)


def test_default_and_partial_names_of_a_long_name_fit() -> None:
    name = "x" * 251 + ".mp4"
    info = SourceInfo(
        name=name,
        size=(48, 64),
        is_live=False,
        time_base=Fraction(1, 25),
        rate=None,
        frame_count=None,
        kind=SourceKind.VIDEO,
    )
    output = default_output(info)
    assert output is not None
    assert len(partial_path(output).name) <= 255
    assert output.name.endswith("_depth.mp4")
    assert len(partial_path(Path(name)).name) == 255
