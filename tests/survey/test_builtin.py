"""The survey's own photos: what is stored as true fits what is seen."""

import struct
import subprocess
import sys
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stream.cli.main import invoke
from stream.config import CaptureConfig, Config
from stream.errors import SourceError, UsageError
from stream.frames import Frame
from stream.survey import builtin
from stream.survey.builtin import FOLDER, SCENES, files, open_scenes, truth_of_scene
from stream.survey.findings.leak import LEAK
from stream.survey.job import survey_config
from stream.survey.record import Survey
from stream.survey.scene import Truth
from tests.support.manifests import checkpoint, reference
from tests.support.paths import DATA
from tests.support.survey_scenes import scene_of

MOST_BYTES = 6_000_000
UPRIGHT = ("stair", "portrait")


@pytest.fixture(scope="module")
def frames() -> dict[str, Frame]:
    """The photographs, by scene, as a survey reads them."""
    with closing(open_scenes(Config(capture=CaptureConfig(max_frames=len(SCENES))))) as source:
        return {Path(frame.name).stem: frame for frame in source}


@pytest.fixture(scope="module")
def truths(frames: dict[str, Frame]) -> dict[str, Truth]:
    found = {scene: truth_of_scene(frame) for scene, frame in frames.items()}
    return {scene: truth for scene, truth in found.items() if truth is not None}


def test_every_scene_is_there_twice_at_its_size(frames: dict[str, Frame], truths: dict[str, Truth]) -> None:
    assert list(frames) == list(SCENES) == list(truths)
    for scene, frame in frames.items():
        assert frame.size == ((1600, 1200) if scene in UPRIGHT else (1200, 1600))
        assert truths[scene].disparity.shape == frame.size
    cartoons = files()[len(SCENES) :]
    assert [Path(path).stem for path in cartoons] == [f"{scene}_cartoon" for scene in SCENES]


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES


def test_the_truth_is_finite_and_the_sky_alone_is_at_infinity(truths: dict[str, Truth]) -> None:
    for truth in truths.values():
        assert truth.sky is not None
        assert truth.clouds is not None
        assert np.isfinite(truth.disparity).all()
        assert (truth.disparity >= 0).all()
        assert np.array_equal(truth.disparity == 0, truth.sky)
        assert not (truth.clouds & ~truth.sky).any()


def test_planes_are_planes(truths: dict[str, Truth]) -> None:
    """Disparity is linear in the position on each, to what float32 holds."""
    for scene, truth in truths.items():
        assert truth.planes is not None
        numbers, counts = np.unique(truth.planes[truth.planes > 0], return_counts=True)
        assert max(counts, default=0) > 20_000 or scene == "mountains"
        for number in numbers[counts > 500]:
            y, x = np.nonzero(truth.planes == number)
            values = truth.disparity[y, x].astype(np.float64)
            terms = np.stack([x, y, np.ones(len(x))], 1).astype(np.float64)
            plane, *_ = np.linalg.lstsq(terms, values, rcond=None)
            assert np.abs(terms @ plane - values).max() < 2e-6 * truth.disparity.max(), (scene, number)


