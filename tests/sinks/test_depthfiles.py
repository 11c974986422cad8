"""Depth files: every format read back by an independent reader."""

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, PngImagePlugin

from stream.depthdata.description import Description
from stream.depthdata.mapping import Mapping
from stream.depthdata.storage import read_description
from stream.errors import OutputError, SinkError, SourceError
from stream.frames import Depth, DepthKind, DepthMap, Frame, Mask, SourceInfo, SourceKind
from stream.media import av, cv2
from stream.sinks.depthfiles import DepthFileSink, DepthFormat, read_png16
from stream.sinks.images import ImageSink
from tests.support.full_disk import fill_disk

INFO = SourceInfo(
    name="t", size=(9, 7), is_live=False, time_base=Fraction(1), rate=None, frame_count=None, kind=SourceKind.STILLS
)
METRIC, RELATIVE = DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY
FILE = {
    "npy": "000000.npy",
    "png16": "000000.depth16.png",
    "pfm": "000000.pfm",
    "exr": "000000.exr",
    "conf": "000000.conf.npy",
}


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def items(
    values: DepthMap, *, name: str = "", index: int = 0, kind: DepthKind = METRIC, valid: Mask | None = None
) -> tuple[Frame, Depth, np.ndarray]:
    rgb = np.zeros((*values.shape, 3), np.uint8)
    frame = Frame(index=index, pts=index, time_base=Fraction(1), captured_at=0.0, rgb=rgb, name=name)
    sure = np.arange(1, values.size + 1, dtype=np.float32).reshape(values.shape)
    return frame, Depth(values=values, kind=kind, index=index, valid=valid, model="starter", confidence=sure), rgb


def saved(
    folder: Path,
    format: str,
    values: DepthMap,
    *,
    kind: DepthKind = METRIC,
    valid: Mask | None = None,
    sink: DepthFileSink | None = None,
) -> Path:
    sink = sink or DepthFileSink(folder, format=DepthFormat(format), overwrite=True)
    sink.open(INFO, values.shape)
    sink.write(*items(values, kind=kind, valid=valid))
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
    """By FFmpeg, which knows no channel `Z`: its one letter in the header becomes a `Y`."""
    content = path.read_bytes()
    assert content.count(b"chlist\0\x13\0\0\0Z\0") == 1, "a list of 19 bytes holds one channel"
    renamed = io.BytesIO(content.replace(b"chlist\0\x13\0\0\0Z\0", b"chlist\0\x13\0\0\0Y\0"))
    with av.open(renamed, format="exr_pipe") as container:
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


def test_npy_is_plain_float32_in_c_order(tmp_path: Path) -> None:
    values = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    raw = saved(tmp_path, "npy", values).read_bytes()
    assert raw.startswith(b"\x93NUMPY\x01\x00")
    assert b"'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)" in raw
    assert raw.endswith(np.arange(12, dtype="<f4").tobytes())


def test_pfm_bytes(tmp_path: Path) -> None:
    raw = saved(tmp_path, "pfm", np.array([[1, 2, 3], [4, 5, 6]], np.float32)).read_bytes()
    assert raw == b"Pf\n3 2\n-1.000000\n" + np.array([4, 5, 6, 1, 2, 3], "<f4").tobytes()


def described(path: Path) -> Description:
    """What a file says of itself, read by Pillow."""
    with Image.open(path) as picture:
        assert picture.mode == "I;16"
        assert set(picture.text) == {"DEPTHSTREAM"}
        return Description.from_json(picture.text["DEPTHSTREAM"])


def test_png16_of_a_unitless_map_is_16_bit_gray_with_its_range(tmp_path: Path) -> None:
    values = np.linspace(-2.5, 7.25, 37 * 53, dtype=np.float32).reshape(37, 53)
    path = saved(tmp_path, "png16", values, kind=RELATIVE)
    codes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert codes.dtype == np.uint16
    assert (codes.min(), codes.max()) == (1, 65535)
    about = described(path)
    assert about.mapping == Mapping(lo=-2.5, hi=7.25)
    assert (about.kind, about.model, about.codec) == (RELATIVE, "starter", "png16")
    assert np.abs(read_png16(path) - values).max() <= 9.75 / 131068 * (1 + 1e-3)


