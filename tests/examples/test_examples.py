"""The programs in `examples/` run as a reader would run them, and stay short."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from tests.sinks.test_rerun import columns
from tests.support.manifests import checkpoint, reference
from tests.support.media_files import write_video
from tests.support.paths import DATA, REPOSITORY
from tests.support.reference import image

EXAMPLES = REPOSITORY / "examples"
MOST_LINES = 40


Run = Callable[..., str]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `examples/NAME.py` with arguments, as a program but in this process; gives what it prints."""

    def run(name: str, *arguments: str | Path) -> str:
        path = EXAMPLES / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        code = None
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as done:
            code = done.code
        printed = capsys.readouterr()
        assert not code, printed.err
        return printed.out

    return run


def test_examples_are_short_and_all_are_tested() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"depth_at_point", "video_to_exr", "compare_models", "own_loop", "own_module", "points_in_rerun"}
    for name in names:
        assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= MOST_LINES, name


def test_depth_at_a_point_is_printed_for_every_frame(example: Run) -> None:
    lines = example("depth_at_point", "pattern:testsrc2", "--x", "1", "--y", "0", "--frames", "2").splitlines()
    assert len(lines) == 2
    assert "x 639 y 0:" in lines[0]
    assert lines[0].endswith("(disparity: larger is nearer)")


def test_a_video_becomes_one_exr_file_for_each_frame(example: Run, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=3)
    assert "3 frames" in example("video_to_exr", clip, tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["clip.000000.exr", "clip.000001.exr", "clip.000002.exr"]
    values = OpenEXR.File(str(files[0])).channels()["Z"].pixels
    assert (values.dtype, values.shape) == (np.float32, (48, 64))


def test_a_module_of_ones_own_writes_a_picture(example: Run, tmp_path: Path) -> None:
    hazy = np.full((60, 80, 3), 200, np.uint8)
    hazy[30:] = (200, 90, 10)  # near: one of its channels is dark
    Image.fromarray(hazy).save(tmp_path / "photo.png")
    assert "1 frames" in example("own_module", tmp_path / "photo.png", tmp_path / "depth.png")
    with Image.open(tmp_path / "depth.png") as written:
        rows = np.asarray(written).astype(int).sum(axis=2).mean(axis=1)
    assert rows[-10:].mean() > rows[:10].mean() + 100, "near is bright"


@pytest.mark.slow
def test_two_models_are_compared_on_every_image(example: Run, tmp_path: Path) -> None:
    model = "midas_v21_small_256"
    weights = tmp_path / "weights.pt"
    torch.save(checkpoint(reference(DATA / "models" / f"{model}.json")["state_dict"]), weights)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(image(80, 60)).save(tmp_path / "photos" / name)
    lines = example("compare_models", tmp_path / "photos", "starter", f"{model}={weights}").splitlines()
    assert [line.split(":")[0] for line in lines] == ["a.png", "b.png"]
    assert all(-1 <= float(line.split(":")[1]) <= 1 for line in lines)
    assert example("compare_models", tmp_path / "photos" / "a.png", "starter", "starter").strip() == "a.png: 1.000"


def test_a_loop_of_ones_own_keeps_what_is_near(example: Run, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=6)
    example("own_loop", clip, tmp_path / "out", "--share", "0.25", "--frames", "2")
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png"]
    rgba = np.asarray(Image.open(files[0]))
    assert rgba.shape == (48, 64, 4)
    assert np.mean(rgba[..., 3] == 255) == pytest.approx(0.25, abs=0.01)


def test_points_are_recorded_for_rerun(example: Run, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    clip = write_video(tmp_path / "clip.mp4", frames=2)
    lines = example("points_in_rerun", clip, tmp_path / "a.rrd", "--fov", "60").splitlines()
    counts = [int(line.split()[2]) for line in lines]
    points = columns(tmp_path / "a.rrd")["/points"]
    assert [len(cloud) for cloud in points["Points3D:positions"]] == counts
    assert [len(cloud) for cloud in points["Points3D:colors"]] == counts
    assert all(0 < count <= 48 * 64 for count in counts)
    assert all(line.endswith("focal length: --fov") for line in lines)
