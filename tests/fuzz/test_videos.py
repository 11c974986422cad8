"""Damaged videos of many containers and codecs, with sound."""

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given

from stream.capture.open import open_source
from tests.fuzz.limits import fuzzed, limited, may_be_refused
from tests.fuzz.mutation import Change, changed, changes
from tests.support.media_files import VIDEO_FILES, write_video


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: write_video(folder / name, frames=8, **options).read_bytes() for name, options in VIDEO_FILES.items()}


def frames_in(path: Path) -> int:
    """The number of frames that are delivered; sound is read in the same pass."""
    with closing(open_source(str(path))) as source:
        if source.info.audio is not None:
            source.info.audio.packets.listen(lambda _packet, _size: None)
        return sum(1 for _ in source)


@pytest.mark.parametrize("name", VIDEO_FILES)
def test_the_whole_files_are_read(whole: dict[str, bytes], name: str, tmp_path: Path) -> None:
    with limited(whole[name], tmp_path / name) as path:
        assert frames_in(path) == 8


@pytest.mark.parametrize("name", VIDEO_FILES)
@fuzzed(25)
@given(made=changes)
def test_a_damaged_video_is_read_or_refused(
    whole: dict[str, bytes], tmp_path: Path, name: str, made: list[Change]
) -> None:
    with limited(changed(whole[name], made, list(whole.values())), tmp_path / name) as path, may_be_refused():
        frames_in(path)
