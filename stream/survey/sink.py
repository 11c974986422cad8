"""The output of a survey of photos: measures each result, writes its pictures, and at the end the report.

Invariant: only numbers are kept of a photo, so memory does not grow with the pixels. `report.html`, `survey.json` and
`survey.csv` appear together when the survey ends. After an interruption or a failure `report.partial.html`, … hold what
was finished and say so; an earlier report that the pictures no longer belong to is not there any more.
"""

import glob
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stream.compare.inference import ModelUse
from stream.errors import SourceError
from stream.files import CreatedFolders, as_sink_error, json_text, open_regular, partial_path, real, write_file
from stream.frames import ComparedDepth, Depth, Frame, RgbImage, SourceInfo
from stream.sinks.base import Sink
from stream.sinks.naming import check_output
from stream.sinks.record import FolderRecord
from stream.survey.findings.base import Answers, Finding, Number
from stream.survey.page import page
from stream.survey.pictures import PictureNames, write_pictures
from stream.survey.record import AnswersRow, NumberRow, PhotoRow, PlaceRow, SkippedRow, SummaryRow, Survey
from stream.survey.scene import Scene, Truth
from stream.survey.style_pictures import StyledPhotos
from stream.survey.styled import place_of
from stream.survey.summary import finding_rows, model_rows, styles_summarised, summarised
from stream.survey.table import table
from stream.version import __version__

REPORT, NUMBERS, TABLE, PICTURES = "report.html", "survey.json", "survey.csv", "pictures"
FILES = (REPORT, NUMBERS, TABLE)
_PROGRAM = "depthstream"
_IS_SURVEY = re.compile(rf'\{{\s*"version": \d+,\s*"program": "{_PROGRAM} '.encode())
"""How the numbers of any survey begin."""
_RESERVE_BYTES, _RESERVE_BYTES_A_PHOTO, _MOST_RESERVE_BYTES = 1 << 18, 1 << 17, 1 << 27
"""What the report takes on the disk, with a margin: a photo with three models takes 57 kB."""

TruthOf = Callable[[Frame], Truth | None]
"""What is known to be true of a photo; raises `SourceError` if it is known but cannot be used."""


def report_bytes(photos: int) -> int:
    """What the report of so many photos takes on the disk at most, the pictures excepted; no more than 128 MiB."""
    return min(_RESERVE_BYTES + _RESERVE_BYTES_A_PHOTO * photos, _MOST_RESERVE_BYTES)


def nothing_known(_info: SourceInfo) -> TruthOf:
    """For photos without a truth."""
    return lambda _frame: None


