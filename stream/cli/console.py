"""What the commands share: options, the display around a job, the summary, and errors as one line.

Invariant: as in `cli`, nothing heavy is imported here; stderr is for people, stdout for programs.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stream.pipeline.runner import Progress


def option(names: str, help_text: str) -> Any:
    """An option called `names` (space-separated) whose default is not shown: it is the config's."""
    return typer.Option(*names.split(), help=help_text, show_default=False)


Debug = Annotated[bool, option("--debug", "Show tracebacks.")]


def tell(config: Any, job: Callable[..., Any], *, first: str = "", as_json: bool = False) -> None:
    """Run with a progress display; summary on stderr, report on stdout if wanted; exits with the run's code."""
    from stream.cli.progress import ProgressDisplay

    with ProgressDisplay(quiet=config.output.quiet) as display, _told_of_ctrl_c():
        pending = [first] if first else []

        def say(line: str) -> None:
            while pending:  # not before an error that comes first: errors are one line
                display.say(pending.pop())
            display.say(line)

        def show(progress: "Progress") -> None:
            while pending:
                display.say(pending.pop())
            display(progress)

        report = job(on_progress=show, on_note=lambda note: say(f"note: {note}"), on_download=display.download)
        for item in report.skipped:
            say(f"skipped {item['name']}: {item['reason']}")
        for warning in report.warnings:
            say(f"warning: {warning}")
        say(summary(report))
    if as_json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    raise typer.Exit(report.exit_code)


@contextmanager
def _told_of_ctrl_c() -> Iterator[None]:
    """Ctrl-C before there is anything to keep; typer would exit without a word."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(fail("interrupted", 130, debug=False)) from None


def default_model_line() -> str:
    """Says that the built-in model is used, and what would be better."""
    from stream.models import catalog

    line = "model: starter, built in and small"
    better = [spec.name for spec in catalog.MODELS if spec.recommended]
    return f"{line}; better depth: -m {' or -m '.join(better)}" if better else line


def summary(report: Any) -> str:
    """One line for people: what was done, how fast, and where it lies."""
    verb = {"interrupted": "interrupted after", "done": "done:", "done_with_skips": "done:"}[report.outcome.value]
    parts = [f"{verb} {report.written} frame{'s' if report.written != 1 else ''}"]
    if report.fps is not None:
        parts.append(f"{report.fps:.1f} fps")
    for cause, count in report.dropped.items():
        parts.append(f"{count} dropped ({cause.replace('_', ' ')})")
    if report.skipped:
        parts.append(f"{len(report.skipped)} skipped")
    if report.abandoned:
        parts.append(f"stuck and abandoned: {', '.join(report.abandoned)}")
    line = " · ".join(parts)
    return f"{line} → {', '.join(report.outputs)}" if report.outputs else line


def fail(line: str, code: int, *, debug: bool) -> int:
    """Say why a command failed, in one line (after the traceback with `debug`); gives `code` back."""
    if debug:
        traceback.print_exc()
    print(f"depthstream: {line}", file=sys.stderr)
    return code
