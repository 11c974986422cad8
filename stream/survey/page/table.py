"""The table that the page begins with: models × findings, then what each model takes.

Invariant: every row says what it is measured against.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from stream.survey.page.html import Html, address_of, breakable, joined, tag, text
from stream.survey.page.meaning import STYLES
from stream.survey.page.words import (
    BASES,
    NOTHING,
    basis_chip,
    count,
    decimals_of,
    direction,
    letters,
    number,
    size_of,
    thing,
    weights_chip,
    weights_words,
)
from stream.survey.record import ClipNumberRow, FindingRow, ModelRow, SummaryRow, Survey


def summary_section(survey: Survey) -> Html:
    """The table and what it needs to be read."""
    return tag("section", tag("h2", "Summary"), _against(survey), _table(survey), _notes(survey), id="summary")


def model_heading(model: ModelRow) -> Html:
    """The name of a model above its column, with a mark if its weights are not the published ones."""
    return tag("th", breakable(model.name), weights_chip(model), scope="col")


def scrolling(table: Html, label: str) -> Html:
    """A table that scrolls by itself where it is wider than the page."""
    return tag("div", table, class_="scrolling", role="group", aria_label=label)


def _against(survey: Survey) -> Html:
    used = {answers.basis for photo in survey.photos for answers in photo.findings.values()}
    lines = (tag("li", basis_chip(basis), f" {meaning}") for basis, (_, meaning) in BASES.items() if basis in used)
    unpublished = [model.name for model in survey.models if model.is_published is False]
    warning = f"{', '.join(unpublished)}: the weights are not the ones that the authors published, so the numbers say "
    return joined(
        [
            tag("ul", *lines, class_="against") if used else None,
            tag("p", warning, "nothing about the published model.", class_="banner") if unpublished else None,
        ]
    )


def _table(survey: Survey) -> Html:
    corner = tag("th", "Finding", scope="col")
    columns = [corner, *(model_heading(model) for model in survey.models)]
    bodies = [_findings_body(survey), _clip_body(survey), _styles_body(survey), _models_body(survey)]
    caption = tag("caption", f"All models over all {thing(survey)}s", class_="unseen")
    table = tag("table", caption, tag("thead", tag("tr", *columns)), *bodies, class_="numbers")
    reading = tag(
        "p",
        f"The mean over the {thing(survey)}s ± the standard deviation. The best mean is bold, and what is as good.",
        class_="note",
    )
    return joined([reading, scrolling(table, "Summary")])


def _findings_body(survey: Survey) -> Html | None:
    letter = letters(survey)
    rows = []
    for finding in survey.findings:
        found = survey.summary.get(finding.key)
        if not found:
            continue
        link = tag("a", f"{letter[finding.key]} {finding.title}", href=f"#finding-{finding.key}")
        unit = f", in {finding.unit}" if finding.unit else ""
        about = tag("small", direction(finding), unit)
        rows.append(_row([link, about, _measured(survey, finding.key, found)], survey, found))
    return _body("What they see", rows, survey)


def _measured(survey: Survey, key: str, found: Mapping[str, SummaryRow]) -> Html:
    """What the means are measured against, of how many photos, and how many others are left out."""
    basis = next((row.basis for row in found.values()), None)
    others = [photo for photo in survey.photos if key in photo.findings and photo.findings[key].basis != basis]
    left_out = f"; {count(len(others), thing(survey))} measured otherwise left out" if basis and others else ""
    answered = [photo.findings[key] for photo in survey.photos if key in photo.findings and photo not in others]
    asked = sum(any(one.value is not None for one in answers.numbers.values()) for answers in answered)
    if (some := asked - _most(found)) > 0:
        left_out += f"; {count(some, thing(survey))} that not all models answer left out"
    chip = None if basis is None else joined([basis_chip(basis), " "])
    return tag("small", chip, count(_most(found), thing(survey)), left_out)


def _clip_body(survey: Survey) -> Html | None:
    """The findings of a clip as a whole."""
    if survey.video is None:
        return None
    letter, rows = letters(survey), []
    for finding in survey.video.findings:
        found = survey.video.numbers.get(finding.key)
        if not found:
            continue
        link = tag("a", f"{letter[finding.key]} {finding.title}", href=f"#finding-{finding.key}")
        about = tag("small", direction(finding), f", in {finding.unit}" if finding.unit else "")
        measured = max(one.measured for one in found.values())
        chip = tag("small", basis_chip("picture"), " ", count(measured, _MEASURED.get(finding.key, "part")))
        decimals = _small_decimals(one.value for one in found.values())
        cells = (_clip_cell(found.get(model.name), decimals) for model in survey.models)
        rows.append(tag("tr", tag("th", link, about, chip, scope="row"), *cells))
    return _body("From frame to frame", rows, survey)


_MEASURED = {"flicker": "pair", "drift": "part", "cuts": "cut"}
"""What the mean of a clip's finding is over."""


