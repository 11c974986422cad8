"""A network that sees several frames at once, of one layer, and what the authors' way to join windows makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream.frames import DepthKind, Frame
from stream.infer.engine import Engine
from stream.infer.executor import SerialExecutor
from stream.models.resize import to_frame_size
from stream.models.spec import Fit, Resample
from stream.models.temporal import Features, Run, directly
from tests.support.tiny_model import SPEC, Tiny, frame, loaded

RELATIVE, METRIC = DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC_DEPTH


@dataclass(frozen=True)
class Seen:
    """The mean of each earlier frame."""

    means: tuple[float, ...] = ()

    @property
    def frames(self) -> int:
        return len(self.means)

    @property
    def bytes(self) -> int:
        return 8 * len(self.means)


class TinyVideo(Tiny):
    """Each map depends on its place and on all frames of the window, or on those before it.

    Args:
        worst: from this number of frames on, what is not computed in fp32 is not finite.
    """

    def __init__(self, worst: int | None = None) -> None:
        super().__init__()
        self.worst = worst
        self.computed = 0

    def features(self, x: Tensor, run: Run = directly) -> list[Features]:
        self.computed += len(x)
        return [(one,) for one in self(x).abs()]

    def window(self, frames: Sequence[Features], *, count: int | None = None) -> Tensor:
        maps = torch.stack([one for (one,) in frames]).float()
        gain = maps.mean((1, 2)).mul(torch.linspace(0.5, 1.5, len(maps), device=maps.device)).mean()
        places = torch.arange(len(maps), device=maps.device)[:, None, None]
        found = (maps * (1 + gain) - gain * (1 + places / 64))[:count]
        return self._broken(found, frames[0][0].dtype)

    def step(self, x: Tensor, past: Seen | None, run: Run = directly) -> tuple[Tensor, Seen]:
        past = past or Seen()
        ((own,),) = self.features(x)
        found = own[None].float() + sum(past.means) + past.frames
        return self._broken(found, x.dtype), Seen((*past.means, float(own.float().mean()))[-41:])

    def feature_bytes(self, size_hw: tuple[int, int]) -> int:
        return 4 * size_hw[0] * size_hw[1]

    def past_bytes(self, size_hw: tuple[int, int]) -> int:
        return 8 * 41

    def _broken(self, found: Tensor, dtype: torch.dtype) -> Tensor:
        is_broken = self.worst is not None and self.computed >= self.worst and dtype != torch.float32
        return found * torch.inf if is_broken else found


def video_engine(
    network: TinyVideo | None = None,
    *,
    output: DepthKind = RELATIVE,
    batch: int = 1,
    precision: str = "fp32",
    fit: Fit = Fit.AREA,
    executor: SerialExecutor | None = None,
    refines: bool = False,
    device: str = "cpu",
) -> Engine:
    model = loaded(
        network or TinyVideo(), is_temporal=True, output=output, upsample=Resample.BILINEAR_CORNERS,
        input=replace(SPEC.input, fit=fit),
    )  # fmt: skip
    return Engine(model, device=device, precision=precision, batch=batch, executor=executor, refines=refines)


def scene(count: int, first: int = 0, *, negative: bool = False, size: tuple[int, int] = (64, 48)) -> list[Frame]:
    """Frames of one scene; its negative is another one."""
    made = []
    for index in range(first, first + count):
        shown = frame(0, *size)
        level = 1 - (index % 7) / 40
        rgb = ((255 - shown.rgb if negative else shown.rgb) * level).astype(np.uint8)
        made.append(
            type(shown)(index=index, pts=index, time_base=shown.time_base, captured_at=0.0, rgb=rgb, duration=1)
        )
    return made


def official(frames: Sequence[Frame], engine: Engine) -> list[NDArray[np.float32]]:
    """The maps of a clip as the page of facts describes them: every frame is kept, and arrays are joined."""
    network, size, count = TinyVideo(), frames[0].size, len(frames)
    padded = [*frames, *[frames[-1]] * 60]
    inputs = [engine.network_input(one) for one in padded]
    windows = -(-count // 22)
    joined: list[NDArray[np.float64]] = []
    references: list[NDArray[np.float64]] = []
    for k in range(windows):
        own = range(22 * k, 22 * k + 32)
        places = list(own) if k == 0 else [0, 22 * k - 10, *own[2:]]
        with torch.inference_mode():
            maps = network.window([network.features(inputs[place])[0] for place in places])
        found = [to_frame_size(one, size, Resample.BILINEAR_CORNERS).numpy().astype(np.float64) for one in maps]
        if k == 0:
            joined, references = found, [found[0], found[12]]
            continue
        scale, shift = 1.0, 0.0
        if engine.spec.output is RELATIVE:
            x, y = np.stack(found[:2]).ravel(), np.stack(references).ravel()
            scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
        on_scale = [np.maximum(scale * one + shift, 0) for one in found]
        for i in range(8):
            joined[i - 8] = joined[i - 8] * (1 - i / 7) + on_scale[2 + i] * (i / 7)
        joined += on_scale[10:]
        references = [references[0], on_scale[12]]
    return [one.astype(np.float32) for one in joined[:count]]
