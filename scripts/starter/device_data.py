"""Training samples in a device's memory: renders and measured pictures, cropped and disturbed in batches.

Everything is torch on N×3×H×W in [0, 1], so that a GPU is never kept waiting; dataset.py does the same on a CPU with
OpenCV. Inverse depth is N×H×W; below 0 it was not measured. Randomness comes from torch's generator of the device.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

NEAREST_INVERSE = 5.0
UNKNOWN = -1.0
REAL_HEIGHT, REAL_WIDTH = 384, 512


@dataclass
class Pool:
    """Pictures in the device's memory, filled from the front."""

    rgb: Tensor
    """uint8 N×3×H×W."""
    inverse: Tensor
    """float16 N×H×W; 1 / metres, or affine in it."""
    count: int = 0

    @classmethod
    def empty(cls, size: int, height: int, width: int, device: torch.device) -> "Pool":
        """Room for `size` pictures."""
        rgb = torch.zeros(size, 3, height, width, dtype=torch.uint8, device=device)
        return cls(rgb, torch.zeros(size, height, width, dtype=torch.float16, device=device))

    def add(self, rgb: np.ndarray, inverse: np.ndarray) -> None:
        """Append uint8 N×H×W×3 and float16 N×H×W, as far as there is room."""
        more = min(len(rgb), len(self.rgb) - self.count)
        rows = slice(self.count, self.count + more)
        self.rgb[rows] = torch.from_numpy(rgb[:more]).to(self.rgb.device).permute(0, 3, 1, 2)
        self.inverse[rows] = torch.from_numpy(inverse[:more]).to(self.rgb.device)
        self.count += more

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Random pictures: float N×3×H×W in [0, 1] and float32 N×H×W."""
        index = torch.randint(self.count, (number,), device=self.rgb.device)
        return self.rgb[index].float() / 255, self.inverse[index].float()


def read_real(folder: Path, left_out: frozenset[str], device: torch.device) -> tuple[Pool, Pool]:
    """Measured pictures for training, and those of the scenes that are left out.

    All are enlarged to one height and width; depth is never blended. Inverse depth is scaled to a largest value of 1,
    for float16: the losses do not depend on its scale.
    """
    rows = json.loads((folder / "index.json").read_text())
    pools = [Pool.empty(len(rows), REAL_HEIGHT, REAL_WIDTH, device) for _ in range(2)]
    size = (REAL_WIDTH, REAL_HEIGHT)
    for row in rows:
        rgb = cv2.imread(str(folder / f"{row['name']}.jpg"))
        raw = cv2.imread(str(folder / f"{row['name']}.png"), cv2.IMREAD_UNCHANGED)
        if rgb is None or raw is None:
            raise SystemExit(f"{folder}/{row['name']}: cannot be read")
        large = cv2.cvtColor(cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_BGR2RGB)
        depth = cv2.resize(raw, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.float32)
        depth = np.where(depth > 0, depth / depth.max(), UNKNOWN).astype(np.float16)
        pools[row["scene"] in left_out].add(large[None], depth[None])
    return pools[0], pools[1]


def read_photos(folder: Path, device: torch.device) -> Pool:
    """Photographs without depth: the largest 4:3 part of each, of upright ones the upper and the lower part."""
    parts = []
    for path in sorted(folder.iterdir()):
        rgb = cv2.imread(str(path))
        if rgb is None:
            raise SystemExit(f"{path}: cannot be read")
        height, width = rgb.shape[:2]
        across, down = min(width, height * REAL_WIDTH // REAL_HEIGHT), min(height, width * REAL_HEIGHT // REAL_WIDTH)
        left = (width - across) // 2
        for top in (0, height - down) if height > width else ((height - down) // 2,):
            part = rgb[top : top + down, left : left + across]
            parts.append(cv2.resize(part, (REAL_WIDTH, REAL_HEIGHT), interpolation=cv2.INTER_CUBIC)[..., ::-1])
    pool = Pool.empty(len(parts), REAL_HEIGHT, REAL_WIDTH, device)
    for start in range(0, len(parts), 100):
        some = np.stack(parts[start : start + 100])
        pool.add(some, np.full(some.shape[:3], UNKNOWN, np.float16))
    return pool


def crop(rgb: Tensor, inverse: Tensor, height: int, width: int, least: float) -> tuple[Tensor, Tensor]:
    """A part of each picture of about the wanted aspect, at least `least` of a side; mirrored, turned a little.

    Colours are averaged over 2×2 points for each pixel; depth is that of the nearest pixel.
    """
    count, _, full_height, full_width = rgb.shape
    device = rgb.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, device=device)

    aspect = width / height * torch.exp(uniform(-0.15, 0.15))
    across = torch.clamp(full_height * aspect, max=full_width) * uniform(least, 1)
    w, h = across / full_width, across / aspect / full_height
    x, y = (1 - w) * uniform(-1, 1), (1 - h) * uniform(-1, 1)
    mirror = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    angle = uniform(-0.05, 0.05) * (torch.rand(count, device=device) < 0.4)
    ratio = full_height / full_width
    top = torch.stack([w * mirror * torch.cos(angle), -h * torch.sin(angle) * ratio, x], 1)
    bottom = torch.stack([w * mirror * torch.sin(angle) / ratio, h * torch.cos(angle), y], 1)
    theta = torch.stack([top, bottom], 1)
    fine = F.affine_grid(theta, [count, 1, 2 * height, 2 * width], align_corners=False)
    picture = F.avg_pool2d(F.grid_sample(rgb, fine, padding_mode="reflection", align_corners=False), 2)
    grid = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    depth = F.grid_sample(inverse[:, None], grid, mode="nearest", padding_mode="border", align_corners=False)[:, 0]
    return picture, depth.clamp(max=NEAREST_INVERSE)


def disturb(rgb: Tensor, inverse: Tensor) -> Tensor:
    """Light, colour, haze, drawings, blur, noise, compression; each for a part of the batch."""
    count, device = len(rgb), rgb.device

    def some(share: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, device=device) < share).float()

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(count, channels, 1, 1, device=device)

    def mix(share: float, other: Tensor, x: Tensor) -> Tensor:
        return torch.lerp(x, other, some(share))

    x = mix(0.06, _drawing(rgb, inverse, uniform), rgb)
    known = inverse.clamp(min=1e-3)
    metres = (1 / known)[:, None]
    clear = torch.exp(-metres * uniform(0.3, 2) / metres.flatten(1).median(1).values.view(-1, 1, 1, 1))
    measured = (inverse >= 0).float().mean((1, 2)).view(-1, 1, 1, 1) > 0.98
    x = torch.lerp(x, x * clear + uniform(0.5, 1) * uniform(0.85, 1, 3) * (1 - clear), some(0.06) * measured)
    toned = x * uniform(0.8, 1.2, 3) * uniform(0.55, 1.5)
    gray = toned.mean(1, keepdim=True)
    toned = gray + (toned - gray) * uniform(0.1, 1.6)
    middle = toned.mean((1, 2, 3), keepdim=True)
    toned = (middle + (toned - middle) * uniform(0.6, 1.5)).clamp(1e-4, 1) ** uniform(0.65, 1.6)
    x = mix(0.8, toned, x)
    x = mix(0.1, _turned_hue(x, math.tau * torch.rand(count, device=device)), x)
    x = mix(0.1, x.mean(1, keepdim=True).expand_as(x), x)
    x = _filtered(x)
    noise = torch.randn_like(x)
    smooth = F.avg_pool2d(noise, 3, 1, 1) * 2.5
    level = uniform(0.003, 0.06) * (0.4 + x.clamp(0, 1).sqrt())  # photons: brighter is noisier
    x = x + some(0.5) * torch.lerp(noise, smooth, some(0.35)) * level
    return _compressed(x.clamp(0, 1), some(0.4))


def _drawing(rgb: Tensor, inverse: Tensor, uniform: object) -> Tensor:
    """Flat colours with ink at outlines of depth and colour."""
    assert callable(uniform)
    levels = uniform(3, 9).round()
    flat = torch.floor(F.avg_pool2d(rgb, 5, 1, 2) * levels + 0.5) / levels
    depth = inverse.clamp(min=0.02)[:, None]
    step = F.max_pool2d(depth, 3, 1, 1) / -F.max_pool2d(-depth, 3, 1, 1) > 1.15
    gray = F.avg_pool2d(rgb.mean(1, keepdim=True), 3, 1, 1)
    contrast = F.max_pool2d(gray, 3, 1, 1) + F.max_pool2d(-gray, 3, 1, 1) > 0.12
    ink = F.avg_pool2d((step | contrast).float(), 3, 1, 1)
    paper = torch.where(uniform(0, 1) < 0.3, uniform(0.8, 1, 3), flat)
    return paper * (1 - ink * uniform(0.4, 1))


def _turned_hue(x: Tensor, angle: Tensor) -> Tensor:
    """Colours turned about the grey axis (Rodrigues' formula)."""
    c, s = torch.cos(angle).view(-1, 1, 1), torch.sin(angle).view(-1, 1, 1)
    axis = 1 / math.sqrt(3)
    cross = axis * torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=x.device)
    matrix = c * torch.eye(3, device=x.device) + s * cross + (1 - c) / 3
    return torch.einsum("nij,njhw->nihw", matrix, x).clamp(0, 1)


