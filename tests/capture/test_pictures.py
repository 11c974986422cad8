"""Pictures that state their main image, their orientation or their end in unusual ways: RAW, pages, XMP, cut files."""

import io
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from stream.capture.open import open_source
from stream.capture.stills import jpeg
from stream.capture.stills.picture import DecodedPicture, open_picture
from stream.capture.stills.source import ImagesSource
from stream.errors import SourceError
from stream.frames import SourceKind
from stream.media import cv2
from tests.support import picture_files as files
from tests.support.media_files import write_video


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def decoded(path: Path) -> DecodedPicture:
    """The decoded picture, of the size that was announced."""
    picture = open_picture(path)
    done = picture.decode()
    assert done.rgb.shape[:2] == picture.size_hw
    return done


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    assert got.shape == wanted.shape
    return float(np.abs(got.astype(float) - wanted).max())


# --- RAW photos ----------------------------------------------------------------------------------------------------

THUMBNAIL = files.scene(12, 16)
SENSOR_HW = (240, 320)


def preview(height: int, width: int, **options: object) -> bytes:
    return files.jpeg_bytes(files.scene(height, width), quality=95, subsampling=0, **options)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size_hw", [(240, 320), (120, 160)])
def test_a_raw_photo_gives_its_preview_and_never_its_thumbnail(
    tmp_path: Path, order: str, size_hw: tuple[int, int]
) -> None:
    subs = [files.sensor(*SENSOR_HW), files.jpeg_page(preview(*size_hw)), files.jpeg_page(preview(60, 80))]
    photo = files.tiff(files.page(THUMBNAIL, subfile=1, subs=subs, t274=(3, [3])), order=order)
    done = decoded(written(tmp_path / "a.nef", photo))
    assert difference(done.rgb, files.scene(*size_hw)[::-1, ::-1]) <= 8
    assert done.notes == (f"RAW photo: its embedded preview is used ({size_hw[1]}×{size_hw[0]} of 320×240)",)


def test_a_preview_keeps_its_own_orientation_and_is_not_turned_twice(tmp_path: Path) -> None:
    scene = files.scene(240, 320)

    def turned(embedded: bytes) -> np.ndarray:
        subs = [files.sensor(*SENSOR_HW), files.jpeg_page(embedded)]
        photo = files.tiff(files.page(THUMBNAIL, subfile=1, subs=subs, t274=(3, [6])))
        return decoded(written(tmp_path / "a.dng", photo)).rgb

    assert difference(turned(preview(240, 320)), np.rot90(scene, -1)) <= 8
    assert difference(turned(preview(240, 320, exif=files.exif(3))), scene[::-1, ::-1]) <= 8
    assert difference(turned(preview(320, 240)), files.scene(320, 240)) <= 8, "stored upright"


@pytest.mark.parametrize("largest", [None, (60, 80)])
def test_a_raw_photo_with_nothing_but_a_thumbnail_is_skipped(tmp_path: Path, largest: tuple[int, int] | None) -> None:
    subs = [files.sensor(*SENSOR_HW)] + ([files.jpeg_page(preview(*largest))] if largest else [])
    photo = files.tiff(files.page(THUMBNAIL, subfile=1, subs=subs))
    paths = [written(tmp_path / "a.dng", photo), files.save(tmp_path / "b.png", files.scene())]
    source = ImagesSource(paths, name="folder")
    assert [frame.name for frame in source] == ["b.png"]
    found = "80×60 of 320×240" if largest else "none of 320×240"
    wanted = f"RAW photo without a large preview ({found}); convert it to JPEG or TIFF first"
    assert [(skip.name, skip.reason) for skip in source.log.skipped] == [("a.dng", wanted)]


