"""The records of a batch whose results go to a bucket or a server: the same tree of names, as objects.

Results are made in a folder of this machine's cache and uploaded, so workers need no common disk.
Invariant: as for `Records`. A record is uploaded after all results that it names; what a worker had uploaded when it
was killed is named by an object in `.depthstream/uploading/`, and replaced.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter

from stream.batch.records import BATCH, FAILED, FOLDER, Records, mirrored
from stream.batch.results import Begun, Done, Record, parsed
from stream.config import Config
from stream.errors import OutputError, SinkError
from stream.files import fitted_stem, json_text
from stream.jobs.segments.remote_store import RemoteStore
from stream.jobs.segments.store import SUFFIX
from stream.remote.access import Entry, Remote
from stream.remote.urls import parse

_AT_ONCE = 4
"""Files that are uploaded side by side."""
_READ_AT_ONCE = 1000
"""Records that are fetched side by side."""


def records_of(config: Config) -> Records:
    """The records below the OUT of a batch."""
    out = config.output.path
    assert out is not None
    return Records(out.absolute()) if isinstance(out, Path) else BucketRecords(out)


def records_above(output: Path | str) -> Records | None:
    """The records of the batch in whose output folder a path or URL is, however deep; None if it is in none."""
    if isinstance(output, Path):
        return Records.above(output)
    place, remote = parse(output), Remote(output, kind=SinkError)
    for folder in PurePosixPath(place.path).parents:
        url = place.with_path(str(folder) if folder.name else "").rstrip("/")
        if remote.exists(f"{url}/{FOLDER}/{BATCH}"):
            return BucketRecords(url)
    return None


class BucketRecords(Records):
    """See `Records`; `root` is the folder of this machine where results are made, under the names that they will have.

    Args:
        url: of the output folder.

    Raises:
        UsageError: it is none.
        MissingExtraError: the package for this kind of URL is not installed.
    """

    def __init__(self, url: str) -> None:
        place = parse(url)
        self._url = place.with_path(place.path.rstrip("/")).rstrip("/")
        self._remote = Remote(url, kind=SinkError)
        self._failed: set[str] = set()
        super().__init__(_cache() / hashlib.sha256(self._url.encode()).hexdigest()[:16])

    def check(self) -> None:
        """See `Records`: there is such a bucket."""
        if self._remote.place.scheme != "sftp":
            self._remote.call(lambda system: system.info(self._remote.place.host), self._url)

    @property
    def are_begun(self) -> bool:
        """See `Records`."""
        folders = (self._folder / name for name in ("done", "begun", "uploading"))
        return any(self._remote.exists(self._url_of(folder)) for folder in folders)

    def settings(self) -> dict[str, Any] | None:
        """See `Records`."""
        path = self._folder / BATCH
        found = self._content(path)
        if found is None:
            return None
        try:
            settings: dict[str, Any] = TypeAdapter(dict[str, Any]).validate_python(json.loads(found)["settings"])
        except (ValueError, KeyError, TypeError) as error:
            hint = "remove the folder, or choose another with -o"
            raise OutputError("is no record of a batch", where=self._url_of(path), hint=hint) from error
        return settings

    def save_settings(self, settings: dict[str, Any]) -> None:
        """See `Records`."""
        self._write(self._folder / BATCH, json_text({"settings": settings}))

    def done(self, name: str) -> Done | None:
        """See `Records`."""
        found = _parsed(self._content(self._record_path(name)), Done)
        if found is None:
            return None
        for output, size in found.outputs.items():
            url = f"{self._url}/{output}"
            if not self._remote.exists(url) or (size is not None and self._remote.state(url).size != size):
                return None
        return found

    def done_among(self, names: Iterable[str]) -> dict[str, Done]:
        """See `Records`: a request for each thousand objects, and one for each record."""
        found = self._listed(self.root)
        failed = self._url_of(self.root / FAILED)
        self._failed = {url for url in found if url.startswith(f"{failed}/")}
        folders = {url.rpartition("/")[0] for url in found}
        paths = {name: self._record_path(name) for name in names}
        records = self._all(Done, [path for path in paths.values() if self._url_of(path) in found], found)
        done: dict[str, Done] = {}
        for name, path in paths.items():
            record = records.get(path)
            if record is not None and all(
                self._is_there(output, size, found, folders) for output, size in record.outputs.items()
            ):
                done[name] = record
        return done

    def others(self, names: Collection[str]) -> list[str]:
        """See `Records`."""
        return [record.name for record in self._below("done", Done) if record.name not in names]

    def save(self, record: Done) -> None:
        """See `Records`."""
        self._write(self._record_path(record.name), json_text(asdict(record)))

    def begin(self, mark: Begun) -> None:
        """See `Records`."""
        self._write(self._begun_path(mark.name), json_text(asdict(mark)))

    def marks(self) -> list[Begun]:
        """See `Records`."""
        return self._below("begun", Begun)

    def forget_begun(self, name: str) -> None:
        """See `Records`."""
        self._remove(self._begun_path(name))

    def forget(self, name: str) -> None:
        """See `Records`."""
        path = self._record_path(name)
        found = _parsed(self._content(path), Done)
        for output, size in found.outputs.items() if found is not None else ():
            if size is None:
                self._remote.remove(list(self._listed(self.root / output)))
            else:
                self._remove(self.root / output)
        self._remove(path)
        self._remove(self._begun_path(name))

    def move(self, folder: Path, record: Done, parent: Path) -> None:
        """Upload the results in `folder` to their places, and the record after them. Raises `SinkError`."""
        mark = self._uploading_path(record.name)
        self._write(mark, json_text(asdict(record.source)))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="depthstream-upload") as pool:
            uploads = [
                pool.submit(
                    copy_context().run,  # notes of lost connections
                    self._remote.upload,
                    file,
                    self._url_of(parent / file.relative_to(folder)),
                    replace=True,
                )
                for file in files
            ]
            try:
                for upload in uploads:
                    upload.result()
            finally:
                pool.shutdown(cancel_futures=True)
        self.save(record)
        self._remove(mark)

    def discard_abandoned(self) -> None:
        """See `Records`; the folder of this machine goes, too, if nothing is left in it."""
        super().discard_abandoned()
        for folder in (self._folder, self.root):
            with suppress(OSError):
                folder.rmdir()

    def fail(self, name: str, reason: str, attempts: int) -> None:
        """See `Records`."""
        path = self._failed_path(name)
        self._write(path, self.failure_text(reason, attempts))
        self._failed.add(self._url_of(path))

    def unfail(self, name: str) -> None:
        """See `Records`."""
        url = self._url_of(self._failed_path(name))
        if url in self._failed:
            self._failed.discard(url)
            self._remote.remove([url])

    def local(self, place: str) -> Path:
        """See `Records`."""
        return self.root / place.removeprefix(f"{self._url}/")

    def is_free(self, name: str, output: Path) -> bool:
        """See `Records`."""
        return not self.exists(output) or self._remote.exists(self._url_of(self._uploading_path(name)))

    def exists(self, output: Path) -> bool:
        """See `Records`."""
        return self._remote.exists(self._url_of(output))

    def store(self, output: Path) -> RemoteStore:
        """See `Records`."""
        url = self._url_of(output.with_name(fitted_stem(output.name, SUFFIX) + SUFFIX))
        return RemoteStore(url, remote=self._remote)

    def has_segments(self, output: Path) -> bool:
        """See `Records`."""
        return self.store(output).exists

    def discard_segments(self, output: Path) -> None:
        """See `Records`."""
        store = self.store(output)
        if store.plan() is not None:
            store.discard()

    def outputs_of(self, paths: Iterable[str]) -> dict[str, int | None]:
        """See `Records`; of URLs."""
        return {url.removeprefix(f"{self._url}/"): self._remote.state(url).size for url in paths}

    def _is_there(self, output: str, size: int | None, found: dict[str, Entry], folders: set[str]) -> bool:
        url = f"{self._url}/{output}"
        if size is not None:
            return url in found and found[url].size == size
        return any(folder == url or folder.startswith(f"{url}/") for folder in folders)

    def _listed(self, folder: Path) -> dict[str, Entry]:
        """The objects below a folder, by URL; none if it is not there."""
        return {entry.url: entry for entry in self._remote.files(f"{self._url_of(folder)}/")}

    def _below(self, folder: str, kind: type[Record]) -> list[Record]:
        """All records of a kind, by name."""
        found = self._listed(self._folder / folder)
        paths = [self.root / url.removeprefix(f"{self._url}/") for url in sorted(found)]
        records: dict[Path, Record] = self._all(kind, paths, found)
        return list(records.values())

    def _all(self, kind: type[Record], paths: list[Path], found: dict[str, Entry]) -> dict[Path, Record]:
        """The records at paths that are listed; those of another version are left out."""
        paths = [path for path in paths if found[self._url_of(path)].size]  # an empty one cannot be read in ranges
        records: dict[Path, Record] = {}
        for start in range(0, len(paths), _READ_AT_ONCE):
            some = paths[start : start + _READ_AT_ONCE]
            for path, content in zip(some, self._remote.read_all([self._url_of(path) for path in some]), strict=True):
                if (record := _parsed(content, kind)) is not None:
                    records[path] = record
        return records

    def _uploading_path(self, name: str) -> Path:
        return mirrored(self._folder / "uploading", name, ".json")

    def _url_of(self, path: Path) -> str:
        inside = path.relative_to(self.root).as_posix()
        return self._url if inside == "." else f"{self._url}/{inside}"

    def _content(self, path: Path) -> bytes | None:
        url = self._url_of(path)
        return self._remote.read(url) if self._remote.exists(url) else None

    def _remove(self, path: Path) -> None:
        url = self._url_of(path)
        if self._remote.exists(url):
            self._remote.remove([url])

    def _write(self, path: Path, content: str) -> None:
        with TemporaryDirectory(prefix="depthstream-") as folder:
            local = Path(folder, path.name)
            local.write_text(content, encoding="utf-8", errors="backslashreplace")
            self._remote.upload(local, self._url_of(path), replace=True)


def _parsed(content: bytes | None, kind: type[Record]) -> Record | None:
    with suppress(ValueError):  # of another version: the source is done again
        return None if content is None else parsed(json.loads(content), kind)
    return None


def _cache() -> Path:
    """Where results are made before they are uploaded."""
    from platformdirs import user_cache_path

    return user_cache_path("depthstream", appauthor=False) / "batches"
