"""From a vision transformer's tokens to feature maps (DPT, section 3.1; arXiv:2103.13413).

Invariant: keys are those of the official checkpoints under `pretrained.act_postprocessN`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ProjectReadout(nn.Module):
    """Mixes the class token into every other one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """N×(1+L)×C → N×L×C."""
        linear: nn.Linear = self.project[0]  # type: ignore[assignment]
        tokens, readout = linear.weight.chunk(2, 1)
        # Of [token, class token]: the class token's half is the same for all tokens, so it is computed once.
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
    """A transformer under `model` and one reassembly for each of four tapped blocks."""

    scales = (4, 2, 1, 0.5)

    def add_reassembly(self, width: int, channels: tuple[int, ...], *, first: int = 1) -> None:
        """Register `act_postprocess<first>` to `act_postprocess4`."""
        for level in range(first, 5):
            scale = self.scales[level - 1]
            self.add_module(f"act_postprocess{level}", Reassemble(width, channels[level - 1], scale))

    def reassemble(self, tapped: list[Tensor], grid_hw: tuple[int, int], *, first: int = 1) -> list[Tensor]:
        """Tokens of the tapped blocks → maps, finest first."""
        return [self.get_submodule(f"act_postprocess{n}")(x, grid_hw) for n, x in enumerate(tapped, start=first)]


def with_class_token(token: Tensor, x: Tensor) -> Tensor:
    """N×L×C → N×(1+L)×C."""
    return torch.cat([token.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
