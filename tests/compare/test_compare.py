"""Comparisons: sheets, contact sheets and numbers of real models on real files."""

import json
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stream.cli.main import invoke
from stream.compare import engine, inference
from stream.compare.agreement import agreement, fit_scale_shift
from stream.compare.candidates import Candidate, candidates_of
from stream.compare.outputs import AgreementSink, ContactSheetSink
from stream.compare.sheet import GAP_PX, MAX_PANE_PX, MAX_WIDTH_PX, SheetRenderer
from stream.config import Config
from stream.depthdata.alignment import averaged
from stream.errors import SinkError
from stream.frames import ComparedDepth, Depth, DepthKind, Frame
from stream.infer import device
from stream.media import av, cv2
from stream.models import registry
from stream.render.colormap import NO_ANSWER
from stream.render.range import FrameRange
from tests.support.fakes import frame
from tests.support.manifests import checkpoint, reference
from tests.support.media_files import write_video
from tests.support.paths import DATA
from tests.support.picture_files import save, save_heic, scene
from tests.support.pumping import SIZE, views

SMALL = "midas_v21_small_256"


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    data = DATA / "models" / f"{SMALL}.json"
    torch.save(checkpoint(reference(data)["state_dict"]), path)
    return path


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, used by no other process."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def wavy(height: int = 60, width: int = 80) -> np.ndarray[Any, np.dtype[np.float32]]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return (np.sin(x / 9) + y / height + 2).astype(np.float32)


def test_alignment_undoes_a_scale_and_a_shift_whatever_the_sizes() -> None:
    values = wavy()
    found = fit_scale_shift(values, 3 * values + 7)
    assert (found.scale, found.shift) == (pytest.approx(3, rel=1e-4), pytest.approx(7, rel=1e-4))
    np.testing.assert_allclose(found.apply(values), 3 * values + 7, rtol=1e-4)
    large = np.asarray(Image.fromarray(3 * values + 7).resize((320, 240), Image.Resampling.BILINEAR), np.float32)
    assert fit_scale_shift(values, large).scale == pytest.approx(3, rel=0.03)


def test_a_map_that_is_constant_or_negatively_correlated_gets_the_mean_of_the_reference() -> None:
    values = wavy()
    for other in (-values, np.full_like(values, 4)):
        found = fit_scale_shift(other, values)
        assert (found.scale, found.shift) == (0, pytest.approx(values.mean(), rel=1e-5))


def test_agreement_is_perfect_up_to_scale_and_shift_and_negative_for_opposites() -> None:
    values = wavy()
    same = agreement(5 * values - 3, values)
    assert same.abs_rel == pytest.approx(0, abs=1e-5)
    assert (same.delta_1_25, same.spearman) == (1, pytest.approx(1))
    assert agreement(-values, values).spearman == pytest.approx(-1)
    noisy = values + np.random.default_rng(0).normal(0, 0.3, values.shape).astype(np.float32)
    other = agreement(noisy, values)
    assert 0.02 < other.abs_rel < 1
    assert 0.5 < other.spearman < 0.99


def test_agreement_with_metric_depth_is_in_metres() -> None:
    near, far = np.float32(1 / 2), np.float32(1 / 4)
    reference_map = np.where(wavy() > 2.5, near, far)
    off = np.where(wavy() > 2.5, near, far)
    off[:30] = np.where(off[:30] == near, far, near)  # the upper half is the wrong way round
    found = agreement(off, reference_map, kind=DepthKind.METRIC_DEPTH)
    assert found.delta_1_25 < 0.9
    assert agreement(reference_map, reference_map, kind=DepthKind.METRIC_DEPTH).abs_rel == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("values", [np.zeros((4, 4), np.float32), np.full((1, 1), 7, np.float32)])
def test_numbers_are_finite_for_constant_maps(values: Any) -> None:
    found = agreement(values, values)
    assert np.isfinite([found.abs_rel, found.delta_1_25, found.spearman]).all()


def test_ranks_of_ties_are_shared() -> None:
    a = np.array([[1, 1, 2, 3]], np.float32)
    b = np.array([[1, 2, 3, 3]], np.float32)
    ranks_a, ranks_b = np.array([1.5, 1.5, 3, 4]), np.array([1, 2, 3.5, 3.5])
    assert agreement(a, b).spearman == pytest.approx(np.corrcoef(ranks_a, ranks_b)[0, 1])