def test_tiles_of_the_sensor_data_are_no_preview(tmp_path: Path) -> None:
    """A lossy DNG stores its sensor data as JPEGs."""
    tiles = files.sensor(*SENSOR_HW)
    tiles.data, tiles.tags[262] = preview(*SENSOR_HW), (3, [34892])
    photo = files.tiff(files.page(THUMBNAIL, subfile=1, subs=[tiles]))
    with pytest.raises(SourceError, match="without a large preview"):
        open_picture(written(tmp_path / "a.dng", photo))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201FF383501X-T5"),
        ("a.rw2", b"IIU\0\x18\0\0\0" + bytes(16)),
        ("a.orf", b"IIRO\x08\0\0\0" + bytes(16)),
        ("a.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(16)),
    ],
    ids=["cr3", "raf", "rw2", "orf", "cr2"],
)
def test_raw_photos_that_are_no_plain_tiff(tmp_path: Path, name: str, head: bytes) -> None:
    with pytest.raises(SourceError, match=r"RAW photo without a large preview \(none\)"):
        open_source(str(written(tmp_path / name, head + bytes(500))))
    path = written(tmp_path / name, head + bytes(500) + preview(90, 120) + bytes(99) + preview(750, 1000) + bytes(99))
    with closing(open_source(str(path))) as source:
        assert source.info.size == (750, 1000)
        assert len(list(source)) == 1


def test_the_orientation_of_a_cr3(tmp_path: Path) -> None:
    tags = exif_of(3, 8, "<").removeprefix(b"Exif\0\0")
    content = b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + struct.pack(">I", 8 + len(tags)) + b"CMT1" + tags
    path = written(tmp_path / "a.cr3", content + bytes(99) + preview(750, 1000))
    assert difference(decoded(path).rgb, np.rot90(files.scene(750, 1000))) <= 8


# --- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_first_full_size_page_of_a_tiff_is_used(tmp_path: Path, order: str) -> None:
    scene = files.scene()
    pages = [files.page(scene[::2, ::2], subfile=1), files.page(scene), files.page(scene[::-1])]
    done = decoded(written(tmp_path / "a.tif", files.tiff(*pages, order=order)))
    assert difference(done.rgb, scene) == 0
    assert (done.unit, done.count) == ("page", 2)
    in_subifd = files.tiff(files.page(scene[::2, ::2], subfile=1, subs=[files.page(scene)]), order=order)
    assert difference(decoded(written(tmp_path / "b.tif", in_subifd)).rgb, scene) == 0


def test_that_one_of_several_images_is_used_is_said_once_and_counted(tmp_path: Path) -> None:
    scene = files.scene()
    pages = [Image.fromarray(scene)] * 4
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for number, path in enumerate(paths):
        pages[0].save(path, save_all=True, append_images=pages[: number + 1])
    paths.append(files.save_heic(tmp_path / "burst.heic", scene, scene, primary=1))
    paths.append(files.animated(tmp_path / "moving.gif", [scene, scene[::-1], scene], [40, 40, 40]))
    paths.append(tmp_path / "mpo.jpg")
    pages[0].save(paths[-1], "MPO", save_all=True, append_images=[Image.fromarray(scene[::-1])])
    paths[-1].write_bytes(with_types(paths[-1].read_bytes(), 0x020002))  # Pillow states no type
    source = ImagesSource(paths, name="folder")
    assert len(list(source)) == len(paths)
    assert source.log.notes == [
        "0.tif: one page of 2 in the file is used",
        "burst.heic: one image of 2 in the file is used",
        "moving.gif: one frame of 3 in the file is used",
    ]
    assert source.log.further_images == (1 + 2 + 3) + 1 + 2 + 1


def with_types(content: bytes, kind: int) -> bytes:
    """A multi-picture JPEG whose entries (CIPA DC-007, 5.2.3.3) state this type."""
    at = content.index(b"MPF\0") + 4
    order = "<" if content[at : at + 2] == b"II" else ">"
    entry = content.index(struct.pack(order + "HHI", 0xB002, 7, 32), at)
    first = at + int(struct.unpack_from(order + "I", content, entry + 8)[0])
    changed = bytearray(content)
    for place in (first, first + 16):
        struct.pack_into(order + "I", changed, place, kind)
    return bytes(changed)


@pytest.mark.parametrize(("kind", "further"), [(0, 0), (0x010001, 0), (0x020001, 1), (0x020002, 1), (0x020003, 1)])
def test_a_preview_or_a_gain_map_in_a_photo_is_no_further_image(tmp_path: Path, kind: int, further: int) -> None:
    image, buffer = Image.fromarray(files.scene()), io.BytesIO()
    image.save(buffer, "MPO", save_all=True, append_images=[image.resize((16, 12))])
    source = ImagesSource([written(tmp_path / "a.jpg", with_types(buffer.getvalue(), kind))], name="a")
    assert len(list(source)) == 1
    assert source.log.further_images == further


