"""Finished segments in a bucket or on a server, for workers that share no disk.

The objects of a job are `plan.json`, the files of segments, `0003.1f3a…/NAME`, and a record for each, `0003.json`,
which names its folder and is written last. Each attempt has a folder of its own, so that two workers never mix.
Invariant: as for `LocalStore`. A bucket decides by a conditional write which of two records is first; a server by
whether the name is there.
"""

import json
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.errors import OutputError, SinkError, SourceNotFoundError
from stream.files import json_text
from stream.jobs.segments.rows import Plan, SegmentRecord
from stream.jobs.segments.store import PLAN
from stream.remote.access import Entry, Remote
from stream.remote.urls import parse


class RemoteStore:
    """See `Store`.

    Args:
        url: of the folder, such as `s3://bucket/out.mp4.segments`.
        remote: its bucket or server, if it is connected already.

    Raises:
        MissingExtraError: the package for this kind of URL is not installed.
        UsageError: the URL is none.
    """

    def __init__(self, url: str, *, remote: Remote | None = None) -> None:
        place = parse(url)
        self._url = place.with_path(place.path.rstrip("/"))
        self._remote = remote or Remote(url, kind=SinkError)
        self._local = Path(tempfile.mkdtemp(prefix="depthstream-segments-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._local, ignore_errors=True)
        self._found: dict[str, Entry] | None = None
        self._asked: set[int] = set()
        self._records: dict[int, tuple[SegmentRecord, str]] = {}
        self._parts: dict[int, tuple[Path, SegmentRecord]] = {}

    @property
    def where(self) -> str:
        """See `Store`."""
        return self._url

    @property
    def exists(self) -> bool:
        """Whether a job was begun here."""
        return self._remote.exists(f"{self._url}/{PLAN}")

    def plan(self) -> Plan | None:
        """See `Store`."""
        url = f"{self._url}/{PLAN}"
        if not self.exists:
            return None
        try:
            return Plan.from_fields(json.loads(self._remote.read(url)))
        except ValueError as error:
            hint = "remove it, or choose another name with -o"
            raise OutputError(f"is no plan of segments: {error}", where=url, hint=hint) from error

    def save_plan(self, plan: Plan) -> None:
        """See `Store`."""
        self._write(PLAN, json_text(plan.as_fields()), replace=True)

    def record(self, number: int) -> SegmentRecord | None:
        """See `Store`. To ask for each number once takes one listing and a request for each record.

        A number that is asked for again is looked up anew, with all others.
        """
        if number in self._asked or self._found is None:
            self._asked.clear()
            self._found = {entry.url: entry for entry in self._listed()}
        self._asked.add(number)
        return self._read_record(number, self._found)

    def folder(self, number: int) -> Path:
        """See `Store`; what was fetched is kept until this object is gone."""
        if number not in self._records and self.record(number) is None:
            raise OutputError(f"segment {number} is not done", where=self._url, hint="finish it first")
        record, prefix = self._records[number]
        place = self._local / f"{number:04d}"
        if not place.exists():
            with self.making(number) as making:
                for piece in record.pieces:
                    (making / piece.name).parent.mkdir(parents=True, exist_ok=True)
                    self._remote.fetch(f"{self._url}/{prefix}/{piece.name}", making / piece.name)
                making.rename(place)
        return place

    def put(self, folder: Path, record: SegmentRecord) -> SegmentRecord:
        """See `Store`."""
        number = record.number
        if (earlier := self._read_record(number, self._beside(number))) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            return earlier
        prefix = f"{number:04d}.{secrets.token_hex(6)}"
        for piece in record.pieces:
            self._remote.upload(folder / piece.name, f"{self._url}/{prefix}/{piece.name}", replace=False)
        try:
            self._write(
                _record_name(number), json_text({"folder": prefix, "record": record.as_fields()}), replace=False
            )
        except FileExistsError:  # another worker was first, or its files are not there
            earlier = self._read_record(number, self._beside(number))
            if earlier is not None:
                self._remote.remove([f"{self._url}/{prefix}/{piece.name}" for piece in record.pieces])
                shutil.rmtree(folder, ignore_errors=True)
                return earlier
            content = json_text({"folder": prefix, "record": record.as_fields()})
            self._write(_record_name(number), content, replace=True)
        shutil.rmtree(folder, ignore_errors=True)
        self._found = None
        self._parts.pop(number, None)
        return record

    def keep(self, folder: Path, record: SegmentRecord) -> None:
        """See `Store`; it stays on this machine."""
        place = self._local / f"{record.number:04d}.partial"
        shutil.rmtree(place, ignore_errors=True)
        folder.rename(place)
        self._parts[record.number] = place, record

    def kept(self, number: int) -> tuple[Path, SegmentRecord] | None:
        """See `Store`."""
        return self._parts.get(number)

    def forget(self, number: int) -> None:
        """See `Store`."""
        url = f"{self._url}/{_record_name(number)}"
        if self._remote.exists(url):
            self._remote.remove([url])
        self._found = None
        self._records.pop(number, None)
        shutil.rmtree(self._local / f"{number:04d}", ignore_errors=True)

    @contextmanager
    def making(self, number: int) -> Iterator[Path]:
        """See `Store`."""
        folder = Path(tempfile.mkdtemp(prefix=f".{number:04d}.", dir=self._local))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def discard(self) -> None:
        """See `Store`; the records first, so that no record is ever without its files, and the plan last."""
        plan = f"{self._url}/{PLAN}"
        urls = [entry.url for entry in self._listed() if entry.url != plan]
        records = [url for url in urls if "/" not in url.removeprefix(f"{self._url}/")]
        self._remote.remove(records)
        self._remote.remove([url for url in urls if url not in records])
        if self.exists:
            self._remote.remove([plan])
        self._found = None
        self._records.clear()

    def _listed(self, prefix: str = "") -> list[Entry]:
        try:
            return self._remote.files(f"{self._url}/", prefix=prefix)
        except SourceNotFoundError:
            return []

    def _beside(self, number: int) -> dict[str, Entry]:
        """What there is of one segment now."""
        return {entry.url: entry for entry in self._listed(f"{number:04d}.")}

    def _read_record(self, number: int, found: dict[str, Entry]) -> SegmentRecord | None:
        url = f"{self._url}/{_record_name(number)}"
        if url not in found:
            return None
        try:
            fields = json.loads(self._remote.read(url))
            record, prefix = SegmentRecord.from_fields(fields["record"]), str(fields["folder"])
        except (ValueError, KeyError, TypeError):
            return None  # none of ours: the segment is done again
        for piece in record.pieces:
            entry = found.get(f"{self._url}/{prefix}/{piece.name}")
            if entry is None or entry.size != piece.size:
                return None
        self._records[number] = record, prefix
        return record

    def _write(self, name: str, content: str, *, replace: bool) -> None:
        with tempfile.TemporaryDirectory(dir=self._local) as folder:
            path = Path(folder, name)
            path.write_text(content, encoding="utf-8")
            self._remote.upload(path, f"{self._url}/{name}", replace=replace)


def _record_name(number: int) -> str:
    return f"{number:04d}.json"
