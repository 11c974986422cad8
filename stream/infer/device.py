"""Which device and number format to compute on.

Invariant: `auto` always resolves to something that works; anything named is used or refused, never replaced.
"""

import math
import os
import time
from collections.abc import Sequence
from functools import cache

import torch

from stream.errors import UsageError
from stream.machine import free_memory_bytes as host_memory_bytes
from stream.models.spec import ModelSpec

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
"""Of network inputs; int8 models quantise theirs themselves."""
LIGHT_PARAMETERS_M = 10
"""Up to this many million parameters a model runs about as fast as video is decoded and encoded."""


def resolve_device(text: str, spec: ModelSpec) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps` → a device that is there and that the model runs on.

    Raises:
        UsageError: it is none of these, not available, or not for this model.
    """
    device = _available_device(text if text != "auto" or len(spec.devices) > 1 else spec.devices[0])
    if device.type not in spec.devices:
        raise UsageError(f"{spec.name} does not run on {text}", where="--device", allowed=", ".join(spec.devices))
    return device


def _available_device(text: str) -> torch.device:
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, colon, number = text.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not number.isdigit())):
        raise UsageError(f"unknown device {text!r}", where="--device", allowed="auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            what = f"this machine has {count} CUDA device{'s' if count != 1 else ''}"
            raise UsageError(f"{text}: {what}", where="--device", hint="use --device auto or cpu")
        return torch.device("cuda", int(number) if number else torch.cuda.current_device())
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("mps is not available here", where="--device", hint="use --device auto or cpu")
    return torch.device(kind)


def free_memory_bytes(device: torch.device) -> int | None:
    """What models may still take there; None where nothing tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return host_memory_bytes()


def resolve_precision(
    text: str, device: torch.device, spec: ModelSpec, *, allowed: Sequence[str] = PRECISIONS, exact: bool = False
) -> str:
    """`auto` or one of `PRECISIONS` → a precision that is safe for the model and works on the device.

    `auto` on a GPU is fp16 where that is safe for the model, else bf16. On a CPU it is bf16 where the model's rows say
    that it holds (`spec.bf16_on_cpu`) and this processor is faster with it, else fp32.

    Args:
        allowed: what the backend takes.
        exact: `auto` on a CPU is fp32: the numbers themselves are wanted, and bf16 moves them by 1 to 3 % of their
            deviation. (fp16, a GPU's, moves them ten times less.)

    Raises:
        UsageError: the device, the model or the backend does not take it.
    """
    if text == "auto":
        if device.type == "cpu":
            wanted = ["bf16"] if not exact and spec.bf16_on_cpu and "bf16" in allowed and bf16_is_faster() else []
        else:
            wanted = ["fp16", "bf16"]
        safe = [name for name in wanted if name in spec.precisions and name in allowed]
        return next((name for name in safe if _device_takes(name, device)), "fp32")
    if text not in PRECISIONS:
        raise UsageError(f"unknown precision {text!r}", where="--precision", allowed=", ".join(("auto", *PRECISIONS)))
    if text not in allowed:
        raise UsageError(f"the backend does not compute in {text}", where="--precision", allowed=", ".join(allowed))
    if text not in (*spec.precisions, "int8"):
        raise UsageError(f"{spec.name} is not safe in {text}", where="--precision", allowed=", ".join(spec.precisions))
    if not _device_takes(text, device):
        raise UsageError(f"{text} does not work on {device.type}", where="--precision", hint="use auto")
    return text


@cache
def bf16_is_faster() -> bool:
    """True if this processor has bf16 instructions, and torch's convolutions are faster with them by a quarter.

    Measured once in a process, in 20 ms: the instructions alone tell nothing (AVX512-BF16 may run at half rate).
    """
    if not _has_bf16_instructions():
        return False
    x = torch.ones(1, 128, 48, 48).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(128, 128, 3, 3).contiguous(memory_format=torch.channels_last)

    def seconds(dtype: torch.dtype) -> float:
        a, b, best = x.to(dtype), weight.to(dtype), math.inf
        for _ in range(4):
            start = time.perf_counter()
            torch.nn.functional.conv2d(a, b, padding=1)
            best = min(best, time.perf_counter() - start)
        return best

    from stream.infer.executor import without_pool

    with torch.inference_mode(), without_pool():
        return seconds(torch.bfloat16) < 0.8 * seconds(torch.float32)


def _has_bf16_instructions() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):  # torch 2.10
        known = torch.cpu.get_capabilities()
        return any(bool(known.get(name)) for name in ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "arm_bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())


def resolve_threads(threads: int | None, device: torch.device, spec: ModelSpec) -> int:
    """CPU threads for torch; None chooses.

    A light model keeps up with decoding and encoding, which need the cores as much as it does; torch's threads wait for
    one another at every layer, so one that shares its core stalls all: on two cores with something else running, two
    threads took 75 to 900 ms a frame, one thread 26. It leaves a core free. All else takes every core.
    """
    if threads is not None:
        return threads
    cores = _usable_cores()
    if device.type != "cpu":
        return torch.get_num_threads()
    return max(1, cores - 1) if spec.parameters_m <= LIGHT_PARAMETERS_M else cores


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device_takes(precision: str, device: torch.device) -> bool:
    if precision == "int8":
        return device.type == "cpu"
    if precision == "fp16":
        return device.type != "cpu"  # torch computes fp16 convolutions on a CPU, but far slower than fp32
    if precision == "bf16" and device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return True
