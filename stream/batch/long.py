"""Long videos of a batch, which are worked on in segments: they lie beside the result until it is joined.

Invariant: the segments are those of `depthstream run --resume`: whoever finds them goes on from there, be it a batch, a
shard, a run or `depthstream join`.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.batch.base import packed
from stream.batch.bucket import records_above
from stream.batch.results import record_of
from stream.config import Config
from stream.jobs.loaded import Model, engine_of
from stream.jobs.plan import OutputKind, OutputPlan
from stream.jobs.ranges import why_two_passes
from stream.jobs.report import Report
from stream.jobs.segments.cutting import cut
from stream.jobs.segments.gather import join_in_bucket, join_output
from stream.jobs.segments.join import DamagedError, join
from stream.jobs.segments.resume import ATTEMPTS, check_unchanged, state
from stream.jobs.segments.rows import Plan, Row, settings_of
from stream.jobs.segments.store import LocalStore, Store
from stream.jobs.segments.tally import tally
from stream.jobs.segments.work import run_rows
from stream.notes import OnNote
from stream.version import __version__

if TYPE_CHECKING:
    from stream.models.spec import ModelSpec


def look(config: Config, plan: OutputPlan, store: Store, spec: "ModelSpec") -> dict[str, Any]:
    """The segments of a source, for the result of a "plan" task: `rows` and `missing`.

    Returns:
        Empty for a source that is done in one piece.
    """
    rows = _rows_of(config, plan, store, spec)
    if rows is None:
        return {}
    return {"rows": len(rows), "missing": packed(row.number for row in rows if store.record(row.number) is None)}


def do_rows(
    config: Config,
    plan: OutputPlan,
    store: Store,
    numbers: Sequence[int],
    *,
    model: Model,
    spec: "ModelSpec",
    **hooks: Any,
) -> dict[str, Any] | None:
    """Do some rows of a source whose outputs were planned.

    Args:
        config: with `output.resume`.
        numbers: of the rows.
        hooks: see `run_rows`.

    Returns:
        The counts of frames; None if it was interrupted.

    Raises:
        OutputError: the segments that are there were made in another way.
        StreamError: see `run_rows`.
    """
    now = _begun(config, plan, store, model, spec)
    wanted: list[Row] = [now.rows[number] for number in numbers]
    records = run_rows(config, now, wanted, store, model=model, **hooks)
    if len(records) < len(wanted):
        return None
    return {"frames": sum(record.frames for record in records)}


def do_all(
    config: Config, plan: OutputPlan, store: Store, output: Path, *, model: Model, spec: "ModelSpec", **hooks: Any
) -> Report | None:
    """Do all rows of a source, and join them; the store stays.

    Args:
        output: is made; that of `config` and `plan` is what the segments belong to.
        config, hooks: as for `do_rows`.

    Returns:
        None if it was interrupted.

    Raises:
        DamagedError: files of segments are not what they were, again and again.
        StreamError: see `do_rows` and `join`.
    """
    started, reports = time.monotonic(), list[Report]()
    now = _begun(config, plan, store, model, spec)
    reused = {row.number: record for row in now.rows if (record := store.record(row.number)) is not None}
    there = config.model_copy(update={"output": config.output.model_copy(update={"path": output, "resume": True})})
    joined = None
    for attempt in range(1, ATTEMPTS + 1):
        records = run_rows(config, now, now.rows, store, model=model, on_report=reports.append, **hooks)
        if len(records) < len(now.rows):
            return None
        try:
            joined = join(there, now, store)
            break
        except DamagedError as error:
            if attempt == ATTEMPTS:
                raise
            for number in error.numbers:
                reused.pop(number, None)
                store.forget(number)
    assert joined is not None
    return tally(
        records, reports, joined, reused=list(reused.values()), source=now.source.uri, outcome=None, error=None,
        notes=[], duration_s=time.monotonic() - started,
    )  # fmt: skip


def _begun(config: Config, plan: OutputPlan, store: Store, model: Model, spec: "ModelSpec") -> Plan:
    """The plan of a job, which is in the store then. Raises `OutputError`: another one is."""
    rows = _rows_of(config, plan, store, spec)
    if rows is None:
        raise ValueError("the source has no segments")
    facts = {"weights": engine_of(model).model.weights_sha256, "version": __version__}
    now = Plan(source=state(plan.info), settings=settings_of(config, **facts), rows=tuple(rows))
    if (earlier := store.plan()) is None:
        store.save_plan(now)
    else:
        check_unchanged(store, now, earlier)
    return now


def _rows_of(config: Config, plan: OutputPlan, store: Store, spec: "ModelSpec") -> Sequence[Row] | None:
    """The segments of a source: those that it has already, or as it is cut; None if it is done in one piece."""
    writes_files = plan.kind is OutputKind.FOLDER or plan.depth_path is not None
    if not isinstance(store, LocalStore) and (
        writes_files or why_two_passes(config, spec.output, max_depth_m=spec.max_depth_m)
    ):
        return None  # their files would lie on other machines
    if (earlier := store.plan()) is not None:
        return earlier.rows
    rows = cut(config, plan.info, plan, spec)
    return None if isinstance(rows, str) else rows


def join_recorded(output: Path | str, *, overwrite: bool = False, on_note: OnNote | None = None) -> Report:
    """Put the segments of an output together, and if a batch has begun it, record that its source is done.

    Args:
        output: the result, or its URL.
        overwrite, on_note: see `join_output`.

    Raises:
        SinkError: the record cannot be written.
        StreamError: see `join_output` and `join_in_bucket`.
    """
    records = records_above(output)
    mark = None if records is None else records.begun(records.local(str(output)))

    def save(report: Report) -> None:
        if records is not None and mark is not None:
            results = records.outputs_of(report.outputs)
            records.save(record_of({"name": mark.name}, mark.source, report, results, seconds=report.duration_s))

    if isinstance(output, str):
        report = join_in_bucket(output, overwrite=overwrite, on_note=on_note, on_made=save)
    else:
        report = join_output(output, overwrite=overwrite, on_note=on_note, on_made=save)
    if records is not None and mark is not None:
        records.forget_begun(mark.name)
    return report
