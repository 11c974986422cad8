"""Resizing on the device, in float: pictures to network inputs, network outputs to depth maps.

Invariant: no picture is resized as uint8, which would clip bicubic overshoot (differences of 0.14 in [0, 1]).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from stream.models.spec import InputPolicy, Resample

_STRIP_PIXELS = {"cpu": 2**17}
"""Pixels converted at a time: as floats they take 1.5 MB and stay in a core's cache."""
_STRIP_PIXELS_GPU = 2**25  # 400 MB as floats: few launches, bounded memory


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

    def __call__(self, rgb: Tensor, size_hw: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """uint8 H×W×3 → normalised `dtype` 1×3×h×w, channels last; computed in float32."""
        if self._resample is Resample.BILINEAR_ANTIALIAS:
            x = _antialiased(rgb, size_hw)
        else:
            # Permuting is a view, and the conversion keeps its order in memory: channels last without a copy for it.
            x = resize(rgb.permute(2, 0, 1)[None].float(), size_hw, self._resample)
        return ((x - self._mean) / self._std).to(dtype, memory_format=torch.channels_last)


def to_picture_size(output: Tensor, size_hw: tuple[int, int], resample: Resample) -> Tensor:
    """h×w network output → contiguous float32 H×W."""
    return resize(output.float()[None, None], size_hw, resample)[0, 0].contiguous()
