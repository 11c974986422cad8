"""The scripts that train the built-in model: scores, samples, and resuming an interrupted run."""

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

import stream
from stream.models import registry
from stream.models.starter import Starter, StarterEncoder
from tests.support.starter_scripts import needs_compiler

import dataset  # isort: skip
import evaluate  # isort: skip
import export  # isort: skip
import kernels  # isort: skip
import metrics  # isort: skip
import train  # isort: skip

RNG = np.random.default_rng


def two_planes() -> np.ndarray:
    """Inverse depth: a wall at 4 m, before it a square at 1 m."""
    inverse = np.full((240, 320), 0.25)
    inverse[60:180, 100:220] = 1.0
    return inverse


def test_a_prediction_right_up_to_scale_and_shift_is_perfect() -> None:
    truth = two_planes()
    assert metrics.score(truth * 37 - 5, truth, farthest=10) == metrics.Score(pytest.approx(0, abs=1e-9), 1, 1, 1)


def test_a_constant_prediction_scores_what_the_formulas_say() -> None:
    truth = two_planes()
    result = metrics.score(np.ones_like(truth), truth, farthest=10)
    near = 120 * 120 / truth.size
    mean = 1 / (near * 1 + (1 - near) * 0.25)  # the best constant in inverse depth, as a depth
    assert result.abs_rel == pytest.approx(near * abs(mean - 1) + (1 - near) * abs(mean - 4) / 4)
    assert (result.delta1, result.ordinal, result.sharpness) == (0, 0.5, 0)


def test_an_inverted_prediction_orders_nothing() -> None:
    assert metrics.score(-two_planes(), two_planes(), farthest=10).ordinal == 0


def test_blurred_outlines_are_less_sharp() -> None:
    truth = two_planes()
    found = [metrics.score(cv2.GaussianBlur(truth, (0, 0), s), truth, farthest=10).sharpness for s in (1, 3, 9)]
    assert 1 > found[0] > found[1] > found[2] > 0


def test_pixels_that_were_not_measured_do_not_count() -> None:
    truth = two_planes()
    wrong = truth.copy()
    wrong[:50] = 9
    truth[:50] = 0
    assert metrics.score(wrong, truth, farthest=10).abs_rel == pytest.approx(0, abs=1e-9)


def test_the_mean_leaves_out_what_is_not_defined() -> None:
    nan = float("nan")
    assert metrics.mean([metrics.Score(1, 0, 1, nan), metrics.Score(3, 1, 1, 0.5)]) == metrics.Score(2, 0.5, 1, 0.5)


def test_crops_keep_picture_and_depth_together() -> None:
    y, x = np.mgrid[:288, :384]
    inverse = (x * 0.002 + y * 0.001).astype(np.float32)
    rgb = np.repeat((inverse[..., None] * 200).astype(np.uint8), 3, 2)
    for seed in range(8):
        for size in ((128, 160), (224, 160)):
            cut, depth = dataset.crop(RNG(seed), rgb, inverse, *size)
            assert cut.shape == (*size, 3)
            assert np.abs(cut[..., 0] - depth * 200).max() < 3


