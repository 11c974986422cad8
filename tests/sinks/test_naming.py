"""Names of the output files, and what is refused before any work."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import OutputError
from stream.files import check_free_space
from stream.frames import Frame
from stream.sinks.naming import FrameNames, check_output, estimated_bytes


def frame(name: str = "", index: int = 0) -> Frame:
    rgb = np.zeros((1, 1, 3), np.uint8)
    return Frame(index=index, pts=index, time_base=Fraction(1), captured_at=0.0, rgb=rgb, name=name)


def stems(arriving: list[str], known: list[str] | None = None) -> list[str]:
    names = FrameNames(known or ())
    return [names.stem(frame(name, i)) for i, name in enumerate(arriving)]


def test_video_frames_are_numbered() -> None:
    names = FrameNames()
    assert [names.stem(frame(index=i)) for i in (0, 12, 1_234_567)] == ["000000", "000012", "1234567"]


def test_stills_keep_stem_and_subfolder() -> None:
    arriving = ["a.jpg", "b.tar.png", "sub/a.jpg", "sub/c.heic", "noext"]
    assert stems(arriving) == ["a", "b.tar", "sub/a", "sub/c", "noext"]
    assert stems(arriving, arriving) == ["a", "b.tar", "sub/a", "sub/c", "noext"]


def test_clashes_of_known_names_keep_both_suffixes() -> None:
    arriving = ["a.jpg", "a.heic", "b.png", "x/a.jpg"]
    assert stems(arriving, arriving) == ["a.jpg", "a.heic", "b", "x/a"]


def test_a_clash_of_unknown_names_changes_the_later_one_only() -> None:
    assert stems(["a.jpg", "a.heic", "a.png"]) == ["a", "a.heic", "a.png"]


def test_case_counts_as_a_clash() -> None:
    arriving = ["A.jpg", "a.png"]
    assert stems(arriving, arriving) == ["A.jpg", "a.png"]


def test_full_name_of_one_is_the_stem_of_another() -> None:
    arriving = ["a.jpg", "a.heic", "a.jpg.png"]
    assert stems(arriving, arriving) == ["a.jpg", "a.heic", "a.jpg.png"]


def test_same_name_twice_is_numbered() -> None:
    assert stems(["a.jpg", "a.jpg", "a.jpg"]) == ["a", "a.jpg", "a.jpg_2"]
    assert stems(["a.jpg", "a.jpg"], ["a.jpg", "a.jpg"]) == ["a", "a.jpg"]


def test_names_stay_inside_the_folder() -> None:
    assert stems(["/etc/a.jpg", "../../b.jpg", "x/../c.jpg"]) == ["etc/a", "b", "x/c"]


part = st.sampled_from(["a", "A", "b", "a.jpg", "a_2", "a.jpg_2", "0"])
name = st.builds(lambda folder, stem, ext: folder + stem + ext, st.sampled_from(["", "s/"]), part,
                 st.sampled_from([".jpg", ".png", ".JPG", ".heic", ""]))  # fmt: skip


@given(arriving=st.lists(name | st.just(""), max_size=12), known=st.lists(name, max_size=8))
def test_never_the_same_twice(arriving: list[str], known: list[str]) -> None:
    got = [stem.casefold() for stem in stems(arriving, known)]
    assert len(set(got)) == len(got)


@given(arriving=st.lists(name, max_size=8, unique=True), order=st.randoms())
def test_known_names_do_not_depend_on_order(arriving: list[str], order: object) -> None:
    shuffled = list(arriving)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    unique = {n.casefold() for n in arriving}
    if len(unique) == len(arriving):  # names that differ only by case are numbered in order of arrival
        assert dict(zip(arriving, stems(arriving, arriving), strict=True)) == dict(
            zip(shuffled, stems(shuffled, arriving), strict=True)
        )


def test_new_output_is_fine(tmp_path: Path) -> None:
    check_output(tmp_path / "new.mp4")
    check_output(tmp_path / "new" / "deep" / "folder")
    check_output(tmp_path)  # empty
    (tmp_path / ".DS_Store").touch()
    check_output(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".DS_Store"]


def test_existing_output_needs_overwrite(tmp_path: Path) -> None:
    file = tmp_path / "out.mp4"
    file.touch()
    for path in (file, tmp_path):
        with pytest.raises(OutputError, match="--overwrite"):
            check_output(path)
        check_output(path, overwrite=True)


def test_output_that_is_an_input_is_never_allowed(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.touch()
    with pytest.raises(OutputError, match="is the input"):
        check_output(tmp_path / "." / "a.jpg", overwrite=True, inputs=[picture])
    with pytest.raises(OutputError, match="is the input"):
        check_output(tmp_path, overwrite=True, inputs=[tmp_path])
    with pytest.raises(OutputError, match="contains the input"):
        check_output(tmp_path, overwrite=True, inputs=[picture])
    check_output(tmp_path / "b.jpg", inputs=[picture, tmp_path])


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        check_output(tmp_path / "file" / "out")


def test_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # a superuser may write everywhere
    with pytest.raises(OutputError, match="not writable"):
        check_output(tmp_path / "out")


def test_free_space(tmp_path: Path) -> None:
    check_free_space(tmp_path / "not" / "yet", 1, "1 npy file")
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OutputError, match=r"9 npy files would take about .* TB, but only .* is free"):
        check_free_space(tmp_path / "out", free + 10**13, "9 npy files")


def test_an_hour_of_1080p_npy_is_about_900_gb() -> None:
    assert estimated_bytes("npy", (1080, 1920), 30 * 3600) == pytest.approx(900e9, rel=0.01)
    assert estimated_bytes("png", (1080, 1920), 1) < estimated_bytes("png16", (1080, 1920), 1)
    with pytest.raises(KeyError):
        estimated_bytes("tiff", (1, 1), 1)
