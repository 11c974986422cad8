"""Still pictures: every format upright and in sRGB, found in the right order, delivered in order, failures named."""

import errno
import os
import threading
import warnings
from contextlib import closing, nullcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from stream.capture.limits import Limits
from stream.capture.open import open_source
from stream.capture.parse import SourceForm, parse_source
from stream.capture.stills.animation import AnimatedSource
from stream.capture.stills.find import find_pictures, natural_key
from stream.capture.stills.formats import FORMATS, is_picture
from stream.capture.stills.picture import open_picture
from stream.capture.stills.source import ImagesSource
from stream.config import CaptureConfig
from stream.errors import SourceError, SourceNotFoundError
from stream.frames import Frame, SourceKind
from stream.media import cv2
from tests.support import forked
from tests.support import picture_files as files


def read_picture(path: Path) -> np.ndarray:
    return open_picture(path).decode().rgb


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    assert got.shape == wanted.shape
    return float(np.abs(got.astype(float) - wanted).max())


# --- one picture ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm"])
def test_lossless_formats_come_back_to_the_bit(tmp_path: Path, suffix: str) -> None:
    scene = files.scene()
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    rgb = read_picture(files.save(tmp_path / f"a{suffix}", scene, **options))
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, scene)


def test_a_plain_jpeg_is_what_pillow_and_opencv_decode(tmp_path: Path) -> None:
    path = files.save(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8), quality=80)
    rgb = read_picture(path)
    np.testing.assert_array_equal(rgb, np.asarray(Image.open(path)))
    np.testing.assert_array_equal(rgb, cv2.imread(str(path))[..., ::-1])


def test_lossy_formats_come_back_closely(tmp_path: Path) -> None:
    scene = files.scene()
    assert difference(read_picture(files.save_heic(tmp_path / "a.heic", scene)), scene) <= 3
    avif = files.save(tmp_path / "a.avif", scene, quality=100, subsampling="4:4:4")
    assert difference(read_picture(avif), scene) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif", ".heic"])
def test_every_orientation_comes_out_upright_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    scene, path = files.scene(), tmp_path / f"a{suffix}"
    image = files.stored(scene, orientation)
    options: dict[str, object] = {"exif": files.exif(orientation)}
    if suffix == ".heic":
        files.save_heic(path, np.asarray(image), **options)  # written as irot and imir besides
    else:
        lossy = {".jpg": {"subsampling": 0}, ".avif": {"subsampling": "4:4:4"}, ".webp": {"lossless": True}}
        quality = {"quality": 100} if suffix in (".jpg", ".avif") else {}
        files.save(path, image, **options, **quality, **lossy.get(suffix, {}))
    with open_picture(path) as picture:
        assert picture.size_hw == scene.shape[:2]
    assert difference(read_picture(path), scene) <= 8


def test_heic_follows_its_container_and_not_its_exif(tmp_path: Path) -> None:
    scene = files.scene()
    path = files.save_heic(tmp_path / "a.heic", np.asarray(files.stored(scene, 6)), exif=files.exif(6))
    data = path.read_bytes()
    at = data.index(b"MM\0*") if b"MM\0*" in data else data.index(b"II*\0")
    order = "big" if data[at : at + 2] == b"MM" else "little"
    value = data.index((0x0112).to_bytes(2, order), at) + 8
    assert data[value : value + 2] == (6).to_bytes(2, order)

    contradicting = data[:value] + (3).to_bytes(2, order) + data[value + 2 :]
    path.write_bytes(contradicting)
    assert difference(read_picture(path), scene) <= 3

    turn = data.index(b"irot") + 4
    path.write_bytes(data[:turn] + b"\0" + data[turn + 1 :])
    unturned = read_picture(path)
    assert difference(unturned, files.STORED_FROM_UPRIGHT[6](scene)) <= 3, "EXIF alone turns no HEIC"


@pytest.mark.parametrize("twelve", [False, True])
def test_deep_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twelve: bool) -> None:
    monkeypatch.setattr("pillow_heif.options.SAVE_HDR_TO_12_BIT", twelve)
    scene = files.scene()
    path = files.save_heic(tmp_path / "a.hif", scene.astype(np.uint16) * 257, mode="RGB;16")
    assert difference(read_picture(path), scene) <= 3


