"""The data types that pass through the pipeline."""

import numpy as np
import pytest

from stream.frames import Depth, DepthKind, Intrinsics

VALUES = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def depth(values: np.ndarray = VALUES, valid: np.ndarray | None = None) -> Depth:
    return Depth(values=values, kind=DepthKind.RELATIVE_DEPTH, index=0, valid=valid)


def test_what_has_no_answer_is_nan_and_no_part_of_the_answers() -> None:
    valid = VALUES > 4
    one = depth(valid=valid)
    assert np.isnan(one.values[~valid]).all()
    assert np.array_equal(one.answers, VALUES[valid])
    assert one.valid is not None
    assert not one.valid.flags.writeable
    assert np.isfinite(VALUES).all()  # the model's own array stays as it is


def test_a_mask_without_a_gap_is_none() -> None:
    assert depth(valid=np.ones((3, 4), bool)).valid is None


def test_a_mask_may_hide_what_is_not_finite_and_nothing_else_may_be() -> None:
    values = VALUES.copy()
    values[1, 2] = np.inf
    assert depth(values, valid=np.isfinite(values)).answers.max() == 12
    with pytest.raises(ValueError, match="finite where they are valid"):
        depth(values)
    with pytest.raises(ValueError, match="valid must be bool"):
        depth(valid=np.ones((4, 3), bool))


def test_nothing_at_all_may_be_valid() -> None:
    assert depth(valid=np.zeros((3, 4), bool)).answers.size == 0


@pytest.mark.parametrize("numbers", [(0, 1, 0, 0), (1, -1, 0, 0), (1, 1, float("nan"), 0), (float("inf"), 1, 0, 0)])
def test_a_camera_has_positive_focal_lengths(numbers: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="focal lengths must be positive"):
        Intrinsics(**dict(zip(("fx", "fy", "cx", "cy"), numbers, strict=True)))
