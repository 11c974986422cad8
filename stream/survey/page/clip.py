"""A clip on the page: the film of all models, its cuts, and why its frames were chosen.

Invariant: the film plays without a script, and nothing of it is loaded before somebody wants to see it.
"""

from stream.survey.page.html import Html, address_of, joined, tag
from stream.survey.page.table import model_heading, scrolling
from stream.survey.page.words import NOTHING, count, number
from stream.survey.record import ClipRow, CutRow, Survey

_WHY = {
    "even": "one of those that are spread evenly",
    "cut": "the first after a cut",
    "difference": "the models differ much here",
}


def clip_section(survey: Survey, clip: ClipRow) -> Html:
    """The film and what belongs to all of the clip."""
    seconds = clip.end_s - clip.start_s
    about = f"{count(clip.frames, 'frame')} from {clip.start_s:.2f} s to {clip.end_s:.2f} s"
    found = f"{count(clip.cut_count, 'cut')} found in the picture" if seconds > 0 else None
    return tag(
        "section",
        tag("h2", "The clip"),
        tag("p", about, f"; {found}" if found else None, "."),
        _film(survey, clip),
        *(tag("p", note, class_="note") for note in clip.notes),
        _cuts(survey, clip),
        id="clip",
    )


def _film(survey: Survey, clip: ClipRow) -> Html | None:
    if not clip.video:
        return tag("p", "There is no film: it could not be written.", class_="note")
    names = ", ".join(model.name for model in survey.models)
    film = tag(
        "video",
        tag("a", clip.video, href=address_of(clip.video)),
        src=address_of(clip.video),
        controls=True,
        muted=True,
        loop=True,
        playsinline=True,
        preload="metadata",
        aria_label=f"The clip and its depth by {names}, side by side",
    )
    words = f"The clip, then {names}: in the same colours, which follow the range of the first model. Also as a file: "
    link = tag("a", clip.video, href=address_of(clip.video))
    return tag("figure", film, tag("figcaption", words, link, "."), class_="film")


def _cuts(survey: Survey, clip: ClipRow) -> Html | None:
    if not clip.cuts:
        return None
    rows = (tag("tr", tag("th", f"{cut.time_s:.2f} s", scope="row"), *_cells(survey, cut)) for cut in clip.cuts)
    columns = [tag("th", "Cut at", scope="col"), *(model_heading(model) for model in survey.models)]
    caption = tag("caption", "Share of the old scene in the first frame after each cut; frames that are late")
    table = tag("table", caption, tag("thead", tag("tr", *columns)), tag("tbody", *rows), class_="numbers")
    shown = len(clip.cuts)
    of = f" of {clip.cut_count}" if clip.cut_count != shown else ""
    return tag("details", tag("summary", f"Cuts ({shown}{of})"), scrolling(table, "Cuts"))


def _cells(survey: Survey, cut: CutRow) -> list[Html]:
    cells = []
    for model in survey.models:
        share, late = cut.leftover.get(model.name), cut.late.get(model.name)
        waits = tag("small", f" {count(late, 'frame')} late") if late else None
        cells.append(tag("td", NOTHING if share is None else joined([number(share), waits])))
    return cells


def why_chosen(survey: Survey, position: int) -> Html | None:
    """Why a frame of a clip is among those that are shown; None for a photo."""
    if survey.video is None:
        return None
    row = survey.video.strip[position - 1]
    return tag("p", "; ".join(_WHY[why] for why in row.why).capitalize(), ".", class_="why")
