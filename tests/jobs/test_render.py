"""`depthstream render`: pictures from a depth video, with the pixels that the run itself gave, and without a model."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stream
from stream.cli.main import invoke
from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.mapping import Mapping
from stream.errors import UsageError
from stream.frames import DepthKind, SourceInfo, SourceKind
from stream.infer.engine import Engine
from stream.jobs.options import from_options
from stream.jobs.render import render_config
from stream.metrics import Outcome
from stream.sinks.depthvideo import DepthVideoSink
from tests.jobs.test_run import audio_packets, video_times
from tests.support.media_files import write_video
from tests.support.tiny_model import depths, run


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def draw(index: int, size_hw: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(index // 3).integers(0, 255, (*size_hw, 3), np.uint8)


@pytest.fixture
def clip(monkeypatch: pytest.MonkeyPatch, in_a_folder: None) -> dict[int, np.ndarray]:
    """clip.mp4, its depth as a model computes it, and as a depth video of each codec."""
    write_video(Path("clip.mp4"), frames=6, size_hw=(48, 64), draw=draw, audio_s=0.24)
    results = depths("clip.mp4")
    lo = min(float(depth.values.min()) for _, depth in results)
    hi = max(float(depth.values.max()) for _, depth in results)
    info = SourceInfo(
        name="clip.mp4", size=(48, 64), is_live=False, time_base=results[0][0].time_base, rate=None, frame_count=6,
        kind=SourceKind.VIDEO,
    )  # fmt: skip
    for name, codec in (("clip", DepthCodec.FFV1), ("exact", DepthCodec.FLOAT32)):
        mapping = None if codec is DepthCodec.FLOAT32 else Mapping(lo=lo, hi=hi)
        described = Description(kind=DepthKind.RELATIVE_DISPARITY, mapping=mapping, model="starter")
        sink = DepthVideoSink(Path(f"{name}.depth.mkv"), codec=codec, description=described)
        sink.open(info, (48, 64))
        for frame, depth in results:
            sink.write(frame, depth, frame.rgb)
        sink.finish()
    monkeypatch.setattr(Engine, "__init__", lambda *_args, **_: pytest.fail("a model was loaded"))
    return {frame.index: depth.values for frame, depth in results}


def pictures(folder: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)).astype(int) for path in sorted(Path(folder).glob("*.png"))]


def render(source: str, *, clip: str | None = None, **options: object) -> stream.Report:
    return render_config(from_options(source, options), clip=clip)


@pytest.mark.parametrize("range_text", ["clip", "frame", "ema", "-2:2"])
def test_the_same_pixels_as_the_run_itself_within_one_level(
    range_text: str, clip: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = render("clip.depth.mkv", clip="clip.mp4", output="again", range=range_text, layout="side", colormap="gray")
    assert (report.outcome, report.written, report.model) == (Outcome.DONE, 6, "starter")
    here = Path.cwd()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    run("clip.mp4", output="run", range=range_text, layout="side", colormap="gray")
    for again, first in zip(pictures("again"), pictures("run"), strict=True):
        assert np.abs(again - first).max() <= 1


def test_a_video_is_named_after_the_depth_and_has_its_times(clip: dict[int, np.ndarray]) -> None:
    report = render("clip.depth.mkv", colormap="turbo")
    assert report.outputs == ["clip_depth.mp4"]
    seconds = [[pts * base for pts, base in video_times(Path(name))] for name in ("clip_depth.mp4", "clip.mp4")]
    assert seconds[0] == seconds[1]
    with pytest.raises(UsageError, match="the file exists"):
        render("clip.depth.mkv")


def test_the_clip_gives_its_sound(clip: dict[int, np.ndarray]) -> None:
    render("clip.depth.mkv", clip="clip.mp4", output="side.mp4", layout="overlay")
    assert audio_packets(Path("side.mp4")) == audio_packets(Path("clip.mp4"))


def test_files_of_numbers_hold_what_the_model_gave(clip: dict[int, np.ndarray]) -> None:
    for name in ("clip", "exact"):
        report = render(f"{name}.depth.mkv", output=name, save="npy,png16", picture="none")
        lo, hi = min(map(np.min, clip.values())), max(map(np.max, clip.values()))
        step = (hi - lo) / 65534
        for index, values in clip.items():
            error = np.abs(np.load(f"{name}/{index:06}.npy") - values).max()
            assert error == 0 if name == "exact" else error <= 0.51 * step
            assert np.abs(stream.read_png16(Path(f"{name}/{index:06}.depth16.png")) - values).max() <= 0.51 * step
        mapping = json.loads(Path(f"{name}/depth.json").read_text())["mapping"]
        assert (mapping["lo"], mapping["hi"]) == (lo, hi)
        assert (report.clip_range is not None) == (name == "exact")  # the codes of the other have ends already


def edit_sidecar() -> None:
    path = Path("clip.depth.json")
    path.write_text(path.read_text().replace('"starter"', '"another"'))


def another_clip() -> None:
    write_video(Path("clip.mp4"), frames=6, size_hw=(50, 64), draw=draw)


def longer_clip() -> None:
    write_video(Path("clip.mp4"), frames=7, size_hw=(48, 64), draw=draw)


def shorter_clip() -> None:
    write_video(Path("clip.mp4"), frames=5, size_hw=(48, 64), draw=draw)


@pytest.mark.parametrize(
    ("change", "arguments", "code", "error"),
    [
        (edit_sidecar, [], 1, "belongs to another video or was edited"),
        (another_clip, ["--with", "clip.mp4"], 1, "clip.mp4: has 64×50 pixels, and the depth video 64×48"),
        (longer_clip, ["--with", "clip.mp4"], 1, "does not belong to clip.depth.mkv: the frame at 0.240 s has no"),
        (shorter_clip, ["--with", "clip.mp4"], 1, "it has fewer frames than there are depth maps"),
        (lambda: None, ["--layout", "side"], 2, "--layout: needs the picture, which a depth video does not hold; add"),
        (lambda: None, ["--with", "pattern:testsrc2"], 2, "--with pattern:testsrc2: is live"),
        (lambda: None, ["-o", "clip.depth.mkv", "--overwrite"], 2, "the output is the input"),
    ],
)
def test_what_does_not_fit_is_one_line(
    change: Callable[[], None], arguments: list[str], code: int, error: str, clip: dict[int, np.ndarray],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    change()
    assert invoke(["render", "clip.depth.mkv", "-q", *arguments]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert error in line
    assert not Path("clip_depth.mp4").exists()


def test_a_video_without_numbers_and_a_depth_video_as_a_source_name_the_way(
    clip: dict[int, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["render", "clip.mp4", "-q"]) == 1
    assert "is no depth video" in capsys.readouterr().err
    assert invoke(["clip.depth.mkv", "-q"]) == 2
    assert "`depthstream render clip.depth.mkv` shows it" in capsys.readouterr().err


def test_a_missing_sidecar_changes_nothing(clip: dict[int, np.ndarray]) -> None:
    Path("clip.depth.json").unlink()
    assert render("clip.depth.mkv", max_frames=2).written == 2


def test_python_renders_what_the_command_does(clip: dict[int, np.ndarray]) -> None:
    report = stream.render_depth_video(Path("clip.depth.mkv"), clip="clip.mp4", layout="side", output=Path("a"))
    assert (report.written, report.model) == (6, "starter")
    assert invoke(["render", "clip.depth.mkv", "--with", "clip.mp4", "--layout", "side", "-o", "b"]) == 0
    assert all(np.array_equal(one, other) for one, other in zip(pictures("a"), pictures("b"), strict=True))
    with pytest.raises(UsageError, match="model: has no effect on a depth video"):
        stream.render_depth_video("clip.depth.mkv", model="starter")
