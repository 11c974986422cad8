"""Measures the largest difference between this program and the official code for each model: see docs/models.md.

    python scripts/measure/parity.py [NAME...] [--json docs/measured/parity.json]

Fills each network with the deterministic weights of tests/data and runs the reference images and clips in fp32; needs
6 GB of memory for the largest model. The two Depth Anything 3 models that find the sky are left out: the official code
gives the sky a depth, and beside it the results differ by design (see tests/models/test_depth_anything_3.py).
Invariant: it measures in whole runs what the tests check, with their functions.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import stream
from stream.models import catalog, registry
from tests.support.clips import CLIPS, clip_reference, frame_error
from tests.support.manifests import FILES, checkpoint, error, on_grid, reference
from tests.support.paths import DATA
from tests.support.reference import clip, image

ANY_VIEW = [DATA / "models" / "depth_anything_3" / f"{name}.json" for name in ("da3_base", "da3_small")]
MOGE = sorted((DATA / "models" / "moge").glob("*vit*.json"))
PATHS = [*FILES, *ANY_VIEW, *MOGE, *CLIPS]


def options_of(expected: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """The options of a case in this program's words."""
    given = {**expected.get("options", {}), **case.get("options", {})}
    size = given.get("height") or given.get("input_size") or given.get("process_res")
    if "num_tokens" in case:
        size = round(14 * math.sqrt(case["num_tokens"]))
    options = {"input_size": size, "square": given.get("square"), "fov": given.get("fov_x")}
    if "clip" in case:
        options["temporal"] = {"offline": "window", "stream": "stream"}[case["mode"]]
    return {key: value for key, value in options.items() if value}


def largest(values: list[Any], case: dict[str, Any]) -> float:
    """Largest error of the maps of a case, in standard deviations of the official one (for clips, of each frame's)."""
    if "clip" in case:
        return max(frame_error(*pair) for pair in zip(values, case["full"]["frames"], strict=True))
    (found,), expected = values, case.get("full") or case["full_suggested"]
    if "mask" not in case:
        return error(found, expected)
    official = np.array(expected["grid24"], float)  # NaN where there is no answer
    return float(np.nanmax(np.abs(on_grid(found) - official)) / expected["std"])


def errors(path: Path, *, device: str = "auto", precisions: Sequence[str] = ("fp32",)) -> dict[str, list[float]]:
    """The error of each image and clip of a reference file, by precision."""
    found: dict[str, list[float]] = {precision: [] for precision in precisions}
    expected = clip_reference(path) if path in CLIPS else reference(path)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        tensors = checkpoint(expected["state_dict"])
        torch.save({"model_config": expected["model_config"], "model": tensors} if path in MOGE else tensors, weights)
        given: dict[str, Any] = {"model": expected["model"], "weights": weights, "device": device}
        for precision, case in product(precisions, expected["cases"]):
            images = list(clip(*case["clip"])) if "clip" in case else [image(*case["image"])]
            results = stream.iter_depth(images, precision=precision, **given, **options_of(expected, case))
            found[precision].append(largest([depth.values for _, depth in results], case))
    return found


def main() -> None:
    """Print a row for each model that has a reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too; those of other models stay")
    asked = parser.parse_args()
    measured: dict[str, float] = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    print("| Model | Images and clips | Largest error / standard deviation |\n|---|---|---|")
    model_of = {path: registry.find(reference(path)["model"]) for path in PATHS}
    for spec in catalog.MODELS:
        files = [path for path in PATHS if model_of[path] is spec]
        if files and (not asked.models or spec.name in asked.models):
            found = [one for path in files for one in errors(path)["fp32"]]
            measured[spec.name] = float(f"{max(found):.1e}")
            print(f"| `{spec.name}` | {len(found)} | {max(found):.1e} |", flush=True)
            if asked.json:
                asked.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