def test_heic_with_alpha_and_with_several_images(tmp_path: Path) -> None:
    scene = files.scene()
    alpha = np.dstack([scene, np.full(scene.shape[:2], 128, np.uint8)])
    assert difference(read_picture(files.save_heic(tmp_path / "a.heic", alpha)), scene) <= 3
    path = files.save_heic(tmp_path / "b.heic", scene[::-1].copy(), scene, primary=1)
    assert difference(read_picture(path), scene) <= 3
    with open_picture(path) as picture:
        assert picture.frame_count == 2


def test_modes_become_rgb(tmp_path: Path) -> None:
    scene = files.scene()
    gray = scene[..., 0]
    image = Image.fromarray(scene)
    np.testing.assert_array_equal(read_picture(files.save(tmp_path / "l.png", gray)), np.dstack([gray] * 3))
    bits = Image.fromarray(gray).convert("1")
    np.testing.assert_array_equal(read_picture(files.save(tmp_path / "1.png", bits))[..., 1], np.asarray(bits) * 255)
    palette = image.quantize(64)
    np.testing.assert_array_equal(read_picture(files.save(tmp_path / "p.png", palette)), palette.convert("RGB"))
    np.testing.assert_array_equal(read_picture(files.save(tmp_path / "p.gif", palette)), palette.convert("RGB"))
    srgb, lab_space = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(image, srgb, lab_space, outputMode="LAB")
    rgb = read_picture(files.save(tmp_path / "lab.tif", lab))
    fine = ImageCms.Flags.HIGHRESPRECALC
    wanted = ImageCms.profileToProfile(lab, lab_space, srgb, outputMode="RGB", flags=fine)
    np.testing.assert_array_equal(rgb, wanted)
    assert np.abs(rgb.astype(int) - scene).mean() < 3


def test_alpha_is_dropped_and_the_colour_under_it_kept(tmp_path: Path) -> None:
    scene = files.scene()
    alpha = np.dstack([scene, np.zeros(scene.shape[:2], np.uint8)])
    np.testing.assert_array_equal(read_picture(files.save(tmp_path / "a.png", alpha)), scene)
    gray = np.dstack([scene[..., 0], scene[..., 1]])
    np.testing.assert_array_equal(
        read_picture(files.save(tmp_path / "la.png", Image.fromarray(gray, "LA")))[..., 2], scene[..., 0]
    )
    palette = Image.fromarray(scene).quantize(64)
    wanted = np.asarray(palette.convert("RGB"))
    path = files.save(tmp_path / "p.png", palette, transparency=bytes(range(64)))
    np.testing.assert_array_equal(read_picture(path), wanted)


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (30, 50, 3), np.uint16)
    for suffix in (".png", ".tif"):
        assert cv2.imwrite(str(tmp_path / f"rgb{suffix}"), deep)
        np.testing.assert_array_equal(read_picture(tmp_path / f"rgb{suffix}"), deep[..., ::-1] >> 8)
        assert cv2.imwrite(str(tmp_path / f"gray{suffix}"), deep[..., 0])
        np.testing.assert_array_equal(read_picture(tmp_path / f"gray{suffix}")[..., 0], deep[..., 0] >> 8)


def test_float_tiffs(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 30 * 50 * 3, dtype=np.float32).reshape(30, 50, 3)
    assert cv2.imwrite(str(tmp_path / "rgb.tif"), values)
    picture = open_picture(tmp_path / "rgb.tif")
    assert picture.size_hw == (30, 50)
    assert difference(picture.decode().rgb, values[..., ::-1] * 255) <= 0.51
    assert cv2.imwrite(str(tmp_path / "gray.tif"), values[..., 0] * 3000 - 1000)
    decoded = open_picture(tmp_path / "gray.tif").decode()
    assert (decoded.rgb.min(), decoded.rgb.max()) == (0, 255)
    assert "stretched" in decoded.notes[0]
    holed = values[..., 0].copy()
    holed[3, 4] = np.nan
    decoded = open_picture(files.save(tmp_path / "nan.tif", Image.fromarray(holed))).decode()
    assert decoded.rgb[3, 4, 0] == 0
    assert "not finite" in decoded.notes[0]
    with pytest.raises(SourceError, match="megapixels"):
        open_picture(tmp_path / "rgb.tif", limits=Limits(max_pixels=100))


