"""Joins an output whose segments others have made: workers of a batch, shards, other machines that share a disk.

Everything that a run would be told stands in the plan that lies with the segments. Those of two passes hold depth: the
second pass, which is that of a resumed run, makes the outputs of it, with a model that is loaded and computes nothing.
Invariant: as for `join`; the segments are removed once the outputs are in their places.
"""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from stream.config import Config
from stream.errors import OutputError, SinkError, SourceNotFoundError
from stream.jobs.loaded import Model, as_model, kept_engine
from stream.jobs.models import spec_meant
from stream.jobs.report import Report
from stream.jobs.run import run_config
from stream.jobs.segments.join import Joined, checked, join
from stream.jobs.segments.resume import check_unchanged, joinable, locked, state
from stream.jobs.segments.rows import Plan
from stream.jobs.segments.store import PLAN, SUFFIX, LocalStore, Store
from stream.jobs.segments.tally import tally
from stream.jobs.segments.twopass import SPOOL
from stream.jobs.segments.work import OnReport
from stream.jobs.source import check_source, open_config_source
from stream.notes import Notes, OnNote, collected
from stream.remote.urls import is_remote, parse


def join_output(
    output: Path, *, overwrite: bool = False, on_note: OnNote | None = None, on_made: OnReport | None = None
) -> Report:
    """Make an output of its segments, which lie beside it in `OUTPUT.segments`.

    Args:
        output: its final name.
        overwrite: files may be replaced.
        on_note, on_made: see `run_config`.

    Raises:
        OutputError: there are no segments, some are missing or do not fit together, or the output exists.
        StreamError: see `join`; or the model of two passes cannot be loaded.
    """
    started = time.monotonic()
    store = LocalStore.beside(output)
    plan = store.plan()
    if plan is None:
        hint = f"name the output of an interrupted job, beside which OUT{SUFFIX} lies"
        raise OutputError("has no segments to join", where=str(output), hint=hint)
    config = joinable(config_of(plan, output, overwrite=overwrite))
    if store.closed() is None and any(
        piece.name == SPOOL for record in checked(plan, store) for piece in record.pieces
    ):
        with collected(Notes(on_note)) as notes, closing(_idle_model(config, notes)) as model:
            return run_config(config, model=model, on_note=notes.add, on_made=on_made)
    with collected(Notes(on_note)) as notes, locked(store):
        _check_source(config, plan, store)
        if (closed := store.closed()) is not None:
            records, joined = closed[0], Joined(outputs=closed[1])
        else:
            joined = join(config, plan, store)
            records = [record for row in plan.rows if (record := store.record(row.number)) is not None]
        report = tally(
            records, [], joined, reused=records, source=plan.source.uri, outcome=None, error=None, notes=notes.said,
            duration_s=time.monotonic() - started,
        )  # fmt: skip
        store.close(records, joined.outputs)
        if on_made is not None:
            on_made(report)
        store.discard()
    return report


def join_in_bucket(
    url: str, *, overwrite: bool = False, on_note: OnNote | None = None, on_made: OnReport | None = None
) -> Report:
    """Make an output in a bucket or on a server of its segments there, as `join_output` does.

    Args:
        url: of the output.
        overwrite, on_note, on_made: as for `join_output`.

    Raises:
        OutputError: see `join_output`.
        SinkError: the output cannot be uploaded.
        StreamError: see `join`.
    """
    from stream.jobs.segments.remote_store import RemoteStore
    from stream.remote.access import Remote

    started = time.monotonic()
    store, remote, name = RemoteStore(f"{url}{SUFFIX}"), Remote(url, kind=SinkError), url.rpartition("/")[2]
    plan = store.plan()
    if plan is None:
        hint = f"name the output of an interrupted job, beside which OUT{SUFFIX} lies"
        raise OutputError("has no segments to join", where=url, hint=hint)
    with collected(Notes(on_note)) as notes, TemporaryDirectory(prefix="depthstream-join-") as folder:
        config = joinable(config_of(plan, Path(folder, name)))
        _check_source(config, plan, store)
        joined = join(config, plan, store)
        records = [record for row in plan.rows if (record := store.record(row.number)) is not None]
        urls: dict[str, str] = {}
        for file in sorted(Path(folder).iterdir(), key=lambda path: (path.name == name, path)):
            urls[str(file)] = target = f"{url.removesuffix(name)}{file.name}"
            try:
                remote.upload(file, target, replace=overwrite)
            except FileExistsError as error:
                if not remote.holds(target, file):  # uploaded by a `join` that was killed before its end
                    raise OutputError("exists already", where=target, hint="pass --overwrite to replace it") from error
        report = tally(
            records, [], joined, reused=records, source=plan.source.uri, outcome=None, error=None, notes=notes.said,
            duration_s=time.monotonic() - started,
        )  # fmt: skip
        report = replace(report, outputs=[urls[output] for output in report.outputs])
        if on_made is not None:
            on_made(report)
        store.discard()
    return report