def test_an_icon_gives_its_largest_image(tmp_path: Path) -> None:
    scene = Image.fromarray(files.scene(64, 64))
    scene.save(tmp_path / "a.ico", sizes=[(16, 16), (64, 64), (32, 32)])
    assert difference(decoded(tmp_path / "a.ico").rgb, np.asarray(scene)) == 0


# --- orientation ---------------------------------------------------------------------------------------------------


def exif_of(kind: int, orientation: int, order: str, *, after: bytes = b"") -> bytes:
    """An EXIF block whose orientation has the field type `kind`; `after` is put before it as another entry."""
    value = struct.pack(f"{order}{ {1: 'B3x', 3: 'H2x', 4: 'I'}[kind] }", orientation)
    entries = [*([after] if after else []), struct.pack(f"{order}HHI", 0x112, kind, 1) + value]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return b"Exif\0\0" + head + b"".join(entries) + bytes(4)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")  # Pillow looks for the resolution of a JPEG
@pytest.mark.filterwarnings("ignore:Truncated File Read")  # Pillow 12 says so
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4], ids=["byte", "short", "long"])
def test_an_orientation_of_any_number_type(tmp_path: Path, suffix: str, order: str, kind: int) -> None:
    scene, lying = files.scene(), files.stored(files.scene(), 6)
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    cut_off = struct.pack(f"{order}HHII", 0x10F, 2, 400, 5000)
    for after in (b"", cut_off):
        block = exif_of(kind, 6, order, after=after)
        path = files.save(tmp_path / f"a{suffix}", lying, exif=block, **options)
        assert difference(decoded(path).rgb, scene) <= 8


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("as_element", [False, True])
def test_the_orientation_in_xmp(tmp_path: Path, suffix: str, as_element: bool) -> None:
    scene, path = files.scene(), tmp_path / f"a{suffix}"
    image, packet = files.stored(scene, 8), files.xmp(8, as_element=as_element)
    options: dict[str, object] = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    if suffix == ".png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=as_element)
        options = {"pnginfo": chunks}
    elif suffix == ".tif":
        options = {"tiffinfo": {700: packet}}
    else:
        options |= {"xmp": packet, "lossless": True}
    assert difference(decoded(files.save(path, image, **options)).rgb, scene) <= 8
    if suffix != ".tif":
        files.save(path, files.stored(scene, 3), **options | {"exif": files.exif(3)})
        assert difference(decoded(path).rgb, scene) <= 8, "EXIF comes first"


@pytest.mark.parametrize("name", ["exif", "APP1", "xmp"])
@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("is_last", [False, True])
def test_the_raw_profiles_of_imagemagick(tmp_path: Path, name: str, is_compressed: bool, is_last: bool) -> None:
    scene = files.scene()
    profile = files.xmp(6) if name == "xmp" else exif_of(3, 6, ">")
    text = f"\n{name}\n{len(profile):8}\n{profile.hex()}\n"
    chunks = PngImagePlugin.PngInfo()
    if is_last:  # Pillow reads what follows the pixels only after it has decoded them
        body = f"Raw profile type {name}".encode() + b"\0" + text.encode()
        chunks.add(b"tEXt", body, after_idat=True)
    else:
        chunks.add_text(f"Raw profile type {name}", text, zip=is_compressed)
    path = files.save(tmp_path / "a.png", files.stored(scene, 6), pnginfo=chunks)
    assert difference(decoded(path).rgb, scene) == 0


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("kind", [1, 3, 4], ids=["byte", "short", "long"])
def test_the_orientation_of_a_tiff_that_pillow_reads_or_not(tmp_path: Path, orientation: int, kind: int) -> None:
    scene = files.scene()
    stored = np.asarray(files.stored(scene, orientation))
    page = files.page(stored, t274=(kind, [orientation]))
    assert difference(decoded(written(tmp_path / "a.tif", files.tiff(page))).rgb, scene) == 0
    floats = stored.astype(np.float32) / 255
    page.data = floats.tobytes()
    page.tags |= {258: (3, [32] * 3), 339: (3, [3] * 3)}
    assert difference(decoded(written(tmp_path / "b.tif", files.tiff(page))).rgb, scene) == 0


