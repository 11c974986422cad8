"""OpenVINO on the CPU, extra `openvino`.

Networks come through torch's exporter: the position tables, resampled for the size, become constants of the program.
OpenVINO's default precision, bf16 on processors that have it, made straightforward conversions wrong by 0.1 standard
deviations.
Invariant: the precision is always set explicitly, never left to OpenVINO.
"""

import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from stream.infer.backends import int8
from stream.infer.backends.exported import Call, UnusableError
from stream.infer.backends.int8 import CalibrationSet
from stream.infer.backends.quiet import root_logger_kept
from stream.models.openvino_ir import imported
from stream.models.registry import LoadedModel

_FILE = "model.xml"
_HINTS = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("f32", "bf16")}
"""OpenVINO's precision of floating-point layers. For int8 models both are timed and the faster is used; which one that
is depends on the model: f32 and bf16 take 9 and 26 ms for `starter`, 290 and 189 ms for `depth_anything_v2_vits`."""


class OpenVino:
    """See `exported.Runtime`.

    Args:
        precision: `fp32`, `bf16` or `int8`.
        threads: CPU threads.
        calibration_set: for int8.

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
        calibration_set: CalibrationSet | None = None,
    ) -> None:
        self._openvino = imported(where="--backend openvino")
        self.precision, self._calibration_set = precision, calibration_set
        self.facts: dict[str, object] = {"openvino": self._openvino.__version__}
        if precision == "int8" and calibration_set is not None:
            self.facts |= {"nncf": int8.imported().__version__, "calibrated_with": calibration_set.digest}
        self._threads = threads

    def source(self, model: LoadedModel) -> nn.Module:
        """See `exported.Runtime`: the network in fp32, whatever the precision."""
        return model.network

    def make(self, program: ExportedProgram, folder: Path) -> None:
        """See `exported.Runtime`."""
        try:
            with warnings.catch_warnings(), root_logger_kept():
                warnings.simplefilter("ignore")  # the converter warns of torch's internals
                converted = self._openvino.convert_model(program)
            (example,) = program.example_inputs[0]
            count, channels, height, width = example.shape
            converted.reshape([count, channels, height, width])  # the converter leaves dimensions dynamic
            if self._calibration_set is not None:
                converted = int8.quantized(
                    converted, self._calibration_set.to_calibrate((count, height, width)), program
                )
            self._openvino.save_model(converted, str(folder / _FILE), compress_to_fp16=False)
        except _failures() as error:
            raise _rejected(error, folder) from error

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
            raise _rejected(error, folder) from error


class _Request:
    """A compiled model as a callable."""

    def __init__(self, compiled: Any) -> None:
        self.shape = tuple(compiled.inputs[0].shape)
        self._request = compiled.create_infer_request()

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """float32 n×3×H×W → n×… each."""
        outputs = self._request.infer([x.numpy()], share_inputs=True)
        return tuple(torch.from_numpy(outputs[number]) for number in range(len(outputs)))


def _seconds(call: _Request) -> float:
    """Shortest of three runs, in seconds."""
    x, best = torch.zeros(call.shape), math.inf
    for _ in range(3):
        start = time.perf_counter()
        call(x)
        best = min(best, time.perf_counter() - start)
    return best


def _failures() -> tuple[type[Exception], ...]:
    """What OpenVINO raises while it converts a network; elsewhere these are RuntimeErrors alone."""
    from openvino import frontend

    return (
        RuntimeError,
        frontend.GeneralFailure,
        frontend.InitializationFailure,
        frontend.NotImplementedFailure,
        frontend.OpConversionFailure,
        frontend.OpValidationFailure,
    )


def _rejected(error: Exception, folder: Path) -> UnusableError:
    reason = str(error).strip().splitlines()[-1]
    return UnusableError(f"OpenVINO rejects the model: {reason}", where=str(folder), hint="use --backend torch")
