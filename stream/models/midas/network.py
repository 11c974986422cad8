"""MiDaS v2.1, v3.0 and v3.1: an encoder, a decoder and a head.

Ranftl et al. 2019 (arXiv:1907.01341) and 2021 (arXiv:2103.13413), Birkl et al. 2023 (arXiv:2307.14460).
Invariant: one class serves all encoders; an encoder returns its maps finest first and lists their channels.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.decoder import FeatureFusion, Scratch
from stream.models.layers import doubled

CHANNELS = 256
"""Channels of the decoder in most models."""


class Midas(nn.Module):
    """Normalised RGB → non-negative disparity.

    Args:
        encoder: N×3×H×W → maps, finest first; has `channels`, one number for each map.
        channels: channels of the decoder, one number for all levels or one for each.
        fusion: see `Scratch`.
        before_head: extra layers between decoder and head, for encoders whose maps are too coarse.
        head: input channels of the head, and channels of its second layer.
        align_corners: align the corners when upsampling inside the head.
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
            nn.Identity(),  # the official code upsamples here
            nn.Conv2d(head[0] // 2, head[1], 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(head[1], 1, 1),
        )
        self.scratch.stem_transpose = before_head or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        first, _, *rest, last = self.scratch.output_conv  # type: ignore[misc]
        y = self.scratch.fuse(self.pretrained(x))
        y = first(self.scratch.stem_transpose(y))  # type: ignore[operator]
        y = F.interpolate(y, size=doubled(y), mode="bilinear", align_corners=self._align_corners)
        for layer in rest:
            y = layer(y)
        return F.relu(last(y.to(last.weight.dtype)))[:, 0]
