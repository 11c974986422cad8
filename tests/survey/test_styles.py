"""Photos in other styles: what they look like, in which order they come, and how far depth moves."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.capture.open import open_source
from stream.capture.stills.source import ImagesSource
from stream.compare.agreement import moved
from stream.config import CaptureConfig
from stream.errors import UsageError
from stream.frames import ComparedDepth, Depth, DepthKind
from stream.media import cv2
from stream.survey.scene import Scene, Truth
from stream.survey.styled import StyledSource, measure_styled, place_of
from stream.survey.styles import STYLES, WORK_PX, parse_styles, styled
from tests.support.picture_files import save, scene
from tests.support.scenes import textured
from tests.support.tiny_model import frame

Rgb = NDArray[np.uint8]
DRAWN = [style for style in STYLES if style != "gray"]


def ball() -> Rgb:
    """A shaded ball before a wall, with fine noise on both."""
    y, x = np.mgrid[:256, :WORK_PX].astype(np.float64)
    light = 60 * (x - 300) / WORK_PX
    inside = np.hypot(x - 384, y - 128) < 100
    picture = np.where(inside[..., None], [200, 110, 50], [90, 150, 190]) + light[..., None] / 4
    noise = np.random.default_rng(1).normal(0, 6, (256, WORK_PX, 1))
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def luma(rgb: Rgb) -> NDArray[np.float64]:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float64)


def texture(rgb: Rgb, box: tuple[slice, slice]) -> float:
    """The mean difference of neighbours in a part of a picture."""
    return float(np.abs(np.diff(luma(rgb)[box], axis=1)).mean())


INSIDE, WALL = (slice(90, 170), slice(340, 430)), (slice(20, 120), slice(20, 200))


# --- their names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, ()),
        ("line", ("line",)),
        (" paint, Cartoon,paint ", ("paint", "cartoon")),
        ("all", tuple(STYLES)),
        ("gray,all", ("gray", *[name for name in STYLES if name != "gray"])),
    ],
)
def test_styles_are_named_in_order_and_each_is_drawn_once(text: str | None, found: tuple[str, ...]) -> None:
    assert parse_styles(text) == found


@pytest.mark.parametrize(
    ("text", "what"), [("line,cartoons", "no style 'cartoons'"), ("", "missing"), ("line,", "miss")]
)
def test_an_unknown_style_is_one_line_with_what_is_allowed(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as raised:
        parse_styles(text)
    assert "cartoon, line, poster, paint, gray, all" in str(raised.value)
    assert ("did you mean cartoon?" in str(raised.value)) == ("cartoons" in text)


# --- what they look like -------------------------------------------------------------------------------------------


def test_gray_is_luminance_alone() -> None:
    picture = textured(3, (90, 120))
    gray = styled(picture, "gray")
    assert np.array_equal(gray, np.repeat(luma(picture).astype(np.uint8)[..., None], 3, axis=2))


def test_a_cartoon_has_flat_regions_and_dark_outlines() -> None:
    picture = ball()
    drawn = styled(picture, "cartoon")
    assert texture(drawn, INSIDE) < texture(picture, INSIDE) / 4
    assert texture(drawn, WALL) < texture(picture, WALL) / 4
    across = luma(drawn)[128, 264:304]  # over the left edge of the ball
    assert across.min() < 0.6 * min(luma(drawn)[WALL].mean(), luma(drawn)[INSIDE].mean())
    assert np.ptp(drawn[INSIDE].mean(axis=(0, 1))) > 60, "it keeps its colours"


def test_a_line_drawing_is_dark_along_edges_and_paper_elsewhere() -> None:
    drawn = styled(ball(), "line")
    assert np.array_equal(drawn[..., 0], drawn[..., 2])
    levels = luma(drawn)
    assert levels[INSIDE].mean() > 150
    assert levels[WALL].mean() > 150
    rim = [levels[round(128 + 100 * math.sin(a)), round(384 + 100 * math.cos(a))] for a in np.linspace(0, 6, 40)]
    assert np.mean(rim) < 0.6 * min(levels[INSIDE].mean(), levels[WALL].mean())


def test_a_poster_has_few_flat_colours() -> None:
    drawn = styled(textured(1, (256, WORK_PX)), "poster")
    colours, counts = np.unique(drawn.reshape(-1, 3), axis=0, return_counts=True)
    assert 4 <= len(colours) <= 8
    assert counts.min() > 100
    assert texture(styled(ball(), "poster"), INSIDE) < texture(ball(), INSIDE) / 15


def test_a_painting_has_strokes_that_follow_edges_and_keeps_the_colours_of_areas() -> None:
    picture = ball()
    drawn = styled(picture, "paint")
    for box in (INSIDE, WALL):
        assert drawn[box].mean(axis=(0, 1)) == pytest.approx(picture[box].mean(axis=(0, 1)), abs=12)
        assert 1.5 < drawn[box].astype(float).std(axis=(0, 1)).max() < 25, "strokes differ"
    stripes = np.repeat((np.sin(np.arange(256) / 20) * 90 + 128).astype(np.uint8)[:, None], WORK_PX, axis=1)
    levels = luma(styled(np.repeat(stripes[..., None], 3, axis=2), "paint"))
    assert np.abs(np.diff(levels, axis=1)).mean() < 0.6 * np.abs(np.diff(levels, axis=0)).mean()


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_the_same_each_time_and_at_every_resolution(style: str) -> None:
    picture = textured(4, (60, 320))
    drawn = styled(picture, style)
    assert np.array_equal(drawn, styled(picture, style))
    large = np.asarray(cv2.resize(picture, (1600, 300), interpolation=cv2.INTER_CUBIC), np.uint8)
    of_large = np.asarray(cv2.resize(styled(large, style), (320, 60), interpolation=cv2.INTER_AREA), np.uint8)
    assert np.abs(of_large.astype(float) - drawn).mean() < 5


@pytest.mark.parametrize("style", STYLES)
def test_icons_strips_and_flat_colours_are_drawn_too(style: str) -> None:
    for size in ((16, 16), (3, 900), (700, 2), (1, 5000)):
        picture = np.resize(textured(2, (16, 16)), (*size, 3))
        drawn = styled(picture, style)
        assert (drawn.shape, drawn.dtype) == (picture.shape, np.uint8)
    flat = styled(np.full((30, 900, 3), 200, np.uint8), style).astype(float)
    assert (abs(flat.mean() - 200) < 50, flat.std() < 12) == (True, True)


# --- the source ----------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, size in (("a.jpg", (40, 64)), ("c.png", (30, 20)), ("d.png", (16, 16))):
        save(tmp_path / name, scene(*size))
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 no jpeg")
    return tmp_path


def styled_photos(folder: Path, styles: tuple[str, ...], **options: Any) -> StyledSource:
    return StyledSource(open_source(str(folder), options=CaptureConfig(**options)), styles)


def test_each_photo_is_followed_by_its_styles_and_a_skipped_one_by_none(photos: Path) -> None:
    with styled_photos(photos, ("gray", "poster")) as source:
        assert source.info.frame_count == 12
        frames = list(source)
        assert [one.name for one in source.log.skipped] == ["b.jpg"]
    assert [(one.index, one.name) for one in frames] == [
        (0, "a.jpg"), (1, "a.jpg (gray)"), (2, "a.jpg (poster)"),
        (6, "c.png"), (7, "c.png (gray)"), (8, "c.png (poster)"),
        (9, "d.png"), (10, "d.png (gray)"), (11, "d.png (poster)"),
    ]  # fmt: skip
    assert [one.size for one in frames[:6]] == [(40, 64)] * 3 + [(30, 20)] * 3
    assert [place_of(one.index, ("gray", "poster")) for one in frames[3:6]] == [(2, ""), (2, "gray"), (2, "poster")]
    with open_source(str(photos)) as plain:
        originals = {one.name: one for one in plain}
    assert [one.time_s for one in frames[::3]] == [originals[one.name].time_s for one in frames[::3]]
    assert sorted({one.pts for one in frames}) == [one.pts for one in frames]
    for one in frames[:3]:
        style = place_of(one.index, ("gray", "poster"))[1]
        original = originals["a.jpg"].rgb
        assert np.array_equal(one.rgb, styled(original, style) if style else original)


def test_max_frames_counts_photos(photos: Path) -> None:
    with styled_photos(photos, ("gray",), max_frames=2) as source:
        assert source.info.frame_count == 4
        assert [one.name for one in source] == ["a.jpg", "a.jpg (gray)", "c.png", "c.png (gray)"]


def test_an_interruption_draws_no_further_style(photos: Path) -> None:
    with styled_photos(photos, tuple(STYLES)) as source:
        names = []
        for one in source:
            names.append(one.name)
            if len(names) == 2:
                source.interrupt()
    assert names == ["a.jpg", "a.jpg (cartoon)"]


def test_photos_that_need_not_be_read_are_not(photos: Path) -> None:
    with styled_photos(photos, ("gray",)) as source:
        source.end_before(5)  # the third photo
        assert [one.name for one in source] == ["a.jpg", "a.jpg (gray)", "c.png", "c.png (gray)"]
    with styled_photos(photos, ("gray",)) as source:
        source.end_before(2)
        assert [one.name for one in source] == ["a.jpg", "a.jpg (gray)"]


# --- how far depth moves -------------------------------------------------------------------------------------------


def wavy() -> NDArray[np.float32]:
    y, x = np.mgrid[:60, :80].astype(np.float32)
    return (np.sin(x / 9) + y / 60 + 2).astype(np.float32)


def test_nothing_moves_up_to_scale_and_shift() -> None:
    assert moved(wavy(), wavy()) == pytest.approx(0, abs=1e-6)
    assert moved(7 * wavy() - 3, wavy()) == pytest.approx(0, abs=1e-6)


def test_all_is_lost_in_a_constant_or_inverted_map() -> None:
    assert moved(np.full((60, 80), 2, np.float32), wavy()) == 1
    assert moved(-wavy(), wavy()) == 1


@pytest.mark.parametrize("strength", [0.1, 1.0, 3.0])
def test_what_moves_is_the_unexplained_share_of_the_spread(strength: float) -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(0, strength, (60, 80)).astype(np.float32)
    r = np.corrcoef((wavy() + noise).ravel(), wavy().ravel())[0, 1]
    assert moved(wavy() + noise, wavy()) == pytest.approx(math.sqrt(1 - r * r), rel=1e-4)


def test_a_map_that_is_constant_or_unknown_asks_nothing() -> None:
    flat, unknown = np.full((60, 80), 0.3, np.float32), np.full((60, 80), np.nan, np.float32)
    assert moved(wavy(), flat) is None
    assert moved(wavy(), flat + np.float32(1e-8) * wavy()) is None
    assert moved(unknown, wavy()) is None
    assert moved(wavy(), unknown) is None


def scene_of(*maps: NDArray[np.float32], kind: DepthKind = DepthKind.RELATIVE_DISPARITY, **known: Any) -> Scene:
    depths = [Depth(values=values, kind=kind, index=0, valid=~np.isnan(values)) for values in maps]
    taken = replace(frame(0, 80, 60), name="a.jpg")
    return Scene.of(taken, ComparedDepth.of(depths[0], depths[1:]), ("one", "two")[: len(maps)], **known)


def test_each_model_is_measured_against_itself() -> None:
    other = np.ascontiguousarray(wavy()[:, ::-1])
    found = measure_styled(scene_of(wavy(), other), scene_of(2 * wavy() + 1, -other))
    assert found["one"].value == pytest.approx(0, abs=1e-6)
    assert found["two"].value == 1
    assert found["one"].details["spearman"] == pytest.approx(1)
    assert found["two"].details["spearman"] == pytest.approx(-1)
    assert "abs_rel" not in found["one"].details


def test_metric_depth_is_compared_as_disparity() -> None:
    depth = 1 / wavy()
    found = measure_styled(
        scene_of(depth, kind=DepthKind.METRIC_DEPTH), scene_of(1 / (3 * wavy()), kind=DepthKind.METRIC_DEPTH)
    )
    assert found["one"].value == pytest.approx(0, abs=1e-5)


def test_with_a_truth_the_depth_of_the_style_is_an_error_too() -> None:
    photo = scene_of(wavy(), wavy(), truth=Truth(disparity=0.1 * wavy() + 0.05))
    found = measure_styled(photo, scene_of(wavy(), np.ascontiguousarray(wavy()[:, ::-1])))
    assert found["one"].details["abs_rel"] == pytest.approx(0, abs=1e-4)
    assert found["two"].details["abs_rel"] > 0.1


def test_flat_depth_has_no_number_and_nothing_is_not_finite() -> None:
    flat = np.full((60, 80), 0.5, np.float32)
    found = measure_styled(scene_of(flat, wavy()), scene_of(wavy(), flat))
    assert found["one"].value is None
    assert found["two"].value == 1
    assert all(math.isfinite(number) for one in found.values() for number in one.details.values())


def test_a_source_of_photos_keeps_what_it_says(photos: Path) -> None:
    plain = ImagesSource([photos / "a.jpg", photos / "c.png"], name="two")
    with StyledSource(plain, ("line",)) as source:
        assert (source.info.names, source.info.size, source.info.name) == (("a.jpg", "c.png"), (40, 64), "two")
        assert source.info.time_base * 2 == plain.info.time_base
