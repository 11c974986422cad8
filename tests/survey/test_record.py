"""`survey.json` and the schema that other programs hold it to."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from stream.frames import ComparedDepth, Depth, DepthKind, Frame, SourceInfo, SourceKind
from stream.survey.findings.every import FINDINGS
from stream.survey.record import VERSION
from stream.survey.scene import Truth
from stream.survey.sink import NUMBERS, SurveySink
from tests.support.paths import REPOSITORY
from tests.support.survey_reports import MODELS, ODD_NAMES, scene, write_report

SCHEMA = REPOSITORY / "docs" / "survey.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`survey.json` as the sink writes it, of two photos, one with a truth."""
    folder = tmp_path_factory.mktemp("survey") / "out"
    scenes = [scene(name, has_truth=place == 0) for place, name in enumerate(ODD_NAMES[:2])]

    def truth_of(frame: Frame) -> Truth | None:
        return scenes[frame.index].truth

    sink = SurveySink(folder, MODELS, FINDINGS, truth_of=truth_of, colormap="viridis")
    info = SourceInfo(
        name="photos", size=scenes[0].size, is_live=False, time_base=Fraction(1, 25), rate=None, frame_count=2,
        kind=SourceKind.STILLS, names=tuple(one.name for one in scenes),
    )  # fmt: skip
    sink.open(info, info.size)
    for index, one in enumerate(scenes):
        frame = Frame(index=index, pts=index, time_base=info.time_base, captured_at=0.0, rgb=one.rgb, name=one.name)
        first, *others = [
            Depth(values=values.astype(np.float32), kind=DepthKind.RELATIVE_DISPARITY, index=index, model=name)
            for name, values in one.raw.items()
        ]
        sink.write(frame, ComparedDepth.of(first, others), one.rgb)
    sink.finish()
    return json.loads((folder / NUMBERS).read_text(encoding="utf-8"))


def test_a_written_survey_is_valid(validator: Draft202012Validator, written: Any) -> None:
    validator.validate(written)
    assert written["version"] == VERSION
    assert [photo["name"] for photo in written["photos"]] == list(ODD_NAMES[:2])
    assert written["photos"][0]["findings"]


def test_a_record_with_everything_in_it_is_valid(validator: Draft202012Validator, tmp_path: Path) -> None:
    survey = write_report(tmp_path, ODD_NAMES[:2], is_complete=False, stopped_by="interrupted")
    validator.validate(json.loads(survey.model_dump_json()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("photos", 0, "findings", "accuracy", "basis"), "opinion"),
        (("photos", 0, "findings", "accuracy", "numbers", MODELS[0], "value"), "0.5"),
        (("photos", 0, "size"), [1, 2, 3]),
        (("photos", 0, "colour"), "red"),
        (("photos",), None),
    ],
)
def test_the_schema_refuses_what_is_no_survey(
    validator: Draft202012Validator, written: Any, path: tuple[str | int, ...], value: object
) -> None:
    broken = json.loads(json.dumps(written))
    inner = broken
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert not validator.is_valid(broken)