# --- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 2}])
@pytest.mark.parametrize("value", [0, 128, None], ids=["black", "gray", "noise"])
def test_a_jpeg_without_its_end_marker_is_whole_and_a_shorter_one_is_not(
    tmp_path: Path, options: dict[str, object], value: int | None
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    content = files.jpeg_bytes(noise if value is None else np.full_like(noise, value), **options)
    whole = np.asarray(Image.open(io.BytesIO(content)))
    for end in (-1, -2):
        done = decoded(written(tmp_path / "a.jpg", content[:end]))
        np.testing.assert_array_equal(done.rgb, whole)
        assert done.notes == ("the end of the file is missing, but no pixel",)
    np.testing.assert_array_equal(decoded(written(tmp_path / "a.jpg", content[:-2] + bytes(50))).rgb, whole)
    for end in (-5, -9, -40):
        with pytest.raises(SourceError, match="truncated"):
            decoded(written(tmp_path / "a.jpg", content[:end]))


def test_a_progressive_jpeg_whose_last_scan_is_missing_is_cut_off(tmp_path: Path) -> None:
    content = files.jpeg_bytes(files.scene(64, 96), progressive=True)
    with pytest.raises(SourceError, match="truncated"):
        decoded(written(tmp_path / "a.jpg", content[: content.rindex(b"\xff\xda")]))


def test_a_jpeg_that_ends_between_two_restart_intervals_is_cut_off(tmp_path: Path) -> None:
    content = files.jpeg_bytes(np.full((64, 96, 3), 128, np.uint8), restart_marker_rows=1, subsampling=0)
    for number in range(7):
        at = content.rindex(bytes((0xFF, 0xD0 + number)))
        for end in (at, at + 2):
            with pytest.raises(SourceError, match="truncated"):
                decoded(written(tmp_path / "a.jpg", content[:end]))


def test_what_follows_or_surrounds_the_pixels_does_no_harm(tmp_path: Path) -> None:
    scene = files.scene()
    for suffix in (".png", ".bmp", ".tif", ".webp", ".gif"):
        image = Image.fromarray(scene).quantize(64) if suffix == ".gif" else Image.fromarray(scene)
        options = {"lossless": True} if suffix == ".webp" else {}
        path = files.save(tmp_path / f"a{suffix}", image, **options)
        whole = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        content = path.read_bytes()
        assert difference(decoded(written(path, content + b"trailing bytes")).rgb, whole) == 0
        shorter = {".png": content[:-12], ".gif": content[:-1]}.get(suffix)
        if shorter is not None:
            assert difference(decoded(written(path, shorter)).rgb, whole) == 0


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.jp2", "a.qoi", "a.exr", "a.hdr", "a.pfm"])
def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    noise, path = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), tmp_path / name
    if name in ("a.exr", "a.hdr", "a.pfm"):
        files.linear(path, noise.astype(np.float32) / 255)
    else:
        files.save(path, noise)
    content = path.read_bytes()
    decoded(path)
    for end in (-60, len(content) // 2, *([-1, -2, -5] if name == "a.hdr" else [])):
        with pytest.raises(SourceError):
            decoded(written(path, content[:end]))


def test_damaged_metadata_of_a_png_are_ignored_and_said(tmp_path: Path) -> None:
    scene = files.scene()
    path = files.save(tmp_path / "a.png", scene, dpi=(72, 72))
    content = bytearray(path.read_bytes())
    content[content.index(b"pHYs") + 12] ^= 0xFF
    done = decoded(written(path, bytes(content)))
    assert difference(done.rgb, scene) == 0
    assert done.notes == ("damaged metadata are ignored",)


# --- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jp2", ".j2k", ".tga", ".dds", ".ico", ".pcx", ".qoi", ".psd", ".ppm"])
def test_a_file_of_a_rarer_format_is_a_picture_alone_and_in_a_folder(tmp_path: Path, suffix: str) -> None:
    scene = files.scene(32, 32)
    path = tmp_path / f"a{suffix}"
    if suffix == ".psd":
        path.write_bytes(files.psd(scene))
    else:
        files.save(path, scene, **({"irreversible": False} if suffix in (".jp2", ".j2k") else {}))
    for text in (path, tmp_path):
        with closing(open_source(str(text))) as source:
            (frame,) = source
        assert (source.info.kind, source.info.names) == (SourceKind.STILLS, (path.name,))
        assert difference(frame.rgb, scene) == 0
    if suffix not in (".tga", ".pcx"):  # which have no signature
        with closing(open_source(str(path.rename(tmp_path / "nosuffix")))) as source:
            assert source.info.kind is SourceKind.STILLS


@pytest.mark.parametrize("suffix", [".exr", ".hdr", ".pfm"])
def test_linear_light_becomes_srgb(tmp_path: Path, suffix: str) -> None:
    linear = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None, :, None], 20, axis=0) * np.float32([1, 0.5, 0.25])
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    done = decoded(files.linear(tmp_path / f"a{suffix}", linear))
    assert difference(done.rgb, encoded) <= (4 if suffix == ".hdr" else 1), "HDR has 8 bits of mantissa"
    assert done.notes == ("linear light (HDR) is shown as sRGB, and bright parts are clipped",)
    few_lamps = linear.copy()
    few_lamps[0, :3] = 500.0
    assert difference(decoded(files.linear(tmp_path / f"b{suffix}", few_lamps)).rgb[1:], encoded[1:]) <= 4
    brighter = decoded(files.linear(tmp_path / f"c{suffix}", linear * 1000))
    assert difference(brighter.rgb, encoded) <= 4, "the exposure follows"


