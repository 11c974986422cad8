"""MoGe-2 against numbers of the authors' own code; `tests/support/reference.py` makes the weights and the images.

`moge-2-geometry.json` holds what follows the network, on made-up point maps; the other files hold whole runs.
"""

import copy
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import stream
from stream.errors import ModelError, UsageError
from stream.frames import Frame, Intrinsics
from stream.infer import phases
from stream.infer.engine import Engine
from stream.infer.geometry import network_size
from stream.jobs.options import from_options
from stream.jobs.plan import plan_outputs
from stream.jobs.source import open_config_source
from stream.models import registry
from stream.models.answer import Answer, View
from stream.models.moge import answer as moge_answer
from stream.models.moge.network import position_map
from stream.models.moge.solver import recovered
from stream.models.registry import LoadedModel
from stream.notes import Notes, collected
from tests.support.manifests import checkpoint, reference
from tests.support.paths import DATA
from tests.support.reference import image, point_map

torch.set_num_threads(1)  # torch's threads wait for one another at every layer: slow beside other tests
FOLDER = DATA / "models" / "moge"
SMALL = "moge-2-vits-normal"
TOLERANCE = 1e-4
"""Of the official depth's standard deviation; what is reached is 1e-5."""
GEOMETRY = reference(FOLDER / "moge-2-geometry.json")["cases"]
QUICK_TOKENS = 300


def on_grid(values: NDArray[Any], count: int) -> NDArray[Any]:
    rows, columns = ([round(i * (side - 1) / (count - 1)) for i in range(count)] for side in values.shape)
    return values[np.ix_(rows, columns)]


def numbers(grid: list[list[float | None]]) -> NDArray[np.float64]:
    return np.array([[math.nan if value is None else value for value in row] for row in grid])


def focal_of(camera: Intrinsics, size_hw: tuple[int, int]) -> float:
    return camera.fx / (math.hypot(*size_hw) / 2)


def side_of(options: dict[str, Any]) -> int | None:
    """The inference size that the documentation names for the official options; None for the default."""
    if "num_tokens" in options:
        return round(14 * math.sqrt(options["num_tokens"]))
    return {0: 485}[options["resolution_level"]] if "resolution_level" in options else None


# After the network


def solved(case: dict[str, Any], points: NDArray[np.float32], mask: NDArray[np.bool_]) -> Answer:
    x, y, z = (torch.from_numpy(points[..., axis].copy()) for axis in range(3))
    view = View(size_hw=(mask.shape[0], mask.shape[1]), fov=case["options"].get("fov_x"))
    found = moge_answer.affine(x, y, z, torch.from_numpy(mask), torch.tensor(float(case["metric_scale"])), view)
    return found.map(torch.Tensor.cpu).completed()