def test_png16_of_metric_depth_is_millimetres_to_any_reader(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0.3, 65, (37, 53)).astype(np.float32)
    valid = np.random.default_rng(1).random((37, 53)) < 0.8
    path = saved(tmp_path, "png16", values, valid=valid)
    codes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # as the loaders of ROS and of RGB-D data sets do
    assert codes.dtype == np.uint16
    np.testing.assert_array_equal(codes == 0, ~valid)
    assert np.abs(codes[valid] / 1000 - values[valid]).max() <= 0.0005 + 65 * 2.0**-24
    about = described(path)
    assert (about.kind.unit, about.mapping) == ("m", Mapping.of_unit(0.001))
    read = read_png16(path)
    np.testing.assert_array_equal(np.isnan(read), ~valid)
    assert np.abs(read[valid] - values[valid]).max() <= 0.0005 + 65 * 2.0**-23


def test_png16_of_another_unit_holds_farther_or_finer_depth(tmp_path: Path) -> None:
    values = np.linspace(0.5, 13, 400, dtype=np.float32).reshape(20, 20)
    sink = DepthFileSink(tmp_path, format=DepthFormat.PNG16, unit_m=0.0002)  # as TUM's, where a metre is 5000
    codes = cv2.imread(str(saved(tmp_path, "png16", values, sink=sink)), cv2.IMREAD_UNCHANGED)
    assert np.abs(codes / 5000 - values).max() <= 0.0001 + 13 * 2.0**-24
    assert not sink.notes
    assert sink.counters == {}


def test_depth_beyond_the_last_code_is_counted_and_said_once(tmp_path: Path) -> None:
    sink = DepthFileSink(tmp_path, format=DepthFormat.PNG16)
    sink.open(INFO, (2, 3))
    for index in range(2):
        sink.write(*items(np.array([[1, 66, 80], [65.535, 2, -1]], np.float32), index=index))
    sink.finish()
    codes = cv2.imread(str(tmp_path / "000001.depth16.png"), cv2.IMREAD_UNCHANGED)
    assert codes.tolist() == [[1000, 65535, 65535], [65535, 2000, 1]]
    assert sink.notes == [
        "png16: values beyond 0.001 to 65.535 m get the code of the nearest end; --png16-unit 0.002 reaches 131.07 m"
    ]
    assert sink.counters == {"png16_values_clipped": 6}


def test_a_given_mapping_is_that_of_every_file_and_of_depth_json(tmp_path: Path) -> None:
    mapping = Mapping(lo=0.5, hi=8)
    sink = DepthFileSink(tmp_path / "out", format=DepthFormat.PNG16, mapping=mapping)
    sink.open(replace(INFO, name="clip.mp4", rate=Fraction(30000, 1001)), (4, 5))
    for index in range(3):
        values = np.full((4, 5), 1 + index, np.float32)
        sink.write(*items(values, index=index, kind=DepthKind.RELATIVE_DEPTH, valid=values > (1 if index else 0)))
    assert not (tmp_path / "out" / "depth.json").exists()
    sink.finish()
    for index in range(3):
        path = tmp_path / "out" / f"{index:06d}.depth16.png"
        assert described(path).mapping == mapping
        np.testing.assert_allclose(read_png16(path), 1 + index, atol=mapping.error_at(1))
    about = read_description(tmp_path / "out" / "depth.json")
    assert (about.kind, about.mapping, about.model) == (DepthKind.RELATIVE_DEPTH, mapping, "starter")
    assert (about.source, about.size, about.frame_count) == ("clip.mp4", (4, 5), 3)
    plain = json.loads((tmp_path / "out" / "depth.json").read_text())
    assert (plain["mapping"]["lo"], plain["mapping"]["invalid_code"], plain["unit"]) == (0.5, 0, None)


