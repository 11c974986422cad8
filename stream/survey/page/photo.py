"""A photo on the page: its pictures, its numbers, and the places that made them.

Invariant: a place has the same code, such as B3, on the pictures, in the table and in the list.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stream.survey.best import best
from stream.survey.page.clip import why_chosen
from stream.survey.page.html import Html, address_of, breakable, joined, tag
from stream.survey.page.labels import Box, Label, common_area, place_labels
from stream.survey.page.scale import depth_bar, difference_bar
from stream.survey.page.table import model_heading, scrolling, unanswered
from stream.survey.page.words import (
    NOTHING,
    basis_chip,
    count,
    decimals_of,
    direction,
    letters,
    number,
    percent,
    weights_chip,
)
from stream.survey.record import AnswersRow, FindingRow, ModelRow, NumberRow, PhotoRow, PlaceRow, Survey

_TALL, _WIDE, _EXTREME = 1.6, 2.2, 6.0
"""From which ratio of the sides a photo's panes are narrower, wider, or scroll."""


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """A place with its code, and what the models have there: their own boxes, which may differ a little."""

    code: str
    finding: int
    places: dict[str, PlaceRow]

    def box(self, model: str | None) -> Box:
        """Where a model has it; for None where the first one has it."""
        return (next(iter(self.places.values())) if model is None else self.places[model]).box


def photo_article(survey: Survey, position: int) -> Html:
    """One photo.

    Args:
        position: from 1.
    """
    photo = survey.photos[position - 1]
    marks = list(_marks(survey, photo))
    height, width = photo.size
    truth = tag("span", "with truth", class_="chip truth") if photo.has_truth else None
    size = tag("small", f"{width} × {height}")
    first = survey.models[0].name if survey.models else "the first model"
    return tag(
        "article",
        tag("h3", breakable(photo.name or f"photo {position}"), " ", size, " ", truth),
        why_chosen(survey, position),
        tag("div", *_panes(survey, photo, marks), class_="panes"),
        tag("p", f"Surveyed without its truth: {photo.without_truth}", class_="note") if photo.without_truth else None,
        depth_bar(photo, first),
        _not_aligned(photo),
        _switches(survey, marks),
        _numbers(survey, photo, marks),
        _places(survey, marks),
        _differences(photo),
        _styles(survey, photo),
        class_=f"photo {_shape(photo)}",
        id=f"photo-{position}",
    )


def _shape(photo: PhotoRow) -> str:
    height, width = photo.size
    shape = "tall" if height > _TALL * width else "wide" if width > _WIDE * height else "usual"
    return f"{shape} extreme" if max(height, width) > _EXTREME * min(height, width) else shape


def _marks(survey: Survey, photo: PhotoRow) -> Iterator[_Mark]:
    letter = letters(survey)
    for index, finding in enumerate(survey.findings):
        answers = photo.findings.get(finding.key)
        if answers is None:
            continue
        shared: list[dict[str, PlaceRow]] = []
        for model, place in ((name, place) for name, one in answers.numbers.items() for place in one.places):
            same = (
                there for there in shared if model not in there and _is_same(next(iter(there.values())).box, place.box)
            )
            if (found := next(same, None)) is None:
                shared.append({model: place})
            else:
                found[model] = place
        for position, places in enumerate(shared, 1):
            yield _Mark(code=f"{letter[finding.key]}{position}", finding=index, places=places)


def _is_same(a: Box, b: Box) -> bool:
    """Whether two boxes have more than half of what they cover together in common."""
    common = common_area(a, b)
    return common > 0.5 * (a[2] * a[3] + b[2] * b[3] - common) or a == b


def _panes(survey: Survey, photo: PhotoRow, marks: list[_Mark]) -> Iterator[Html]:
    name = photo.name or "the photo"
    if "photo" in photo.pictures:
        yield _figure(photo, "photo", f"Photo {name}", Html("Photo"), marks)
    if "truth" in photo.pictures:
        yield _figure(photo, "truth", f"True depth of {name}", Html("Truth"), ())
    for model in survey.models:
        key = f"depth:{model.name}"
        if key in photo.pictures:
            of_model = [mark for mark in marks if model.name in mark.places]
            caption = joined([breakable(model.name), weights_chip(model)])
            yield _figure(photo, key, f"Depth of {name} by {model.name}", caption, of_model, model=model.name)


def _figure(
    photo: PhotoRow,
    key: str,
    alt: str,
    caption: Html,
    marks: "list[_Mark] | tuple[()]",
    files: Mapping[str, str] | None = None,
    model: str | None = None,
) -> Html:
    height, width = photo.size
    source = address_of((photo.pictures if files is None else files)[key])
    gaps = key != "photo" and (files is not None or (photo.scale is not None and key in photo.scale.gaps))
    image = tag(
        "img", src=source, alt=alt, width=width, height=height, loading="lazy", decoding="async", draggable="false",
        class_="gaps" if gaps else None,
    )  # fmt: skip
    canvas = tag("div", image, _overlay(photo, marks, model), class_="canvas")
    return tag("figure", tag("div", canvas, class_="view"), tag("figcaption", caption), data_key=key)


