"""Which models are best: ties, numbers that say nothing of it, and models without an answer."""

from collections.abc import Mapping

import pytest

from stream.survey.best import best
from stream.survey.findings.base import Basis, Finding
from stream.survey.page import page
from stream.survey.record import AnswersRow, Better, NumberRow, PhotoRow
from stream.survey.summary import finding_rows, styles_summarised, summarised
from stream.survey.table import table
from tests.support.survey_reports import survey_of


def finding(better: Better, resolution: float) -> Finding:
    return Finding(
        key="made",
        title="Made",
        question="?",
        unit="",
        better=better,
        definition="Made up.",
        measure=lambda _: None,
        resolution=resolution,
    )


def photo(name: str, numbers: Mapping[str, float | None]) -> PhotoRow:
    rows = {model: NumberRow(value=value) for model, value in numbers.items()}
    answers = {"made": AnswersRow(basis=Basis.TRUTH.value, numbers=rows)}
    return PhotoRow(name=name, size=(1, 1), has_truth=True, pictures={}, findings=answers)


@pytest.mark.parametrize(
    ("better", "resolution", "expected"),
    [
        ("lower", 1e-6, {"a", "b"}),
        ("lower", 0.005, {"a", "b", "c"}),
        ("higher", 1e-6, {"d"}),
        ("neither", 1e-6, set()),
    ],
)
def test_what_differs_by_less_than_a_number_can_tell_is_alike(
    better: Better, resolution: float, expected: set[str]
) -> None:
    numbers = {"a": 0.0, "b": 1e-7, "c": 0.004, "d": 0.5, "e": None}
    assert best(numbers, better=better, resolution=resolution) == expected
    made = finding(better, resolution)
    photos = [photo("x.jpg", numbers)]
    found = summarised(photos, [made], tuple(numbers))["made"]
    assert {model for model, row in found.items() if row.is_best} == expected
    facts = finding_rows([made])
    html = page(survey_of(photos, models=tuple(numbers), findings=facts, summary={"made": found}))
    assert html.count('<span class="unseen"> best</span>') == 2 * len(expected), "in the summary and in the photo"
    assert f"{better} is better" in html
    assert ("differ by 0.005 or less are alike" in html) == (resolution == 0.005)
    assert f",{better},truth" in table(survey_of(photos, models=tuple(numbers), findings=facts))


def test_means_are_over_the_photos_that_all_models_answer() -> None:
    made, models = finding("lower", 1e-6), ("a", "b", "silent")
    photos = [
        photo("easy", {"a": 0.03, "b": 0.04, "silent": None}),
        photo("hard", {"a": 0.5, "b": None, "silent": None}),
    ]
    found = summarised(photos, [made], models)["made"]
    assert [(found[name].mean, found[name].photos, found[name].is_best) for name in models] == [
        (0.03, 1, True), (0.04, 1, False), (None, 0, False),
    ]  # fmt: skip
    html = page(survey_of(photos, models=models, findings=finding_rows([made]), summary={"made": found}))
    assert "1 photo; 1 photo that not all models answer left out" in html
    apart = [photo("x", {"a": 0.1, "b": None}), photo("y", {"a": None, "b": 0.2})]
    rows = summarised(apart, [made], ("a", "b"))["made"]
    assert [(row.mean, row.photos, row.is_best) for row in rows.values()] == [(0.1, 1, False), (0.2, 1, False)]
    styled = [
        PhotoRow(name=one.name, size=(1, 1), has_truth=False, pictures={}, findings={}, styles={"line": numbers})
        for one in photos
        for numbers in [one.findings["made"].numbers]
    ]
    style = styles_summarised(styled, ["line"], models)["line"]
    assert [(style[name].mean, style[name].photos) for name in ("a", "b")] == [(0.03, 1), (0.04, 1)]


@pytest.mark.parametrize("numbers", [{"a": None, "b": None}, {"a": 0.0, "b": 0.0}, {"a": 0.5, "b": None}])
def test_where_nothing_tells_models_apart_none_is_best(numbers: dict[str, float | None]) -> None:
    assert best(numbers, better="lower") == frozenset()