def test_display_p3_becomes_srgb(tmp_path: Path) -> None:
    scene, profile = files.scene(), files.icc_profile()
    wanted = files.p3_to_srgb(scene)
    assert difference(wanted, scene) > 20
    for path in (
        files.save(tmp_path / "a.png", scene, icc_profile=profile),
        files.save(tmp_path / "a.tif", scene, icc_profile=profile),
        files.save(tmp_path / "rgba.png", Image.fromarray(scene).convert("RGBA"), icc_profile=profile),
    ):
        assert difference(read_picture(path), wanted) <= 2
    heic = files.save_heic(tmp_path / "a.heic", scene, icc_profile=profile)
    inside = np.abs(read_picture(heic) - wanted)[wanted.min(axis=2) > 20]
    assert inside.max() <= 6


def test_a_profile_that_means_srgb_changes_nothing(tmp_path: Path) -> None:
    scene = files.scene()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(read_picture(files.save(tmp_path / "a.png", scene, icc_profile=profile)), scene)


def test_a_profile_on_a_gray_picture_of_its_own_or_another_space(tmp_path: Path) -> None:
    gray = Image.fromarray(files.scene()[..., 0])
    decoded = open_picture(files.save(tmp_path / "a.png", gray, icc_profile=files.icc_profile())).decode()
    assert not decoded.notes
    assert np.ptp(decoded.rgb.astype(int), axis=2).max() <= 1, "gray stays gray"

    path = files.save(tmp_path / "g.png", gray, icc_profile=files.gray_profile(gamma=1.8))
    linear = (np.asarray(gray) / 255) ** 1.8
    wanted = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert difference(read_picture(path)[..., 1], wanted) <= 1

    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    decoded = open_picture(files.save(tmp_path / "a.tif", inks, icc_profile=files.icc_profile())).decode()
    assert decoded.rgb[0, 0].tolist() == [0, 255, 255]
    assert decoded.notes == ("the colour profile is for RGB but the image is CMYK; the profile is ignored",)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (13, "")])
def test_an_hdr_heic_is_announced(tmp_path: Path, transfer: int, name: str) -> None:
    path = files.save_heic(tmp_path / "a.hif", files.scene(), transfer_characteristics=transfer)
    notes = open_picture(path).decode().notes
    assert notes == ((f"{name} (HDR) image is not tone-mapped",) if name else ())


@pytest.mark.parametrize("damage", [b"no profile at all", files.icc_profile()[:200], bytes(400)])
def test_a_broken_profile_is_ignored_and_said(tmp_path: Path, damage: bytes) -> None:
    scene = files.scene()
    decoded = open_picture(files.save(tmp_path / "a.png", scene, icc_profile=damage)).decode()
    np.testing.assert_array_equal(decoded.rgb, scene)
    assert "colour profile" in decoded.notes[0]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_inverted_as_adobe_writes_it_or_not(tmp_path: Path, suffix: str) -> None:
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[:16, :16, 0] = inks[:16, 16:, 1] = inks[16:, :16, 2] = 255
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    path = files.save(tmp_path / f"a{suffix}", Image.fromarray(inks, "CMYK"), **options)
    rgb = read_picture(path)
    cyan, magenta, yellow, white = rgb[4, 4], rgb[4, 28], rgb[28, 4], rgb[28, 28]
    for got, wanted in ((cyan, [0, 255, 255]), (magenta, [255, 0, 255]), (yellow, [255, 255, 0]), (white, [255] * 3)):
        assert difference(got, np.array(wanted)) <= 4


