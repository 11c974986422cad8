"""Measures the largest difference between this program and the official code for each model: see docs/models.md.

    python scripts/measure/parity.py [NAME...] [--json docs/measured/parity.json]

Fills each network with the deterministic weights of tests/data/models and runs the reference images in fp32; needs 6 GB
of memory for the largest model. Invariant: it computes what tests/models/test_parity.py checks, with its functions.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

import stream
from stream.models import catalog
from tests.support.manifests import FILES, checkpoint, error, reference
from tests.support.reference import image


def worst(path: Path) -> float:
    """Largest error over a reference file's images at image size, in standard deviations of the official output."""
    expected = reference(path)
    options = expected["options"]
    size = {"input_size": options.get("height") or options.get("input_size"), "square": bool(options.get("square"))}
    with tempfile.TemporaryDirectory() as folder:
        weights, cases = Path(folder) / "weights.pt", expected["cases"]
        torch.save(checkpoint(expected["state_dict"]), weights)
        for number, case in enumerate(cases):
            Image.fromarray(image(*case["image"])).save(Path(folder) / f"{number}.png")
        options = {key: value for key, value in size.items() if value}
        results = stream.iter_depth(folder, model=expected["model"], weights=weights, precision="fp32", **options)
        return max(error(depth.values, case["full"]) for (_, depth), case in zip(results, cases, strict=True))


def main() -> None:
    """Print a row for each model that has a reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too; those of other models stay")
    asked = parser.parse_args()
    measured: dict[str, float] = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    print("| Model | Images | Largest error / standard deviation |\n|---|---|---|")
    for spec in catalog.MODELS:
        files = [path for path in FILES if reference(path)["model"] == spec.name]
        if files and (not asked.models or spec.name in asked.models):
            count = sum(len(reference(path)["cases"]) for path in files)
            largest = max(worst(path) for path in files)
            measured[spec.name] = float(f"{largest:.1e}")
            print(f"| `{spec.name}` | {count} | {largest:.1e} |", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
