"""`survey.csv`: one row for each number of each photo, for spreadsheets and data frames.

Invariant: no cell begins with a character that makes a spreadsheet compute it, except for numbers.
"""

import csv
import io
from collections.abc import Iterator, Mapping

from stream.errors import printable
from stream.survey.record import ClipRow, FindingRow, NumberRow, PhotoRow, Survey

COLUMNS = ("photo", "style", "finding", "detail", "model", "value", "unit", "better", "basis")
"""`style` is empty for the photo itself, and `finding` is "movement" in another style: how far depth moved from the
photo's. `detail` is empty for a finding's own number and names a further one, which has a unit of its own."""
MOVEMENT = "movement"
_COMPUTED = ("=", "+", "-", "@", "\t", "\r")

Row = tuple[str, ...]


def table(survey: Survey) -> str:
    """The whole survey as CSV with a heading (RFC 4180, but lines end in a line feed)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    facts = {row.key: row for row in survey.findings}
    for photo in survey.photos:
        writer.writerows([_inert(cell) for cell in row[:5]] + list(row[5:]) for row in _rows(photo, facts))
    if survey.video is not None:
        writer.writerows(_clip_rows(survey.video))
    return out.getvalue()


def _rows(photo: PhotoRow, facts: Mapping[str, FindingRow]) -> Iterator[Row]:
    for key, answers in photo.findings.items():
        fact = facts[key]
        own = (fact.unit, fact.better, answers.basis)
        yield from _numbers((photo.name, "", key), answers.numbers, own)
    for style, numbers in photo.styles.items():
        yield from _numbers((photo.name, style, MOVEMENT), numbers, ("", "neither", "model"))


def _clip_rows(clip: ClipRow) -> Iterator[Row]:
    """Of the clip as a whole: without the name of a photo."""
    for fact in clip.findings:
        found = clip.numbers.get(fact.key, {})
        numbers = {model: NumberRow(value=one.value, details=one.details) for model, one in found.items()}
        yield from _numbers(("", "", fact.key), numbers, (fact.unit, fact.better, "picture"))


def _numbers(first: Row, numbers: Mapping[str, NumberRow], last: Row) -> Iterator[Row]:
    for model, number in numbers.items():
        yield (*first, "", model, _text(number.value), *last)
        for detail, value in number.details.items():
            yield (*first, detail, model, _text(value), "", "", last[-1])


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _inert(cell: str) -> str:
    """A name that a spreadsheet takes for a name: `=a.jpg` is the same file as `./=a.jpg`."""
    shown = printable(cell)
    return f"./{shown}" if shown.startswith(_COMPUTED) else shown