def test_disturbances_keep_shape_and_are_repeatable() -> None:
    rgb = RNG(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    inverse = np.full((96, 128), 0.3, np.float32)
    seen = [dataset.disturb(RNG(seed), rgb, inverse) for seed in range(60)]
    again = [dataset.disturb(RNG(seed), rgb, inverse) for seed in range(60)]
    assert all(x.shape == rgb.shape and x.dtype == np.uint8 for x in seen)
    assert all(np.array_equal(a, b) for a, b in zip(seen, again, strict=True))
    assert len({x.tobytes() for x in seen}) > 50


def test_the_loss_ignores_scale_and_shift_and_is_least_at_the_truth() -> None:
    truth = torch.from_numpy(RNG(1).random((2, 48, 64))).float() + 0.1
    guess = torch.from_numpy(RNG(2).random((2, 48, 64))).float()
    first = [train.loss(p, truth, 0.5)[1] for p in (guess, guess * 7 - 3, truth * 2 + 1)]
    assert first[0] == pytest.approx(float(first[1]), rel=1e-4)
    assert first[2] == pytest.approx(0, abs=1e-5)
    assert first[0] > 0.5


def test_a_moved_picture_and_its_depth_stay_together() -> None:
    torch.manual_seed(1)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    inverse = (x + 2 * y)[None].repeat(4, 1, 1) / 320
    rgb = (inverse * 255).round().to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    copies, depth, grid = train.moved(rgb, inverse)
    inside = (grid.abs() < 0.95).all(-1)
    differences = (copies[:, 0].float() - depth * 255)[inside]
    assert differences.abs().mean() < 4  # noise, and nearest against bilinear
    assert not torch.equal(depth, inverse)
    assert train.unsteadiness(inverse, depth, grid) < 0.02


def test_unsteadiness_is_what_does_not_move_along() -> None:
    torch.manual_seed(2)
    still = F.interpolate(torch.rand(3, 1, 6, 8), (96, 128), mode="bicubic")[:, 0]
    _, _, grid = train.moved(torch.zeros(3, 3, 96, 128, dtype=torch.uint8), still)
    along = F.grid_sample(still[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    assert train.unsteadiness(still, along, grid) == 0
    spread = (still - still.mean((1, 2), keepdim=True)).abs().mean((1, 2), keepdim=True)
    inside = (grid.abs() < 1).all(-1).float().mean((1, 2))
    found = train.unsteadiness(still, along + 0.1 * spread, grid)
    assert found == pytest.approx(float(0.1 * inside.mean()), rel=1e-4)
    assert train.unsteadiness(5 * still, 5 * along + 0.5 * spread, grid) == pytest.approx(float(found), rel=1e-4)


def shards(folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True)
    rng = RNG(first)
    for number in range(first, first + count):
        np.save(folder / f"{number:06d}.rgb.npy", rng.integers(0, 255, (8, 48, 64, 3), dtype=np.uint8))
        ramp = np.linspace(0.1, 2, 48)[None, :, None] * (1 + 0.2 * rng.random((8, 1, 1))) + 0.1 * rng.random(
            (8, 48, 64)
        )
        np.save(folder / f"{number:06d}.inverse.npy", ramp.astype(np.float16))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny shards, a tiny schedule, random weights."""
    shards(tmp_path / "pictures", 1, 2)
    shards(tmp_path / "held_out", 9, 1)
    sizes = [(32, 32), (32, 64)]
    parts = train.Part(48, sizes, 2, 0.5, 1e-3), train.Part(48, sizes, 0, 0.5, 1e-3, steadiness=1.0)
    monkeypatch.setattr(train, "PARTS", parts)
    monkeypatch.setattr(train, "TOTAL", 96)
    monkeypatch.setattr(train, "BATCH", 16)

    def fresh() -> Starter:
        torch.manual_seed(3)
        return Starter()

    monkeypatch.setattr(train, "pretrained", fresh)
    return tmp_path


def run_training(work: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, torch.Tensor]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        sys, "argv", ["train.py", "--work", str(work), "--workers", "1", "--precision", "fp32", *options]
    )
    train.main()
    torch.set_num_threads(threads)
    saved = torch.load(work / "run" / "checkpoint.pt", weights_only=True)
    return {"sample": torch.tensor(saved["sample"]), **saved["network"]}


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("compiled", [False, True])
def test_merged_norms_change_neither_maps_nor_gradients(compiled: bool) -> None:
    torch.manual_seed(5)
    plain, merged = StarterEncoder(), StarterEncoder()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2), module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    merged.load_state_dict(plain.state_dict())
    for encoder in (plain.eval(), merged.eval()):
        encoder.to(memory_format=torch.channels_last)
    if compiled:
        kernels.use_compiled(merged)
    train.merge_norms(merged)
    x = torch.randn(2, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    maps = []
    with kernels.CompiledRelu6() if compiled else nullcontext():
        maps.append(merged(x))
    maps.append(plain(x))
    for ours, theirs in zip(*maps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    for encoder_maps in maps:
        sum((level.square().mean() for level in encoder_maps), torch.zeros(())).backward()
    for (name, ours), theirs in zip(merged.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None, name
        assert (ours.grad - theirs.grad).abs().max() <= 1e-3 * theirs.grad.abs().max() + 1e-9, name


def test_the_last_convolution_stays_exact_under_autocast() -> None:
    torch.manual_seed(6)
    network = Starter().eval()
    x = torch.randn(1, 16, 32, 32)
    wanted = network.head[2](x)
    train.exact_last(network)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.head[0](torch.zeros(1, 24, 8, 8)).dtype == torch.bfloat16
        assert torch.equal(network.head[2](x), wanted)


@pytest.mark.slow
@needs_compiler
def test_training_that_was_stopped_goes_on_as_if_it_had_not(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stop in ("16", "64", "96"):
        pieces = run_training(work, monkeypatch, "--samples", stop)
    (work / "run").rename(work / "pieces")
    whole = run_training(work, monkeypatch)
    assert int(whole["sample"]) == 96
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    torch.manual_seed(3)
    start = Starter().state_dict()
    assert torch.equal(whole["enc.bn1.running_mean"], start["enc.bn1.running_mean"])
    assert not torch.equal(whole["enc.conv_stem.weight"], start["enc.conv_stem.weight"])  # the second part moves it
    log = [json.loads(line) for line in (work / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["sample"] == 96
    assert log[-1]["pictures"] == 16


@pytest.mark.slow
@needs_compiler
@pytest.mark.slow
def test_workers_train_one_network_and_stop_together(work: Path) -> None:
    """In processes of their own, as users start them: with ImageNet weights and the real schedule."""
    command = [sys.executable, train.__file__, "--work", work, "--workers", "2", "--samples", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 workers" in done.stdout
    log = [json.loads(line) for line in (work / "run" / "log.jsonl").read_text().splitlines()]
    assert [(row["sample"], row["workers"]) for row in log] == [(64, 2)]
    assert torch.load(work / "run" / "checkpoint.pt", weights_only=True)["sample"] == 64
    with subprocess.Popen(command[:-2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "from sample 64" in process.stdout.readline()
        process.terminate()
        assert process.wait(120) == 0
    assert torch.load(work / "run" / "checkpoint.pt", weights_only=True)["sample"] >= 64


@pytest.mark.slow
@needs_compiler
@pytest.mark.slow
def test_workers_stay_alike_and_go_on_as_if_they_had_not_stopped(work: Path) -> None:
    command = [sys.executable, train.__file__, "--work", work, "--workers", "2", "--precision", "fp32", "--samples"]
    networks = []
    for stops in (["64", "128"], ["128"]):
        for stop in stops:
            done = subprocess.run([*command, stop], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr  # each start compares the workers' networks
        networks.append(torch.load(work / "run" / "checkpoint.pt", weights_only=True)["network"])
        (work / "run").rename(work / f"run to {len(networks)}")
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


@pytest.mark.slow
@needs_compiler
def test_the_first_part_leaves_the_first_stages_as_they_are(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = run_training(work, monkeypatch, "--samples", "48")
    torch.manual_seed(3)
    start = Starter().state_dict()
    same = {name for name, value in start.items() if torch.equal(value, trained[name])}
    assert {"enc.conv_stem.weight", "enc.blocks.1.0.conv_pw.weight"} <= same
    assert "enc.blocks.2.0.conv_pw.weight" not in same
    assert "head.0.weight" not in same


@pytest.mark.slow
@needs_compiler
def test_exported_weights_load_and_give_the_expected_numbers(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_training(work, monkeypatch, "--samples", "32")
    monkeypatch.setattr(export, "WEIGHTS", work / "starter.safetensors")
    monkeypatch.setattr(export, "EXPECTED", work / "expected.json")
    monkeypatch.setattr(sys, "argv", ["export.py", "--work", str(work)])
    export.main()
    with safe_open(work / "starter.safetensors", "pt") as file:
        assert file.metadata()["samples"] == "32"
        assert "CC-BY" in file.metadata()["data"]
    run_training(work, monkeypatch)  # to the end: the last two parts are blended
    monkeypatch.setattr(sys, "argv", ["export.py", "--work", str(work), "--share", "0.5"])
    export.main()
    parts = [torch.load(work / "run" / f"part-{part}.pt", weights_only=True)["weights"] for part in (1, 2)]
    with safe_open(work / "starter.safetensors", "pt") as file:
        assert (file.metadata()["samples"], file.metadata()["share_of_last_part"]) == ("96", "0.5")
        for key in ("head.0.weight", "enc.conv_stem.weight"):
            torch.testing.assert_close(
                file.get_tensor(key).float(), (parts[0][key] + parts[1][key]) / 2, atol=1e-3, rtol=1e-3
            )
    model = registry.load("starter", weights=work / "starter.safetensors")
    case = json.loads((work / "expected.json").read_text())["cases"][0]
    cv2.imwrite(str(work / "picture.png"), cv2.cvtColor(export.image(640, 480), cv2.COLOR_RGB2BGR))
    ((_, depth),) = stream.iter_depth(work / "picture.png", weights=work / "starter.safetensors", precision="fp32")
    rows, columns = (np.round(np.arange(24) * (side - 1) / 23).astype(int) for side in depth.values.shape)
    differences = np.abs(depth.values[np.ix_(rows, columns)] - np.array(case["full"]["grid24"]))
    assert differences.max() < 1e-3 * case["full"]["std"]
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.network.modules())


def test_evaluate_scores_a_folder_and_draws_a_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = two_planes()
    rgb = cv2.applyColorMap((truth * 200).astype(np.uint8), cv2.COLORMAP_OCEAN)
    cv2.imwrite(str(tmp_path / "one.jpg"), rgb)
    cv2.imwrite(str(tmp_path / "one.png"), (1 / truth * 1000).astype(np.uint16))
    cv2.imwrite(str(tmp_path / "two.jpg"), rgb[:, ::-1])
    cv2.imwrite(str(tmp_path / "two.png"), (truth[:, ::-1] * 100).astype(np.uint16))
    rows = [
        {"name": "one", "kind": "indoor", "type": "depth", "scale": 0.001},
        {"name": "two", "kind": "outdoor", "type": "disparity", "scale": 0.01},
    ]
    (tmp_path / "index.json").write_text(json.dumps(rows))
    sheet = tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(tmp_path), "--sheet", str(sheet)])
    evaluate.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["one", "two", "mean"]
    assert cv2.imread(str(sheet)).shape[:2] == (225, 3 * 3 * 300)
    monkeypatch.setattr(
        evaluate.stream, "iter_depth", lambda files, **_: (_fake(path) for path in files.read_text().split())
    )
    (first, second) = evaluate.results(tmp_path)
    assert first.score is not None
    assert second.score is not None
    assert first.score.abs_rel < 0.01
    assert second.score.abs_rel < 0.01


def _fake(path: str) -> tuple[stream.Frame, stream.Depth]:
    """A model that knows the truth: the pictures' blue is inverse depth."""
    from dataclasses import replace

    ((frame, depth),) = list(_REAL(path))
    near = two_planes() if path.endswith("one.jpg") else two_planes()[:, ::-1]
    return frame, replace(depth, values=np.ascontiguousarray(near, np.float32))


_REAL = stream.iter_depth
