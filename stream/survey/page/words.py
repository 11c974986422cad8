"""How the page says numbers, and what they are measured against.

Invariant: agreement of models is called an opinion, never a truth.
"""

import math
from collections.abc import Iterable

from stream.survey.page.html import Html, tag
from stream.survey.record import FindingRow, ModelRow, Survey

BASES = {
    "truth": (
        "truth",
        "Measured against the truth: known depths or marked regions. The number is an error, a share or a count.",
    ),
    "models": (
        "opinion",
        "Measured against what these models say together, which may be wrong: models that agree are not thereby right.",
    ),
    "picture": (
        "picture",
        "Measured against the picture alone, which has no depth: whether depth does what the picture does.",
    ),
}
"""By basis: the short word, and what it means."""

NOTHING = Html("–")


def number(value: float | None, decimals: int | None = None) -> Html:
    """A number with three or four digits, such as 0.123, 12.3 or 1,234; a dash for none.

    Args:
        decimals: of the row that it stands in, see `decimals_of`; None for a number that stands alone.
    """
    if value is None:
        return NOTHING
    digits = decimals_of([value]) if decimals is None else decimals
    shown = f"{value:,.{digits}f}"
    return Html(("0" if digits == 0 else f"{0:.{digits}f}") if float(shown.replace(",", "")) == 0 else _minus(shown))


def decimals_of(row: Iterable[float | None]) -> int:
    """How many decimals the numbers of a row have, so that they can be compared: as many as the largest needs."""
    size = max((abs(value) for value in row if value is not None), default=0.0)
    return 0 if size >= 999.5 else 1 if size >= 9.9995 else 3


def _minus(shown: str) -> str:
    return shown.replace("-", "−")


def with_unit(shown: str, unit: str) -> str:
    """A number and its unit, which do not come apart."""
    return f"{shown}\u00a0{unit}" if unit else shown


def count(amount: int, what: str) -> str:
    """`1 photo`, `2 photos`."""
    return f"{amount:,} {what}{'' if amount == 1 else 's'}"


def direction(finding: FindingRow) -> str:
    """Which numbers are better, with an arrow."""
    return {"higher": "↑ higher is better", "lower": "↓ lower is better", "neither": "↕ neither is better"}[
        finding.better
    ]


def basis_chip(basis: str) -> Html:
    """What a number is measured against."""
    word, meaning = BASES[basis]
    return tag("span", word, class_=f"chip {basis}", title=meaning)


def weights_chip(model: ModelRow) -> Html | None:
    """A mark for weights that are not, or not known to be, the published ones."""
    if model.is_published:
        return None
    word = "not the published weights" if model.is_published is False else "weights of unknown origin"
    return tag("span", word, class_="chip warning")


def weights_words(model: ModelRow) -> str:
    """What the weights are."""
    of_file = f" ({model.weights_file})" if model.weights_file else ""
    if model.is_published:
        return f"published{of_file}"
    if model.is_published is False:
        return f"not the published ones{of_file}"
    return f"unknown{of_file}: no checksum is published"


def thing(survey: Survey) -> str:
    """What was looked at, in one word."""
    return "photo" if survey.video is None else "frame"


def every_finding(survey: Survey) -> list[FindingRow]:
    """Those of photos, then those of a clip as a whole."""
    return [*survey.findings, *([] if survey.video is None else survey.video.findings)]


def letters(survey: Survey) -> dict[str, str]:
    """A letter for each finding that was asked, by key: A, B, …, Z, AA, …; places are A1, A2, …"""
    asked = set(survey.summary).union(*(photo.findings for photo in survey.photos))
    if survey.video is not None:
        asked |= {key for key, found in survey.video.numbers.items() if found}
    keys = (finding.key for finding in every_finding(survey) if finding.key in asked)
    return {key: _letter(index) for index, key in enumerate(keys)}


def _letter(index: int) -> str:
    before = _letter(index // 26 - 1) if index >= 26 else ""
    return before + chr(ord("A") + index % 26)


def metres(disparity: float) -> str:
    """A disparity in 1/m as a distance."""
    if disparity <= 0 or not math.isfinite(1 / disparity):
        return "infinitely far"
    return f"{with_unit(f'{1 / disparity:.3g}', 'm')}"


def size_of(amount: int) -> str:
    """Bytes in MB or GB."""
    return with_unit(f"{amount / 1e9:.1f}", "GB") if amount >= 1e9 else with_unit(f"{amount / 1e6:.0f}", "MB")


def percent(share: float) -> str:
    """A coordinate for SVG."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"
