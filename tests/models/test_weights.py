"""Checkpoint files: what is read, and how everything else is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stream.errors import ModelError
from stream.models.catalog import STARTER
from stream.models.weights.locate import find_file
from stream.models.weights.read import fill, read_state_dict
from stream.notes import Notes, collected


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


def parts(prefix: str = "") -> dict[str, Tensor]:
    """Like a Depth Anything file: an encoder and a head, without most of their tensors."""
    return {
        f"{prefix}pretrained.cls_token": torch.zeros(1, 1, 4),
        f"{prefix}pretrained.norm.weight": torch.ones(4),
        f"{prefix}depth_head.projects.0.bias": torch.ones(2),
    }


OPTIMIZER = {"state": {n: {"exp_avg": torch.zeros(3)} for n in range(9)}, "param_groups": [{"lr": 1e-4}]}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda p: {"net": p()},
        lambda p: {"network": {"state_dict": p("module.")}, "step": 3},
        lambda p: {"params_ema": p()},
        lambda p: {"params": p(), "lr": 0.1},
        lambda p: {"ema": {"module": p(), "updates": 7}},
        lambda p: {"model_ema": p("module.module.")},
        lambda p: {"optimizer": OPTIMIZER, "depth_anything": p()},
        lambda p: {"checkpoint": {"weights": {"model": p()}}},
        lambda p: {"state_dict": p("model."), "hyper_parameters": {}, "callbacks": {"c": {"best": torch.zeros(())}}},
        lambda p: {"state_dict": {**p("model.net."), "loss.weight": torch.zeros(1), "mean": torch.zeros(3)}},
        lambda p: p("_orig_mod."),
        lambda p: p("module._orig_mod."),
        lambda p: {"state_dict": p("net._orig_mod.module.")},
        lambda p: {key.replace("pretrained.", "pretrained._orig_mod."): value for key, value in p().items()},
        lambda p: {"model": {**p("student."), **p("ema_teacher.")}},
        lambda p: {**p(), "epoch": 3},
        lambda p: [p()],
        lambda p: (p("module."), 3),
        lambda p: {"models": [p()], "epoch": 3},
        lambda p: {"model": (p(), [OPTIMIZER])},
        lambda p: {"ema": {"shadow": [[p()]]}, "rng": [torch.zeros(3), torch.zeros(3)]},
    ],
)
def test_what_training_scripts_put_around_it(tmp_path: Path, wrap: Callable[..., object]) -> None:
    torch.save(wrap(parts), tmp_path / "a.pt")
    read = read_state_dict(tmp_path / "a.pt")
    assert {key: value.shape for key, value in read.items()} == {key: value.shape for key, value in parts().items()}


def test_a_choice_is_noted(tmp_path: Path) -> None:
    first, second = {key: value + 1 for key, value in parts().items()}, parts()
    torch.save({"model": first, "ema": second}, tmp_path / "a.pt")
    with collected(Notes()) as notes:
        assert read_state_dict(tmp_path / "a.pt")["pretrained.norm.weight"][0] == 2
    assert notes.said == [f"{tmp_path / 'a.pt'}: uses model; the file also holds ema"]
    torch.save({"state_dict": {**parts("net."), "loss.a": torch.zeros(1)}}, tmp_path / "b.pt")
    with collected(Notes()) as notes:
        read_state_dict(tmp_path / "b.pt")
    assert notes.said == [f"{tmp_path / 'b.pt'}: uses net; the file also holds loss.*"]


def test_names_that_the_network_has_stay(tmp_path: Path) -> None:
    for own in ({"0.weight": 1, "0.bias": 1}, {"conv.weight": 1, "conv.bias": 1}, {"a.b.weight": 1, "c.b.weight": 1}):
        torch.save({key: torch.ones(2) for key in own}, tmp_path / "a.pt")
        assert read_state_dict(tmp_path / "a.pt").keys() == own.keys()
    shared = {"model.enc.0.weight": 1, "model.enc.1.weight": 1, "model.head.bias": 1}
    torch.save({key: torch.ones(2) for key in shared}, tmp_path / "a.pt")
    assert list(read_state_dict(tmp_path / "a.pt")) == ["enc.0.weight", "enc.1.weight", "head.bias"]


def test_a_file_that_contains_itself_is_read_to_the_end(tmp_path: Path) -> None:
    content: dict[str, object] = {"epoch": 3}
    content["self"] = content
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="contains no tensors"):
        read_state_dict(tmp_path / "a.pt")
    content = {"weight": torch.ones(2)}
    content["model"] = content
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="nests dictionaries more than 8 deep"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_a_compiled_network_is_named_as_that(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)).save(str(path))  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError) as caught:
        read_state_dict(path)
    assert "is a TorchScript archive" in str(caught.value)
    hint = str(caught.value).partition("in Python: ")[2]
    assert hint == "torch.save(torch.jit.load('net.pt').state_dict(), 'weights.pt')"
    torch.save(torch.jit.load(str(path)).state_dict(), tmp_path / "weights.pt")  # type: ignore[no-untyped-call]
    assert list(read_state_dict(tmp_path / "weights.pt")) == ["weight", "bias"]


def test_another_archive_is_not_called_damaged(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("arr_0.txt", b"x")
    with pytest.raises(ModelError, match="is a zip archive without a checkpoint"):
        read_state_dict(tmp_path / "a.pt")


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


FLATBUFFER = b"\x1c\0\0\0TFL3" + bytes(64)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x08\x08\x12\x07pytorch\x1a\x052.4.0" + bytes(99), "is an ONNX network, not a checkpoint; .*--backend onnx"),
        (b"\x08\x0a:\xff\x01" + bytes(99), "is an ONNX network"),
        (b"GGUF\3\0\0\0" + bytes(99), "is a GGUF file, of llama.cpp, not a checkpoint; pass the PyTorch file"),
        (FLATBUFFER, "is a TensorFlow Lite network"),
        (b"ftrt\0\0\1" + bytes(99), "is a TensorRT engine, not a checkpoint; .*one kind of GPU only"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file, of Keras or TensorFlow"),
        (b'<?xml version="1.0"?>\n<net name="midas" version="11">', "is an OpenVINO network, .*--backend openvino"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page, not weights"),
        (b"\x1f\x8b\x08" + bytes(99), "is a compressed archive, not a checkpoint; unpack it"),
        (b"a.pth" + bytes(252) + b"ustar" + bytes(99), "is a compressed archive"),
        (b"Entry not found", "is text, not weights: 'Entry not found'; download the file itself"),
        (b'{"weight_map": {}}\n', "is text, not weights"),
        (b"\x08", "is not a checkpoint"),
    ],
)
def test_other_kinds_of_file_are_called_what_they_are(
    tmp_path: Path, suffix: str, content: bytes, message: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.onnx", "is an ONNX network"),
        ("a.engine", "is a TensorRT engine"),
        ("a.mlmodel", "is a Core ML network"),
        ("a.tflite", "is a TensorFlow Lite network"),
    ],
)
def test_a_suffix_names_a_kind_that_the_content_does_not_show(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"\x0f\x0e" * 50)
    with pytest.raises(ModelError, match=message):
        read_state_dict(tmp_path / name)
    torch.save(tensors(), tmp_path / name)  # the content counts
    assert_read(tmp_path / name)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("weights/a.pth", "is a zip archive with weights/a.pth in it, not a checkpoint; unpack it"),
        ("b.onnx", "is a zip archive with b.onnx, an ONNX network, in it"),
        ("Data/com.apple.CoreML/model.mlmodel", "is a Core ML network"),
        ("model.weights.h5", "is a network of Keras"),
        ("arr_0.npy", "is an archive of NumPy, .*safetensors.numpy.save_file"),
        ("p/archive_format", r"a network exported by torch.export\); .*torch.export.load\('a.pt'\)"),
        ("serialized_exported_program.json", "a network exported by torch.export"),
        ("notes.txt", "is a zip archive without a checkpoint"),
    ],
)
def test_an_archive_is_called_what_is_in_it(tmp_path: Path, inside: str, message: str) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr(inside, b"x")
    with pytest.raises(ModelError, match=message):
        read_state_dict(tmp_path / "a.pt")


def test_a_core_ml_package_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "Depth.mlpackage").mkdir()
    with pytest.raises(ModelError, match="is a Core ML network, not a checkpoint"):
        find_file(STARTER, tmp_path / "Depth.mlpackage")


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


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        tuple,
        lambda x: {"shadow_params": x, "decay": 0.999, "collected_params": None},
        lambda x: {"model": [x], "epoch": 3},
        lambda x: {"shadow_params": x, "optimizer": OPTIMIZER},
    ],
)
@pytest.mark.parametrize("count", [2, 40])
def test_tensors_without_names_are_called_that(tmp_path: Path, wrap: Callable[..., object], count: int) -> None:
    torch.save(wrap([torch.zeros(2)] * count), tmp_path / "a.pt")
    with pytest.raises(ModelError, match="holds its tensors in a list, without names"):
        read_state_dict(tmp_path / "a.pt")


def test_a_list_that_contains_itself_is_read_to_the_end(tmp_path: Path) -> None:
    content: list[object] = [3]
    content += [content] * 15
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="contains a list, not a state dict"):
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
