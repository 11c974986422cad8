"""Fills the generated parts of README.md and docs/: tables of models and of speed, the command's own help, the API.

    python scripts/docs/generate.py            rewrites what is stale
    python scripts/docs/generate.py --check    lists what is stale, and fails if anything is

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is outside is written by hand.
Invariant: the same checkout gives the same text on every machine and every supported Python.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "docs"), str(ROOT / "scripts" / "measure")]

import api  # noqa: E402
import speed_table  # noqa: E402

from stream.frames import DepthKind  # noqa: E402
from stream.models import catalog  # noqa: E402
from stream.models.spec import ModelSpec  # noqa: E402

MEASURED = ROOT / "docs" / "measured"
"""Numbers that a script measured; the tables are made from them."""
PAGES = ("README.md", "docs/models.md", "docs/speed.md", "docs/api.md")
FIRST_CHOICES = (
    "starter",
    "depth_anything_v2_vits",
    "depth_anything_v2_vitl",
    "depth_anything_v2_metric_hypersim_vits",
    "depth_anything_v2_metric_vkitti_vits",
    "dpt_beit_large_512",
    "midas_v21_small_256",
)
"""What the README shows of the catalog: the built-in model, and one for each thing that people want."""
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def measured(name: str) -> dict[str, Any]:
    """The content of a file of `docs/measured`."""
    found: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def name_cell(spec: ModelSpec) -> str:
    """The catalog name and the first alias."""
    return f"`{spec.name}`" + (f" (`{spec.aliases[0]}`)" if spec.aliases else "")


def unit(spec: ModelSpec) -> str:
    """What the numbers of a model's depth are."""
    return "metres" if spec.output is DepthKind.METRIC_DEPTH else "disparity"


def few_models() -> list[str]:
    """The README's choice of models."""
    by_name = {spec.name: spec for spec in catalog.MODELS}
    lines = ["| Model | Million parameters | Output | Licence | Good for |", "|---|---:|---|---|---|"]
    for spec in (by_name[name] for name in FIRST_CHOICES):
        cells = [name_cell(spec), f"{spec.parameters_m:g}", unit(spec), spec.licence, spec.summary]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def all_models() -> list[str]:
    """Every row of the catalog, with the measured difference from the official code."""
    errors = measured("parity")
    lines = [
        "| Model | Million parameters | Output | Input | Licence | Error | Good for |",
        "|---|---:|---|---|---|---:|---|",
    ]
    for spec in catalog.MODELS:
        error = f"{errors[spec.name]:.1e}" if spec.name in errors else "–"
        cells = [
            name_cell(spec),
            f"{spec.parameters_m:g}",
            unit(spec),
            input_cell(spec),
            spec.licence,
            error,
            spec.summary,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def input_cell(spec: ModelSpec) -> str:
    """The default inference size, and what an input size must be a multiple of."""
    height, width = spec.input.size_hw
    size = f"{width}" if width == height else f"{width}×{height}"
    if spec.input.fixed_size:
        return f"{size}, fixed, square"
    return f"{size}, × {spec.input.multiple_of}"


def model_names() -> list[str]:
    """Every name that `-m` takes, by model."""
    return ["| Model | Also |", "|---|---|"] + [
        f"| `{spec.name}` | {', '.join(f'`{alias}`' for alias in spec.aliases)} |"
        for spec in catalog.MODELS
        if spec.aliases
    ]


PARTS: dict[str, Callable[[], list[str]]] = {
    "models-few": few_models,
    "models-all": all_models,
    "models-names": model_names,
    "speed-machine": lambda: [speed_table.machine(measured("speed")) + ":"],
    "speed-short": lambda: speed_table.short(measured("speed")),
    "speed-long": lambda: speed_table.long(measured("speed")),
    "api": api.reference,
}


def filled(text: str) -> str:
    """A page with its generated parts made again."""

    def part(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return "\n".join([begin.rstrip("\n"), "", *PARTS[name](), "", end])

    return PART.sub(part, text)


def stale() -> dict[Path, str]:
    """The pages whose generated parts are out of date, with the text that they should have."""
    pages = {ROOT / page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    return {path: new for path, text in pages.items() if (new := filled(text)) != text}


def main() -> int:
    """Rewrite or list the stale pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is stale")
    is_check = parser.parse_args().check
    pages = stale()
    for path, text in pages.items():
        print(f"{path.relative_to(ROOT)}: {'stale' if is_check else 'written'}")
        if not is_check:
            path.write_text(text, encoding="utf-8")
    return 1 if is_check and pages else 0


if __name__ == "__main__":
    sys.exit(main())
