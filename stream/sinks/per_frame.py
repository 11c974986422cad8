"""The base of the sinks that write one file per frame: names, folders, and a thread that encodes in the background.

Invariant: a file under its final name is complete, and no thread outlives `finish`, `keep_partial` or `abort`.
"""

import contextlib
import os
from abc import abstractmethod
from collections.abc import Collection
from pathlib import Path

from stream.errors import OutputError, SinkError, reason_of
from stream.files import (
    CreatedFolders,
    WriteContent,
    as_sink_error,
    check_partial,
    partial_path,
    write_file,
)
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.sinks.background import BackgroundWriter
from stream.sinks.base import Sink
from stream.sinks.naming import FrameNames


class PerFrameSink(Sink):
    """Writes one file per frame into a folder, or exactly one file.

    In a folder, each file stays once it is complete, however the run ends. A single file is called NAME.partial.EXT
    until `finish` renames it.

    Args:
        path: the folder, or the file if `is_single`.
        suffix: the end of each file name in a folder.
        is_single: `path` is one file; a second write is an error.
        overwrite: existing files may be replaced.
        names: the names of all inputs, if known.
        beside: suffixes of the files that other sinks write into the same folder; see `FrameNames`.
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
    ) -> None:
        self.path = path
        self._suffix = suffix
        self._is_single = is_single
        self._overwrite = overwrite
        self._names = FrameNames(names, {suffix, *beside})
        self._writer: BackgroundWriter | None = None
        self._folders = CreatedFolders()
        self._accepted = 0
        """Number of files queued so far."""
        self._written = 0
        """Number of complete files; counted on the writer's thread."""
        self._last: Path | None = None
        self._is_closed = False
        self._is_final = False

    @abstractmethod
    def _content(self, depth: Depth, image: RgbImage) -> tuple[WriteContent, int]:
        """A function that encodes this frame's file on the writer's thread, and the bytes of memory it holds."""

    @property
    def is_lossless(self) -> bool:
        """True: every frame becomes a file."""
        return True

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
            if self._is_single and self.path.exists() and not self._overwrite:
                raise OutputError("the file exists", where=str(self.path), hint="pass --overwrite to replace it")
            if self._is_single:
                check_partial(self.path, overwrite=self._overwrite)
            self._folders.create(self.path.parent if self._is_single else self.path)
        except OSError as error:
            self._folders.remove_empty()
            raise OutputError(f"cannot be created: {reason_of(error)}", where=str(self.path)) from error
        self._writer = BackgroundWriter()

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Queue one file; blocks while the queue is full. Always True.

        Raises:
            SinkError: this or an earlier file could not be written, or a single file was written already.
        """
        if self._writer is None or self._is_closed:
            raise SinkError("not open", where=str(self.path))
        if self._is_single:
            if self._accepted:
                hint = "name a folder or a video with -o"
                raise SinkError("one image cannot hold several frames", where=str(self.path), hint=hint)
            target = partial_path(self.path)
        else:
            target = self.path / (self._names.stem(frame) + self._suffix)
            if target.exists() and not self._overwrite:
                raise SinkError("the file exists", where=str(target), hint="pass --overwrite to replace it")
            try:
                self._folders.create(target.parent)
            except OSError as error:
                raise SinkError(f"cannot be created: {reason_of(error)}", where=str(target.parent)) from error
        content, size_bytes = self._content(depth, image)

        def job() -> None:
            with as_sink_error(target):
                write_file(target, content)
            self._written += 1
            self._last = None if self._is_single else target

        self._writer.submit(job, size_bytes)
        self._accepted += 1
        return True

    def finish(self) -> None:
        """Write what is queued and rename a single file to its final name.

        Raises:
            SinkError: a file could not be written.
        """
        try:
            self._drain()
            if self._is_single and self._written:
                self._rename_single()
        finally:
            self._folders.remove_empty()

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - the files themselves are complete
        """Write what is queued; a single file keeps its partial name.

        Raises:
            SinkError: a file could not be written, and no earlier `write` raised that error.
        """
        try:
            self._drain()
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

    def _rename_single(self) -> None:
        partial = partial_path(self.path)
        if self.path.exists() and not self._overwrite:
            raise SinkError("the file was created by another program", where=str(self.path), hint=f"see {partial}")
        with as_sink_error(self.path):
            os.replace(partial, self.path)
        self._is_final = True
