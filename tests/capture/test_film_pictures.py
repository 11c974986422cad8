"""OpenEXR and DPX as film departments write them, from OpenEXR's own library and from FFmpeg."""

import struct
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from numpy.typing import NDArray

from stream.capture.limits import Limits
from stream.capture.open import open_source
from stream.capture.stills.exr import read_header
from stream.capture.stills.picture import open_picture
from stream.config import CaptureConfig
from stream.errors import SourceError
from stream.frames import SourceKind
from tests.support.ffmpeg import program
from tests.support.picture_files import save, scene

LINEAR_NOTE = "linear light (HDR) is shown as sRGB, and bright parts are clipped"
LIGHT = (scene(37, 53) / np.float32(255)).astype(np.float32)


def encoded(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB, 0…255."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def written(path: Path, channels: dict[str, NDArray[np.generic]], **header: object) -> Path:
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}, channels).write(
        str(path)
    )
    return path


def read(path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    done = open_picture(path, limits=Limits(max_pixels=10**6)).decode()
    return done.rgb, done.notes


def same(rgb: NDArray[np.uint8], expected: NDArray[np.float32], tolerance: float = 0.6) -> bool:
    return rgb.shape == expected.shape and bool(np.abs(rgb - expected).max() <= tolerance)


@pytest.mark.parametrize("kind", ["half", "float", "alpha", "depth", "layers", "tiled", "downwards"])
def test_linear_light_of_every_layout_becomes_srgb(tmp_path: Path, kind: str) -> None:
    path, one = tmp_path / "a.exr", LIGHT[..., 0].copy()
    if kind == "half":
        written(path, {"RGB": LIGHT.astype(np.float16)})
    elif kind == "alpha":
        written(path, {"RGBA": np.dstack([LIGHT, np.full_like(one, 0.5)])})
    elif kind == "depth":
        written(path, {"RGB": LIGHT, "Z": one * 100})
    elif kind == "layers":
        written(path, {"RGB": LIGHT, **{f"spec.{name}": one * 0 for name in "RGB"}})
    elif kind == "tiled":
        written(path, {"RGB": LIGHT}, type=OpenEXR.tiledimage, tiles=OpenEXR.TileDescription())
    elif kind == "downwards":
        written(path, {"RGB": LIGHT}, lineOrder=OpenEXR.DECREASING_Y)
    else:
        written(path, {"RGB": LIGHT})
    rgb, notes = read(path)
    assert same(rgb, encoded(LIGHT))
    assert notes == (LINEAR_NOTE,)


@pytest.mark.parametrize("name", ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB"])
def test_every_compression_that_is_read(tmp_path: Path, name: str) -> None:
    light = np.tile(LIGHT, (9, 1, 1)).astype(np.float16)  # more lines than the largest chunk holds
    path = written(tmp_path / "a.exr", {"RGB": light}, compression=getattr(OpenEXR, f"{name}_COMPRESSION"))
    lossy = name in ("B44", "B44A", "DWAA", "DWAB")
    difference = np.abs(read(path)[0] - encoded(light.astype(np.float32)))
    assert difference.mean() < 1 if lossy else difference.max() <= 0.6
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SourceError, match="cut off"):
        read(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_luminance_alone_is_gray(tmp_path: Path, dtype: type) -> None:
    gray = LIGHT[..., 0]
    rgb, _ = read(written(tmp_path / "a.exr", {"Y": gray.astype(dtype)}))
    assert same(rgb, encoded(np.dstack([gray] * 3)))


@pytest.mark.parametrize("is_tiled", [False, True])
@pytest.mark.parametrize(
    ("data", "display"),
    [
        ((10, 5), (0, 0, 79, 59)),  # a part of the image is stored, the rest is black
        ((-4, -3), (0, 0, 39, 29)),  # overscan is cut off
        ((-10, -20), (-10, -20, 42, 16)),  # both begin elsewhere
        ((100, 200), (98, 195, 160, 240)),
    ],
)
def test_the_image_is_its_display_window(
    tmp_path: Path, data: tuple[int, int], display: tuple[int, int, int, int], is_tiled: bool
) -> None:
    (left, top), (x, y, right, bottom) = data, display
    tiles = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()} if is_tiled else {}
    path = written(
        tmp_path / "a.exr", {"RGB": LIGHT}, dataWindow=((left, top), (left + 52, top + 36)),
        displayWindow=((x, y), (right, bottom)), **tiles,
    )  # fmt: skip
    canvas = np.zeros((300, 300, 3), np.float32)
    canvas[top + 50 : top + 87, left + 50 : left + 103] = LIGHT
    expected = canvas[y + 50 : bottom + 51, x + 50 : right + 51]
    assert same(read(path)[0], encoded(expected))


def deep(path: Path) -> Path:
    samples = np.empty((4, 5), object)
    for place in np.ndindex(samples.shape):
        samples[place] = np.array([1, 2], np.float32)
    header = {"compression": OpenEXR.ZIPS_COMPRESSION, "type": OpenEXR.deepscanline}
    OpenEXR.File(header, {"Z": samples}).write(str(path))
    return path


def parts(path: Path, *names: str) -> Path:
    made = [
        OpenEXR.Part(
            {"name": f"{number}", "type": OpenEXR.scanlineimage},
            {name: LIGHT if name == "RGB" else LIGHT[..., 0].copy()},
        )
        for number, name in enumerate(names)
    ]
    OpenEXR.File(made).write(str(path))
    return path


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    one, path = LIGHT[..., 0].copy(), tmp_path / "a.exr"
    counts = (one * 9).astype(np.uint32)
    for made, reason in (
        (lambda: written(path, {"Z": one}), "has no picture: its channels are Z; save channels R, G and B"),
        (lambda: written(path, {"R": one, "G": one}), "has no picture: its channels are G, R;"),
        (
            lambda: written(path, dict.fromkeys(("spec.R", "spec.G", "spec.B"), one)),
            "its channels are spec.B, spec.G, spec.R;",
        ),
        (lambda: written(path, dict.fromkeys("RGB", counts)), "channels of whole numbers are no picture"),
        (lambda: written(path, {"RGB": LIGHT}, compression=OpenEXR.HTJ2K32_COMPRESSION), "compression .* save it with"),
        (lambda: deep(path), "deep EXR is not supported"),
        (lambda: parts(path, "Z", "RGB"), "its channels are Z; save one part with channels R, G and B"),
    ):
        with pytest.raises(SourceError, match=reason):
            open_source(str(made()))
    rgb, notes = read(parts(path, "RGB", "Z"))
    assert same(rgb, encoded(LIGHT))
    assert notes == ("the first part of the file is used", LINEAR_NOTE)


def test_primaries_that_are_not_converted_are_said(tmp_path: Path) -> None:
    path = written(tmp_path / "a.exr", {"RGB": LIGHT}, comments="x" * 32)
    before = path.read_bytes()
    name = b"chromaticities\0chromaticities\0"
    aces = struct.pack("<8f", 0.7347, 0.2653, 0, 1, 0.0001, -0.077, 0.32168, 0.33767)
    comments = b"comments\0string\0" + struct.pack("<i", 32) + b"x" * 32
    made = bytearray(before.replace(comments, name + struct.pack("<i", 32) + aces))
    longer, table = len(made) - len(before), read_header(bytes(made)).end
    for at in range(table, table + 8 * 3, 8):  # 37 lines are 3 chunks
        struct.pack_into("<Q", made, at, struct.unpack_from("<Q", made, at)[0] + longer)
    path.write_bytes(bytes(made))
    assert read(path)[1] == ("its primaries are not those of Rec. 709, and its colours are not converted", LINEAR_NOTE)


def dpx(path: Path, pixel_format: str, picture: Path) -> Path:
    command = [program("ffmpeg"), "-v", "error", "-y", "-i", str(picture), "-pix_fmt", pixel_format, str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("pixel_format", ["gbrp10be", "gbrp10le", "gbrp12be", "rgb48be", "rgb48le", "rgb24", "rgba"])
def test_dpx_of_every_depth_and_byte_order(tmp_path: Path, pixel_format: str) -> None:
    shown = scene(48, 64)
    path = dpx(tmp_path / "A.0001.DPX", pixel_format, save(tmp_path / "a.png", shown))
    (tmp_path / "a.png").unlink()
    for text in (path, tmp_path, tmp_path / "A.%04d.DPX"):
        with closing(open_source(str(text))) as source:
            (frame,) = source
        assert source.info.kind is SourceKind.STILLS
        assert np.abs(frame.rgb.astype(int) - shown).max() <= 1
    content = path.read_bytes()
    for end in (-60, len(content) // 2, 900):
        path.write_bytes(content[:end])
        with pytest.raises(SourceError):
            list(open_source(str(path)))


def test_film_density_becomes_srgb_and_other_orientations_are_refused(tmp_path: Path) -> None:
    path = dpx(tmp_path / "a.dpx", "gbrp10be", save(tmp_path / "a.png", scene(48, 64)))
    codes = np.asarray(scene(48, 64), np.float64) * 1023 / 255
    content = bytearray(path.read_bytes())
    content[801] = 1
    path.write_bytes(bytes(content))
    rgb, notes = read(path)
    black = 10 ** (-590 * 0.002 / 0.6)
    light = np.clip((10 ** ((codes - 685) * 0.002 / 0.6) - black) / (1 - black), 0, 1)
    assert np.abs(rgb - encoded(light.astype(np.float32))).max() <= 2, "one code of 1023"
    assert "film density" in notes[0]
    content[769] = 2
    path.write_bytes(bytes(content))
    with pytest.raises(SourceError, match="its lines do not go from left to right"):
        read(path)


@pytest.mark.parametrize("suffix", ["exr", "dpx"])
def test_sizes_are_refused_before_a_pixel_takes_memory_and_a_damaged_one_is_skipped(
    tmp_path: Path, suffix: str
) -> None:
    for number in range(3):
        path = tmp_path / f"shot.{number:04d}.{suffix}"
        if suffix == "exr":
            written(path, {"RGB": LIGHT})
        else:
            dpx(path, "gbrp10be", save(tmp_path / "a.png", scene(37, 53)))
    (tmp_path / "a.png").unlink(missing_ok=True)
    with pytest.raises(SourceError, match="megapixels"):
        open_picture(path, limits=Limits(max_pixels=1000))
    content = bytearray((tmp_path / f"shot.0001.{suffix}").read_bytes())
    if suffix == "exr":
        struct.pack_into("<4i", content, content.index(b"dataWindow\0box2i\0") + 21, 0, 0, 2**30, 2**30)
    else:
        struct.pack_into(">II", content, 772, 2**30, 2**30)
    (tmp_path / f"shot.0001.{suffix}").write_bytes(bytes(content))
    with closing(open_source(str(tmp_path), options=CaptureConfig(fps=24))) as source:
        names = [frame.name for frame in source]
    assert names == [f"shot.0000.{suffix}", f"shot.0002.{suffix}"]
    assert [one.name for one in source.log.skipped] == [f"shot.0001.{suffix}"]
