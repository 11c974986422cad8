"""Scene cuts, found as the frames arrive.

Invariant: a decision needs the frames up to this one only, so that a live source is not delayed.
"""

import numpy as np
from numpy.typing import NDArray

from stream.frames import RgbImage
from stream.media import cv2

Gray = NDArray[np.uint8]
"""uint8 H×W."""
_Floats = NDArray[np.float32]

CUT_SIMILARITY = 0.7
"""A `similarity` below this is a scene cut, unless the camera has moved. Measured on 127 photographs: of the 8001 pairs
of different photographs, 21 reach it (177 reach 0.5). Of 127 photographs compared with themselves, panned by up to 8 %
of the width, tilted by 4 %, enlarged by 1.1, rolled by 4° or at half the exposure between two frames, none is taken for
a cut; brightened by 40 % and 30 levels, 1 is; enlarged by 1.2, 28 are."""

MOVED_SIMILARITY = 0.88
"""A `moved_similarity` from this on is a camera that has moved. Measured on 81 photographs and 9 images of soft shapes,
on those below `CUT_SIMILARITY`: 2 of 7354 pairs of different images reach it (0.91); images panned by 10 to 65 % of
their width and 3 % of their height, at 0.9 of the brightness, keep at least 0.90 in all 645 cases. A zoom by 1.35 or a
roll of 5° between two frames may count as a cut; its only effect is a jump of the range."""

_STRIP = 0.34
"""Part of the width or height that has to be in both images. At 0.8 fps, a pan of 50 % a second leaves 37 %."""
_MARGIN = 0.1
"""Part of the other side that a strip leaves out, so that it may be found higher or lower."""
_STRIPS_WH = (96, 72)
"""Size at which strips are compared. At 64×48, pans by fractions of a pixel cost up to 0.1 of the similarity."""

_THUMBNAIL_WH = (16, 12)
"""Small enough that a pan moves the content by a fraction of a pixel; 32×24 separates cuts from pans less well."""

_CONTRAST_FLOOR = (0.03 * 255) ** 2
"""Variance below which an image counts as flat, so that noise on a wall is not a cut (C2 of SSIM, Wang et al. 2004)."""


FLASH_FRAMES = 2
"""A flash, or a black frame between two others, lasts this many frames at most; a longer one begins a scene."""
_DARK, _BRIGHT = 16, 240
_EXTREME_SHARE = 0.5
"""An image is blown out or black if this share of it is `_BRIGHT` or `_DARK`: a flash leaves some shapes."""
_SAME_CONTENT = 0.5
"""A `_content_similarity` from this on is the same scene in another light. Measured on 142 photographs: at 0.04 or 0.09
of their brightness, all reach 0.86 with themselves, and 0.42 to 0.99 if they are panned by 5 % as well; of the pairs of
different photographs, one of them at 0.09, 5 % reach 0.5."""
_LEAST_CONTENT = 1.0
"""Standard deviation of a thumbnail that shows something. Black with the noise of a sensor has about 0.3."""
_DARKER, _DARKER_SHARE = 16, 0.05
"""A flash only adds light; if so much of the image is darker than before by so much, a bright scene has begun."""


class CutDetector:
    """Tells the first frame of a new scene from frames after which the camera has moved, and from flashes.

    A flash begins no scene, nor does the frame after it: that is compared with the one before the flash. A dark or
    bright frame is a flash if it shows nothing or the scene before; with other content it begins a scene. The first
    frame that shows something after a fade to black or white begins a scene. A dissolve begins none: its frames change
    little by little.

    Attributes:
        is_flash: the last frame was taken for a flash, so it tells nothing about the scene.
    """

    def __init__(self) -> None:
        self.is_flash = False
        self._samples: Gray | None = None
        self._thumbnail: _Floats | None = None
        self._flashes = self._empties = 0

    def is_cut(self, rgb: RgbImage) -> bool:
        """Whether this frame begins a new scene; called once per frame, in order. The first frame does not.

        Args:
            rgb: uint8 H×W×3; sizes may change.
        """
        samples = _gray_samples(rgb)
        now, before, thumbnail_before = _shrunk(samples, _THUMBNAIL_WH), self._samples, self._thumbnail
        is_alike = thumbnail_before is None or similarity(thumbnail_before, now) >= CUT_SIMILARITY
        is_extreme = _is_extreme(samples)
        self.is_flash = (
            is_extreme
            and self._flashes < FLASH_FRAMES
            and thumbnail_before is not None
            and not is_alike
            and not _shows_another(samples, now, thumbnail_before)
        )
        self._flashes = self._flashes + 1 if self.is_flash else 0
        if self.is_flash:
            return False
        is_empty = is_extreme and float(now.var()) < _CONTRAST_FLOOR
        has_faded_in = self._empties > FLASH_FRAMES and not is_empty
        self._empties = self._empties + 1 if is_empty else 0
        self._samples, self._thumbnail = samples, now
        if before is None or (is_alike and not has_faded_in):
            return False
        return has_faded_in or moved_similarity(before, samples) < MOVED_SIMILARITY  # 1.4 ms, if something has changed

    def restart(self) -> None:
        """Forget the frames so far: the next one begins no scene."""
        self._samples = self._thumbnail = None
        self._flashes = self._empties = 0


