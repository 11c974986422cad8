"""The door to PyAV: a picture's colours, turn and shape come out as they were put in.

Files are coded without loss and their YUV is computed by H.273 in numpy (tests/media_files.py), so what differs is
rounding: half a level of Cb is 0.5 · 2 · (1 - Kb) · 255/224 = 1.1 levels of blue, half a level of Y is 0.6 more, and
swscale's tables of 8-bit chroma add one. A wrong matrix is off by more than 10 levels, a wrong range by 16.
"""

import struct
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stream.capture.video.file import VideoSource
from stream.frames import Frame, RgbImage
from stream.media import RgbConverter, av, display_size, orientation_of, to_rgb, to_rgb16
from tests.support.media_files import (
    FULL,
    HLG,
    LIMITED,
    MATRICES,
    PQ,
    UNSPECIFIED,
    Rgb,
    flat,
    quarters,
    quarters_of,
    write_video,
    yuv_frame,
)

ROUNDING = 3
"""Levels; see the module docstring."""
PATCHES = (
    (0, 0, 0), (255, 255, 255), (128, 128, 128), (30, 30, 30), (235, 20, 20), (20, 200, 30),
    (30, 40, 220), (230, 220, 40), (200, 60, 190), (40, 190, 200), (180, 120, 90), (90, 140, 60),
)  # fmt: skip
"""Neutrals from end to end, primaries, mixtures, skin and leaf."""
SHADES = {
    "yuv420p": (LIMITED, FULL),
    "yuvj420p": (FULL,),
    "yuv444p": (LIMITED, FULL),
    "yuv420p10le": (LIMITED, FULL),
    "yuv422p10le": (LIMITED, FULL),
}
"""Pixel formats, and the ranges that each can have: `yuvj` is full by definition."""