def _filtered(x: Tensor) -> Tensor:
    """Gaussian blur, motion blur, sharpening or nothing: one 9×9 kernel for each picture."""
    count, _, height, width = x.shape
    device = x.device
    line = torch.arange(-4.0, 5, device=device)
    v, u = torch.meshgrid(line, line, indexing="ij")
    sigma = 0.3 + 1.3 * torch.rand(count, 1, 1, device=device)
    blur = torch.exp(-(u**2 + v**2) / (2 * sigma**2))
    angle = math.pi * torch.rand(count, 1, 1, device=device)
    along, aside = u * torch.cos(angle) + v * torch.sin(angle), v * torch.cos(angle) - u * torch.sin(angle)
    reach = 1 + 3 * torch.rand(count, 1, 1, device=device)
    motion = torch.exp(-(aside**2) / 0.5) * (along.abs() <= reach)
    same = ((u == 0) & (v == 0)).float().expand(count, 9, 9)
    blur, motion = (kernel / kernel.sum((1, 2), keepdim=True) for kernel in (blur, motion))
    amount = 1.5 * torch.rand(count, 1, 1, device=device)
    choice = torch.rand(count, 1, 1, device=device)
    kernel = torch.where(choice < 0.25, blur, torch.where(choice < 0.33, motion, same))
    kernel = torch.where(choice > 0.85, same + amount * (same - blur), kernel)
    weights = kernel[:, None].repeat_interleave(3, 0)
    flat = F.pad(x, (4, 4, 4, 4), mode="reflect").view(1, count * 3, height + 8, width + 8)
    with torch.backends.cudnn.flags(enabled=False):  # it has no fast way for as many groups
        return F.conv2d(flat, weights, groups=count * 3).view_as(x)


