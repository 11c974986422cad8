"""`survey.csv` as a spreadsheet or a data frame reads it."""

import csv
import io
from pathlib import Path

from stream.survey.record import NumberRow
from stream.survey.table import COLUMNS, table
from tests.support.survey_reports import MODELS, ODD_NAMES, survey_of, write_report


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_number_of_the_record_is_in_the_table(tmp_path: Path) -> None:
    survey = write_report(tmp_path)
    rows = read(table(survey))
    assert list(rows[0]) == list(COLUMNS)
    found = {
        (row["photo"], row["finding"], row["detail"], row["model"]): (row["value"], row["unit"], row["basis"])
        for row in rows
    }
    wanted = {}
    for photo in survey.photos:
        for key, answers in photo.findings.items():
            for model, one in answers.numbers.items():
                unit = "px" if key == "crispness" else ""
                wanted[photo.name, key, "", model] = (f"{one.value:.6g}", unit, answers.basis)
                for detail, value in one.details.items():
                    wanted[photo.name, key, detail, model] = (f"{value:.6g}", "", answers.basis)
    assert found == wanted
    assert len(rows) == len(wanted)
    assert {row["photo"] for row in rows} == set(ODD_NAMES)


def test_styles_have_rows_and_what_has_no_answer_an_empty_cell(tmp_path: Path) -> None:
    photo = write_report(tmp_path, ["a.jpg"]).photos[0]
    styles = {"cartoon": {MODELS[0]: NumberRow(value=0.25), MODELS[1]: NumberRow(value=None)}}
    rows = read(table(survey_of([photo.model_copy(update={"styles": styles})])))
    values = {row["model"]: (row["value"], row["better"]) for row in rows if row["style"] == "cartoon"}
    assert values == {MODELS[0]: ("0.25", "neither"), MODELS[1]: ("", "neither")}


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    names = ["=1+1.jpg", "+a.jpg", "-a.jpg", '@a,"b".jpg', "a=b.jpg"]
    rows = read(table(write_report(tmp_path, names)))
    assert [*dict.fromkeys(row["photo"] for row in rows)] == [f"./{name}" for name in names[:4]] + names[4:]
