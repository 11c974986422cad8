"""Edges of the picture in the depth map: crisp where the picture has them, and nothing else changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stream
from stream.frames import DepthKind, Frame
from stream.infer.backends.cache import ModelCache
from stream.infer.engine import Engine
from stream.infer.refine import refine
from stream.models.resize import to_frame_size
from stream.models.spec import Resample
from tests.support.tiny_model import frame, loaded

HEIGHT, WIDTH, EDGE = 120, 160, 83
DISPARITY = DepthKind.RELATIVE_DISPARITY


def two_sides(height: int = HEIGHT, width: int = WIDTH, edge: int = EDGE) -> np.ndarray:
    """A reddish side and a bluish one of the same lightness, which meet at column `edge`, with some noise."""
    rgb = np.empty((height, width, 3))
    rgb[:, :edge], rgb[:, edge:] = (150, 100, 80), (80, 118, 160)
    return np.clip(rgb + np.random.default_rng(0).normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)


def blurred_step(low: float, high: float, size_hw: tuple[int, int] = (30, 40), edge: float = EDGE / 4) -> Tensor:
    """A step of the map that takes about four of its pixels and is half a pixel off its place in the picture."""
    x = torch.arange(size_hw[1]) + 0.5
    return (low + (high - low) * torch.sigmoid((x - edge - 0.5) * 1.2)).repeat(size_hw[0], 1)


def results(network: Tensor, rgb: np.ndarray, kind: DepthKind = DISPARITY) -> tuple[np.ndarray, np.ndarray]:
    """The map at the picture's size, official and refined."""
    official = to_frame_size(network, (rgb.shape[0], rgb.shape[1]), Resample.BILINEAR)
    refined = official.clone()
    refine(refined, network, torch.from_numpy(rgb), kind)
    return official.numpy(), refined.numpy()


def width_and_place(row: np.ndarray) -> tuple[float, float]:
    """Columns that a rising step takes from 10 to 90 %, and where it has half its height; between pixel borders."""
    share, at = (row - row[0]) / (row[-1] - row[0]), np.arange(len(row)) + 0.5
    ten, half, ninety = (float(np.interp(level, np.maximum.accumulate(share), at)) for level in (0.1, 0.5, 0.9))
    return ninety - ten, half


@pytest.mark.parametrize(
    ("kind", "near", "far"),
    [(DISPARITY, 10.0, -2.0), (DepthKind.METRIC_DEPTH, 1.2, 8.0), (DepthKind.RELATIVE_DEPTH, 0.3, 0.5)],
)
def test_a_blurred_edge_becomes_crisp_and_lies_where_the_picture_has_it(
    kind: DepthKind, near: float, far: float
) -> None:
    official, refined = results(blurred_step(min(near, far), max(near, far)), two_sides(), kind)
    for row in (3, 60, 117):
        was, place = width_and_place(official[row])
        now, at = width_and_place(refined[row])
        assert was > 10
        assert now < was / 5
        assert abs(at - EDGE) < min(0.6, abs(place - EDGE))


def test_no_value_is_outside_of_the_map_around_it() -> None:
    network = blurred_step(0, 1) + 0.2 * torch.rand(30, 40, generator=torch.manual_seed(1))
    _, refined = results(network, two_sides())
    padded = torch.nn.functional.pad(network[None, None], (6, 6, 6, 6), mode="replicate")
    most, least = (sign * torch.nn.functional.max_pool2d(sign * padded, 13, 1)[0, 0].numpy() for sign in (1, -1))
    rows, columns = np.arange(HEIGHT) // 4, np.arange(WIDTH) // 4
    slack = 1e-6
    assert (refined <= most[rows][:, columns] + slack).all()
    assert (refined >= least[rows][:, columns] - slack).all()


