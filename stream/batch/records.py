"""What a batch keeps in its output folder beside the results: records of what is finished, and why the rest is not.

    OUT/.depthstream/          one folder for all of the following
      batch.json               what all results are made with
      done/a/b.mp4.json        the record of the source a/b.mp4
      begun/                   sources whose results are made in their places
      work/                    results that are being made, a folder for each worker
    OUT/failed/a/b.mp4.txt               why a/b.mp4 has no result

Invariant: a record is there only if every result that it names is in its place. It is written in the folder in which
the results are made, before they are moved, and moved itself after them: whoever finds it there ends the move.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stream.batch.results import Begun, Done, Record, parsed
from stream.errors import OutputError
from stream.files import as_sink_error, fitted_stem, json_text, read_json, write_file
from stream.jobs.segments.resume import locked
from stream.jobs.segments.rows import Plan, SourceState
from stream.jobs.segments.store import LocalStore, Store

FOLDER, FAILED = ".depthstream", "failed"
BATCH, _RECORD = "batch.json", "record.json"
_ABANDONED_S = 3600.0
"""Age of a folder of results in the making to which nobody writes any more: a worker writes every few seconds."""


class Records:
    """The records below one output folder.

    Args:
        root: the output folder; need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / FOLDER

    @property
    def are_begun(self) -> bool:
        """Whether there are results, finished or in the making, so that the settings have to stay as they are."""
        return any(any(self._folder.glob(found)) for found in ("done/**/*.json", "begun/**/*.json", "work/*/*.*"))

    def check(self) -> None:
        """Refuse an output folder that cannot be one, as far as that is known. Raises `SinkError`."""

    @classmethod
    def above(cls, path: Path) -> "Records | None":
        """The records of the batch in whose output folder a path is, however deep; None if it is in none."""
        folders = Path(os.path.abspath(path)).parents
        return next((cls(folder) for folder in folders if (folder / FOLDER / BATCH).is_file()), None)

    def relative(self, path: Path) -> str:
        """A path below the output folder, relative to it, as in the records."""
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(self.root)).as_posix()

    def settings(self) -> dict[str, Any] | None:
        """What the results are made with; None if nothing was begun.

        Raises:
            OutputError: the file is damaged.
        """
        path = self._folder / BATCH
        if not os.path.lexists(path):
            return None
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
            hint = "remove the folder, or choose another with -o"
            raise OutputError("is no record of a batch", where=str(path), hint=hint)
        settings: dict[str, Any] = found["settings"]
        return settings

    def save_settings(self, settings: dict[str, Any]) -> None:
        """Begin a batch. Raises `SinkError`."""
        path = self._folder / BATCH
        with as_sink_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, json_text({"settings": settings}).encode())

    def changes(self, settings: dict[str, Any]) -> list[str]:
        """What has changed since the batch was begun, one line each."""
        earlier = self.settings()
        if earlier is None:
            return []
        nowhere = SourceState(uri="")
        return list(
            Plan(source=nowhere, settings=settings, rows=()).differs_from(
                Plan(source=nowhere, settings=earlier, rows=())
            )
        )

    def done(self, name: str) -> Done | None:
        """The record of a source whose results are all there; None if there is none."""
        self._end_moves(name)
        found = _read(self._record_path(name), Done)
        if found is None:
            return None
        for output, size in found.outputs.items():
            path = self.root / output
            if not path.is_dir() if size is None else not path.is_file() or path.stat().st_size != size:
                return None
        return found

    def done_among(self, names: Iterable[str]) -> dict[str, Done]:
        """The records of those sources that are done, by name."""
        return {name: record for name in names if (record := self.done(name)) is not None}

    def settle(self) -> None:
        """Remove the segments of sources that are done, left by a worker that was killed at the end of one.

        Raises:
            StreamError: they cannot be removed.
        """
        for mark in self.marks():
            if self.done(mark.name) is not None:
                self.discard_segments(self.root / mark.output)
                self.forget_begun(mark.name)

    def others(self, names: Collection[str]) -> list[str]:
        """The sources with a record that are not among `names`."""
        records = (_read(path, Done) for path in sorted((self._folder / "done").rglob("*.json")))
        return [record.name for record in records if record is not None and record.name not in names]

    def save(self, record: Done) -> None:
        """Say that a source is done whose results are in their places. Raises `SinkError`."""
        path = self._record_path(record.name)
        with as_sink_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, json_text(asdict(record)).encode())

    def begin(self, mark: Begun) -> None:
        """Say that the result of a source, made in its place, will be one of this batch. Raises `SinkError`."""
        path = self._begun_path(mark.name)
        with as_sink_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, json_text(asdict(mark)).encode())

    def begun(self, output: Path) -> Begun | None:
        """The source whose result is made at `output`; None if this batch has not begun it."""
        name = self.relative(output)
        return next((mark for mark in self.marks() if mark.output == name), None)

    def marks(self) -> list[Begun]:
        """What was begun and is not finished, by name."""
        marks = (_read(path, Begun) for path in sorted((self._folder / "begun").rglob("*.json")))
        return [mark for mark in marks if mark is not None]

    def forget_begun(self, name: str) -> None:
        """Say that nothing is left to do in the place of a source's result. Raises `SinkError`."""
        with as_sink_error(path := self._begun_path(name)):
            path.unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Remove a source's record and the results that it names, so that it is done again. Raises `SinkError`."""
        path = self._record_path(name)
        with as_sink_error(path):
            for output in found.outputs if (found := _read(path, Done)) is not None else ():
                result = self.root / output
                if result.is_dir() and not result.is_symlink():
                    shutil.rmtree(result)
                else:
                    result.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            self._begun_path(name).unlink(missing_ok=True)

    @contextmanager
    def making(self, name: str, scratch: str) -> Iterator[Path]:
        """A new folder to make the results of a source in; what is left in it in the end is removed.

        Args:
            scratch: names the worker.
        """
        work = self._folder / "work" / scratch
        with as_sink_error(work):
            work.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{_key(name)}.", dir=work))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def move(self, folder: Path, record: Done, parent: Path) -> None:
        """Move the results in `folder` to their places below `parent`, and the record after them.

        Raises:
            SinkError: one of them cannot be moved.
        """
        with as_sink_error(folder):
            content = {"parent": os.fspath(parent), "record": asdict(record)}
            write_file(folder / _RECORD, json_text(content).encode())
            self._end_move(folder, record, parent)

    def discard_scratch(self, scratch: str) -> None:
        """Remove what a worker that has ended was making."""
        work = self._folder / "work" / scratch
        for pending in work.glob(f"*/{_RECORD}"):
            self._end_moves_in(pending)
        shutil.rmtree(work, ignore_errors=True)

    def discard_abandoned(self) -> None:
        """Remove what workers were making that are long gone, and the folder if it is empty."""
        work = self._folder / "work"
        for folder in [*work.glob("*/*")]:
            with suppress(OSError):
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if time.time() - newest > _ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)
        for empty in (*work.glob("*"), work):
            with suppress(OSError):
                empty.rmdir()

    def fail(self, name: str, reason: str, attempts: int) -> None:
        """Say why a source has no result. Raises `SinkError`."""
        path = self._failed_path(name)
        with as_sink_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, self.failure_text(reason, attempts).encode(errors="backslashreplace"))

    @staticmethod
    def failure_text(reason: str, attempts: int) -> str:
        """What is written about a source that has failed."""
        return f"{reason}\n{'1 attempt' if attempts == 1 else f'{attempts} attempts'}\n"

    def unfail(self, name: str) -> None:
        """Remove what `fail` wrote, and the folders that are empty then."""
        path = self._failed_path(name)
        with suppress(OSError):
            path.unlink()
            for folder in path.parents:
                if folder == self.root:
                    break
                folder.rmdir()

    def local(self, place: str) -> Path:
        """Where the result of a task is made, or where it would be if it were made here."""
        return Path(place)

    def is_free(self, name: str, output: Path) -> bool:  # noqa: ARG002
        """Whether nothing is lost if the result of a source is put there."""
        return not self.exists(output)

    def exists(self, output: Path) -> bool:
        """Whether there is a result, whose place is `local`."""
        return os.path.lexists(output)

    def store(self, output: Path) -> Store:
        """The segments of a result."""
        return LocalStore.beside(output)

    def has_segments(self, output: Path) -> bool:
        """Whether segments of a result wait."""
        return LocalStore.beside(output).exists

    def discard_segments(self, output: Path) -> None:
        """Remove the segments of a result, if there are any.

        Raises:
            OutputError: something else is in their place, or another run is working on them.
        """
        store = LocalStore.beside(output)
        if store.exists:
            with locked(store):
                store.discard()

    def outputs_of(self, paths: Iterable[str]) -> dict[str, int | None]:
        """The outputs in a report, as in `Done.outputs`."""
        found = {Path(path): None for path in paths}
        return {self.relative(path): None if path.is_dir() else path.stat().st_size for path in found}

    def _end_moves(self, name: str) -> None:
        """End the moves of workers that died in the middle of one."""
        for pending in (self._folder / "work").glob(f"*/{_key(name)}.*/{_RECORD}"):
            self._end_moves_in(pending)

    def _end_moves_in(self, pending: Path) -> None:
        found = read_json(pending)
        if isinstance(found, dict) and isinstance(found.get("parent"), str):
            with suppress(ValueError, OSError):  # half of one, or another worker ends it
                self._end_move(pending.parent, parsed(found["record"], Done), Path(found["parent"]))

    def _end_move(self, folder: Path, record: Done, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        _merge(folder, parent, leave={_RECORD})
        path = self._record_path(record.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json_text(asdict(record)).encode())
        (folder / _RECORD).unlink(missing_ok=True)

    def _record_path(self, name: str) -> Path:
        return mirrored(self._folder / "done", name, ".json")

    def _begun_path(self, name: str) -> Path:
        return mirrored(self._folder / "begun", name, ".json")

    def _failed_path(self, name: str) -> Path:
        return mirrored(self.root / FAILED, name, ".txt")


def entries(folder: Path, below: Path, parent: Path) -> dict[str, int | None]:
    """The results in a folder, by their names relative to `below` once they are in `parent`, as in `Done.outputs`."""
    inside = parent.relative_to(below)
    found = {}
    for entry in sorted(folder.iterdir()):
        found[(inside / entry.name).as_posix()] = None if entry.is_dir() else entry.stat().st_size
    return found


def _merge(folder: Path, into: Path, *, leave: Collection[str] = ()) -> None:
    """Move what is in a folder into another, replacing files. Raises `OSError`."""
    for entry in sorted(folder.iterdir()):
        if entry.name in leave:
            continue
        target = into / entry.name
        if entry.is_dir() and target.is_dir() and not target.is_symlink():
            _merge(entry, target)
        else:
            with suppress(FileNotFoundError):  # another worker has moved it
                os.replace(entry, target)


def mirrored(root: Path, name: str, suffix: str) -> Path:
    """The file about a source below `root`."""
    folder, _, last = name.rpartition("/")
    return root / folder / (fitted_stem(last, f".{suffix}.partial") + suffix)


def _key(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _read(path: Path, kind: type[Record]) -> Record | None:
    found = read_json(path)
    with suppress(ValueError):  # of another version, or half of one after a power cut: the source is done again
        return None if found is None else parsed(found, kind)
    return None
