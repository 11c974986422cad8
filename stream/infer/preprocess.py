"""Resizing on the device, in float: pictures to network inputs, network outputs to depth maps.

Invariant: no picture is resized as uint8, which would clip bicubic overshoot (differences of 0.14 in [0, 1]).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from stream.models.spec import InputPolicy, Resample


def resize(x: Tensor, size_hw: tuple[int, int], resample: Resample) -> Tensor:
    """float N×C×H×W → float N×C×h×w.

    Bicubic is a = −0.75 without antialiasing and with replicated borders, as OpenCV's INTER_CUBIC on float.
    """
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


def to_input(rgb: Tensor, policy: InputPolicy, size_hw: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """uint8 H×W×3 on the device → normalised `dtype` 1×3×h×w, channels last; computed in float32."""
    # A uint8 permute is a view; the conversion reads it once and keeps channels last.
    x = rgb.permute(2, 0, 1).unsqueeze(0).to(torch.float32).div_(255)
    x = resize(x, size_hw, policy.resample)
    mean = torch.tensor(policy.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(policy.std, device=x.device).view(1, 3, 1, 1)
    return ((x - mean) / std).to(dtype, memory_format=torch.channels_last)


def to_picture_size(output: Tensor, size_hw: tuple[int, int], resample: Resample) -> Tensor:
    """h×w network output → float32 H×W."""
    return resize(output.float()[None, None], size_hw, resample)[0, 0]
