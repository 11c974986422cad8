"""Makes speed tables in Markdown from a file of `depthstream bench --json`.

    depthstream bench -m starter -m midas-small --json speed.json
    python scripts/measure/speed_table.py speed.json

Prints a short table with each backend's frames per second in its best precision, and a long one.
`scripts/docs/generate.py` puts those of docs/measured/speed.json into README.md and docs/speed.md.
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
        cells = [name(baseline), rounded(baseline["fps"], digits=2)]
        for backend in backends:
            own = (result for result in pipelines if result["backend"] == backend)
            best = max(own, key=lambda result: float(result["fps"]), default=None)
            cells.append(f"{rounded(best['fps'], digits=2)} ({best['precision']})" if best else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def long(found: dict[str, Any]) -> list[str]:
    """A row for each pipeline."""
    baselines = {result["model"]: result["fps"] for result in found["baseline"]}
    lines = [LONG, "|---|---|" + "---:|" * 6]
    for result in found["pipeline"]:
        baseline = baselines.get(result["model"])
        cells = [
            name(result),
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


def name(result: dict[str, Any]) -> str:
    """The model, with `input`, if any: the size of the network's input then, where it is another one now."""
    return f"`{result['model']}`" + (f" at {result['input']}" if "input" in result else "")


def machine(found: dict[str, Any]) -> str:
    """The processor and the versions that it was measured with."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{found['machine']['processor']}, {found['machine']['cores']} cores; {versions}"


def rounded(fps: float, *, digits: int = 3) -> str:
    """A rate with this many significant digits."""
    return f"{fps:.{digits}g}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    found = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    print("\n".join([machine(found), "", *short(found), "", *long(found)]))


if __name__ == "__main__":
    main()
