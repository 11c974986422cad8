"""MiDaS v2.1 small as OpenVINO's intermediate representation, exported here from the torch network."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stream
from stream.cli.main import invoke
from stream.errors import MissingExtraError, ModelError
from stream.models import openvino_ir, registry
from tests.support.manifests import checkpoint, reference
from tests.support.paths import DATA
from tests.support.reference import image

openvino = openvino_ir.imported(where="tests")  # without its telemetry
NAME, TORCH = "openvino_midas_v21_small_256", "midas_v21_small_256"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for torch and the same as IR: `small.pt`, `ir.xml`, `ir.bin`."""
    folder = tmp_path_factory.mktemp("openvino")
    data = DATA / "models" / f"{TORCH}.json"
    torch.save(checkpoint(reference(data)["state_dict"]), folder / "small.pt")
    network = registry.load(TORCH, weights=folder / "small.pt").network
    example = torch.zeros(1, 3, 256, 256)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its tracer, which takes a third of the exporter's time
        model = openvino.convert_model(torch.jit.trace(network, example, check_trace=False), input=[1, 3, 256, 256])
    openvino.save_model(model, folder / "ir.xml", compress_to_fp16=False)
    return folder


def test_the_whole_path_gives_what_torch_gives(weights: Path, tmp_path: Path) -> None:
    Image.fromarray(image(320, 240)).save(tmp_path / "photo.png")
    ((_, by_torch),) = stream.iter_depth(
        str(tmp_path / "photo.png"), model=TORCH, weights=weights / "small.pt", square=True, precision="fp32"
    )
    ((_, by_openvino),) = stream.iter_depth(str(tmp_path / "photo.png"), model=NAME, weights=weights / "ir.xml")
    assert np.abs(by_openvino.values - by_torch.values).max() < 1e-3 * by_torch.values.std()


def test_batches_are_computed_one_by_one(weights: Path) -> None:
    network = registry.load(NAME, weights=weights / "ir.xml").network
    x = torch.randn(3, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x)[1], network(x[1:2])[0])


def test_without_the_extra_one_line_says_what_to_install(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"ir\.xml: .*pip install 'depthstream\[openvino\]'") as caught:
        registry.load(NAME, weights=weights / "ir.xml")
    assert caught.value.exit_code == 2


def test_a_missing_or_damaged_half_is_named(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = tmp_path / "alone.xml"
    alone.write_bytes((weights / "ir.xml").read_bytes())
    Image.fromarray(image(64, 48)).save(tmp_path / "p.png")
    picture = str(tmp_path / "p.png")
    assert invoke(["run", picture, "-m", NAME, "--weights", str(alone), "-o", str(tmp_path / "o.png")]) == 2
    assert "alone.bin: no such weights file" in capsys.readouterr().err
    alone.with_suffix(".bin").write_bytes(b"")
    alone.write_text("<html>not found</html>")
    with pytest.raises(ModelError, match=r"alone\.xml: OpenVINO cannot read this model"):
        registry.load(NAME, weights=alone)


def test_an_ir_with_other_outputs_is_refused(weights: Path, tmp_path: Path) -> None:
    model = openvino.Core().read_model(weights / "ir.xml")
    first = next(op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution")
    model.add_outputs([(first.get_friendly_name(), 0)])
    openvino.save_model(model, tmp_path / "other.xml", compress_to_fp16=False)
    with pytest.raises(ModelError, match="allowed: one input N×3×256×256"):
        registry.load(NAME, weights=tmp_path / "other.xml")


def test_other_sizes_and_precisions_are_refused(weights: Path, tmp_path: Path) -> None:
    Image.fromarray(image(64, 48)).save(tmp_path / "p.png")
    for options, says in (({"input_size": 384}, "256"), ({"precision": "bf16"}, "fp32")):
        with pytest.raises(stream.UsageError, match=says):
            stream.run(
                str(tmp_path / "p.png"), output=tmp_path / "o.png", model=NAME, weights=weights / "ir.xml", **options
            )
