"""MiDaS v2.1, v3.0 and v3.1: an encoder, a decoder and a head.

Ranftl et al. 2019 (arXiv:1907.01341) and 2021 (arXiv:2103.13413), Birkl et al. 2023 (arXiv:2307.14460).
Invariant: one class for all encoders; an encoder gives its maps finest first and says how many channels they have.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.decoder import FeatureFusion, Scratch
from stream.models.layers import doubled

CHANNELS = 256
"""Of the decoder, where a model does not differ."""


class Midas(nn.Module):
    """Normalised RGB → disparity, not negative.

    Args:
        encoder: N×3×H×W → maps, finest first; has `channels`, one number for each map.
        channels: of the decoder at each level, or at all.
        fusion: see `Scratch`.
        before_head: between decoder and head, where the encoder's maps are too coarse.
        head: channels that enter the head, and of its second layer.
        align_corners: of the upsampling inside the head.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        channels: int | Sequence[int] = CHANNELS,
        fusion: Callable[[int, int], nn.Module] = FeatureFusion,
        before_head: nn.Module | None = None,
        head: tuple[int, int] = (CHANNELS, 32),
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self._align_corners = align_corners
        self.pretrained = encoder
        self.scratch = Scratch(encoder.channels, channels, fusion=fusion)  # type: ignore[arg-type]
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
        first, _, *rest, last = self.scratch.output_conv  # type: ignore[misc]
        y = self.scratch.fuse(self.pretrained(x))
        y = first(self.scratch.get_submodule("stem_transpose")(y))
        y = F.interpolate(y, size=doubled(y), mode="bilinear", align_corners=self._align_corners)
        for layer in rest:
            y = layer(y)
        return F.relu(last(y.to(last.weight.dtype)))[:, 0]