def test_an_old_depth_json_is_never_beside_new_files(tmp_path: Path) -> None:
    values = np.array([[1.0, 2.0]], np.float32)
    with_mapping = [
        DepthFileSink(tmp_path, format=DepthFormat.PNG16, overwrite=True, mapping=Mapping(lo=0, hi=hi))
        for hi in (9, 99)
    ]
    saved(tmp_path, "png16", values, kind=RELATIVE, sink=with_mapping[0])
    assert (tmp_path / "depth.json").exists()
    killed = with_mapping[1]
    killed.open(INFO, values.shape)
    assert (tmp_path / "depth.json").exists()  # the files that it is about are still there
    killed.write(*items(values, kind=RELATIVE))
    assert not (tmp_path / "depth.json").exists()
    killed.finish()
    mapping = read_description(tmp_path / "depth.json").mapping
    assert mapping is not None
    assert mapping.hi == 99


def test_depth_json_says_only_what_is_true_of_all_files(tmp_path: Path) -> None:
    sink = DepthFileSink(tmp_path, format=DepthFormat.PNG16)
    sink.open(INFO, (4, 5))
    for index in range(2):
        values = np.arange(20 + 20 * index, dtype=np.float32).reshape(-1, 5)
        sink.write(*items(values, index=index, kind=RELATIVE))
    sink.keep_partial("interrupted")
    about = read_description(tmp_path / "depth.json")
    assert (about.mapping, about.size, about.frame_count, about.kind) == (None, None, 2, RELATIVE)


def test_depth_json_of_several_models_is_about_the_first_and_says_so(tmp_path: Path) -> None:
    sink = DepthFileSink(tmp_path, format=DepthFormat.PNG16, mapping=Mapping(lo=0, hi=9))
    sink.open(INFO, (4, 5))
    for index, kind in enumerate((RELATIVE, METRIC, RELATIVE)):
        sink.write(*items(np.full((4, 5), 2, np.float32), index=index, kind=kind))
    sink.finish()
    assert sink.notes == ["depth.json is about the files of starter; each file says what its numbers are"]
    assert read_description(tmp_path / "depth.json").kind is RELATIVE
    assert described(tmp_path / "000001.depth16.png").mapping == Mapping.of_unit(0.001)


def test_depth_json_is_not_replaced_without_overwrite_and_not_written_into_a_shared_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "depth.json").write_text("mine")
    values = np.ones((4, 5), np.float32)
    with pytest.raises(OutputError, match=r"depth\.json: exists"):
        saved(tmp_path, "png16", values, sink=DepthFileSink(tmp_path, format=DepthFormat.PNG16))
    shared = DepthFileSink(tmp_path, format=DepthFormat.PNG16, describes=False)
    saved(tmp_path, "png16", values, sink=shared)
    assert (tmp_path / "depth.json").read_text() == "mine"
    saved(tmp_path, "png16", values)
    assert read_description(tmp_path / "depth.json").frame_count == 1


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("format", [format for format in DepthFormat if format is not DepthFormat.CONF])
def test_pixels_without_an_answer_come_back_without_one(tmp_path: Path, format: DepthFormat, kind: DepthKind) -> None:
    values = np.random.default_rng(0).uniform(0.5, 9, (37, 53)).astype(np.float32)
    for valid in (np.random.default_rng(1).random((37, 53)) < 0.5, np.zeros((37, 53), bool)):
        read = {**READ, "png16": read_png16}[format](saved(tmp_path, format, values, kind=kind, valid=valid))
        np.testing.assert_array_equal(np.isnan(read), ~valid)
        error = 0.0005 if format is DepthFormat.PNG16 and kind is METRIC else 8.5 / 131068
        error = error + 1e-6 if format is DepthFormat.PNG16 else 0
        np.testing.assert_allclose(read[valid], values[valid], rtol=0, atol=error)


def test_confidence_has_a_file_of_its_own_beside_the_depth(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((9, 7), np.float32)
    suffixes = [".npy", ".conf.npy"]
    for _ in range(2):  # a second run replaces both, and counts neither as a file of somebody else
        sinks = [
            DepthFileSink(tmp_path, format=format, overwrite=True, beside=suffixes, names=["a.png"])
            for format in (DepthFormat.NPY, DepthFormat.CONF)
        ]
        for sink in sinks:
            sink.open(INFO, (9, 7))
            sink.write(*items(values, name="a.png"))
            sink.finish()
            assert sink.notes == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.conf.npy", "a.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "a.conf.npy"), np.arange(1, 64, dtype=np.float32).reshape(9, 7))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values)


