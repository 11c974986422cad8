"""Makes Markdown of what `gpu.py` has measured.

Invariant: a row that could not be measured is listed with the reason.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


def lines(content: dict[str, Any]) -> Iterator[str]:
    """The page."""
    for facts in content["machine"].values():
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        yield f"{facts['card']}; {facts['processor']}, {facts['cores']} cores; {versions}"
    by_step: dict[str, list[Row]] = {}
    for row in content["rows"]:
        by_step.setdefault(row["step"], []).append(row)
    for step, rows in by_step.items():
        state = content["steps"].get(step, {"state": "cut off"})["state"]
        yield from ("", f"## {step} ({state})", "")
        measured = [row for row in rows if "error" not in row]
        if step.startswith("tests"):
            counts = Counter(row.get("outcome", "cut off") for row in rows)
            yield ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        elif step.startswith("parity"):
            yield from table(("fp32", "fp16", "bf16"), measured, ".1e")
        elif step == "overlap":
            yield from table(("span_ms", "compute_ms", "copy_ms", "hidden", "busy"), measured, ".2f")
        elif measured:
            yield from table(("fps", "limit_fps", "prepare_s", "peak_mb"), measured, ".4g")
        if len(measured) < len(rows):
            yield ""
        for row in rows:
            if "error" in row:
                yield f"- `{row['key']}`: {row['error'].strip().splitlines()[-1]}"


def table(columns: tuple[str, ...], rows: list[Row], form: str) -> Iterator[str]:
    """A line for each row; a value that it does not have is a dash."""
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * len(columns)
    for row in rows:
        cells = ["–" if row.get(name) is None else format(row[name], form) for name in columns]
        yield f"| {row['key']} | {' | '.join(cells)} |"


def pipelines(content: dict[str, Any]) -> Iterator[str]:
    """Frames a second of whole pipelines with batches of one: without CUDA graphs, and with them by the clip's size."""
    first = {row["key"]: row for row in content["rows"] if row["step"] == "first-launched"}
    found: dict[str, dict[str, float]] = {}
    for row in content["rows"]:
        model, _, rest = row["key"].partition(" torch fp16 pipeline ")
        if row["step"] == "bench" and rest.endswith(" ×1"):
            found.setdefault(model, {})[rest.removesuffix(" ×1")] = row["fps"]
    sizes = list(dict.fromkeys(size for row in found.values() for size in row))
    yield f"| Model | launched, {sizes[0].replace('x', '×')} | {' | '.join(size.replace('x', '×') for size in sizes)} |"
    yield "|---|" + "---:|" * (len(sizes) + 1)
    for model, by_size in found.items():
        before = [row["fps"] for key, row in first.items() if key.startswith(f"{model} ") and f" {sizes[0]} " in key]
        rates = [before[-1] if before else None, *(by_size.get(size) for size in sizes)]
        yield f"| `{model}` | {' | '.join('–' if rate is None else f'{rate:.0f}' for rate in rates)} |"


def networks(content: dict[str, Any]) -> Iterator[str]:
    """Frames a second of networks alone: one frame without and with a graph, and batches of frames without one."""
    rates: dict[str, dict[str, float]] = {}
    for row in content["rows"]:
        model, found, batch = row["key"].partition(" torch fp16 network ×")
        if found and row["step"].startswith("bench"):
            name = "graph" if row["step"] == "bench" else f"launched ×{batch}"
            rates.setdefault(model, {})[name] = row["fps"]
    columns = ["launched ×1", "graph", "launched ×4", "launched ×8"]
    yield "| Model | launched | as a graph | launched, batch 4 | batch 8 |"
    yield "|---|" + "---:|" * len(columns)
    for model, by_name in rates.items():
        cells = ["–" if by_name.get(name) is None else f"{by_name[name]:.0f}" for name in columns]
        yield f"| `{model}` | {' | '.join(cells)} |"


def accuracy(content: dict[str, Any]) -> Iterator[str]:
    """The largest error against the official code, in standard deviations."""
    yield "| Model | fp32 | fp16 | bf16 |"
    yield "|---|---:|---:|---:|"
    for row in content["rows"]:
        if row["step"] == "parity":
            yield f"| `{row['key']}` | {row['fp32']:.1e} | {row['fp16']:.1e} | {row['bf16']:.1e} |"
