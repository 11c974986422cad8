"""Training with a GPU at hand: losses for partly known depth, samples in batches, packed assets; here on a CPU."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.support.starter_scripts import needs_compiler as _paths  # noqa: F401  # makes the scripts importable

import assets  # isort: skip
import bundle  # isort: skip
import device  # isort: skip
import device_data  # isort: skip
import losses  # isort: skip


def scene(count: int = 3) -> torch.Tensor:
    """Inverse depth: a slanted wall, before it a near square."""
    inverse = torch.linspace(0.1, 0.4, 64).repeat(count, 48, 1)
    inverse[:, 10:30, 20:44] = 1.5
    return inverse


def loss(predicted: torch.Tensor, inverse: torch.Tensor) -> float:
    torch.manual_seed(1)
    return float(losses.depth_loss(predicted, inverse, 1.0, 0.0, 0.2))


def test_the_loss_ignores_scale_and_shift_and_rewards_sharp_outlines() -> None:
    truth = scene()
    blurred = F.avg_pool2d(truth[:, None], 9, 1, 4, count_include_pad=False)[:, 0]
    assert loss(blurred * 5 - 2, truth) == pytest.approx(loss(blurred, truth), rel=1e-4)
    assert loss(truth * 3 + 1, truth) < 0.1 * loss(blurred, truth)


def test_what_was_not_measured_does_not_count() -> None:
    truth = scene()
    wrong = truth.clone()
    wrong[:, :12] = 7
    partly = truth.clone()
    partly[:, :12] = device_data.UNKNOWN
    assert loss(wrong, partly) == pytest.approx(loss(truth, partly), abs=1e-4)
    assert loss(wrong, truth) > 2 * loss(truth, truth)


def test_nothing_measured_gives_finite_gradients() -> None:
    guess = torch.rand(2, 32, 32, requires_grad=True)
    losses.depth_loss(guess, torch.full((2, 32, 32), device_data.UNKNOWN), 1.0, 0.1, 0.2).backward()  # type: ignore[no-untyped-call]
    assert guess.grad is not None
    assert torch.isfinite(guess.grad).all()


def test_crops_keep_picture_and_depth_together() -> None:
    torch.manual_seed(3)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    inverse = ((x + 2 * y) / 330)[None].repeat(8, 1, 1)
    rgb, depth = device_data.crop(inverse[:, None].repeat(1, 3, 1, 1), inverse, 64, 96, 0.5)
    assert (rgb.shape, depth.shape) == ((8, 3, 64, 96), (8, 64, 96))
    assert (rgb[:, 0] - depth)[:, 4:-4, 4:-4].abs().mean() < 0.01
    assert len({float(d[0, 0]) for d in depth}) == 8


def test_disturbed_pictures_stay_pictures() -> None:
    torch.manual_seed(4)
    rgb, inverse = torch.rand(40, 3, 32, 64), torch.rand(40, 32, 64)
    inverse[0] = device_data.UNKNOWN
    out = device_data.disturb(rgb, inverse)
    assert out.shape == rgb.shape
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1
    assert ((out - rgb).abs().mean((1, 2, 3)) > 0).float().mean() > 0.8


def test_packed_assets_come_back() -> None:
    rng = np.random.default_rng(5)
    vertices = rng.random((30, 8)).astype(np.float32)
    picture = np.full((16, 16, 4), 255, np.uint8)
    picture[..., 0] = 90
    part = assets.Part(vertices, assets.Material(texture="t"))
    model = assets.Model("m", "Kitchen", "l", (1.0, 1.0, 1.0), 0.0, False, [part])
    panorama = np.full((8, 16, 3), (0.5, 2.0, 7.0), np.float32)
    back = bundle.unpacked(bundle.packed(assets.Assets([model], {"t": picture, "unused": picture}, {"p": panorama})))
    assert np.abs(back.models[0].parts[0].vertices - vertices).max() < 0.02
    assert back.models[0].parts[0].material == part.material
    assert list(back.textures) == ["t"]
    assert np.abs(back.textures["t"].astype(int) - picture).max() < 8
    assert back.panoramas["p"] == pytest.approx(panorama, rel=0.02)


def test_upright_photographs_give_two_parts_without_distortion(tmp_path: Path) -> None:
    tall = np.zeros((160, 90, 3), np.uint8)
    tall[:, :, 2] = np.linspace(0, 255, 160)[:, None]
    cv2.circle(tall, (45, 34), 20, (0, 255, 0), -1)
    cv2.imwrite(str(tmp_path / "a.png"), tall)
    cv2.imwrite(str(tmp_path / "b.png"), tall.transpose(1, 0, 2).copy())
    photos = device_data.read_photos(tmp_path, torch.device("cpu"))
    assert photos.count == 3
    upper, lower = photos.rgb[:2].float()
    assert upper[0].mean() < lower[0].mean() - 60
    disc = (upper[1] > 128).nonzero()
    height, width = (disc.amax(0) - disc.amin(0) + 1).tolist()
    assert height == pytest.approx(width, rel=0.03)
    assert (photos.inverse == device_data.UNKNOWN).all()


def test_the_depth_of_photographs_is_the_mean_guess_of_all_sizes_mirrored_or_not(tmp_path: Path) -> None:
    bright = np.zeros((96, 128), np.uint8)
    bright[:, :50] = 200
    cv2.imwrite(str(tmp_path / "a.png"), bright)
    photos = device_data.read_photos(tmp_path, torch.device("cpu"))
    sizes = []

    class Slanted(device.Starter):
        """Bright is near, and so is the left of whatever it is shown."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(x.shape[-2:]))
            return x.mean(1) + torch.linspace(0.4, -0.4, x.shape[-1])

    device.guess_depth([Slanted()], photos)
    assert sorted(sizes) == sorted([*device.TEACHER_SIZES, *device.TEACHER_SIZES])
    near, far = photos.inverse[0, :, :190].float(), photos.inverse[0, :, 210:].float()
    assert near.mean() - far.mean() > 0.7
    assert max(near.max() - near.min(), far.max() - far.min()) < 0.15  # each slant met its mirror image