def holed(values: np.ndarray[Any, np.dtype[np.float32]], *, above: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.where(values > above, np.float32(np.nan), values)


@pytest.mark.parametrize("kind", list(DepthKind))
def test_numbers_are_of_the_pixels_that_both_have_an_answer_for(kind: DepthKind) -> None:
    values = wavy()
    noisy = values + np.random.default_rng(0).normal(0, 0.3, values.shape).astype(np.float32)
    known = (values <= 2.9) & (noisy > 1.2)
    found = agreement(np.where(noisy > 1.2, noisy, np.nan).astype(np.float32), holed(values, above=2.9), kind=kind)
    alone = agreement(noisy[known][None], values[known][None], kind=kind)
    assert found is not None
    assert alone is not None
    assert (found.abs_rel, found.delta_1_25) == pytest.approx((alone.abs_rel, alone.delta_1_25), rel=1e-6)
    assert found.spearman == pytest.approx(alone.spearman)
    assert (found.compared, alone.compared) == (pytest.approx(known.mean()), 1)
    fitted = fit_scale_shift(np.where(known, noisy, np.nan).astype(np.float32), values)
    assert fitted.scale == pytest.approx(fit_scale_shift(noisy[known][None], values[known][None]).scale, rel=1e-6)


def test_a_large_map_with_a_hole_gives_the_numbers_of_the_rest() -> None:
    values = wavy(900, 1200)
    sky = values.copy()
    sky[:450] = np.nan
    found, rest = agreement(3 * sky + 1, values), agreement(3 * values[450:] + 1, values[450:])
    assert found is not None
    assert rest is not None
    assert found.abs_rel == pytest.approx(rest.abs_rel, abs=1e-4)
    assert found.compared == pytest.approx(0.5, abs=0.01)


def test_maps_without_an_answer_in_common_have_no_agreement() -> None:
    values = wavy()
    low, high = np.where(values < 2, values, np.nan), np.where(values < 2, np.nan, values)
    assert agreement(low.astype(np.float32), high.astype(np.float32)) is None


def test_relative_depth_agrees_with_metres_up_to_a_scale() -> None:
    metres = wavy()
    found = agreement(1 / metres, 1 / (7 * metres), kind=DepthKind.RELATIVE_DEPTH)
    assert found is not None
    assert found.abs_rel == pytest.approx(0, abs=1e-5)
    halved = np.where(metres > 2, 1 / metres, 2 / metres)
    one, other = (agreement(halved, 1 / (unit * metres), kind=DepthKind.RELATIVE_DEPTH) for unit in (1, 1000))
    assert one is not None
    assert other is not None
    assert one.abs_rel > 0.05
    assert one.abs_rel == pytest.approx(other.abs_rel, rel=1e-4)


def compared(index: int, kind: DepthKind = DepthKind.RELATIVE_DISPARITY) -> tuple[Frame, ComparedDepth]:
    picture = frame(index, (60, 80))
    values = wavy()
    other = Depth(values=(10 * values - 5 if kind.is_disparity else 1 / values), kind=kind, index=index)
    first = ComparedDepth(values=values, kind=DepthKind.RELATIVE_DISPARITY, index=index, others=(other,))
    return picture, first


@pytest.mark.parametrize("kind", list(DepthKind))
def test_a_sheet_shows_all_models_in_the_same_colours(kind: DepthKind) -> None:
    renderer = SheetRenderer(["one", "two"], colormap="gray", range_policy=FrameRange())
    sheet = renderer.render(*compared(3, kind))
    assert sheet.shape[:2] == renderer.output_size((60, 80))
    title = sheet.shape[0] - 60
    panes = [sheet[title:, n * (80 + GAP_PX) :][:, :80].astype(int) for n in range(3)]
    np.testing.assert_array_equal(panes[0], frame(3, (60, 80)).rgb)
    assert panes[1].max() - panes[1].min() == 255
    assert np.abs(panes[2] - panes[1]).max() <= 2
    near = np.unravel_index(wavy().argmax(), (60, 80))
    assert panes[1][near].min() == panes[2][near].max() == 255
    assert (sheet[:title].min(axis=(0, 2)) < 128).sum() > 10  # something is written above


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", list(DepthKind))
def test_a_sheet_shows_what_has_no_answer_in_one_colour(kind: DepthKind) -> None:
    picture, depth = compared(0, kind)
    sky, holes = wavy() > 3, wavy() < 1.4
    other = replace(depth.others[0], valid=~holes)
    renderer = SheetRenderer(["one", "two"], colormap="viridis", range_policy=FrameRange())
    nothing = np.zeros_like(sky)
    for valid, second in (~sky, other), (nothing, other), (~sky, replace(other, valid=nothing)):
        sheet = renderer.render(picture, replace(depth, valid=valid, others=(second,)))
        for number, one in enumerate((valid, second.valid), start=1):
            assert one is not None
            pane = sheet[sheet.shape[0] - 60 :, number * (80 + GAP_PX) :][:, :80]
            np.testing.assert_array_equal((pane == NO_ANSWER).all(axis=-1), ~one)


def test_averaging_leaves_out_what_has_no_answer() -> None:
    nan = np.nan
    values = np.array([[1, 3, nan, 5, nan, nan], [2, 2, 7, 6, 9, nan]], np.float32)
    np.testing.assert_allclose(averaged(values, (3, 1)), [[2, 6, nan]])
    whole = wavy(90, 120)
    np.testing.assert_array_equal(averaged(whole, (40, 30)), cv2.resize(whole, (40, 30), interpolation=cv2.INTER_AREA))


def test_masks_are_kept_with_maps_on_the_disk_and_beside_other_maps(tmp_path: Path) -> None:
    picture, depth = compared(0, DepthKind.RELATIVE_DEPTH)
    masked = replace(depth.others[0], valid=wavy() < 2.5, model="two")

    class Sky:
        spec = registry.find("starter")

        def key(self, frame: Frame) -> None:
            pass

        def infer(self, frames: list[Frame]) -> list[Depth]:
            return [masked]

    renderer = SheetRenderer(["one", "two"], colormap="gray", range_policy=FrameRange())
    use = inference.ModelUse(Sky.spec)
    stored = inference._stored(Sky(), use, picture, renderer.pane_size)  # type: ignore[arg-type]
    np.savez(inference._stored_path(tmp_path, picture), **stored)  # type: ignore[arg-type]
    first, second = inference.PrecomputedInference(Sky(), use, [tmp_path])._maps(picture)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(second.valid, masked.valid)
    assert second.kind is DepthKind.RELATIVE_DEPTH
    both = ComparedDepth.of(masked, [second])
    assert (both.kind, both.model, both.all) == (masked.kind, "two", (both, second))
    np.testing.assert_array_equal(both.valid, masked.valid)


def test_means_leave_out_frames_without_anything_in_common(tmp_path: Path) -> None:
    found = iter([{"abs_rel": 1.0}, {"abs_rel": None}, {"abs_rel": 3.0}])
    sink = AgreementSink(tmp_path / "a.json", heading={}, measure=lambda _: {"A | B": next(found)})
    for index in range(3):
        sink.write(*compared(index), np.zeros((1, 1, 3), np.uint8))
    sink.finish()
    assert json.loads((tmp_path / "a.json").read_text())["mean"] == {"A | B": {"abs_rel": 2}}


def test_large_pictures_are_shrunk_and_videos_stay_decodable() -> None:
    names = ["a", "b", "c"]
    sheet = SheetRenderer(names, colormap="gray", range_policy=FrameRange())
    assert sheet.output_size((3000, 4000))[1] == 4 * MAX_PANE_PX + 3 * GAP_PX
    video = SheetRenderer(names, colormap="gray", range_policy=FrameRange(), max_width=MAX_WIDTH_PX)
    assert video.output_size((1080, 1920))[1] <= MAX_WIDTH_PX


def test_a_contact_sheet_has_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.compare.outputs._ROWS_PER_PAGE", 2)
    sink = ContactSheetSink(tmp_path / "contact.png")
    picture, depth = compared(0)
    for _ in range(5):
        sink.write(picture, depth, np.zeros((60, 200, 3), np.uint8))
    sink.finish()
    assert [Path(path).name for path in sink.outputs] == ["contact.png", "contact_2.png", "contact_3.png"]
    heights = [len(pixels(path)) for path in sink.outputs]
    assert heights[0] == heights[1] == 2 * heights[2]


def pixels(path: str | Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def photos() -> None:
    Path("photos").mkdir()
    save(Path("photos/a.jpg"), scene(48, 64))
    save_heic(Path("photos/b.heic"), scene(72, 48))
    Path("photos/broken.jpg").write_bytes(b"\xff\xd8\xff nonsense")


def test_photos_give_sheets_a_contact_sheet_and_numbers(small_weights: Path) -> None:
    photos()
    models = ["-m", "starter", "-m", f"{SMALL}={small_weights}"]
    code = invoke(["compare", "photos", *models, "--refine", "--steady", "--report", "r.json", "-q"])
    assert code == 3
    out = Path("photos_compare")
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "contact_sheet.png", "compare.json"}
    numbers = json.loads((out / "compare.json").read_text())
    assert numbers["models"] == ["starter", SMALL]
    assert [result["name"] for result in numbers["results"]] == ["a.jpg", "b.heic"]
    pair = numbers["results"][0]["pairs"][f"starter | {SMALL}"]
    assert set(pair) == {"abs_rel", "delta_1_25", "spearman", "compared"}
    assert pair["compared"] == 1
    mean = [result["pairs"][f"starter | {SMALL}"]["spearman"] for result in numbers["results"]]
    assert numbers["mean"][f"starter | {SMALL}"]["spearman"] == pytest.approx(np.mean(mean))
    assert pixels(out / "a.png").shape[1] == 3 * 64 + 2 * GAP_PX
    report = json.loads(Path("r.json").read_text())
    assert report["model"] == f"starter | {SMALL}"
    assert (numbers["refined"], numbers["steadied"]) == ({"starter": False, SMALL: False}, False)
    assert report["refined"] is False
    assert "--steady has no effect on still images" in report["notes"]
    assert report["skipped"][0]["name"] == "broken.jpg"


@pytest.mark.slow
def test_models_that_do_not_fit_together_give_the_same(
    small_weights: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos()
    save(Path("photos/large.png"), scene(240, 320))
    models = ["-m", "starter", "-m", f"{SMALL}={small_weights}", "-q", "--refine"]
    assert invoke(["compare", "photos", *models, "-o", "together"]) == 3
    monkeypatch.setattr(device, "host_memory_bytes", lambda: 1000)
    assert invoke(["compare", "photos", *models, "-o", "apart"]) == 3
    assert list(temporary.iterdir()) == []
    for name in ("a.png", "b.png", "contact_sheet.png"):  # the number of torch's threads may change the last bit
        np.testing.assert_allclose(pixels(f"apart/{name}"), pixels(f"together/{name}"), atol=1)
    apart, together = (json.loads(Path(folder, "compare.json").read_text()) for folder in ("apart", "together"))
    assert apart.keys() == together.keys()
    assert apart["refined"] == together["refined"] == {"starter": True, SMALL: True}
    assert apart["steadied"] is together["steadied"] is False
    for a, b in zip(apart["results"], together["results"], strict=True):
        assert a["name"] == b["name"]
        assert a["pairs"][f"starter | {SMALL}"] == pytest.approx(b["pairs"][f"starter | {SMALL}"], rel=1e-3)


def test_a_video_gives_a_video_with_its_times(small_weights: Path, tmp_path: Path) -> None:
    times, shown = {"pts": [0, 40, 90, 300], "time_base": Fraction(1, 1000)}, views(4)
    write_video(tmp_path / "clip.mp4", **times, audio_s=0.5, size_hw=SIZE, draw=lambda at, _: shown[at].rgb)  # type: ignore[arg-type]
    models = ["-m", "starter", "-m", f"{SMALL}={small_weights}"]
    assert invoke(["compare", "clip.mp4", *models, "--steady", "-q"]) == 0
    with av.open("clip_compare.mp4") as made:
        assert [picture.pts for picture in made.decode(video=0)] == [0, 40, 90, 300]
        assert made.streams.audio
    numbers = json.loads(Path("clip_compare.json").read_text())
    assert [result["time_s"] for result in numbers["results"]] == [0, 0.04, 0.09, 0.3]
    assert (numbers["refined"], numbers["steadied"]) == ({"starter": False, SMALL: False}, True)
    changes = numbers["depth_change"]
    assert list(changes) == ["starter", SMALL]
    assert changes["starter"]["steadied"] < changes["starter"]["raw"]
    assert changes["starter"]["pairs"] == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["photos", "-m", "starter"], "needs two models or more"),
        (["photos", "-m", "starter", "-m", "STARTER"], "named twice"),
        (["photos", "-m", "starter", "-m", "nonsense"], "unknown model"),
        (["photos", "-m", "starter", "-m", f"{SMALL}=nowhere.pt"], "no such weights file"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "x.mp4"], "comparison of images is a folder"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "photos", "--overwrite"], "input"),
        (["pattern:testsrc2", "-m", "starter", "-m", SMALL], "live source"),
        (["contact", "-m", "starter", "-m", SMALL], "name of the contact sheet"),
        (["photos"], "--model"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_nothing(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos()
    Path("contact").mkdir()
    save(Path("contact/contact_sheet.jpg"), scene())
    before = set(Path().rglob("*"))
    assert invoke(["compare", *arguments, "--offline"]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert set(Path().rglob("*")) == before


def test_names_are_catalog_names() -> None:
    assert Candidate.parse("dav2-small=x.pt").weights == Path("x.pt")
    assert candidates_of(["dav2-small", "starter"], Config())[0].spec is registry.find("dav2-small")


def test_what_is_needed_is_checked_before_the_first_model_runs(
    small_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos()
    monkeypatch.setattr(device, "host_memory_bytes", lambda: 1000)
    monkeypatch.setattr(engine, "precompute_maps", lambda *_args, **_options: pytest.fail("a model was run"))
    models = ["-m", "starter", "-m", f"{SMALL}={small_weights}", "--offline"]
    assert invoke(["compare", "photos", *models, "-m", "dpt_levit_224"]) == 1
    assert "dpt_levit_224.pt) are missing" in capsys.readouterr().err
    assert invoke(["compare", "photos", *models, "--precision", "fp16"]) == 2
    Path("report").mkdir()
    assert invoke(["compare", "photos", *models, "-o", "report", "--report", "report/compare.json"]) == 2
    assert "is an output of this run" in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_while_maps_are_stored_is_an_error_that_cleans_up(
    small_weights: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos()

    def full(*_args: object, **_values: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(device, "host_memory_bytes", lambda: 1000)
    monkeypatch.setattr(inference.np, "savez", full)
    assert invoke(["compare", "photos", "-m", "starter", "-m", f"{SMALL}={small_weights}", "-q"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(temporary.iterdir()) == []
    assert not Path("photos_compare").exists()


@pytest.mark.slow
def test_an_image_that_one_model_rejects_is_named_with_the_model_and_the_reason(
    small_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos()
    save(Path("photos/wide.png"), np.zeros((2, 4000, 3), np.uint8))
    monkeypatch.setattr("stream.infer.geometry.MAX_INPUT_PIXELS", 200_000)
    models = ["-m", f"{SMALL}={small_weights}", "-m", "starter"]
    for name, memory in (("together", None), ("apart", 1000)):
        with monkeypatch.context() as patch:
            if memory is not None:
                patch.setattr(device, "host_memory_bytes", lambda: 1000)
            assert invoke(["compare", "photos", *models, "-o", name]) == 3
        skipped = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped wide.png")]
        assert len(skipped) == 1
        assert "network input" in skipped[0]
        assert not Path(name, "wide.png").exists()


def test_an_interrupted_comparison_is_marked_as_partial(tmp_path: Path) -> None:
    sink = AgreementSink(tmp_path / "n.json", heading={}, measure=lambda _depth: {"a | b": {"spearman": 0.5}})
    picture, depth = compared(0)
    sink.write(picture, depth, np.zeros((2, 2, 3), np.uint8))
    sink.keep_partial("interrupted")
    assert [Path(path).name for path in sink.outputs] == ["n.partial.json"]
    assert not (tmp_path / "n.json").exists()


def test_numbers_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sink = AgreementSink(tmp_path / "file" / "n.json", heading={}, measure=lambda _depth: {})
    with pytest.raises(SinkError, match="cannot be written"):
        sink.finish()
