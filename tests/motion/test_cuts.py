"""Scene cuts: found at once, and told from pans, flashes and changes of brightness."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from stream.media import cv2
from stream.motion.cuts import CUT_SIMILARITY, FLASH_FRAMES, CutDetector, similarity, thumbnail
from tests.support.scenes import scene, textured


def test_different_scenes_and_black_are_cuts() -> None:
    pictures = [thumbnail(scene(seed)) for seed in range(12)] + [np.zeros((12, 16), np.float32)]
    alike = [similarity(a, b) for i, a in enumerate(pictures) for b in pictures[:i]]
    assert max(alike) < CUT_SIMILARITY
    assert similarity(pictures[0], pictures[0]) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (31, 17), (1080, 1920)])
def test_every_size_has_a_thumbnail(size: tuple[int, int]) -> None:
    assert thumbnail(np.full((*size, 3), 9, np.uint8)).shape == (12, 16)


def pan(seed: int, frames: int, *, speed: int = 4) -> Iterator[np.ndarray]:
    """A camera that turns over a wide image, with the noise of a sensor."""
    rng, wide = np.random.default_rng(seed), textured(seed, (200, 320 + speed * frames)).astype(np.float32)
    wide += 0.7 * (wide.mean(axis=2, keepdims=True) - wide)  # colours as strong as those of photographs
    for number in range(frames):
        view = wide[10:190, speed * number : speed * number + 320].astype(np.int16)
        yield np.clip(view + rng.integers(-4, 5, view.shape), 0, 255).astype(np.uint8)


def flash(picture: np.ndarray, gain: float) -> np.ndarray:
    return np.clip(picture.astype(np.float32) * gain + 90, 0, 255).astype(np.uint8)


def cuts_of(frames: Sequence[np.ndarray]) -> list[int]:
    detector = CutDetector()
    return [number for number, rgb in enumerate(frames) if detector.is_cut(rgb)]


def test_hard_cuts_are_found_at_their_first_frame_between_pans_of_any_speed() -> None:
    frames = [picture for seed, speed in enumerate((0, 3, 12, 30, 6)) for picture in pan(seed, 12, speed=speed)]
    assert cuts_of(frames) == [12, 24, 36, 48]


@pytest.mark.parametrize("lasts", range(1, FLASH_FRAMES + 1))
@pytest.mark.parametrize("gain", [2.5, 4, 100])
def test_a_flash_is_no_cut_and_neither_is_its_end(gain: float, lasts: int) -> None:
    frames = [*pan(7, 20)]
    frames[8 : 8 + lasts] = [flash(picture, gain) for picture in frames[8 : 8 + lasts]]
    assert cuts_of(frames) == []


def test_black_frames_within_a_scene_are_no_cut() -> None:
    frames = [*pan(7, 20)]
    frames[8:10] = [np.zeros_like(frames[0])] * 2
    assert cuts_of(frames) == []


def dimmed(picture: np.ndarray, gain: float = 0.09) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-2, 3, picture.shape)
    return np.clip(picture * gain + noise, 0, 255).astype(np.uint8)


def brightened(picture: np.ndarray) -> np.ndarray:
    """A slide: white, with shapes on a third of it."""
    return np.where(picture > np.quantile(picture, 0.3), np.uint8(255), picture)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("change", [dimmed, brightened])
def test_a_cut_to_a_dark_or_bright_scene_is_found_at_its_first_frame(
    change: Callable[[np.ndarray], np.ndarray], seed: int
) -> None:
    other = [change(picture) for picture in pan(seed + 20, 8)]
    assert cuts_of([*pan(seed, 10), *other, *pan(seed + 40, 8)]) == [10, 18]
    assert cuts_of([*pan(seed, 10), *[np.zeros_like(other[0])] * 2, *other]) == [12]


@pytest.mark.parametrize("lasts", range(1, FLASH_FRAMES + 1))
@pytest.mark.parametrize("gain", [0.04, 0.09])
def test_light_that_goes_out_for_a_moment_is_no_cut(gain: float, lasts: int) -> None:
    frames = [*pan(7, 20)]
    frames[8 : 8 + lasts] = [dimmed(picture, gain) for picture in frames[8 : 8 + lasts]]
    assert cuts_of(frames) == []


@pytest.mark.parametrize("lasts", range(1, FLASH_FRAMES + 1))
def test_a_flash_within_a_dark_scene_is_no_cut(lasts: int) -> None:
    frames = [*pan(7, 20)]
    night = [dimmed(picture, 0.3) for picture in frames]
    night = [np.where(picture < 40, picture // 3, picture) for picture in night]
    assert all((picture <= 16).mean() > 0.5 for picture in night)
    night[8 : 8 + lasts] = [flash(picture, 4) for picture in frames[8 : 8 + lasts]]
    assert cuts_of(night) == []


def test_a_cut_under_a_flash_is_found_when_the_flash_ends() -> None:
    frames = [*pan(7, 10), *pan(8, 10)]
    frames[9:11] = [flash(picture, 100) for picture in frames[9:11]]
    assert cuts_of(frames) == [11]


@pytest.mark.parametrize("level", [0, 255])
def test_a_scene_that_fades_in_after_black_or_white_begins_with_its_first_light(level: int) -> None:
    blank = np.full((180, 320, 3), level, np.uint8)
    shares = np.linspace(1, 0, 13)[1:]
    out = [cv2.addWeighted(one, k, blank, 1 - k, 0) for one, k in zip(pan(1, 12), shares, strict=True)]
    back = [cv2.addWeighted(one, 1 - k, blank, k, 0) for one, k in zip(pan(2, 12), shares, strict=True)]
    found = cuts_of([*pan(1, 12), *out, *[blank] * 5, *back, *pan(2, 12)])
    assert len(found) == 1
    assert 29 <= found[0] <= 33


def test_a_dissolve_is_no_cut() -> None:
    shares = [0] * 5 + [k / 25 for k in range(25)] + [1] * 5
    frames = [cv2.addWeighted(a, 1 - k, b, k, 0) for a, b, k in zip(pan(1, 35), pan(2, 35), shares, strict=True)]
    assert cuts_of(frames) == []


def test_a_detector_that_is_restarted_forgets() -> None:
    detector = CutDetector()
    first, second = next(pan(1, 1)), next(pan(2, 1))
    assert not detector.is_cut(first)
    detector.restart()
    assert not detector.is_cut(second)
    assert detector.is_cut(first)
