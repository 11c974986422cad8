"""What is refused before any work: nothing that exists is replaced unasked, an input never."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import stream
from stream.errors import OutputError, StreamError
from stream.frames import SourceInfo, SourceKind
from stream.jobs.build import build_sinks
from stream.jobs.options import from_options
from stream.jobs.plan import OutputKind, default_output, output_kind, plan_outputs
from stream.jobs.source import open_config_source
from stream.sinks.naming import FrameNames
from tests.support.fakes import SIZE, depth_of, frame
from tests.support.full_disk import fill_disk
from tests.support.media_files import write_video
from tests.support.picture_files import save, scene


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photos/` with two pictures and one below, and a video, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/a.png"):
        save(tmp_path / "photos" / name, scene())
    write_video(tmp_path / "clip.mp4", frames=3)
    return tmp_path / "photos"


def plan(source: str, **options: object) -> None:
    config = from_options(source, options)
    opened = open_config_source(config)
    try:
        plan_outputs(config, opened.info)
    finally:
        opened.close()


def listed(name: str, *pictures: str) -> str:
    Path(name).write_text("\n".join(pictures))
    return name


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("photos", {"output": "photos", "overwrite": True}, "is the input"),
        ("photos/a.png", {"output": "photos/a.png", "overwrite": True}, "is the input"),
        ("list", {"output": "photos", "overwrite": True}, "input"),
        ("photos", {"output": "photos/sub", "overwrite": True, "recursive": True}, "input"),
        ("photos/a.png", {"output": "photos/x.png", "report": "photos/a.png"}, "is the input"),
        ("photos/a.png", {"output": "x.png", "report": "x.png"}, "is an output"),
        ("photos", {"output": "out", "report": "out/a.png"}, "is an output"),
        ("photos", {"output": "out", "report": "photos"}, "is a folder"),
        ("photos", {"output": "out", "report": "clip.mp4/r.json"}, "is a file, not a folder"),
        ("clip.mp4", {"output": "x.npy", "save": "npy"}, "--save"),
        ("clip.mp4", {"output": "x.png", "max_frames": 1, "save": "npy"}, "000000.npy"),
        ("clip.mp4", {"output": "left.mp4"}, "left.partial.mp4"),
        ("photos/a.png", {"output": "left.png"}, "left.partial.png"),
    ],
)
def test_what_would_destroy_something_is_refused_before_any_work(
    source: str, options: dict[str, object], says: str
) -> None:
    for name in ("000000.npy", "left.partial.mp4", "left.partial.png"):
        Path(name).touch()
    if source == "list":
        source = listed("list.txt", "photos/b.png", "photos/a.png")
    with pytest.raises(OutputError, match=says) as caught:
        plan(source, **options)
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 1


def test_an_input_under_another_folder_of_the_list_is_not_replaced() -> None:
    source = listed("list.txt", "photos/a.png", "photos/sub/a.png")
    before = Path("photos/sub/a.png").read_bytes()
    with pytest.raises(StreamError):
        stream.run(source, output="photos", overwrite=True)
    assert Path("photos/sub/a.png").read_bytes() == before


def test_an_earlier_report_may_be_replaced_and_nothing_else() -> None:
    Path("r.json").write_text('{"exit_code": 0}')
    plan("photos/a.png", output="x.png", report="r.json")
    Path("mine.json").write_text("{}")
    with pytest.raises(OutputError, match="is not a report"):
        plan("photos/a.png", output="x.png", report="mine.json")
    plan("photos/a.png", output="x.png", report="mine.json", overwrite=True)


def test_a_report_replaces_a_link_and_goes_into_a_device() -> None:
    Path("target.json").write_text('{"exit_code": 0}')
    Path("link.json").symlink_to("target.json")
    stream.run("photos/a.png", output="x.png", report="link.json")
    assert not Path("link.json").is_symlink()
    assert json.loads(Path("link.json").read_text())["written"] == 1
    assert Path("target.json").read_text() == '{"exit_code": 0}'
    stream.run("photos/a.png", output="y.png", report="/dev/null")
    assert not Path("/dev/null").is_file()


def test_a_job_that_cannot_start_is_reported() -> None:
    Path("broken.mp4").write_bytes(b"no video")
    with pytest.raises(StreamError) as caught:
        stream.run("broken.mp4", output="x.mp4", report="r.json")
    report = json.loads(Path("r.json").read_text())
    assert (report["outcome"], report["exit_code"], report["error"]) == ("failed", 1, str(caught.value))


@pytest.mark.parametrize("name", ["x.txt", "film.mp", "depth.tar"])
def test_a_name_that_looks_like_a_file_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        plan("photos", output=name)
    Path(name).mkdir()
    plan("photos", output=name)


def test_a_folder_may_have_a_dot() -> None:
    plan("photos", output="v1.2")
    plan("photos", output=".hidden")


def test_a_name_with_brackets_is_a_picture_and_not_a_pattern() -> None:
    save(Path("photo[1].png"), scene())
    config = from_options("photo[1].png", {})
    opened = open_config_source(config)
    assert plan_outputs(config, opened.info).path == Path("photo[1]_depth.png")
    opened.close()


def test_names_of_all_sinks_in_a_folder_are_told_apart() -> None:
    folder = Path("clash")
    folder.mkdir()
    for name in ("a.png", "a.depth16.png"):
        save(folder / name, scene())
    report = stream.run("clash", output="out", save="png16")
    assert report.written == 2
    assert len(list(Path("out").iterdir())) == 5  # depth.json, too
    stems = FrameNames(["a.png", "a.depth16.png"], [".png", ".depth16.png"])
    assert {stems.stem_of("a.png", 0), stems.stem_of("a.depth16.png", 1)} == {"a.png", "a.depth16.png"}


def test_a_folder_of_png16_has_one_depth_json_and_a_picture_in_a_shared_folder_none() -> None:
    stream.run("photos/a.png", output="out/picture.png", save="png16")
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.depth16.png", "picture.png"]
    report = stream.run("clip.mp4", output="clip_out", save="png16,npy", max_frames=2, png16_unit="2mm")
    assert (Path("clip_out") / "depth.json").is_file()
    assert "--png16-unit has no effect: starter gives no metres" in report.notes
    with pytest.raises(OutputError, match="is an output of this run"):
        plan("photos", output="x", save=["png16"], report="x/depth.json")


def test_two_runs_with_one_output_never_deliver_each_others_file() -> None:
    config = from_options("clip.mp4", {"output": "race.mp4", "overwrite": True})
    opened = open_config_source(config)
    sinks = [build_sinks(config, plan_outputs(config, opened.info))[0] for _ in range(2)]
    opened.close()
    for sink in sinks:
        sink.open(opened.info, SIZE)
    first, second = sinks
    picture = np.zeros((*SIZE, 3), np.uint8)
    for sink in sinks:
        sink.write(frame(0), depth_of(frame(0)), picture)
    with pytest.raises(StreamError, match="another run"):
        first.finish()
    assert not Path("race.mp4").exists()
    second.finish()
    assert Path("race.mp4").exists()


def test_a_kept_recording_survives_a_run_that_fails_to_open() -> None:
    Path("keep.partial.mp4").write_bytes(b"an hour of work")
    with pytest.raises(StreamError):
        stream.run("clip.mp4", output="keep.mp4", codec="h264_nvenc")
    assert Path("keep.partial.mp4").read_bytes() == b"an hour of work"


def _unwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    config = from_options("photos", {"output": str(folder)})
    opened = open_config_source(config)
    (sink,) = build_sinks(config, plan_outputs(config, opened.info))
    opened.close()
    sink.open(opened.info, SIZE)
    fill_disk(monkeypatch, folder / ".a.png.partial")
    sink.write(replace(frame(0), name="a.png"), depth_of(frame(0)), np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(StreamError, match="No space left"):
        sink.finish()
    return sink.outputs


def test_what_could_not_be_written_is_not_called_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _unwritten(Path("full"), monkeypatch) == []


def test_kinds_by_suffix() -> None:
    assert output_kind(Path("x.mp4")) is OutputKind.VIDEO
    assert output_kind(Path("x.JPG")) is OutputKind.PICTURE
    assert output_kind(Path("x")) is OutputKind.FOLDER


@pytest.mark.parametrize(
    ("name", "names", "wanted"),
    [
        ("http://host/photos/a.jp2?size=1", ("a.jp2",), "a_depth.png"),
        ("http://host/[1]/snapshot.cgi", ("snapshot",), "snapshot_depth.png"),
        ("frame_%04d.png", ("frame_0001.png", "frame_0002.png"), "depth_out"),
    ],
)
def test_the_output_of_an_image_behind_a_url_and_of_a_numbered_sequence(
    name: str, names: tuple[str, ...], wanted: str
) -> None:
    info = SourceInfo(
        name=name,
        size=SIZE,
        is_live=False,
        time_base=Fraction(1),
        rate=None,
        frame_count=len(names),
        kind=SourceKind.STILLS,
        names=names,
    )
    assert default_output(info) == Path(wanted)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("clip.mp4", {"camera_size": "640x480"}, ["--camera-size has no effect: the source is no camera"]),
        ("clip.mp4", {"recursive": True}, ["--recursive has no effect: the source is no folder"]),
        ("clip.mp4", {"live": True}, ["--live has no effect: the source is no stream"]),
        ("clip.mp4", {"picture": "jpg"}, ["--picture has no effect: no folder of images is written"]),
        ("clip.mp4", {"alpha": 0.5}, ["--alpha has no effect: the layout is not overlay"]),
        ("photos", {"crf": 20, "preset": "fast"}, ["--crf has no effect: no video is written",
                                                    "--preset has no effect: no video is written"]),
        ("photos", {"recursive": True, "picture": "jpg", "alpha": 0.5, "layout": "overlay"}, []),
        ("clip.mp4", {"crf": 20, "alpha": 0.5, "serve": True}, []),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_noted(
    source: str, options: dict[str, object], said: list[str], notes: list[str]
) -> None:
    plan(source, **options)
    assert notes == said
