"""Every finding on pictures and maps that no one would choose: it answers with finite numbers, or has no question."""

import math

import numpy as np
import pytest

from stream.frames import DepthKind
from stream.survey.findings.every import FINDINGS
from stream.survey.scene import Truth
from tests.support.survey_scenes import scene_of

SHAPES = [(1, 1), (1, 40), (40, 1), (3, 5), (9, 700), (33, 17), (120, 90)]


def odd_maps(size: tuple[int, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    plain = np.linspace(0.1, 2, size[0] * size[1]).reshape(size).astype(np.float32)
    half, wild = plain.copy(), plain.copy()
    half[: (size[0] + 1) // 2] = np.nan
    wild.flat[:2] = 1e30, -1e30
    return {
        "plain": plain,
        "inverted": -plain,
        "constant": np.full(size, 7.0),
        "zero": np.zeros(size),
        "unanswered": np.full(size, np.nan),
        "half": half,
        "noise": rng.normal(size=size),
        "wild": wild,
        "minute": plain * np.float32(1e-30),
        "great": plain * np.float32(1e15),
    }


@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize("known", ["nothing", "depth", "everything", "gaps"])
def test_numbers_are_finite_or_there_are_none(size: tuple[int, int], known: str) -> None:
    maps = odd_maps(size)
    rows = np.arange(size[0])[:, None] * np.ones(size)
    true = (0.01 + rows / 20).astype(np.float32)
    marked = rows < size[0] / 3
    truth = {
        "nothing": None,
        "depth": Truth(disparity=true),
        "everything": Truth(
            disparity=np.where(marked, 0, true).astype(np.float32), thin=marked, sky=marked,
            planes=(rows // 4).astype(np.int32), clouds=marked & (rows % 2 == 0), small=(rows // 9).astype(np.int32),
        ),
        "gaps": Truth(disparity=np.full(size, np.nan, np.float32)),
    }[known]  # fmt: skip
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    scene = scene_of(rgb, maps, truth=truth, kind=DepthKind.METRIC_DEPTH)
    before = {name: values.copy() for name, values in scene.maps.items()}
    for finding in FINDINGS:
        answers = finding.measure(scene)
        if answers is None:
            continue
        assert set(answers.numbers) == set(maps), finding.key
        for name, number in answers.numbers.items():
            assert number.value is None or math.isfinite(number.value), (finding.key, name)
            assert all(math.isfinite(value) for value in number.details.values()), (finding.key, name)
            assert set(number.details) <= set(finding.details), finding.key
            for place in number.places:
                left, top, width, height = place.box
                assert min(left, top) >= 0, (finding.key, name)
                assert min(width, height) > 0, (finding.key, name)
                assert max(left + width, top + height) <= 1.0001, (finding.key, name)
    for name, values in scene.maps.items():
        np.testing.assert_array_equal(values, before[name])
