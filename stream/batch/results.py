"""What is said of a source: its records, and the result of a task.

Invariant: plain values only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from stream.config import Config
from stream.errors import OutputError
from stream.files import json_text
from stream.jobs.segments.rows import SourceState
from stream.sinks.depthfiles import DESCRIPTION
from stream.version import __version__

if TYPE_CHECKING:
    from stream.batch.records import Records
    from stream.jobs.report import Report

INTERRUPTED = {"state": "interrupted", "reason": "interrupted", "retry": True}
Record = TypeVar("Record", "Done", "Begun")


@checked(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Done:
    """The record of a finished source.

    Attributes:
        name: the source's, see `stream.batch.sources`.
        source: as it was read.
        outputs: results relative to the output folder, with their sizes in bytes; None for a folder.
        frames: written.
        skipped: inputs within the source that could not be used.
        warnings: what is wrong with the source, each once.
        attempt: 1 for the first.
        seconds: of work.
    """

    name: str
    source: SourceState
    outputs: dict[str, int | None]
    frames: int
    skipped: int = 0
    warnings: tuple[str, ...] = ()
    model: str = ""
    weights_sha256: str = ""
    device: str = ""
    precision: str = ""
    backend: str = ""
    version: str = ""
    attempt: int = 1
    seconds: float = 0.0


@checked(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Begun:
    """The mark of a source whose result is made in its place.

    Attributes:
        name: the source's.
        source: as it was when it was begun.
        output: its result, relative to the output folder.
    """

    name: str
    source: SourceState
    output: str


def parsed(fields: object, kind: type[Record]) -> Record:
    """A record from plain values. Raises `ValueError`."""
    try:
        found = TypeAdapter(kind).validate_json(json_text(fields))
    except ValidationError as error:
        raise ValueError(str(error)) from error
    return found


def is_exact(config: Config) -> bool:
    """Whether the numbers themselves are wanted, as in a run of the same options."""
    return bool(config.output.save)


def is_same(earlier: SourceState, now: SourceState) -> bool:
    """Whether a source is as it was; the folder that it is in may have another name on another machine."""
    return (earlier.size, earlier.stamp) == (now.size, now.stamp)


def check_free(records: "Records", name: str, place: str, *, overwrite: bool) -> None:
    """Refuse to replace what no record of this batch names.

    Raises:
        OutputError: it is there.
    """
    if not overwrite and not records.is_free(name, records.local(place)):
        what = "the file exists, and no record of this batch names it"
        raise OutputError(what, where=place, hint="move it away, or pass --overwrite")


def record_of(
    task: Mapping[str, Any], state: SourceState, report: "Report", outputs: dict[str, int | None], *, seconds: float
) -> Done:
    """The record of a source from the report of its run."""
    return Done(
        name=task["name"],
        source=state,
        outputs=outputs,
        frames=report.written,
        skipped=len(report.skipped),
        warnings=tuple(report.warnings[:20]),
        model=report.model,
        weights_sha256=report.weights_sha256,
        device=report.device,
        precision=report.precision,
        backend=report.backend,
        version=__version__,
        attempt=task.get("attempt", 1),
        seconds=round(seconds, 3),
    )


def done_result(record: Done) -> dict[str, Any]:
    """The result of a task whose source is done."""
    return {
        "state": "done",
        "frames": record.frames,
        "skipped": record.skipped,
        "warnings": len(record.warnings),
        "device": record.device,
        "precision": record.precision,
        "backend": record.backend,
    }


def tidy_picture(folder: Path, stem: str, output: Path, *, is_wanted: bool) -> None:
    """Name the files of a picture's run after its output, and remove those that are no results of a batch.

    These are the picture itself where only numbers are wanted, and `depth.json`, which would be about one of the many
    pictures in its folder.

    Args:
        stem: what the run named the files after.
        is_wanted: the picture itself is.
    """
    (folder / DESCRIPTION).unlink(missing_ok=True)
    if not is_wanted:
        (folder / output.name).unlink(missing_ok=True)
    for entry in [*folder.iterdir()] if stem != output.stem else ():  # a.jpg and a.png become a.jpg.npy, a.png.npy
        if entry.name != output.name and entry.name.startswith(f"{stem}."):
            entry.rename(entry.with_name(output.stem + entry.name[len(stem) :]))