def test_a_model_without_confidence_writes_none_and_says_so_once(tmp_path: Path) -> None:
    sink = DepthFileSink(tmp_path, format=DepthFormat.CONF)
    sink.open(INFO, (9, 7))
    for index in range(3):
        frame, depth, rgb = items(np.ones((9, 7), np.float32), index=index)
        assert sink.write(frame, replace(depth, confidence=None), rgb)
    sink.finish()
    assert sink.notes == ["--save conf: starter has no confidence, so none is written"]
    assert list(tmp_path.iterdir()) == []


def test_png16_of_version_0_1_is_still_read(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    for key, value in {"depth_min": "-2.5", "depth_max": "7.25", "depth_kind": "relative_disparity"}.items():
        text.add_text(key, value)
    codes = np.array([[0, 1, 65534, 65535]], np.uint16)
    Image.fromarray(codes).save(tmp_path / "old.png", pnginfo=text)
    np.testing.assert_allclose(read_png16(tmp_path / "old.png"), -2.5 + codes / 65535 * 9.75, rtol=1e-6)
    flat = PngImagePlugin.PngInfo()
    flat.add_text("depth_min", "3.25")
    flat.add_text("depth_max", "3.25")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "flat.png", pnginfo=flat)
    assert (read_png16(tmp_path / "flat.png") == 3.25).all()


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
small_maps = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=finite)


@settings(max_examples=60, deadline=None)
@given(values=small_maps)
def test_png16_gives_back_any_finite_depth(tmp_path_factory: pytest.TempPathFactory, values: DepthMap) -> None:
    folder = tmp_path_factory.getbasetemp() / "png16"
    read = read_png16(saved(folder, "png16", values.copy(), kind=RELATIVE))
    assert read.shape == values.shape
    low, high = float(values.min()), float(values.max())
    error = np.abs(read.astype(np.float64) - values)
    half_step = (high - low) / 131068
    rounding = np.abs(values.astype(np.float64)) * 2.0**-23 + 2.0**-149
    assert (error <= half_step * (1 + 1e-9) + rounding).all()
    if low == high:
        assert np.array_equal(read, values)
    assert read.min() == values.min()
    assert read.max() == values.max()


def test_png16_of_many_rows_is_the_same_as_of_few(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((700, 5), np.float32)
    read = read_png16(saved(tmp_path, "png16", values.copy(), kind=RELATIVE))
    assert np.abs(read - values).max() <= 1 / 131068 * (1 + 1e-2)


def test_read_png16_refuses_others(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no")
    for number, said in enumerate(("{}", "nonsense", Description(kind=METRIC).as_json(), '{"format": 1, "kind": "x"}')):
        text = PngImagePlugin.PngInfo()
        text.add_text("DEPTHSTREAM", said)
        Image.fromarray(np.zeros((3, 4), np.uint16)).save(tmp_path / f"{number}.png", pnginfo=text)
    text = PngImagePlugin.PngInfo()
    text.add_text("DEPTHSTREAM", Description(kind=METRIC, mapping=Mapping.of_unit(0.001)).as_json())
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "8bit.png", pnginfo=text)
    about = Description(kind=METRIC, mapping=Mapping(lo=1, hi=1.5, shift=1, use_log=True)).as_json()
    log = PngImagePlugin.PngInfo()
    log.add_text("DEPTHSTREAM", about.replace('"shift": 1', '"shift": 1e30'))  # all codes have one value
    Image.fromarray(np.ones((3, 4), np.uint16)).save(tmp_path / "log.png", pnginfo=log)
    wide = PngImagePlugin.PngInfo()
    wide.add_text("depth_min", "-1e308")
    wide.add_text("depth_max", "1e308")
    Image.fromarray(np.ones((3, 4), np.uint16)).save(tmp_path / "wide.png", pnginfo=wide)
    for path in (*sorted(tmp_path.iterdir()), tmp_path / "missing.png"):
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
    expected = {
        stem + end for stem in stems for end in (".npy", ".depth16.png", ".pfm", ".exr", ".conf.npy", ".png")
    } | {"depth.json"}
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
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: DepthFormat) -> None:
    sink = DepthFileSink(tmp_path, format=format)
    name = FILE[format]
    fill_disk(monkeypatch, tmp_path / f".{name}.partial")
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
