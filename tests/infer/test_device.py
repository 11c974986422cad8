"""Devices, precisions and threads: what `auto` chooses, and what is refused."""

from dataclasses import replace

import pytest
import torch

from stream.errors import UsageError
from stream.infer import device as module
from stream.infer.device import resolve_device, resolve_precision, resolve_threads
from tests.support.tiny_model import SPEC

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_devices() -> None:
    assert resolve_device("cpu", SPEC) == CPU
    assert resolve_device("auto", SPEC).type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cpu:0", "cuda:-1", "", "cuda:"])
def test_an_unknown_device_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_device(text, SPEC)
    assert str(caught.value).startswith("--device: ")


@pytest.mark.parametrize("text", ["cuda:99", "mps"])
def test_an_absent_device_is_refused(text: str) -> None:
    if text == "mps" and torch.backends.mps.is_available():
        return
    with pytest.raises(UsageError, match="use --device auto or cpu"):
        resolve_device(text, SPEC)


def test_a_model_of_one_device_gets_it_or_refuses_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    only_cpu = replace(SPEC, devices=("cpu",))
    assert resolve_device("auto", only_cpu) == CPU
    with pytest.raises(UsageError, match=r"tiny does not run on cuda:0 \(allowed: cpu\)"):
        resolve_device("cuda:0", only_cpu)


def test_auto_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert resolve_precision("auto", CPU, SPEC) == "fp32"
    assert resolve_precision("auto", GPU, SPEC) == "fp16"
    assert resolve_precision("auto", GPU, replace(SPEC, precisions=("fp32", "bf16"))) == "fp32"
    assert resolve_precision("auto", GPU, replace(SPEC, precisions=("fp32",))) == "fp32"


@pytest.mark.parametrize(
    ("precision", "spec", "message"),
    [
        ("fp8", SPEC, r"unknown precision 'fp8' \(allowed: auto, fp32, bf16, fp16, int8\)"),
        ("fp16", SPEC, "fp16 does not work on cpu"),
        ("bf16", replace(SPEC, precisions=("fp32", "fp16")), r"tiny is not safe in bf16 \(allowed: fp32, fp16\)"),
    ],
)
def test_a_precision_that_does_not_work_is_refused(precision: str, spec: module.ModelSpec, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_precision(precision, CPU, spec)


@pytest.mark.parametrize(("cores", "light", "heavy"), [(1, 1, 1), (2, 1, 2), (8, 7, 8)])
def test_a_light_model_leaves_a_core_free(monkeypatch: pytest.MonkeyPatch, cores: int, light: int, heavy: int) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    assert resolve_threads(None, CPU, SPEC) == light
    assert resolve_threads(None, CPU, replace(SPEC, parameters_m=300.0)) == heavy
    assert resolve_threads(3, CPU, SPEC) == 3
    assert resolve_threads(None, GPU, SPEC) == torch.get_num_threads()
