"""OpenVINO on the processor, extra `openvino`.

Torch's exporter is the way in: the position tables, resampled for the size, become constants of the program. What made
plain conversions wrong by 0.1 standard deviations is OpenVINO's default precision, bf16 on processors that have it.
Invariant: the precision is always said to OpenVINO, never left to it.
"""

import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stream.infer.backends import int8
from stream.infer.backends.exported import Call, Program, UnusableError
from stream.infer.backends.int8 import Samples
from stream.models.openvino_ir import imported
from stream.models.registry import LoadedModel

_FILE = "model.xml"
_HINTS = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("f32", "bf16")}
"""Of what is computed in floats; beside int8 the faster one is taken, which depends on the model: 9 against 26 ms for
`starter`, 290 against 189 for `depth_anything_v2_vits`."""


class OpenVino:
    """See `exported.Runtime`.

    Args:
        precision: `fp32`, `bf16` or `int8`.
        threads: of the processor.
        samples: to calibrate int8 with.

    Raises:
        MissingExtraError: OpenVINO, or for int8 NNCF, is not installed.
    """

    name = "openvino"
    device = torch.device("cpu")
    dtype = torch.float32
    memory_format = torch.contiguous_format
    pads = False

    def __init__(
        self,
        precision: str,
        *,
        threads: int,
        samples: Samples | None = None,
    ) -> None:
        self._openvino = imported(where="--backend openvino")
        self.precision, self._samples = precision, samples
        self.facts: dict[str, object] = {"openvino": self._openvino.__version__}
        if precision == "int8" and samples is not None:
            self.facts |= {"nncf": int8.imported().__version__, "calibrated_with": samples.digest}
        self._threads = threads

    def source(self, model: LoadedModel) -> nn.Module:
        """See `exported.Runtime`: fp32, whatever it will compute in."""
        return model.network

    def make(self, program: Program, folder: Path) -> None:
        """See `exported.Runtime`."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the converter's, of torch's parts
                converted = self._openvino.convert_model(program)
            (example,) = program.example_inputs[0]
            count, channels, height, width = example.shape
            converted.reshape([count, channels, height, width])  # it comes with a free one
            if self._samples is not None:
                converted = int8.quantized(converted, self._samples.to_calibrate((count, height, width)), program)
            self._openvino.save_model(converted, str(folder / _FILE), compress_to_fp16=False)
        except RuntimeError as error:  # OpenVINO knows no other kind
            raise _refused(error, folder) from error

    def load(self, folder: Path) -> Call:
        """See `exported.Runtime`."""
        calls = [self._loaded(folder, hint) for hint in _HINTS[self.precision]]
        return min(calls, key=_seconds) if len(calls) > 1 else calls[0]

    def _loaded(self, folder: Path, hint: str) -> "_Request":
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._threads,
        }
        try:
            return _Request(self._openvino.Core().compile_model(str(folder / _FILE), "CPU", options))
        except RuntimeError as error:
            raise _refused(error, folder) from error


class _Request:
    """A compiled model as a call."""

    def __init__(self, compiled: Any) -> None:
        self.shape = tuple(compiled.inputs[0].shape)
        self._request = compiled.create_infer_request()

    def __call__(self, x: Tensor) -> Tensor:
        """float32 n×3×H×W → n×H×W."""
        (output,) = self._request.infer([x.numpy()], share_inputs=True).values()
        return torch.from_numpy(output).reshape(len(x), *x.shape[2:])


def _seconds(call: _Request) -> float:
    """The best of three runs."""
    x, best = torch.zeros(call.shape), math.inf
    for _ in range(3):
        start = time.perf_counter()
        call(x)
        best = min(best, time.perf_counter() - start)
    return best


def _refused(error: RuntimeError, folder: Path) -> UnusableError:
    reason = str(error).strip().splitlines()[-1]
    return UnusableError(f"OpenVINO does not take it: {reason}", where=str(folder), hint="use --backend torch")
