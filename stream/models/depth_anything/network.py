"""Depth Anything V1, V2 and V2-metric: DINOv2 with a DPT head.

Yang et al. 2024, arXiv:2401.10891 (V1) and arXiv:2406.09414 (V2).
Invariant: one class serves all checkpoints; the catalog's options hold the differences.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stream.models.decoder import Scratch
from stream.models.depth_anything.dinov2 import PATCH, DinoV2
from stream.models.layers import upsample


class DepthHead(nn.Module):
    """Tokens of four blocks → one map; the attribute names are those of the checkpoints."""

    def __init__(self, width: int, channels: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(width, count, 1) for count in outputs)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(outputs[0], outputs[0], 4, 4),
                nn.ConvTranspose2d(outputs[1], outputs[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(outputs[3], outputs[3], 3, 2, 1),
            ]
        )
        self.scratch = Scratch(outputs, channels)
        self.scratch.output_conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(channels // 2, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, 1, 1)
        )

    def forward(self, tokens: Sequence[Tensor], grid_hw: tuple[int, int]) -> Tensor:
        """N×L×C each → N×1×14h×14w, before the last activation."""
        maps = [
            resize(project(x.transpose(1, 2).unflatten(2, grid_hw)))
            for x, project, resize in zip(tokens, self.projects, self.resize_layers, strict=True)
        ]
        y = self.scratch.output_conv1(self.scratch.fuse(maps))  # type: ignore[operator]
        y = upsample(y, (PATCH * grid_hw[0], PATCH * grid_hw[1]))
        first, relu, last = self.scratch.output_conv2  # type: ignore[misc]
        return last(relu(first(y)).to(last.weight.dtype))


class DepthAnything(nn.Module):
    """Normalised RGB → disparity, or metres if `max_depth_m` is given.

    Args:
        width, depth, heads, gated: see `DinoV2`.
        taps: numbers of the blocks that feed the head: the last four in V1, four evenly spaced ones in V2.
        channels: channels of the decoder; `outputs`: channels of the maps that enter it.
        max_depth_m: scale of the metric head's sigmoid; None for relative models.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        taps: Sequence[int],
        channels: int,
        outputs: Sequence[int],
        gated: bool = False,
        max_depth_m: float | None = None,
    ) -> None:
        super().__init__()
        self.max_depth_m = max_depth_m
        self.pretrained = DinoV2(width=width, depth=depth, heads=heads, taps=taps, gated=gated)
        self.depth_head = DepthHead(width, channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W, sides multiples of 14 → N×H×W."""
        grid_hw = (x.shape[-2] // PATCH, x.shape[-1] // PATCH)
        y = self.depth_head(self.pretrained(x), grid_hw)[:, 0]
        return torch.relu(y) if self.max_depth_m is None else self.max_depth_m * torch.sigmoid(y)