@pytest.mark.parametrize("slant", [0.0, 0.7])
def test_a_texture_is_not_copied_into_a_plane(slant: float) -> None:
    """Tiles in black and white, and a map of their floor: not one value changes."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    tiles = np.where((y // 9 + x // 13) % 2, 235, 20).astype(np.uint8)[..., None].repeat(3, 2)
    plane = 3 + slant * torch.arange(30.0)[:, None] + 0.3 * slant * torch.arange(40.0)
    official, refined = results(plane, tiles)
    assert np.array_equal(official, refined)


def test_a_texture_beside_an_edge_leaves_the_surfaces_flat() -> None:
    rgb, (y, x) = two_sides(), np.mgrid[:HEIGHT, :WIDTH]
    rgb[(y // 7 + x // 7) % 2 == 0] //= 2
    _, refined = results(blurred_step(0, 1), rgb)
    assert refined[:, : EDGE - 3].max() < 0.1
    assert refined[:, EDGE + 3 :].min() > 0.9


def test_an_edge_that_the_picture_lacks_stays_one() -> None:
    gray = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    official, refined = results(blurred_step(0, 1), gray)
    was, place = width_and_place(official[60])
    now, at = width_and_place(refined[60])
    assert now < 1.2 * was
    assert abs(at - place) < 1


def test_pixels_without_an_answer_stay_so_and_count_nowhere() -> None:
    network = blurred_step(0, 1)
    network[:12] = torch.nan
    official, refined = results(network, two_sides())
    assert np.array_equal(np.isnan(official), np.isnan(refined))
    assert width_and_place(refined[100])[0] < 3
    known = refined[np.isfinite(refined)]
    assert known.min() >= 0
    assert known.max() <= 1
    nothing = torch.full((30, 40), torch.nan)
    assert np.isnan(results(nothing, two_sides())[1]).all()


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 1), (2, 3), (7, 5), (24, 32), (11, 70)])
def test_any_size_of_picture(size_hw: tuple[int, int], kind: DepthKind) -> None:
    network = torch.rand(24, 32, generator=torch.manual_seed(2))
    before = network.clone()
    rgb = np.random.default_rng(3).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    _, refined = results(network, rgb, kind)
    assert refined.shape == size_hw
    assert refined.min() >= network.min() - 1e-6
    assert refined.max() <= network.max() + 1e-6
    assert torch.equal(network, before)


def test_strips_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    network, rgb = blurred_step(0, 1) + 0.1 * torch.rand(30, 40, generator=torch.manual_seed(4)), two_sides()
    at_once = results(network, rgb)[1]
    monkeypatch.setitem(stream.infer.refine._STRIP_PIXELS, "cpu", 7 * WIDTH)
    assert np.array_equal(results(network, rgb)[1], at_once)


def test_other_devices_compute_the_same_with_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    network, rgb = blurred_step(0, 1) + 0.1 * torch.rand(30, 40, generator=torch.manual_seed(5)), two_sides()
    on_cpu = results(network, rgb)[1]
    monkeypatch.setattr(stream.infer.refine, "_chosen", lambda share: torch.arange(len(share)))
    assert np.allclose(results(network, rgb)[1], on_cpu, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same() -> None:
    network, rgb = blurred_step(0, 1), two_sides()
    official = to_frame_size(network.cuda(), (HEIGHT, WIDTH), Resample.BILINEAR)
    refine(official, network.cuda(), torch.from_numpy(rgb).cuda(), DISPARITY)
    assert np.allclose(official.cpu().numpy(), results(network, rgb)[1], atol=1e-4)


class RedAndBlue(nn.Module):
    """Red is near: a soft map of the picture's colours."""

    def __init__(self) -> None:
        super().__init__()
        self.soften = nn.Conv2d(3, 1, 3, padding=1, padding_mode="replicate")
        weight = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 3, 3) / 9
        self.soften.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.soften.bias = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        y: Tensor = self.soften(x)
        return y[:, 0]


def pictures(count: int) -> list[Frame]:
    return [replace(frame(i), rgb=two_sides(96, 128, 40 + 9 * i)) for i in range(count)]


def engine(**options: object) -> Engine:
    return Engine(loaded(RedAndBlue()), **{"device": "cpu", **options})  # type: ignore[arg-type]


