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
        before_head: between decoder and head, where the encoder's maps are too coarse.
        head: channels that enter the head, and of its second layer.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        channels: int = CHANNELS,
        before_head: nn.Module | None = None,
        head: tuple[int, int] = (CHANNELS, 32),
    ) -> None:
        super().__init__()
        self.pretrained = encoder
        self.scratch = Scratch(encoder.channels, channels)  # type: ignore[arg-type]
        self.scratch.output_conv = nn.Sequential(
            nn.Conv2d(head[0], head[0] // 2, 3, padding=1),
            nn.Identity(),  # here the official code upsamples
            nn.Conv2d(head[0] // 2, head[1], 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(head[1], 1, 1),
        )
        self.scratch.stem_transpose = before_head or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        first, _, *rest = self.scratch.output_conv  # type: ignore[misc]
        y = self.scratch.fuse(self.pretrained(x))
        y = first(self.scratch.get_submodule("stem_transpose")(y))
        y = upsample(y, doubled(y))
        for layer in rest:
            y = layer(y)
        return F.relu(y)[:, 0]
