"""Drawings, icons and animations as input: transparency, palettes, frames of animations among photos."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stream.capture.open import open_source
from stream.capture.stills.picture import DecodedPicture, open_picture
from stream.capture.stills.source import ImagesSource
from stream.config import CaptureConfig
from tests.support.picture_files import animated, save, scene

Rgb = NDArray[np.uint8]
ON_WHITE, ON_BLACK = ("transparent parts are shown on white",), ("transparent parts are shown on black",)
IGNORED = ("transparency is ignored, and the colours under it are used",)


def decoded(path: Path) -> DecodedPicture:
    return open_picture(path).decode()


def drawing(level: int, fill: tuple[int, int, int] = (0, 0, 0)) -> Rgb:
    """RGBA: a cross of one gray with soft edges; everything else is clear, and `fill` under it."""
    y, x = np.mgrid[:48, :64]
    distance = np.minimum(np.abs(y - 24), np.abs(x - 32)).astype(float)
    alpha = np.clip(5 - distance, 0, 1) * 255
    alpha[np.abs(distance - 4) < 0.5] = 100
    rgb = np.where(alpha[..., None] > 0, level, fill)
    return np.dstack([rgb, alpha]).astype(np.uint8)


def shown_on(level: int, rgba: Rgb) -> NDArray[np.float64]:
    share = rgba[..., 3:] / 255
    return rgba[..., :3] * share + level * (1 - share)


# --- transparency --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".ico", ".avif"])
def test_a_drawing_on_nothing_is_shown_on_white(tmp_path: Path, suffix: str) -> None:
    options: dict[str, Any] = {".webp": {"lossless": True, "exact": True}, ".avif": {"quality": 100}}.get(suffix, {})
    picture = drawing(30)[:48, :48]
    found = decoded(save(tmp_path / f"a{suffix}", picture, **options))
    assert found.notes == ON_WHITE
    assert np.abs(found.rgb - shown_on(255, picture)).max() <= (12 if suffix == ".avif" else 1)


def test_a_white_drawing_is_shown_on_black(tmp_path: Path) -> None:
    found = decoded(save(tmp_path / "a.png", drawing(255, fill=(255, 255, 255))))
    assert found.notes == ON_BLACK
    assert np.abs(found.rgb - shown_on(0, drawing(255))).max() <= 1


def test_a_drawing_that_is_in_its_alpha_alone_is_seen(tmp_path: Path) -> None:
    ink = np.zeros((48, 64, 4), np.uint8)
    ink[..., 3] = scene(48, 64)[..., 0]  # black of every opacity, hardly any of it opaque
    found = decoded(save(tmp_path / "a.png", ink))
    assert found.notes == ON_WHITE
    assert np.abs(found.rgb[..., 0] - (255.0 - ink[..., 3])).max() <= 1


@pytest.mark.parametrize("key", [False, True], ids=["alphas", "one index"])
def test_a_palette_with_a_transparent_colour(tmp_path: Path, key: bool) -> None:
    levels = np.zeros((48, 64), np.uint8)
    levels[10:30, 10:40], levels[20:40, 30:60] = 1, 2
    image = Image.fromarray(levels, "P")
    image.putpalette([255, 0, 255, 200, 30, 30, 20, 20, 120])
    path = save(tmp_path / "a.png", image, transparency=0 if key else bytes([0, 255, 255]))
    found = decoded(path)
    assert found.notes == ON_WHITE
    wanted = np.array([[255, 255, 255], [200, 30, 30], [20, 20, 120]])[levels]
    assert np.array_equal(found.rgb, wanted)


def test_a_gray_and_a_colour_that_are_transparent(tmp_path: Path) -> None:
    gray = np.where(scene(48, 64)[..., 0] < 100, 7, 150).astype(np.uint8)
    for name, image, clear in (
        ("l.png", Image.fromarray(gray), 7),
        ("rgb.png", Image.fromarray(np.dstack([gray] * 3)), (7, 7, 7)),
    ):
        found = decoded(save(tmp_path / name, image, transparency=clear))
        assert found.notes == ON_WHITE, name
        assert np.array_equal(found.rgb[..., 1], np.where(gray == 7, 255, gray)), name
    bits = Image.fromarray(gray > 100)
    for clear, notes in ((255, ON_WHITE), (0, ON_BLACK)):  # what is left is black, or white
        found = decoded(save(tmp_path / "1.png", bits, transparency=clear))
        assert found.notes == notes
        assert np.array_equal(found.rgb[..., 1], np.asarray(bits) * 255)


def test_a_photo_under_its_alpha_is_kept(tmp_path: Path) -> None:
    photo = scene(48, 64)
    alpha = np.zeros((48, 64), np.uint8)
    alpha[10:30, 10:50] = 255
    found = decoded(save(tmp_path / "a.png", np.dstack([photo, alpha])))
    assert found.notes == IGNORED
    assert np.array_equal(found.rgb, photo)


def test_opaque_alpha_changes_nothing_and_says_nothing(tmp_path: Path) -> None:
    photo = np.dstack([scene(48, 64), np.full((48, 64), 255, np.uint8)])
    found = decoded(save(tmp_path / "a.png", photo))
    assert found.notes == ()
    assert np.array_equal(found.rgb, photo[..., :3])


def test_a_transparent_colour_of_sixteen_bits_does_not_stop_reading(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes([200, 0] * 3) * 8 for _ in range(8))
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(">3H", 40_000, 40_000, 40_000))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert (decoded(path).rgb == 200).all()


def test_all_frames_of_an_animation_are_shown_on_the_same_ground(tmp_path: Path) -> None:
    pictures = [drawing(20), drawing(255, fill=(255, 255, 255)), drawing(90)]
    path = animated(tmp_path / "a.webp", pictures, [40, 40, 40], exact=True)
    with open_source(str(path)) as source:
        frames = [frame.rgb for frame in source]
        assert source.log.notes == list(ON_WHITE)
    assert [frame[0, 0].tolist() for frame in frames] == [[255] * 3] * 3
    assert frames[0][24, 5, 0] == 20
    assert (frames[1] == 255).all()


# --- animations among photos ---------------------------------------------------------------------------------------


def moving(count: int) -> list[Rgb]:
    """Frames that are all different: a block that moves."""
    pictures = [np.full((40, 60, 3), 60, np.uint8) for _ in range(count)]
    for number, picture in enumerate(pictures):
        picture[5:25, 2 + 2 * number : 8 + 2 * number] = 220
    return pictures


def read(folder: Path, most: int, **options: Any) -> tuple[dict[str, Rgb], ImagesSource]:
    source = open_source(str(folder), options=CaptureConfig(**options))
    assert isinstance(source, ImagesSource)
    with source:
        source.spread_animations(most)
        return {frame.name: frame.rgb for frame in source}, source


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_frames_of_an_animation_among_photos(tmp_path: Path, suffix: str) -> None:
    pictures = moving(20)
    animated(tmp_path / f"b{suffix}", pictures, [50] * 20)
    for name in ("a.jpg", "c.png"):
        save(tmp_path / name, scene())
    found, source = read(tmp_path, 4)
    numbers = (0, 5, 10, 15)
    assert list(found) == ["a.jpg", *(f"b{suffix}#{number:04d}" for number in numbers), "c.png"]
    assert list(source.info.names) == list(found)
    assert source.info.frame_count == 6
    for number in numbers:
        assert np.abs(found[f"b{suffix}#{number:04d}"].astype(int) - pictures[number]).max() <= 2
    assert source.info.notes == (f"frames evenly spread: b{suffix} (4 of 20 frames)",)
    assert (source.log.further_images, source.log.notes) == (0, [])


def test_a_short_animation_gives_all_its_frames_and_a_limit_counts_them(tmp_path: Path) -> None:
    animated(tmp_path / "a.webp", moving(3), [50] * 3)
    save(tmp_path / "b.jpg", scene())
    found, source = read(tmp_path, 8)
    assert list(found) == ["a.webp#0000", "a.webp#0001", "a.webp#0002", "b.jpg"]
    assert source.info.notes == ()
    found, source = read(tmp_path, 8, max_frames=2)
    assert list(found) == ["a.webp#0000", "a.webp#0001"]
    assert source.info.frame_count == 2


def test_a_default_image_that_is_no_frame_is_left_out(tmp_path: Path) -> None:
    pictures = moving(3)
    first, *rest = (Image.fromarray(picture) for picture in (scene(40, 60), *pictures))
    first.save(tmp_path / "a.png", save_all=True, append_images=rest, default_image=True, duration=50)
    found, _ = read(tmp_path, 8)
    assert list(found) == ["a.png#0001", "a.png#0002", "a.png#0003"]
    assert all(np.array_equal(rgb, picture) for rgb, picture in zip(found.values(), pictures, strict=True))


def test_a_damaged_animation_is_skipped_frame_by_frame(tmp_path: Path) -> None:
    whole = animated(tmp_path / "a.gif", [np.roll(scene(), n, axis=1) for n in range(6)], [50] * 6).read_bytes()
    (tmp_path / "a.gif").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "b.webp").write_bytes(b"RIFF\x10\0\0\0WEBPVP8X")
    save(tmp_path / "c.jpg", scene())
    found, source = read(tmp_path, 8)
    assert next(iter(found)) == "a.gif#0000"
    assert list(found)[-1] == "c.jpg"
    assert {one.name.split("#")[0] for one in source.log.skipped} <= {"a.gif", "b.webp"}
    assert len(found) + len(source.log.skipped) == len(source.info.names)


def test_without_being_asked_one_frame_is_used(tmp_path: Path) -> None:
    animated(tmp_path / "a.webp", moving(3), [50] * 3)
    save(tmp_path / "b.jpg", scene())
    with open_source(str(tmp_path)) as source:
        assert [frame.name for frame in source] == ["a.webp", "b.jpg"]
        assert source.log.notes == ["a.webp: one frame of 3 in the file is used"]
