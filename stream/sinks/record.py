"""Which files of a folder were written by runs of this program, so that a later run with --overwrite can replace them.

Without this, a run of 3 frames over one of 10 would leave seven old frames after the new ones. The lists are in the
user's cache, because whoever reads an output folder expects nothing but results in it; a lost list means only that old
files stay.
Invariant: a file is removed only if a run of the same source listed it, it is still as it was then, and it is no input.
"""

import hashlib
import json
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from stream.files import is_device_or_pipe, read_json, real, write_file
from stream.frames import SourceInfo

_LONGER = (".depth16.png", ".conf.npy")
"""The suffixes that end in another, see `depthfiles.FILE_SUFFIX`."""

_MAX_LIST_BYTES = 64_000_000
"""Of the files of nine hours of video."""
_Entry = tuple[int, int, str]
"""Size in bytes, time of the last change in ns, and the source of the run that wrote the file."""


def cache_folder() -> Path:
    """The folder of the lists: `outputs` in this program's user cache folder; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("depthstream", appauthor=False) / "outputs"


class FolderRecord:
    """The files with one suffix in a folder.

    Args:
        folder: the output folder.
        suffix: of the files.
        source: name of the run's source; "" if it has none that would mean the same next time.
    """

    @classmethod
    def of(cls, folder: Path, suffix: str, info: SourceInfo) -> "FolderRecord":
        """The record for a run of a source."""
        is_unsure = info.name in ("stdin", "pipe") or "***" in info.name or is_device_or_pipe(Path(info.name))
        return cls(folder, suffix, "" if is_unsure else info.name)

    def __init__(self, folder: Path, suffix: str, source: str) -> None:
        self._folder, self._suffix = folder, suffix
        self._source = os.path.realpath(source) if source and os.path.exists(source) else source
        key = f"{real(folder)}\0{suffix}"
        self._path = cache_folder() / f"{hashlib.sha256(os.fsencode(key)).hexdigest()}.json"
        self._written: dict[str, _Entry] = {}

    def add(self, path: Path) -> None:
        """Add a complete file of this run. Raises `OSError`."""
        self._written[path.relative_to(self._folder).as_posix()] = (*_state(path), self._source)

    def remove_earlier(self, *, keep: Collection[str], inputs: Collection[Path], everywhere: bool = False) -> int:
        """Remove what earlier runs of this source wrote and this run did not; return the number of files.

        Folders that this run wrote nothing to stay as they are: it may have searched fewer of the source's.

        Args:
            keep: names, relative to the folder, that stay.
            inputs: resolved paths that stay.
            everywhere: in folders that this run wrote nothing to, too.
        """
        removed, folders = 0, self._folders()
        for name, (size, time_ns, source) in self._load().items():
            path = self._folder / name
            if name in self._written or name in keep or not (everywhere or path.parent in folders):
                continue
            with suppress(OSError):
                is_same = self._source == source != "" and _state(path) == (size, time_ns)
                if is_same and real(path) not in inputs:
                    path.unlink()
                    removed += 1
        return removed

    def settle(self, *, replaces: bool, tells: bool, keep: Collection[str], inputs: Collection[Path]) -> list[str]:
        """End a run: remove what it replaces, list its files, and return what is to be said.

        Args:
            replaces: remove files of an earlier run, see `remove_earlier`.
            tells: say which other files stay.
            keep, inputs: see `remove_earlier`.
        """
        notes = []
        if replaces and (removed := self.remove_earlier(keep=keep, inputs=inputs)):
            files = f"{removed} {self._suffix} file{'s' * (removed != 1)}"
            notes.append(f"{self._folder}: removed {files} of an earlier run of this source")
        if tells and (others := self.others()):
            files = f"{others} {self._suffix} file{'s' * (others != 1)} that this run did not write"
            notes.append(f"{self._folder}: {files} stay{'s' * (others == 1)}")
        self.save()
        return notes

    def save(self) -> None:
        """List the files of this run beside the earlier ones that are still there."""
        earlier = {name: entry for name, entry in self._load().items() if os.path.lexists(self._folder / name)}
        with suppress(OSError):
            self._path.parent.parent.mkdir(parents=True, exist_ok=True)
            self._path.parent.mkdir(mode=0o700, exist_ok=True)  # the lists name what was seen
            write_file(self._path, json.dumps(earlier | self._written).encode())

    def others(self) -> int:
        """Number of files with the suffix that this run did not write, in the folders it wrote to."""
        found = set[str]()
        for folder in self._folders():
            with suppress(OSError):
                inside = folder.relative_to(self._folder)
                found |= {(inside / name).as_posix() for name in os.listdir(folder) if self.is_ours(name)}
        return len(found - self._written.keys())

    def _folders(self) -> set[Path]:
        """Those that this run wrote to."""
        return {(self._folder / name).parent for name in self._written}

    def is_ours(self, name: str) -> bool:
        """Whether a file with this name has the suffix."""
        is_other = any(name.endswith(longer) and self._suffix != longer for longer in _LONGER)
        return name.endswith(self._suffix) and not name.startswith(".") and not is_other

    def _load(self) -> dict[str, _Entry]:
        try:
            listed: Any = read_json(self._path, most_bytes=_MAX_LIST_BYTES)
            return {_inside(name): (size, time_ns, source) for name, (size, time_ns, source) in listed.items()}
        except (ValueError, TypeError, AttributeError):
            return {}  # no list, or not one of ours


class PartOfFolder:
    """The files of one part of what fills a folder: listed for whoever puts the parts together, and none removed.

    Args:
        base: the names in the list are relative to it.
        first: number of the results that come before this part.
        descriptions: the folder for `depth.json` of this part.
    """

    def __init__(self, base: Path, first: int, descriptions: Path) -> None:
        self.first, self.descriptions = first, descriptions
        self._base = base
        self._files: dict[str, tuple[int, str]] = {}

    def add(self, path: Path) -> None:
        """Add a complete file. Raises `OSError`."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._files[os.path.relpath(path, self._base)] = file.tell(), digest

    @property
    def text(self) -> str:
        """One line a file: SHA-256, size in bytes, and name, as JSON; "" without files."""
        lines = (json.dumps([digest, size, name]) for name, (size, digest) in sorted(self._files.items()))
        return "".join(f"{line}\n" for line in lines)

    @staticmethod
    def read(text: str) -> dict[str, tuple[int, str]]:
        """Size and SHA-256 by name, of what `text` gave. Raises `ValueError`."""
        return {name: (size, digest) for digest, size, name in map(json.loads, text.splitlines())}


def _state(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_size, status.st_mtime_ns


def _inside(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(name)
    return name
