"""The camera of a photo by its EXIF: what `Frame.intrinsics` says, in every format that states it."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from stream.capture.memory import Images
from stream.capture.mirror import MirroredSource
from stream.capture.open import open_images, open_source
from stream.capture.sandbox.wire import Fields, ViolationError
from stream.config import CaptureConfig
from stream.frames import Frame, Intrinsics
from tests.support import picture_files as files
from tests.support.fakes import ScriptedSource

HEIGHT, WIDTH = 40, 64
EXIF_IFD, FOCAL_35MM, ORIENTATION = 0x8769, 0xA405, 0x0112


def exif(focal: object, *, orientation: int = 1) -> bytes:
    """Written by Pillow: the orientation, and in a directory of its own the focal length."""
    block = Image.Exif()
    block[ORIENTATION] = orientation
    block.get_ifd(EXIF_IFD)[FOCAL_35MM] = focal
    return block.tobytes()


def frame_of(path: Path, **options: object) -> Frame:
    with closing(open_source(str(path), options=CaptureConfig.model_validate(options))) as source:
        return next(iter(source))


def diagonal_angle(frame: Frame) -> float:
    """Degrees between the rays of opposite corners of the image, from the definition of a pinhole camera."""
    camera, (height, width) = frame.intrinsics, frame.size
    assert camera is not None
    assert camera.fx == camera.fy
    corners = [
        np.array([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1]) for x, y in ((0, 0), (width, height))
    ]
    cosine = corners[0] @ corners[1] / np.prod([np.linalg.norm(corner) for corner in corners])
    return math.degrees(math.acos(cosine))


def angle_of(focal_35mm: float) -> float:
    """The same angle of a film camera with this lens: 43.27 mm is the diagonal of 36 mm × 24 mm."""
    return math.degrees(2 * math.atan(43.2666 / 2 / focal_35mm))


def saved(folder: Path, name: str, **options: object) -> Path:
    Image.fromarray(files.scene(HEIGHT, WIDTH)).save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png", "a.webp", "a.avif"])
def test_the_angle_of_view_is_that_of_the_equivalent_lens(tmp_path: Path, name: str) -> None:
    frame = frame_of(saved(tmp_path, name, exif=exif(28)))
    assert diagonal_angle(frame) == pytest.approx(angle_of(28), abs=0.01)
    assert frame.intrinsics is not None
    assert (frame.intrinsics.cx, frame.intrinsics.cy) == (WIDTH / 2, HEIGHT / 2)


def test_a_heic_states_it_too(tmp_path: Path) -> None:
    files.save_heic(tmp_path / "a.heic", files.scene(HEIGHT, WIDTH), exif=exif(26))
    assert diagonal_angle(frame_of(tmp_path / "a.heic")) == pytest.approx(angle_of(26), abs=0.01)


@pytest.mark.parametrize("orientation", [6, 3, 7])
def test_a_turned_photo_has_the_same_angle_and_its_own_centre(tmp_path: Path, orientation: int) -> None:
    upright = files.scene(HEIGHT, WIDTH)
    files.stored(upright, orientation).save(tmp_path / "a.jpg", exif=exif(35, orientation=orientation))
    frame = frame_of(tmp_path / "a.jpg")
    assert frame.size == (HEIGHT, WIDTH)
    assert diagonal_angle(frame) == pytest.approx(angle_of(35), abs=0.01)
    assert frame.intrinsics is not None
    assert (frame.intrinsics.cx, frame.intrinsics.cy) == (WIDTH / 2, HEIGHT / 2)


@pytest.mark.parametrize("focal", [0, 1, 4, 4001, 65535, "28", -28])
def test_what_no_lens_has_is_ignored(tmp_path: Path, focal: object) -> None:
    block = Image.Exif()
    block.get_ifd(EXIF_IFD)[FOCAL_35MM] = focal
    assert frame_of(saved(tmp_path, "a.jpg", exif=block.tobytes())).intrinsics is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # of Pillow, when it opens the file
def test_photos_without_exif_and_with_damaged_exif_have_no_camera(tmp_path: Path) -> None:
    assert frame_of(saved(tmp_path, "a.jpg")).intrinsics is None
    assert frame_of(saved(tmp_path, "b.jpg", exif=files.exif(6))).intrinsics is None
    assert frame_of(saved(tmp_path, "c.jpg", exif=exif(28)[:-30])).intrinsics is None
    loop = bytearray(exif(28))
    at = loop.index(EXIF_IFD.to_bytes(2, "big" if loop[6:8] == b"MM" else "little"))
    loop[at + 8 : at + 12] = (8).to_bytes(4, "big" if loop[6:8] == b"MM" else "little")  # leads to the first directory
    assert frame_of(saved(tmp_path, "d.jpg", exif=bytes(loop))).intrinsics is None


def test_xmp_states_it_where_exif_does_not(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x exif:FocalLengthIn35mmFilm="50"/>')
    assert diagonal_angle(frame_of(saved(tmp_path, "a.png", pnginfo=text))) == pytest.approx(angle_of(50), abs=0.01)


def test_a_mirror_moves_the_centre() -> None:
    class Shifted(ScriptedSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield replace(frame, intrinsics=Intrinsics(fx=50, fy=50, cx=20, cy=11))

    (frame,) = MirroredSource(Shifted(count=1))
    assert frame.intrinsics == Intrinsics(fx=50, fy=50, cx=frame.size[1] - 20, cy=11)


def test_a_mirrored_photo_keeps_its_angle(tmp_path: Path) -> None:
    frame = frame_of(saved(tmp_path, "a.jpg", exif=exif(28)), mirror=True)
    assert diagonal_angle(frame) == pytest.approx(angle_of(28), abs=0.01)


def test_images_in_memory_keep_it(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg", exif=exif(28))
    with Image.open(path) as picture:
        source = open_images(Images([picture, path, np.zeros((4, 4, 3), np.uint8)]), options=CaptureConfig())
        first, second, third = source
    assert first.intrinsics == second.intrinsics == frame_of(path).intrinsics
    assert first.intrinsics is not None
    assert third.intrinsics is None


@pytest.mark.parametrize(
    "camera", [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0, "0"], [0.0, 1.0, 0.0, 0.0], [1e300, 1.0, 0.0, 0.0], "x"]
)
def test_a_child_cannot_send_a_camera_that_is_none(camera: object) -> None:
    with pytest.raises(ViolationError):
        Fields({"camera": camera}).camera("camera")


@pytest.mark.parametrize("camera", [[float("nan"), 1.0, 0.0, 0.0], [1.0, float("inf"), 0.0, 0.0]])
def test_nor_one_that_is_not_finite(camera: object) -> None:
    with pytest.raises(ViolationError):
        Fields({"camera": camera}).camera("camera")