def _clip_cell(found: ClipNumberRow | None, decimals: int) -> Html:
    if found is None or found.value is None:
        return tag("td", NOTHING)
    value = number(found.value, decimals)
    shown = joined([tag("b", value), tag("span", " best", class_="unseen")]) if found.is_best else value
    spread = None if found.spread is None else tag("span", f"±\u00a0{number(found.spread, decimals)}", class_="spread")
    return tag("td", shown, " ", spread)


def _small_decimals(row: Iterable[float | None]) -> int:
    """Shares of a range from one frame to the next need a fourth digit."""
    known = [abs(value) for value in row if value is not None]
    return 4 if max(known, default=0) < 0.1 else decimals_of(known)


def _styles_body(survey: Survey) -> Html | None:
    rows = []
    for style, found in survey.style_summary.items():
        link = tag("a", style, href=f"#finding-{STYLES}")
        about = tag("small", "0: does not move, as of a model that answers the same to every picture; so none is best")
        sheets = [
            tag("a", f"sheet {n}", href=address_of(file))
            for n, file in enumerate(survey.style_sheets.get(style, []), 1)
        ]
        chip = tag("small", count(_most(found), "photo"), *(joined([", ", sheet]) for sheet in sheets))
        rows.append(_row([link, about, chip], survey, found))
    return _body("How far depth moves in another style", rows, survey)


def _most(found: Mapping[str, SummaryRow]) -> int:
    return max((row.photos for row in found.values()), default=0)


def _row(heading: Sequence[Html], survey: Survey, found: Mapping[str, SummaryRow]) -> Html:
    decimals = decimals_of(one.mean for one in found.values())
    cells = (_mean_cell(found.get(model.name), _most(found), decimals) for model in survey.models)
    return tag("tr", tag("th", *heading, scope="row"), *cells)


def _mean_cell(found: SummaryRow | None, photos: int, decimals: int) -> Html:
    if found is None or found.mean is None:
        return tag("td", NOTHING)
    mean = number(found.mean, decimals)
    shown = joined([tag("b", mean), tag("span", " best", class_="unseen")]) if found.is_best else mean
    spread = None if found.spread is None else tag("span", f"±\u00a0{number(found.spread, decimals)}", class_="spread")
    fewer = tag("small", f" of {found.photos:,}") if found.photos < photos else None
    return tag("td", shown, " ", spread, fewer)


_TIMES: dict[str, Callable[[ModelRow], float | None]] = {
    "Speed, photos/s": lambda m: m.frames_per_s,
    "First map, s": lambda m: m.first_s,
    "Loading, s": lambda m: m.load_s,
}
_FACTS: dict[str, Callable[[ModelRow], str]] = {
    "Memory": lambda m: size_of(m.memory_bytes),
    "Parameters, millions": lambda m: f"{m.parameters_m:,.4g}",
    "Output": lambda m: m.output.replace("_", " "),
    "Ran on": lambda m: ", ".join(part for part in (m.device, m.precision, m.backend) if part),
    "Weights": weights_words,
    "Licence": lambda m: m.licence,
}


def _models_body(survey: Survey) -> Html | None:
    rows = [_times_row(fact, [of(model) for model in survey.models]) for fact, of in _TIMES.items()]
    rows += [
        tag("tr", tag("th", fact, scope="row"), *(tag("td", of(model)) for model in survey.models))
        for fact, of in _FACTS.items()
    ]
    origins = (tag("td", _origin(model)) for model in survey.models)
    rows.append(tag("tr", tag("th", "Authors", scope="row"), *origins))
    return _body("What they take", rows, survey) if survey.models else None


def _times_row(fact: str, values: Sequence[float | None]) -> Html:
    """Three digits of the largest, two of the smallest, and the same number of decimals."""
    known = [value for value in values if value]
    digits = ((max(known), 3), (min(known), 2)) if known else ()
    decimals = max((wanted - 1 - math.floor(math.log10(value)) for value, wanted in digits), default=0)
    cells = (tag("td", number(value, min(max(decimals, 0), 4))) for value in values)
    return tag("tr", tag("th", fact, scope="row"), *cells)


def _origin(model: ModelRow) -> Html:
    if not model.origin.startswith(("https://", "http://")):
        return text(model.origin)
    return tag("a", breakable(model.origin.partition("://")[2]), href=model.origin, rel="noreferrer")


def _body(title: str, rows: list[Html], survey: Survey) -> Html | None:
    heading = tag("th", title, scope="rowgroup", colspan=1 + len(survey.models))
    return tag("tbody", tag("tr", heading, class_="group"), *rows) if rows else None


def _notes(survey: Survey) -> Html:
    photos = len(survey.photos)
    spread = "A difference that is much smaller than the spread may be chance." if photos > 1 else None
    memory = (
        "Speed is the network's alone, after the first map. Memory is by how much the process grew while the model was "
        "loaded and computed its first map; a later model uses again what an earlier one has left free."
    )
    return joined(tag("p", note, class_="note") for note in (spread, memory) if note and survey.models)


def unanswered(findings: Iterable[FindingRow]) -> Html | None:
    """The findings that a photo does not ask for."""
    titles = [finding.title for finding in findings]
    return tag("p", f"Not asked by this photo: {', '.join(titles)}.", class_="note") if titles else None
