"""Surveys with styles and of animations, from the command to the report: real models on real files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stream.cli.main import invoke
from stream.survey.record import Survey
from tests.support.manifests import checkpoint, reference
from tests.support.media_files import write_video
from tests.support.paths import DATA
from tests.support.picture_files import animated, save, scene

SMALL = "midas_v21_small_256"
Models = list[str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(checkpoint(reference(DATA / "models" / f"{SMALL}.json")["state_dict"]), path)
    return ["starter", f"{SMALL}={path}"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photos(count: int, folder: str = "photos") -> None:
    for number in range(count):
        path = Path(folder, f"{number}.png")
        path.parent.mkdir(exist_ok=True)
        save(path, np.roll(scene(48, 64), 5 * number, axis=1))


def named(models: Models) -> list[str]:
    return [word for model in models for word in ("-m", model)]


def numbers(path: str | Path) -> Survey:
    """What a report holds; NaN and infinity are refused."""

    def refuse(text: str) -> None:
        pytest.fail(f"{text} is no JSON")

    return Survey.model_validate(json.loads(Path(path).read_text(), parse_constant=refuse))


@pytest.mark.slow
def test_styles_are_measured_shown_and_counted(
    models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stream.infer.geometry.MAX_INPUT_PIXELS", 200_000)
    photos(2)
    save(Path("photos/wide.png"), np.zeros((2, 4000, 3), np.uint8))  # refused by a model, with its styles
    save(Path("photos/flat.png"), np.full((48, 64, 3), 90, np.uint8))
    Path("photos/bad.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert invoke(["survey", "photos", *named(models), "--styles", "gray,poster,gray", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert (report["captured"], report["written"], len(report["skipped"])) == (13, 9, 4)  # bad.jpg, and wide.png thrice
    found = numbers("photos_survey/survey.json")
    assert [photo.name for photo in found.photos] == ["0.png", "1.png", "flat.png"]
    assert {one.name for one in found.skipped} == {"bad.jpg", "wide.png"}
    assert list(found.style_summary) == ["gray", "poster"]
    assert found.style_sheets == {style: [f"styles_{style}.jpg"] for style in ("gray", "poster")}
    page = Path("photos_survey/report.html").read_text(encoding="utf-8")
    assert all(f'href="{name}"' in page for names in found.style_sheets.values() for name in names)
    assert 'href="#finding-styles"' in page
    assert 'id="finding-styles"' in page
    for photo in found.photos:
        assert list(photo.styles) == list(photo.styled_pictures) == ["gray", "poster"]
        for style, pictures in photo.styled_pictures.items():
            assert list(pictures) == ["photo", "depth:starter", f"depth:{SMALL}"]
            assert all(Path("photos_survey", name).is_file() for name in pictures.values())
            assert all(f".{style}." in name for name in pictures.values())
    moved = found.photos[0].styles["gray"]["starter"].value
    assert moved is not None
    assert 0 < moved < 1
    row = found.style_summary["gray"]["starter"]
    assert row.mean == pytest.approx(np.mean([one.styles["gray"]["starter"].value for one in found.photos]), rel=1e-6)
    page = Path("photos_survey/report.html").read_text()
    assert all(name in page for name in found.photos[0].styled_pictures["poster"].values())
    for name in ("gray", "poster"):
        with Image.open(f"photos_survey/styles_{name}.jpg") as sheet:
            assert sheet.width > 1000


def test_styles_are_for_photos_and_unknown_ones_are_refused(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    photos(1)
    write_video(Path("clip.mp4"), frames=3)
    for source, style, said in (
        ("clip.mp4", "line", "applies to photos"),
        ("photos", "oil", "allowed: cartoon, line, poster, paint, gray, all"),
    ):
        assert invoke(["survey", source, *named(models), "--styles", style]) == 2
        assert said in capsys.readouterr().err
    assert not Path("photos_survey").exists()


def test_an_animation_among_photos_is_surveyed_by_frame(models: Models) -> None:
    photos(1)
    animated(Path("photos/a.gif"), [np.roll(scene(48, 64), 9 * n, axis=1) for n in range(3)], [50] * 3)
    assert invoke(["survey", "photos", *named(models), "-q"]) == 0
    found = numbers("photos_survey/survey.json")
    assert [photo.name for photo in found.photos] == ["0.png", "a.gif#0000", "a.gif#0001", "a.gif#0002"]
    assert all("#" not in name for photo in found.photos for name in photo.pictures.values())
