"""Fills the generated parts of README.md and docs/: tables of models and of speed, the command's own help, the API,
and the schema of `survey.json`.

    python scripts/docs/generate.py            rewrites what is stale
    python scripts/docs/generate.py --check    lists what is stale, and fails if anything is

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is outside is written by hand.
Invariant: the same checkout gives the same text on every machine and every supported Python.
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / "scripts" / folder) for folder in ("docs", "measure", "scale"))]

import api  # noqa: E402
import cost  # noqa: E402
import gpu_table  # noqa: E402
import simulate  # noqa: E402
import speed_table  # noqa: E402

from stream.models import catalog  # noqa: E402
from stream.models.spec import ModelSpec  # noqa: E402
from stream.survey import record  # noqa: E402

MEASURED = ROOT / "docs" / "measured"
"""Numbers that a script measured; the tables are made from them."""
PAGES = ("README.md", "docs/models.md", "docs/speed.md", "docs/scale.md", "docs/api.md")
FIRST_CHOICES = (
    "starter",
    "zipdepth_base",
    "depth_anything_v2_vits",
    "depth_anything_v2_vitl",
    "depth_anything_v2_metric_hypersim_vits",
    "depth_anything_v2_metric_vkitti_vits",
    "depth_anything_v1_metric_indoor",
    "da3_small",
    "da3mono_large",
    "da3metric_large",
    "moge_2_vits_normal",
    "video_depth_anything_vits",
    "dpt_beit_large_512",
    "midas_v21_small_256",
)
"""What the README shows of the catalog: the built-in model, and one or more of each family."""
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def measured(name: str) -> dict[str, Any]:
    """The content of a file of `docs/measured`."""
    found: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def name_cell(spec: ModelSpec) -> str:
    """The catalog name and the first alias."""
    return f"`{spec.name}`" + (f" (`{spec.aliases[0]}`)" if spec.aliases else "")


def few_models() -> list[str]:
    """The README's choice of models."""
    by_name = {spec.name: spec for spec in catalog.MODELS}
    lines = ["| Model | Million parameters | Output | Licence | Good for |", "|---|---:|---|---|---|"]
    for spec in (by_name[name] for name in FIRST_CHOICES):
        cells = [name_cell(spec), f"{spec.parameters_m:g}", spec.output.quantity, spec.licence_text, spec.summary]
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
            spec.output.quantity,
            input_cell(spec),
            spec.licence_text,
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


def choices() -> list[str]:
    """The words that `-m` takes instead of names."""
    return ["| `-m` | Model | For |", "|---|---|---|"] + [
        f"| `{word}` | `{choice.model}` | {choice.reason} |" for word, choice in catalog.CHOICES.items()
    ]


def words() -> list[str]:
    """The same in a sentence."""
    pairs = ", ".join(f"`{word}` for `{choice.model}`" for word, choice in catalog.CHOICES.items())
    return textwrap.wrap(f"`-m` also takes a word: {pairs}. Their licences allow commercial use.", 120)


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
    "models-choices": choices,
    "models-words": words,
    "models-names": model_names,
    "speed-machine": lambda: [speed_table.machine(measured("speed")) + ":"],
    "speed-short": lambda: speed_table.short(measured("speed")),
    "speed-long": lambda: speed_table.long(measured("speed")),
    "speed-machine-avx2": lambda: [speed_table.machine(measured("speed-avx2")) + ":"],
    "speed-long-avx2": lambda: speed_table.long(measured("speed-avx2")),
    "gpu-pipelines": lambda: list(gpu_table.pipelines(measured("gpu-h200"))),
    "gpu-networks": lambda: list(gpu_table.networks(measured("gpu-h200"))),
    "gpu-accuracy": lambda: list(gpu_table.accuracy(measured("gpu-h200"))),
    "scale-time": lambda: cost.time_table(cost.Job()),
    "scale-size": lambda: cost.size_table(cost.Job()),
    "scale-workers": lambda: simulate.table(measured("scale")["rows"]),
    "scale-lengths": lambda: simulate.length_table(measured("scale")["lengths"]),
    "api": api.reference,
}


def filled(text: str) -> str:
    """A page with its generated parts made again."""

    def part(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return "\n".join([begin.rstrip("\n"), "", *PARTS[name](), "", end])

    return PART.sub(part, text)


def survey_schema() -> str:
    """The JSON schema of `survey.json`, as a survey writes it."""
    schema = record.Survey.model_json_schema(mode="serialization")
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(_same_for_all_versions(content), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _same_for_all_versions(schema: Any) -> Any:
    """Leaves out what pydantic 2.11 and later say of an object that may hold anything, which is the default."""
    if isinstance(schema, list):
        return [_same_for_all_versions(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _same_for_all_versions(value)
        for key, value in schema.items()
        if not (key == "additionalProperties" and value is True)
    }


FILES: dict[str, Callable[[], str]] = {"docs/survey.schema.json": survey_schema}
"""Files that are generated as a whole."""


def stale() -> dict[Path, str]:
    """What is out of date: pages by their generated parts, and whole files; with the text that they should have."""
    pages = {ROOT / page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    old = {path: new for path, text in pages.items() if (new := filled(text)) != text}
    for name, made in FILES.items():
        path, new = ROOT / name, made()
        if not path.is_file() or path.read_text(encoding="utf-8") != new:
            old[path] = new
    return old


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
