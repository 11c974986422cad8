"""Depthwise convolutions, batch norms and ReLU6 for training on a CPU, many times faster than torch's.

`kernels.cpp` explains why. Needs a C++ compiler. Invariant: the numbers are torch's, up to rounding.
"""

import os
import sys
import types
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import cpp_extension

from stream.infer.device import hardware_id
from stream.models.layers import SameConv2d, same_padding

SOURCE = Path(__file__).with_suffix(".cpp")


@cache
def compiled() -> Any:
    """The compiled functions, built once for each kind of processor and kept in torch's extensions folder."""
    beside = str(Path(sys.executable).parent)  # where pip put ninja
    if beside not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] += os.pathsep + beside
    flags = ["-O3", "-march=native", "-ffast-math", "-fno-finite-math-only"]
    name = f"starter_kernels_{zlib.crc32(hardware_id(torch.device('cpu')).encode()):08x}"
    return cpp_extension.load(name, [str(SOURCE)], extra_cflags=flags)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, same: bool) -> Tensor:
        kernel = weight.shape[-1]
        # SAME padding puts the odd pixel last; elsewhere it is half the kernel on either side.
        top, left = ((same_padding(side, kernel, stride) if same else kernel - 1) // 2 for side in x.shape[-2:])
        x = x.contiguous(memory_format=torch.channels_last)
        taps = weight.detach().float().flatten(1).t().contiguous()
        ctx.save_for_backward(x, taps)
        ctx.place, ctx.biased = (stride, top, left), bias is not None
        out = [-(-side // stride) for side in x.shape[-2:]]
        return compiled().depthwise(x, taps, None if bias is None else bias.detach().float(), *ctx.place, *out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, taps = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        of_x, of_taps, of_bias = compiled().depthwise_gradients(x, taps, gradient, *ctx.place)
        kernel = round(len(taps) ** 0.5)
        of_weight = of_taps.t().reshape(-1, 1, kernel, kernel)
        return of_x, of_weight, of_bias if ctx.biased else None, None, None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, module: nn.BatchNorm2d) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        y, mean, variance, inverse = compiled().norm(x, weight.detach(), bias.detach(), module.eps)
        ctx.save_for_backward(x, weight.detach(), mean, inverse)
        each = x.numel() // x.shape[1]
        assert module.running_mean is not None
        assert module.running_var is not None
        assert module.momentum is not None
        module.running_mean.lerp_(mean, module.momentum)
        module.running_var.lerp_(variance * (each / max(1, each - 1)), module.momentum)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        return *compiled().norm_gradients(x, weight, gradient, mean, inverse), None


class _Relu6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        compiled().relu6(x)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        same = gradient.stride() == y.stride() and gradient.dtype == y.dtype
        return compiled().relu6_gradient(y, gradient if same else torch.empty_like(y).copy_(gradient))


def _depthwise(module: nn.Conv2d, x: Tensor) -> Tensor:
    out: Tensor = _Depthwise.apply(x, module.weight, module.bias, module.stride[0], isinstance(module, SameConv2d))
    return out


def _norm(module: nn.BatchNorm2d, x: Tensor) -> Tensor:
    if not module.training:
        return nn.BatchNorm2d.forward(module, x)
    out: Tensor = _Norm.apply(x, module.weight, module.bias, module)
    return out


def use_compiled(network: nn.Module) -> None:
    """Let every depthwise convolution and batch norm of `network` use the compiled functions."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = types.MethodType(_norm, module)  # type: ignore[method-assign]
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            kernel, stride, other = module.kernel_size, module.stride, (module.dilation, module.out_channels)
            padding = module.padding if isinstance(module, SameConv2d) else (kernel[0] // 2, kernel[0] // 2)
            fits = (module.padding, len({*kernel}), len({*stride}), other) == (
                padding, 1, 1, ((1, 1), module.in_channels),
            )  # fmt: skip
            if not fits:
                raise ValueError(f"{module} is not what the compiled functions do")
            module.forward = types.MethodType(_depthwise, module)  # type: ignore[method-assign]


class CompiledRelu6(TorchFunctionMode):
    """Replaces every ReLU6 by the compiled in-place one within the context."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if function is F.relu6 or (function is F.hardtanh and (named["min_val"], named["max_val"]) == (0, 6)):
            return _Relu6.apply(args[0])
        return function(*args, **named)
