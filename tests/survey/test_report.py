"""The page of a survey as its HTML says it, without a browser: complete, self-contained, escaped, honest."""

import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from stream.survey.clip.findings import CLIP_FINDINGS
from stream.survey.findings.every import FINDINGS as FINDINGS_OF_PHOTOS
from stream.survey.page import page
from stream.survey.page.html import Html, tag
from stream.survey.page.labels import place_labels
from stream.survey.page.words import letters, metres, number
from stream.survey.record import AnswersRow, NumberRow, PhotoRow, PlaceRow, Survey
from stream.survey.summary import finding_rows, rows_of, styles_summarised
from tests.support.survey_reports import FINDINGS, MODELS, ODD_NAMES, model_row, survey_of, write_report

VOID = {"br", "img", "input", "link", "meta", "wbr"}


class Parsed(HTMLParser):
    """Every element with its attributes, and the text; fails where a tag is not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, {key: value or "" for key, value in attributes}))
        if name not in VOID:
            self._open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self._open.pop() == name

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    def all(self, name: str, **wanted: str) -> list[dict[str, str]]:
        return [
            attributes
            for element, attributes in self.elements
            if element == name and all(attributes.get(key) == value for key, value in wanted.items())
        ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Survey, Parsed]:
    folder = tmp_path_factory.mktemp("report")
    survey = write_report(folder)
    return folder, survey, Parsed((folder / "report.html").read_text(encoding="utf-8"))


def test_every_picture_is_there_described_and_sized(report: tuple[Path, Survey, Parsed]) -> None:
    folder, survey, parsed = report
    images = parsed.all("img")
    shown = {unquote(image["src"]) for image in images}
    assert shown == {path for photo in survey.photos for path in photo.pictures.values()}
    assert len({image["alt"] for image in images}) == len(images) == 36
    for image in images:
        assert image["loading"] == "lazy"
        assert not re.search(r"[^\w/.%~()!*'-]", image["src"], re.ASCII), "an address needs no quoting"
        with Image.open(folder / unquote(image["src"])) as picture:
            assert picture.size == (int(image["width"]), int(image["height"])) == (128, 96)


def test_nothing_comes_from_anywhere_else(report: tuple[Path, Survey, Parsed]) -> None:
    folder, _, parsed = report
    source = (folder / "report.html").read_text(encoding="utf-8")
    for name, attributes in parsed.elements:
        for key in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
            if key in attributes and name != "a":
                assert "://" not in attributes[key], (name, attributes)
        assert not [key for key in attributes if key.startswith("on") or key == "style"], "the policy forbids these"
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)
    (policy,) = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]


def test_ids_are_unique_and_links_lead_somewhere(report: tuple[Path, Survey, Parsed]) -> None:
    _, _, parsed = report
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    inner = [link["href"][1:] for link in parsed.all("a") if link["href"].startswith("#")]
    assert set(inner) <= set(ids)
    assert {f"photo-{place}" for place in range(1, len(ODD_NAMES) + 1)} <= set(inner)


def test_names_reasons_and_texts_are_text(report: tuple[Path, Survey, Parsed]) -> None:
    _, _, parsed = report
    assert len(parsed.all("script")) == 1
    for said in (
        *ODD_NAMES,
        "broken <b>.jpg: is cut off",
        "my <fine> tune.pt",
        "contrast <0.1 & faint",
        "<a few pixels",
    ):
        assert said in parsed.text
    titles = [photo.name for photo in report[1].photos]
    assert [f"Photo {name}" for name in titles] == [
        image["alt"] for image in parsed.all("img") if "Photo" in image["alt"]
    ]


def test_a_name_that_is_not_utf8_or_reverses_a_line_is_shown_as_its_codes(tmp_path: Path) -> None:
    survey = survey_of([], skipped=[{"name": "a\udcff\u202egpj.exe", "reason": "line 1\nline 2"}])
    source = page(survey)
    assert "a\\xff\\u202egpj.exe" in source
    source.encode("utf-8")


def test_a_number_is_never_without_what_it_is_measured_against(report: tuple[Path, Survey, Parsed]) -> None:
    _, survey, parsed = report
    said = "B Thin structures↑ higher is bettertruth 2 photos; 2 photos measured otherwise left out"
    assert said in parsed.text, "an error and an opinion have no mean"
    assert "models that agree are not thereby right" in parsed.text
    chips = [attributes["class"] for _, attributes in parsed.elements if "chip" in attributes.get("class", "").split()]
    of_photos = sum(len(photo.findings) for photo in survey.photos)
    of_summary = len(survey.summary)
    with_truth = 2
    bases = [chip for chip in chips if chip.split()[1] in ("truth", "models", "picture")]
    assert len(bases) == of_photos + of_summary + with_truth + 3, "and the three explanations"


def test_agreement_of_models_is_an_opinion(tmp_path: Path) -> None:
    numbers = {model: NumberRow(value=0.5) for model in MODELS}
    folder = tmp_path / "report"
    survey = write_report(folder, ["a.jpg"])
    photo = survey.photos[0].model_copy(
        update={"has_truth": False, "findings": {"crispness": AnswersRow(basis="models", numbers=numbers)}}
    )
    photo = photo.model_copy(update={"pictures": {k: v for k, v in photo.pictures.items() if "truth" not in k}})
    text = Parsed(page(survey_of([photo], findings=[FINDINGS[2]]))).text
    assert "opinion Measured against what these models say together, which may be wrong" in text
    assert "truth" not in text.lower()


def test_the_best_is_bold_for_eyes_and_ears(report: tuple[Path, Survey, Parsed]) -> None:
    folder, survey, _ = report
    source = (folder / "report.html").read_text(encoding="utf-8")
    table = source.partition('id="summary"')[2].partition("</table>")[0]
    for finding, found in survey.summary.items():
        (best,) = [row for row in found.values() if row.is_best]
        row = table.partition(f'href="#finding-{finding}"')[2].partition("</tr>")[0]
        assert row.count("<b>") == 1
        assert f'<b>{number(best.mean)}</b><span class="unseen"> best</span>' in row
        assert f"±\u00a0{number(best.spread)}" in row


def test_weights_that_are_not_the_published_ones_are_marked_everywhere(report: tuple[Path, Survey, Parsed]) -> None:
    _, survey, parsed = report
    marks = parsed.text.count("not the published weights")
    tables = 1 + 2 * len(survey.photos)  # the summary; numbers and further numbers of each photo
    assert marks == tables + len(survey.photos), "and the picture of each photo"
    assert "midas_v21_small_256: the weights are not the ones that the authors published" in parsed.text
    assert "not the published ones (my <fine> tune.pt)" in parsed.text
    unknown = survey.model_copy(update={"models": [model_row(name, is_published=None) for name in MODELS]})
    assert Parsed(page(unknown)).text.count("weights of unknown origin") == len(MODELS) * marks


def test_a_partial_survey_says_so_first(tmp_path: Path) -> None:
    survey = write_report(tmp_path, ["a.jpg"], is_complete=False, stopped_by="the disk is full <x>")
    parsed = Parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = parsed.text
    assert parsed.all("a", href="survey.partial.json"), "the numbers beside it"
    assert "not complete: the disk is full <x>. What is here was finished: 1 photo." in text
    assert text.index("not complete: the disk") < text.index("Summary")
    assert "not complete" not in Parsed(page(survey.model_copy(update={"is_complete": True}))).text


def test_a_survey_that_ended_before_its_first_photo_has_a_page() -> None:
    text = Parsed(page(survey_of([], models=(), is_complete=False, stopped_by="interrupted"))).text
    assert "No photo was surveyed" in text


def test_a_map_that_cannot_be_aligned_says_so(tmp_path: Path) -> None:
    survey = write_report(tmp_path, ["a.jpg"])
    photo = survey.photos[0]
    assert photo.scale is not None
    scale = photo.scale.model_copy(update={"own": {MODELS[1]: (0.0, 1.0)}})
    text = Parsed(page(survey_of([photo.model_copy(update={"scale": scale})]))).text
    assert f"{MODELS[1]}: no positive scale aligns it" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (0.0, "0.000"), (-0.0001, "0.000"), (0.12349, "0.123"), (-1.5, "−1.500"), (9.9999, "10.0"),
        (12.34, "12.3"), (999.4, "999.4"), (1234.5, "1,234"), (-0.4, "−0.400"),
    ],
)  # fmt: skip
def test_numbers_have_three_or_four_digits(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_distances_come_from_disparities() -> None:
    assert (metres(0.5), metres(0.0), metres(-1.0), metres(1e-320)) == ("2\u00a0m", *["infinitely far"] * 3)


def test_there_are_letters_for_any_number_of_findings() -> None:
    many = [FINDINGS[0].model_copy(update={"key": str(index)}) for index in range(28)]
    answers = AnswersRow(basis="truth", numbers={})
    photo = PhotoRow(name="a", size=(2, 2), has_truth=True, pictures={}, findings={one.key: answers for one in many})
    found = list(letters(survey_of([photo], findings=many)).values())
    assert (found[0], found[25], found[26], found[27]) == ("A", "Z", "AA", "AB")


def test_only_what_was_asked_has_a_letter_and_the_rest_says_what_it_needs(tmp_path: Path) -> None:
    photo = write_report(tmp_path, ["a.jpg"]).photos[0]
    asked = {key: photo.findings[key] for key in ("thin", "crispness")}
    survey = survey_of([photo.model_copy(update={"findings": asked})])
    assert letters(survey) == {"thin": "A", "crispness": "B"}
    text = Parsed(page(survey)).text
    assert "A Thin structures. Do thin things" in text
    assert "Not asked here: Accuracy (needs a truth); Sky (needs a sky)." in text
    assert text.index("Not asked here") < text.index("Accuracy. How far is depth") < text.index("Sky. Is the sky")


def test_every_finding_that_was_not_asked_says_what_it_needs() -> None:
    rows = [*finding_rows(FINDINGS_OF_PHOTOS), *CLIP_FINDINGS]
    text = Parsed(page(survey_of([], findings=rows, summary={}))).text
    said = text.partition("Not asked here: ")[2].partition("Accuracy. ")[0]
    assert all(row.title in said for row in rows)
    assert "something" not in said


def test_places_that_models_share_are_marked_once(tmp_path: Path) -> None:
    photo = write_report(tmp_path, ["a.jpg"]).photos[0]
    boxes = [(0.1, 0.1, 0.2, 0.2), (0.11, 0.1, 0.2, 0.21), (0.2, 0.2, 0.2, 0.2)]
    places = [PlaceRow(box=box, text=f"seen {number}") for number, box in enumerate(boxes)]
    numbers = {
        MODELS[0]: NumberRow(value=0.5, places=[places[0], places[2]]),
        MODELS[1]: NumberRow(value=0.4, places=[places[1]]),
    }
    findings = {"thin": AnswersRow(basis="models", numbers=numbers)}
    source = page(survey_of([photo.model_copy(update={"findings": findings})]))
    figures = {part.partition('"')[0]: part.partition("</figure>")[0] for part in source.split('data-key="')[1:]}
    codes = {key: re.findall(r">(A\d+)</text>", figure) for key, figure in figures.items()}
    assert (codes["photo"], codes[f"depth:{MODELS[0]}"], codes[f"depth:{MODELS[1]}"]) == (
        ["A1", "A2"],
        ["A1", "A2"],
        ["A1"],
    )
    assert 'x="10%" y="10%" width="20%" height="20%"' in figures["photo"]
    assert 'x="11%" y="10%" width="20%" height="21%"' in figures[f"depth:{MODELS[1]}"], "its own box"
    text = Parsed(source).text
    assert f"A1 {MODELS[0]}: seen 0; {MODELS[1]}: seen 1" in text
    assert f"A2 {MODELS[0]}: seen 2" in text


def test_the_colour_of_no_answer_is_explained_where_there_is_one(tmp_path: Path) -> None:
    photo = write_report(tmp_path, ["a.jpg"]).photos[0]
    assert photo.scale is not None
    assert "no answer" not in Parsed(page(survey_of([photo]))).text
    for gaps, bars in (([f"depth:{MODELS[0]}"], 1), ([f"depth:{MODELS[0]}", f"difference:truth|{MODELS[0]}"], 2)):
        scale = photo.scale.model_copy(update={"gaps": gaps})
        parsed = Parsed(page(survey_of([photo.model_copy(update={"scale": scale})])))
        assert parsed.text.count("Hatched: no answer.") == bars
        shown = [image["src"] for image in parsed.all("img", **{"class": "gaps"})]
        assert {unquote(source) for source in shown} == {photo.pictures[key] for key in gaps}


def test_no_style_is_best_since_a_model_may_not_move_for_it_sees_nothing(tmp_path: Path) -> None:
    photo = write_report(tmp_path, ["a.jpg"]).photos[0]
    styles = {"line": {model: NumberRow(value=value) for model, value in zip(MODELS, (0.0, 0.25, 12.5), strict=True)}}
    photos = [photo.model_copy(update={"styles": styles})]
    summary = styles_summarised(photos, ["line"], MODELS)
    source = page(survey_of(photos, style_summary=summary))
    row = source.partition('href="#finding-styles"')[2].partition("</tr>")[0]
    assert "as of a model that answers the same to every picture" in row
    assert "<b>" not in row + source.partition("In other styles")[2].partition("</table>")[0]
    assert re.findall(r"<td>([\d.]+)", row) == ["0.0", "0.2", "12.5"], "as many decimals as the largest"
    assert "answers the same to every picture does not move at all" in Parsed(source).text


def test_a_mean_and_its_spread_have_the_same_decimals() -> None:
    values = {MODELS[0]: [21.0, 9.0], MODELS[1]: [1.0, 1.0], MODELS[2]: [4.0, 5.5]}
    found = {"crispness": rows_of(values, better="lower", basis="models")}
    source = page(survey_of([], findings=[FINDINGS[2]], summary=found))
    row = source.partition('href="#finding-crispness"')[2].partition("</tr>")[0]
    assert re.findall(r"\d+\.\d+(?= ?<)", row) == ["15.0", "8.5", "1.0", "0.0", "4.8", "1.1"]


@pytest.mark.parametrize("size", [(96, 128), (128, 96), (256, 96)])
def test_codes_do_not_cover_each_other(size: tuple[int, int]) -> None:
    boxes = {f"A{i + 1}": (0.1 + 0.03 * (i % 3), 0.02 + 0.05 * (i // 3), 0.3, 0.2) for i in range(6)}
    boxes |= {"A7": (0.7, 0.0, 0.04, 0.01), "A8": (0.72, 0.0, 0.02, 0.01)}
    labels = place_labels([boxes], size)
    em = (1 / 15, size[1] / size[0] / 15) if size[0] <= 1.6 * size[1] else (1 / 11, size[1] / size[0] / 11)
    covered = []
    for code, label in labels.items():
        wide = 0.65 * len(code) * em[0]
        left = label.x + label.dx * em[0] - {"start": 0, "middle": wide / 2, "end": wide}[label.anchor]
        bottom = label.y + label.dy * em[1]
        assert -0.01 <= left <= 1 - wide
        assert 0.7 * em[1] <= bottom <= 1
        covered.append((left, bottom - 0.75 * em[1], left + wide, bottom))
    both = place_labels([{"A1": boxes["A1"]}, {"B1": boxes["A1"]}], size)
    places = [(label.x, label.y, label.anchor, label.dy) for label in both.values()]
    assert places[0] != places[1], "nor those of two findings"
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(covered, 2):
        assert c <= e or g <= a or d <= f or h <= b


def test_text_becomes_markup_only_through_an_element() -> None:
    assert tag("p", "<b>", Html("<i></i>"), title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></i></p>'
    assert tag("input", hidden=True, checked=False, data_key=0) == '<input hidden data-key="0">'