def test_a_multi_picture_jpeg_gives_its_photograph(tmp_path: Path) -> None:
    scene = files.scene()
    path = tmp_path / "a.jpg"
    Image.fromarray(scene).save(path, "MPO", save_all=True, append_images=[Image.fromarray(scene[::-1])], quality=100)
    with Image.open(path) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
        np.testing.assert_array_equal(read_picture(path), np.asarray(image))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_means_upright(tmp_path: Path) -> None:
    scene, block = files.scene(), files.exif(6)
    for damaged in (b"Exif\0\0", block[:14], block[:18], b"Exif\0\0II*\0\xff\xff\xff\xff", files.exif(77)):
        path = files.save(tmp_path / "a.jpg", scene, exif=damaged, quality=100, subsampling=0)
        with open_picture(path) as picture:
            assert picture.size_hw == scene.shape[:2]
        assert difference(read_picture(path), scene) <= 8


def test_an_exif_block_without_its_prefix_is_read_too(tmp_path: Path) -> None:
    scene = files.scene()
    path = files.save(tmp_path / "a.webp", scene, exif=files.exif(6).removeprefix(b"Exif\0\0"), lossless=True)
    assert difference(read_picture(path), np.rot90(scene, -1)) == 0


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_damaged_tag_warns_and_the_orientation_is_kept(tmp_path: Path, suffix: str) -> None:
    scene = files.scene()
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    path = files.save(tmp_path / f"a{suffix}", files.stored(scene, 6), exif=files.exif_with_damaged_tag(6), **options)
    with pytest.warns(UserWarning, match="Truncated") if suffix == ".jpg" else nullcontext():  # opening warns, not we
        assert difference(read_picture(path), scene) <= 8


def test_warnings_as_errors_skip_a_picture_and_name_the_warning(tmp_path: Path) -> None:
    """A host program may turn warnings into errors, as pytest does here; reading leaves its filters alone."""
    scene, filters = files.scene(), list(warnings.filters)
    bad = files.save(tmp_path / "a.jpg", scene, exif=files.exif_with_damaged_tag(1))
    source = ImagesSource([bad, files.save(tmp_path / "b.jpg", scene)], name="folder")
    assert [frame.name for frame in source] == ["b.jpg"]
    assert "Truncated" in source.log.skipped[0].reason
    assert warnings.filters == filters


@pytest.mark.slow
def test_the_command_prints_no_warning_of_pillow(tmp_path: Path) -> None:
    path = files.save(tmp_path / "a.jpg", files.scene(), exif=files.exif_with_damaged_tag(1))
    done = forked.run(["probe", str(path)])
    assert (done.returncode, done.stderr) == (0, b"")