def test_edges_of_depth_are_edges_of_the_picture(frames: dict[str, Frame], truths: dict[str, Truth]) -> None:
    """The picture changes far more where depth jumps than elsewhere; turned or shifted truth would not do that."""
    for scene, truth in truths.items():
        grey = cv2.cvtColor(frames[scene].rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        change = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        jumps = _jumps(truth.disparity)
        fits = change[jumps].mean()
        for moved in (np.roll(jumps, 8, 1), np.roll(jumps, 8, 0), np.flipud(jumps), np.fliplr(jumps)):
            assert fits > 1.2 * change[moved].mean(), scene


@pytest.mark.parametrize("scene", ["museum", "shelf"])
def test_the_lines_of_a_cartoon_lie_on_edges_of_depth(truths: dict[str, Truth], scene: str) -> None:
    grey = cv2.imread(str(FOLDER / f"{scene}_cartoon.jpg"), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    dark = (cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, np.ones((9, 9), np.uint8)) > 40).astype(np.uint8)
    near = cv2.dilate(dark, np.ones((5, 5), np.uint8)) > 0
    jumps = _jumps(truths[scene].disparity)
    assert near[jumps].mean() > 0.9
    for moved in (np.roll(jumps, 12, 0), np.roll(jumps, 12, 1), np.flipud(jumps), np.fliplr(jumps)):
        assert near[moved].mean() < 0.8


def _jumps(disparity: NDArray[np.float32]) -> NDArray[np.bool_]:
    kernel = np.ones((3, 3), np.uint8)
    near, far = cv2.dilate(disparity, kernel), cv2.erode(disparity, kernel)
    return np.asarray(near - far > 0.1 * near + 0.002)


def test_true_depth_of_planes_prints_nothing(frames: dict[str, Frame], truths: dict[str, Truth]) -> None:
    for scene in ("restaurant", "stair"):
        rgb, truth = frames[scene].rgb, truths[scene]
        ramp = np.repeat(np.linspace(0, 1, rgb.shape[0], dtype=np.float32)[:, None], rgb.shape[1], axis=1)
        answers = LEAK.measure(scene_of(rgb, {"true": truth.disparity, "ramp": ramp}, truth=truth))
        assert answers is not None
        assert {name: number.value for name, number in answers.numbers.items()} == pytest.approx(
            {"true": 0, "ramp": 0}, abs=1e-6
        ), scene


def test_thin_things_are_a_few_pixels_wide(truths: dict[str, Truth]) -> None:
    for scene, truth in truths.items():
        assert truth.thin is not None
        assert truth.thin.sum() > 500, scene
        wide = cv2.morphologyEx(truth.thin.astype(np.uint8), cv2.MORPH_OPEN, np.ones((13, 13), np.uint8))
        assert wide.sum() < 0.02 * truth.thin.sum(), scene


def test_small_things_are_near(truths: dict[str, Truth]) -> None:
    assert sum(truth.small is not None and bool(truth.small.any()) for truth in truths.values()) >= len(SCENES) // 2
    for scene, truth in truths.items():
        assert truth.small is not None
        for number in np.unique(truth.small[truth.small > 0]):
            assert (truth.small == number).sum() < 0.02 * truth.small.size, (scene, number)


def test_another_picture_has_no_truth(frames: dict[str, Frame]) -> None:
    one = next(iter(frames.values()))
    other = Frame(index=0, pts=0, time_base=Fraction(1), captured_at=0.0, rgb=one.rgb, name="street2.jpg")
    assert truth_of_scene(other) is None


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(builtin, "FOLDER", tmp_path)
    with pytest.raises(SourceError, match=r"--builtin: .*restaurant"):
        files()


def test_photos_beside_the_built_in_ones_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--builtin.*a\.jpg"):
        survey_config(Config(), ["a.jpg"], ["starter", "midas-small"], builtin=True)


def test_a_file_of_a_telephone_is_stored_lying_with_an_orientation() -> None:
    for scene in UPRIGHT:
        data = (FOLDER / f"{scene}.heic").read_bytes()
        extent = data.index(b"ispe") + 8  # ISO/IEC 23008-12, 6.5.3: version and flags, width, height
        assert struct.unpack(">II", data[extent : extent + 8]) == (1600, 1200)


@pytest.mark.slow
def test_the_command_surveys_them_with_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "small.pt"
    small = "midas_v21_small_256"
    torch.save(checkpoint(reference(DATA / "models" / f"{small}.json")["state_dict"]), weights)
    models = ["-m", "starter", "-m", f"{small}={weights}"]
    assert invoke(["survey", "--builtin", *models, "--max-frames", "1", "--quiet"]) == 0
    found = Survey.model_validate_json(Path("builtin_survey/survey.json").read_text())
    assert [(photo.name, photo.has_truth) for photo in found.photos] == [("restaurant.jpg", True)]
    answers = found.photos[0].findings["accuracy"]
    assert answers.basis == "truth"
    starter, synthetic = (one.value for one in answers.numbers.values())
    assert starter is not None
    assert synthetic is not None
    assert starter < synthetic


@pytest.mark.slow
def test_rendering_again_gives_the_same_truth(tmp_path: Path, truths: dict[str, Truth]) -> None:
    """At a quarter of the size, each pixel's centre is a corner of four pixels of the shipped truth."""
    pytest.importorskip("moderngl")
    script = Path(__file__).parents[2] / "scripts/survey_scenes.py"
    command = [sys.executable, str(script), "portrait", "--frames", "1", "--scale", "0.25", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "libEGL" in done.stderr or "EGL" in done.stderr:
        pytest.skip("no OpenGL here")
    assert done.returncode == 0, done.stderr
    builtin._truth.cache_clear()
    folder = builtin.FOLDER
    try:
        builtin.FOLDER = tmp_path
        small = builtin._truth("portrait").disparity
    finally:
        builtin.FOLDER = folder
        builtin._truth.cache_clear()
    full = truths["portrait"].disparity
    around = np.stack([full[y::4, x::4] for y in (1, 2) for x in (1, 2)])
    low, high = around.min(0), around.max(0)
    within = (small >= low - 1e-3) & (small <= high + 1e-3)
    assert within.mean() > 0.995
