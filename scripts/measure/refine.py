"""Compares ways to bring a network's map to the picture's size: see docs/depth-data.md, "Crisper edges".

    python scripts/measure/refine.py FOLDER [--model starter] [--input-size N]

FOLDER is one that scripts/starter/evaluate.py takes. Prints the scores of the model's maps in each upsampling, those of
the measured depth itself brought to 518 rows for 1080 (and to 192 rows for 480) and back, and milliseconds.
Invariant: all ways start from the same maps.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts/starter")]

from evaluate import FARTHEST, inverse_depth  # noqa: E402
from metrics import Score, mean, score  # noqa: E402

from stream.frames import DepthKind, Frame  # noqa: E402
from stream.infer.engine import Engine  # noqa: E402
from stream.infer.preprocess import antialiased  # noqa: E402
from stream.infer.refine import refine  # noqa: E402
from stream.models import registry  # noqa: E402
from stream.models.resize import to_frame_size  # noqa: E402
from stream.models.spec import Resample  # noqa: E402

Upsampling = Callable[[Tensor, Tensor], Tensor]
"""A map h×w and the picture, uint8 H×W×3, to the map at H×W."""


def official(network: Tensor, rgb: Tensor) -> Tensor:
    """Bilinear, as the built-in model's."""
    return to_frame_size(network, (rgb.shape[0], rgb.shape[1]), Resample.BILINEAR)


def refined(network: Tensor, rgb: Tensor) -> Tensor:
    """What `--refine` does."""
    depth_map = official(network, rgb).clone()
    refine(depth_map, network, rgb, DepthKind.RELATIVE_DISPARITY)
    return depth_map


def refined_by_gray(network: Tensor, rgb: Tensor) -> Tensor:
    """The same with the picture's luma in place of its colours."""
    luma = rgb.float() @ torch.tensor([0.299, 0.587, 0.114])
    return refined(network, luma.round().to(torch.uint8)[..., None].repeat(1, 1, 3))


def guided(network: Tensor, rgb: Tensor, radius: int = 4, epsilon: float = 1e-4) -> Tensor:
    """The fast guided filter (He and Sun 2015, arXiv:1505.00996), guided by colours in [0, 1]."""
    height, width = rgb.shape[:2]
    small, large = antialiased(rgb, tuple(network.shape)) / 255, rgb.permute(2, 0, 1).float() / 255

    def box(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (radius,) * 4, mode="replicate"), 2 * radius + 1, 1)

    depth = network[None, None]
    mean_colour, mean_depth = box(small), box(depth)
    covariance = box(small * depth) - mean_colour * mean_depth
    products = (small[:, :, None] * small[:, None]).flatten(1, 2)
    variance = box(products).unflatten(1, (3, 3)) - mean_colour[:, :, None] * mean_colour[:, None]
    matrix = variance.permute(0, 3, 4, 1, 2) + epsilon * torch.eye(3)
    slope = torch.linalg.solve(matrix, covariance.permute(0, 2, 3, 1)[..., None])[..., 0].permute(0, 3, 1, 2)
    both = box(torch.cat([slope, mean_depth - (slope * mean_colour).sum(1, keepdim=True)], 1))
    both = F.interpolate(both, size=(height, width), mode="bilinear")[0]
    return (both[:3] * large).sum(0) + both[3]


WAYS: dict[str, Upsampling] = {
    "official": official,
    "refined": refined,
    "refined, gray": refined_by_gray,
    "guided filter": guided,
}


def filled(inverse: np.ndarray) -> np.ndarray:
    """Inverse depth whose gaps have the value of the nearest pixel."""
    _, labels = cv2.distanceTransformWithLabels(
        (inverse <= 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    known = np.zeros(labels.max() + 1, np.float32)
    known[labels[inverse > 0]] = inverse[inverse > 0]
    return known[labels]


def line(name: str, scores: list[Score]) -> str:
    """One way's mean scores."""
    m = mean(scores)
    return f"{name:16} AbsRel {m.abs_rel:.4f}  δ1 {m.delta1:.4f}  ordinal {m.ordinal:.4f}  sharpness {m.sharpness:.4f}"


def milliseconds(way: Upsampling, network: Tensor, rgb: Tensor) -> float:
    """The fastest of seven, as other programs may run."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        way(network, rgb)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    """Print the scores and the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures with measured depth, and index.json")
    parser.add_argument("--model", default="starter", help="a relative model of `depthstream models`")
    parser.add_argument("--input-size", type=int, help="inference size; default: the model's")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in the thread that finishes a batch
    engine = Engine(registry.load(options.model), device="cpu", input_size=options.input_size)
    rows: list[dict[str, Any]] = json.loads((options.folder / "index.json").read_text())
    scores: dict[tuple[str, str], list[Score]] = {}
    for number, row in enumerate(rows):
        rgb = cv2.cvtColor(cv2.imread(str(options.folder / f"{row['name']}.jpg")), cv2.COLOR_BGR2RGB)
        frame = Frame(index=number, pts=number, time_base=Fraction(1), captured_at=0.0, rgb=rgb)
        inverse = inverse_depth(options.folder / f"{row['name']}.png", row)
        truth = torch.from_numpy(filled(inverse))[None, None]
        sources = {"the model's map": engine.run_network(engine.network_input(frame))[0].float()}
        for title, share in (("truth at 518/1080", 518 / 1080), ("truth at 192/480", 192 / 480)):
            size_hw = tuple(round(side * share) for side in rgb.shape[:2])
            sources[title] = F.interpolate(truth, size=size_hw, mode="bilinear", antialias=True)[0, 0]
        farthest = None if row["type"] == "disparity" else FARTHEST[row["kind"]]
        for title, network in sources.items():
            for name, way in WAYS.items():
                at_size = way(network, torch.from_numpy(rgb)).numpy().astype(float)
                scores.setdefault((title, name), []).append(score(at_size, inverse, farthest=farthest))
    for title in dict.fromkeys(title for title, _ in scores):
        print(title)
        for name in WAYS:
            print(f"  {line(name, scores[title, name])}")
    print("milliseconds on one core: for pictures of 640×480 and 1920×1080")
    for map_hw, title in (((192, 256), "map of 192 rows"), ((518, 686), "map of 518 rows")):
        network = F.interpolate(truth, size=map_hw, mode="bilinear")[0, 0]
        for size in ((640, 480), (1920, 1080)):
            picture = torch.from_numpy(cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC))
            times = "  ".join(f"{name} {milliseconds(way, network, picture):.0f}" for name, way in WAYS.items())
            print(f"  {title}, {size[0]}×{size[1]}: {times}")
    engine.close()


if __name__ == "__main__":
    main()