class SurveySink(Sink):
    """Writes a survey into a folder.

    From its first photo to its end, the folder has `survey.partial.json`, so that a killed survey is known as one.

    Args:
        folder: of the report.
        models: names, in the order of the maps.
        findings: what is measured.
        truth_of: what is known of a photo.
        source: how the report names the photos; "" leaves it out.
        colormap: one of `colormap.NAMES`.
        styles: of a `StyledSource`; none for any other source.
        overwrite: a survey may be replaced, and other files of the same names; anything else in the folder stays.
    """

    needs_image = False

    def __init__(
        self,
        folder: Path,
        models: Sequence[str],
        findings: Sequence[Finding],
        *,
        truth_of: TruthOf,
        source: str = "",
        colormap: str,
        styles: Sequence[str] = (),
        overwrite: bool = False,
    ) -> None:
        self.folder, self._models, self._findings = folder, tuple(models), tuple(findings)
        self._truth_of, self._colormap, self._overwrite = truth_of, colormap, overwrite
        self._styles, self._styled = tuple(styles), StyledPhotos(folder, styles, models, colormap=colormap)
        self.uses: Sequence[ModelUse] = ()
        """What the models take; set before the first result."""
        self.skipped: Callable[[], Sequence[SkippedRow]] = tuple
        """Photos that could not be surveyed, asked for at the end."""
        self.amend: Callable[[Survey], Survey] = lambda found: found
        """Makes the survey complete."""
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._photos: list[PhotoRow] = []
        self._source, self._names, self._inputs = source, PictureNames((), self._models, styles), frozenset[Path]()
        self._written: list[Path] = []
        self._on_disk: _OnDisk | None = None
        self._most_photos = 0
        self._sheets: dict[str, list[str]] = {}

    @property
    def is_lossless(self) -> bool:
        """True: every photo is included."""
        return True

    @property
    def outputs(self) -> list[str]:
        """The report, once it is there."""
        return [str(path) for path in self._written]

    @property
    def counters(self) -> dict[str, int]:
        """How many photos have a truth that could not be used."""
        return {"without_truth": sum(bool(photo.without_truth) for photo in self._photos)}

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - any source
        """Raise `OutputError` if the folder may not be used."""
        check_output(self.folder, overwrite=self._overwrite, inputs=[Path(info.name), *info.files])
        self._names = PictureNames(info.names, self._models, self._styles)
        self._inputs = frozenset(real(path) for path in info.files)
        self._most_photos = info.frame_count or len(info.names)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - the maps alone
        """Measure one result. Always True."""
        if not isinstance(depth, ComparedDepth):
            raise TypeError(f"a survey needs ComparedDepth, not {type(depth).__name__}")
        number, style = place_of(frame.index, self._styles)
        if style:
            return self._write_style(number, style, Scene.of(frame, depth, self._models))
        truth, problem = self._truth(frame)
        scene = Scene.of(frame, depth, self._models, truth)
        answers = {finding.key: finding.measure(scene) for finding in self._findings}
        stem = self._names.stem(frame.name, frame.index)
        if self._on_disk is None:
            self._on_disk = self._begun()
        with as_sink_error(self.folder / PICTURES), self._on_disk.whole(f"{PICTURES}/{stem}"):
            pictures = write_pictures(scene, self.folder, f"{PICTURES}/{stem}", colormap=self._colormap)
            self._on_disk.add(pictures.files.values())
        self._styled.begin(number, scene, f"{PICTURES}/{stem}")
        self._photos.append(
            PhotoRow(
                name=frame.name,
                size=frame.size,
                has_truth=scene.truth is not None,
                without_truth=problem,
                pictures=pictures.files,
                scale=pictures.scale,
                findings={key: answers_row(found) for key, found in answers.items() if found is not None},
            )
        )
        return True

    def _write_style(self, number: int, style: str, scene: Scene) -> bool:
        """Measure the last photo in a style. Always True."""
        photo, on_disk = self._photos[-1], self._on_disk
        assert on_disk is not None
        with as_sink_error(self.folder / PICTURES), on_disk.whole(self._styled.stem(style)):
            found, pictures = self._styled.add(number, style, scene)
            on_disk.add(pictures.values())
        numbers = {model: number_row(one) for model, one in found.items()}
        self._photos[-1] = photo.model_copy(
            update={
                "styles": {**photo.styles, style: numbers},
                "styled_pictures": {**photo.styled_pictures, style: pictures},
            }
        )
        return True

    def finish(self) -> None:
        """Write the report. Raises `SinkError`."""
        self._save(stopped_by="")

    def keep_partial(self, reason: str) -> None:
        """Write a report of what is finished, which says that it is not complete. Raises `SinkError`."""
        self._save(stopped_by=(reason or "interrupted").replace(f"{self.folder}{os.sep}", ""))

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """No photo was finished: leave nothing behind."""
        if self._on_disk is not None:
            if not self._photos:
                self._on_disk.unmark()
            self._on_disk.close()

    def survey(self, *, stopped_by: str = "") -> Survey:
        """What was found so far."""
        return Survey(
            program=f"{_PROGRAM} {__version__}",
            source=self._source,
            colormap=self._colormap,
            is_complete=not stopped_by,
            stopped_by=stopped_by,
            models=model_rows(self.uses),
            findings=finding_rows(self._findings),
            photos=self._photos,
            skipped=list(self.skipped()),
            summary=self.summarised(self._photos),
            style_summary=styles_summarised(self._photos, self._styles, self._models),
            style_sheets=self._sheets,
        )

    def summarised(self, photos: Sequence[PhotoRow]) -> dict[str, dict[str, SummaryRow]]:
        """The findings over these photos."""
        return summarised(photos, self._findings, self._models)

    def include(self, name: str) -> None:
        """Add a complete file of this survey, named relative to the folder, that another has written."""
        if self._on_disk is not None:
            with as_sink_error(self.folder / name):
                self._on_disk.add([name])

    def _truth(self, frame: Frame) -> tuple[Truth | None, str]:
        """What is known of a photo, or why it cannot be used."""
        try:
            return self._truth_of(frame), ""
        except SourceError as error:
            self.warnings.append(f"{frame.name}: surveyed without its truth: {error}")
            return None, f"{Path(error.where).name}: {error.reason}"

    def _begun(self) -> "_OnDisk":
        """The folder, free of an earlier survey, and marked as that of a survey. Raises `SinkError`."""
        mark = json_text(self.survey(stopped_by="it was ended from outside").model_dump(mode="json"), indent=1) + "\n"
        with as_sink_error(self.folder / REPORT):
            begun = _OnDisk(self.folder, report_bytes(self._most_photos))
        try:
            if self._overwrite:
                begun.remove_earlier(self._inputs)
            with as_sink_error(begun.marker):
                write_file(begun.marker, mark.encode("utf-8", "surrogateescape"))
        except BaseException:
            begun.close()
            raise
        return begun

    def _save(self, *, stopped_by: str) -> None:
        if self._on_disk is not None:
            with as_sink_error(self.folder):
                self._sheets = self._styled.write_sheets()
                self._on_disk.add(file for files in self._sheets.values() for file in files)
        found = self.amend(self.survey(stopped_by=stopped_by))
        contents = {
            REPORT: page(found),
            NUMBERS: json_text(found.model_dump(mode="json"), indent=1) + "\n",
            TABLE: table(found),
        }
        if self._on_disk is not None:
            self._on_disk.close()
            self.notes += self._on_disk.settle(tells=self._overwrite)
        for name, text in contents.items():
            path = partial_path(self.folder / name)
            with as_sink_error(path):
                write_file(path, text.encode("utf-8", "surrogateescape"))
            self._written.append(path)
        for number, name in enumerate(contents if not stopped_by else ()):
            with as_sink_error(self.folder / name):
                os.replace(self._written[number], self.folder / name)
            self._written[number] = self.folder / name


