"""Exported models on the disk, so that a network is converted once and not at every start.

Invariant: an entry is used only if its record names exactly what is wanted and every file has the recorded sha256; what
is stale or damaged is made again, not trusted.
"""

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

RECORD = "entry.json"
MAX_BYTES = 16 * 2**30
"""Of all entries together; the longest unused go first."""
FORMAT = 1
"""Of entries; a program that writes other ones raises it, and no longer finds the old."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A folder of files that were made and checked, and the facts that their maker recorded beside them.

    Attributes:
        is_new: they were made just now.
    """

    folder: Path
    facts: Mapping[str, Any]
    is_new: bool = False


def cache_folder() -> Path:
    """Where exported models go: `backends` in the user's cache folder for this program; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("depthstream", appauthor=False) / "backends"


class ModelCache:
    """Entries, each known by everything that it was made from.

    Args:
        folder: where they lie; made when the first one is.
        say: told of entries that were damaged, and of a folder that cannot be written.
    """

    def __init__(self, folder: Path | None = None, *, say: Callable[[str], None] = lambda _note: None) -> None:
        self.folder, self._say = folder or cache_folder(), say

    def entry(self, key: Mapping[str, object], make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """The entry of `key`, made if it is not there; processes that want the same one wait for one another.

        Args:
            key: everything that the files depend on, ready for JSON.
            make: writes the files into an empty folder and returns facts to record, ready for JSON.

        Raises:
            BaseException: what `make` raised; nothing is left of its files.
        """
        name = _name(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{name}.lock")
            lock.acquire()
        except OSError as error:
            self._say(f"{self.folder} cannot be written ({error.strerror}): exported models are not kept")
            return self._unkept(make)
        try:
            return self._checked(name, key) or self._made(name, key, make)
        finally:
            lock.release()

    def discard(self, entry: Entry) -> None:
        """Remove an entry whose files are whole and of no use all the same."""
        self._say(f"{entry.folder} is of no use here: it is made again")
        with FileLock(self.folder / f"{entry.folder.name}.lock"):
            shutil.rmtree(entry.folder, ignore_errors=True)

    def recall(self, key: Mapping[str, object]) -> Mapping[str, Any] | None:
        """The facts of an entry that is there, else None."""
        found = self._checked(_name(key), key)
        return None if found is None else found.facts

    def _checked(self, name: str, key: Mapping[str, object]) -> Entry | None:
        folder = self.folder / name
        if not folder.is_dir():
            return None
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            files = {path.name: _sha256(path) for path in folder.iterdir() if path.name != RECORD}
            if record["key"] == _plain(key) and record["files"] == files:
                with suppress(OSError):
                    os.utime(folder / RECORD)  # it has been used
                return Entry(folder=folder, facts=record["facts"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no record, or not one of ours: as damaged as a wrong one
        self._say(f"{folder} is damaged: it is made again")
        return None

    def _made(self, name: str, key: Mapping[str, object], make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        folder = self.folder / name
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=f"{name}.") as temporary:
            new = Path(temporary) / name
            new.mkdir()
            facts = make(new)
            files = {path.name: _sha256(path) for path in new.iterdir()}
            record = {"key": _plain(key), "files": files, "facts": facts}
            (new / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
        self._prune(keep=folder)
        return Entry(folder=folder, facts=facts, is_new=True)

    def _unkept(self, make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """In a folder that goes when the program, or the entry, does."""
        folder = Path(tempfile.mkdtemp(prefix="depthstream-"))
        entry = Entry(folder=folder, facts={}, is_new=True)
        weakref.finalize(entry, shutil.rmtree, folder, ignore_errors=True)
        object.__setattr__(entry, "facts", make(folder))
        return entry

    def _prune(self, *, keep: Path) -> None:
        """Remove the longest unused entries, but for `keep`, until the rest is within `MAX_BYTES`."""
        entries = []
        for record in self.folder.glob(f"*/{RECORD}"):
            with suppress(OSError):  # another process removes it too
                size = sum(path.stat().st_size for path in record.parent.iterdir())
                entries.append((record.parent == keep, record.stat().st_mtime, size, record.parent))
        total = sum(size for _, _, size, _ in entries)
        for is_kept, _, size, folder in sorted(entries):
            if total <= MAX_BYTES or is_kept:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _plain(key: Mapping[str, object]) -> Any:
    return json.loads(json.dumps({"format": FORMAT, **key}, sort_keys=True))


def _name(key: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
