"""From MoGe-2's affine point map to depth in metres, its mask, and the camera.

Two parts, because focal length and shift are found on the host: `answer` works on the device and waits for nothing,
`_completed` on the host when the maps have been downloaded. Only 64 × 64 samples are looked at to find them.
Invariant: as in the official `infer`: maps are resized before they are made depth, and the mask is the one that the
network gives, less what lies behind the camera.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream.models.answer import Answer, View
from stream.models.moge.solver import recovered
from stream.models.resize import to_frame_size
from stream.models.spec import ModelSpec

_SAMPLES = 64
"""Rows and columns of the samples; a smaller picture gives some of its pixels several times."""


def answer(spec: ModelSpec, outputs: Sequence[Tensor], view: View) -> Answer:
    """The answer for one picture, still without shift and scale; see `network.Moge.forward` for the outputs."""
    points, mask, scale = outputs
    p, q, log_z, logit = (to_frame_size(x, view.size_hw, spec.upsample) for x in (*points, mask))
    z = log_z.exp_()
    near = points[2].float().exp()
    network = torch.where((mask > 0) & torch.isfinite(near), near, torch.nan)
    found = affine(p.mul_(z), q.mul_(z), z, logit > 0, scale, view)
    return replace(found, network=network)


def affine(x: Tensor, y: Tensor, z: Tensor, mask: Tensor, scale: Tensor, view: View) -> Answer:
    """The answer of a point map at the picture's size whose z lacks a shift, and all of it a scale.

    Args:
        x, y, z: float32 H×W, contiguous; `z` becomes the depth.
        mask: bool H×W.
        scale: metres per unit, 0-D.
    """
    rows, columns = (torch.arange(_SAMPLES, device=z.device) * side // _SAMPLES for side in view.size_hw)
    valid = mask & torch.isfinite(z)
    sampled = [values[rows[:, None], columns].float() for values in (x, y, z, valid)]
    samples = torch.stack([*sampled, scale.float().expand_as(sampled[0])])
    return Answer(values=z, valid=valid, samples=samples, complete=lambda found: _completed(found, view))


def _completed(found: Answer, view: View) -> Answer:
    """The answer in metres, changed in place on the host."""
    assert found.samples is not None
    assert found.valid is not None
    (height, width), samples = view.size_hw, found.samples.numpy()
    half_diagonal = math.hypot(width, height) / 2
    focal = None if view.fov is None else width / 2 / math.tan(math.radians(view.fov) / 2) / half_diagonal
    chosen = samples[3] > 0
    xyz = np.moveaxis(samples[:3], 0, -1)[chosen]
    focal, shift = recovered(xyz, _positions(view.size_hw)[chosen], focal)
    values, valid = found.values.numpy(), found.valid.numpy()
    values += np.float32(shift)
    valid &= values > 0
    values *= samples[4, 0, 0]
    f = focal * half_diagonal
    return replace(found, camera=torch.tensor([f, f, width / 2, height / 2]), samples=None, complete=None)


def _positions(size_hw: tuple[int, int]) -> NDArray[np.float64]:
    """Where the samples lie in the picture: 64×64×2, from its centre, in half diagonals; float32 as officially."""
    diagonal = math.hypot(*size_hw)
    v, u = ((2 * (np.arange(_SAMPLES) * side // _SAMPLES) + 1 - side) / diagonal for side in size_hw)
    return np.stack(np.meshgrid(u, v), -1).astype(np.float32).astype(np.float64)