@dataclass
class _OnDisk:
    """The folder of a survey while it is being written.

    Args:
        folder: created if it is missing.
        reserve_bytes: space that is kept for the report.

    Raises:
        OSError: it cannot be created, or the disk is full.
    """

    folder: Path
    reserve_bytes: int

    def __post_init__(self) -> None:
        self._created = CreatedFolders()
        self._created.create(self.folder / PICTURES, below=self.folder)
        # Any survey in this folder is replaced by the next, whatever it was of.
        self._record = FolderRecord(self.folder, "", f"{_PROGRAM} survey\0")
        self._listed: set[str] = set()
        try:
            self._reserve = _reserved(self.folder, self.reserve_bytes)
        except OSError:
            self._created.remove_empty()
            raise
        self._began_ns = os.fstat(self._reserve.fileno()).st_mtime_ns  # by the clock of that disk

    @property
    def marker(self) -> Path:
        """What tells that the folder is that of a survey which has not ended."""
        return partial_path(self.folder / NUMBERS)

    def unmark(self) -> None:
        """Remove the marker; nothing else of this survey is there."""
        with suppress(OSError):
            self.marker.unlink()

    def add(self, names: Iterable[str]) -> None:
        """Add files of this survey, named relative to the folder. Raises `OSError`."""
        for name in names:
            self._record.add(self.folder / name)
            self._listed.add(name)

    @contextmanager
    def whole(self, stem: str) -> Iterator[None]:
        """All pictures of a photo are written in the block, or none stays of those that it has made.

        Args:
            stem: what their names begin with, before a dot.
        """
        try:
            yield
        except BaseException:
            begins = self.folder / stem
            for path in begins.parent.glob(f"{glob.escape(begins.name)}.*"):
                is_new = path.lstat().st_mtime_ns >= self._began_ns
                if is_new and path.relative_to(self.folder).as_posix() not in self._listed:
                    with suppress(OSError):
                        path.unlink()
            raise

    def remove_earlier(self, inputs: frozenset[Path]) -> None:
        """Remove the report and the pictures of an earlier survey, as far as these are as it has left them."""
        for names in (FILES, tuple(partial_path(Path(name)).name for name in FILES)):
            if not _is_survey(self.folder / names[1]):
                continue
            for path in (self.folder / name for name in names):
                with suppress(FileNotFoundError):
                    if stat.S_ISREG(path.lstat().st_mode) and real(path) not in inputs:
                        path.unlink()
        self._record.remove_earlier(keep=(), inputs=inputs, everywhere=True)

    def settle(self, *, tells: bool) -> list[str]:
        """End the survey: list its files for the next one, and return what is to be said.

        Args:
            tells: say which other files stay among the pictures.
        """
        self._record.save()
        others = 0
        for folder, _, names in os.walk(self.folder / PICTURES) if tells else ():
            inside = Path(folder).relative_to(self.folder)
            others += sum((inside / name).as_posix() not in self._listed for name in names)
        if not others:
            return []
        what = f"{others} file{'s' * (others != 1)} that this survey did not write stay{'s' * (others == 1)}"
        return [f"{self.folder / PICTURES}: {what}"]

    def close(self) -> None:
        """Free the reserve, and remove the folders that are empty. Idempotent."""
        self._reserve.close()
        self._created.remove_empty()


def _reserved(folder: Path, size_bytes: int) -> BinaryIO:
    """A file without a name that takes space until it is closed. Raises `OSError`."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by whoever needs the space
    try:
        for _ in range(0, size_bytes, 1 << 16):
            file.write(bytes(1 << 16))
        file.flush()
    except OSError:
        file.close()
        raise
    return file


def is_unfinished(folder: Path) -> bool:
    """Whether a survey in the folder is under way, was interrupted or killed, or has failed."""
    return _is_survey(partial_path(folder / NUMBERS))


def _is_survey(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return _IS_SURVEY.match(file.read(200)) is not None
    except OSError:
        return False


def answers_row(answers: Answers) -> AnswersRow:
    """The answers of one photo, for the record."""
    return AnswersRow(
        basis=answers.basis.value, numbers={model: number_row(one) for model, one in answers.numbers.items()}
    )


def number_row(number: Number) -> NumberRow:
    """One answer, for the record."""
    places = [PlaceRow(box=place.box, text=place.text) for place in number.places]
    return NumberRow(value=number.value, details=dict(number.details), places=places)
