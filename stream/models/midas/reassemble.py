"""From a vision transformer's tokens to feature maps (DPT, section 3.1; arXiv:2103.13413).

Invariant: keys are those of the official checkpoints under `pretrained.act_postprocessN`.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ProjectReadout(nn.Module):
    """Mixes the class token into every other token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """N×(1+L)×C → N×L×C."""
        linear: nn.Linear = self.project[0]  # type: ignore[assignment]
        tokens, readout = linear.weight.chunk(2, 1)
        # The layer's input is [token, class token]. The class token's half is the same for all tokens: compute it once.
        shared = F.linear(x[:, :1], readout, linear.bias)
        return F.gelu(F.linear(x[:, 1:], tokens) + shared)


class Reassemble(nn.Sequential):
    """Tokens → N×C'×h×w, resized by `scale` (4, 2, 1 or 1/2); indices 1 and 2 were views in the official code."""

    def __init__(self, width: int, channels: int, scale: float) -> None:
        layers: list[nn.Module] = [ProjectReadout(width), nn.Identity(), nn.Identity(), nn.Conv2d(width, channels, 1)]
        if scale > 1:
            layers.append(nn.ConvTranspose2d(channels, channels, int(scale), int(scale)))
        elif scale < 1:
            layers.append(nn.Conv2d(channels, channels, 3, 2, 1))
        super().__init__(*layers)

    def forward(self, x: Tensor, grid_hw: tuple[int, int]) -> Tensor:  # type: ignore[override]
        """N×(1+L)×C with L = h·w → N×C'×H×W."""
        y: Tensor = self[0](x).transpose(1, 2).unflatten(2, grid_hw)
        for layer in list(self)[3:]:
            y = layer(y)
        return y


class Reassembled(nn.Module):
    """A transformer under `model` and one reassembly for each tapped block.

    Args:
        width: channels of the tokens.
        taps: numbers of the blocks whose outputs become the last maps, in ascending order.
        channels: channels of the four maps.
    """

    _SCALES = (4, 2, 1, 0.5)

    def __init__(self, *, width: int, taps: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.channels, self._taps = tuple(channels), tuple(taps)
        self._first = len(self._SCALES) - len(self._taps) + 1
        for level in range(self._first, len(self._SCALES) + 1):
            reassembly = Reassemble(width, self.channels[level - 1], self._SCALES[level - 1])
            self.add_module(f"act_postprocess{level}", reassembly)

    def maps(self, x: Tensor, blocks: Iterable[nn.Module], grid_hw: tuple[int, int]) -> list[Tensor]:
        """N×(1+h·w)×C, class token first → maps of the tapped blocks, finest first."""
        found: list[Tensor] = []
        for number, block in enumerate(islice(blocks, self._taps[-1] + 1)):
            x = block(x)
            if number in self._taps:
                reassembly = getattr(self, f"act_postprocess{self._first + len(found)}")
                found.append(reassembly(x, grid_hw))
        return found


def tokens(patches: Tensor, class_token: Tensor) -> Tensor:
    """N×C×h×w and 1×1×C → N×(1+h·w)×C, class token first."""
    x = patches.flatten(2).transpose(1, 2)
    return torch.cat([class_token.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
