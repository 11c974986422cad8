"""Turns rendered shards into training samples: crops, flips, camera artefacts and drawings.

Invariant: a sample is a function of (seed, sample number) alone, so interrupted training resumes exactly.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from assets import F32, U8
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset, Sampler

NEAREST_INVERSE = 5.0
"""Inverse depth is cut here, 0.2 m: nearer things would rule the loss."""
Request = tuple[int, int, int]
"""Sample number, height, width."""


class Shards:
    """All pictures of a folder of shards, memory-mapped: `rgb[i]` uint8 H×W×3, `inverse[i]` float16 H×W, 1 / metres."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("[0-9]*.inverse.npy"))
        if not files:
            raise SystemExit(f"{folder}: no shards; run scripts/starter/render.py first")
        self._inverse = [np.load(path, mmap_mode="r") for path in files]
        self._rgb = [np.load(path.parent / path.name.replace("inverse", "rgb"), mmap_mode="r") for path in files]
        self._size = len(self._inverse[0])

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._inverse)

    def __getitem__(self, index: int) -> tuple[U8, F32]:
        shard, row = divmod(index, self._size)
        return np.array(self._rgb[shard][row]), np.asarray(self._inverse[shard][row], np.float32)


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Augmented samples by number: uint8 3×H×W RGB and float32 H×W inverse depth."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._shards, self._seed = Shards(folder), seed
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor]:
        number, height, width = request
        epoch, position = divmod(number, len(self._shards))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._shards))
            self._epoch = epoch
        rng = np.random.default_rng([self._seed, 1, number])
        rgb, inverse = self._shards[int(self._order[position])]
        rgb, inverse = crop(rng, rgb, inverse, height, width)
        rgb = disturb(rng, rgb, inverse)
        return torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(np.minimum(inverse, NEAREST_INVERSE))


class Batches(Sampler[list[Request]]):
    """Batches of one size each, from `first` sample to `last`; the size is drawn by the batch's own seed.

    Worker `worker` of several gets every `workers`-th sample of each batch.
    """

    def __init__(
        self, first: int, last: int, batch: int, sizes: list[tuple[int, int]], seed: int, worker: int, workers: int
    ) -> None:
        self._numbers = range(first, last, batch)
        self._batch, self._sizes, self._seed = batch, sizes, seed
        self._worker, self._workers = worker, workers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[list[Request]]:
        for start in self._numbers:
            height, width = np.random.default_rng([self._seed, 2, start]).choice(self._sizes)
            mine = range(start + self._worker, start + self._batch, self._workers)
            yield [(number, int(height), int(width)) for number in mine]


def crop(rng: Generator, rgb: U8, inverse: F32, height: int, width: int) -> tuple[U8, F32]:
    """A part of the picture of about the wanted aspect, perhaps mirrored, resized; depth is never blended."""
    full_height, full_width = inverse.shape
    aspect = width / height * np.exp(rng.uniform(-0.15, 0.15))
    largest = min(full_width, full_height * aspect)
    across = largest * rng.uniform(0.6, 1)
    w, h = int(across), min(full_height, int(across / aspect))
    y, x = int(rng.integers(0, full_height - h + 1)), int(rng.integers(0, full_width - w + 1))
    way = cv2.INTER_AREA if w > width else cv2.INTER_LINEAR
    rgb = cv2.resize(rgb[y : y + h, x : x + w], (width, height), interpolation=way)
    inverse = cv2.resize(inverse[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if rng.random() < 0.5:
        rgb, inverse = rgb[:, ::-1], inverse[:, ::-1]
    return np.ascontiguousarray(rgb), np.ascontiguousarray(inverse)


def disturb(rng: Generator, rgb: U8, inverse: F32) -> U8:
    """Light, colour, haze, blur, noise, compression; a few become drawings. uint8 H×W×3 both ways."""
    if rng.random() < 0.08:
        rgb = draw(rng, rgb, inverse)
    x = rgb.astype(np.float32) / 255
    if rng.random() < 0.06:
        x = _haze(rng, x, inverse)
    if rng.random() < 0.8:
        x = _recolour(rng, x)
    kind = rng.random()
    if kind < 0.12:
        x = np.repeat(x.mean(2, keepdims=True), 3, 2)
    elif kind < 0.27:
        hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + rng.uniform(0, 360)) % 360
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    x = _soften(rng, x)
    if rng.random() < 0.4:
        noise = rng.standard_normal(x.shape, np.float32)
        if rng.random() < 0.3:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * 2
        x = x + noise * rng.uniform(0.005, 0.07)
    out = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.45:
        coded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 92))])[1]
        out = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.uint8)
    return out


