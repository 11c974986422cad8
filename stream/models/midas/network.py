"""MiDaS v3.0 and v3.1: a transformer and the DPT decoder.

Ranftl et al. 2021 (arXiv:2103.13413), Birkl et al. 2023 (arXiv:2307.14460).
Invariant: one class for all encoders; an encoder gives its maps finest first and says how many channels they have.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.decoder import Scratch
from stream.models.layers import doubled, upsample

CHANNELS = 256
"""Of the decoder."""


class MidasDpt(nn.Module):
    """Normalised RGB → disparity, not negative.

    Args:
        encoder: N×3×H×W → maps, finest first; has `channels`, one number for each map.
        channels: of the decoder.
    """

    def __init__(self, encoder: nn.Module, *, channels: int = CHANNELS) -> None:
        super().__init__()
        self.pretrained = encoder
        self.scratch = Scratch(encoder.channels, channels)  # type: ignore[arg-type]
        self.scratch.output_conv = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.Identity(),  # here the official code upsamples
            nn.Conv2d(channels // 2, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        first, _, *rest = self.scratch.output_conv  # type: ignore[misc]
        y = first(self.scratch.fuse(self.pretrained(x)))
        y = upsample(y, doubled(y))
        for layer in rest:
            y = layer(y)
        return F.relu(y)[:, 0]
