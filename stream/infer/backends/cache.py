"""A cache of exported models on disk, so that a network is converted once and not at every start.

Invariant: an entry is used only if its record has exactly the requested key and every file has the recorded SHA-256; a
stale or damaged entry is made again.
"""

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream.files import read_json
from stream.models.weights.locks import locked
from stream.notes import note

RECORD = "entry.json"
MAX_BYTES = 16 * 2**30
"""Total size of all entries; the least recently used are removed first."""
FORMAT = 1
"""Version of the entry format, part of every key; raise it when the format changes, and old entries are ignored."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A folder of checked files, and the facts that were recorded when they were made.

    Attributes:
        is_new: the files were made by this call.
    """

    folder: Path
    facts: Mapping[str, Any]
    is_new: bool = False


def cache_folder() -> Path:
    """The default folder: `backends` in this program's user cache folder; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("depthstream", appauthor=False) / "backends"


class ModelCache:
    """Entries, each identified by everything that it was made from.

    Args:
        folder: holds the entries; created with the first one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()

    def entry(self, key: Mapping[str, object], make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """Find the entry of `key` or make it; processes that request the same one wait for each other.

        Args:
            key: everything that the files depend on, JSON-serialisable.
            make: writes the files into an empty folder and returns facts to record, JSON-serialisable.

        Raises:
            ModelError: another process holds the entry and does nothing; see `locks.locked`.
            BaseException: whatever `make` raised; its files are removed.
        """
        name = _name(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = self._locked(name)
            held.__enter__()
        except OSError as error:
            note(f"{self.folder} is not writable ({error.strerror}); exported models are not kept")
            return self._temporary(make)
        with ExitStack() as stack:
            stack.push(held)
            return self._checked(name, key) or self._made(name, key, make)

    def find(self, key: Mapping[str, object]) -> Entry | None:
        """The entry of `key`, or None if there is none."""
        return self._checked(_name(key), key)

    def adopt(self, made: Entry) -> None:
        """Take in an entry that was made in another folder, which must be in the same file system.

        Raises:
            OSError: the folder is not writable.
        """
        folder = self.folder / made.folder.name
        with self._locked(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
            made.folder.rename(folder)
        self._prune(keep=folder)

    @contextmanager
    def making(self, key: Mapping[str, object]) -> Iterator[Path | None]:
        """An empty folder to make the entry of `key` in, removed afterwards; None while another process makes it.

        Raises:
            OSError: the folder of the entries is not writable.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{_name(key)}.making")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield None
            return
        try:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix="making.", ignore_cleanup_errors=True) as made:
                yield Path(made)
        finally:
            lock.release()

    def discard(self, entry: Entry) -> None:
        """Remove an entry that is undamaged but cannot be loaded."""
        note(f"{entry.folder} does not load here; exporting it again")
        with self._locked(entry.folder.name):
            shutil.rmtree(entry.folder, ignore_errors=True)

    def _locked(self, name: str) -> AbstractContextManager[None]:
        return locked(self.folder / f"{name}.lock", waiting="waiting for another process that exports the same model")

    def recall(self, key: Mapping[str, object]) -> Mapping[str, Any] | None:
        """The facts of the entry of `key`, or None if there is no such entry."""
        found = self.find(key)
        return None if found is None else found.facts

    def _checked(self, name: str, key: Mapping[str, object]) -> Entry | None:
        folder = self.folder / name
        if not folder.is_dir():
            return None
        try:
            record: Any = read_json(folder / RECORD)
            files = {path.name: _sha256(path) for path in folder.iterdir() if path.name != RECORD}
            if record["key"] == _normalised(key) and record["files"] == files:
                with suppress(OSError):
                    os.utime(folder / RECORD)  # marks the entry as used
                return Entry(folder=folder, facts=dict(record["facts"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no record, or not one of ours: treated like a damaged entry
        note(f"{folder} is damaged; exporting it again")
        return None

    def _made(self, name: str, key: Mapping[str, object], make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        folder = self.folder / name
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=f"{name}.") as temporary:
            new = Path(temporary) / name
            new.mkdir()
            facts = make(new)
            files = {path.name: _sha256(path) for path in new.iterdir()}
            record = {"key": _normalised(key), "files": files, "facts": facts}
            (new / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
        self._prune(keep=folder)
        return Entry(folder=folder, facts=facts, is_new=True)

    def _temporary(self, make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """Make an entry in a folder that is removed together with the entry, or when the program ends."""
        folder = Path(tempfile.mkdtemp(prefix="depthstream-"))
        try:
            entry = Entry(folder=folder, facts=make(folder), is_new=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(entry, shutil.rmtree, folder, ignore_errors=True)
        return entry

    def _prune(self, *, keep: Path) -> None:
        """Remove the least recently used entries, except `keep`, until the rest is within `MAX_BYTES`."""
        entries = []
        for record in self.folder.glob(f"*/{RECORD}"):
            with suppress(OSError):  # another process may be removing the same entry
                size = sum(path.stat().st_size for path in record.parent.iterdir())
                entries.append((record.parent == keep, record.stat().st_mtime, size, record.parent))
        total = sum(size for _, _, size, _ in entries)
        for is_kept, _, size, folder in sorted(entries):
            if total <= MAX_BYTES or is_kept:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _normalised(key: Mapping[str, object]) -> Any:
    return json.loads(json.dumps({"format": FORMAT, **key}, sort_keys=True))


def _name(key: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(_normalised(key), sort_keys=True).encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