def _recolour(rng: Generator, x: F32) -> F32:
    x = x * rng.uniform(0.8, 1.2, 3).astype(np.float32) * np.float32(rng.uniform(0.55, 1.5))
    gray = x.mean(2, keepdims=True)
    x = gray + (x - gray) * np.float32(rng.uniform(0.1, 1.6))
    mean = x.mean()
    x = mean + (x - mean) * np.float32(rng.uniform(0.6, 1.5))
    return np.asarray(np.clip(x, 0, 1) ** np.float32(rng.uniform(0.65, 1.6)), np.float32)


def _haze(rng: Generator, x: F32, inverse: F32) -> F32:
    metres = 1 / np.maximum(inverse, 1e-3)
    clear = np.exp(-metres * rng.uniform(0.3, 2) / np.percentile(metres, 60))[..., None]
    air = rng.uniform(0.5, 1) * rng.uniform(0.85, 1, 3)
    return np.asarray(x * clear + air * (1 - clear), np.float32)


def _soften(rng: Generator, x: F32) -> F32:
    kind = rng.random()
    if kind < 0.2:
        return np.asarray(cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.6)), np.float32)
    if kind < 0.3:  # motion blur along a line
        length, angle = int(rng.integers(3, 12)), rng.uniform(0, np.pi)
        kernel = np.zeros((length, length), np.float32)
        middle, reach = (length - 1) / 2, length / 2
        ends = [(int(middle + s * reach * np.cos(angle)), int(middle + s * reach * np.sin(angle))) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        return np.asarray(cv2.filter2D(x, -1, kernel / max(kernel.sum(), 1)), np.float32)
    if kind < 0.4:  # from a smaller picture
        h, w = x.shape[:2]
        k = rng.uniform(0.35, 0.8)
        small = cv2.resize(x, (int(w * k), int(h * k)), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)
    if kind < 0.55:  # sharpened, as phones do
        return np.asarray(x + (x - cv2.GaussianBlur(x, (0, 0), 1.0)) * rng.uniform(0.2, 1.5), np.float32)
    return x


def draw(rng: Generator, rgb: U8, inverse: F32) -> U8:
    """A drawing of the picture: flat colours, ink outlines, or only outlines on paper."""
    flat = cv2.bilateralFilter(rgb, 7, 60, 7).astype(np.float32)
    levels = rng.integers(3, 9)
    flat = np.floor(flat / 256 * levels + 0.5) / levels
    colour_edges = cv2.Canny(cv2.GaussianBlur(rgb, (0, 0), 1.0), 40, 120) > 0
    step = cv2.morphologyEx(inverse, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    ink = (colour_edges | (step > 0.12 * np.maximum(inverse, 0.02))).astype(np.float32)
    if rng.random() < 0.4:
        ink = cv2.dilate(ink, np.ones((2, 2), np.uint8))
    ink = cv2.GaussianBlur(ink, (0, 0), 0.6)[..., None]
    kind = rng.random()
    if kind < 0.3:
        paper = np.float32(rng.uniform(0.8, 1, 3))
        out = paper * (1 - ink * rng.uniform(0.6, 1))
    elif kind < 0.75:
        out = flat * (1 - ink * rng.uniform(0.5, 1))
    else:
        out = flat
    return (np.clip(out, 0, 1) * 255).astype(np.uint8)
