"""The ends of all values of a clip, in memory that does not grow."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.depthdata.ends import Ends

RNG = np.random.default_rng(3)
VALUES = {
    "around zero": RNG.normal(3, 5, 200_000),
    "negative": -np.abs(RNG.normal(0, 1, 100_000)) - 0.5,
    "far from zero": RNG.uniform(900, 1000, 100_000),
    "closer together than a bin": RNG.uniform(1, 1.0001, 100_000),
    "many orders of magnitude": np.exp(RNG.uniform(-30, 30, 100_000)),
}


def ends_of(values: NDArray[np.float32], parts: int = 7) -> Ends:
    ends = Ends()
    for part in np.array_split(values, parts):
        ends.add(part)
    return ends


@pytest.mark.parametrize("name", VALUES)
def test_percentiles_are_as_exact_as_stated(name: str) -> None:
    values = VALUES[name].astype(np.float32)
    ends = ends_of(values)
    assert ends.extremes == (values.min(), values.max())
    for low, high in ((0, 100), (1, 99), (25, 75)):
        assert ends.percentiles(low, high) == pytest.approx(np.percentile(values, (low, high)), rel=2**-11)


def test_values_that_differ_by_less_than_a_bin_keep_their_order() -> None:
    low, high = ends_of(VALUES["closer together than a bin"].astype(np.float32)).percentiles(1, 99)
    assert (low, high) == (pytest.approx(1.000001, abs=2e-7), pytest.approx(1.000099, abs=2e-7))


@pytest.mark.parametrize("value", [0.0, -2.5, 7.25, 3.4e38, -3.4e38, 1e-45])
def test_a_constant_has_no_width(value: float) -> None:
    exact = float(np.float32(value))
    assert ends_of(np.full(50, value, np.float32)).percentiles(1, 99) == (exact, exact)


def test_memory_does_not_grow() -> None:
    ends = Ends()
    ends.add(np.linspace(-5, 5, 1000, dtype=np.float32))
    before = ends._counts
    ends.add(np.linspace(-3e38, 3e38, 100_000, dtype=np.float32))
    assert ends._counts is before
    assert before is not None
    assert before.nbytes == 8 << 20


def test_nothing_has_ends() -> None:
    ends = Ends()
    ends.add(np.empty((0, 4), np.float32))
    assert (ends.extremes, ends.percentiles(1, 99)) == ((0, 0), (0, 0))
