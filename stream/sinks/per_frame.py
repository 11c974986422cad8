"""The base of the sinks that write one file per frame: names, folders, and a thread that encodes in the background.

Invariant: a file under its final name is complete, and no thread outlives `finish`, `keep_partial` or `abort`.
"""

import contextlib
import errno
import os
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from stream.errors import OutputError, SinkError, reason_of
from stream.files import (
    MAX_NAME_BYTES,
    CreatedFolders,
    WriteContent,
    as_sink_error,
    check_partial,
    partial_path,
    real,
    write_file,
)
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.sinks.background import BackgroundWriter
from stream.sinks.base import Sink, Unwritten
from stream.sinks.naming import FrameNames
from stream.sinks.record import FolderRecord, PartOfFolder

_ITEM_ERRORS = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ELOOP,
        errno.EACCES,
    }
)
"""What concerns the name of one file, and not the disk."""


class ItemError(SinkError):
    """One result cannot be written; the others can."""


class PerFrameSink(Sink):
    """Writes one file per frame into a folder, or exactly one file.

    In a folder, each file stays once it is complete, however the run ends. A single file is called NAME.partial.EXT
    until `finish` renames it. A picture of a folder that cannot be written, because of its size or its name, is skipped
    (`unwritten`); the frames of a video are all alike, so one that cannot be written ends the run.

    Args:
        path: the folder, or the file if `is_single`.
        suffix: the end of each file name in a folder.
        is_single: `path` is one file; a second write is an error.
        overwrite: existing files may be replaced.
        names: the names of all inputs, if known.
        beside: suffixes of the files that other sinks write into the same folder; see `FrameNames`.
        stride: write a file for the first of this many results, and count the others.
    """

    def __init__(
        self,
        path: Path,
        *,
        suffix: str,
        is_single: bool,
        overwrite: bool,
        names: Collection[str],
        beside: Collection[str] = (),
        stride: int = 1,
    ) -> None:
        self.path = path
        self._suffix = suffix
        self._is_single = is_single
        self._overwrite = overwrite
        self._names = FrameNames(names, {suffix, *beside})
        self._sequence = ""
        """Stands before the number of a frame that has no name."""
        self._writer: BackgroundWriter | None = None
        self._record: FolderRecord | PartOfFolder | None = None
        self._inputs = frozenset[Path]()
        self._folders = CreatedFolders()
        self._stride, self._offered, self._left_out = stride, 0, 0
        self.part: PartOfFolder | None = None
        """Set before `open` where other runs write the rest of the folder."""
        self._accepted = 0
        """Number of files queued so far."""
        self._written = 0
        """Number of complete files; counted on the writer's thread."""
        self._last: Path | None = None
        self._is_closed = False
        self._is_final = False
        self.notes: list[str] = []
        """Shown once: names that were shortened, and what a format could not hold."""
        self._said_shortened = False
        self.unwritten: list[Unwritten] = []

    @abstractmethod
    def _content(self, frame: Frame, depth: Depth, image: RgbImage) -> tuple[WriteContent, int]:
        """A function that encodes this frame's file on the writer's thread, and the bytes of memory it holds.

        Raises:
            ItemError: the format cannot hold this result.
        """

    @property
    def is_lossless(self) -> bool:
        """True: every frame becomes a file."""
        return True

    @property
    def counters(self) -> Mapping[str, int]:
        """Results without a file because of `stride`."""
        return {"between_every": self._left_out} if self._left_out else {}

    @property
    def outputs(self) -> list[str]:
        """The folder, or the file (under its partial name until finished); empty if closed with nothing written."""
        if self._is_closed and not self._written:
            return []
        if self._is_closed and self._written == 1 and self._last is not None:
            return [str(self._last)]  # a single file says more than its folder
        return [str(partial_path(self.path) if self._is_single and not self._is_final else self.path)]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - any size fits
        """Create the folder and start the writer's thread.

        Raises:
            OutputError: the folder cannot be created, or the single file exists and may not be replaced.
        """
        try:
            if self._is_single and self.path.is_dir():
                raise OutputError("is a folder, not a file", where=str(self.path))
            if self._is_single and os.path.lexists(self.path) and not self._overwrite:
                raise OutputError("the file exists", where=str(self.path), hint="pass --overwrite to replace it")
            if self._is_single:
                check_partial(self.path, overwrite=self._overwrite)
            self._folders.create(self.path.parent if self._is_single else self.path)
        except OSError as error:
            self._folders.remove_empty()
            raise OutputError(f"cannot be created: {reason_of(error)}", where=str(self.path)) from error
        if self.part is not None:
            self._record = self.part
        elif not self._is_single:
            self._record = FolderRecord.of(self.path, self._suffix, info)
        self._inputs = frozenset(real(path) for path in info.files)
        self._writer = BackgroundWriter()

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Queue one file; blocks while the queue is full. False if the result is skipped.

        Raises:
            SinkError: this or an earlier file could not be written, or a single file was written already.
        """
        if self._writer is None or self._is_closed:
            raise SinkError("not open", where=str(self.path))
        number = self._offered + (0 if self.part is None else self.part.first)
        self._offered += 1
        if number % self._stride:
            self._left_out += 1
            return True  # the user asked for no file of it
        may_skip = bool(frame.name) and not self._is_single
        try:
            target = self._target(frame)
            content, size_bytes = self._content(frame, depth, image)
        except ItemError as error:
            if not may_skip:
                raise
            self._skip(frame.index, frame.name, error)
            return False
        index, name = frame.index, frame.name  # not the frame itself, whose pixels would stay in memory

        def job() -> None:
            try:
                with _as_item_error(target):
                    write_file(target, content)
            except ItemError as error:
                if not may_skip:
                    raise
                self._skip(index, name, error)
                return
            if self._record is not None:
                with contextlib.suppress(OSError):
                    self._record.add(target)
            self._written += 1
            self._last = None if self._is_single else target

        self._writer.submit(job, size_bytes)
        self._accepted += 1
        return True

    def _target(self, frame: Frame) -> Path:
        """The file of this frame, whose folder exists."""
        if self._is_single:
            if self._accepted:
                hint = "name a folder or a video with -o"
                raise SinkError("one image cannot hold several frames", where=str(self.path), hint=hint)
            return partial_path(self.path)
        stem = self._names.stem(frame)
        target = self.path / ((stem if frame.name else self._sequence + stem) + self._suffix)
        if self._names.shortened and not self._said_shortened:
            self._said_shortened = True
            self.notes.append(f"names of more than {MAX_NAME_BYTES} bytes are shortened, as in {target.name}")
        with _as_item_error(target):
            if os.path.lexists(target) and not self._overwrite:
                raise SinkError("the file exists", where=str(target), hint="pass --overwrite to replace it")
            self._folders.create(target.parent, below=self.path)
        return target

    def _skip(self, index: int, name: str, error: ItemError) -> None:
        self.unwritten.append(Unwritten(index=index, name=name, reason=error.reason))

    def finish(self) -> None:
        """Write what is queued and rename a single file to its final name.

        Raises:
            SinkError: a file could not be written.
        """
        try:
            self._drain()
            if self._is_single and self._written:
                self._rename_single()
            self._save_record(replaces=self._overwrite)
        finally:
            self._folders.remove_empty()

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - the files themselves are complete
        """Write what is queued; a single file keeps its partial name.

        Raises:
            SinkError: a file could not be written, and no earlier `write` raised that error.
        """
        try:
            self._drain()
            self._save_record(replaces=False)
        finally:
            self._folders.remove_empty()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Discard the queue, and remove a single file and the folders created for it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._writer is not None:
            self._writer.cancel()
        if self._is_single and self._accepted:
            with contextlib.suppress(OSError):
                partial_path(self.path).unlink(missing_ok=True)
        self._folders.remove_empty()

    def _drain(self) -> None:
        self._is_closed = True
        if self._writer is not None:
            self._writer.finish()

    def _save_record(self, *, replaces: bool) -> None:
        """List the files, and remove those of an earlier run that this one replaces.

        The results of the inputs that this run could have read stay, whether it skipped them or ended before.
        """
        if not isinstance(self._record, FolderRecord) or not self._written:
            return
        keep = {stem + self._suffix for stem in self._names.planned}
        self.notes += self._record.settle(replaces=replaces, tells=self._overwrite, keep=keep, inputs=self._inputs)

    def _rename_single(self) -> None:
        partial = partial_path(self.path)
        if os.path.lexists(self.path) and not self._overwrite:
            raise SinkError("the file was created by another program", where=str(self.path), hint=f"see {partial}")
        with as_sink_error(self.path):
            os.replace(partial, self.path)
        self._is_final = True


@contextlib.contextmanager
def _as_item_error(path: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into an `ItemError` if it concerns this file only, else into a `SinkError`."""
    try:
        with as_sink_error(path):
            yield
    except SinkError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _ITEM_ERRORS:
            raise ItemError(error.what, where=error.where) from error.__cause__
        raise