def geometry(case: dict[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    points, pattern = point_map(**case["point_map"])
    mask = pattern > 0
    if case["mask_pattern"] != "blocks":
        mask[:] = case["mask_pattern"] == "all"
        mask[0, 0] |= case["mask_pattern"] == "one"
    if "z_top_left_quarter" in case:
        points[: len(mask) // 4, : mask.shape[1] // 4, 2] = case["z_top_left_quarter"]
    return points, mask


@pytest.mark.parametrize("case", GEOMETRY, ids=lambda case: f"{case['mask_pattern']}, {case['point_map']['focal']}")
def test_focal_length_shift_and_depth_of_a_point_map_are_the_official_ones(case: dict[str, Any]) -> None:
    points, mask = geometry(case)
    found = solved(case, points, mask)
    assert found.camera is not None
    assert found.valid is not None
    fx, fy, cx, cy = found.camera.tolist()
    (height, width), official = mask.shape, case["intrinsics"]
    assert (fx / width, fy / height) == pytest.approx((official[0][0], official[1][1]), rel=1e-6)
    assert (cx / width, cy / height) == (official[0][2], official[1][2]) == (0.5, 0.5)
    assert int(found.valid.sum()) == case["mask_true"]
    masks = case["options"].get("apply_mask", True)
    depth = np.where(found.valid.numpy() | (not masks), found.values.numpy(), np.nan)
    expected = numbers(case["depth_grid12"])
    spread = np.nanstd(expected) or 1.0 if np.isfinite(expected).any() else 1.0
    np.testing.assert_allclose(on_grid(depth, 12) / spread, expected / spread, rtol=0, atol=2e-6)


def test_a_solver_that_went_on_to_the_optimum_would_be_seen() -> None:
    (case,) = (case for case in GEOMETRY if "z_top_left_quarter" in case)
    assert abs(case["shift"] - case["shift_exact"]) > 1e-3


def test_without_two_points_nothing_is_recovered() -> None:
    one = np.ones((1, 3), np.float32)
    assert recovered(one, np.zeros((1, 2))) == (1.0, 0.0)
    assert recovered(one, np.zeros((1, 2)), 1.5) == (1.5, 0.0)


@pytest.mark.parametrize(
    "xyz", [np.zeros((9, 3)), np.full((9, 3), 1e30), np.tile([0.0, 0.0, 1.0], (9, 1)), np.full((9, 3), 1e-30)], ids=repr
)
def test_points_that_fix_nothing_give_numbers_nevertheless(xyz: NDArray[np.float64]) -> None:
    found = recovered(xyz.astype(np.float32), np.linspace(-1, 1, 18).reshape(9, 2))
    assert np.isfinite(found).all()


def test_infinite_depth_is_no_answer() -> None:
    spec, points = registry.find(SMALL), torch.zeros(3, 8, 8)
    points[2, :4] = 200.0  # its exponential is infinite in float32
    outputs = points, torch.full((8, 8), 5.0), torch.tensor(2.0)
    found = moge_answer.answer(spec, outputs, View(size_hw=(8, 8))).completed()
    assert found.valid is not None
    assert found.valid[5:].all()
    assert not found.valid[:3].any()
    assert found.values[found.valid].isfinite().all()


# Network input


@pytest.mark.parametrize("name", [SMALL, "moge-2-vitb-normal", "moge-2-vitl-normal", "moge-2-vitl"])
def test_the_token_grids_are_the_official_ones(name: str) -> None:
    expected = reference(FOLDER / f"{name}.json")
    policy = registry.find(name).input
    for case in expected["cases"]:
        width, height = case["image"]
        rows, columns = network_size(policy, (height, width), input_size=side_of(case["options"]))
        assert [rows // 14, columns // 14] == case["token_grid"]


def test_positions_are_the_pictures() -> None:
    u, v = position_map((3, 5), 2.0, torch.device("cpu"))[0]
    assert u[1].tolist() == pytest.approx([2 / math.sqrt(5) * x for x in (-0.8, -0.4, 0, 0.4, 0.8)])
    assert v[:, 0].tolist() == pytest.approx([1 / math.sqrt(5) * y for y in (-2 / 3, 0, 2 / 3)])


# The whole path


@pytest.mark.parametrize("name", [SMALL, "moge-2-vitb-normal", "moge-2-vitl-normal", "moge-2-vitl"])
def test_the_manifest_is_the_official_one(name: str) -> None:
    expected, spec = reference(FOLDER / f"{name}.json"), registry.find(name)
    assert registry.find(f"Ruicheng/{name}") is spec
    network = registry.build(spec)
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    theirs = {key: shape for key, shape, _, _ in expected["state_dict"] if not registry.is_ignored(spec, key)}
    assert ours == theirs
    left_out = sum(math.prod(shape) for key, shape, _, _ in expected["state_dict"] if key.startswith("normal_head."))
    assert sum(p.numel() for p in network.parameters()) + left_out == expected["parameters"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(reference(FOLDER / f"{SMALL}.json"), tmp_path_factory.mktemp("moge"))


def saved(expected: dict[str, Any], folder: Path) -> Path:
    path = folder / "model.pt"
    torch.save({"model_config": expected["model_config"], "model": checkpoint(expected["state_dict"])}, path)
    return path


@pytest.fixture(scope="module")
def model(small: Path) -> LoadedModel:
    return registry.load(SMALL, weights=small)


def infer(model: LoadedModel, *pictures: NDArray[np.uint8], **options: Any) -> list[stream.Depth]:
    """Depth of pictures in one batch."""
    engine = Engine(model, batch=len(pictures), threads=1, **{"device": "cpu", "precision": "fp32", **options})
    try:
        return engine.infer([frame(picture) for picture in pictures])
    finally:
        engine.close()


def frame(rgb: NDArray[np.uint8]) -> Frame:
    return Frame(index=0, pts=0, time_base=Fraction(1), captured_at=0, rgb=rgb)


def check(case: dict[str, Any], depth: stream.Depth) -> None:
    official, expected = case["full"], numbers(case["full"]["grid24"])
    assert list(depth.size) == official["shape"]
    assert depth.valid is not None
    assert depth.intrinsics is not None
    assert abs(int(depth.valid.sum()) - case["mask"]["true"]) <= case["mask"]["near"]
    found = on_grid(depth.values, 24)
    assert (np.isnan(found) != np.isnan(expected)).sum() <= case["mask"]["near"]
    assert np.nanmax(np.abs(found - expected)) / official["std"] < TOLERANCE
    assert abs(depth.answers.mean(dtype=np.float64) - official["mean"]) / official["std"] < TOLERANCE
    assert focal_of(depth.intrinsics, depth.size) == pytest.approx(case["focal"], rel=1e-5)
    assert depth.intrinsics.fx == pytest.approx(case["intrinsics"][0][0] * depth.size[1], rel=1e-5)

    camera, (rows, columns) = depth.intrinsics, (np.arange(side) + 0.5 for side in depth.size)
    for axis, (line, focal, centre) in enumerate(
        [(columns[None], camera.fx, camera.cx), (rows[:, None], camera.fy, camera.cy)]
    ):
        points = (line - centre) / focal * depth.values
        official_points = np.array(case["points"]["grid8_xyz"][axis])  # also where there is no answer
        assert np.nanmax(np.abs(on_grid(points, 8) - official_points)) / official["std"] < TOLERANCE


def cases(name: str, *, are_slow: bool) -> list[Any]:
    def is_slow(case: dict[str, Any]) -> bool:
        return name != SMALL or case["options"].get("num_tokens", 3600) > QUICK_TOKENS

    return [
        pytest.param(case, id=f"{name}, {case['image']}, {case['options']}")
        for case in reference(FOLDER / f"{name}.json")["cases"]
        if is_slow(case) == are_slow
    ]


@pytest.mark.parametrize("case", cases(SMALL, are_slow=False))
def test_depth_mask_and_camera_are_the_official_ones(
    case: dict[str, Any], model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, prepare = [], phases.Preprocessor.__call__

    def seen(*args: Any) -> torch.Tensor:
        inputs.append(prepare(*args))
        return inputs[-1]

    monkeypatch.setattr(phases.Preprocessor, "__call__", seen)
    options = case["options"]
    (depth,) = infer(model, image(*case["image"]), input_size=side_of(options), fov=options.get("fov_x"))
    assert list(inputs[0][0].shape) == case["input"]["shape"]
    assert np.abs(on_grid(inputs[0][0, 0].numpy(), 24) - np.array(case["input"]["grid24_r"])).max() < 1e-5
    check(case, depth)


def test_the_command_gives_the_same_and_a_cloud_by_the_models_own_camera(small: Path, tmp_path: Path) -> None:
    case = min((each.values[0] for each in cases(SMALL, are_slow=False)), key=lambda case: case["num_tokens"])
    picture, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(image(*case["image"])).save(picture)
    stream.run(
        str(picture), output=out, model=SMALL, weights=small, device="cpu", precision="fp32", picture="none",
        input_size=side_of(case["options"]), save="npy,ply",
    )  # fmt: skip
    values = np.load(out / "a.npy")
    assert np.nanmax(np.abs(on_grid(values, 24) - numbers(case["full"]["grid24"]))) / case["full"]["std"] < TOLERANCE
    header = (out / "a.ply").read_bytes().partition(b"end_header")[0].decode()
    focal = case["intrinsics"][0][0] * case["image"][0]
    stated = next(line for line in header.splitlines() if "focal:" in line)
    assert float(stated.split()[2]) == pytest.approx(focal, rel=1e-5)
    assert stated.endswith("from the model")
    assert "metres" in header


LARGE_CASES = [
    (SMALL, "slow"),
    ("moge-2-vitb-normal", "slow"),
    ("moge-2-vitl-normal", "release"),
    ("moge-2-vitl", "slow"),
]


@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, when)) for name, when in LARGE_CASES])
def test_large_cases_are_the_official_ones(name: str, tmp_path: Path) -> None:
    weights = saved(reference(FOLDER / f"{name}.json"), tmp_path)
    loaded = registry.load(name, weights=weights)
    weights.unlink()
    for parameter in cases(name, are_slow=True):
        case = parameter.values[0]
        (depth,) = infer(loaded, image(*case["image"]), input_size=side_of(case["options"]))
        check(case, depth)


@pytest.mark.slow
def test_bf16_is_close_to_fp32(model: LoadedModel) -> None:
    picture = image(160, 120)
    full, half = (infer(model, picture, input_size=171, precision=name)[0] for name in ("fp32", "bf16"))
    differences = (half.values - full.values)[np.isfinite(half.values) & np.isfinite(full.values)]
    assert 0 < np.sqrt(np.square(differences).mean()) / full.answers.std() < 0.03
    assert (np.isfinite(half.values) != np.isfinite(full.values)).mean() < 0.005


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", [*cases(SMALL, are_slow=False), *cases(SMALL, are_slow=True)])
def test_numbers_are_the_official_ones_on_cuda(case: dict[str, Any], model: LoadedModel) -> None:
    size, fov = side_of(case["options"]), case["options"].get("fov_x")
    check(case, infer(model, image(*case["image"]), input_size=size, fov=fov, device="cuda")[0])


def test_pictures_of_one_token_grid_and_other_aspects_are_no_batch(model: LoadedModel) -> None:
    one, other = image(64, 48), image(66, 48)
    engine = Engine(model, device="cpu", batch=2, threads=1, precision="fp32", input_size=56)
    assert engine.plan((48, 64)) == engine.plan((48, 66))
    assert engine.key(frame(one)) != engine.key(frame(other))
    engine.close()
    together = infer(model, one, one[:, ::-1].copy(), input_size=56)
    alone = infer(model, one[:, ::-1].copy(), input_size=56)[0]
    np.testing.assert_allclose(together[1].values, alone.values, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (200, 2), (2, 300)], ids=str)
def test_any_size_has_depth(size: tuple[int, int], model: LoadedModel) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    (depth,) = infer(model, rgb, input_size=42)
    assert depth.size == size
    assert (depth.answers > 0).all()


def without_answers(model: LoadedModel) -> LoadedModel:
    network = copy.deepcopy(model.network)
    network.mask_head.output_blocks[-1].bias.fill_(-1e4)  # type: ignore[union-attr, operator, index]
    return LoadedModel(spec=model.spec, weights_sha256="", make_network=lambda: network)


def test_a_picture_without_an_answer_has_a_map_of_none(model: LoadedModel) -> None:
    (depth,) = infer(without_answers(model), image(64, 48), input_size=56)
    assert np.isnan(depth.values).all()
    assert depth.intrinsics is not None
    assert focal_of(depth.intrinsics, depth.size) == pytest.approx(1)
    stated = infer(without_answers(model), image(64, 48), input_size=56, fov=90)[0].intrinsics
    assert stated is not None
    assert stated.fx == pytest.approx(32)


def test_refined_depth_is_finite_where_it_is_valid(model: LoadedModel) -> None:
    picture = image(160, 120)
    plain, refined = (infer(model, picture, input_size=84, refines=refines)[0] for refines in (False, True))
    assert refined.refined
    assert plain.valid is not None
    assert refined.valid is not None
    assert (plain.valid == refined.valid).mean() > 0.99
    assert not np.array_equal(plain.answers, refined.answers)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("encoder", "intermediate_layers"), [2, 11]),
        (("remap_output",), "linear"),
        (("num_tokens_range",), [100, 200]),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "wrapped",
    [lambda file: file, lambda file: {"state": file}, lambda file: {**file, "model": {"net": file["model"]}}],
    ids=["as published", "in a dictionary", "in one more"],
)
def test_a_file_that_states_another_architecture_is_refused(
    keys: tuple[str, ...], value: object, wrapped: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    config = copy.deepcopy(reference(FOLDER / f"{SMALL}.json")["model_config"])
    inner = config if len(keys) == 1 else config[keys[0]]
    inner[keys[-1]] = value
    network = registry.build(registry.find(SMALL))
    tensors = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in network.state_dict().items()}
    torch.save(wrapped({"model_config": config, "model": tensors}), tmp_path / "other.pt")
    with pytest.raises(ModelError, match=rf"model_config\.{'.'.join(keys)} is"):
        registry.load(SMALL, weights=tmp_path / "other.pt")


