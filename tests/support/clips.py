"""Reads the reference files of models for clips in tests/data/clips, and compares with them.

They are made as the others are, see `manifests`. A file whose weights are those of another names that file instead of
its `state_dict`. Of some frames only the minimum, the maximum, the mean and the standard deviation are kept.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.paths import DATA

CLIPS = sorted((DATA / "clips").glob("*video_depth_anything_vit*.json"))


def clip_reference(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    if isinstance(other := loaded["state_dict"], str):
        loaded["state_dict"] = json.loads(path.with_name(other).read_text())["state_dict"]
    return loaded


def on_grid(values: NDArray[np.float32], points: int) -> NDArray[np.float32]:
    rows, columns = ([round(i * (side - 1) / (points - 1)) for i in range(points)] for side in values.shape)
    return values[np.ix_(rows, columns)]


def frame_error(values: NDArray[np.float32], expected: dict[str, Any]) -> float:
    """Largest difference of a frame, in its points and over all of it, in standard deviations of the expected one."""
    exact = values.astype(np.float64)
    ours = {"min": exact.min(), "max": exact.max(), "mean": exact.mean(), "std": exact.std()}
    differences = [abs(ours[key] - expected[key]) for key in ours]
    if "grid8" in expected:
        differences.append(np.abs(on_grid(values, 8) - np.array(expected["grid8"])).max())
    return float(max(differences) / expected["std"])
