"""What the commands share: the display around a job, the summary, and errors as one line.

Invariant: nothing heavy is imported here; stderr is for people, stdout for programs.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stream.config import Config
    from stream.jobs.report import Report
    from stream.pipeline.runner import Progress


def run_job(config: "Config", job: Callable[..., "Report"], *, first: str = "", as_json: bool = False) -> int:
    """Run with a progress display; summary on stderr, report on stdout if wanted.

    Args:
        job: takes `on_progress`, `on_note` and `on_download`, see `stream.jobs.run.run_config`.
        first: line before everything else, unless the job fails before it begins.

    Returns:
        The run's exit code.
    """
    from stream.cli.progress import ProgressDisplay

    with ProgressDisplay(quiet=config.output.quiet) as display, _said_when_interrupted():
        pending = [first] if first else []

        def begin() -> None:  # not before an error that comes first: errors are one line
            with suppress(IndexError):  # notes come from several threads
                display.say(pending.pop())

        def say(line: str) -> None:
            begin()
            display.say(line)

        def show(progress: "Progress") -> None:
            begin()
            display(progress)

        report = job(on_progress=show, on_note=lambda note: say(f"note: {note}"), on_download=display.download)
        for item in report.skipped:
            say(f"skipped {item['name']}: {item['reason']}")
        for warning in report.warnings:
            say(f"warning: {warning}")
        say(summary(report))
    if as_json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    return report.exit_code


@contextmanager
def _said_when_interrupted() -> Iterator[None]:
    """Ctrl-C before there is anything to keep: one line, once the display is gone."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.exceptions.Exit(fail("interrupted", 130, debug=False)) from None


def default_model_line() -> str:
    """Line that names the built-in model, and better ones."""
    from stream.models import catalog

    line = "model: starter, built in and small"
    better = [spec.name for spec in catalog.MODELS if spec.recommended]
    return f"{line}; better depth: -m {' or -m '.join(better)}" if better else line


def summary(report: "Report") -> str:
    """One line for people: what was done, how fast, and where the result is."""
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
    """Print why a command failed, in one line (after the traceback with `debug`), and return `code`."""
    if debug:
        traceback.print_exc()
    print(f"depthstream: {line}", file=sys.stderr)
    return code