def maps(frames: list[Frame], **options: object) -> list[np.ndarray]:
    one = engine(batch=len(frames), **options)
    found = [depth.values for depth in one.infer(frames)]
    one.close()
    return found


def test_the_engine_refines_if_asked_and_only_then() -> None:
    (official,), (refined,) = maps(pictures(1)), maps(pictures(1), refines=True)
    one = engine()
    network = one.run_network(one.network_input(pictures(1)[0]))[0]
    one.close()
    assert np.array_equal(official, to_frame_size(network, (96, 128), Resample.BILINEAR).numpy())
    assert width_and_place(-refined[50])[0] < width_and_place(-official[50])[0] / 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_in_flight_on_cuda_are_refined_by_their_own_frames() -> None:
    one, frames, found = engine(device="cuda", precision="fp32", refines=True, batch=3), pictures(9), []
    for start in range(0, 9, 3):
        if one.pending == one.in_flight:
            found += one.collect()
        one.submit(frames[start : start + 3])
    while one.pending:
        found += one.collect()
    one.close()
    assert all(depth.refined for _, depth in found)
    for (_, depth), wanted in zip(found, maps(frames, refines=True), strict=True):
        assert np.abs(depth.values - wanted).max() < 1e-3 * wanted.std()


def test_a_batch_gives_each_frame_what_it_gets_alone() -> None:
    together = maps(pictures(3), refines=True)
    alone = [maps([one], refines=True)[0] for one in pictures(3)]
    assert np.allclose(together, alone, atol=1e-5)  # the network's sums differ in their last digit
    assert not np.array_equal(together[0], together[1])


def test_frames_keep_their_own_edges_while_batches_overlap() -> None:
    one, frames = engine(refines=True), pictures(9)
    alone = [maps([picture], refines=True)[0] for picture in frames]
    found = []
    for picture in frames:
        if one.pending == one.in_flight:
            found += one.collect()
        one.submit([picture])
    while one.pending:
        found += one.collect()
    one.close()
    assert [picture.index for picture, _ in found] == list(range(9))
    assert all(np.array_equal(depth.values, wanted) for (_, depth), wanted in zip(found, alone, strict=True))


@pytest.mark.parametrize("size_hw", [(24, 32), (18, 24), (12, 16)])
def test_a_picture_no_larger_than_the_map_keeps_the_official_values_which_is_said_once(
    size_hw: tuple[int, int],
) -> None:
    frames = [replace(frame(i), rgb=two_sides(*size_hw, size_hw[1] // 2)) for i in range(2)]
    one = engine(refines=True)
    found = [one.infer([picture])[0].values for picture in frames]
    assert all(map(np.array_equal, found, (maps([picture])[0] for picture in frames)))
    assert one.notes == ["--refine changes nothing in images that are no larger than the network's map of them"]
    one.infer(pictures(1))
    assert len(one.notes) == 1
    one.close()


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"backend": "openvino"}], ids=str)
def test_whatever_executes_the_network_its_map_is_refined(options: dict[str, str], tmp_path: Path) -> None:
    if "backend" in options:
        pytest.importorskip("openvino")
    (wanted,) = maps(pictures(1), refines=True)
    (found,) = maps(pictures(1), refines=True, cache=ModelCache(tmp_path), **options)
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)
    assert np.abs(found - wanted).mean() < 0.005 * np.ptp(wanted)
    assert width_and_place(-found[50])[0] < 2


def test_a_run_and_a_loop_refine_and_the_report_says_so(tmp_path: Path) -> None:
    rgb = two_sides(480, 640, 300)
    ((_, plain),) = stream.iter_depth(rgb)
    ((_, refined),) = stream.iter_depth(rgb, refine=True)
    assert not np.array_equal(plain.values, refined.values)
    report = stream.run(rgb, output=tmp_path / "out", save=["npy"], picture="none", refine=True)
    (file,) = (tmp_path / "out").glob("*.npy")
    assert np.array_equal(np.load(file), refined.values)
    assert report.refined
    assert report.to_dict()["refined"] is True
    assert not stream.run(rgb, output=tmp_path / "plain", picture="none", save=["npy"]).refined
