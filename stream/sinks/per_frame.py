"""What the sinks that write one file per frame share: names, folders, nothing half-written.

Invariant: a file under its final name is complete, because each is written under a temporary name in the same folder
and then moved; and no writer thread outlives `finish`, `keep_partial` or `abort`.
"""

import contextlib
import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

from stream.errors import OutputError, SinkError
from stream.files import Encode, check_partial, partial_path, reason, write_file
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.sinks.background import BackgroundWriter
from stream.sinks.naming import FrameNames


class FileSink(ABC):
    """A sink that writes one file per frame into a folder, or exactly one file.

    In a folder each file is moved into place when it is complete and then stays, whatever happens to the run. A single
    file is moved into place by `finish`, and is `NAME.partial.EXT` until then.

    Args:
        path: the folder, or the file if `is_single`.
        suffix: what the name of every file in a folder ends with.
        is_single: `path` is one file; a second write is an error.
        overwrite: existing files may be replaced.
        names: of all inputs, where they are known.
        beside: suffixes of files that other sinks put into the same folder; see `FrameNames`.
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
        self._made: list[Path] = []
        self._count = 0
        """Files accepted."""
        self._written = 0
        """Files that are complete; counted by the writer's thread."""
        self._last: Path | None = None
        self._is_closed = False
        self._is_final = False

    @abstractmethod
    def _encoder(self, depth: Depth, image: RgbImage) -> tuple[Encode, int]:
        """What writes this frame's file later, on the writer's thread, and the bytes of memory it holds."""

    @property
    def is_lossless(self) -> bool:
        """True: every frame becomes a file."""
        return True

    @property
    def outputs(self) -> list[str]:
        """The folder, or the file (while partial under that name); empty once closed with nothing written."""
        if self._is_closed and not self._written:
            return []
        if self._is_closed and self._written == 1 and self._last is not None:
            return [str(self._last)]  # the one file says more than its folder
        return [str(partial_path(self.path) if self._is_single and not self._is_final else self.path)]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - any size fits
        """Make the folder and start the writer.

        Raises:
            OutputError: the folder cannot be made, or the single file exists and may not be replaced.
        """
        try:
            if self._is_single and self.path.is_dir():
                raise OutputError("is a folder, not a file", where=str(self.path))
            if self._is_single and self.path.exists() and not self._overwrite:
                raise OutputError("the file exists", where=str(self.path), hint="pass --overwrite to replace it")
            if self._is_single:
                check_partial(self.path, overwrite=self._overwrite)
            self._make_folder(self.path.parent if self._is_single else self.path)
        except OSError as error:
            self._remove_empty_folders()
            raise OutputError(f"cannot be created: {reason(error)}", where=str(self.path)) from error
        self._writer = BackgroundWriter()

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Queue one file; blocks while the writer is behind. Always True.

        Raises:
            SinkError: this or an earlier file could not be written, or a single file was written already.
        """
        if self._writer is None or self._is_closed:
            raise SinkError("not open", where=str(self.path))
        if self._is_single:
            if self._count:
                raise SinkError(
                    "holds one picture, but more arrived", where=str(self.path), hint="give -o a folder or a video"
                )
            target, temporary = partial_path(self.path), None
        else:
            target = self.path / (self._names.stem(frame) + self._suffix)
            temporary = target.with_name(f".{target.name[:50]}.partial{self._suffix}")
            if target.exists() and not self._overwrite:
                raise SinkError("the file exists", where=str(target), hint="pass --overwrite to replace it")
            try:
                self._make_folder(target.parent)
            except OSError as error:
                raise SinkError(f"cannot be created: {reason(error)}", where=str(target.parent)) from error
        encode, size_bytes = self._encoder(depth, image)

        def job() -> None:
            write_file(target, encode, temporary=temporary)
            self._written += 1
            self._last = None if self._is_single else target

        self._writer.submit(job, size_bytes)
        self._count += 1
        return True

    def finish(self) -> None:
        """Wait for the writer and move a single file into place.

        Raises:
            SinkError: a file could not be written.
        """
        try:
            self._drain()
            if self._is_single and self._count:
                self._move_single()
        finally:
            self._remove_empty_folders()

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - complete files say nothing about the run
        """Write what was accepted; files in a folder stay, a single one stays as `NAME.partial.EXT`.

        Raises:
            SinkError: a file could not be written and nobody was told yet.
        """
        try:
            self._drain()
        finally:
            self._remove_empty_folders()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Drop what is queued and remove what was begun and the folders made for it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._writer is not None:
            self._writer.cancel()
        if self._is_single and self._count:
            with contextlib.suppress(OSError):
                partial_path(self.path).unlink(missing_ok=True)
        self._remove_empty_folders()

    def _drain(self) -> None:
        self._is_closed = True
        if self._writer is not None:
            self._writer.finish()

    def _move_single(self) -> None:
        partial = partial_path(self.path)
        if not partial.exists():
            return
        if self.path.exists() and not self._overwrite:
            raise SinkError("appeared while its picture was computed", where=str(self.path), hint=f"see {partial}")
        try:
            os.replace(partial, self.path)
        except OSError as error:
            raise SinkError(f"cannot be written: {reason(error)}", where=str(self.path)) from error
        self._is_final = True

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made.append(path)

    def _remove_empty_folders(self) -> None:
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # not empty: something was written there
                folder.rmdir()
        self._made.clear()
