"""A viewer's files: snapshots and recordings.

Invariant: a failure to write one is reported to the viewer and does not end the run. No existing file is replaced, and
a file under its final name is complete.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from stream.errors import SinkError, StreamError
from stream.files import as_sink_error, write_file
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.live.view import Shown
from stream.media import cv2
from stream.sinks.base import Sink


class Recorder:
    """Writes snapshots, and one recording at a time.

    Args:
        make_sink: makes the sink of a recording from its path; None if recording is not possible.
        name: start of every file name: `NAME_20261231-235959.png`.
        folder: where files go.
        say: called with a message about each file written, and each failure.
        show_message: shows a line to the viewer.
        now: date and time for the names.
    """

    def __init__(
        self,
        *,
        make_sink: Callable[[Path], Sink] | None,
        name: str,
        folder: Path,
        say: Callable[[str], None],
        show_message: Callable[[str], None],
        now: Callable[[], datetime],
    ) -> None:
        self._make_sink, self._name, self._folder = make_sink, name, folder
        self._say, self._show_message, self._now = say, show_message, now
        self._info: SourceInfo | None = None
        self._sink: Sink | None = None
        self._count = 0
        self._finished: dict[int, Path] = {}

    @property
    def is_recording(self) -> bool:
        """True while a recording is running."""
        return self._sink is not None

    @property
    def finished(self) -> dict[int, Path]:
        """Finished recordings by number. From any thread."""
        return dict(self._finished)

    def open(self, info: SourceInfo) -> None:
        """Set the source that recordings are made of; call it before the first of them."""
        self._info = info

    def start(self, size_hw: tuple[int, int]) -> None:
        """Start a recording of images of (height, width)."""
        if self._make_sink is None or self._info is None:
            return
        with self._reported():
            path = self._free_path(".mp4")
            sink = self._make_sink(path)
            # As a live source: the recording starts at zero, not at the time in the file.
            sink.open(replace(self._info, is_live=True), size_hw)
            self._sink, self._count = sink, 0
            self._show_message(f"recording {path.name}")

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> None:
        """Add a result to the running recording, if there is one; a failure ends the recording."""
        sink = self._sink
        if sink is None:
            return
        with self._reported():
            try:
                sink.write(frame, depth, image)
            except BaseException as error:
                self._sink = None
                sink.keep_partial(str(error))
                raise
            self._count += 1

    def stop(self) -> None:
        """Complete the running recording; one without frames leaves no file."""
        with self._reported():
            done = self._end()
            self._show_message(f"recorded {Path(done[0]).name}" if done else "nothing was recorded")

    def close(self) -> None:
        """Complete the running recording at the end of the run."""
        with self._reported():
            self._end()

    def save(self, shown: Shown) -> None:
        """Save a snapshot: the image as PNG and its raw depth as .npy."""
        with self._reported():
            path = self._free_path(".png")
            png, npy = encode_png(shown.image), encode_npy(shown.depth)
            with as_sink_error(path):
                write_file(path, png)
                write_file(path.with_suffix(".npy"), npy)
            self._say(f"saved {path} and {path.stem}.npy")
            self._show_message(f"saved {path.name} and .npy")

    def _end(self) -> list[str]:
        """End the running recording; returns the paths written."""
        sink, self._sink = self._sink, None
        if sink is None:
            return []
        if not self._count:
            sink.abort(RuntimeError("nothing was recorded"))
            return []
        sink.finish()
        for path in sink.outputs:
            self._finished[len(self._finished)] = Path(path)
        for warning in sink.warnings:
            self._say(f"warning: {warning}")
        self._say(f"recorded {', '.join(sink.outputs)}")
        return sink.outputs

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except StreamError as error:
            self._say(str(error))
            self._show_message(str(error))

    def _free_path(self, suffix: str) -> Path:
        """A path that no file has, with none of the suffixes that are written here."""
        stem, number = f"{self._name}_{self._now():%Y%m%d-%H%M%S}", 1
        candidate = stem
        while any(os.path.lexists(self._folder / f"{candidate}{s}") for s in (".png", ".npy", ".mp4", ".partial.mp4")):
            number += 1
            candidate = f"{stem}-{number}"
        return self._folder / f"{candidate}{suffix}"


def encode_png(image: RgbImage) -> bytes:
    """An RGB image, uint8 H×W×3, as PNG. Raises `SinkError`."""
    ok, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise SinkError("cannot be encoded as PNG", where="snapshot")
    return bytes(png.tobytes())


def encode_npy(depth: Depth) -> bytes:
    """Raw depth, float32 H×W, as the content of a .npy file."""
    file = io.BytesIO()
    np.save(file, depth.values)
    return file.getvalue()
