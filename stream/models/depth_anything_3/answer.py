"""From the outputs of Depth Anything 3 to depth at the picture's size.

The official results have the size of the network's input; bringing them to the picture's is a choice of this program,
the one that is official for Depth Anything V2.
Invariant: see `stream.models.answer`; the host waits for no number.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stream.frames import DepthKind, Intrinsics
from stream.models.answer import Answer, View
from stream.models.resize import resize, to_frame_size
from stream.models.spec import ModelSpec

SKY = 0.3
"""The least score of the sky."""
_LEAST_PIXELS = 10
"""The sky is left out if more pixels than these are sky and more than these are not."""
_FAR = 0.99
"""Quantile of the depth of all else that stands for the sky's."""
_FOCAL = 300.0
"""Focal length in pixels of the network's input at which DA3METRIC's output is in metres."""
ASSUMED = (
    "metres follow from the focal length, which neither --fov nor the image states; 60° along the longer side is "
    "assumed: with another field of view, all distances change by one factor"
)


def without_sky(spec: ModelSpec, outputs: Sequence[Tensor], view: View) -> Answer:
    """Depth and sky score, h×w each → depth, metres if the row gives metres, and no answer in the sky.

    The official code gives the sky a far depth. It is blended into the depth beside the sky when that is resized, here
    as well; what lies closer to sky than to anything else is not valid.
    """
    depth, score = (x.float() for x in outputs)
    sky = score >= SKY
    few = (sky.sum() <= _LEAST_PIXELS) | ((~sky).sum() <= _LEAST_PIXELS)
    sky &= ~few
    note = ""
    if spec.output is DepthKind.METRIC_DEPTH:
        note = "" if view.camera is not None else f"{spec.name}: {ASSUMED}"
        camera = view.camera or Intrinsics.assumed(view.size_hw)
        focal = (camera.fx + camera.fy) / 2 * depth.shape[1] / view.size_hw[1]
        depth = depth * (focal / _FOCAL)
    network = depth.masked_fill(sky, torch.nan)
    filled = torch.where(sky, network.flatten().nanquantile(_FAR), depth)
    share = resize(sky.float()[None, None], view.size_hw, spec.upsample)[0, 0]
    return Answer(
        values=to_frame_size(filled, view.size_hw, spec.upsample), valid=share <= 0.5, network=network, note=note
    )


def with_camera(spec: ModelSpec, outputs: Sequence[Tensor], view: View) -> Answer:
    """Depth and confidence, h×w each, and the fields of view → depth, confidence and the camera."""
    depth, confidence, fov = outputs
    height, width = view.size_hw
    down, across = (fov.float() / 2).tan().unbind()
    half_width, half_height = torch.full_like(across, width / 2), torch.full_like(down, height / 2)
    camera = torch.stack([half_width / across, half_height / down, half_width, half_height])
    return Answer(
        values=to_frame_size(depth, view.size_hw, spec.upsample),
        confidence=to_frame_size(confidence, view.size_hw, spec.upsample),
        camera=camera,
        network=depth,
    )
