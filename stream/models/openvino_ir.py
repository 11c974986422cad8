"""Models in OpenVINO's intermediate representation (IR), run by OpenVINO on the CPU; needs the `openvino` extra.

Invariant: such a model behaves like any other network: float32 in, float32 out.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stream.errors import MissingExtraError, ModelError


def imported(*, where: str) -> Any:
    """Import the package `openvino`, without its telemetry, see `telemetry`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        hint = "pip install 'depthstream[openvino]'"
        raise MissingExtraError("needs OpenVINO, which is not installed", where=where, hint=hint) from error
    return openvino


class OpenVinoIr(nn.Module):
    """A compiled IR with one input and one output.

    Args:
        xml, binary: the two files of the IR.
        size_hw: the required input size.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ModelError: the files are not an IR, or its inputs or outputs differ.
    """

    def __init__(self, xml: Path, binary: Path, *, size_hw: tuple[int, int]) -> None:
        super().__init__()
        openvino = imported(where=str(xml))
        try:
            core = openvino.Core()
            # By default OpenVINO uses bf16 on CPUs that support it, with errors of 0.09 standard deviations.
            options = {"INFERENCE_PRECISION_HINT": "f32"}
            self._model: Any = core.compile_model(core.read_model(str(xml), str(binary)), "CPU", options)
        except RuntimeError as error:  # OpenVINO raises only this kind
            first = str(error).strip().splitlines()[-1]
            raise ModelError(f"OpenVINO cannot read this model: {first}", where=str(xml)) from error
        shapes, outputs = [list(port.partial_shape) for port in self._model.inputs], len(self._model.outputs)
        wanted = ["3", *map(str, size_hw)]
        if outputs != 1 or len(shapes) != 1 or [str(side) for side in shapes[0][1:]] != wanted:
            raise ModelError(
                f"this model has inputs {shapes} and {outputs} outputs",
                where=str(xml),
                allowed=f"one input N×3×{size_hw[0]}×{size_hw[1]} and one output",
            )

    def forward(self, x: Tensor) -> Tensor:
        """float32 N×3×H×W → float32 N×H×W, one picture at a time, because the published IR takes one."""
        maps = [torch.from_numpy(self._model([one[None].contiguous().numpy()])[0]) for one in x.float().cpu()]
        return torch.cat(maps).reshape(x.shape[0], *x.shape[-2:])
