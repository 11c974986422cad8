"""MoGe-2's network: DINOv2, a pyramid of convolutions that knows where each pixel lies, and a head for each answer.

Wang et al. 2025, arXiv:2507.02546. The checkpoints' head of normals is left out.
Invariant: attribute names are those of the checkpoints, and positions depend on the picture's aspect ratio only.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from stream.models.depth_anything.dinov2 import PATCH, DinoV2

_WIDTHS = (256, 128, 64, 32)
"""Channels of levels 1 to 4; level 0 has the encoder's."""
LEVELS = 1 + len(_WIDTHS)
"""Each level has twice the size of the one before; level 0 has that of the token grid."""
_HEAD_BLOCKS = (0, 1, 1, 1, 0)
"""Residual blocks of a head at each level."""


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def _resampler(before: int, after: int, *, is_last: bool) -> nn.Sequential:
    """From one level to the next."""
    if is_last:
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), _conv3(before, after))
    return nn.Sequential(nn.ConvTranspose2d(before, after, 2, 2), _conv3(after, after))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each after a ReLU, and a skip; the numbers are those of the checkpoints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"2": _conv3(width, width), "5": _conv3(width, width)})

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        y = self.layers["2"](torch.relu(x)).relu_()
        return self.layers["5"](y).add_(x)


class ConvStack(nn.Module):
    """A map for each level in, a map for each level out, coarsest first.

    Args:
        inputs: channels of the maps that enter each level.
        widths: channels of each level.
        blocks: residual blocks at each level.
        outputs: channels of the last level's output; None leaves it as it is.
    """

    def __init__(
        self, *, inputs: Sequence[int], widths: Sequence[int], blocks: Sequence[int], outputs: int | None = None
    ) -> None:
        super().__init__()
        self.input_blocks = nn.ModuleList(
            nn.Conv2d(count, width, 1) for count, width in zip(inputs, widths, strict=True)
        )
        self.res_blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
            for width, count in zip(widths, blocks, strict=True)
        )
        steps = list(pairwise(widths))
        self.resamplers = nn.ModuleList(_resampler(*step, is_last=step is steps[-1]) for step in steps)
        last = nn.Identity() if outputs is None else nn.Conv2d(widths[-1], outputs, 1)
        self.output_blocks = nn.ModuleList([*(nn.Identity() for _ in widths[1:]), last])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """N×C×H×W for each level, or 1×C×H×W where all pictures share it → N×C'×H×W for each level."""
        x, levels = None, []
        for level, (enter, given) in enumerate(zip(self.input_blocks, maps, strict=True)):
            entering = enter(given.to(enter.weight.dtype))  # type: ignore[arg-type]
            x = entering if x is None else self.resamplers[level - 1](x).add_(entering)
            x = self.res_blocks[level](x)
            levels.append(x)
        return levels

    def last(self, maps: Sequence[Tensor]) -> Tensor:
        """The last level's output, in the precision of its last layer."""
        x, layer = self(maps)[-1], self.output_blocks[-1]
        return layer(x.to(layer.weight.dtype))


class Encoder(nn.Module):
    """DINOv2 and the sum of its tapped blocks, each projected."""

    def __init__(self, *, width: int, depth: int, heads: int, taps: Sequence[int]) -> None:
        super().__init__()
        self.backbone = DinoV2(width=width, depth=depth, heads=heads, taps=taps)
        self.output_projections = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in taps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """N×3×H×W, sides multiples of 14 → the map N×C×H/14×W/14, and the last class token N×C."""
        grid_hw = (x.shape[-2] // PATCH, x.shape[-1] // PATCH)
        tokens = self.backbone.tokens(x)
        maps = [
            project(each[:, 1:].transpose(1, 2).unflatten(2, grid_hw))
            for project, each in zip(self.output_projections, tokens, strict=True)
        ]
        return torch.stack(maps).sum(0), tokens[-1][:, 0]


class Moge(nn.Module):
    """Normalised RGB and the picture's aspect ratio → an affine point map, a mask and the scale in metres.

    Args:
        width, depth, heads, taps: see `DinoV2`.
        blocks: residual blocks of the neck at each level.
    """

    def __init__(self, *, width: int, depth: int, heads: int, taps: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        widths = (width, *_WIDTHS)
        self.encoder = Encoder(width=width, depth=depth, heads=heads, taps=taps)
        self.neck = ConvStack(inputs=(width + 2, *(2 for _ in _WIDTHS)), widths=widths, blocks=blocks)
        self.points_head = ConvStack(inputs=widths, widths=widths, blocks=_HEAD_BLOCKS, outputs=3)
        self.mask_head = ConvStack(inputs=widths, widths=widths, blocks=_HEAD_BLOCKS, outputs=1)
        self.scale_head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor, aspect: float) -> tuple[Tensor, Tensor, Tensor]:
        """N×3×H×W, sides multiples of 14, of pictures with W / H = `aspect` → three float32 tensors.

        Returns:
            N×3×16H/14×16W/14: x / z, y / z and the logarithm of z, where z is known up to scale and shift;
            N×16H/14×16W/14: the logit of a pixel having an answer;
            N: metres per unit of z.
        """
        encoded, token = self.encoder(x)
        rows, columns = encoded.shape[-2:]
        positions = [position_map((rows << level, columns << level), aspect, x.device) for level in range(LEVELS)]
        first = torch.cat([encoded, positions[0].to(x.dtype).expand(len(x), -1, -1, -1)], 1)
        maps = self.neck([first, *positions[1:]])
        scale = self.scale_head(token.float())[:, 0].exp()
        return self.points_head.last(maps), self.mask_head.last(maps)[:, 0], scale


def position_map(size_hw: tuple[int, int], aspect: float, device: torch.device) -> Tensor:
    """float32 1×2×h×w: where the centre of each pixel lies, in half diagonals of the picture, from its centre."""
    height, width = size_hw
    diagonal = math.hypot(1, aspect)
    u, v = (
        torch.linspace(-most, most, side, device=device)
        for side, most in (
            (width, aspect / diagonal * (width - 1) / width),
            (height, 1 / diagonal * (height - 1) / height),
        )
    )
    return torch.stack([u.expand(height, width), v[:, None].expand(height, width)])[None]
