"""Resizing and normalising on the device."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stream.infer.preprocess import (
    Preprocessor,
    _bicubic,
    _cubic_taps,
    _summed_at_once,
    _summed_by_taps,
    antialiased,
    resized_on_host,
)
from stream.models.catalog import STARTER
from stream.models.resize import resize, to_frame_size
from stream.models.spec import Resample
from tests.support.reference import image

CPU = torch.device("cpu")


def test_the_starters_input_is_resized_then_normalised() -> None:
    rgb = image(333, 517)
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    x = F.interpolate(x, size=(288, 192), mode="bilinear", antialias=True, align_corners=False)
    got = Preprocessor(STARTER.input, CPU)(torch.from_numpy(rgb), (288, 192), torch.float32)
    torch.testing.assert_close(got, (x - 127 / 255) / (128 / 255), atol=2e-6, rtol=0)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("width", "height"), [(1500, 1000), (200_000, 2), (3, 50_000), (640, 480)])
def test_strips_change_no_bit(width: int, height: int) -> None:
    rgb = torch.from_numpy(image(width, height))
    whole = resize(rgb.permute(2, 0, 1)[None].float(), (160, 224), Resample.BILINEAR_ANTIALIAS)
    assert torch.equal(antialiased(rgb, (160, 224)), whole)


def test_bicubic_is_a_quarter_past_minus_one_with_replicated_borders() -> None:
    # Enlarged exactly twice, an output sample lies a quarter of a pixel from an input sample: the weights are
    # those of Keys' kernel (1981) with a = -0.75 at distances 1.25, 0.25, 0.75 and 1.75.
    a, distances = -0.75, (1.25, 0.25, 0.75, 1.75)
    near = [(a + 2) * d**3 - (a + 3) * d**2 + 1 for d in distances[1:3]]
    far = [a * (d**3 - 5 * d**2 + 8 * d - 4) for d in (distances[0], distances[3])]
    line = torch.tensor([0.0, 0.0, 1.0, 0.2, 0.7, 0.0])
    got = resize(line.expand(1, 1, 6, 6), (6, 12), Resample.BICUBIC)[0, 0, 0]
    padded = np.pad(line.numpy(), 2, mode="edge")
    for i in range(6):  # output 2i + 1 lies 0.25 to the right of input i
        taps = padded[i + 1 : i + 5]
        assert got[2 * i + 1].item() == pytest.approx(
            float(taps @ np.array([far[0], near[0], near[1], far[1]])), abs=1e-6
        )
    assert got.min() < 0  # the overshoot that uint8 would clip


@pytest.mark.parametrize(
    ("size_hw", "target_hw"),
    [
        ((480, 640), (192, 256)),
        ((1, 9), (192, 256)),
        ((70, 3), (14, 518)),
        ((600, 333), (601, 334)),
        ((2000, 31), (20, 31)),
    ],
)
def test_bicubic_is_opencvs_on_floats(size_hw: tuple[int, int], target_hw: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    expected = cv2.resize(rgb.astype(np.float32), target_hw[::-1], interpolation=cv2.INTER_CUBIC)
    got = _bicubic(torch.from_numpy(rgb), target_hw)[0].permute(1, 2, 0).numpy()
    # A position of float32, as OpenCV 4 has it and OpenCV 5 does not, is off by up to 2^-24 of the side.
    rounding = 4 * 255 * max(*size_hw, *target_hw) * 2**-24
    assert np.abs(got - expected).max() < rounding + 1e-3


def test_both_ways_to_sum_lines_are_equal() -> None:
    table = torch.from_numpy(np.random.default_rng(0).random((60, 7), dtype=np.float32))
    _, which, weights = _cubic_taps(60, 41, CPU)
    torch.testing.assert_close(_summed_by_taps(table, which, weights), _summed_at_once(table, which, weights))


@pytest.mark.parametrize("resample", Resample)
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (9, 1), (2, 2), (48, 64)])
def test_any_picture_size_works_and_constants_stay(resample: Resample, size_hw: tuple[int, int]) -> None:
    x = torch.full((1, 3, *size_hw), 0.25)
    for target in ((32, 32), (1, 5), size_hw):
        if resample.is_on_host:
            rgb = resized_on_host(np.full((*size_hw, 3), 64, np.uint8), target, resample, longest=24)
            assert (rgb.dtype, rgb.shape) == (np.uint8, (*target, 3))
            assert (rgb == 64).all()
            continue
        got = resize(x, target, resample)
        assert got.shape == (1, 3, *target)
        torch.testing.assert_close(got, torch.full_like(got, 0.25))


def test_half_precision_is_computed_in_float32() -> None:
    rgb = torch.from_numpy(image(64, 48))
    preprocess = Preprocessor(STARTER.input, CPU)
    half = preprocess(rgb, (32, 32), torch.bfloat16)
    assert torch.equal(half, preprocess(rgb, (32, 32), torch.float32).bfloat16())


@pytest.mark.parametrize("size_hw", [(48, 64), (24, 32), (1, 5)])
def test_outputs_come_back_as_contiguous_float32(size_hw: tuple[int, int]) -> None:
    output = torch.rand(32, 24, dtype=torch.bfloat16).t()
    got = to_frame_size(output, size_hw, Resample.BILINEAR)
    assert got.dtype == torch.float32
    assert got.shape == size_hw
    assert got.is_contiguous()
