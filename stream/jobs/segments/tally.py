"""The report of a run in segments, from the records of all of them and the reports of what was done now.

Invariant: frames, skipped inputs, warnings and counters are those of the whole output, whichever run has made them;
rates, latency and stages are those of the last stretch that was done now.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from stream.errors import shown
from stream.jobs.report import Report
from stream.jobs.segments.join import Joined
from stream.jobs.segments.rows import LAST_DURATION, SegmentRecord
from stream.metrics import Outcome

_LOST = ("skipped", "refused", "unwritten")
"""Counts of a record that are inputs without a result."""
_OF_PARTS = (*_LOST, LAST_DURATION, "frames_read_back")
"""Counts that say nothing of the whole."""


def tally(
    records: Sequence[SegmentRecord],
    reports: Sequence[Report],
    joined: Joined,
    *,
    reused: Sequence[SegmentRecord],
    source: str,
    outcome: Outcome | None,
    error: str | None,
    notes: list[str],
    duration_s: float,
) -> Report:
    """Add everything up.

    Args:
        records: of the segments that are done.
        reports: of the stretches that were done now.
        joined: the outputs.
        reused: the records that were there before.
        source: its name.
        outcome: None if all is done.
        error, notes, duration_s: see `Report`.
    """
    last = reports[-1] if reports else _of_records(records, source)
    now = {record.number for record in records} - {record.number for record in reused}
    skipped = [item for report in reports for item in report.skipped]
    for record in reused:
        lost = sum(record.counts.get(name, 0) for name in _LOST)
        reason = "could not be used; the run that did this segment has named it"
        skipped += [{"name": f"an input in segment {record.number}", "reason": reason}] * lost
    warnings = [text for record in reused for text in record.warnings]
    warnings += [text for report in reports for text in report.warnings]
    warnings += joined.warnings
    counters = Counter[str]()
    for counts in (*(record.counts for record in reused), *(report.counters for report in reports)):
        counters.update({name: count for name, count in counts.items() if name not in _OF_PARTS})
    counters.update(joined.counters)
    frames_now = sum(report.written for report in reports)
    written = sum(record.frames for record in reused) + frames_now
    dropped = sum((Counter(report.dropped) for report in reports), Counter[str]())
    if outcome is None:
        outcome = Outcome.DONE_WITH_SKIPS if skipped or warnings else Outcome.DONE
    return replace(
        last,
        outcome=outcome,
        error=error,
        captured=written + len(skipped) + sum(dropped.values()),
        inferred=sum(report.inferred for report in reports),
        carried=sum(report.carried for report in reports),
        written=written,
        dropped=dict(dropped),
        skipped=skipped,
        warnings=list(dict.fromkeys(map(shown, warnings))),
        notes=notes,
        counters=dict(counters),
        outputs=joined.outputs,
        duration_s=duration_s,
        segments=len(now) + len(reused),
        reused=sum(record.frames for record in reused),
    )


def _of_records(records: Sequence[SegmentRecord], source: str) -> Report:
    """The report of a run that had nothing left to do but to join."""
    first = records[0] if records else None
    empty = Report.of_failure("", source=source, model="", duration_s=0.0)
    if first is None:
        return empty
    return replace(
        empty,
        model=first.model,
        weights_sha256=first.weights_sha256,
        device=first.device,
        precision=first.precision,
        backend=first.backend,
    )


def of_both(first: Report, second: Report) -> Report:
    """The report of two passes: of the network from the first one, of the outputs from the second one."""
    return replace(
        second,
        inferred=first.inferred,
        carried=first.carried,
        notes=first.notes,
        rates={**second.rates, **{name: rate for name, rate in first.rates.items() if name == "model"}},
        stages={**second.stages, **{name: time for name, time in first.stages.items() if name == "inference"}},
        depth_change=first.depth_change,
        refined=first.refined,
        duration_s=first.duration_s,
        segments=first.segments,
        reused=first.reused,
    )
