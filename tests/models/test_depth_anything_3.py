"""Depth Anything 3 against numbers that the authors' own code gave, and what becomes of its sky, confidence and camera.

`tests/data/models/depth_anything_3/*.json` hold what the official networks compute on deterministic weights and
pictures (see `tests/support/reference.py`). The official results have the size of the network's input.
"""

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import stream
from stream.errors import ModelError
from stream.frames import Depth, Intrinsics
from stream.infer.backends.eager import placed
from stream.infer.device import DTYPES
from stream.models import registry
from stream.models.answer import View
from stream.models.depth_anything_3.answer import without_sky
from stream.models.weights.unwrap import unwrap
from tests.support.manifests import checkpoint, error, on_grid, reference
from tests.support.paths import DATA
from tests.support.reference import image

TOLERANCE = 1e-4
"""Of the official output's standard deviation; what is reached is 2e-5."""
BACKEND_TOLERANCE = 1e-3
FOLDER = DATA / "models" / "depth_anything_3"
NAMES = ("da3_small", "da3_base", "da3mono_large", "da3metric_large")


def facts(name: str) -> dict[str, Any]:
    return reference(FOLDER / f"{name}.json")


def entries(name: str) -> list[Any]:
    found: list[Any] = facts("da3mono_large" if name == "da3metric_large" else name)["state_dict"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_is_the_official_one(name: str) -> None:
    spec, expected = registry.find(name), entries(name)
    ours = {key: list(value.shape) for key, value in registry.build(spec).state_dict().items()}
    theirs = {key.removeprefix("model."): shape for key, shape, _, _ in expected}
    assert ours == {key: shape for key, shape in theirs.items() if not registry.is_ignored(spec, key)}
    once = {key: shape for key, shape in theirs.items() if not re.search(r"output_conv2_aux\.[123]\.2", key)}  # shared
    assert sum(math.prod(shape) for shape in once.values()) == facts(name)["parameters"]


def test_its_file_is_told_by_a_model_that_has_the_same_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(registry.find(name) for name in ("dav2-small", "dav1-small", "da3-small", "da3-base"))
    monkeypatch.setattr(registry.catalog, "MODELS", rows)  # the others take seconds to build
    torch.save({key: torch.zeros(1).expand(shape) for key, shape, _, _ in entries("da3_small")}, tmp_path / "mine.pt")
    for name, said in (("dav2-small", "use"), ("da3-base", "the file fits")):
        with pytest.raises(ModelError, match=rf"{said} -m da3_small$"):
            registry.load(name, weights=tmp_path / "mine.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights of each model that a test uses, made once; emptied at once, because they take up to 3 GB."""
    path = tmp_path_factory.mktemp("weights")
    yield path
    shutil.rmtree(path)


def weights_of(name: str, folder: Path) -> Path:
    folder /= "of both" if name in ("da3mono_large", "da3metric_large") else name  # a folder's name says what it holds
    path = folder / "model.safetensors"
    if not path.exists():
        path.parent.mkdir()
        save_file(checkpoint(entries(name)), path)
    return path


def cases(name: str, *, most: int | None = None) -> list[Any]:
    return [case for case in facts(name)["cases"] if most is None or case["options"].get("process_res", 504) <= most]


def depth_of(name: str, case: Any, folder: Path, **options: Any) -> Depth:
    """What a run gives for the picture of a case."""
    results = stream.iter_depth(
        image(*case["image"]), model=name, weights=weights_of(name, folder), precision="fp32", threads=2,
        **{"device": "cpu", **({"input_size": case["options"]["process_res"]} if case["options"] else {}), **options},
    )  # fmt: skip
    ((_, depth),) = results
    return depth


def check_any_view(name: str, case: Any, folder: Path, *, device: str = "cpu") -> None:
    depth = depth_of(name, case, folder, device=device)
    assert error(depth.values, case["full_suggested"]) < TOLERANCE
    assert depth.valid is None
    assert depth.confidence is not None
    _, height, width = case["input"]["shape"]
    if (width, height) == tuple(case["image"]):
        assert error(depth.confidence, case["conf"]) < TOLERANCE
    corners = np.array(case["conf"]["grid24"])[::23, ::23]  # aligned corners stay when a map is resized
    assert depth.confidence[:: depth.size[0] - 1, :: depth.size[1] - 1] == pytest.approx(corners, rel=1e-4)
    (fx, _, _), (_, fy, _), _ = case["intrinsics"]
    assert depth.intrinsics is not None
    across, down = case["image"][0] / width, case["image"][1] / height
    found = depth.intrinsics.fx, depth.intrinsics.fy, depth.intrinsics.cx, depth.intrinsics.cy
    assert found == pytest.approx((fx * across, fy * down, case["image"][0] / 2, case["image"][1] / 2), rel=1e-5)


@pytest.mark.parametrize("number", range(len(cases("da3_small", most=252))))
def test_small_gives_the_official_depth_confidence_and_camera(number: int, folder: Path) -> None:
    check_any_view("da3_small", cases("da3_small", most=252)[number], folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["da3_small", "da3_base"])
def test_models_for_any_view_give_the_official_numbers_in_all_sizes(name: str, folder: Path) -> None:
    for case in cases(name):
        check_any_view(name, case, folder)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("number", range(len(cases("da3_small"))))
def test_small_gives_the_official_numbers_on_cuda(number: int, folder: Path) -> None:
    check_any_view("da3_small", cases("da3_small")[number], folder, device="cuda")


def check_outside_of_the_sky(depth: Depth, expected: Any, tolerance: float = TOLERANCE, *, fill: float = 0.0) -> None:
    """Compare where there is depth, and see that this is not everywhere.

    Args:
        fill: how far the depth that the official run gave the sky is from the quantile of all values: beyond 100000
            pixels it takes that of a random sample. Beside the sky, at most half of it is blended in.
    """
    assert depth.valid is not None
    assert 0.5 < depth.valid.mean() < 1
    sky = torch.from_numpy(~depth.valid).float()[None]
    far_from_it = torch.nn.functional.max_pool2d(sky, 9, 1, 4)[0].numpy() == 0
    known = on_grid(depth.valid.astype(np.float32)) == 1
    assert 0.5 < known.mean() < 1
    difference = np.abs(on_grid(depth.values) - np.array(expected["grid24"])) / expected["std"]
    allowed = tolerance + np.where(on_grid(far_from_it.astype(np.float32)) == 1, 0, fill / 2 / expected["std"])
    assert (difference < allowed)[known].all()


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=pytest.mark.slow if case["options"] else pytest.mark.release)  # the default is large
        for number, case in enumerate(cases("da3mono_large"))
    ],
)
def test_mono_and_metric_give_the_official_numbers_outside_of_the_sky(number: int, folder: Path) -> None:
    case, metric = facts("da3mono_large")["cases"][number], facts("da3metric_large")["cases"][number]
    depth = depth_of("da3mono_large", case, folder)
    check_outside_of_the_sky(depth, case["full_suggested"], fill=abs(case["sky_fill"] - case["sky_fill_exact"]))

    width, focal = case["input"]["shape"][2], sum(metric["metres"]["focal_of_network_input"]) / 2
    fov = 2 * math.degrees(math.atan(width / 2 / focal))
    metres = depth_of("da3metric_large", case, folder, fov=fov)
    np.testing.assert_allclose(metres.values, depth.values * focal / 300, rtol=1e-5)
    if case["image"] == [width, case["input"]["shape"][1]]:
        check_outside_of_the_sky(metres, metric["metres"])


