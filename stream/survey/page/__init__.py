"""`report.html`: a survey as one page that needs nothing from anywhere else, its pictures beside it excepted.

Invariant: everything is there without a script. The script only adds: zoom, the slider between two, the filter.
"""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from stream.files import partial_path
from stream.survey.page.clip import clip_section
from stream.survey.page.html import Html, joined, tag
from stream.survey.page.meaning import meaning_section
from stream.survey.page.photo import photo_article, templates
from stream.survey.page.scale import gradients
from stream.survey.page.table import summary_section
from stream.survey.page.words import count, thing
from stream.survey.record import Survey

_FEW = 12
"""Up to so many photos, their list is open."""
_STROKES = ("none", "7 3", "2 3", "9 3 2 3")
_INKS = ("#ffd54a", "#5fe3ff", "#ff8ad8", "#9dff7a", "#ffa26b", "#b9a8ff", "#ffffff")
"""Of the marks: light, since they have a dark edge. With the strokes, 28 findings look different; letters tell, too."""


def page(survey: Survey) -> str:
    """The page of a survey."""
    style = _asset("report.css") + _mark_rules(len(survey.findings))
    script = _asset("report.js")
    title = f"Depth survey of {survey.source or 'photos'}" + ("" if survey.is_complete else " (not complete)")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=survey.program),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        Html(f"<style>{style}</style>"),
    )
    body = tag(
        "body",
        gradients(survey.colormap),
        _header(survey),
        tag("main", *_sections(survey), id="main"),
        _footer(survey),
        templates(),
        Html(f"<script>{script}</script>"),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Allows this page's own style and script and the files beside it, and nothing else."""
    beside = "'self' file:"  # browsers differ in what 'self' is for a page that was opened from the disk
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        f"img-src {beside} data:; media-src {beside}; base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _mark_rules(findings: int) -> str:
    """The look of each finding's marks, and that its switch shows them."""
    rules = []
    for index in range(findings):
        ink, stroke = _INKS[index % len(_INKS)], _STROKES[index % len(_STROKES)]
        rules.append(f".mark-{index}{{stroke:{ink};fill:{ink};stroke-dasharray:{stroke}}}")
        rules.append(f".photo:has(.switch-{index}:checked) .marks .mark-{index}{{display:inline}}")
    return "\n".join(rules) + "\n"


def _header(survey: Survey) -> Html:
    looked = count(len(survey.photos), thing(survey))
    amounts = f"{count(len(survey.models), 'model')} on {looked}"
    if survey.video is not None:
        amounts += f" of {survey.video.frames:,}"
    lead = amounts if not survey.source else f"{amounts}. Source: {survey.source}"
    stopped = survey.stopped_by or "it was stopped"
    done = f"This survey is not complete: {stopped}. What is here was finished: {looked}."
    links = [("summary", "Summary"), ("meaning", "What the numbers mean"), ("photos", f"{thing(survey)}s".capitalize())]
    if survey.video is not None:
        links.insert(0, ("clip", "The clip"))
    if survey.skipped:
        links.append(("skipped", "Skipped"))
    items = (tag("li", tag("a", label, href=f"#{anchor}")) for anchor, label in links)
    return tag(
        "header",
        tag("h1", "Depth survey"),
        tag("p", lead, class_="lead"),
        None if survey.is_complete else tag("p", tag("strong", "Partial. "), done, class_="banner", id="partial"),
        tag("nav", tag("ul", *items), aria_label="Contents"),
    )


def _sections(survey: Survey) -> list[Html]:
    sections = [summary_section(survey), meaning_section(survey), _photos(survey)]
    if survey.video is not None:
        sections.insert(0, clip_section(survey, survey.video))
    if survey.skipped:
        rows = (tag("li", tag("b", row.name), f": {row.reason}") for row in survey.skipped)
        heading = tag("h2", f"Skipped: {count(len(survey.skipped), 'photo')}")
        sections.append(tag("section", heading, tag("ul", *rows), id="skipped"))
    return sections


def _photos(survey: Survey) -> Html:
    title = f"{thing(survey)}s".capitalize()
    if not survey.photos:
        return tag("section", tag("h2", title), tag("p", "No photo was surveyed."), id="photos")
    names = [
        tag("li", tag("a", photo.name or f"photo {place}", href=f"#photo-{place}"))
        for place, photo in enumerate(survey.photos, 1)
    ]
    found = tag("output", count(len(names), thing(survey)), id="found", for_="filter")
    box = tag("input", type="search", id="filter", autocomplete="off", spellcheck="false")
    filter_form = tag("search", tag("label", "Show only names with ", box), found, class_="filter", hidden=True)
    index = tag(
        "details",
        tag("summary", f"List of {count(len(names), thing(survey))}"),
        tag("ol", *names, class_="index"),
        open=len(names) <= _FEW,
    )
    articles = (photo_article(survey, place) for place in range(1, len(survey.photos) + 1))
    return tag("section", tag("h2", title), filter_form, index, joined(articles, between="\n"), id="photos")


def _footer(survey: Survey) -> Html:
    names = [Path("survey.json"), Path("survey.csv")]
    links = (tag("a", name, href=name) for name in (_name(path, survey) for path in names))
    return tag("footer", tag("p", f"Made by {survey.program}. The same numbers: ", joined(links, between=", "), "."))


def _name(path: Path, survey: Survey) -> str:
    return path.name if survey.is_complete else partial_path(path).name
