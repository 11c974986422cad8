"""What the commands share: the display around a job, the summary, and errors as one line.

Invariant: nothing heavy is imported here; stderr is for people, stdout for programs.
"""

import json
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from stream.errors import masked, printable, shown
from stream.files import json_text
from stream.jobs.keys import TO_GO_ON

if TYPE_CHECKING:
    from stream.config import Config
    from stream.jobs.report import Report, ReportOfSeveral
    from stream.pipeline.runner import Progress


def run_job(
    config: "Config",
    job: Callable[..., "Report"],
    *,
    first: str = "",
    as_json: bool = False,
    again: str = "",
    last: "Callable[[Report], str]" = lambda _report: "",
    stills: str = "frame",
) -> int:
    """Run with a progress display; summary on stderr, report on stdout if wanted.

    Args:
        job: takes `on_progress`, `on_note` and `on_download`, see `stream.jobs.run.run_config`.
        first: line before everything else, unless the job fails before it begins.
        again: the command line that resumes the job.
        last: what to say after everything else, "" for nothing.
        stills: what a frame of stills is called.

    Returns:
        The run's exit code.
    """
    from stream.cli.progress import ProgressDisplay

    with ProgressDisplay(quiet=config.output.quiet, stills=stills) as display, _said_when_interrupted():
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

        def show_note(note: str) -> None:
            say(f"to go on: {again}" if again and note == TO_GO_ON else f"note: {note}")

        report = job(on_progress=show, on_note=show_note, on_download=display.download)
        _say_result(report, say, display.unit)
        if line := last(report):
            say(line)
    if as_json:
        print_json(report.to_dict())
    return report.exit_code


def run_sources(
    config: "Config", job: "Callable[..., ReportOfSeveral]", *, first: str = "", as_json: bool = False
) -> int:
    """Run several live sources with a progress display; a summary of each on stderr, the report on stdout if wanted.

    Args:
        job: takes `on_parts`, `on_note` and `on_download`, see `stream.jobs.several.run_several`.
        first: as for `run_job`.

    Returns:
        The run's exit code.
    """
    from stream.cli.progress import ProgressDisplay

    with ProgressDisplay(quiet=config.output.quiet) as display, _said_when_interrupted():
        pending = [first] if first else []

        def say(line: str) -> None:
            with suppress(IndexError):
                display.say(pending.pop())
            display.say(line)

        report = job(
            on_parts=display.show_parts, on_note=lambda note: say(f"note: {note}"), on_download=display.download
        )
        for name, one in report.by_name().items():
            _say_result(one, lambda line, name=name: say(f"{name}: {line}"))  # type: ignore[misc]
    if as_json:
        print_json(report.to_dict())
    if config.output.quiet:  # otherwise a note has said it
        for name, one in report.by_name().items():
            if one.error:
                fail(f"{name}: {one.error.removeprefix(f'{one.source}: ')}", 1, debug=False)
    if report.exit_code == 1:
        fail("every source failed", 1, debug=False)
    return report.exit_code


def _say_result(report: "Report", say: Callable[[str], None], unit: str = "frame") -> None:
    for item in report.skipped:
        say(f"skipped {item['name']}: {item['reason']}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    say(summary(report, unit))


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print plain values as JSON, in ASCII where stdout takes nothing else."""
    text = json_text(value, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=indent)
    print(text)


@contextmanager
def _said_when_interrupted() -> Iterator[None]:
    """Ctrl-C before there is anything to keep: one line, once the display is gone."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.exceptions.Exit(fail("interrupted", 130, debug=False)) from None


def resuming(arguments: Sequence[str], prog: str) -> str:
    """The command line that goes on where the one with these arguments was interrupted."""
    words = list(arguments)
    if "--resume" not in words:
        words.insert(words.index("--") if "--" in words else len(words), "--resume")
    return shlex.join([prog, *words])


def default_model_line() -> str:
    """Line that names the built-in model, and better ones."""
    from stream.models import catalog

    line = "model: starter, built in and small"
    better = [spec.name for spec in catalog.MODELS if spec.recommended]
    return f"{line}; better depth: -m {' or -m '.join(better)}" if better else line


def summary(report: "Report", unit: str = "frame") -> str:
    """One line for people: what was done, how fast, and where the result is; `unit` is what a frame is called."""
    from stream.cli.progress import FRAME, count_text, rate_text

    if unit != FRAME and report.outcome.value == "interrupted" and not report.written:
        return f"interrupted before the first {unit} was done"
    verbs = {"interrupted": "interrupted after", "done": "done:", "done_with_skips": "done:", "failed": "failed after"}
    verb = verbs[report.outcome.value]
    parts = [f"{verb} {count_text(report.written, unit)}"]
    if without := report.counters.get("without_truth"):
        parts[0] += f", {without} without its truth"
    if report.reused:
        parts.append(f"{report.reused} of them before")
    if report.fps is not None and (speed := rate_text(report.fps, unit)):
        parts.append(speed)
    for cause, count in report.dropped.items():
        is_left = unit != FRAME and cause == "stopped"
        parts.append(f"{count} left" if is_left else f"{count} dropped ({cause.replace('_', ' ')})")
    if report.skipped:
        parts.append(f"{len(report.skipped)} skipped")
    if report.abandoned and unit == FRAME:
        parts.append(f"stuck and abandoned: {', '.join(report.abandoned)}")
    line = " · ".join(parts)
    return f"{line} → {', '.join(report.outputs)}" if report.outputs else line


def fail(line: str, code: int, *, debug: bool) -> int:
    """Print why a command failed, in one line (after the traceback with `debug`), and return `code`."""
    if debug:
        print(printable(masked(traceback.format_exc()), lines=True), end="", file=sys.stderr)
    print(f"depthstream: {shown(line)}", file=sys.stderr)
    return code
