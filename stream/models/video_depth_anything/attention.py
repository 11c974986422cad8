"""Attention over time: each pixel looks at itself in other frames.

Chen et al. 2025, arXiv:2501.12375; the attribute names are those of the checkpoints.
Invariant: pixels never mix here, except in the normalisation of a frame, so any number of them can be computed at a
time; how many changes nothing but memory.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import merge_heads
from stream.models.temporal import WINDOW

_HEADS = 8
_GROUPS, _GROUPS_EPS = 32, 1e-6
_GROWTH = 8
"""Width of the feed-forward layer's first product, in channels of the module: the largest thing there is."""
MOST_NUMBERS = 2**25
"""Largest intermediate result, in numbers (128 MiB in fp32); beyond it the work is done in parts."""


def in_parts(function: Callable[..., Tensor], *maps: Tensor, numbers: int) -> Tensor:
    """What `function` makes of maps of N frames, N×…, applied to some of the frames at a time.

    Args:
        numbers: how many the largest intermediate result has for each frame.
    """
    at_once = max(1, MOST_NUMBERS // numbers)
    parts = [function(*part) for part in zip(*(x.split(at_once) for x in maps), strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


States = tuple[Tensor, Tensor]
"""What a frame leaves for later ones: the normalised input P×C of each of a module's two attentions, before positions
are added."""


class Positions(nn.Module):
    """A table of the frames' positions, from the file."""

    pe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("pe", torch.zeros(1, WINDOW, width))


class TimeAttention(nn.Module):
    """Multi-head attention over frames that knows their order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_encoder = Positions(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """All frames of a window at once: P×T×C → P×T×C."""
        x = x + self.pos_encoder.pe[:, : x.shape[1]].to(x.dtype)
        v = self.to_v(x)
        if x.shape[1] > 1:  # one frame attends to itself, whatever its query and key are
            q, k, v = (y.unflatten(-1, (_HEADS, -1)).transpose(1, 2) for y in (self.to_q(x), self.to_k(x), v))
            v = merge_heads(F.scaled_dot_product_attention(q, k, v))
        return self.to_out(v)

    def last(self, x: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """One frame after up to 31 others: P×C, and P×C of each of them in order → P×C.

        q·(K x) = (Kᵀ q)·x, and a sum of V x is V times the sum of x. So with one query, keys and values of the frames
        need not be computed: each head's query is brought to the states instead. That takes a tenth of the
        multiplications, and half the memory of stored keys and values.
        """
        at_once = max(1, MOST_NUMBERS // (WINDOW * x.shape[1]))
        parts = [y.split(at_once) for y in (*earlier, x)]
        return torch.cat([self._last(torch.stack(part, 1)) for part in zip(*parts, strict=True)])

    def _last(self, x: Tensor) -> Tensor:
        """P×T×C → P×C."""
        x += self.pos_encoder.pe[:, : x.shape[1]].to(x.dtype)
        q = self.to_q(x[:, -1]).unflatten(-1, (_HEADS, -1)).transpose(0, 1)  # heads×P×C/heads
        keys, values = (layer.weight.unflatten(0, (_HEADS, -1)) for layer in (self.to_k, self.to_v))
        queries = torch.bmm(q, keys).transpose(0, 1)  # P×heads×C
        scores = torch.bmm(queries, x.transpose(1, 2)) * keys.shape[1] ** -0.5
        seen = torch.bmm(scores.softmax(-1), x).transpose(0, 1)  # heads×P×C
        return self.to_out(torch.bmm(seen, values.transpose(1, 2)).transpose(0, 1).flatten(1))


class Gated(nn.Module):
    """A linear layer whose one half is gated by the other (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """…×C → …×C'."""
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """The gated layer and one back to the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = _GROWTH // 2 * width
        self.net = nn.Sequential(Gated(width, hidden), nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """…×C → …×C."""
        return self.net(x)


class TimeBlock(nn.Module):
    """Two attentions over time and a feed-forward layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(TimeAttention(width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.ff = FeedForward(width)
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """P×T×C → P×T×C."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x))
        return x + self.ff(self.ff_norm(x))

    def next(self, x: Tensor, earlier: Sequence[States]) -> tuple[Tensor, States]:
        """One frame, P×C, after others → P×C, and what it leaves for later ones."""
        states = []
        for number, (attention, norm) in enumerate(zip(self.attention_blocks, self.norms, strict=True)):
            states.append(norm(x))
            x = x + cast(TimeAttention, attention).last(states[-1], [of_frame[number] for of_frame in earlier])
        return x + self.ff(self.ff_norm(x)), (states[0], states[1])


class TimeTransformer(nn.Module):
    """Maps of frames → the same maps, each with what its pixels see in the other frames added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width, eps=_GROUPS_EPS)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TimeBlock(width)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Frames of one clip: T×C×h×w → T×C×h×w."""
        y = self.norm(x).contiguous(memory_format=torch.channels_last)
        pixels = y.permute(0, 2, 3, 1).flatten(1, 2)  # T×P×C, the memory of `y`
        for part in pixels.split(max(1, MOST_NUMBERS // (len(x) * _GROWTH * x.shape[1])), 1):
            part.copy_(self._mixed(part.transpose(0, 1)).transpose(0, 1))
        return y.add_(x)

    def alone(self, x: Tensor) -> Tensor:
        """Frames of which each sees itself only: N×C×h×w → N×C×h×w."""
        pixels = self.norm(x).permute(0, 2, 3, 1)
        seen = self._mixed(pixels.reshape(-1, 1, x.shape[1])).view(pixels.shape)
        return x + seen.permute(0, 3, 1, 2)

    def next(self, x: Tensor, earlier: Sequence[States]) -> tuple[Tensor, States]:
        """One frame after others: 1×C×h×w → 1×C×h×w, and what it leaves for later ones."""
        pixels = self.norm(x)[0].flatten(1).t()
        seen, states = self._block.next(self.proj_in(pixels), earlier)
        return x + self.proj_out(seen).t().view_as(x), states

    def _mixed(self, pixels: Tensor) -> Tensor:
        return self.proj_out(self._block(self.proj_in(pixels)))

    @property
    def _block(self) -> TimeBlock:
        return cast(TimeBlock, self.transformer_blocks[0])


class TimeModule(nn.Module):
    """Holds the name under which the checkpoints have a `TimeTransformer`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.temporal_transformer = TimeTransformer(width)
