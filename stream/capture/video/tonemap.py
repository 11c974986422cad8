"""Tone-maps high-dynamic-range video (PQ, HLG) to sRGB, on which the depth models were trained.

swscale's own mapping clips at reference white if a file has no mastering data, as phone videos do not, and takes
110 ms for a 1080p frame on one core. This one keeps highlights up to 1000 cd/m² and takes 70 ms.
Invariant: a neutral input stays neutral, and a brighter input never gets darker.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stream.frames import RgbImage
from stream.media import PRIMARIES_BT709, TRANSFER_HLG, TRANSFER_PQ, cv2

PEAK_NITS = 1000.0
"""Luminance that maps to white, in cd/m²: HLG's nominal peak (BT.2100) and the usual mastering peak of PQ."""
WHITE_NITS = 203.0
"""Reference white of BT.2408: the luminance that white has in SDR."""
_FULL = 65535
_BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008350], [-0.018151, -0.100579, 1.118730]], np.float32
)
"""For linear light: the inverse of ITU-R BT.2087-0's matrix. Its published four decimals would tint some grays."""


def to_sdr(rgb16: NDArray[np.uint16], transfer: int, primaries: int) -> RgbImage:
    """Tone-map a frame to sRGB.

    The curve is applied to each channel, as BT.2390 allows; colours outside BT.709 are clipped.

    Args:
        rgb16: uint16 H×W×3, full range, encoded with `transfer`.
        transfer: AVColorTransferCharacteristic, PQ or HLG.
        primaries: AVColorPrimaries; all except BT.709 are treated as BT.2020.

    Returns:
        uint8 H×W×3.
    """
    linear = _to_linear(transfer).take(rgb16, mode="clip")
    if primaries != PRIMARIES_BT709:
        linear = np.asarray(cv2.transform(linear, _BT2020_TO_BT709), np.float32)
    steps = cv2.addWeighted(linear, _FULL, linear, 0, 0, dtype=cv2.CV_16U)  # saturates: clips to 0..1
    return _to_srgb().take(np.asarray(steps, np.uint16), mode="clip")


@lru_cache(maxsize=2)
def _to_linear(transfer: int) -> NDArray[np.float32]:
    """Return a float32 [65536] table: full-range signal → linear light after tone mapping, 1 = white."""
    signal = np.arange(_FULL + 1) / _FULL
    if transfer == TRANSFER_PQ:
        nits = _pq_to_nits(signal)
    elif transfer == TRANSFER_HLG:
        nits = _hlg_to_nits(signal)
    else:
        raise ValueError(f"transfer must be PQ ({TRANSFER_PQ}) or HLG ({TRANSFER_HLG}), got {transfer}")
    return np.asarray(_pq_to_nits(_rolled_off(_nits_to_pq(nits))) / WHITE_NITS, np.float32)


@lru_cache(maxsize=1)
def _to_srgb() -> NDArray[np.uint8]:
    """Return a uint8 [65536] table: linear light → sRGB (IEC 61966-2-1)."""
    linear = np.arange(_FULL + 1) / _FULL
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * encoded), np.uint8)


def _rolled_off(pq: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compress highlights (BT.2390-11, 5.4.1): values above the knee follow a Hermite spline that ends at white."""
    peak = float(_nits_to_pq(np.array(PEAK_NITS)))
    white = float(_nits_to_pq(np.array(WHITE_NITS))) / peak
    knee = 1.5 * white - 0.5
    e = np.minimum(pq / peak, 1.0)
    t = np.maximum((e - knee) / (1 - knee), 0.0)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * white
    return np.where(e < knee, e, spline) * peak


_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128
"""SMPTE ST 2084."""


def _pq_to_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    power = signal ** (1 / _M2)
    return np.asarray(10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1))


def _nits_to_pq(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = (nits / 10_000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def _hlg_to_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert the OETF and apply the system gamma of 1.2 for 1000 cd/m² (BT.2100, table 5), here to each channel."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(PEAK_NITS * np.clip(scene, 0, 1) ** 1.2)
