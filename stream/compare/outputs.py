"""The other outputs of a comparison, besides its sheets: a contact sheet of all images, and numbers in `compare.json`.

Invariant: both are written when the run ends; after an interrupted run, what was done is in partial files.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from stream.errors import SinkError
from stream.files import as_sink_error, json_text, partial_path, write_file
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.media import cv2
from stream.sinks.base import Sink
from stream.sinks.naming import check_output

_ROW_WIDTH = 1600
_MAX_ROW_HEIGHT = 400
_CAPTION_PX = 24
_ROWS_PER_PAGE = 60
"""At most 25,440 pixels high, which viewers can still open."""

Measure = Callable[[Depth], Mapping[str, Any]]
"""Returns the numbers of one result, ready for JSON."""


class _CollectingSink(Sink):
    """Collects results and writes its files at the end."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path, self._overwrite = path, overwrite
        self._written: list[Path] = []

    @property
    def is_lossless(self) -> bool:
        """True: every result is included."""
        return True

    @property
    def outputs(self) -> list[str]:
        """The files written so far."""
        return [str(path) for path in self._written]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - any source
        """Raise `OutputError` if the file exists and may not be replaced."""
        check_output(self.path, overwrite=self._overwrite)

    def finish(self) -> None:
        """Write the files. Raises `SinkError`."""
        self._save()

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - the report names it
        """Write what was collected as NAME.partial.EXT. Raises `SinkError`."""
        self.path = partial_path(self.path)
        self._save()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Discard what was collected."""
        self._written.clear()

    @abstractmethod
    def _save(self) -> None:
        """Write the files."""

    def _write(self, path: Path, content: bytes) -> None:
        with as_sink_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
        self._written.append(path)


class ContactSheetSink(_CollectingSink):
    """Writes all sheets of a run, reduced and one below the other, with their names; more pages are NAME_2.png, …"""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self._rows: list[RgbImage] = []
        self._pages = 0

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - the sheet only
        """Add a reduced copy of the sheet. Always True."""
        height, width = image.shape[:2]
        scale = min(_ROW_WIDTH / width, _MAX_ROW_HEIGHT / height)
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        row = np.full((_CAPTION_PX + size_wh[1], _ROW_WIDTH, 3), 255, np.uint8)
        row[_CAPTION_PX:, : size_wh[0]] = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
        caption = (frame.name or f"frame {frame.index}").encode("ascii", "replace").decode()
        cv2.putText(row, caption, (2, _CAPTION_PX - 7), cv2.FONT_HERSHEY_DUPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        self._rows.append(row)
        if len(self._rows) == _ROWS_PER_PAGE:
            self._save()
        return True

    def _save(self) -> None:
        if not self._rows:
            return
        page = np.concatenate(self._rows)
        self._rows.clear()
        self._pages += 1
        suffix = f"_{self._pages}" if self._pages > 1 else ""
        ok, data = cv2.imencode(".png", cv2.cvtColor(page, cv2.COLOR_RGB2BGR))
        if not ok:
            raise SinkError("cannot be encoded", where=str(self.path))
        self._write(self.path.with_name(f"{self.path.stem}{suffix}{self.path.suffix}"), data.tobytes())


class AgreementSink(_CollectingSink):
    """Writes `compare.json`: the numbers of every frame and pair of models, and their means.

    Args:
        heading: the first entries: source, models, definitions.
        measure: returns {"A | B": {"abs_rel": …}} for one result.
    """

    def __init__(self, path: Path, *, heading: Mapping[str, Any], measure: Measure, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self._heading, self._measure = heading, measure
        self.summary: Callable[[], Mapping[str, Any]] = dict
        """More entries, asked for when the file is written."""
        self._results: list[dict[str, Any]] = []

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - numbers only
        """Add the numbers of one result. Always True."""
        name = {"name": frame.name} if frame.name else {"frame": frame.index, "time_s": frame.time_s}
        self._results.append({**name, "pairs": dict(self._measure(depth))})
        return True

    def _save(self) -> None:
        content = {**self._heading, **self.summary(), "mean": self._means(), "results": self._results}
        self._write(self.path, (json_text(content, indent=2) + "\n").encode())

    def _means(self) -> dict[str, dict[str, float | None]]:
        """The means over the results that have the number; None where none has."""
        pairs = self._results[0]["pairs"] if self._results else {}

        def mean(pair: str, key: str) -> float | None:
            found = [result["pairs"][pair][key] for result in self._results]
            return fmean(known) if (known := [number for number in found if number is not None]) else None

        return {pair: {key: mean(pair, key) for key in numbers} for pair, numbers in pairs.items()}