# --- bad pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not an image"),
        (b"\0\0\0\x18ftypisom" + bytes(60), "video"),
        (b"\x1aE\xdf\xa3" + bytes(60), "video"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (files.jpeg_bytes(files.scene(200, 200))[:900], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not an image"),
        (b"\0\0\0\x18ftypheic" + bytes(60), "cannot be decoded"),
        pytest.param(
            b"II*\0\xff\xff\xff\x7f" + bytes(60), "TIFF", marks=pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
        ),
    ],
    ids=["empty", "text", "mp4", "mkv", "lfs", "truncated", "png-head", "heic-head", "tiff-head"],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=said) as caught:
        read_picture(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_picture(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match="cannot be read"):
        read_picture(tmp_path)


def test_a_picture_bomb_is_refused_by_the_stated_limit_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = files.png_of_size(tmp_path / "bomb.png", 20_000, 20_000)
    with pytest.raises(SourceError, match=r"400 megapixels \(allowed: up to 178.957 megapixels\)"):
        read_picture(bomb)


def test_pillows_own_limit_neither_warns_nor_stays_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for suffix in (".png", ".tif", ".webp"):
        files.save(tmp_path / f"a{suffix}", files.scene())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in tmp_path.iterdir():
            assert read_picture(path).shape == (40, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 500


@pytest.mark.slow
def test_the_largest_picture_of_the_default_is_processed(tmp_path: Path) -> None:
    path = files.png_of_size(tmp_path / "large.png", 17_800, 10_000)
    assert read_picture(path).shape == (10_000, 17_800, 3)


def test_content_not_suffix_tells_a_picture(tmp_path: Path) -> None:
    scene = files.scene()
    for suffix in (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif", ".avif"):
        assert is_picture(files.save(tmp_path / f"a{suffix}", scene).rename(tmp_path / f"b{suffix[1:]}"))
    assert is_picture(files.save_heic(tmp_path / "a.heic", scene))
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(60))
    assert not is_picture(tmp_path / "a.mp4")


# --- finding -------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_a_folder_is_sorted_as_people_do_and_its_other_files_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, "img10.jpg", "img2.JPG", "Img1.png", ".hidden.jpg", "notes.txt", "clip.mp4", "sub/b.jpg", ".x/c.jpg"
    )
    found = find_pictures(tmp_path)
    assert [path.name for path in found.paths] == ["Img1.png", "img2.JPG", "img10.jpg"]
    assert (found.root, len(found.ignored)) == (tmp_path, 2)
    assert len(find_pictures(tmp_path, recursive=True).paths) == 4


def test_a_raw_photo_beside_its_jpeg_is_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a.JPG", "A.nef", "b.dng", "c.heic", "c.arw", "d.png", "sub/a.cr2")
    found = find_pictures(tmp_path, recursive=True)
    assert [path.name for path in found.paths] == ["a.JPG", "b.dng", "c.heic", "d.png", "a.cr2"]
    assert (found.ignored, found.ignored_because) == (("A.nef", "c.arw"), "not an image, or the RAW of one")


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image and three folders, of which `private` must not be read: a fault that root has, too."""
    for name in ("a.png", "open/b.png", "private/c.png", "open/private/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        files.save(tmp_path / name, files.scene())
    scandir = os.scandir

    def refusing(path: str) -> object:
        if os.path.basename(path) == "private":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    return tmp_path


def test_a_folder_that_nobody_asked_for_may_be_unreadable(locked: Path) -> None:
    source = open_source(str(locked))
    assert [frame.name for frame in source] == ["a.png"]
    assert (source.log.skipped, source.log.ignored) == ([], 0)
    (locked / "a.png").unlink()
    with pytest.raises(SourceNotFoundError, match="subfolders contain 1 image: add --recursive"):
        find_pictures(locked)


def test_with_recursive_an_unreadable_folder_is_skipped_and_the_others_are_read(locked: Path) -> None:
    source = open_source(str(locked), options=CaptureConfig(recursive=True))
    assert [frame.name for frame in source] == ["a.png", "open/b.png"]
    assert sorted((skip.name, skip.reason) for skip in source.log.skipped) == [
        ("open/private/", "cannot be read: Permission denied"),
        ("private/", "cannot be read: Permission denied"),
    ]
    with pytest.raises(SourceError, match="Permission denied"):
        find_pictures(locked / "private", recursive=True)


def test_a_folder_that_contains_itself_is_read_once(tmp_path: Path) -> None:
    files.save(tmp_path / "a.png", files.scene())
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop.png").symlink_to("loop.png")
    source = open_source(str(tmp_path), options=CaptureConfig(recursive=True))
    assert [frame.name for frame in source] == ["a.png"]
    assert [skip.name for skip in source.log.skipped] == ["loop.png"]


def test_natural_order() -> None:
    names = ["b", "a10/x", "a2/x", "a2/x10", "a2/X9", "A1", "10", "9", "a"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "A1", "a2/x", "a2/X9", "a2/x10", "a10/x", "b"]


def test_globs(tmp_path: Path) -> None:
    touch(tmp_path, "a/img2.jpg", "a/img10.jpg", "b/img1.png", "b/readme.md")
    assert [path.name for path in find_pictures(f"{tmp_path}/a/*.jpg").paths] == ["img2.jpg", "img10.jpg"]
    found = find_pictures(f"{tmp_path}/**/*")
    assert (found.root, len(found.ignored), len(found.paths)) == (tmp_path, 1, 3)
    with pytest.raises(SourceNotFoundError, match="no file matches"):
        find_pictures(f"{tmp_path}/*.gif")
    with pytest.raises(SourceNotFoundError, match="1 other file"):
        find_pictures(f"{tmp_path}/b/*.md")


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("f_%d.png", ["f_7.png", "f_8.png", "f_12.png", "f_10005.png"]),
        ("f_%04d.png", ["f_0003.png", "f_0004.png", "f_0010.png", "f_10005.png"]),
        ("f_%02d.png", ["f_12.png", "f_10005.png"]),
        ("100%%_%03d.png", ["100%_001.png"]),
        ("a[1]_%d.png", ["a[1]_5.png"]),
        ("f_%d.png.png", ["f_1.png.png"]),
    ],
)
def test_a_numbered_sequence_is_in_numeric_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, wanted: list[str]
) -> None:
    names = ["f_0003.png", "f_0004.png", "f_0010.png", "f_10005.png", "f_7.png", "f_8.png", "f_12.png", "f_x.png"]
    touch(tmp_path, *names, "100%_001.png", "a[1]_5.png", "f_1.png.png", "f_-1.png", "sub/f_0005.png")
    (tmp_path / "f_0006.png").mkdir()
    found = find_pictures(tmp_path / pattern)
    assert ([path.name for path in found.paths], found.ignored) == (wanted, ())
    monkeypatch.chdir(tmp_path)
    assert parse_source(pattern).form is SourceForm.GLOB
    assert [path.name for path in find_pictures(pattern).paths] == wanted


def test_gaps_in_a_numbered_sequence_are_said_and_a_rate_makes_it_a_video(tmp_path: Path) -> None:
    for number in (98, 99, 101, 105):
        files.save(tmp_path / f"f{number}.png", np.full((8, 16, 3), number, np.uint8))
    with closing(open_source(f"{tmp_path}/f%d.png", options=CaptureConfig(fps=24))) as source:
        assert source.info.notes == ("f%d.png: 4 of the numbers 98…105 are missing",)
        assert [(int(frame.rgb[0, 0, 0]), frame.pts) for frame in source] == [(98, 0), (99, 1), (101, 2), (105, 3)]
    assert find_pictures(f"{tmp_path}/f%03d.png").paths[0].name == "f101.png"


def test_a_numbered_sequence_of_nothing_and_a_file_of_that_very_name(tmp_path: Path) -> None:
    touch(tmp_path, "f_1.jpg", "clip_1.mp4")
    for pattern, said in (("f_%d.png", "no file matches"), ("clip_%d.mp4", "no images, 1 other file")):
        with pytest.raises(SourceNotFoundError, match=said):
            open_source(f"{tmp_path}/{pattern}")
    with pytest.raises(SourceNotFoundError, match=r"the folder .*/none does not exist"):
        open_source(f"{tmp_path}/none/f_%d.png")
    for no_pattern in ("f_%d_%d.png", "100%.png", "f_%s.png"):
        with pytest.raises(SourceNotFoundError, match="no such file"):
            open_source(f"{tmp_path}/{no_pattern}")
    files.save(tmp_path / "f_%d.jpg", files.scene())
    with closing(open_source(f"{tmp_path}/f_%d.jpg")) as source:
        assert source.info.names == ("f_%d.jpg",)


def test_a_name_with_brackets_is_a_file_if_it_exists(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jpg")
    assert find_pictures(tmp_path / "a[1].jpg").paths == (tmp_path / "a[1].jpg",)


def test_a_list_keeps_its_order_and_names_its_missing_entries(tmp_path: Path) -> None:
    files.save(tmp_path / "z.png", files.scene())
    (tmp_path / "sub").mkdir()
    files.save(tmp_path / "sub/a.png", files.scene())
    listing = tmp_path / "list.txt"
    listing.write_text(f"# pictures\n\nz.png\n./z.png\nmissing.png\n  {tmp_path}/sub/a.png \n", encoding="utf-8")
    found = find_pictures(listing)
    assert (found.root, len(found.ignored)) == (tmp_path, 1)
    source = ImagesSource(found.paths, name=str(listing), root=found.root)
    assert [frame.name for frame in source] == ["z.png", "sub/a.png"]
    assert [(skip.name, skip.reason) for skip in source.log.skipped] == [
        ("missing.png", "cannot be read: No such file or directory")
    ]


def test_a_list_of_nothing_and_a_list_that_is_none(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("# nothing\n")
    with pytest.raises(SourceNotFoundError, match="names no images"):
        find_pictures(listing)
    listing.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SourceError, match="UTF-8"):
        find_pictures(listing)


def test_a_folder_without_pictures_says_what_it_has(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.mp4", "sub/c.jpg", "sub/d.jpg")
    with pytest.raises(SourceNotFoundError, match=r"no images, 2 other files.*\.jpg.*2 images.*--recursive"):
        find_pictures(tmp_path)
    with pytest.raises(SourceNotFoundError, match="did you mean"):
        find_pictures(tmp_path / "a.tx")


# --- the source ----------------------------------------------------------------------------------------------------


def folder_of(tmp_path: Path, count: int) -> list[Path]:
    """PNGs of different sizes whose every pixel is their number."""
    return [
        files.save(tmp_path / f"{i}.png", np.full((8 + i % 3, 16, 3), i, np.uint8), compress_level=0)
        for i in range(count)
    ]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 4), (4, 16)])
def test_pictures_come_in_order_with_their_names(tmp_path: Path, workers: int, ahead: int) -> None:
    paths = folder_of(tmp_path, 40)
    source = ImagesSource(paths, name="folder", root=tmp_path, workers=workers, ahead=ahead)
    frames = list(source)
    source.close()
    assert [frame.index for frame in frames] == [frame.pts for frame in frames] == list(range(40))
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == list(range(40))
    assert [frame.name for frame in frames] == list(source.info.names) == [path.name for path in paths]
    assert (source.info.kind, source.info.is_live, source.info.frame_count) == (SourceKind.STILLS, False, 40)
    assert source.info.size == (8, 16)
    assert frames[0].duration is None


def test_with_a_rate_stills_are_a_video(tmp_path: Path) -> None:
    source = ImagesSource(folder_of(tmp_path, 3), name="folder", rate=Fraction(30000, 1001))
    assert source.info.time_base == Fraction(1001, 30000)
    assert [(frame.pts, frame.duration) for frame in source] == [(0, 1), (1, 1), (2, 1)]


def test_a_corrupt_picture_is_a_named_gap(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 5)
    paths[0].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:100])
    source = ImagesSource(paths, name="folder", root=tmp_path, ignored=["a.txt", "b.txt", "c.txt"])
    assert [frame.index for frame in source] == [1, 3, 4]
    assert [skip.name for skip in source.log.skipped] == ["0.png", "2.png"]
    assert source.log.skipped[0].reason == f"the file is empty (allowed: {FORMATS})"
    assert source.log.ignored == 3
    assert source.info.size == (9, 16), "of the first readable one"


def test_too_large_ones_are_skipped_with_the_limit(tmp_path: Path) -> None:
    paths = [files.save(tmp_path / "a.png", files.scene(100, 100)), files.save(tmp_path / "b.png", files.scene(10, 10))]
    source = ImagesSource(paths, name="folder", limits=Limits(max_pixels=5000))
    assert [frame.name for frame in source] == ["b.png"]
    assert "allowed: up to 0.005 megapixels" in source.log.skipped[0].reason


def test_nothing_readable_is_an_error_early_or_late(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 3)
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    source = ImagesSource(paths, name="folder")
    with pytest.raises(SourceError, match=r"none of 3 images.*0\.png"):
        list(source)
    for path in paths:
        path.write_bytes(b"junk")
    with pytest.raises(SourceError, match="none of 3 images"):
        ImagesSource(paths, name="folder")
    with pytest.raises(SourceError, match=r"0\.png: this is not an image"):
        ImagesSource(paths[:1], name="0.png")


def test_notes_are_said_once(tmp_path: Path) -> None:
    paths = [files.save(tmp_path / f"{i}.png", files.scene(), icc_profile=b"broken") for i in range(3)]
    source = ImagesSource(paths, name="folder")
    assert len(list(source)) == 3
    assert len(source.log.notes) == 1
    assert source.log.notes[0].startswith("0.png: ")
    assert not source.log.skipped


def test_max_frames_counts_delivered_pictures(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 6)
    paths[0].write_bytes(b"")
    source = ImagesSource(paths, name="folder", max_frames=2)
    assert source.info.frame_count == 2
    assert [frame.index for frame in source] == [1, 2]


def test_interrupt_and_early_close_leave_no_thread(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 50)
    before = threading.active_count()
    source = ImagesSource(paths, name="folder")
    frames = iter(source)
    next(frames)
    source.interrupt()
    assert list(frames) == []
    assert threading.active_count() == before
    another = iter(ImagesSource(paths, name="folder"))
    next(another)
    another.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_at_most_ahead_pictures_are_open_and_large_ones_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def counting(path: Path, *, limits: Limits) -> object:
        opened.append(path)
        return open_picture(path, limits=limits)

    paths = folder_of(tmp_path, 20)
    source = ImagesSource(paths, name="folder", ahead=3)
    monkeypatch.setattr("stream.capture.stills.source.open_picture", counting)
    frames = iter(source)
    next(frames)
    assert len(opened) == 3
    frames.close()  # type: ignore[attr-defined]
    opened.clear()
    monkeypatch.setattr("stream.capture.stills.source._AHEAD_PIXELS", 1)
    frames = iter(source)
    next(frames)
    assert len(opened) == 1
    frames.close()  # type: ignore[attr-defined]


# --- animations ----------------------------------------------------------------------------------------------------

PICTURES = [np.full((20, 30, 3), value, np.uint8) for value in (10, 90, 170, 250)]
DURATIONS_MS = [40, 70, 200, 33]


def frames_of(path: Path, **options: object) -> list[Frame]:
    with closing(AnimatedSource(path, **options)) as source:
        return list(source)


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.avif"])
def test_an_animation_keeps_its_times(tmp_path: Path, name: str) -> None:
    source = AnimatedSource(files.animated(tmp_path / name, PICTURES, DURATIONS_MS))
    frames = list(source)
    source.close()
    source.close()
    assert list(source) == []
    assert [(frame.index, frame.pts, frame.duration) for frame in frames] == [
        (0, 0, 40), (1, 40, 70), (2, 110, 200), (3, 310, 33),
    ]  # fmt: skip
    assert frames[0].time_base == Fraction(1, 1000)
    assert [round(float(frame.rgb.mean()), -1) for frame in frames] == [10, 90, 170, 250]
    assert (source.info.kind, source.info.frame_count, source.info.rate) == (SourceKind.VIDEO, 4, 25)


def test_a_part_of_an_animation(tmp_path: Path) -> None:
    path = files.animated(tmp_path / "a.webp", PICTURES, DURATIONS_MS)
    assert [frame.pts for frame in frames_of(path, start_s=0.04, end_s=0.3)] == [40, 110]
    assert [frame.pts for frame in frames_of(path, max_frames=3)] == [0, 40, 110]
    with pytest.raises(SourceError, match=r"lasts 0\.343 s"):
        frames_of(path, start_s=5)


def test_an_animation_without_durations_is_shown_as_browsers_do(tmp_path: Path) -> None:
    path = files.animated(tmp_path / "a.webp", PICTURES, [0, 0, 0, 0])
    assert [frame.duration for frame in frames_of(path)] == [100] * 4


def test_a_truncated_animation_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 60, 3), np.uint8)
    path = files.animated(tmp_path / "a.png", list(noise), DURATIONS_MS)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 5 // 8])
    with closing(AnimatedSource(path)) as source:
        assert [frame.pts for frame in source] == [0, 40]
    assert "frames from 2 on of 4 are lost" in source.log.warnings[0]
    path.write_bytes(data[:300])
    with pytest.raises(SourceError, match="cannot be decoded"):
        AnimatedSource(path)


def test_interrupting_an_animation(tmp_path: Path) -> None:
    with closing(AnimatedSource(files.animated(tmp_path / "a.webp", PICTURES, DURATIONS_MS))) as source:
        frames = iter(source)
        next(frames)
        source.interrupt()
        assert list(frames) == []
