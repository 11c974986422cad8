"""Depth files: every format read back by an independent reader."""

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from stream.errors import SinkError, SourceError
from stream.frames import Depth, DepthKind, DepthMap, Frame, SourceInfo, SourceKind
from stream.media import av
from stream.sinks.depthfiles import DepthFileSink, DepthFormat, read_png16
from stream.sinks.images import ImageSink

INFO = SourceInfo(
    name="t", size=(9, 7), is_live=False, time_base=Fraction(1), rate=None, frame_count=None, kind=SourceKind.STILLS
)
FILE = {"npy": "000000.npy", "png16": "000000.depth16.png", "pfm": "000000.pfm", "exr": "000000.exr"}


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def items(values: DepthMap, *, name: str = "", index: int = 0) -> tuple[Frame, Depth, np.ndarray]:
    rgb = np.zeros((*values.shape, 3), np.uint8)
    frame = Frame(index=index, pts=index, time_base=Fraction(1), captured_at=0.0, rgb=rgb, name=name)
    return frame, Depth(values=values, kind=DepthKind.METRIC_DEPTH, index=index), rgb


def saved(folder: Path, format: str, values: DepthMap) -> Path:
    sink = DepthFileSink(folder, format=DepthFormat(format), overwrite=True)
    sink.open(INFO, values.shape)
    sink.write(*items(values))
    sink.finish()
    return folder / FILE[format]


def read_pfm(path: Path) -> DepthMap:
    """By the format's description: the bottom row comes first, a negative scale means little-endian."""
    with path.open("rb") as file:
        assert file.readline() == b"Pf\n"
        width, height = map(int, file.readline().split())
        scale = float(file.readline())
        assert abs(scale) == 1
        data = np.frombuffer(file.read(), "<f4" if scale < 0 else ">f4")
    return data.reshape(height, width)[::-1]


def read_exr(path: Path) -> DepthMap:
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
    assert picture.format.name == "grayf32le"
    plane = np.frombuffer(picture.planes[0], "<f4").reshape(picture.height, -1)
    return plane[:, : picture.width]


