"""Speed tables in Markdown, from what `depthstream bench --json FILE` has written.

    depthstream bench -m starter -m midas-small --json speed.json
    python scripts/measure/speed_table.py speed.json

`scripts/docs/generate.py` puts those of docs/measured/speed.json into README.md and docs/speed.md.

Prints a short Markdown table, pictures a second of the best precision of each backend, and a long one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

LONG = (
    "| Model | Backend | Bare, ms | CPU ms a frame: model + rest | Limit, fps | Pipeline, fps | Efficiency | × plain |"
)


def short(found: dict[str, Any]) -> list[str]:
    """A row for each model: the plain loop, and each backend at its fastest."""
    backends = list(dict.fromkeys(whole["backend"] for whole in found["whole"]))
    lines = [f"| | plain loop, fp32 | {' | '.join(backends)} |", "|---|" + "---|" * (1 + len(backends))]
    for loop in found["plain"]:
        wholes = [whole for whole in found["whole"] if whole["model"] == loop["model"]]
        cells = [f"`{loop['model']}`", rounded(loop["fps"], digits=2)]
        for backend in backends:
            best = max((w for w in wholes if w["backend"] == backend), key=lambda w: float(w["fps"]), default=None)
            cells.append(f"{rounded(best['fps'], digits=2)} ({best['precision']})" if best else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def long(found: dict[str, Any]) -> list[str]:
    """A row for each pipeline."""
    loops = {loop["model"]: loop["fps"] for loop in found["plain"]}
    lines = [LONG, "|---|---|" + "---:|" * 6]
    for whole in found["whole"]:
        plain = loops.get(whole["model"])
        cells = [
            f"`{whole['model']}`",
            f"{whole['backend']} {whole['precision']}",
            f"{1000 * whole['bare']['median_s']:.1f}",
            f"{1000 * whole['model_cpu_s']:.1f} + {1000 * whole['other_cpu_s']:.1f}",
            rounded(whole["limit_fps"]),
            rounded(whole["fps"]),
            f"{whole['efficiency']:.2f}",
            f"{whole['fps'] / plain:.1f}" if plain else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine(found: dict[str, Any]) -> str:
    """Where it was measured, and with which versions."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{found['machine']['processor']}, {found['machine']['cores']} cores; {versions}"


def rounded(fps: float, *, digits: int = 3) -> str:
    """A rate with as many significant digits."""
    return f"{fps:.{digits}g}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    found = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    print("\n".join([machine(found), "", *short(found), "", *long(found)]))


if __name__ == "__main__":
    main()
