"""The baseline: what the models' own video scripts do, step by step, one frame at a time.

Depth Anything's `run_video.py` and MiDaS's `run.py` do the same: decode with OpenCV, divide by 255, resize with its
bicubic in float64, normalise, run the network in fp32 as it was trained (explicit attention, separate batch norms,
channels first), resize to the frame, scale the range from minimum to maximum to 0 to 255, colour, put beside the frame,
encode with OpenCV. Written for this benchmark from that description; it contains no line of theirs.
Invariant: every step is as fast as in the scripts, neither slower nor faster.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from stream.infer.backends.exported import as_tuple
from stream.infer.geometry import network_size
from stream.media import cv2
from stream.models.registry import LoadedModel
from stream.models.spec import ModelSpec, Resample

_GAP_PX = 50
_CPU = torch.device("cpu")


class _ExplicitAttention(TorchFunctionMode):
    """Computes attention as the scripts do without xFormers: product, softmax, product. (torch's own "math" backend is
    1.4 times slower than that.)"""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    weights = (q * (scale or q.shape[-1] ** -0.5)) @ k.transpose(-2, -1)
    return (weights if attn_mask is None else weights + attn_mask).softmax(-1) @ v


@dataclass(frozen=True, kw_only=True)
class BaselineResult:
    """The baseline's speed.

    Attributes:
        size: of the clip, "width×height".
        fps: frames per second, from the first frame written to the last.
    """

    model: str
    size: str
    frames: int
    threads: int
    fps: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable values."""
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
    device: torch.device = _CPU,
    clock: Callable[[], float] = time.perf_counter,
) -> BaselineResult:
    """Run the baseline over the first `frames` of `clip`; writes `baseline.mp4` into `folder`.

    Args:
        model: with batch norms that were not merged.
        layout: `side` for the frame beside its depth, `depth` for the depth alone.
        device: where the network and the resizing of its output run.
    """

    def loop() -> BaselineResult:
        torch.set_num_threads(threads)
        reader = cv2.VideoCapture(str(clip))
        width, height = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
        size_hw = network_size(model.spec.input, (height, width), input_size=input_size, square=False)
        out_width = width if layout == "depth" else 2 * width + _GAP_PX
        fourcc, path = cv2.VideoWriter.fourcc(*"mp4v"), str(folder / "baseline.mp4")
        writer = cv2.VideoWriter(path, fourcc, reader.get(cv2.CAP_PROP_FPS), (out_width, height))
        network = model.network.to(device)
        gap = np.full((height, _GAP_PX, 3), 255, np.uint8)
        times: list[float] = []
        try:
            with torch.no_grad(), _ExplicitAttention():
                while len(times) <= frames:
                    ok, image = reader.read()
                    if not ok:
                        break
                    depth = _depth(model.spec, network, image, size_hw, device)
                    coloured = cv2.applyColorMap(depth, cv2.COLORMAP_INFERNO)
                    writer.write(coloured if layout == "depth" else cv2.hconcat([image, gap, coloured]))
                    times.append(clock())
        finally:
            reader.release()
            writer.release()
        count, size = len(times) - 1, f"{width}×{height}"
        fps = count / (times[-1] - times[0])
        return BaselineResult(model=model.spec.name, size=size, frames=count, threads=threads, fps=fps)

    with ThreadPoolExecutor(1) as pool:  # the OpenMP pool of this thread ends with it, see `infer.executor`
        return pool.submit(loop).result()


def _depth(spec: ModelSpec, network: nn.Module, image: Any, size_hw: tuple[int, int], device: torch.device) -> Any:
    """Depth for display, uint8 H×W, of a frame, uint8 H×W×3 BGR."""
    policy = spec.input
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) / 255.0
    resized = cv2.resize(rgb, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_CUBIC)
    x = ((resized - policy.mean) / policy.std).transpose(2, 0, 1)
    output, *_ = as_tuple(network(torch.from_numpy(np.ascontiguousarray(x, np.float32))[None].to(device)))
    bicubic = spec.upsample is Resample.BICUBIC
    corners = {"align_corners": spec.upsample is Resample.BILINEAR_CORNERS}
    mode = "bicubic" if bicubic else "bilinear"
    depth = interpolate(output[None], image.shape[:2], mode=mode, **corners)[0, 0]
    scaled = (depth - depth.min()) / (depth.max() - depth.min()) * 255.0
    return scaled.cpu().numpy().astype(np.uint8)
