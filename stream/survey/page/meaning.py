"""What each finding means: question, definition, unit, direction."""

from stream.survey.page.html import Html, joined, tag
from stream.survey.page.words import direction, every_finding, letters
from stream.survey.record import RESOLUTION, FindingRow, Survey
from stream.survey.styled import MOVED, MOVED_DETAILS

STYLES = "styles"
"""The key of what the number of a style means."""
_MOVED = FindingRow(
    key=STYLES,
    title="Styles",
    question="How far does depth move if the photo is drawn in another style?",
    unit="",
    better="neither",
    definition=MOVED,
    details=MOVED_DETAILS,
)


def meaning_section(survey: Survey) -> Html:
    """The legend of the findings."""
    findings, letter = every_finding(survey), letters(survey)
    entries = [_entry(one, f"{letter[one.key]} {one.title}") for one in findings if one.key in letter]
    if survey.style_summary:
        entries.append(_entry(_MOVED, _MOVED.title))
    others = _not_asked([one for one in findings if one.key not in letter])
    return tag("section", tag("h2", "What the numbers mean"), joined(entries, between="\n"), others, id="meaning")


_NEEDS = {
    "accuracy": "a truth",
    "background_order": "a truth",
    "deep": "a truth",
    "thin": "thin structures",
    "leak": "planes with a texture",
    "background": "a background",
    "crispness": "edges",
    "deep_levels": "a depth that is not constant",
    "sky": "a sky",
    "small": "small things",
    "flicker": "two frames of one scene",
    "drift": "a second that stands still",
    "cuts": "a cut",
}
"""What a photo or a clip must have to ask for a finding."""


def _not_asked(findings: list[FindingRow]) -> Html | None:
    """The findings without a number here."""
    if not findings:
        return None
    by_need: dict[str, list[str]] = {}
    for finding in findings:
        by_need.setdefault(_NEEDS.get(finding.key, "something that is not here"), []).append(finding.title)
    needs = (f"{', '.join(titles)} (needs {need})" for need, titles in by_need.items())
    words = tag("p", f"Not asked here: {'; '.join(needs)}.", class_="note")
    return joined([words, *(_entry(finding, finding.title) for finding in findings)], between="\n")


def _entry(finding: FindingRow, title: str) -> Html:
    unit = finding.unit or "none: a share or a ratio"
    facts = joined(
        [
            tag("p", finding.definition),
            tag("p", tag("b", "Unit: "), unit, ". ", tag("b", direction(finding)), ". ", _alike(finding)),
            tag("dl", *_terms(finding)) if finding.details else None,
        ]
    )
    summary = tag("summary", tag("b", f"{title}. "), finding.question, " ", _short(finding))
    return tag("details", summary, facts, class_="finding", id=f"finding-{finding.key}")


def _alike(finding: FindingRow) -> str | None:
    if finding.better == "neither" or finding.resolution <= RESOLUTION:
        return None
    return f"Numbers that differ by {finding.resolution:g} or less are alike."


def _short(finding: FindingRow) -> Html:
    unit = f", in {finding.unit}" if finding.unit else ""
    return tag("small", f"{direction(finding)}{unit}")


def _terms(finding: FindingRow) -> list[Html]:
    return [joined([tag("dt", tag("code", name)), tag("dd", meaning)]) for name, meaning in finding.details.items()]
