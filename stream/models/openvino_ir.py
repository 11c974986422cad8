"""Models in OpenVINO's intermediate representation (IR), run by OpenVINO on the CPU; needs the `openvino` extra.

Invariant: to the rest of the program such a model is a network like any other: float32 in, float32 out.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stream.errors import MissingExtraError, ModelError


def imported(*, where: str) -> Any:
    """The package `openvino`, without the telemetry that comes with it: nobody agreed to send usage data.

    Raises:
        MissingExtraError: it is not installed.
    """
    # OpenVINO and NNCF take their own stubs where this package cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        hint = "pip install 'depthstream[openvino]'"
        raise MissingExtraError("needs OpenVINO, which is not installed", where=where, hint=hint) from error
    return openvino


class OpenVinoIr(nn.Module):
    """A compiled IR of one input and one output.

    Args:
        xml, binary: the two files of the IR.
        size_hw: the input size it must have.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ModelError: the files are no IR, or one with other inputs and outputs.
    """

    def __init__(self, xml: Path, binary: Path, *, size_hw: tuple[int, int]) -> None:
        super().__init__()
        openvino = imported(where=str(xml))
        try:
            core = openvino.Core()
            # OpenVINO would take bf16 on processors that have it: errors of 0.09 standard deviations.
            options = {"INFERENCE_PRECISION_HINT": "f32"}
            self._model: Any = core.compile_model(core.read_model(str(xml), str(binary)), "CPU", options)
        except RuntimeError as error:  # the runtime knows no other kind
            first = str(error).strip().splitlines()[-1]
            raise ModelError(f"is not a model that OpenVINO can read: {first}", where=str(xml)) from error
        shapes = [list(port.partial_shape) for port in self._model.inputs]
        if (
            len(self._model.outputs) != 1
            or len(shapes) != 1
            or [str(n) for n in shapes[0][1:]]
            != [
                "3",
                *map(str, size_hw),
            ]
        ):
            raise ModelError(
                f"takes {shapes} and gives {len(self._model.outputs)} outputs",
                where=str(xml),
                allowed=f"one input N×3×{size_hw[0]}×{size_hw[1]} and one output",
            )

    def forward(self, x: Tensor) -> Tensor:
        """float32 N×3×H×W → float32 N×H×W, one picture after the other, as the published IR takes one."""
        maps = [torch.from_numpy(self._model([one[None].contiguous().numpy()])[0]) for one in x.float().cpu()]
        return torch.cat(maps).reshape(x.shape[0], *x.shape[-2:])
