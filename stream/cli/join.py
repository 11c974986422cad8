"""`depthstream join`."""

from collections.abc import Sequence

import click

from stream.cli.console import fail, print_json, summary
from stream.cli.options import SETTINGS, debug, own
from stream.cli.progress import ProgressDisplay
from stream.errors import StreamError


@click.command(context_settings=SETTINGS)
@click.argument("outs", nargs=-1, required=True, metavar="OUT...")
@own("--overwrite", is_flag=True, help_text="Replace existing output.")
@own("--json", "as_json", is_flag=True, help_text="Print the results as JSON on stdout.")
@debug
def join(outs: Sequence[str], overwrite: bool, as_json: bool) -> int:
    """Put the finished segments of OUT together.

    For segments that several machines have made: they lie in OUT.segments, with the options that they were made with.
    If OUT is the folder of a batch, all that lies in it is put together. Segments that are missing, damaged or made in
    another way are refused.

    Exit codes: 0 done, 1 failed, 2 refused, 3 done but inputs were skipped.
    """
    from pathlib import Path

    from stream.batch.long import join_recorded
    from stream.files import expanded
    from stream.jobs.segments.gather import outputs_in, urls_in
    from stream.remote.urls import is_remote

    reports, failed = [], 0
    outputs: list[Path | str] = []
    for out in outs:
        outputs += urls_in(out) if is_remote(out) else outputs_in(Path(expanded(out)))
    with ProgressDisplay() as display:
        for output in outputs:
            try:
                report = join_recorded(output, overwrite=overwrite, on_note=lambda note: display.say(f"note: {note}"))
            except StreamError as error:
                if len(outputs) == 1:
                    raise
                failed = max(failed, fail(str(error), error.exit_code, debug=False))
                continue
            for warning in report.warnings:
                display.say(f"warning: {warning}")
            display.say(summary(report))
            reports.append(report)
    if as_json:
        print_json([report.to_dict() for report in reports])
    return failed or max(report.exit_code for report in reports)
