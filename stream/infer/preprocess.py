"""Resizes frames to network inputs.

Invariant: a frame is resized on the device and in float, without clipping bicubic overshoot (differences of 0.14 in
[0, 1]), unless its model's official script resizes uint8 images: then by OpenCV, as there, before it is uploaded.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stream.frames import RgbImage
from stream.infer.geometry import longer_side_hw
from stream.media import cv2
from stream.models.resize import resize
from stream.models.spec import InputPolicy, Resample

_STRIP_PIXELS = {"cpu": 2**17}
"""Pixels converted to float at a time; their 1.5 MB stay in a core's cache."""
_STRIP_PIXELS_GPU = 2**25  # 400 MB as floats: few launches, bounded memory


def antialiased(rgb: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize uint8 H×W×3 to float32 1×3×h×w in [0, 255], bilinear with antialiasing.

    Resizes the width first, strip by strip, then the height, which is torch's own order. The result is bit-identical to
    resizing at once, takes 9 instead of 15 ms at 1080p on a CPU, and avoids holding a 250-megapixel image as 3 GB of
    floats.
    """
    rows = max(1, _STRIP_PIXELS.get(rgb.device.type, _STRIP_PIXELS_GPU) // rgb.shape[1])
    strips = [
        resize(strip.permute(2, 0, 1)[None].float(), (strip.shape[0], size_hw[1]), Resample.BILINEAR_ANTIALIAS)
        for strip in torch.split(rgb, rows)
    ]
    return resize(torch.cat(strips, 2) if len(strips) > 1 else strips[0], size_hw, Resample.BILINEAR_ANTIALIAS)


_CUBIC_A = -0.75
"""Parameter a of the cubic convolution kernel (Keys 1981), as chosen by OpenCV and torch."""


@lru_cache(maxsize=64)
def _cubic_taps(side: int, target: int, device: torch.device) -> tuple[Tensor | None, Tensor, Tensor]:
    """Source lines and weights for resizing `side` lines to `target`, each of which is a sum of four.

    Positions are computed as in OpenCV 4, in double and then rounded to float. torch rounds them earlier, which at a
    side of 600 moves the result by 5e-5, and some networks turn that into 1e-3 of their output's deviation. (OpenCV 5
    does not round. The official numbers were made with OpenCV 4; this agrees with them to 1e-6.)

    Returns:
        The source lines that are used, int64 N, or None for all of them; indices into these, int64 target×4; weights,
        float32 target×4.
    """
    position = ((np.arange(target) + 0.5) * (side / target) - 0.5).astype(np.float32)
    first = np.floor(position)
    t, a = position - first, np.float32(_CUBIC_A)
    before = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    at = ((a + 2) * t - (a + 3)) * t * t + 1
    after = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1
    weights = np.stack([before, at, after, 1 - before - at - after], axis=1).astype(np.float32)
    lines = np.clip(first.astype(np.int64)[:, None] + np.arange(-1, 3), 0, side - 1)
    used, which = np.unique(lines, return_inverse=True)
    chosen = None if len(used) == side else torch.from_numpy(used).to(device)
    return chosen, torch.from_numpy(which.reshape(lines.shape)).to(device), torch.from_numpy(weights).to(device)


def _bicubic(rgb: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize uint8 H×W×3 to float32 1×3×h×w in about [0, 255], as OpenCV's INTER_CUBIC does on floats.

    Resizes the height first, then the width, each time as weighted sums of whole lines: from 480×640 to 518×686 that
    takes 3 ms on one CPU core, gathering tap by tap 10 ms.
    """
    down = _summed(rgb, size_hw[0])
    return _summed(down.transpose(0, 1), size_hw[1]).permute(2, 1, 0)[None]


def _summed(x: Tensor, target: int) -> Tensor:
    """Resize N×M×C to float32 target×M×C: each line is a weighted sum of four of the N."""
    chosen, which, weights = _cubic_taps(x.shape[0], target, x.device)
    lines = (x if chosen is None else x.index_select(0, chosen)).float()
    table = lines.reshape(len(lines), -1)
    sums = _summed_by_taps if x.device.type == "mps" else _summed_at_once
    return sums(table, which, weights).view(target, *x.shape[1:])


def _summed_at_once(table: Tensor, which: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(which, table, mode="sum", per_sample_weights=weights)


def _summed_by_taps(table: Tensor, which: Tensor, weights: Tensor) -> Tensor:
    """The same for devices without `embedding_bag`: MPS before torch 2.10."""
    total = table.new_zeros(len(which), table.shape[1])
    for tap in range(which.shape[1]):
        total += table.index_select(0, which[:, tap]).mul_(weights[:, tap, None])
    return total


def resized_on_host(rgb: RgbImage, size_hw: tuple[int, int], resample: Resample, *, longest: int) -> RgbImage:
    """Resize uint8 H×W×3 to uint8 h×w×3 by a method with `Resample.is_on_host`.

    Args:
        longest: the longer side after the first of two steps: the inference size.
    """
    if resample is Resample.OPENCV_LINEAR:
        return _by_opencv(rgb, size_hw, cv2.INTER_LINEAR)
    for target in (longer_side_hw((rgb.shape[0], rgb.shape[1]), longest), size_hw):
        is_larger = target[0] > rgb.shape[0] or target[1] > rgb.shape[1]
        rgb = _by_opencv(rgb, target, cv2.INTER_CUBIC if is_larger else cv2.INTER_AREA)
    return rgb


def _by_opencv(rgb: RgbImage, size_hw: tuple[int, int], method: int) -> RgbImage:
    if rgb.shape[:2] == size_hw:
        return rgb
    return cv2.resize(rgb, (size_hw[1], size_hw[0]), interpolation=method).astype(np.uint8, copy=False)


class Preprocessor:
    """Makes network inputs according to a model's policy.

    Args:
        device: where the frames are. The constants are copied there once, because each copy makes the host wait.
    """

    def __init__(self, policy: InputPolicy, device: torch.device) -> None:
        self._resample = policy.resample
        # Scaled to [0, 255]: normalising is linear, so dividing by 255 needs no pass of its own.
        self._mean = torch.tensor(policy.mean, device=device).mul_(255).view(1, 3, 1, 1)
        self._std = torch.tensor(policy.std, device=device).mul_(255).view(1, 3, 1, 1)

    def __call__(
        self,
        rgb: Tensor,
        size_hw: tuple[int, int],
        dtype: torch.dtype,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> Tensor:
        """Turn uint8 H×W×3 into a normalised 1×3×h×w of `dtype` in `memory_format`; computed in float32."""
        # Permuting makes a view that is channels last in memory. Only bicubic ends with the transposed order, so that
        # the conversion below has to transpose the network's input.
        if tuple(rgb.shape[:2]) == size_hw:
            x = rgb.permute(2, 0, 1)[None].float()
        elif self._resample is Resample.BILINEAR_ANTIALIAS:
            x = antialiased(rgb, size_hw)
        elif self._resample is Resample.BICUBIC:
            x = _bicubic(rgb, size_hw)
        else:
            x = resize(rgb.permute(2, 0, 1)[None].float(), size_hw, self._resample)
        return ((x - self._mean) / self._std).to(dtype, memory_format=memory_format)
