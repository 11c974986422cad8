"""Whole runs with `--steady`: what is written is steadied, the report says by how much, and stills are left alone."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stream
from stream.cli.main import invoke
from stream.frames import DepthKind, SourceInfo, SourceKind
from stream.infer.base import Inference
from stream.infer.steady import Steady
from stream.jobs.models import steadied
from stream.jobs.options import from_options
from stream.notes import Notes, collected
from tests.support.media_files import write_video
from tests.support.pumping import Given, views

QUICK: dict[str, Any] = {"input_size": 96}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def clip() -> str:
    shown = [view.rgb for view in views(8)]
    write_video(Path("clip.mp4"), size_hw=(120, 160), frames=8, draw=lambda index, _: shown[index])
    return "clip.mp4"


def test_files_hold_the_steadied_values_and_the_report_says_by_how_much(clip: str) -> None:
    report = stream.run(clip, output="out.mp4", save="npy", steady=True, report="report.json", **QUICK)
    raw = [depth.values for _, depth in stream.iter_depth(clip, **QUICK)]
    steady = [depth.values for _, depth in stream.iter_depth(clip, steady=True, **QUICK)]
    for index in range(8):
        assert np.array_equal(np.load(f"out_depth/{index:06d}.npy"), steady[index])
    assert np.array_equal(steady[0], raw[0])
    assert not np.array_equal(steady[7], raw[7])
    (change,) = report.depth_change
    assert change is not None
    assert change.steadied is not None
    assert (change.steadied < change.raw, change.pairs) == (True, 7)
    assert json.loads(Path("report.json").read_text())["depth_change"][0]["raw"] == change.raw


def test_without_it_nothing_is_measured(clip: str) -> None:
    assert stream.run(clip, output="out.mp4", **QUICK).depth_change == ()


def test_stills_are_left_alone_and_that_is_said_once() -> None:
    Path("photos").mkdir()
    for index, view in enumerate(views(3)):
        Image.fromarray(view.rgb).save(f"photos/{index}.png")
    report = stream.run("photos", output="out", save="npy", steady=True, **QUICK)
    raw = [depth.values for _, depth in stream.iter_depth("photos", **QUICK)]
    assert [np.array_equal(np.load(f"out/{index}.npy"), raw[index]) for index in range(3)] == [True] * 3
    assert [text for text in report.notes if "--steady has no effect on still images" in text] != []
    assert report.depth_change == ()
    film = stream.run("photos", output="film.mp4", fps=25, steady=True, **QUICK)
    assert film.depth_change != ()
    assert not [text for text in film.notes if "--steady" in text]


def info(kind: SourceKind) -> SourceInfo:
    return SourceInfo(
        name="x", size=(48, 64), is_live=False, time_base=Fraction(1, 25), rate=None, frame_count=None, kind=kind
    )


@pytest.mark.parametrize("kind", [SourceKind.VIDEO, SourceKind.CAMERA, SourceKind.NETWORK, SourceKind.PATTERN])
def test_every_video_is_steadied_and_metres_only_with_a_note(kind: SourceKind) -> None:
    given: Inference = Given([])
    config = from_options("x", {"steady": True})
    for depth_kind, said in (
        (DepthKind.RELATIVE_DISPARITY, []),
        (DepthKind.METRIC_DEPTH, ["--steady scales metres by up to 25% to keep them steady"]),
    ):
        with collected(Notes()) as notes:
            assert isinstance(steadied(config, info(kind), given, [depth_kind]), Steady)
            assert notes.said == said
    plain = from_options("x", {})
    assert steadied(plain, info(kind), given, [DepthKind.METRIC_DEPTH]) is given
    assert isinstance(steadied(plain, info(kind), given, [DepthKind.METRIC_DEPTH], measure=True), Steady)


def test_the_command_takes_it(clip: str) -> None:
    assert invoke(["run", clip, "--steady", "-o", "out.mp4", "--report", "r.json", "-q", "--input-size", "96"]) == 0
    assert json.loads(Path("r.json").read_text())["depth_change"][0]["steadied"] is not None
