"""Where the finished segments of a job wait until they are joined.

A segment is a folder of files, `0003/`, and its record, `0003.json`, which is written last. Both stand beside the plan,
`plan.json`, in one folder for each job.
Invariant: what has a record is complete. Several workers may do the same segment: the first record stays.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from stream.errors import OutputError
from stream.files import fitted_stem, json_text, read_json, write_file
from stream.jobs.segments.rows import Piece, Plan, SegmentRecord

SUFFIX, PLAN, LOCK = ".segments", "plan.json", ".lock"
_RESULTS, _DONE, _WRITING = "results.json", "done", "writing"
_RECORD = "record.json"
_OURS = re.compile(r"\d{4,}(\.json|\.partial)?|\.(\d{4,}|old|plan\.json|results\.json)\..*")
"""Names of what is neither the plan nor the results, and those that `write_file` gives for a while."""
_MOST_PLAN_BYTES = 64_000_000


class Store(Protocol):
    """The segments of one job, wherever they are. Every method raises `StreamError`."""

    @property
    def where(self) -> str:
        """For messages."""

    def plan(self) -> Plan | None:
        """The plan that the segments belong to; None if there is none yet."""

    def save_plan(self, plan: Plan) -> None:
        """Begin a job."""

    def record(self, number: int) -> SegmentRecord | None:
        """The record of a segment whose files are all there, with the right size; None if it has to be done."""

    def making(self, number: int) -> AbstractContextManager[Path]:
        """A new local folder to make a segment in; what is left of it in the end is removed."""

    def folder(self, number: int) -> Path:
        """The local folder with the files of a finished segment; fetches them from elsewhere."""

    def put(self, folder: Path, record: SegmentRecord) -> SegmentRecord:
        """Take a segment from the local folder in which it was made, which is gone then.

        Returns:
            The record that counts: an earlier one if another worker was first.
        """

    def keep(self, folder: Path, record: SegmentRecord) -> None:
        """Take what there is of an unfinished segment, whose videos are `NAME.partial.EXT`, until it is put.

        It may be joined to the finished ones before it; nothing is resumed from it. A store elsewhere may drop it.
        """

    def kept(self, number: int) -> tuple[Path, SegmentRecord] | None:
        """The local folder and the record that `keep` was given; None if there is none."""

    def forget(self, number: int) -> None:
        """Let a segment be done again, whose files are damaged."""

    def discard(self) -> None:
        """Remove everything."""


class LocalStore:
    """See `Store`: a folder on a local or network disk.

    Args:
        root: such as `out.mp4.segments`; created when the plan is saved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def beside(cls, output: Path) -> "LocalStore":
        """The one that belongs to an output."""
        return cls(output.with_name(fitted_stem(output.name, SUFFIX) + SUFFIX))

    @property
    def exists(self) -> bool:
        """Whether a job was begun here."""
        return os.path.lexists(self.root / PLAN)

    @property
    def where(self) -> str:
        """See `Store`."""
        return str(self.root)

    def plan(self) -> Plan | None:
        """See `Store`."""
        path = self.root / PLAN
        if not os.path.lexists(path):
            return None
        try:
            return Plan.from_fields(read_json(path, most_bytes=_MOST_PLAN_BYTES))
        except ValueError as error:
            hint = "remove the folder, or choose another name with -o"
            raise OutputError(f"is no plan of segments: {error}", where=str(path), hint=hint) from error

    def save_plan(self, plan: Plan) -> None:
        """See `Store`."""
        with _as_output_error(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / _RESULTS).unlink(missing_ok=True)  # of a job that was killed when its plan was gone already
            write_file(self.root / PLAN, json_text(plan.as_fields()).encode())

    def record(self, number: int) -> SegmentRecord | None:
        """See `Store`."""
        try:
            found = SegmentRecord.from_fields(read_json(self._record_path(number)))
        except ValueError:
            return None  # not there, or half of one after a power cut: the segment is done again
        folder = self.folder(number)
        with suppress(OSError):
            if all((folder / piece.name).stat().st_size == piece.size for piece in found.pieces):
                return found
        return None

    def folder(self, number: int) -> Path:
        """See `Store`."""
        return self.root / f"{number:04d}"

    def put(self, folder: Path, record: SegmentRecord) -> SegmentRecord:
        """See `Store`."""
        if (earlier := self.record(record.number)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            return earlier
        place = self.folder(record.number)
        with _as_output_error(place):
            self._record_path(record.number).unlink(missing_ok=True)
            if place.exists():  # of a worker that died before it wrote its record, or damaged
                os.rename(place, tempfile.mkdtemp(prefix=".old.", dir=self.root))
            os.rename(folder, place)
            write_file(self._record_path(record.number), json_text(record.as_fields()).encode())
        shutil.rmtree(self._kept_path(record.number), ignore_errors=True)
        return record

    def keep(self, folder: Path, record: SegmentRecord) -> None:
        """See `Store`."""
        place = self._kept_path(record.number)
        with _as_output_error(place):
            shutil.rmtree(place, ignore_errors=True)
            os.rename(folder, place)
            write_file(place / _RECORD, json_text(record.as_fields()).encode())

    def kept(self, number: int) -> tuple[Path, SegmentRecord] | None:
        """See `Store`."""
        place = self._kept_path(number)
        try:
            return place, SegmentRecord.from_fields(read_json(place / _RECORD))
        except ValueError:
            return None  # not there, or half of one after a power cut

    @contextmanager
    def making(self, number: int) -> Iterator[Path]:
        """See `Store`."""
        with _as_output_error(self.root):
            folder = Path(tempfile.mkdtemp(prefix=f".{number:04d}.", dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def forget(self, number: int) -> None:
        """See `Store`."""
        with _as_output_error(self.root):
            self._record_path(number).unlink(missing_ok=True)

    def discard(self) -> None:
        """See `Store`; the plan goes last, so that what is left after a kill is known to be done, or is nothing.

        Only what a store makes is removed, and only where there is a plan. The folder stays if something else is in it.

        Raises:
            OutputError: the plan is none of ours, or something cannot be removed.
        """
        if self.plan() is None:
            return
        with _as_output_error(self.root):
            for entry in self.root.iterdir():
                if _OURS.fullmatch(entry.name) is None:
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            for name in (PLAN, _RESULTS, LOCK):
                (self.root / name).unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            self.root.rmdir()

    def add_result(self, partial: Path, final: Path) -> None:
        """Note an output that is complete and about to be renamed: another run will know it if this one is killed."""
        self._save_results({**self._results(), os.path.abspath(final): _identity(partial)})

    def has_result(self, final: Path) -> bool:
        """Whether a file is the output that this job has made."""
        results = self._results()
        known = results.get(os.path.abspath(final))
        return results.get(_WRITING) is True or (known is not None and known == _identity(final))

    def begin_results(self) -> None:
        """Note that the outputs are written from now on, by a run that did not find any."""
        self._save_results({**self._results(), _WRITING: True})

    def close(self, records: Sequence[SegmentRecord], outputs: Sequence[str]) -> None:
        """Note that every output is in its place, and what it was made of."""
        done = {"records": [record.as_fields() for record in records], "outputs": list(outputs)}
        self._save_results({**self._results(), _DONE: done})

    def closed(self) -> tuple[list[SegmentRecord], list[str]] | None:
        """What `close` was given, if every output is still in its place: then nothing is left but to discard this.

        The segments may be gone already, of a run that was killed while it removed them.
        """
        match self._results().get(_DONE):
            case {"records": list() as records, "outputs": list() as outputs}:
                with suppress(ValueError):
                    if all(isinstance(path, str) and os.path.lexists(path) for path in outputs):
                        return [SegmentRecord.from_fields(fields) for fields in records], outputs
        return None

    def _results(self) -> dict[str, object]:
        found = read_json(self.root / _RESULTS, most_bytes=_MOST_PLAN_BYTES)
        return found if isinstance(found, dict) else {}

    def _save_results(self, results: dict[str, object]) -> None:
        with _as_output_error(self.root):
            write_file(self.root / _RESULTS, json_text(results).encode())

    def _kept_path(self, number: int) -> Path:
        return self.root / f"{number:04d}.partial"

    def _record_path(self, number: int) -> Path:
        return self.root / f"{number:04d}.json"


def _identity(path: Path) -> list[int] | None:
    """What tells a file from others, and stays when it gets another name."""
    with suppress(OSError):
        status = path.lstat()
        return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    return None


def piece_of(path: Path, name: str) -> Piece:
    """A file as a piece. Raises `OSError`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Piece(name=name, size=file.tell(), sha256=digest)


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot be written: {reason}", where=str(path), hint="check the disk") from error
