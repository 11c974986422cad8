"""Resizing on the device, in float: pictures to network inputs, network outputs to depth maps.

Invariant: no picture is resized as uint8, which would clip bicubic overshoot (differences of 0.14 in [0, 1]).
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stream.models.spec import InputPolicy, Resample

_STRIP_PIXELS = {"cpu": 2**17}
"""Pixels converted at a time: as floats they take 1.5 MB and stay in a core's cache."""
_STRIP_PIXELS_GPU = 2**25  # 400 MB as floats: few launches, bounded memory


def resize(x: Tensor, size_hw: tuple[int, int], resample: Resample) -> Tensor:
    """float N×C×H×W → float N×C×h×w; bicubic is a = −0.75 without antialiasing and with replicated borders."""
    if tuple(x.shape[-2:]) == size_hw:
        return x
    match resample:
        case Resample.BICUBIC:
            return F.interpolate(x, size=size_hw, mode="bicubic", align_corners=False)
        case Resample.BILINEAR:
            return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)
        case Resample.BILINEAR_ANTIALIAS:
            return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False, antialias=True)
        case Resample.BILINEAR_CORNERS:
            return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=True)


def _antialiased(rgb: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """uint8 H×W×3 → float32 1×3×h×w in [0, 255], bilinear with antialiasing.

    Across first, strip by strip, then down, which is torch's own order: equal to the last bit to resizing at once, 9
    instead of 15 ms at 1080p on a CPU, and a 250-megapixel picture never stands in memory as 3 GB of floats.
    """
    rows = max(1, _STRIP_PIXELS.get(rgb.device.type, _STRIP_PIXELS_GPU) // rgb.shape[1])
    strips = [
        resize(strip.permute(2, 0, 1)[None].float(), (strip.shape[0], size_hw[1]), Resample.BILINEAR_ANTIALIAS)
        for strip in torch.split(rgb, rows)
    ]
    return resize(torch.cat(strips, 2) if len(strips) > 1 else strips[0], size_hw, Resample.BILINEAR_ANTIALIAS)


_CUBIC_A = -0.75
"""Of the convolution kernel (Keys 1981); OpenCV's and torch's choice."""


@lru_cache(maxsize=64)
def _cubic_taps(side: int, target: int, device: torch.device) -> tuple[Tensor | None, Tensor, Tensor]:
    """How `target` lines are made of `side` lines, each of four.

    Returns:
        The lines that count, int64 N, or None for all; which of these, int64 target×4; their weights, float32 target×4.

    Positions are computed as OpenCV 4 does it, in double and then rounded to float: torch rounds them earlier, which at
    a side of 600 moves the result by 5e-5, and some networks turn that into 1e-3 of their output's deviation. (OpenCV 5
    does not round them. The official numbers, to which this is equal to 1e-6, were made with OpenCV 4.)
    """
    position = ((np.arange(target) + 0.5) * (side / target) - 0.5).astype(np.float32)
    first = np.floor(position)
    t, a = position - first, np.float32(_CUBIC_A)
    before = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    at = ((a + 2) * t - (a + 3)) * t * t + 1
    after = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1
    weights = np.stack([before, at, after, 1 - before - at - after], axis=1).astype(np.float32)
    lines = np.clip(first.astype(np.int64)[:, None] + np.arange(-1, 3), 0, side - 1)
    counting, which = np.unique(lines, return_inverse=True)
    chosen = None if len(counting) == side else torch.from_numpy(counting).to(device)
    return chosen, torch.from_numpy(which.reshape(lines.shape)).to(device), torch.from_numpy(weights).to(device)


def _bicubic(rgb: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """uint8 H×W×3 → float32 1×3×h×w in about [0, 255], as OpenCV's INTER_CUBIC on floats.

    Down first, then across, each time as sums of whole lines: 3 ms from 480×640 to 518×686 on a CPU's core, where
    gathering tap by tap takes 10.
    """
    down = _summed(rgb, size_hw[0])
    return _summed(down.transpose(0, 1), size_hw[1]).permute(2, 1, 0)[None]


def _summed(x: Tensor, target: int) -> Tensor:
    """N×M×C → float32 target×M×C, lines that are weighted sums of four of the N."""
    chosen, which, weights = _cubic_taps(x.shape[0], target, x.device)
    lines = (x if chosen is None else x.index_select(0, chosen)).float()
    table = lines.reshape(len(lines), -1)
    sums = _summed_by_taps if x.device.type == "mps" else _summed_at_once
    return sums(table, which, weights).view(target, *x.shape[1:])


def _summed_at_once(table: Tensor, which: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(which, table, mode="sum", per_sample_weights=weights)


def _summed_by_taps(table: Tensor, which: Tensor, weights: Tensor) -> Tensor:
    """The same for devices that have no `embedding_bag`: MPS before torch 2.10."""
    total = table.new_zeros(len(which), table.shape[1])
    for tap in range(which.shape[1]):
        total += table.index_select(0, which[:, tap]).mul_(weights[:, tap, None])
    return total


class Preprocessor:
    """Makes network inputs as a policy says.

    Args:
        device: where pictures are; the constants are put there once, because sending them makes the host wait.
    """

    def __init__(self, policy: InputPolicy, device: torch.device) -> None:
        self._resample = policy.resample
        # For values in [0, 255]: normalising is linear, so dividing by 255 needs no pass of its own.
        self._mean = torch.tensor(policy.mean, device=device).mul_(255).view(1, 3, 1, 1)
        self._std = torch.tensor(policy.std, device=device).mul_(255).view(1, 3, 1, 1)

    def __call__(
        self,
        rgb: Tensor,
        size_hw: tuple[int, int],
        dtype: torch.dtype,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> Tensor:
        """uint8 H×W×3 → normalised `dtype` 1×3×h×w in `memory_format`; computed in float32."""
        # Permuting is a view, whose order in memory is channels last; only bicubic ends across, so that the conversion
        # has to transpose the network's input.
        if tuple(rgb.shape[:2]) == size_hw:
            x = rgb.permute(2, 0, 1)[None].float()
        elif self._resample is Resample.BILINEAR_ANTIALIAS:
            x = _antialiased(rgb, size_hw)
        elif self._resample is Resample.BICUBIC:
            x = _bicubic(rgb, size_hw)
        else:
            x = resize(rgb.permute(2, 0, 1)[None].float(), size_hw, self._resample)
        return ((x - self._mean) / self._std).to(dtype, memory_format=memory_format)


def to_picture_size(output: Tensor, size_hw: tuple[int, int], resample: Resample) -> Tensor:
    """h×w network output → contiguous float32 H×W."""
    return resize(output.float()[None, None], size_hw, resample)[0, 0].contiguous()