def _is_extreme(samples: Gray) -> bool:
    return _is_blown_out(samples) or bool(np.count_nonzero(samples <= _DARK) >= _EXTREME_SHARE * samples.size)


def _is_blown_out(samples: Gray) -> bool:
    return bool(np.count_nonzero(samples >= _BRIGHT) >= _EXTREME_SHARE * samples.size)


def _shows_another(samples: Gray, now: _Floats, before: _Floats) -> bool:
    """Whether a dark or bright frame (its samples and thumbnail) shows another scene than the thumbnail before."""
    if now.std() < _LEAST_CONTENT or _content_similarity(before, now) >= _SAME_CONTENT:
        return False
    return not _is_blown_out(samples) or float((now < before - _DARKER).mean()) >= _DARKER_SHARE


def _content_similarity(before: _Floats, now: _Floats) -> float:
    """The correlation of two thumbnails once `before` has the tones of `now`, from -1 to 1; 0 if it shows nothing."""
    if before.std() < _LEAST_CONTENT:
        return 0.0
    toned = np.empty(before.size, np.float32)
    toned[np.argsort(before, axis=None, kind="stable")] = np.sort(now, axis=None)
    return float(np.corrcoef(toned, now.ravel())[0, 1])


def thumbnail(rgb: RgbImage) -> _Floats:
    """A 12×16 float32 grey thumbnail of an image of any size; takes 0.1 ms at 1080p."""
    return _shrunk(_gray_samples(rgb), _THUMBNAIL_WH)


def _gray_samples(rgb: RgbImage) -> Gray:
    """Every n-th pixel in grey, uint8, so that the shorter side has about 100."""
    step = max(1, min(rgb.shape[:2]) // 96)  # leaves enough samples for each pixel of the thumbnail
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb[::step, ::step]), cv2.COLOR_RGB2GRAY), np.uint8)


def _shrunk(gray: Gray, size_wh: tuple[int, int]) -> _Floats:
    return cv2.resize(gray, size_wh, interpolation=cv2.INTER_AREA).astype(np.float32)


def similarity(a: _Floats, b: _Floats) -> float:
    """Similarity of two thumbnails, from -1 to 1 (identical), independent of their brightness.

    The structure and contrast terms of SSIM over the whole thumbnail, without its luminance term.
    """
    a, b = a - a.mean(), b - b.mean()
    shared, total = 2 * float((a * b).mean()), float((a * a).mean() + (b * b).mean())
    return (shared + _CONTRAST_FLOOR) / (total + _CONTRAST_FLOOR)


def moved_similarity(before: Gray, after: Gray) -> float:
    """How well a part of `after` is found anywhere in `before`: about 1 if the camera has turned between them.

    Compares the left, right, upper and lower third of `after` with every place in `before`, each like `similarity`. A
    third without contrast is found everywhere and says nothing.

    Args:
        before, after: grey images, uint8 H×W.

    Returns:
        The best similarity, up to 1; 0 if no third has contrast.
    """
    searched, now = _shrunk(before, _STRIPS_WH), _shrunk(after, _STRIPS_WH)
    width, height = _STRIPS_WH
    wide, high = int(_STRIP * width), int(_STRIP * height)
    upright = slice(int(_MARGIN * height), height - int(_MARGIN * height))
    across = slice(int(_MARGIN * width), width - int(_MARGIN * width))
    strips = (now[upright, :wide], now[upright, width - wide :], now[:high, across], now[height - high :, across])
    return max((_found(strip, searched) for strip in strips if strip.var() >= _CONTRAST_FLOOR), default=0.0)


def _found(strip: _Floats, searched: _Floats) -> float:
    """The best `similarity` of a strip with a part of `searched` of its size."""
    high, wide = strip.shape
    places = slice(searched.shape[0] - high + 1), slice(searched.shape[1] - wide + 1)
    strip = strip - strip.mean()
    shared = 2 * cv2.matchTemplate(searched, strip, cv2.TM_CCORR) / strip.size
    mean, square = (cv2.boxFilter(part, -1, (wide, high), anchor=(0, 0))[places] for part in (searched, searched**2))
    total = float((strip * strip).mean()) + np.maximum(square - mean * mean, 0)
    return float(((shared + _CONTRAST_FLOOR) / (total + _CONTRAST_FLOOR)).max())
