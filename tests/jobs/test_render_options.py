"""`depthstream render` with what a run was given: its clip read again in the same way, and the options that count."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stream
from stream.cli.main import invoke
from stream.config import CaptureConfig
from stream.depthdata.description import DepthCodec, Description
from stream.errors import OutputError, UsageError
from stream.frames import Depth, DepthKind, Frame, SourceInfo, SourceKind
from stream.sinks.depthvideo import DepthVideoSink
from tests.jobs.test_run import audio_packets
from tests.support.fakes import frame
from tests.support.media_files import write_video
from tests.support.picture_files import save, scene
from tests.support.tiny_model import depths, run


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def clip(frames: int = 8) -> str:
    """clip.mp4, whose frames differ, and whose left half does from its right one."""

    def draw(index: int, size_hw: tuple[int, int]) -> np.ndarray:
        coarse = np.random.default_rng(index).integers(0, 255, (5, 7, 3), np.uint8)
        return np.asarray(Image.fromarray(coarse).resize(size_hw[::-1]))

    return str(write_video(Path("clip.mp4"), frames=frames, size_hw=(50, 70), draw=draw))


def pictures(folder: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)).astype(int) for path in sorted(Path(folder).glob("*.png"))]


def depth_video(name: str, results: Sequence[tuple[Frame, Depth]]) -> str:
    first, depth = results[0]
    sink = DepthVideoSink(Path(name), codec=DepthCodec.FLOAT32, description=Description(kind=depth.kind, model="m"))
    info = SourceInfo(
        name="", size=first.size, is_live=False, time_base=first.time_base, rate=None, frame_count=None,
        kind=SourceKind.VIDEO,
    )  # fmt: skip
    sink.open(info, first.size)
    for shown, depth in results:
        sink.write(shown, depth, shown.rgb)
    sink.finish()
    return name


def masked(maps: list[np.ndarray], kind: DepthKind = DepthKind.METRIC_DEPTH) -> list[tuple[Frame, Depth]]:
    """Frames and depth in which NaN is no answer."""
    return [
        (frame(index, values.shape), Depth(values=values, kind=kind, index=index, valid=~np.isnan(values)))
        for index, values in enumerate(maps)
    ]


def points(path: Path) -> np.ndarray:
    header, _, content = path.read_bytes().partition(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian")
    return np.frombuffer(content, np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))["xyz"]


@pytest.mark.parametrize(
    "options",
    [
        {"start": 0.12, "max_frames": 4},
        {"end": 0.16},
        {"start": 0.08, "max_seconds": 0.1},
        {"max_frames": 3},
        {"mirror": True},
        {"multiple_of": 16},
        {"fps": 10},
        {"fps": 50, "start": 0.04, "mirror": True, "multiple_of": 32, "max_frames": 5},
        {"deinterlace": "on"},
    ],
    ids=lambda options: "+".join(options),
)
def test_the_clip_is_read_as_the_run_read_it(options: dict[str, Any]) -> None:
    clip()
    how: dict[str, Any] = {"layout": "side", "range": "frame", "colormap": "gray"}
    made = run("clip.mp4", output="run", save="video16", depth_codec="float32", **how, **options)
    again = stream.render_depth_video("run/video.depth.mkv", clip="clip.mp4", output="again", **how)

    assert again.written == made.written
    assert not [text for text in again.notes if "does not state" in text]
    assert made.written == len(pictures("run"))
    for one, other in zip(pictures("run"), pictures("again"), strict=True):
        assert np.abs(one - other).max() <= 1
    fewer = stream.render_depth_video("run/video.depth.mkv", clip="clip.mp4", output="fewer", max_frames=2, **how)
    assert fewer.written == min(2, made.written)


def test_the_sound_ends_with_the_frames_of_the_run() -> None:
    write_video(Path("clip.mp4"), frames=25, size_hw=(50, 70), audio_s=1)
    run("clip.mp4", output="run.mp4", save="video16", depth_codec="float32", max_frames=4)
    stream.render_depth_video("run.depth.mkv", clip="clip.mp4", output="again.mp4")
    assert audio_packets(Path("again.mp4")) == audio_packets(Path("run.mp4"))
    assert len(audio_packets(Path("again.mp4"))) < len(audio_packets(Path("clip.mp4")))


@pytest.mark.parametrize("output", ["again.mp4", "again"])
def test_a_folder_of_pictures_is_the_clip_of_its_film(output: str) -> None:
    Path("pictures").mkdir()
    for index in range(3):
        save(Path("pictures") / f"{index}.png", np.roll(scene(48, 64), 9 * index, axis=1))
    made = run("pictures", output="run.depth.mkv", depth_codec="float32", fps=5)
    again = stream.render_depth_video("run.depth.mkv", clip="pictures", output=output, layout="side")
    assert (again.outputs, again.written) == ([output], made.written)


def test_the_description_states_only_what_changes_frames() -> None:
    about = Description(
        kind=DepthKind.METRIC_DEPTH, capture=CaptureConfig(start=0.4, mirror=True, max_memory=2 * 10**9)
    )
    assert about.as_fields()["capture"] == {"start": 0.4, "mirror": True}
    assert Description.from_json(about.as_json()).as_fields() == about.as_fields()


@pytest.mark.parametrize(
    "capture",
    [[], {"start": -1}, {"fps": 0}, {"mirror": 3}, {"hwaccel": "auto"}, {"start": "NaN"}, {"start": 2, "end": 1}],
)
def test_a_description_with_another_capture_is_refused(capture: object) -> None:
    fields = Description(kind=DepthKind.METRIC_DEPTH).as_fields() | {"capture": capture}
    with pytest.raises(ValueError, match=r"^capture[^\n]*$"):
        Description.from_fields(fields)


def test_a_file_without_the_key_is_read_and_a_note_says_what_is_not_known() -> None:
    fields = Description(kind=DepthKind.METRIC_DEPTH).as_fields()
    del fields["capture"]
    assert Description.from_fields(fields).capture is None

    clip(frames=2)
    results = depths("clip.mp4")
    source = depth_video("old.depth.mkv", results)
    alone = stream.render_depth_video(source, output="alone")
    beside = stream.render_depth_video(source, clip="clip.mp4", output="beside", layout="side")
    stated = [
        len([text for text in report.notes if "does not state how its clip was read" in text])
        for report in (alone, beside)
    ]
    assert stated == [0, 1]


def few(count: int = 1) -> list[np.ndarray]:
    """1080p maps of which the first 3 rows have answers, between those of a coarse grid."""
    values = np.full((1080, 1920), np.nan, np.float32)
    values[1:4, 1:1920:2] = np.linspace(1, 9, 960)
    return [values] * count


@pytest.mark.parametrize("kind", [DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY])
def test_the_ends_of_a_clip_come_from_all_answers_where_these_are_few(kind: DepthKind) -> None:
    source = depth_video("few.depth.mkv", masked(few(), kind))
    found = stream.render_depth_video(source, output="out", range="clip").clip_range
    assert found is not None
    assert (found["lo"], found["hi"]) == (pytest.approx(1.08, abs=0.02), pytest.approx(8.92, abs=0.02))
    assert (found["lowest"], found["highest"]) == (1, 9)


@pytest.mark.parametrize("kind", list(DepthKind))
def test_a_clip_without_any_answer_has_no_ends(kind: DepthKind) -> None:
    nothing = masked([np.full((24, 32), np.nan, np.float32)] * 2, kind)
    report = stream.render_depth_video(
        depth_video("no.depth.mkv", nothing), output="out", range="clip", save="npy,png16"
    )
    assert (report.written, report.clip_range) == (2, None)
    assert np.isnan(np.load("out/000001.npy")).all()


def test_options_that_a_depth_video_has_no_use_for_are_noted_once(capsys: pytest.CaptureFixture[str]) -> None:
    source = depth_video("a.depth.mkv", masked([np.ones((24, 32), np.float32)] * 2))
    Path("c.yaml").write_text("capture: {fps: 5, multiple_of: 64, hwaccel: auto}\ninference: {steady: true}\n")
    settings = ["--set", "capture.start=3", "--set", "model.name=starter", "--set", "capture.max_frames=1"]
    assert invoke(["render", source, "-o", "out", "--config", "c.yaml", *settings]) == 0
    noted = [line for line in capsys.readouterr().err.splitlines() if "has no effect on a depth video" in line]
    assert sorted(line.split()[1] for line in noted) == [
        "--fps", "--hwaccel", "--model", "--multiple-of", "--start", "--steady"
    ]  # fmt: skip
    assert len(list(Path("out").glob("*.png"))) == 1


def test_max_pixels_is_that_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    source = depth_video("a.depth.mkv", masked([np.ones((24, 32), np.float32)]))
    for given in (["--max-pixels", "700"], ["--set", "capture.max_pixels=700"]):
        assert invoke(["render", source, "-q", "-o", "out", *given]) == 1
        assert "frames of 32×24 are too large" in capsys.readouterr().err
    for more in ("", "clip"):
        stream.render_depth_video(source, output=f"out{more}", max_pixels=768, range=more or "frame")


def test_a_report_does_not_replace_the_description_of_its_source() -> None:
    source = depth_video("a.depth.mkv", masked([np.ones((24, 32), np.float32)]))
    before = Path("a.depth.json").read_bytes()
    for name in ("a.depth.json", "a.depth.mkv"):
        with pytest.raises(OutputError, match="is the input"):
            stream.render_depth_video(source, output="out", report=name, overwrite=True)
    assert Path("a.depth.json").read_bytes() == before


def test_a_depth_video_of_one_frame_becomes_a_picture() -> None:
    source = depth_video("a.depth.mkv", masked([np.ones((24, 32), np.float32)]))
    assert stream.render_depth_video(source, output="a.png", save="npy").outputs == ["a.png", "000000.npy"]
    assert [picture.shape for picture in pictures(".")] == [(24, 32, 3)]
    two = depth_video("b.depth.mkv", masked([np.ones((24, 32), np.float32)] * 2))
    with pytest.raises(OutputError, match="a single image cannot hold several frames"):
        stream.render_depth_video(two, output="b.png")
    assert stream.render_depth_video(two, output="b.png", max_frames=1).written == 1


def test_points_are_made_of_a_depth_video_with_a_camera_and_a_step() -> None:
    source = depth_video("a.depth.mkv", masked([np.full((24, 32), 2, np.float32)] * 4))
    narrow = ["render", source, "-o", "narrow", "--picture", "none", "--save", "ply", "--every", "3", "--fov", "20"]
    assert invoke(narrow) == 0
    assert sorted(path.name for path in Path("narrow").glob("*.ply")) == ["000000.ply", "000003.ply"]
    stream.render_depth_video(source, output="wide", picture="none", save="ply", fov=100)
    widths = [np.ptp(points(Path(folder) / "000000.ply")[:, 0]) for folder in ("narrow", "wide")]
    assert widths[1] > 3 * widths[0]


def test_a_url_is_refused_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = "s3://bucket/d.depth.mkv"
    assert invoke(["render", url]) == 2
    assert f"{url}: is a URL; depth videos are read from a disk" in capfd.readouterr().err
    with pytest.raises(UsageError, match=r"^s3://bucket/d\.depth\.mkv: is a URL"):
        stream.open_depth_video(url)
    values = np.linspace(1, 2, 64 * 64, dtype=np.float32).reshape(64, 64)
    depth = Depth(values=values, kind=DepthKind.RELATIVE_DISPARITY, index=0)
    name = depth_video("a b.depth.mkv", [(frame(0, values.shape), depth)])
    with stream.open_depth_video(f"file://{tmp_path}/a%20b.depth.mkv") as video:
        assert len(list(video)) == 1
    assert invoke(["render", name, "-o", "s3://bucket/out.mp4"]) == 2
    assert "s3://bucket/out.mp4" in capfd.readouterr().err
    assert not Path("s3:").exists()
