"""What the models' own video scripts do, as a yardstick: everything in turn, one frame at a time.

Depth Anything's `run_video.py` and MiDaS's `run.py` alike: decode with OpenCV, divide by 255, resize with OpenCV's
bicubic in float64, normalise, run the network in fp32 as it was trained (attention spelled out, batch norms apart,
channels first), resize to the picture, spread from least to greatest over 0 to 255, colour, put beside the picture,
encode with OpenCV. Written for this benchmark from that description; no line of theirs is in it.
Invariant: nothing here is made slower than in the scripts, and nothing faster.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from stream.infer.geometry import network_size
from stream.media import cv2
from stream.models.registry import LoadedModel
from stream.models.spec import Resample

_GAP_PX = 50


class _SpelledOut(TorchFunctionMode):
    """Attention as the scripts have it without xFormers: product, softmax, product. (torch's own "math" form is 1.4
    times slower than that.)"""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    weights = (q * (scale or q.shape[-1] ** -0.5)) @ k.transpose(-2, -1)
    return (weights if attn_mask is None else weights + attn_mask).softmax(-1) @ v


@dataclass(frozen=True, kw_only=True)
class Plain:
    """The loop, measured: frames a second from the first written to the last."""

    model: str
    size: str
    frames: int
    threads: int
    fps: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def measure(
    model: LoadedModel,
    clip: Path,
    folder: Path,
    *,
    frames: int,
    threads: int,
    layout: str,
    input_size: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Plain:
    """Run the loop over the first `frames` of `clip`; `layout` side writes the picture too, depth the depth alone.

    Args:
        model: with batch norms that were not merged.
    """
    work = partial(_measured, model, clip, folder, frames, threads, layout, input_size, clock)
    with ThreadPoolExecutor(1) as apart:  # its pool of OpenMP threads goes with it, see `infer.lanes`
        return apart.submit(work).result()


def _measured(
    model: LoadedModel,
    clip: Path,
    folder: Path,
    frames: int,
    threads: int,
    layout: str,
    input_size: int | None,
    clock: Callable[[], float],
) -> Plain:
    torch.set_num_threads(threads)
    reader = cv2.VideoCapture(str(clip))
    width, height = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
    size_hw = network_size(model.spec.input, (height, width), input_size=input_size, square=False)
    out_width = width if layout == "depth" else 2 * width + _GAP_PX
    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(folder / "plain.mp4"), fourcc, reader.get(cv2.CAP_PROP_FPS), (out_width, height))
    gap = np.full((height, _GAP_PX, 3), 255, np.uint8)
    times: list[float] = []
    try:
        with torch.no_grad(), _SpelledOut():
            while len(times) <= frames:
                ok, picture = reader.read()
                if not ok:
                    break
                coloured = cv2.applyColorMap(_depth(model, picture, size_hw), cv2.COLORMAP_INFERNO)
                writer.write(coloured if layout == "depth" else cv2.hconcat([picture, gap, coloured]))
                times.append(clock())
    finally:
        reader.release()
        writer.release()
    fps = (len(times) - 1) / (times[-1] - times[0])
    return Plain(model=model.spec.name, size=f"{width}×{height}", frames=len(times) - 1, threads=threads, fps=fps)


def _depth(model: LoadedModel, picture: Any, size_hw: tuple[int, int]) -> Any:
    """uint8 H×W×3 BGR → uint8 H×W."""
    policy = model.spec.input
    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) / 255.0
    resized = cv2.resize(rgb, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_CUBIC)
    x = ((resized - policy.mean) / policy.std).transpose(2, 0, 1)
    output = model.network(torch.from_numpy(np.ascontiguousarray(x, np.float32))[None])
    bicubic = model.spec.upsample is Resample.BICUBIC
    corners = {"align_corners": model.spec.upsample is Resample.BILINEAR_CORNERS}
    mode = "bicubic" if bicubic else "bilinear"
    depth = interpolate(output[None], picture.shape[:2], mode=mode, **corners)[0, 0]
    spread = (depth - depth.min()) / (depth.max() - depth.min()) * 255.0
    return spread.numpy().astype(np.uint8)
