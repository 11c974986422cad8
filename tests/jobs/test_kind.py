"""`--kind` and `--max-depth` through whole runs: what a model of one's own gives is what is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import stream
from stream.cli.main import invoke
from stream.compare import engine as compare_engine
from stream.config import Config
from stream.errors import UsageError
from stream.frames import DepthKind
from stream.infer.engine import Engine
from stream.jobs.models import load_engine
from stream.models import catalog, registry
from stream.models.catalog import STARTER
from stream.models.depth_anything import dinov2
from tests.support.picture_files import save, scene

MINE = Path("mine.safetensors")
OPTIONS: dict[str, Any] = {"input_size": 70, "backend": "torch", "precision": "fp32"}
TYPED = ["--input-size", "70", "--backend", "torch", "--precision", "fp32", "--save", "npy", "--quiet"]
METRIC = ["--kind", "metric", "--max-depth", "8"]


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture, and a file of the user's own for a Depth Anything V2 that is small enough for a test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dinov2, "_GRID", 5)
    save(Path("a.png"), scene())
    row = registry.find("depth_anything_v2_vits")
    few = {"width": 12, "depth": 4, "heads": 2, "taps": (0, 1, 2, 3), "channels": 8, "outputs": (4, 4, 4, 4)}
    small = replace(row, options=tuple({**dict(row.options), **few}.items()))
    monkeypatch.setattr(catalog, "MODELS", (STARTER, small, registry.find("dav2-metric-indoor-small")))
    sizes = {key: value.shape for key, value in registry.build(small).state_dict().items()}
    random = torch.Generator().manual_seed(0)
    save_file({key: torch.randn(size, generator=random) * 0.1 for key, size in sizes.items()}, MINE)


def depth(**options: Any) -> stream.Depth:
    ((_, depth),) = stream.iter_depth("a.png", model="dav2-small", weights=MINE, **OPTIONS, **options)
    return depth


def test_the_kind_decides_what_the_values_are_and_how_they_are_made() -> None:
    disparity, far = depth(kind="disparity"), depth(kind="depth")
    metres, twice = depth(kind="metric", max_depth=8), depth(kind="metric", max_depth=16)
    assert [one.kind for one in (disparity, far, metres)] == [
        DepthKind.RELATIVE_DISPARITY,
        DepthKind.RELATIVE_DEPTH,
        DepthKind.METRIC_DEPTH,
    ]
    np.testing.assert_array_equal(disparity.values, far.values)
    np.testing.assert_allclose(twice.values, 2 * metres.values, rtol=1e-6)
    assert (metres.values > 0).all()
    assert (metres.values < 8).all()
    assert depth().kind is DepthKind.RELATIVE_DISPARITY


def test_a_run_writes_metres_and_says_so() -> None:
    assert invoke(["run", "a.png", "-o", "out", "-m", f"dav2-small={MINE}", *METRIC, *TYPED]) == 0
    np.testing.assert_array_equal(np.load("out/a.npy"), depth(kind="metric", max_depth=8).values)
    Path("own.yaml").write_text("model: {kind: metric, max_depth: 8}\n")
    assert invoke(["run", "a.png", "-o", "two", "-m", f"dav2-small={MINE}", "--config", "own.yaml", *TYPED]) == 0
    np.testing.assert_array_equal(np.load("two/a.npy"), np.load("out/a.npy"))


def test_a_comparison_takes_it_for_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(config: Config, **options: Any) -> Engine:
        engines.append(load_engine(config, **options))
        return engines[-1]

    engines: list[Engine] = []
    monkeypatch.setattr(compare_engine, "load_engine", recorded)
    models = ["-m", f"dav2-small={MINE}", "-m", "starter"]
    assert invoke(["compare", "a.png", *models, *METRIC, "-o", "out", "--quiet"]) == 0
    assert [engine.spec.output for engine in engines] == [DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY]
    assert invoke(["compare", "a.png", "-m", "dav2-small", "-m", "starter", *METRIC, "--quiet"]) == 2
    assert "--kind: applies to a file of your own, and none is named; use -m NAME=FILE" in capsys.readouterr().err


def test_a_benchmark_takes_it_for_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from stream.bench import suite

    monkeypatch.setattr(suite, "_measure_model", lambda _options, model, *_rest: seen.append(model.loaded().spec))
    seen: list[Any] = []
    assert invoke(["bench", "-m", f"dav2-small={MINE}", "-m", "starter", *METRIC, "--size", "64x64"]) == 0
    assert [spec.output for spec in seen] == [DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY]
    assert seen[0].max_depth_m == 8


def test_what_cannot_be_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"--kind metric: needs the largest depth that the file was trained with"):
        depth(kind="metric")
    with pytest.raises(UsageError, match=r"--max-depth: only applies to metric models, .* add --kind metric"):
        depth(kind="depth", max_depth=8)
    assert invoke(["run", "a.png", "-m", "starter", "--kind", "metres"]) == 2
    error = capsys.readouterr().err
    assert "--kind" in error
    assert "disparity" in error
    assert len(error.strip().splitlines()) == 1