def _idle_model(config: Config, notes: Notes) -> Model:
    """A model that computes nothing, so it needs no GPU and no backend that the segments were made with."""
    update = {"precision": "auto", "backend": "torch"}
    if "cpu" in spec_meant(config).devices:
        update["device"] = "cpu"
    config = config.model_copy(update={"inference": config.inference.model_copy(update=update)})
    return as_model(kept_engine(config, exact=True), config, notes)


def _check_source(config: Config, plan: Plan, store: Store) -> None:
    """Refuse to join segments whose source is not as it was. Raises `StreamError`, see `join_output`."""
    if not is_remote(plan.source.uri) and not Path(plan.source.uri).exists():
        what, hint = "the source of these segments is not there", "join them where it can be read"
        raise SourceNotFoundError(what, where=plan.source.uri, hint=hint)
    check_source(config)
    with closing(open_config_source(config)) as source:
        now = Plan(source=state(source.info), settings=plan.settings, rows=plan.rows)
    check_unchanged(store, now, plan, to_be="joined")


def urls_in(url: str) -> list[str]:
    """See `outputs_in`, for what is in a bucket or on a server."""
    from stream.remote.access import Remote

    place = parse(url)
    url = place.with_path(place.path.rstrip("/"))
    if url.endswith(SUFFIX):
        return [url.removesuffix(SUFFIX)]
    remote, end = Remote(url, kind=SinkError), f"{SUFFIX}/{PLAN}"
    if not place.is_folder and remote.exists(f"{url}{end}"):
        return [url]
    below = f"{url.rstrip('/')}/"
    listed = remote.files(below) if remote.exists(below) else []
    return [entry.url.removesuffix(end) for entry in listed if entry.url.endswith(end)] or [url]


def outputs_in(folder: Path) -> list[Path]:
    """The outputs below a folder whose segments are there, as a batch in shards leaves them, by name.

    One that has segments itself is the only one, under its own name or that of the folder with its segments.
    """
    if folder.name.endswith(SUFFIX):
        return [folder.with_name(folder.name.removesuffix(SUFFIX))]
    if LocalStore.beside(folder).exists or not folder.is_dir():
        return [folder]
    found = [path for path in folder.rglob(f"*{SUFFIX}") if LocalStore(path).exists]
    return sorted(path.with_name(path.name.removesuffix(SUFFIX)) for path in found) or [folder]


def config_of(plan: Plan, output: Path, *, overwrite: bool = False) -> Config:
    """The config of the job that a plan belongs to.

    Raises:
        OutputError: this version does not know one of its options.
    """
    sections: dict[str, dict[str, object]] = {"output": {"path": output, "overwrite": overwrite}}
    for key, value in plan.settings.items():
        section, dot, name = key.partition(".")
        if dot:
            sections.setdefault(section, {})[name] = value
    given: Mapping[str, object] = {"source": plan.source.uri, **sections}
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"its plan has an option of another version: {'.'.join(map(str, first['loc']))}"
        raise OutputError(what, where=str(output), hint="join it with the version that has made it") from error