def patches(_index: int, size_hw: tuple[int, int]) -> Rgb:
    """`PATCHES` in three rows of four."""
    rows, columns = (np.arange(n) * count // n for n, count in zip(size_hw, (3, 4), strict=True))
    return np.array(PATCHES, np.uint8)[rows[:, None] * 4 + columns[None, :]]


def patch_error(rgb: RgbImage) -> int:
    """Largest difference from what `patches` drew, at the patches' centres: chroma is shared across their borders."""
    height, width, _ = rgb.shape
    centres = [rgb[(2 * y + 1) * height // 6, (2 * x + 1) * width // 8] for y in range(3) for x in range(4)]
    return int(np.abs(np.array(centres, int) - np.array(PATCHES)).max())


def first_of(path: Path) -> Frame:
    with closing(VideoSource(path)) as source:
        return next(iter(source))


# --- colour ---


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(("pixel_format", "color_range"), [(f, r) for f, ranges in SHADES.items() for r in ranges])
def test_a_file_shows_the_colours_that_were_drawn(
    tmp_path: Path, matrix: str, pixel_format: str, color_range: int
) -> None:
    path = write_video(
        tmp_path / "a.mkv", frames=1, pixel_format=pixel_format, matrix=matrix, color_range=color_range,
        codec="libx264" if "j" in pixel_format else "ffv1", options={"qp": "0"}, draw=patches,
    )  # fmt: skip
    assert patch_error(first_of(path).rgb) <= ROUNDING


def test_a_jpeg_format_is_full_range_though_nothing_says_so() -> None:
    frame = yuv_frame(patches(0, (48, 64)), "yuvj420p", "bt601", FULL)
    frame.color_range = 0
    assert patch_error(to_rgb(frame)) <= ROUNDING


@pytest.mark.parametrize(
    ("height", "assumed", "other"), [(718, "bt601", "bt709"), (720, "bt709", "bt601"), (1080, "bt709", "bt601")]
)
def test_untagged_video_is_standard_definition_below_720_lines(
    tmp_path: Path, height: int, assumed: str, other: str
) -> None:
    errors = [
        patch_error(
            first_of(
                write_video(
                    tmp_path / f"{matrix}.mp4", frames=1, size_hw=(height, 64), matrix=matrix,
                    matrix_tag=UNSPECIFIED, range_tag=0, codec="ffv1", draw=patches,
                )
            ).rgb
        )
        for matrix in (assumed, other)
    ]  # fmt: skip
    assert errors[0] <= ROUNDING
    assert errors[1] > 10  # or the test could not tell the matrices apart


def test_the_lines_that_count_are_those_of_the_coded_picture_not_of_a_turned_one(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", frames=1, size_hw=(64, 720), rotation_deg=90, matrix="bt601", matrix_tag=UNSPECIFIED,
        codec="ffv1", draw=flat((200, 60, 190)),
    )  # fmt: skip
    rgb = first_of(path).rgb
    assert rgb.shape == (720, 64, 3)
    assert np.abs(rgb.astype(int) - (200, 60, 190)).max() <= ROUNDING


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_untagged_high_dynamic_range_is_bt2020(transfer: int) -> None:
    frame = yuv_frame(patches(0, (48, 64)), "yuv420p10le", "bt2020", LIMITED)
    frame.color_trc = transfer
    assert patch_error(to_rgb(frame)) <= ROUNDING
    # 16 bits keep the ten that came: half a level of ten bits and of its chroma, and swscale's own 15-bit arithmetic
    wide = to_rgb16(frame)
    assert wide.dtype == np.uint16
    assert patch_error(np.rint(wide / 257).astype(np.uint8)) <= 1


@pytest.mark.parametrize("name", ["rgb24", "bgra", "gbrp", "gbrp10le"])
def test_rgb_formats_pass_unchanged(name: str) -> None:
    drawn = patches(0, (48, 64))
    frame = av.VideoFrame.from_ndarray(drawn, format="rgb24").reformat(format=name)
    assert np.array_equal(to_rgb(frame), drawn)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuvj420p", "yuv420p10le", "yuv422p10le", "bgr0"])
def test_what_the_converter_makes_is_tagged_and_reads_back_as_drawn(tmp_path: Path, pixel_format: str) -> None:
    path = tmp_path / "a.mkv"
    is_rgb, is_jpeg = pixel_format == "bgr0", pixel_format == "yuvj420p"
    with av.open(str(path), "w") as container:
        encoder = container.add_stream("mjpeg" if is_jpeg else "ffv1", rate=25, options={"qmin": "1", "qmax": "1"})
        encoder.width, encoder.height, encoder.pix_fmt = 64, 48, pixel_format
        converter = RgbConverter(pixel_format)
        converter.tag(encoder.codec_context)
        frame = converter.convert(patches(0, (48, 64)))
        frame.pts = 0
        container.mux(encoder.encode(frame))
        container.mux(encoder.encode(None))
    with av.open(str(path)) as container:
        seen = next(container.decode(video=0))
        assert seen.colorspace == (0 if is_rgb else 5 if is_jpeg else 1)  # a JPEG decoder says 5 (BT.601) of any file
        assert (seen.color_range == FULL) == (is_rgb or is_jpeg)
        assert (seen.color_trc, seen.color_primaries) == (1, 1)
    # both conversions round, and JPEG's finest quantiser is a step of one in each of 64 coefficients
    assert patch_error(first_of(path).rgb) <= (0 if is_rgb else ROUNDING + 1)


def test_a_converter_is_used_for_many_pictures_and_each_frame_keeps_its_own() -> None:
    converter = RgbConverter("yuv444p")
    frames = [converter.convert(np.full((16, 16, 3), level, np.uint8)) for level in (0, 128, 255)]
    assert [int(to_rgb(frame)[8, 8, 0]) for frame in frames] == pytest.approx([0, 128, 255], abs=1)


# --- turn and shape ---


@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_a_turned_or_mirrored_video_stands_upright(tmp_path: Path, rotation_deg: int, flip_x: bool) -> None:
    path = write_video(
        tmp_path / "a.mp4", size_hw=(48, 64), frames=1, rotation_deg=rotation_deg, flip_x=flip_x, draw=quarters
    )
    upright = np.rot90(quarters(0, (48, 64)), -rotation_deg // 90)
    upright = upright[:, ::-1] if flip_x else upright
    frame = first_of(path)
    assert frame.size == upright.shape[:2]
    assert quarters_of(frame.rgb) == quarters_of(upright)
    with closing(VideoSource(path)) as source:
        assert source.info.size == frame.size


@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_every_pixel_moves_where_the_display_matrix_says(tmp_path: Path, rotation_deg: int, flip_x: bool) -> None:
    path = write_video(tmp_path / "a.mp4", size_hw=(4, 6), frames=1, rotation_deg=rotation_deg, flip_x=flip_x)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        matrix: object = frame.side_data.get("DISPLAYMATRIX")
    coded = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(matrix)[:36]) if matrix else (1, 0, 0, 0, 1)  # type: ignore[call-overload]
    a, b, c, d = (int(np.sign(v)) if abs(v) > 1000 or not matrix else 0 for v in (a, b, c, d))
    # ISO/IEC 14496-12, 6.2.2: (x', y') = (a·x + c·y, b·x + d·y), then moved so that the corner is at the origin
    moved = {(a * x + c * y, b * x + d * y): coded[y, x] for y in range(4) for x in range(6)}
    left, top = min(x for x, _ in moved), min(y for _, y in moved)
    shown = orientation_of(frame).apply(coded)
    assert shown.shape[0] * shown.shape[1] == 24
    for (x, y), pixel in moved.items():
        assert shown[y - top, x - left].tolist() == pixel.tolist()


@pytest.mark.parametrize(
    ("pixel_aspect", "rotation_deg", "size"),
    [
        (Fraction(2), 0, (48, 128)),
        (Fraction(16, 15), 0, (48, 68)),
        (Fraction(1, 2), 0, (48, 32)),
        (Fraction(2), 90, (128, 48)),
        (Fraction(16, 15), 270, (68, 48)),
    ],
)
def test_pixels_that_are_not_square_are_shown_at_the_display_aspect(
    tmp_path: Path, pixel_aspect: Fraction, rotation_deg: int, size: tuple[int, int]
) -> None:
    path = write_video(
        tmp_path / "a.mp4", size_hw=(48, 64), frames=1, pixel_aspect=pixel_aspect, rotation_deg=rotation_deg,
        codec="ffv1", draw=quarters,
    )  # fmt: skip
    frame = first_of(path)
    assert frame.size == size
    assert quarters_of(frame.rgb) == quarters_of(np.rot90(quarters(0, (48, 64)), -rotation_deg // 90))
    borders = np.abs(np.diff(frame.rgb.astype(int), axis=1)).sum(2).argmax(1)  # per row, where the colour changes
    assert np.abs(borders + 0.5 - (size[1] - 1) / 2).max() <= 1.5  # 4:2:0 colour has a grid of two pixels


@pytest.mark.parametrize(
    ("pixel_aspect", "size"),
    [
        (None, (48, 64)),
        (Fraction(0), (48, 64)),
        (Fraction(-1), (48, 64)),
        (Fraction(1), (48, 64)),
        (Fraction(1, 1000), (48, 64)),  # no format has such pixels: ignored
        (Fraction(255), (48, 64)),
        (Fraction(1, 10), (48, 6)),
        (Fraction(64, 45), (48, 91)),
    ],
)
def test_display_size_changes_the_width_alone_and_never_to_nothing(
    pixel_aspect: Fraction | None, size: tuple[int, int]
) -> None:
    assert display_size(av.VideoFrame(64, 48, "yuv420p"), pixel_aspect) == size


@pytest.mark.parametrize("size", [(47, 63), (1, 17), (17, 1), (1, 1), (2, 2)])
def test_odd_and_tiny_sizes_keep_every_row_and_column(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_video(
        tmp_path / "a.mkv", size_hw=size, frames=1, codec="mpeg4", matrix="bt601", draw=flat((200, 60, 190)),
    )  # fmt: skip
    rgb = first_of(path).rgb
    assert rgb.shape == (*size, 3)
    assert np.abs(rgb.astype(int) - (200, 60, 190)).max() <= ROUNDING
