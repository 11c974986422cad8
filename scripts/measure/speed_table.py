"""Makes the speed tables of README.md and stream/bench/README.md from a file of `depthstream bench --json`.

    depthstream bench -m starter -m midas-small --json speed.json
    python scripts/measure/speed_table.py speed.json

Prints two Markdown tables: a short one with each backend's frames per second in its best precision, and a long one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

LONG = (
    "| Model | Backend | Network, ms | CPU ms a frame: model + rest | Limit, fps | Pipeline, fps | Efficiency "
    "| × baseline |"
)


def short(found: dict[str, Any]) -> list[str]:
    """A row for each model: the baseline, and each backend at its fastest."""
    backends = list(dict.fromkeys(result["backend"] for result in found["pipeline"]))
    lines = [f"| | baseline, fp32 | {' | '.join(backends)} |", "|---|" + "---|" * (1 + len(backends))]
    for baseline in found["baseline"]:
        pipelines = [result for result in found["pipeline"] if result["model"] == baseline["model"]]
        cells = [f"`{baseline['model']}`", rounded(baseline["fps"])]
        for backend in backends:
            own = (result for result in pipelines if result["backend"] == backend)
            best = max(own, key=lambda result: float(result["fps"]), default=None)
            cells.append(f"{rounded(best['fps'])} ({best['precision']})" if best else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def long(found: dict[str, Any]) -> list[str]:
    """A row for each pipeline."""
    baselines = {result["model"]: result["fps"] for result in found["baseline"]}
    lines = [LONG, "|---|---|" + "---:|" * 6]
    for result in found["pipeline"]:
        baseline = baselines.get(result["model"])
        cells = [
            f"`{result['model']}`",
            f"{result['backend']} {result['precision']}",
            f"{1000 * result['network']['median_s']:.1f}",
            f"{1000 * result['model_cpu_s']:.1f} + {1000 * result['other_cpu_s']:.1f}",
            rounded(result["limit_fps"]),
            rounded(result["fps"]),
            f"{result['efficiency']:.2f}",
            f"{result['fps'] / baseline:.1f}" if baseline else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def rounded(fps: float) -> str:
    """Three significant digits."""
    return f"{fps:.3g}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    found = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    machine, versions = found["machine"], found["versions"]
    print(f"{machine['processor']}, {machine['cores']} cores; " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    print("\n".join(["", *short(found), "", *long(found)]))


if __name__ == "__main__":
    main()