def _overlay(photo: PhotoRow, marks: "list[_Mark] | tuple[()]", model: str | None) -> Html | None:
    groups, findings = [], sorted({mark.finding for mark in marks})
    by_finding = [{mark.code: mark.box(model) for mark in marks if mark.finding == finding} for finding in findings]
    labels = place_labels(by_finding, photo.size)
    for finding, shown in zip(findings, by_finding, strict=True):
        groups.append(
            tag("g", *(_mark(box, labels[code]) for code, box in shown.items()), class_=f"mark mark-{finding}")
        )
    return tag("svg", *groups, class_="marks", aria_hidden="true") if groups else None


def _mark(box: Box, label: Label) -> Html:
    left, top, width, height = box
    shape = tag("rect", x=percent(left), y=percent(top), width=percent(width), height=percent(height))
    return joined([shape, label.html()])


def _not_aligned(photo: PhotoRow) -> Html | None:
    if photo.scale is None or not photo.scale.own:
        return None
    names = ", ".join(photo.scale.own)
    words = "no positive scale aligns it to the others, so its colours span its own range, and no difference is shown."
    return tag("p", tag("b", names), f": {words}", class_="note")


def _switches(survey: Survey, marks: list[_Mark]) -> Html | None:
    letter = letters(survey)
    switches: list[Html] = []
    for index in sorted({mark.finding for mark in marks}):
        finding = survey.findings[index]
        amount = sum(mark.finding == index for mark in marks)
        line = tag("line", x1=0, y1="50%", x2="100%", y2="50%", class_=f"mark-{index}")
        sample = tag("svg", line, class_="sample", aria_hidden="true")
        box = tag("input", type="checkbox", class_=f"switch-{index}", checked=not switches, autocomplete="off")
        switches.append(tag("label", box, sample, f" {letter[finding.key]} {finding.title} ({amount})"))
    if not switches:
        return None
    return tag("fieldset", tag("legend", "Marked on the pictures"), *switches, class_="switches")


def _numbers(survey: Survey, photo: PhotoRow, marks: list[_Mark]) -> Html | None:
    if not photo.findings:
        return tag("p", "None of the findings has a number for this photo.", class_="note")
    rows, missing = [], []
    letter = letters(survey)
    for index, finding in enumerate(survey.findings):
        answers = photo.findings.get(finding.key)
        if answers is None:
            missing.append(finding)
            continue
        unit = f", {finding.unit}" if finding.unit else ""
        about = tag("small", direction(finding)[0], unit, " ", basis_chip(answers.basis))
        heading = tag("th", f"{letter[finding.key]} {finding.title} ", about, scope="row")
        codes = {model.name: _codes(marks, index, model.name) for model in survey.models}
        rows.append(tag("tr", heading, *_cells(survey.models, answers, finding, codes)))
    columns = [tag("th", "Finding", scope="col"), *(model_heading(model) for model in survey.models)]
    caption = tag("caption", f"Findings in {photo.name or 'this photo'}", class_="unseen")
    table = tag("table", caption, tag("thead", tag("tr", *columns)), tag("tbody", *rows), class_="numbers")
    return joined([scrolling(table, f"Findings in {photo.name}"), unanswered(missing), _further(survey, photo)])


def _codes(marks: list[_Mark], finding: int, model: str) -> str:
    return ", ".join(mark.code for mark in marks if mark.finding == finding and model in mark.places)


def _cells(
    models: list[ModelRow], answers: AnswersRow, finding: FindingRow, codes: Mapping[str, str]
) -> Iterator[Html]:
    values = {model: one.value for model, one in answers.numbers.items()}
    decimals = decimals_of(values.values())
    are_best = best(values, better=finding.better, resolution=finding.resolution)
    for model in models:
        one = answers.numbers.get(model.name)
        if one is None or one.value is None:
            yield tag("td", NOTHING)
            continue
        value: Html = number(one.value, decimals)
        if model.name in are_best:
            value = joined([tag("b", value), tag("span", " best", class_="unseen")])
        code = codes[model.name]
        yield tag("td", value, tag("small", f" {code}") if code else None)


def _further(survey: Survey, photo: PhotoRow) -> Html | None:
    """The numbers beside the main ones."""
    rows = []
    for finding in survey.findings:
        answers = photo.findings.get(finding.key)
        named = {} if answers is None else {key: None for one in answers.numbers.values() for key in one.details}
        for name in named:
            meaning = tag("small", f" {finding.details[name]}") if name in finding.details else None
            values = [_detail(answers, model.name, name) for model in survey.models]
            cells = (tag("td", number(value, decimals_of(values))) for value in values)
            rows.append(
                tag("tr", tag("th", f"{finding.title}: ", tag("code", breakable(name)), meaning, scope="row"), *cells)
            )
    if not rows:
        return None
    columns = [tag("th", "Number", scope="col"), *(model_heading(model) for model in survey.models)]
    table = tag("table", tag("thead", tag("tr", *columns)), tag("tbody", *rows), class_="numbers")
    summary = tag("summary", f"Further numbers ({len(rows)})")
    return tag("details", summary, scrolling(table, f"Further numbers of {photo.name}"))


