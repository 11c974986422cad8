"""Tone mapping: the curves of ST 2084, BT.2100 and BT.2390 against their formulas, and real PQ and HLG files."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.capture.video import tonemap
from stream.capture.video.file import VideoSource
from stream.capture.video.tonemap import PEAK_NITS, WHITE_NITS, to_sdr
from tests.support.media_files import BT2020_PRIMARIES, HLG, PQ, Rgb, write_video

BT709_PRIMARIES = 1
STEPS = 16


def grays(signal: NDArray[np.float64] | float) -> NDArray[np.uint16]:
    """One row of neutral pixels with these signal values, 1 = full scale."""
    levels = np.rint(np.atleast_1d(signal) * 65535).astype(np.uint16)
    return np.repeat(levels[None, :, None], 3, 2)


def pq_signal(nits: float) -> float:
    """ST 2084, equation 5.2, written out again."""
    power = (nits / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg_signal(nits: float) -> float:
    """BT.2100 for a 1000 cd/m² display: inverse of the system gamma, then the OETF."""
    scene = (nits / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return float(np.sqrt(3 * scene) if scene <= 1 / 12 else a * np.log(12 * scene - b) + c)


def srgb(linear: float) -> float:
    """IEC 61966-2-1, in levels."""
    return 255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)


# --- the curves ---


@pytest.mark.parametrize(
    ("signal", "nits"), [(0.0, 0.0), (0.5081, 100.0), (0.5807, 203.0), (0.7518, 1000.0), (0.9026, 4000.0), (1, 1e4)]
)
def test_pq_has_the_values_that_its_standard_tabulates(signal: float, nits: float) -> None:
    # signals are given to four places; at 4000 cd/m² the fifth is 0.05 %
    assert float(tonemap._pq_to_nits(np.array(signal))) == pytest.approx(nits, rel=1e-3, abs=1e-9)
    assert float(tonemap._nits_to_pq(np.array(nits))) == pytest.approx(signal, abs=6e-5)


@pytest.mark.parametrize(("signal", "nits"), [(0.0, 0.0), (0.5, 50.7), (0.75, 203.0), (1.0, 1000.0)])
def test_hlg_has_the_values_of_bt2408(signal: float, nits: float) -> None:
    # BT.2408 rounds: reference white at a signal of 75 % is 203 cd/m², a signal of a half is 1/12 of the scene
    assert float(tonemap._hlg_to_nits(np.array(signal))) == pytest.approx(nits, rel=2e-3, abs=1e-9)


@pytest.mark.parametrize("nits", [0.1, 1, 5, 20, 50, 80])
@pytest.mark.parametrize(("transfer", "encode"), [(PQ, pq_signal), (HLG, hlg_signal)])
def test_dark_and_middle_tones_keep_their_brightness(transfer: int, encode: object, nits: float) -> None:
    shown = to_sdr(grays(encode(nits)), transfer, BT709_PRIMARIES)  # type: ignore[operator]
    assert np.abs(shown[0, 0] - srgb(nits / WHITE_NITS)).max() <= 0.75  # half a level, and the 16-bit steps near black


@pytest.mark.parametrize(("transfer", "peak"), [(PQ, pq_signal(PEAK_NITS)), (HLG, 1.0)])
def test_black_stays_black_and_the_peak_is_white(transfer: int, peak: float) -> None:
    shown = to_sdr(grays(np.array([0.0, peak])), transfer, BT2020_PRIMARIES)[0]
    assert shown.tolist() == [[0, 0, 0], [255, 255, 255]]


def test_pq_above_the_peak_is_white_too() -> None:
    assert to_sdr(grays(np.array([pq_signal(4000), 1.0])), PQ, BT2020_PRIMARIES).min() == 255


@pytest.mark.parametrize("primaries", [BT709_PRIMARIES, BT2020_PRIMARIES])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_every_neutral_stays_neutral_and_brighter_never_gets_darker(transfer: int, primaries: int) -> None:
    shown = to_sdr(grays(np.arange(65536) / 65535), transfer, primaries)[0].astype(int)
    assert (np.ptp(shown, axis=1) == 0).all()
    assert (np.diff(shown[:, 0]) >= 0).all()
    assert len(np.unique(shown[:, 0])) == 256  # no band of levels is lost


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_highlights_up_to_the_peak_stay_apart(transfer: int) -> None:
    encode = pq_signal if transfer == PQ else hlg_signal
    signal = np.array([encode(nits) for nits in (100, 203, 300, 450, 1000)])
    shown = to_sdr(grays(signal), transfer, BT709_PRIMARIES)[0, :, 0].astype(int)
    assert (np.diff(shown) >= 4).all()


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_wide_primaries_are_converted(transfer: int) -> None:
    """BT.709's own red in BT.2020 coordinates (the inverse of BT.2087's matrix) comes back as that red."""
    encode = pq_signal if transfer == PQ else hlg_signal
    wide = 50 * np.array([0.6274, 0.0691, 0.0164])
    pixel = np.array([[[round(65535 * encode(v)) for v in wide]]], np.uint16)
    red = srgb(50 / WHITE_NITS)
    shown = to_sdr(pixel, transfer, BT2020_PRIMARIES)[0, 0].astype(float)
    # four places here are 1e-4 · 50/203 of linear light, and near black 12.92 · 255 times that in levels: 0.1
    assert np.abs(shown - (red, 0, 0)).max() <= 1
    assert to_sdr(pixel, transfer, BT709_PRIMARIES)[0, 0, 1] > 20  # taken as it is, it would have green in it


def test_another_transfer_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"PQ \(16\) or HLG \(18\), got 1"):
        to_sdr(grays(0.5), 1, 1)


# --- files ---


def steps(_index: int, size_hw: tuple[int, int]) -> Rgb:
    """Neutral columns from black to full signal."""
    levels = (255 * (np.arange(size_hw[1]) * STEPS // size_hw[1]) // (STEPS - 1)).astype(np.uint8)
    return np.broadcast_to(levels[None, :, None], (*size_hw, 3)).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(("transfer", "name"), [(PQ, "PQ"), (HLG, "HLG")])
def test_a_tagged_file_is_tone_mapped_and_noted_once(
    tmp_path: Path, transfer: int, name: str, codec: str, suffix: str
) -> None:
    path = write_video(
        tmp_path / f"a{suffix}", size_hw=(32, 128), frames=3, codec=codec, pixel_format="yuv420p10le", matrix="bt2020",
        transfer_tag=transfer, primaries_tag=BT2020_PRIMARIES, draw=steps,
    )  # fmt: skip
    with closing(VideoSource(path)) as source:
        frames = list(source)
        assert [note for note in source.info.notes if f"{name} (high dynamic range)" in note] == list(source.info.notes)
        assert len(source.info.notes) == 1
        assert (source.log.notes, source.log.warnings) == ([], [])
    assert len(frames) == 3
    for frame in frames:
        shown = frame.rgb[16, 4::8].astype(int)  # the columns' centres
        assert len(shown) == STEPS
        assert np.ptp(shown, axis=1).max() <= 1
        assert (np.diff(shown[:, 0]) >= 0).all()
        expected = to_sdr(grays(steps(0, (1, 128))[0, 4::8, 0] / 255), transfer, BT2020_PRIMARIES)[0]
        # a level of the ten-bit limited range is 1/876 of the signal: up to 1.5 levels where the curve is steepest
        assert np.abs(shown - expected).max() <= 2


def test_a_file_that_is_not_hdr_is_neither_mapped_nor_noted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", size_hw=(32, 128), frames=1, pixel_format="yuv420p10le", draw=steps)
    with closing(VideoSource(path)) as source:
        (frame,) = source
        assert source.info.notes == ()
    # swscale truncates on its way from ten bits to eight: full white comes out as 253
    assert np.abs(frame.rgb[16, 4::8] - steps(0, (1, 128))[0, 4::8].astype(int)).max() <= 2
