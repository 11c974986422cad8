"""Every backend gives the official numbers for a model of each architecture family."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stream
from tests.models.test_parity import TOLERANCE
from tests.support.manifests import FILES, checkpoint, error, reference
from tests.support.reference import image

FAMILIES = {
    "depth_anything": "depth_anything_v2_vits",
    "beit": "dpt_beit_base_384",
    "efficientnet_lite3": "midas_v21_small_256",
    "levit": "dpt_levit_224",
    "next_vit": "dpt_next_vit_large_384",
    "resnext101": "midas_v21_384",
    "swin": "dpt_swin_large_384",
    "swin2": "dpt_swin2_tiny_256",
    "vit_hybrid": "dpt_hybrid_384",
    "vit_large": "dpt_large_384",
    "zipdepth": "zipdepth_base",
    "zipdepth for neural processors": "zipdepth_base_npu",
    "zoe_depth_anything": "depth_anything_metric_depth_indoor",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Holds up to 5 GB of weights and exports, so it is removed right after the test."""
    yield tmp_path
    shutil.rmtree(tmp_path)


SMALL = {"depth_anything", "efficientnet_lite3", "zipdepth"}
"""One transformer and two convolutional networks: in all backends. The others, in OpenVINO, which users get."""
LARGE = {"next_vit", "resnext101", "swin", "vit_large", "zoe_depth_anything"}
"""Before a release alone: they take minutes, and a smaller network has the same operations."""


def marked(family: str, backend: str) -> Any:
    is_often = family in SMALL or (backend == "openvino" and family not in LARGE)
    return pytest.param(
        family, backend, id=f"{family}-{backend}", marks=pytest.mark.slow if is_often else pytest.mark.release
    )


@pytest.mark.parametrize(
    ("family", "backend"),
    [marked(family, backend) for family in FAMILIES for backend in ("openvino", "onnx", "compile")],
)
def test_a_backend_gives_the_official_numbers(
    family: str, backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.infer.backends.cache.cache_folder", lambda: folder / "cache")
    name = FAMILIES[family]
    expected = next(found for path in FILES if (found := reference(path))["model"] == name and not found["options"])
    case = expected["cases"][0]
    torch.save(checkpoint(expected["state_dict"]), folder / "weights.pt")
    Image.fromarray(image(*case["image"])).save(folder / "picture.png")

    report = stream.run(
        folder / "picture.png", output=folder / "out", model=name, weights=folder / "weights.pt", save="npy",
        picture="none", precision="fp32", backend=backend, threads=2,
    )  # fmt: skip

    assert report.backend == backend
    assert not report.counters
    assert error(np.load(folder / "out" / "picture.npy"), case["full"]) < TOLERANCE
