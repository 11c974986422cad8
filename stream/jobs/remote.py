"""Outputs in a bucket or on a server: a run writes them to a local folder, and they are uploaded when it has ended.

Invariant: under a final name there is a complete file or nothing. What could not be uploaded stays in the local folder,
which the error names.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from stream.config import Config
from stream.errors import OutputError, SinkError, StreamError, shown
from stream.files import json_text, read_json, write_file
from stream.jobs.report import Report
from stream.jobs.segments.rows import Plan, settings_of, source_state
from stream.metrics import Outcome
from stream.notes import Notes, OnNote, collected, note
from stream.remote.urls import is_remote, parse
from stream.version import __version__

_SHOWN_FILES = 3


def is_remote_output(config: Config) -> bool:
    """Whether OUT is in a bucket or on a file server."""
    return isinstance(config.output.path, str) and is_remote(config.output.path)


def run_and_upload(config: Config, run: Callable[[Config], Report], *, on_note: OnNote | None = None) -> Report:
    """Do a run whose OUT is a URL.

    Args:
        run: does it with a local OUT.
        on_note: called once with each thing worth knowing.

    Returns:
        The report, with URLs for the outputs. An interrupted run uploads nothing.

    Raises:
        OutputError: OUT exists, or the bucket does not.
        SinkError: what was written cannot be uploaded.
        StreamError: what `run` raised.
    """
    with collected(Notes(on_note)):
        target = _Target(str(config.output.path))
        if not config.output.overwrite and not target.is_made:
            target.check_free(config)
        with target.local(config) as path:
            report = target.made(config) if config.output.resume else None
            if report is not None:
                note(f"{target.url}: is complete in {path.parent}, and only uploaded")
            else:
                note(f"{target.url}: written to {path} first, and uploaded when it is complete")
                report = run(config.model_copy(update={"output": config.output.model_copy(update={"path": path})}))
                if report.outcome is Outcome.INTERRUPTED:
                    return report
                target.note_made(config, report)
            try:
                target.upload(path, overwrite=config.output.overwrite)
            except StreamError as error:
                _save(replace(report, outcome=Outcome.FAILED, error=shown(str(error))), config)
                raise
        report = replace(report, outputs=[target.url_of(Path(output)) for output in report.outputs])
        _save(report, config)
        return report


class _Target:
    """Where OUT is, and the local folder where it is made.

    Args:
        url: OUT.
    """

    def __init__(self, url: str) -> None:
        from stream.remote.access import Remote

        self.place = parse(url)
        self._remote = Remote(url, kind=SinkError)
        self.url = self.place.with_path(self.place.path.rstrip("/"))
        name = self.place.name or self.place.host.partition(":")[0]
        self._path = _folder() / hashlib.sha256(self.url.encode()).hexdigest()[:16] / name
        self._made = self._path.parent.with_suffix(".made")
        self._base = self.url if not self.place.name else self.url.rpartition("/")[0]

    def check_free(self, config: Config) -> None:
        """Refuse to replace what is there.

        Raises:
            OutputError: OUT exists, or what is written beside it.
        """
        place, remote = self.place, self._remote
        if place.scheme != "sftp":
            remote.call(lambda system: system.info(place.host), self.url)
        wanted = [self.url]
        if config.output.save:
            stem, name = PurePosixPath(place.name).stem, place.name
            stem = PurePosixPath(stem).stem if ".depth." in name else stem
            wanted += [f"{self._base}/{stem}{end}" for end in ("_depth", ".depth.mkv", ".depth.mp4")]
        for url in dict.fromkeys(wanted):
            if remote.exists(url):
                hint = "choose another name with -o, or pass --overwrite to replace it"
                raise OutputError("exists already", where=url, hint=hint)

    @property
    def is_made(self) -> bool:
        """Whether an earlier run has ended, whose outputs could not all be uploaded."""
        return self._made.is_file() and any(self._path.parent.iterdir())

    def note_made(self, config: Config, report: Report) -> None:
        """Note that what is in the local folder is complete; `config` has made it, of a source that has a name."""
        if config.source is not None:
            content = {"plan": _plan_of(config).as_fields(), "report": asdict(report)}
            write_file(self._made, json_text(content).encode())

    def made(self, config: Config) -> Report | None:
        """The report of the run that has made what is in the local folder; None if it is not complete.

        Of a camera, or of a URL whose content cannot be told, only the name has to be the same: nothing is computed.

        Raises:
            OutputError: it was made of something else.
        """
        if not self.is_made:
            return None
        try:
            found = read_json(self._made)
            if not isinstance(found, dict):
                return None
            earlier = Plan.from_fields(found["plan"])
            report = TypeAdapter(Report).validate_json(json_text(found["report"]))
        except (ValueError, KeyError):
            return None  # half of one after a power cut
        if changes := list(_plan_of(config).differs_from(earlier)):
            what = f"cannot be resumed: {'; '.join(changes)}; {_kept(self._path.parent)}"
            raise OutputError(what, where=self.url, hint="start again with --overwrite")
        return report

    @contextmanager
    def local(self, config: Config) -> Iterator[Path]:
        """The local OUT. Its folder is the same each time, so that a run can be resumed, and removed if it is empty.

        Raises:
            OutputError: another run writes it, or an earlier one has left something there.
        """
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError("another run on this machine writes it", where=self.url) from error
        try:
            if any(folder.iterdir()) and not config.output.resume:
                if not config.output.overwrite:
                    what = f"an earlier run could not be finished or uploaded; {_kept(folder)}"
                    hint = "move these away, or pass --resume to go on or --overwrite to start again"
                    raise OutputError(what, where=self.url, hint=hint)
                shutil.rmtree(folder)
                folder.mkdir(mode=0o700)
            if not config.output.resume:
                self._made.unlink(missing_ok=True)
            yield self._path
        finally:
            with suppress(OSError):  # not empty
                folder.rmdir()
                self._made.unlink(missing_ok=True)
            lock.release()

    def url_of(self, path: Path) -> str:
        """Where an output goes; the path itself if it is not in the local folder."""
        root = self._path.parent if self.place.name else self._path
        return (
            f"{self._base}/{path.relative_to(root).as_posix()}".removesuffix("/.")
            if path.is_relative_to(root)
            else str(path)
        )

    def upload(self, path: Path, *, overwrite: bool) -> None:
        """Upload every file that is there, OUT itself last, and delete it here.

        Raises:
            SinkError: it failed; everything that was not uploaded is still there.
        """
        folder = path.parent
        files = sorted(found for found in folder.rglob("*") if found.is_file())
        for file in sorted(files, key=lambda found: found == path):
            url = self.url_of(file)
            try:
                self._remote.upload(file, url, replace=overwrite)
            except FileExistsError as error:
                if self._remote.holds(url, file):  # uploaded by a run that was killed before it could delete it
                    file.unlink()
                    continue
                what = "was made by someone else meanwhile"
                raise SinkError(what, where=url, hint=_kept(folder)) from error
            except StreamError as error:
                raise SinkError(error.what, where=url, hint=f"{error.hint}; {_kept(folder)}") from error
            file.unlink()
        for empty in sorted((found for found in folder.rglob("*") if found.is_dir()), reverse=True):
            empty.rmdir()


def _plan_of(config: Config) -> Plan:
    """What decides the outputs of a run."""
    settings = settings_of(config, version=__version__)
    return Plan(source=source_state(config.source or ""), settings=settings, rows=())


def _folder() -> Path:
    """Where outputs are made: of this user alone, and kept when the machine starts again."""
    from platformdirs import user_cache_path

    return user_cache_path("depthstream", appauthor=False) / "uploads"


def _kept(folder: Path) -> str:
    """What became of the local files."""
    files = sorted(str(found.relative_to(folder)) for found in folder.rglob("*") if found.is_file())
    more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
    return f"kept in {folder}: {', '.join(files[:_SHOWN_FILES])}{more}"


def _save(report: Report, config: Config) -> None:
    if config.output.report is not None:
        report.save(config.output.report)