def test_what_a_file_does_not_state_is_assumed_and_noted_once(tmp_path: Path) -> None:
    config = reference(FOLDER / f"{SMALL}.json")["model_config"]
    network = registry.build(registry.find(SMALL))
    tensors = {key: torch.zeros(tensor.shape) for key, tensor in network.state_dict().items()}
    for name, content in (("plain", tensors), ("wrapped", {"state": {"model_config": config, "model": tensors}})):
        torch.save(content, tmp_path / f"{name}.pt")
        with collected(Notes()) as notes:
            registry.load(SMALL, weights=tmp_path / f"{name}.pt")
        assumed = [text for text in notes.said if "says nothing of how its network is set up" in text]
        assert len(assumed) == (name == "plain")
        assert not assumed or "model_config.remap_output 'exp'" in assumed[0]


def test_the_file_of_another_size_is_told_by_its_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in registry.catalog.MODELS if row.architecture in ("moge", "depth_anything_3_any_view")]
    monkeypatch.setattr(registry.catalog, "MODELS", tuple(rows))  # the others take seconds to build
    expected = reference(FOLDER / "moge-2-vitb-normal.json")
    tensors = {key: torch.zeros(()).expand(shape) for key, shape, _, _ in expected["state_dict"]}
    torch.save({"model_config": expected["model_config"], "model": tensors}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="the file fits -m moge_2_vitb_normal"):
        registry.load(SMALL, weights=tmp_path / "other.pt")


def test_there_is_no_largest_depth_to_state() -> None:
    with pytest.raises(UsageError, match="largest depth"):
        registry.load(SMALL, max_depth_m=10)


def test_fov_is_used_without_points_too(notes: list[str], tmp_path: Path) -> None:
    for name, count in ((SMALL, 0), ("starter", 1)):
        config = from_options("pattern:testsrc2", {"model": name, "fov": 60.0, "output": tmp_path / "a.mp4"})
        source = open_config_source(config)
        plan_outputs(config, source.info)
        source.close()
        assert len([note for note in notes if "--fov" in note]) == count
