"""Depth Anything 3 on single pictures: DINOv2 with a DPT head (Lin et al. 2025, arXiv:2511.10647).

`Monocular` is the network of DA3MONO and DA3METRIC, `AnyView` that of DA3-SMALL and DA3-BASE. Facts and constants:
https://github.com/ByteDance-Seed/Depth-Anything-3.
Invariant: the attribute names are those of the published files, without `model.` in front. What only several pictures
or given poses need (the head for rays, the camera encoder) is left out.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.depth_anything.dinov2 import DinoV2, grid_of
from stream.models.depth_anything.network import DepthHead, last_layers, output_layers
from stream.models.layers import SelfAttention, SizeCache, merge_heads, size_of, split_heads

_NORM_EPS = 1e-5
"""Of all norms but those inside the blocks."""
_ROTARY_BASE = 100.0
_TABLE_BASE = 100.0
_TABLE_WEIGHT = 0.1


class Monocular(nn.Module):
    """Normalised RGB → depth, exp of the head's map, and a score of sky, not negative.

    Args:
        width, depth, heads, taps: see `DinoV2`.
        channels, outputs: see `DepthHead`.
    """

    def __init__(
        self, *, width: int, depth: int, heads: int, taps: Sequence[int], channels: int, outputs: Sequence[int]
    ) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.pretrained = DinoV2(
            width=width, depth=depth, heads=heads, taps=taps, norm_eps=_NORM_EPS, has_mask=False
        )
        self.head = DepthHead(width, channels, outputs)
        _drop_spare_unit(self.head)
        self.head.scratch.sky_output_conv2 = output_layers(channels // 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """N×3×H×W, sides multiples of 14 → N×H×W each."""
        tokens = self.backbone.pretrained(x)  # type: ignore[operator]
        features = self.head.enlarged(self.head.path(tokens, grid_of(x)), grid_of(x))
        depth, sky = (
            last_layers(self.head.scratch, name, features)[:, 0] for name in ("output_conv2", "sky_output_conv2")
        )
        return depth.exp(), sky.relu()


class AnyView(nn.Module):
    """Normalised RGB → depth, confidence (above 1) and the fields of view of one picture.

    Args:
        width, depth, heads, taps: see `DinoV2`.
        alternates_from: the first block of `AnyViewBackbone` that knows positions.
        channels, outputs: see `DepthHead`.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        taps: Sequence[int],
        alternates_from: int,
        channels: int,
        outputs: Sequence[int],
    ) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.pretrained = AnyViewBackbone(
            width=width, depth=depth, heads=heads, taps=taps, alternates_from=alternates_from
        )
        self.head = DualHead(2 * width, channels, outputs)
        self.cam_dec = CameraDecoder(2 * width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """N×3×H×W, sides multiples of 14 → N×H×W, N×H×W, and N×2: vertical and horizontal field of view in radians."""
        tokens, camera = self.backbone.pretrained(x)  # type: ignore[operator]
        maps = self.head(tokens, grid_of(x))
        return maps[:, 0].exp(), maps[:, 1].exp() + 1, self.cam_dec(camera)


class RotaryAttention(SelfAttention):
    """Attention whose queries and keys are normalised and turned by their position (Heo et al. 2024, arXiv:2403.13298).

    The first half of a head's channels turns with the row, the second with the column.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.q_norm = nn.LayerNorm(width // heads, eps=_NORM_EPS)
        self.k_norm = nn.LayerNorm(width // heads, eps=_NORM_EPS)

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:  # type: ignore[override]
        """N×L×C and `rotary_table`'s 2×L×D → N×L×C."""
        q, k, v = split_heads(self.qkv(x), self.heads)
        q, k = _turned(self.q_norm(q), turns), _turned(self.k_norm(k), turns)
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Each pair (a, b) of …×L×D, D/4 channels apart, becomes (a cos − b sin, b cos + a sin)."""
    first, second = x.unflatten(-1, (2, 2, -1)).unbind(-2)
    across = torch.stack([-second, first], -2).flatten(-3)
    return x * turns[0] + across * turns[1]


def rotary_table(rows: Tensor, columns: Tensor, channels: int) -> Tensor:
    """Cosines and sines of the angles of L tokens at these positions: 2×L×channels."""
    frequencies = _ROTARY_BASE ** (-torch.arange(0, channels // 2, 2, dtype=torch.float64) / (channels // 2))
    angles = torch.cat([position[:, None] * frequencies.repeat(2) for position in (rows, columns)], 1)
    return torch.stack([angles.cos(), angles.sin()])


class AnyViewBackbone(DinoV2):
    """DINOv2 with a token for the camera and, from one block on, rotary positions.

    In even blocks these are a patch's row and column, counted from 1; odd blocks compare whole pictures, so all patches
    of one are at (1, 1). The camera's token is always at (0, 0).

    Args:
        taps: numbers of the tapped blocks, all odd.
        alternates_from: the first block with positions; its class token is replaced by the camera's.
    """

    def __init__(self, *, width: int, depth: int, heads: int, taps: Sequence[int], alternates_from: int) -> None:
        super().__init__(width=width, depth=depth, heads=heads, taps=taps, norm_eps=_NORM_EPS, has_mask=False)
        self.camera_token = nn.Parameter(torch.zeros(1, 2, width))  # of the first picture, and of all others
        self._from, self._channels = alternates_from, width // heads
        for block in self.blocks[alternates_from:]:
            block.attn = RotaryAttention(width, heads)
        self._within, self._across = SizeCache(), SizeCache()

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:  # type: ignore[override]
        """N×3×H×W → for each tap N×(h·w)×2C, the output of the block before and its own, normalised; and N×2C, the
        camera's of the last one, not normalised."""
        grid_hw = grid_of(x)
        x = self.embedded(x, grid_hw)
        within = self._within.get(grid_hw, x.device, x.dtype, lambda: self._turns(*_places(grid_hw)))
        across = self._across.get(
            grid_hw, x.device, x.dtype, lambda: self._turns(*(place.clamp(max=1) for place in _places(grid_hw)))
        )
        before, maps, camera = x, [], x[:, 0]
        for number, block in enumerate(self.blocks):
            if number == self._from:
                x = torch.cat([self.camera_token[:, :1].to(x.dtype).expand(x.shape[0], -1, -1), x[:, 1:]], 1)
            before, x = x, block(x, *(() if number < self._from else (across if number % 2 else within,)))
            if number in self.taps:
                maps.append(torch.cat([before, self.norm(x)], -1)[:, 1:])
                camera = torch.cat([before[:, 0], x[:, 0]], -1)
        return maps, camera

    def _turns(self, rows: Tensor, columns: Tensor) -> Tensor:
        return rotary_table(rows, columns, self._channels)


def _places(grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of the camera's token and of the patches: 1+h·w each."""
    rows, columns = (torch.arange(1, side + 1, dtype=torch.float64) for side in grid_hw)
    return F.pad(rows.repeat_interleave(len(columns)), (1, 0)), F.pad(columns.repeat(len(rows)), (1, 0))


class DualHead(DepthHead):
    """Tokens of four blocks → two maps, with normalised tokens and a table of positions added in five places."""

    def __init__(self, width: int, channels: int, outputs: Sequence[int]) -> None:
        super().__init__(width, channels, outputs, maps=2)
        _drop_spare_unit(self)
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self._tables = {count: SizeCache() for count in (*outputs, channels // 2)}

    def projected(self, tokens: Sequence[Tensor], grid_hw: tuple[int, int]) -> list[Tensor]:
        """See `DepthHead`."""
        maps = super().projected([self.norm(x) for x in tokens], grid_hw)
        return [self._placed(x, grid_hw) for x in maps]

    def output(self, path: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """See `DepthHead`."""
        return last_layers(self.scratch, "output_conv2", self._placed(self.enlarged(path, grid_hw), grid_hw))

    def _placed(self, x: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """N×C×h×w plus the table: its first half of channels depends on the column, the second on the row."""
        aspect, half = grid_hw[1] / grid_hw[0], x.shape[1] // 2
        size_hw = size_of(x)
        table = self._tables[x.shape[1]].get(
            grid_hw, x.device, x.dtype, lambda: position_table(size_hw, x.shape[1], aspect)
        )
        across, down = table.split([size_hw[1], size_hw[0]], -1)
        return torch.cat([x[:, :half] + across[:, None, :], x[:, half:] + down[:, :, None]], 1)


def position_table(size_hw: tuple[int, int], channels: int, aspect: float) -> Tensor:
    """What is added to a map h×w: C/2 × (w + h), for its columns and then for its rows.

    Args:
        aspect: W / H of the network's input. The picture's diagonal has a length of 2.
    """
    frequencies = _TABLE_BASE ** (-torch.arange(channels // 4, dtype=torch.float64) / (channels / 4))
    spans = 1 / math.hypot(aspect, 1), aspect / math.hypot(aspect, 1)
    parts = []
    for side, span in reversed(list(zip(size_hw, spans, strict=True))):
        last = span * (side - 1) / side
        angles = frequencies[:, None] * torch.linspace(-last, last, side, dtype=torch.float64)
        parts.append(torch.cat([angles.sin(), angles.cos()]))
    return _TABLE_WEIGHT * torch.cat(parts, -1)


class CameraDecoder(nn.Module):
    """The camera's token → fields of view. Its position (`fc_t`, `fc_qvec`) says nothing of a single picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_fov = nn.Sequential(nn.Linear(width, 2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """N×C → N×2 in radians, vertical and horizontal; 0 where there is no answer."""
        return self.fc_fov(self.backbone(x.to(self.backbone[0].weight.dtype)))  # type: ignore[arg-type]


def _drop_spare_unit(head: DepthHead) -> None:
    """The coarsest fusion has no path to add to, and these files have no unit for it, unlike those before them."""
    del head.scratch.get_submodule("refinenet4").resConfUnit1
