"""The compiled functions that training uses give torch's numbers, and several workers agree."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import SameConv2d
from tests.support.starter_scripts import needs_compiler

import kernels  # isort: skip
import team  # isort: skip

pytestmark = pytest.mark.slow  # compiling takes half a minute


def picture(channels: int, height: int, width: int) -> Tensor:
    torch.manual_seed(channels)
    return (torch.randn(3, channels, height, width) + 0.5).contiguous(memory_format=torch.channels_last)


def gradients(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradients of the input and of every parameter."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    y = module(x)
    slope = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.dtype)
    y.backward(slope)
    return y.detach(), x.grad, *(parameter.grad for parameter in module.parameters())


def assert_close(ours: tuple[Any, ...], theirs: tuple[Any, ...], tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a.float() - b.float()).abs().max() <= tolerance * b.float().abs().max()


CONVOLUTIONS = [
    (SameConv2d, 16, 3, 1, (7, 9)),
    (SameConv2d, 24, 5, 1, (5, 6)),
    (SameConv2d, 40, 3, 2, (8, 10)),  # SAME: the odd row of zeros is below
    (SameConv2d, 32, 5, 2, (8, 6)),
    (SameConv2d, 8, 5, 2, (7, 3)),
    (nn.Conv2d, 24, 5, 1, (3, 2)),
    (nn.Conv2d, 13, 3, 1, (4, 11)),
]


@needs_compiler
@pytest.mark.parametrize(("kind", "channels", "kernel", "stride", "size"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_depthwise_convolutions_equal_torchs(
    kind: Any, channels: int, kernel: int, stride: int, size: tuple[int, int], bias: bool
) -> None:
    padding = {} if kind is SameConv2d else {"padding": kernel // 2}
    module = kind(channels, channels, kernel, stride=stride, groups=channels, bias=bias, **padding)
    x = picture(channels, *size)
    theirs = gradients(module, x)
    kernels.use_compiled(module)
    assert_close(gradients(module, x), theirs, 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = gradients(module, x.bfloat16())
    assert rough[0].dtype == torch.bfloat16
    assert_close(rough, theirs, 0.02)


@needs_compiler
@pytest.mark.parametrize("channels", [16, 24, 96])
def test_batch_norms_equal_torchs_in_training_and_after(channels: int) -> None:
    ours, theirs = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
    with torch.no_grad():
        for module in (ours, theirs):
            module.weight.copy_(torch.linspace(0.5, 2, channels))
            module.bias.copy_(torch.linspace(-1, 1, channels))
    kernels.use_compiled(ours)
    x = picture(channels, 16, 24)
    assert_close(gradients(ours, x), gradients(theirs, x), 1e-4)
    assert_close((ours.running_mean, ours.running_var), (theirs.running_mean, theirs.running_var), 1e-5)
    assert_close(gradients(ours, x.bfloat16()), gradients(theirs, x), 0.02)
    ours.eval(), theirs.eval()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu6_equals_torchs_wherever_it_is_called(dtype: torch.dtype) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu6 = nn.ReLU6(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu6(x * 3) + F.relu6(x * 5, inplace=True)

    x = picture(16, 5, 6).to(dtype)
    theirs = gradients(Both(), x)
    with kernels.CompiledRelu6():
        ours = gradients(Both(), x)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@needs_compiler
def test_a_batch_norm_of_a_large_mean_keeps_its_variance() -> None:
    ours, theirs = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
    kernels.use_compiled(ours)
    x = (picture(16, 16, 24) + 500).contiguous(memory_format=torch.channels_last)
    exact = x.double().var((0, 2, 3), correction=0).float()
    variance = kernels.compiled().norm(x, ours.weight.detach(), ours.bias.detach(), ours.eps)[2]
    torch.testing.assert_close(variance, exact, rtol=1e-3, atol=0)
    assert_close((ours(x),), (theirs(x),), 0.01)


def test_other_convolutions_are_refused() -> None:
    for module in (nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 3, padding=1, groups=8)):
        with pytest.raises(ValueError, match="not what the compiled functions do"):
            kernels.use_compiled(module)


@needs_compiler
def test_what_the_kernels_cannot_take_is_refused() -> None:
    with pytest.raises(RuntimeError, match="channels last"):
        kernels.compiled().depthwise(torch.zeros(1, 16, 4, 4), torch.zeros(9, 16), None, 1, 1, 1, 4, 4)
    with pytest.raises(RuntimeError, match="3x3 or 5x5"):
        kernels.compiled().depthwise(picture(16, 4, 4), torch.zeros(49, 16), None, 1, 3, 3, 4, 4)


def share(member: team.Team, folder: Path) -> None:
    """What one member of a team does in the test below."""
    values = [torch.tensor([[1.0, 2.0]]) * (member.rank + 1), torch.tensor([10.0 * member.rank])]
    member.mean(values)
    total = member.total(torch.tensor([float(member.rank), 1.0]))
    alike = [member.are_alike(torch.tensor([value, 1.0])) for value in (3.0, float(member.rank))]
    torch.save([*values, total, torch.tensor(alike)], folder / f"{member.rank}.pt")


def test_a_teams_members_all_get_the_mean_and_the_sum(tmp_path: Path) -> None:
    before = dict(os.environ)
    team.gather(3, 8, share, tmp_path)
    assert dict(os.environ) == before
    for rank in range(3):
        first, second, total, alike = torch.load(tmp_path / f"{rank}.pt")
        assert alike.tolist() == [True, False]
        assert first.tolist() == [[2.0, 4.0]]
        assert second.tolist() == [10.0]
        assert total.tolist() == [3.0, 3.0]


def test_a_single_member_works_in_this_process(tmp_path: Path) -> None:
    team.gather(1, 8, share, tmp_path)
    assert torch.load(tmp_path / "0.pt")[2].tolist() == [0.0, 1.0]


def fail(member: team.Team, folder: Path) -> None:
    if member.rank == 1:
        raise ValueError("a member that failed")
    member.total(torch.zeros(1))


def test_a_members_failure_ends_the_team(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="a member that failed"):
        team.gather(2, 8, fail, tmp_path)
