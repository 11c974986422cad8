"""Damaged images of every format, alone and as the first of a folder."""

import warnings
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.capture.open import open_source
from stream.config import CaptureConfig
from tests.fuzz.limits import fuzzed, limited, may_be_refused
from tests.fuzz.mutation import Change, changed, changes
from tests.support import picture_files as files

SMALL = CaptureConfig(max_pixels=1_000_000, max_frames=20)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in files.one_of_each(tmp_path_factory.mktemp("whole"))]


def read(path: Path) -> None:
    with closing(open_source(str(path), options=SMALL)) as source:
        for frame in source:
            assert frame.rgb.size


def test_the_whole_files_are_read(whole: list[tuple[str, bytes]], tmp_path: Path) -> None:
    for name, content in whole:
        with limited(content, tmp_path / name) as path:
            read(path)


@fuzzed(240)
@given(number=st.integers(0, 99), made=changes)
def test_a_damaged_picture_is_read_or_refused_in_one_line(
    whole: list[tuple[str, bytes]], tmp_path: Path, number: int, made: list[Change]
) -> None:
    name, content = whole[number % len(whole)]
    data = changed(content, made, [other for _, other in whole])
    with limited(data, tmp_path / name) as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with may_be_refused():
            read(path)


@fuzzed(40)
@given(number=st.integers(0, 99), made=changes)
def test_a_damaged_first_picture_does_not_end_the_folder(
    whole: list[tuple[str, bytes]], tmp_path_factory: pytest.TempPathFactory, number: int, made: list[Change]
) -> None:
    name, content = whole[number % len(whole)]
    folder = tmp_path_factory.mktemp("folder")
    data = changed(content, made, [other for _, other in whole])
    files.save(folder / "1.png", files.scene(24, 32))
    with limited(data, (folder / "0").with_suffix(Path(name).suffix)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with closing(open_source(str(folder), options=SMALL)) as source:
            names = [frame.name for frame in source]
    assert names[-1] == "1.png"
    assert len(names) + len(source.log.skipped) == 2
