"""The pictures of a survey: shared colours, true differences, names that every file system and browser takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stream.depthdata.alignment import fitted
from stream.frames import DepthKind, DepthMap
from stream.render import colormap as colormaps
from stream.survey.pictures import DIFFERENCES, PictureNames, portable, write_pictures
from stream.survey.scene import Scene, Truth


def made(raw: dict[str, DepthMap], truth: DepthMap | None = None) -> Scene:
    reference = next(iter(raw.values())) if truth is None else truth
    return Scene(
        name="a.jpg",
        rgb=np.full((*reference.shape, 3), 128, np.uint8),
        maps={name: fitted(one, reference) for name, one in raw.items()},
        raw=raw,
        kinds=dict.fromkeys(raw, DepthKind.RELATIVE_DISPARITY),
        truth=None if truth is None else Truth(disparity=truth),
    )


def ramp(height: int = 40, width: int = 50) -> DepthMap:
    return np.linspace(0.0, 1.0, height * width, dtype=np.float32).reshape(height, width)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_colour_is_the_same_disparity_in_every_map(tmp_path: Path) -> None:
    truth = ramp()
    wrong = truth.copy()
    wrong[:, 25:] += np.float32(0.25) * (np.arange(40) % 2)[:, None]
    written = write_pictures(made({"m": 7 * truth - 3, "n": wrong}, truth), tmp_path, "a", colormap="viridis")
    assert set(written.files) == {
        "photo", "truth", "depth:m", "depth:n", "difference:truth|m", "difference:truth|n", "difference:m|n",
    }  # fmt: skip
    low, high = np.percentile(truth, (1, 99))
    assert (written.scale.low, written.scale.high) == pytest.approx((low, high))
    shown = {key: pixels(tmp_path / path).astype(int) for key, path in written.files.items()}
    assert np.abs(shown["truth"] - shown["depth:m"]).max() <= 3, "the same depth in another unit"
    table = colormaps.table("viridis").astype(int)
    index = ((truth - low) / (high - low) * 255).clip(0, 255).astype(int)
    assert np.abs(shown["truth"] - table[index]).max() <= 3


def test_a_difference_map_shows_how_far_two_maps_are_apart(tmp_path: Path) -> None:
    truth = ramp()
    off = truth + np.where(np.arange(50) % 2, np.float32(0.1), np.float32(-0.1))
    scene = made({"m": truth, "n": off}, truth)
    written = write_pictures(scene, tmp_path, "a", colormap="inferno")
    same, apart = (pixels(tmp_path / written.files[f"difference:{pair}"]) for pair in ("truth|m", "truth|n"))
    assert np.unique(same.reshape(-1, 3), axis=0).tolist() == [colormaps.table(DIFFERENCES)[1].tolist()], "nothing"
    index = (np.abs(truth - scene.maps["n"]) / written.scale.difference * 255).astype(int)
    assert 40 < index.mean() < 60, "0.1 of 0.49 after the fit"
    assert np.abs(apart.astype(int) - colormaps.table(DIFFERENCES).astype(int)[index]).max() <= 4
    assert written.scale.difference == pytest.approx((written.scale.high - written.scale.low) / 2)


def test_a_map_that_is_the_wrong_way_round_has_its_own_range_and_no_difference(tmp_path: Path) -> None:
    first = ramp()
    written = write_pictures(made({"m": first, "n": 100 - 50 * first}), tmp_path, "a", colormap="gray")
    assert set(written.files) == {"photo", "depth:m", "depth:n"}
    assert written.scale.own["n"] == pytest.approx((50.5, 99.5), abs=0.1)
    shown = pixels(tmp_path / written.files["depth:n"])
    assert np.ptp(shown) > 250, "it uses all colours"


@pytest.mark.parametrize("values", [np.zeros((8, 8), np.float32), np.full((8, 8), np.nan, np.float32)])
def test_maps_without_a_difference_or_without_an_answer_have_pictures(tmp_path: Path, values: DepthMap) -> None:
    for raw in ({"m": values, "n": ramp(8, 8)}, {"n": ramp(8, 8), "m": values}):
        written = write_pictures(made(raw), tmp_path, "a", colormap="gray")
        shown = pixels(tmp_path / written.files["depth:m"])
        assert np.unique(shown).tolist() == [0 if np.isnan(values).all() else 127]
        assert all(np.isfinite([written.scale.low, written.scale.high, written.scale.difference]))


def test_without_an_answer_is_transparent_in_depth_and_difference(tmp_path: Path) -> None:
    first, second = ramp(), ramp()
    second[:10] = np.nan
    written = write_pictures(made({"m": first, "n": second}), tmp_path, "a", colormap="viridis")
    assert written.scale.gaps == ["depth:n", "difference:m|n"]
    for key in ("depth:m", "depth:n", "difference:m|n"):
        with Image.open(tmp_path / written.files[key]) as picture:
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        assert (alpha[:10] == (255 if key == "depth:m" else 0)).all()
        assert (alpha[10:] == 255).all()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b#1 ü%.jpg", "a b_1 ü_.jpg"), ("<script>.png", "_script_.png"), ("sub/ok-1.jpg", "sub/ok-1.jpg"),
        ('a:"b"|c?*\\.jpg', "a__b__c___.jpg"), ("a\udcff\n\x00.jpg", "a___.jpg"), ("con.jpg", "_con.jpg"),
        ("LPT1/nul", "_LPT1/_nul"), ("concert.jpg", "concert.jpg"), ("trip. /a.jpg", "trip_/a.jpg"), ("...", "_"),
    ],
)  # fmt: skip
def test_a_name_works_on_every_file_system(name: str, safe: str) -> None:
    assert portable(name) == safe


def test_no_two_pictures_get_the_same_name(tmp_path: Path) -> None:
    names = [
        "a#.jpg",
        "a%.jpg",
        "a_.png",
        "A_.jpg",
        "a_.m.png",
        "a_.m.n.jpg",
        "sub/a_.jpg",
        "a_.m-minus-n.jpg",
        "../x.jpg",
    ]
    stems = PictureNames(names, ["m", "n"], ["line"])
    files: list[str] = []
    scene = made({"m": ramp(4, 4), "n": ramp(4, 4)}, ramp(4, 4))
    for index, name in enumerate(names):
        stem = stems.stem(name, index)
        for part in ("", ".line"):
            files += write_pictures(scene, tmp_path, f"pictures/{stem}{part}", colormap="gray").files.values()
    assert len({file.casefold() for file in files}) == len(files) == len(names) * 2 * 7
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()}
    assert written == set(files)


def test_a_long_name_is_cut_so_that_its_longest_file_fits(tmp_path: Path) -> None:
    name, model = "ö" * 120 + ".jpg", "x" * 60
    stem = PictureNames([name], [model, "n"]).stem(name, 0)
    written = write_pictures(made({model: ramp(4, 4), "n": ramp(4, 4)}, ramp(4, 4)), tmp_path, stem, colormap="gray")
    assert all((tmp_path / path).is_file() for path in written.files.values())
