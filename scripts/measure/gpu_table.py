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
