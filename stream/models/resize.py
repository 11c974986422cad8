"""Resizing of float images and maps on the device, by the methods that the catalog names.

Invariant: a method does what the official script of its models does, at its own border.
"""

from torch import Tensor
from torch.nn import functional as F

from stream.models.spec import Resample


def resize(x: Tensor, size_hw: tuple[int, int], resample: Resample) -> Tensor:
    """Resize float N×C×H×W to N×C×h×w; bicubic uses a = −0.75, no antialiasing and replicated borders.

    Raises:
        ValueError: the method works on uint8 images on the host.
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
    raise ValueError(f"{resample} is not for tensors")


def to_frame_size(output: Tensor, size_hw: tuple[int, int], resample: Resample) -> Tensor:
    """Resize a map h×w to contiguous float32 H×W."""
    return resize(output.float()[None, None], size_hw, resample)[0, 0].contiguous()
