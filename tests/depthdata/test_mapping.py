"""Depth values as whole numbers and back."""

import json
import math

import numpy as np
import pytest

from stream.depthdata.mapping import CODES_12, Mapping


def values(lo: float, hi: float) -> np.ndarray:
    return np.linspace(lo, hi, 700 * 60, dtype=np.float32).reshape(700, 60)


@pytest.mark.parametrize(
    "mapping",
    [
        Mapping(lo=-3.5, hi=12.25),
        Mapping(lo=1e-4, hi=2e4, first=0, last=CODES_12),
        Mapping(lo=0.01, hi=10.0, first=0, last=CODES_12, use_log=True, shift=3.5),
        Mapping.of_unit(0.001),
    ],
)
def test_values_come_back_within_half_a_code(mapping: Mapping) -> None:
    original = values(mapping.lo, mapping.hi)
    back, valid = Mapping.from_fields(json.loads(json.dumps(mapping.as_fields()))).decode(mapping.encode(original))
    limit = np.vectorize(mapping.error_at)(original) * 1.001 + np.abs(original) * 2e-7
    assert valid is None
    assert np.all(np.abs(back - original) <= limit)
    assert mapping.beyond(original) == 0


def test_pixels_without_an_answer_keep_none() -> None:
    original, valid = values(2, 3), np.ones((700, 60), bool)
    original[300:400], valid[300:400] = np.nan, False
    codes = Mapping(lo=2, hi=3).encode(original, valid)
    back, back_valid = Mapping(lo=2, hi=3).decode(codes)
    assert back_valid is not None
    assert np.array_equal(back_valid, valid)
    assert np.isnan(back[~valid]).all()
    assert np.isfinite(back[valid]).all()
    assert codes.min() == 0


def test_millimetres_are_the_codes() -> None:
    codes = Mapping.of_unit(0.001).encode(np.array([[0.0, 0.0004, 1.2344, 65.535, 80.0]], np.float32))
    assert codes.tolist() == [[1, 1, 1234, 65535, 65535]]  # 0 is no answer
    assert Mapping.of_unit(0.001).beyond(np.array([0.5, 65.535, 80.0], np.float32)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"lo": 2.0, "hi": 2.0},
        {"lo": 3.0, "hi": 2.0},
        {"hi": float("nan")},
        {"hi": None},
        {"lo": True},
        {"first_code": 0.5},
        {"first_code": 2},
        {"last_code": 70000},
        {"use_log": "yes"},
        {"use_log": True, "lo": -4.0},
        {"use_log": True, "shift": 1e30},
        {"use_log": True, "shift": 1e14},
        {"use_log": True, "lo": 1e308, "hi": 1.1e308, "shift": 1.5e308},
        {"lo": -1e308, "hi": 1e308},
        {"lo": 1.0, "hi": math.nextafter(1.0, 2.0)},
        {"lo": 0.0, "hi": 5e-324},
        {"lo": 0.0, "hi": 1e-310},
    ],
)
def test_numbers_that_cannot_be_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|does not exist|different values"):
        Mapping.from_fields({**Mapping(lo=0.5, hi=2).as_fields(), **fields})


@pytest.mark.parametrize("at", [0.0, 1e-38, 1.0, -700.0, 3e38])
def test_two_values_of_float32_are_always_far_enough_apart(at: float) -> None:
    low = np.float32(at)
    high = np.nextafter(low, np.float32(np.inf))
    mapping = Mapping(lo=float(low), hi=float(high))
    back, _ = mapping.decode(mapping.encode(np.array([[low, high]])))
    assert back.tolist() == [[low, high]]