@pytest.mark.parametrize("compression", [0, 1], ids=["flat", "rle"])
@pytest.mark.parametrize("width", [5, 8, 300])
def test_hdr_is_what_opencv_reads_and_what_is_no_such_file_is_named(
    tmp_path: Path, width: int, compression: int
) -> None:
    linear = np.random.default_rng(0).random((9, width, 3), np.float32)
    path = tmp_path / "a.hdr"
    assert cv2.imwrite(str(path), linear[..., ::-1], [cv2.IMWRITE_HDR_COMPRESSION, compression])
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert read is not None
    linear = read[..., ::-1]
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert difference(decoded(path).rgb, encoded) <= 1
    content = path.read_bytes()
    older = content.replace(b"#?RADIANCE", b"#?RGBE", 1)
    assert np.array_equal(decoded(written(path, older)).rgb, decoded(written(path, content)).rgb)
    for old, new, said in (
        (b"-Y 9", b"+Y 9", "turned or mirrored"),
        (b"+X ", b"-X ", "turned or mirrored"),
        (b"rgbe\n", b"xyze\n", "not RGBE"),
    ):
        with pytest.raises(SourceError, match=said):
            decoded(written(path, content.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xff\x0a" + bytes(60), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "JPEG XL"),
        (b"%PDF-1.7" + bytes(60), "PDF"),
    ],
)
def test_a_format_that_is_not_read_is_named(tmp_path: Path, content: bytes, name: str) -> None:
    for suffix in (".jxl", ""):
        with pytest.raises(SourceError, match=f"{name} is not supported; convert it"):
            open_source(str(written(tmp_path / f"a{suffix}", content)))


# --- modes and layouts ---------------------------------------------------------------------------------------------


def same_to_opencv(path: Path, tolerance: int) -> np.ndarray:
    """The decoded picture, after a check against OpenCV's."""
    rgb, other = decoded(path).rgb, cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert other is not None
    assert difference(rgb, other[..., ::-1]) <= tolerance
    return rgb