def _compressed(x: Tensor, chosen: Tensor) -> Tensor:
    """What JPEG's quantisation leaves of 8×8 blocks' cosines, without its subsampling of colours."""
    count, _, height, width = x.shape
    device = x.device
    n = torch.arange(8.0, device=device)
    cosine = torch.cos((2 * n + 1) * n[:, None] * math.pi / 16) / 2
    cosine[0] /= math.sqrt(2)
    blocks = x.view(count, 3, height // 8, 8, width // 8, 8).transpose(3, 4)
    waves = cosine @ blocks @ cosine.T
    step = (8 + 5 * (n + n[:, None])) / 255  # rises with frequency, about as in the standard's table for brightness
    step = step * torch.exp(torch.rand(count, 1, 1, 1, 1, 1, device=device) * 2.5 - 1.5)
    back = cosine.T @ (torch.round(waves / step) * step) @ cosine
    return torch.lerp(x, back.transpose(3, 4).reshape_as(x).clamp(0, 1), chosen)


def moved(rgb: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As train.py's `moved`, for floats: moved by up to 4 pixels, scaled by up to 3 %, with other noise."""
    count, _, height, width = rgb.shape
    device = rgb.device

    def spread() -> Tensor:
        return 2 * torch.rand(count, device=device) - 1

    scale, zero = 1 + 0.03 * spread(), torch.zeros(count, device=device)
    across, down = 8 / width * spread(), 8 / height * spread()
    theta = torch.stack([torch.stack([scale, zero, across], 1), torch.stack([zero, scale, down], 1)], 1)
    grid = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    picture = F.grid_sample(rgb, grid, padding_mode="reflection", align_corners=False)
    picture = picture + torch.randn_like(picture) * torch.rand(count, 1, 1, 1, device=device) * (4 / 255)
    depth = F.grid_sample(inverse[:, None], grid, mode="nearest", padding_mode="border", align_corners=False)[:, 0]
    return picture.clamp(0, 1), depth, grid
