"""Checkpoint files: what is read, and how everything else is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stream.errors import ModelError
from stream.models.weights.read import fill, read_state_dict


def tensors() -> dict[str, Tensor]:
    return {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.ones(2)}


def assert_read(path: Path) -> None:
    read = read_state_dict(path)
    assert read.keys() == tensors().keys()
    assert all(torch.equal(read[key], value) for key, value in tensors().items())


def test_safetensors(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "a.safetensors")
    assert_read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"state_dict": t, "epoch": 3},
        lambda t: {"model": t},
        lambda t: {f"module.{key}": value for key, value in t.items()},
        lambda t: {"model_state_dict": {f"module.{key}": value for key, value in t.items()}},
    ],
)
def test_pickled(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], object], zipped: bool) -> None:
    torch.save(wrap(tensors()), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert_read(tmp_path / "a.pt")


class Unsafe:
    """A class that a checkpoint must not be able to make."""


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": Unsafe()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="contains code besides tensors"):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"<html><body>404", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    ],
)
def test_lookalikes(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_state_dict(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_cut_off(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    content = {"weight": torch.randn(64, 64)}
    if kind == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ModelError, match=r"damaged") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_noise(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(ModelError, match="is not a checkpoint"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"), [([1, 2], "contains a list, not a state dict"), ({"epoch": 3}, "contains no tensors")]
)
def test_no_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=message):
        read_state_dict(tmp_path / "a.pt")


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        read_state_dict(tmp_path)


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def whole() -> dict[str, Tensor]:
    norm = {f"1.{name}": torch.ones(2) for name in ("weight", "bias", "running_mean", "running_var")}
    return {**tensors(), **norm}


def test_filling_makes_float32_of_half_and_does_not_need_counters() -> None:
    filled = network()
    fill(filled, {key: value.half() for key, value in whole().items()}, where="a.pt")
    assert torch.equal(filled.state_dict()["0.weight"], tensors()["0.weight"])
    assert not any(value.is_meta for value in filled.state_dict().values())


def test_every_misfit_is_named() -> None:
    given = whole()
    del given["1.bias"]
    given |= {"0.weight": torch.zeros(3, 3), "extra.weight": torch.zeros(1)}
    with pytest.raises(ModelError) as caught:
        fill(network(), given, where="a.pt")
    assert str(caught.value) == (
        "a.pt: does not fit this model: 1 missing: 1.bias; 1 unknown: extra.weight; "
        "1 of another shape: 0.weight (3, 3) instead of (2, 3); is it the file of another model?"
    )


def test_many_misfits_are_counted() -> None:
    with pytest.raises(ModelError, match=r"6 missing: 0\.bias, 0\.weight, 1\.bias and 3 more; 1 unknown"):
        fill(network(), {"other": torch.zeros(1)}, where="a.pt")


def test_a_misfit_leaves_the_network_empty() -> None:
    untouched = network()
    with pytest.raises(ModelError):
        fill(untouched, tensors(), where="a.pt")
    assert all(value.is_meta for value in untouched.state_dict().values())


def test_declared_keys_are_ignored() -> None:
    given = {**whole(), "0.attn_mask": torch.zeros(1)}
    with pytest.raises(ModelError, match="unknown"):
        fill(network(), given, where="a.pt")
    fill(network(), given, where="a.pt", ignored_keys=("*.attn_mask",))


def test_safetensors_are_recognised_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "misnamed.pt"
    save_file({"a": torch.ones(2)}, path)
    torch.testing.assert_close(read_state_dict(path)["a"], torch.ones(2))


def test_quantised_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"1 quantised \(only floating point is supported\): weight"):
        fill(nn.Linear(2, 1), {"weight": torch.ones(1, 2, dtype=torch.int8), "bias": torch.ones(1)}, where="x.pt")
