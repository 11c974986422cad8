"""Depth Anything V1, V2 and V2-metric: DINOv2 with a DPT head.

Yang et al. 2024, arXiv:2401.10891 (V1) and arXiv:2406.09414 (V2).
Invariant: one class serves all checkpoints; the catalog's options hold the differences.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stream.models.decoder import Scratch
from stream.models.depth_anything.dinov2 import PATCH, DinoV2, grid_of
from stream.models.layers import upsample


class DepthHead(nn.Module):
    """Tokens of four blocks → maps; the attribute names are those of the checkpoints.

    Args:
        width: channels of the tokens.
        channels: of the decoder.
        outputs: channels of the maps that enter it.
        maps: how many the head gives.
    """

    def __init__(self, width: int, channels: int, outputs: Sequence[int], *, maps: int = 1) -> None:
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
        self.scratch.output_conv2 = output_layers(channels // 2, maps)

    def forward(self, tokens: Sequence[Tensor], grid_hw: tuple[int, int]) -> Tensor:
        """N×L×C each → N×maps×14h×14w, before the last activation."""
        return self.output(self.path(tokens, grid_hw), grid_hw)

    def path(self, tokens: Sequence[Tensor], grid_hw: tuple[int, int]) -> Tensor:
        """N×L×C each → N×channels×8h×8w, the decoder's path after its finest level."""
        maps = [resize(x) for x, resize in zip(self.projected(tokens, grid_hw), self.resize_layers, strict=True)]
        return self.scratch.fuse(maps)

    def projected(self, tokens: Sequence[Tensor], grid_hw: tuple[int, int]) -> list[Tensor]:
        """N×L×C each → N×C'×h×w each, with the channels of their levels and not yet at their sizes."""
        return [
            project(x.transpose(1, 2).unflatten(2, grid_hw)) for x, project in zip(tokens, self.projects, strict=True)
        ]

    def enlarged(self, path: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """The decoder's path → N×channels/2×14h×14w, what the last layers get."""
        y = self.scratch.output_conv1(path)  # type: ignore[operator]
        return upsample(y, (PATCH * grid_hw[0], PATCH * grid_hw[1]))

    def output(self, path: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """The decoder's path after its finest level → N×maps×14h×14w, before the last activation."""
        return last_layers(self.scratch, "output_conv2", self.enlarged(path, grid_hw))


def output_layers(channels: int, maps: int) -> nn.Sequential:
    """The last layers of a head, see `last_layers`."""
    return nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, maps, 1))


def last_layers(scratch: nn.Module, name: str, x: Tensor) -> Tensor:
    """N×C×H×W → N×maps×H×W through the `output_layers` of that name; the last may have a precision of its own."""
    layers = scratch.get_submodule(name)
    assert isinstance(layers, nn.Sequential)
    first, relu, last = layers
    y: Tensor = last(relu(first(x)).to(last.weight.dtype))
    return y


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
        y = self.depth_head(self.pretrained(x), grid_of(x))[:, 0]
        return torch.relu(y) if self.max_depth_m is None else self.max_depth_m * torch.sigmoid(y)