@pytest.mark.parametrize("compression", [None, "packbits", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "CMYK", "I;16", "I;16B"])
def test_tiffs_of_every_mode_and_compression(tmp_path: Path, mode: str, compression: str | None) -> None:
    scene = Image.fromarray(files.scene(37, 53))
    if mode.startswith("I;16"):
        samples = np.asarray(scene.convert("L")).astype(np.uint16) * 257
        image = Image.fromarray(samples.astype(">u2" if mode == "I;16B" else "<u2"))
        wanted = scene.convert("L").convert("RGB")
    else:
        image = scene.quantize(64) if mode == "P" else scene.convert(mode)
        wanted = image.convert("RGB")
    path = files.save(tmp_path / "a.tif", image, compression=compression)
    assert difference(same_to_opencv(path, 1 if mode == "CMYK" else 0), np.asarray(wanted)) == 0


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_fax_tiffs(tmp_path: Path, compression: str) -> None:
    bits = Image.fromarray(files.scene(37, 53)).convert("1")
    path = files.save(tmp_path / "a.tif", bits, compression=compression)
    assert difference(same_to_opencv(path, 0), np.asarray(bits.convert("RGB"))) == 0


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("is_inverted", [False, True])
def test_gray_tiffs_of_every_depth(tmp_path: Path, order: str, bits: int, is_inverted: bool) -> None:
    """Black at 0 or white at 0; 32 bits have no stated white, and are stretched."""
    gray = files.scene(37, 53)[..., 0]
    gray[0, -1] = 255
    samples = gray.astype(np.uint64) * ((2**bits - 1) // 255)
    stored = (2**bits - 1 - samples if is_inverted else samples).astype(f"{order}u{bits // 8}")
    page = files.page(gray, t258=(3, [bits]), t262=(3, [0 if is_inverted else 1]))
    page.data = stored.tobytes()
    path = written(tmp_path / "a.tif", files.tiff(page, order=order))
    if int(cv2.__version__.partition(".")[0]) < 5 and bits == 32 and (is_inverted or order == ">"):
        with pytest.raises(SourceError, match="this kind of TIFF is not supported"):  # neither by Pillow nor OpenCV 4
            decoded(path)
        return
    done = decoded(path)
    assert difference(done.rgb, np.dstack([gray] * 3)) == 0
    assert len(done.notes) == (bits == 32)


@pytest.mark.parametrize("kind", ["big", "tiled", "planes", "jpeg", "deep", "premultiplied"])
def test_tiffs_of_other_layouts(tmp_path: Path, kind: str) -> None:
    scene, path = files.scene(48, 64), tmp_path / "a.tif"
    if kind == "big":
        files.save(path, scene, big_tiff=True)
    elif kind == "jpeg":
        files.save(path, scene, compression="jpeg", quality=100)
    elif kind == "deep":
        assert cv2.imwrite(str(path), scene[..., ::-1].astype(np.uint16) * 257, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    elif kind == "premultiplied":
        alpha = np.full((48, 64, 1), 128, np.uint8)
        page = files.page(np.dstack([scene // 2, alpha]), t262=(3, [2]), t338=(3, [1]))
        written(path, files.tiff(page))
        assert difference(decoded(path).rgb, scene) <= 2
        return
    elif kind == "planes":
        page = files.page(scene, t284=(3, [2]))
        page.data = np.ascontiguousarray(np.moveaxis(scene, 2, 0)).tobytes()
        page.parts = 3
        written(path, files.tiff(page))
    else:
        tiles = scene.reshape(3, 16, 4, 16, 3).swapaxes(1, 2)
        page = files.page(scene, t322=(4, [16]), t323=(4, [16]))
        page.data, page.parts, page.is_tiled = tiles.tobytes(), 12, True
        del page.tags[278]
        written(path, files.tiff(page))
    assert difference(same_to_opencv(path, 0), scene) <= (8 if kind == "jpeg" else 0)


@pytest.mark.parametrize(("bits", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (1, 3), (2, 3), (4, 3), (8, 3)])
@pytest.mark.parametrize("is_interlaced", [False, True])
def test_pngs_of_gray_and_palette(tmp_path: Path, bits: int, colour: int, is_interlaced: bool) -> None:
    levels = np.random.default_rng(0).integers(0, 2**bits, (19, 21)).astype(np.uint16)
    palette = np.random.default_rng(1).integers(0, 256, (2 ** min(bits, 8), 3), np.uint8)
    path = written(
        tmp_path / "a.png", files.png(levels, bits, palette if colour else None, is_interlaced=is_interlaced)
    )
    wanted = (
        palette[levels] if colour else np.dstack([levels >> 8 if bits == 16 else levels * (255 // (2**bits - 1))] * 3)
    )
    assert difference(same_to_opencv(path, 0), wanted) == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}])
def test_jpegs_of_every_mode(tmp_path: Path, mode: str, options: dict[str, object]) -> None:
    image = Image.fromarray(files.scene(37, 53)).convert(mode)
    as_rgb = image.convert("RGB")
    ycc = files.save(tmp_path / "a.jpg", image, quality=95, **options)
    rgb = files.save(tmp_path / "rgb.jpg", as_rgb, quality=95, keep_rgb=True)
    for path, tolerance in ((ycc, 1 if mode == "CMYK" else 0), (rgb, 0)):
        assert np.abs(same_to_opencv(path, tolerance).astype(int) - np.asarray(as_rgb)).mean() < 5


def test_a_jpeg_of_12_bits_is_refused(tmp_path: Path) -> None:
    content = bytearray(files.jpeg_bytes(files.scene()))
    content[content.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(SourceError, match="12-bit"):
        open_picture(written(tmp_path / "a.jpg", bytes(content)))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_of_every_depth(tmp_path: Path, bits: int, channels: int) -> None:
    """White must not wrap to black."""
    scene = files.scene(37, 53)[..., :channels]
    deep = np.round(scene / 255 * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    path = tmp_path / "a.jp2"
    assert cv2.imwrite(str(path), deep[..., ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    wanted = deep.astype(float) / ((1 << 16) - 1 if bits > 8 else 255) * 255  # OpenCV writes 16 bits at once
    assert difference(decoded(path).rgb, np.broadcast_to(wanted, (37, 53, 3))) <= 2


@pytest.mark.parametrize("maximum", [255, 1023, 65535])
def test_pgms_are_scaled_by_their_maximum(tmp_path: Path, maximum: int) -> None:
    gray = files.scene(37, 53)[..., 0] // 2  # does not reach the maximum, and is not stretched to it
    samples = np.round(gray / 255 * maximum).astype(">u1" if maximum == 255 else ">u2")
    path = written(tmp_path / "a.pgm", f"P5\n53 37\n{maximum}\n".encode() + samples.tobytes())
    done = decoded(path)
    assert difference(done.rgb, np.dstack([gray] * 3)) <= 1
    assert done.notes == ()


def test_a_jpeg_that_is_cut_in_half_is_given_up_at_an_eighth_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reductions: list[int] = []
    digest = jpeg._digest
    monkeypatch.setattr(jpeg, "_digest", lambda data, by: reductions.append(by) or digest(data, by))
    content = files.jpeg_bytes(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    with pytest.raises(SourceError, match="truncated"):
        decoded(written(tmp_path / "a.jpg", content[: len(content) // 2]))
    assert reductions == [8, 8]


def test_raw_mpeg_4_video_is_no_icon(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.m4v", frames=12, codec="mpeg4", container_format="m4v")
    content = path.read_bytes()
    written(path, content[content.index(b"\0\0\1\0") :])  # begins with the start code of a video object
    with closing(open_source(str(path))) as source:
        assert source.info.kind is SourceKind.VIDEO
        assert len(list(source)) == 12


@pytest.mark.parametrize("size", [(0, 40), (64, 0), (0, 0)])
def test_an_empty_picture_is_skipped_first_or_second(tmp_path: Path, size: tuple[int, int]) -> None:
    empty = files.page(files.scene())
    empty.tags |= {256: (4, [size[0]]), 257: (4, [size[1]])}
    for name in ("0.tif", "2.tif"):
        (tmp_path / name).write_bytes(files.tiff(empty))
    files.save(tmp_path / "1.png", files.scene())
    with closing(open_source(str(tmp_path))) as source:
        assert [frame.name for frame in source] == ["1.png"]
    wanted = f"the image is empty: {size[0]}×{size[1]} pixels"
    assert [(skip.name, skip.reason) for skip in source.log.skipped] == [("0.tif", wanted), ("2.tif", wanted)]