def _detail(answers: AnswersRow | None, model: str, name: str) -> float | None:
    one = None if answers is None else answers.numbers.get(model)
    return None if one is None else one.details.get(name)


def _places(survey: Survey, marks: list[_Mark]) -> Html | None:
    if not marks:
        return None
    lists = []
    for index in sorted({mark.finding for mark in marks}):
        items = (
            tag(
                "li",
                tag("b", mark.code),
                " ",
                joined(_said(mark), between="; "),
            )
            for mark in marks
            if mark.finding == index
        )
        lists += [tag("h4", survey.findings[index].title), tag("ul", *items, class_="places")]
    return tag("details", tag("summary", f"The marked places in words ({len(marks)})"), *lists, class_="marked")


def _said(mark: _Mark) -> Iterator[Html]:
    """What is seen at a place, and by which models."""
    models: dict[str, list[str]] = {}
    for model, place in mark.places.items():
        models.setdefault(place.text, []).append(model)
    for words, names in models.items():
        yield joined([tag("span", joined(map(breakable, names), between=", "), class_="model"), f": {words}"])


def _differences(photo: PhotoRow) -> Html | None:
    figures = []
    for key in photo.pictures:
        if key.startswith("difference:"):
            a, _, b = key.removeprefix("difference:").partition("|")
            caption = joined([breakable(a), " and ", breakable(b)])
            figures.append(_figure(photo, key, f"Where {a} and {b} differ in {photo.name}", caption, ()))
    if not figures:
        return None
    summary = tag("summary", f"Difference maps ({len(figures)})")
    panes = tag("div", *figures, class_="panes small")
    return tag("details", summary, panes, difference_bar(photo), class_="differences")


def _styles(survey: Survey, photo: PhotoRow) -> Html | None:
    if not photo.styles and not photo.styled_pictures:
        return None
    blocks = []
    for style, files in photo.styled_pictures.items():
        figures = []
        for key in files:
            model = key.removeprefix("depth:")
            what = style if key == "photo" else "truth" if key == "truth" else f"{model}, {style}"
            if not key.startswith("difference:"):
                alt = f"{photo.name} as {style}" if key == "photo" else f"Depth of {photo.name} as {style}: {model}"
                figures.append(_figure(photo, key, alt, breakable(what), (), files))
        blocks.append(tag("div", *figures, class_="panes small"))
    rows = [
        tag("tr", tag("th", style, scope="row"), *_style_cells(survey.models, found))
        for style, found in photo.styles.items()
    ]
    columns = [tag("th", "Style", scope="col"), *(model_heading(model) for model in survey.models)]
    caption = tag("caption", "How far depth moves from the same model's depth of the photo; none is best by this alone")
    table = tag("table", caption, tag("thead", tag("tr", *columns)), tag("tbody", *rows), class_="numbers")
    summary = tag("summary", f"In other styles ({count(len(photo.styles or photo.styled_pictures), 'style')})")
    return tag("details", summary, scrolling(table, f"Styles of {photo.name}") if rows else None, *blocks)


def _style_cells(models: list[ModelRow], found: Mapping[str, NumberRow]) -> Iterator[Html]:
    decimals = decimals_of(one.value for one in found.values())
    for model in models:
        one = found.get(model.name)
        yield tag("td", number(None if one is None else one.value, decimals))


def templates() -> Html:
    """What the script adds to each photo."""
    zoom = tag(
        "div",
        tag("button", "−", type="button", data_zoom="out", aria_label="Zoom out"),
        tag("button", "100 %", type="button", data_zoom="reset", aria_label="Whole picture"),
        tag("button", "+", type="button", data_zoom="in", aria_label="Zoom in"),
        tag("span", "Click or tap a picture, or Ctrl + wheel. Keys: + − 0 and arrows.", class_="hint"),
        class_="tools",
        role="group",
        aria_label="Zoom of all pictures of this photo",
    )
    slide = tag(
        "figure",
        tag("div", tag("div", class_="under"), tag("div", class_="over"), tag("div", class_="handle"), class_="view"),
        tag("input", type="range", min=0, max=100, step=1, value=50, autocomplete="off"),
        tag("figcaption", tag("span", class_="left-name"), tag("span", class_="right-name")),
        class_="slide",
    )
    compare = tag(
        "section",
        tag("h4", "Compare two"),
        tag(
            "div",
            tag("label", "Left ", tag("select", class_="left", autocomplete="off")),
            tag("label", "Right ", tag("select", class_="right", autocomplete="off")),
            class_="pick",
        ),
        tag("div", slide, tag("figure", tag("div", class_="view"), tag("figcaption"), class_="apart"), class_="pair"),
        class_="compare",
    )
    return joined([tag("template", zoom, id="zoom-template"), tag("template", compare, id="compare-template")])
