"""Reads the reference files in tests/data/models, and compares with them; see `reference` for how they were made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.support.paths import DATA
from tests.support.reference import weight

FILES = sorted((DATA / "models").glob("*.json"))


def reference(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def checkpoint(entries: list[Any]) -> dict[str, torch.Tensor]:
    return {
        key: torch.from_numpy(np.asarray(weight(key, tuple(shape), rule))).to(getattr(torch, dtype))
        for key, shape, dtype, rule in entries
    }


def on_grid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = ([round(i * (side - 1) / 23) for i in range(24)] for side in values.shape)
    return values[np.ix_(rows, columns)]


def error(values: NDArray[np.float32], expected: dict[str, Any]) -> float:
    """Largest difference on the grid in standard deviations of the expected values."""
    assert list(values.shape) == expected["shape"]
    differences = np.abs(on_grid(values) - np.array(expected["grid24"]))
    return float(differences.max() / expected["std"])
