"""Depth that a user has measured: every format, what is unknown, how it lies, and files that are wrong."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from numpy.typing import NDArray
from PIL import Image

from stream.capture.limits import Limits
from stream.capture.stills.depthmap import read_depth
from stream.capture.stills.picture import orientation_in
from stream.capture.stills.source import ImagesSource
from stream.errors import SourceError
from stream.frames import Depth, DepthKind, Frame
from stream.notes import Notes, collected
from stream.sinks.depthfiles import DepthFileSink, DepthFormat
from stream.survey.findings.accuracy import ACCURACY
from stream.survey.scene import Scene, Truth
from stream.survey.truth import TruthFolder
from tests.support.picture_files import STORED_FROM_UPRIGHT, exif, save, save_heic, scene, stored
from tests.support.sink_input import info_of

NO_NAMES = info_of(tick=Fraction(1), rate=None)
Metres = NDArray[np.float32]


def metres(height: int = 40, width: int = 64) -> Metres:
    """No two corners alike; whole millimetres."""
    y, x = np.mgrid[:height, :width]
    return np.round(1 + y / 20 + x / 50, 3).astype(np.float32)


def write(path: Path, depth: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, depth)
    elif path.suffix == ".png":
        Image.fromarray(np.rint(np.nan_to_num(depth, posinf=0) * 1000).astype(np.uint16)).save(path)
    elif path.suffix.lower() == ".pfm":
        head = f"Pf\n{depth.shape[1]} {depth.shape[0]}\n-1.0\n".encode()
        path.write_bytes(head + depth[::-1].astype("<f4").tobytes())
    else:
        OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": np.ascontiguousarray(depth)}).write(str(path))
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.png", "a.pfm", "a.exr", "A.PFM"])
def test_every_format_is_read_and_what_is_no_distance_is_unknown(tmp_path: Path, name: str) -> None:
    depth = metres()
    depth[0, :5] = [np.nan, np.inf, 0, -2, 0.0004]
    if name == "a.png":
        depth[0, 3] = 0
    found = read_depth(write(tmp_path / name, depth), Limits())
    assert found.dtype == np.float32
    assert np.isnan(found[0, :5]).all()
    np.testing.assert_allclose(found.ravel()[5:], depth.ravel()[5:], atol=1e-6)


@pytest.mark.parametrize("format", [DepthFormat.NPY, DepthFormat.PNG16, DepthFormat.PFM, DepthFormat.EXR])
def test_what_this_program_saves_is_read_and_relative_depth_is_refused(tmp_path: Path, format: DepthFormat) -> None:
    picture = Frame(index=0, pts=0, time_base=NO_NAMES.time_base, captured_at=0, rgb=scene(), name="a.jpg")
    for kind, unit in (DepthKind.METRIC_DEPTH, 0.002), (DepthKind.RELATIVE_DISPARITY, 0.001):
        valid = metres() > 1.1
        depth = Depth(values=metres(), kind=kind, index=0, valid=valid)
        sink = DepthFileSink(tmp_path / kind, format=format, unit_m=unit)
        sink.open(NO_NAMES, (40, 64))
        sink.write(picture, depth, picture.rgb)
        sink.finish()
    known = TruthFolder(tmp_path / DepthKind.METRIC_DEPTH, Limits(), option="--truth").truth_of(NO_NAMES)(picture)
    assert known is not None
    np.testing.assert_array_equal(np.isnan(known.disparity), ~valid)
    np.testing.assert_allclose(1 / known.disparity[valid], metres()[valid], atol=0.0011)
    relative = TruthFolder(tmp_path / DepthKind.RELATIVE_DISPARITY, Limits(), option="--truth").truth_of(NO_NAMES)
    if format in (DepthFormat.PNG16, DepthFormat.EXR):  # the others say nothing of their numbers
        with pytest.raises(SourceError, match="disparity without a unit"):
            relative(picture)


def opened(folder: Path, truth: Path) -> tuple[list[Truth | None], list[str]]:
    """What is known of the photos of a folder, and what was noted."""
    notes = Notes()
    paths = sorted(folder.iterdir())
    source = ImagesSource(paths, name=str(folder), root=folder)
    with collected(notes):
        truth_of = TruthFolder(truth, Limits(), option="--truth").truth_of(source.info)
        return [truth_of(frame) for frame in source], notes.said


@pytest.mark.parametrize("suffix", [".jpg", ".heic"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_depth_as_the_sensor_saw_it_is_turned_like_the_photo(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright, folder = metres(64, 40), tmp_path / "photos"
    folder.mkdir()
    for name in "ab":
        if suffix == ".jpg":
            save(folder / f"{name}.jpg", stored(scene(64, 40), orientation), exif=exif(orientation))
        else:
            sensor = np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](scene(64, 40)))
            save_heic(folder / f"{name}.heic", sensor, exif=exif(orientation))
    assert orientation_in(folder / f"a{suffix}") == orientation
    write(tmp_path / "truth/a.npy", upright)
    write(tmp_path / "truth/b.npy", np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright)))
    found, said = opened(folder, tmp_path / "truth")
    for one in found:
        assert one is not None
        np.testing.assert_allclose(1 / one.disparity, upright, rtol=1e-6)
    assert [text for text in said if f"orientation {orientation}" in text] == said
    assert "b.npy" in said[0]


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_depth_that_fits_both_ways_is_taken_as_shown_and_noted_once(tmp_path: Path, orientation: int) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "ab":
        save(folder / f"{name}.jpg", stored(scene(40, 64), orientation), exif=exif(orientation))
        write(tmp_path / f"truth/{name}.npy", metres())
    found, said = opened(folder, tmp_path / "truth")
    for one in found:
        assert one is not None
        np.testing.assert_allclose(1 / one.disparity, metres(), rtol=1e-6)
    assert len(said) == 1
    assert f"a.npy: fits as shown and as the sensor saw it (orientation {orientation}): taken as shown" in said[0]


def test_depth_of_another_size_is_used_if_its_shape_fits(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        save(folder / f"{name}.png", scene(41, 64))
    write(tmp_path / "truth/a.npy", metres(21, 32))
    write(tmp_path / "truth/b.npy", metres(82, 128))
    found, said = opened(folder, tmp_path / "truth")
    assert [None if one is None else one.disparity.shape for one in found] == [(21, 32), (82, 128), None]
    assert any("1 of 3 photos have none: c.png" in text for text in said)
    assert any("32×21 is less than its photo" in text for text in said)
    for wrong, why in ((metres(40, 40), "has not the shape"), (metres(64, 41), "is turned against its photo")):
        write(tmp_path / "truth/a.npy", wrong)
        with pytest.raises(SourceError, match=rf"truth/a.npy: .*{why}"):
            opened(folder, tmp_path / "truth")


def test_the_file_of_a_photo_is_found_by_its_name_and_is_never_the_photo(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    save(folder / "a.jpg", scene())
    save(folder / "a.webp", scene())
    save(folder / "b.png", scene())
    for name, far in {"a.jpg.npy": 1, "a.npy": 2, "a.png": 3, "b.conf.npy": 4}.items():
        write(folder / "truth" / name, metres() + far)
    paths = [folder / name for name in ("a.jpg", "a.webp", "b.png")]
    source = ImagesSource(paths, name="", root=folder)
    near = [None if one is None else round(float(1 / one.disparity[0, 0])) for one in map(
        TruthFolder(folder / "truth", Limits(), option="--truth").truth_of(source.info), source
    )]  # fmt: skip
    assert near == [2, 3, None]
    write(folder / "a.npy", metres())
    in_place = TruthFolder(folder, Limits(), option="--truth").truth_of(source.info)
    assert [in_place(frame) is not None for frame in ImagesSource(paths, name="", root=folder)] == [True, True, False]


def npy_of(shape: str, dtype: str = "<f4") -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


def wrong_files(folder: Path) -> dict[str, str]:
    """Files that hold no depth, by name, and what is said of each."""
    folder.mkdir()
    save(folder / "colour.png", scene())
    save(folder / "byte.png", scene()[..., 0])
    np.save(folder / "whole.npy", np.ones((40, 64), np.uint16))
    np.save(folder / "cube.npy", np.ones((4, 40, 64), np.float32))
    np.save(folder / "object.npy", np.array([{}, {}]), allow_pickle=True)
    (folder / "huge.npy").write_bytes(npy_of("(9000000, 9000000)"))
    (folder / "short.npy").write_bytes(npy_of("(40, 64)") + bytes(99))
    (folder / "nothing.npy").touch()
    (folder / "code.npy").write_bytes(npy_of("__import__('os').getpid()"))
    (folder / "colour.pfm").write_bytes(b"PF\n2 2\n-1\n" + bytes(48))
    (folder / "huge.pfm").write_bytes(b"Pf\n900000 900000\n-1\n")
    (folder / "short.pfm").write_bytes(b"Pf\n64 40\n-1\n" + bytes(80))
    (folder / "damaged.exr").write_bytes(b"v/1\x01" + bytes(40))
    channels = {name: np.ones((40, 64), np.float32) for name in ("A", "B", "C")}
    OpenEXR.File({}, channels).write(str(folder / "abc.exr"))
    OpenEXR.File({}, {"Z": np.ones((40, 64), np.uint32)}).write(str(folder / "whole.exr"))
    whole = write(folder / "cut.exr", metres()).read_bytes()
    (folder / "cut.exr").write_bytes(whole[: len(whole) // 2])
    return {
        "colour.png": "is a picture",
        "byte.png": "is a picture",
        "whole.npy": "uint16 40×64; depth is float",
        "cube.npy": "float32 4×40×64",
        "object.npy": "object 2",
        "huge.npy": "megapixels",
        "short.npy": "the end of the file is missing",
        "nothing.npy": "cannot be decoded",
        "code.npy": "cannot be decoded",
        "colour.pfm": "three channels",
        "huge.pfm": "megapixels",
        "short.pfm": "the end of the file is missing",
        "damaged.exr": "cannot be decoded",
        "abc.exr": "no channel of depth",
        "whole.exr": "whole numbers",
        "cut.exr": "cannot be decoded",
    }


def test_a_wrong_file_is_named_and_read_no_further_than_needed(tmp_path: Path) -> None:
    for name, says in wrong_files(tmp_path / "truth").items():
        with pytest.raises(SourceError) as caught:
            read_depth(tmp_path / "truth" / name, Limits())
        assert str(caught.value).startswith(f"{tmp_path / 'truth' / name}: "), name
        assert says in str(caught.value), name
        assert "\n" not in str(caught.value)


def test_an_exr_of_a_renderer_is_read_by_its_channel_and_windows(tmp_path: Path) -> None:
    channels = {"RGB": np.ones((40, 64, 3), np.float32), "layer.Depth.Z": metres(), "layer.Vector.X": metres() * 0}
    OpenEXR.File({}, channels).write(str(tmp_path / "a.exr"))
    np.testing.assert_array_equal(read_depth(tmp_path / "a.exr", Limits()), metres())
    header = {
        "dataWindow": (np.array([2, 3], np.int32), np.array([65, 42], np.int32)),
        "displayWindow": (np.array([0, 0], np.int32), np.array([69, 41], np.int32)),
    }
    OpenEXR.File(header, {"Z": metres().astype(np.float16)}).write(str(tmp_path / "b.exr"))
    found = read_depth(tmp_path / "b.exr", Limits())
    assert found.shape == (42, 70)
    np.testing.assert_allclose(found[3:, 2:66], metres()[:39], rtol=1e-3)
    assert np.isnan(found[:3]).all()
    assert np.isnan(found[:, :2]).all()
    assert np.isnan(found[:, 66:]).all()


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_accuracy_states_how_far_metres_are_off(scale: float) -> None:
    disparity = 1 / metres()
    maps = {"metric": disparity / scale, "relative": 5 * disparity + 3}
    found = ACCURACY.measure(
        Scene(
            name="a",
            rgb=scene(),
            maps=dict.fromkeys(maps, disparity),
            raw=maps,
            kinds={"metric": DepthKind.METRIC_DEPTH, "relative": DepthKind.RELATIVE_DISPARITY},
            truth=Truth(disparity=disparity),
        )
    )
    assert found is not None
    assert found.numbers["metric"].value == pytest.approx(0, abs=1e-6)
    assert found.numbers["metric"].details["scale"] == pytest.approx(scale, rel=1e-5)
    assert "scale" not in found.numbers["relative"].details
    json.dumps(dict(found.numbers["metric"].details), allow_nan=False)
