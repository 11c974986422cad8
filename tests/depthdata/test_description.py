"""What files of numbers say of themselves."""

from dataclasses import replace

import pytest

from stream.depthdata.description import Description
from stream.frames import DepthKind


@pytest.mark.parametrize(
    ("read", "stated"),
    [
        ("/home/someone/clips/a b.mp4", "a b.mp4"),
        ("../clips/a.mp4", "a.mp4"),
        ("clips/", "clips"),
        ("photos/*.jpg", "*.jpg"),
        ("cam:0", "cam:0"),
        ("pattern:testsrc2", "pattern:testsrc2"),
        ("", ""),
        ("rtsp://camera.example/stream/1", "rtsp://camera.example/stream/1"),
    ],
)
def test_a_file_names_its_source_without_the_folders_it_lay_in(read: str, stated: str) -> None:
    assert Description(kind=DepthKind.METRIC_DEPTH, source=read).source == stated


def test_a_file_names_no_secret_of_a_url() -> None:
    stated = Description(kind=DepthKind.METRIC_DEPTH, source="rtsp://me:secret@camera.example/1?token=hidden").source
    assert "camera.example" in stated
    assert "secret" not in stated
    assert "hidden" not in stated


def test_a_file_states_whether_its_values_are_the_models_own() -> None:
    plain = Description(kind=DepthKind.METRIC_DEPTH)
    changed = replace(plain, refined=True, steadied=True)
    assert Description.from_json(changed.as_json()) == changed
    older = {key: value for key, value in plain.as_fields().items() if key not in ("refined", "steadied")}
    assert Description.from_fields(older) == plain
    assert plain.difference(changed) == "refined is false and true"
    with pytest.raises(ValueError, match='steadied must be true or false, got "yes"'):
        Description.from_fields({**older, "steadied": "yes"})
