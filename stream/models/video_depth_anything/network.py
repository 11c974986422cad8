"""Video-Depth-Anything: Depth Anything V2 whose head looks at other frames of the clip at four places.

Chen et al. 2025, arXiv:2501.12375, https://github.com/DepthAnything/Video-Depth-Anything. It implements
`temporal.TemporalNetwork`.
Invariant: `forward`, `window` of one frame and the first `step` of a stream compute the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from stream.models.depth_anything.dinov2 import PATCH, DinoV2
from stream.models.depth_anything.network import DepthHead
from stream.models.layers import size_of
from stream.models.temporal import Features, Past, Run, directly
from stream.models.video_depth_anything.attention import MOST_NUMBERS, States, TimeModule, TimeTransformer, in_parts

Mix = Callable[[TimeTransformer, Tensor], Tensor]
"""(one of the four modules, the frames' maps) → the maps after it."""

_NEAR, _FAR = 29, 41
"""A frame of a stream sees frame 0, the frame `_FAR` before it and the `_NEAR` before it, 31 in all."""


@dataclass(frozen=True, kw_only=True)
class CachedStates:
    """What a stream keeps: the states of its first frame, and of up to 41 later ones.

    Attributes:
        frames: how many frames it has seen.
        first: of frame 0, one `States` for each module.
        recent: of the last frames but frame 0, in order.
    """

    frames: int
    first: tuple[States, ...]
    recent: tuple[tuple[States, ...], ...] = ()

    @property
    def bytes(self) -> int:
        """Memory of the tensors."""
        return sum(x.nbytes for frame in (self.first, *self.recent) for states in frame for x in states)

    def context(self) -> list[tuple[States, ...]]:
        """What the next frame sees: the states of frames 0, n−41, n−29, …, n−1. Frame 0 stands for those that would be
        before it."""
        n = self.frames
        return [self._of(frame) for frame in (0, n - _FAR, *range(n - _NEAR, n))]

    def _of(self, frame: int) -> tuple[States, ...]:
        return self.recent[frame - self.frames] if frame > 0 else self.first

    def then(self, states: tuple[States, ...]) -> "CachedStates":
        """With one frame more."""
        return CachedStates(frames=self.frames + 1, first=self.first, recent=(*self.recent, states)[-_FAR:])


def _paired(tensors: Sequence[Tensor]) -> tuple[States, ...]:
    return tuple(zip(tensors[::2], tensors[1::2], strict=True))


class TemporalHead(DepthHead):
    """V2's head with a module of attention over time before the two coarsest levels and after their fusions."""

    def __init__(self, width: int, channels: int, outputs: Sequence[int]) -> None:
        super().__init__(width, channels, outputs)
        self.channels = channels
        self.motion_modules = nn.ModuleList(TimeModule(count) for count in (*outputs[2:], channels, channels))

    def features(self, tokens: Sequence[Tensor], grid_hw: tuple[int, int]) -> list[Tensor]:
        """Tokens N×L×C of four blocks → N×C'×h×w for each level: the two finest not yet enlarged, which is a sixteenth
        and a quarter of what they take then."""
        finest, fine, coarse, coarsest = self.projected(tokens, grid_hw)
        return [finest, fine, self.resize_layers[2](coarse), self.resize_layers[3](coarsest)]

    def coarse(self, coarse: Tensor, coarsest: Tensor, mix: Mix) -> Tensor:
        """The features of the two coarsest levels of all frames → the path after them; only here frames mix."""
        third, fourth, after_fourth, after_third = (
            cast(TimeModule, x).temporal_transformer for x in self.motion_modules
        )
        scratch, finer_hw = self.scratch, (2 * coarse.shape[-2], 2 * coarse.shape[-1])
        coarse, coarsest = mix(third, coarse), mix(fourth, coarsest)
        numbers = coarse[0].numel() + finer_hw[0] * finer_hw[1] * self.channels
        reduced = in_parts(partial(scratch.reduced, 3), coarse, numbers=numbers)
        path = in_parts(
            lambda x: scratch.fused(4, None, scratch.reduced(4, x), size_of(reduced)), coarsest, numbers=numbers
        )
        path = in_parts(
            lambda y, x: scratch.fused(3, y, x, finer_hw), mix(after_fourth, path), reduced, numbers=numbers
        )
        return mix(after_third, path)

    def fine(self, finest: Tensor, fine: Tensor, path: Tensor) -> Tensor:
        """The features of the two finest levels and the path so far → N×14h×14w, metres or disparity."""
        scratch, grid_hw = self.scratch, size_of(finest)
        skips = [scratch.reduced(level + 1, self.resize_layers[level](x)) for level, x in enumerate((finest, fine))]
        path = scratch.fused(2, path, skips[1], size_of(skips[0]))
        return torch.relu(self.output(scratch.fused(1, path, skips[0]), grid_hw))[:, 0]


class VideoDepthAnything(nn.Module):
    """Normalised RGB → disparity, or metres without a maximum: checkpoints of both kinds have the same layers.

    Args:
        width, depth, heads, taps: see `DinoV2`.
        channels, outputs: see `DepthAnything`.
    """

    def __init__(
        self, *, width: int, depth: int, heads: int, taps: Sequence[int], channels: int, outputs: Sequence[int]
    ) -> None:
        super().__init__()
        self._width, self._outputs = width, tuple(outputs)
        self.pretrained = DinoV2(width=width, depth=depth, heads=heads, taps=taps)
        self.head = TemporalHead(width, channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W, sides multiples of 14 → N×H×W, each frame alone."""
        finest, fine, coarse, coarsest = self._maps(x)
        return self.head.fine(finest, fine, self.head.coarse(coarse, coarsest, TimeTransformer.alone))

    def features(self, x: Tensor, run: Run = directly) -> list[Features]:
        """See `temporal.TemporalNetwork`."""
        tokens = (x.shape[-2] // PATCH) * (x.shape[-1] // PATCH)
        parts = [run(self._maps, part) for part in x.split(max(1, MOST_NUMBERS // (tokens * 4 * self._width)))]
        # Copies: a view would keep the maps of all the frames for as long as one of them is needed.
        return [tuple(y.clone() for y in of_frame) for part in parts for of_frame in zip(*part, strict=True)]

    def window(self, frames: Sequence[Features], *, count: int | None = None) -> Tensor:
        """See `temporal.TemporalNetwork`."""
        finest, fine, coarse, coarsest = (torch.stack(level) for level in zip(*frames, strict=True))
        path = self.head.coarse(coarse, coarsest, TimeTransformer.__call__)
        pixels = PATCH**2 * coarse.shape[-2] * coarse.shape[-1]
        numbers = pixels * max(32, self.head.channels // 2)
        return in_parts(self.head.fine, finest[:count], fine[:count], path[:count], numbers=numbers)

    def step(self, x: Tensor, past: Past | None, run: Run = directly) -> tuple[Tensor, CachedStates]:
        """See `temporal.TemporalNetwork`."""
        if past is not None and not isinstance(past, CachedStates):
            raise TypeError(f"a past of another network: {type(past).__name__}")
        context = [] if past is None else past.context()
        y, *new = run(self._next, x, *(one for frame in context for states in frame for one in states))
        states = _paired(new)
        return y, CachedStates(frames=1, first=states) if past is None else past.then(states)

    def _next(self, x: Tensor, *context: Tensor) -> tuple[Tensor, ...]:
        """A frame and the states of those that it sees, frame by frame → its map, and its own states."""
        earlier = _paired(context)
        states: list[States] = []

        def mix(module: TimeTransformer, maps: Tensor) -> Tensor:
            y, new = module.next(maps, earlier[len(states) :: len(self.head.motion_modules)])
            states.append(new)
            return y

        finest, fine, coarse, coarsest = self._maps(x)
        y = self.head.fine(finest, fine, self.head.coarse(coarse, coarsest, mix))
        return y, *chain.from_iterable(states)

    def feature_bytes(self, size_hw: tuple[int, int]) -> int:
        """See `temporal.TemporalNetwork`."""
        pixels, coarsest = self._grids(size_hw)
        numbers = pixels * sum(self._outputs[:3]) + coarsest * self._outputs[3]
        return numbers * self._number_bytes()

    def past_bytes(self, size_hw: tuple[int, int]) -> int:
        """See `temporal.TemporalNetwork`."""
        pixels, coarsest = self._grids(size_hw)
        numbers = pixels * (self._outputs[2] + 5 * self.head.channels) + coarsest * self._outputs[3]
        return (1 + _FAR) * 2 * numbers * self._number_bytes()

    def _maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.head.features(self.pretrained(x), (x.shape[-2] // PATCH, x.shape[-1] // PATCH)))

    def _grids(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Patches of a frame, and pixels of the coarsest level."""
        height, width = (side // PATCH for side in size_hw)
        return height * width, -(-height // 2) * -(-width // 2)

    def _number_bytes(self) -> int:
        return self.pretrained.norm.weight.element_size()