BACKENDS = [
    ("openvino", "da3_small", pytest.mark.slow),
    ("openvino", "da3mono_large", pytest.mark.slow),
    ("onnx", "da3_small", pytest.mark.slow),
    ("onnx", "da3mono_large", pytest.mark.release),
    ("compile", "da3_small", pytest.mark.slow),
    ("compile", "da3mono_large", pytest.mark.release),
]


@pytest.mark.parametrize(
    ("backend", "name"), [pytest.param(backend, name, marks=mark) for backend, name, mark in BACKENDS]
)
def test_a_backend_gives_the_official_numbers(
    name: str, backend: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All outputs of the network, not only the first."""
    monkeypatch.setattr("stream.infer.backends.cache.cache_folder", lambda: tmp_path)
    case = next(case for case in cases(name) if case["image"] == [90, 200])
    expected = case["full_suggested"]
    depth = depth_of(name, case, folder, backend=backend)
    if name == "da3_small":
        assert error(depth.values, expected) < BACKEND_TOLERANCE
        assert depth.confidence is not None
        assert depth.intrinsics is not None
        assert depth.intrinsics.fx == pytest.approx(case["intrinsics"][0][0] * 90 / case["input"]["shape"][2], rel=1e-4)
    else:
        check_outside_of_the_sky(depth, expected, BACKEND_TOLERANCE)
    shutil.rmtree(tmp_path)


def test_confidence_is_saved_also_after_two_passes_and_points_use_the_camera(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        Image.fromarray(np.roll(image(60, 40), number * 7, 1)).save(pictures / f"{number}.png")
    options: dict[str, Any] = {"model": "da3_small", "weights": weights_of("da3_small", folder), "input_size": 56}
    for name, more in (("plain", {}), ("clip", {"range": "clip"})):
        report = stream.run(
            pictures, output=tmp_path / name, save="npy,conf,ply", precision="fp32", picture="png", threads=1,
            **options, **more,
        )  # fmt: skip
        assert not any("assumed" in note for note in report.notes)
    for number in range(2):
        confidence, again = (np.load(tmp_path / name / f"{number}.conf.npy") for name in ("plain", "clip"))
        assert confidence.shape == (40, 60)
        assert confidence.min() > 1
        assert np.array_equal(confidence, again)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.04), ("fp16", 0.005)])
@pytest.mark.parametrize("name", ["da3_small", "da3_base", "da3mono_large"])
def test_half_precision_is_close_to_fp32(name: str, precision: str, limit: float, folder: Path) -> None:
    """Of depth, and of confidence or the sky's score; the last layers stay in fp32."""
    model = registry.load(name, weights=weights_of(name, folder))
    half, dtype = placed(model.network, model.spec, torch.device("cpu"), precision), DTYPES[precision]
    x = torch.randn(1, 3, 224, 98, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for found, wanted in zip(half(x.to(dtype))[:2], model.network(x)[:2], strict=True):
            assert found.dtype == torch.float32
            assert 0 < float((found - wanted).square().mean().sqrt() / wanted.std()) < limit


MONO, METRIC = registry.find("da3mono_large"), registry.find("da3metric_large")


def maps(sky_rows: int = 2, size_hw: tuple[int, int] = (28, 42)) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth that grows to the right, and a sky above it; its lowest score is exactly the threshold."""
    depth = torch.linspace(1, 5, size_hw[1]).repeat(size_hw[0], 1)
    score = torch.zeros(size_hw)
    score[:sky_rows] = 0.3
    score[sky_rows:] = 0.29999
    return depth, score


def test_the_sky_has_no_answer_and_its_depth_is_the_official_one_between_the_pixels() -> None:
    depth, score = maps()
    found = without_sky(MONO, (depth, score), View(size_hw=(28, 42)))
    assert found.valid is not None
    assert found.network is not None
    assert not found.valid[:2].any()
    assert found.valid[2:].all()
    assert torch.equal(torch.isnan(found.network), ~found.valid)
    assert torch.equal(found.values[2:], depth[2:])
    far = float(depth[2:].quantile(0.99))
    assert found.values[:2] == pytest.approx(torch.full((2, 42), far))

    larger = without_sky(MONO, (depth, score), View(size_hw=(109, 165)))  # four pixels for one, corners aligned
    assert larger.valid is not None
    rows = larger.valid.any(1)
    assert rows.tolist() == [False] * 6 + [True] * 103  # row 6 lies midway between both
    assert torch.equal(larger.valid, rows[:, None].expand(-1, 165))
    assert larger.values[6] == pytest.approx((larger.values[4] + larger.values[8]) / 2, rel=1e-5)


@pytest.mark.parametrize("sky_pixels", [0, 10, 11, 500 - 11, 500 - 10, 500])
def test_a_sky_of_few_pixels_or_of_nearly_all_is_none(sky_pixels: int) -> None:
    depth, score = torch.rand(20, 25) + 1, torch.zeros(500)
    score[:sky_pixels] = 1
    found = without_sky(MONO, (depth, score.view(20, 25)), View(size_hw=(20, 25)))
    assert found.valid is not None
    is_left_out = 10 < sky_pixels < 490
    assert int((~found.valid).sum()) == (sky_pixels if is_left_out else 0)
    assert torch.equal(found.values, depth) is not is_left_out


@pytest.mark.parametrize(
    ("view", "focal"),
    [
        (View(size_hw=(100, 420), fov=90.0), 210.0),
        (View(size_hw=(100, 420), intrinsics=Intrinsics(fx=300, fy=320, cx=210, cy=50)), 310.0),
        (View(size_hw=(100, 420), intrinsics=Intrinsics(fx=300, fy=320, cx=210, cy=50), fov=90.0), 210.0),
        (View(size_hw=(100, 420)), 210 / math.tan(math.radians(30))),
        (View(size_hw=(840, 420)), 420 / math.tan(math.radians(30))),
    ],
    ids=["--fov", "EXIF", "--fov before EXIF", "assumed", "assumed along the height"],
)
def test_metres_follow_from_the_focal_length_in_pixels_of_the_network_input(view: View, focal: float) -> None:
    outputs = maps()
    plain = without_sky(MONO, outputs, view)
    metres = without_sky(METRIC, outputs, view)
    np.testing.assert_allclose(metres.values, plain.values * (focal * 42 / 420 / 300), rtol=1e-5)
    assert torch.equal(metres.valid, plain.valid)
    assert ("60° along the longer side is assumed" in metres.note) is (view.camera is None)
    assert plain.note == ""


def test_a_wrapped_file_keeps_its_head() -> None:
    """`pretrained.cls_token` alone, which marks a file of V2, does not show where the names of this one begin."""
    keys = ["backbone.pretrained.cls_token", "head.projects.0.weight", "head.scratch.refinenet1_aux.out_conv.weight"]
    for prefix in ("", "model.", "module.net."):
        found = unwrap({f"{prefix}{key}": torch.zeros(1) for key in keys}, where="file")
        assert sorted(found) == sorted(keys)
    wrapped = unwrap({f"backbone.{key}": torch.zeros(1) for key in ("pretrained.cls_token", "depth_head.x")}, where="f")
    assert sorted(wrapped) == ["depth_head.x", "pretrained.cls_token"]