READ = {"npy": np.load, "pfm": read_pfm, "exr": read_exr}
SHAPES = [(1, 1), (1, 17), (17, 1), (37, 53), (64, 64), (301, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", ["npy", "pfm", "exr"])
def test_float_formats_are_bit_exact(tmp_path: Path, format: str, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    values.flat[0], values.flat[-1] = 3e38, -1e-42
    read = READ[format](saved(tmp_path, format, values.copy()))
    assert read.dtype == np.float32
    assert read.shape == shape
    assert read.tobytes() == values.tobytes()


def test_exr_is_read_by_the_reference_library(tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    values = np.random.default_rng(0).standard_normal((37, 53)).astype(np.float32)
    with openexr.File(str(saved(tmp_path, "exr", values))) as file:
        assert list(file.channels()) == ["Y"]
        assert np.array_equal(file.channels()["Y"].pixels, values)


def test_npy_is_plain_float32_in_c_order(tmp_path: Path) -> None:
    values = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    raw = saved(tmp_path, "npy", values).read_bytes()
    assert raw.startswith(b"\x93NUMPY\x01\x00")
    assert b"'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)" in raw
    assert raw.endswith(np.arange(12, dtype="<f4").tobytes())


def test_pfm_bytes(tmp_path: Path) -> None:
    raw = saved(tmp_path, "pfm", np.array([[1, 2, 3], [4, 5, 6]], np.float32)).read_bytes()
    assert raw == b"Pf\n3 2\n-1.000000\n" + np.array([4, 5, 6, 1, 2, 3], "<f4").tobytes()


def test_png16_is_16_bit_gray_with_its_mapping(tmp_path: Path) -> None:
    values = np.linspace(-2.5, 7.25, 37 * 53, dtype=np.float32).reshape(37, 53)
    path = saved(tmp_path, "png16", values)
    with Image.open(path) as picture:
        assert picture.mode == "I;16"
        codes = np.asarray(picture)
        text = dict(picture.text)
    assert (codes.min(), codes.max()) == (0, 65535)
    assert text == {
        "depth_min": "-2.5",
        "depth_max": "7.25",
        "depth_kind": "metric_depth",
        "depth_mapping": "value = depth_min + pixel / 65535 * (depth_max - depth_min)",
    }
    assert np.abs(read_png16(path) - values).max() <= 9.75 / 131070 * (1 + 1e-3)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
small_maps = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=finite)


@settings(max_examples=60, deadline=None)
@given(values=small_maps)
def test_png16_gives_back_any_finite_depth(tmp_path_factory: pytest.TempPathFactory, values: DepthMap) -> None:
    read = read_png16(saved(tmp_path_factory.getbasetemp() / "png16", "png16", values.copy()))
    assert read.shape == values.shape
    low, high = float(values.min()), float(values.max())
    error = np.abs(read.astype(np.float64) - values)
    half_step = (high - low) / 131070
    rounding = np.abs(values.astype(np.float64)) * 2.0**-23 + 2.0**-149
    assert (error <= half_step * (1 + 1e-9) + rounding).all()
    if low == high:
        assert np.array_equal(read, values)
    assert read.min() == values.min()
    assert read.max() == values.max()


def test_png16_of_many_rows_is_the_same_as_of_few(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((700, 5), np.float32)
    read = read_png16(saved(tmp_path, "png16", values.copy()))
    assert np.abs(read - values).max() <= 1 / 131070 * (1 + 1e-2)


def test_read_png16_refuses_others(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no")
    for path in (tmp_path / "plain.png", tmp_path / "text.png", tmp_path / "missing.png"):
        with pytest.raises(SourceError, match="not a depth png16"):
            read_png16(path)


def test_stills_clashes_and_a_shared_folder(tmp_path: Path) -> None:
    out, names = tmp_path / "out", ["a.jpg", "a.heic", "sub/a.jpg"]
    sinks = [DepthFileSink(out, format=f, names=names) for f in DepthFormat] + [ImageSink(out, names=names)]
    for sink in sinks:
        sink.open(INFO, (9, 7))
    for i, name in enumerate(names):
        for sink in sinks:
            sink.write(*items(np.full((9 + i, 7), i, np.float32), name=name, index=i))
    for sink in sinks:
        sink.finish()
    stems = ["a.heic", "a.jpg", "sub/a"]
    expected = {stem + end for stem in stems for end in (".npy", ".depth16.png", ".pfm", ".exr", ".png")}
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == expected
    assert np.load(out / "sub" / "a.npy").shape == (11, 7)


@pytest.mark.parametrize(("format", "suffix"), [("npy", ".npy"), ("png16", ".png"), ("pfm", ".PFM"), ("exr", ".exr")])
def test_single_file(tmp_path: Path, format: str, suffix: str) -> None:
    path = tmp_path / f"one{suffix}"
    sink = DepthFileSink(path, format=DepthFormat(format))
    sink.open(INFO, (9, 7))
    sink.write(*items(np.ones((9, 7), np.float32)))
    with pytest.raises(SinkError, match="several frames"):
        sink.write(*items(np.ones((9, 7), np.float32), index=1))
    assert not path.exists()
    sink.finish()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", list(DepthFormat))
def test_full_disk(tmp_path: Path, format: DepthFormat) -> None:
    sink = DepthFileSink(tmp_path, format=format)
    name = FILE[format]
    (tmp_path / f".{name}.partial").symlink_to("/dev/full")
    sink.open(INFO, (64, 64))
    sink.write(*items(np.random.default_rng(0).random((64, 64), np.float32)))
    with pytest.raises(SinkError, match="No space left"):
        sink.finish()
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_stays_when_the_run_fails(tmp_path: Path) -> None:
    sink = DepthFileSink(tmp_path / "out", format=DepthFormat.NPY)
    sink.open(INFO, (9, 7))
    for i in range(6):
        sink.write(*items(np.full((9, 7), i, np.float32), index=i))
    sink.keep_partial("the camera was unplugged")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:06d}.npy" for i in range(6)]
