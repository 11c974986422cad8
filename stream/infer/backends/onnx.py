"""ONNX Runtime, extra `onnx`: on the CPU, or through a GPU's execution provider where one is installed.

Invariant: the chosen provider runs, or it is an error; ONNX Runtime itself would silently fall back to the CPU.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from stream.errors import MissingExtraError, ModelError, UsageError
from stream.infer.backends.eager import placed
from stream.infer.backends.exported import Call, UnusableError
from stream.infer.backends.quiet import errors_only
from stream.infer.device import DTYPES
from stream.models.registry import LoadedModel
from stream.models.telemetry import switch_off

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""Values of `--provider` besides `auto`, and ONNX Runtime's names for them."""
_DEVICES = {"cpu": ("cpu", "directml"), "cuda": ("cuda", "tensorrt"), "mps": ("coreml",)}
"""Providers for each kind of device, in the order of `auto`'s preference. torch has no device for DirectML's GPU."""
_OPSET = 18
_FILE = "model.onnx"


def imported() -> Any:
    """Import ONNX Runtime, without its telemetry, see `models.telemetry`.

    Raises:
        MissingExtraError: it, or a package that exporting needs, is not installed.
    """
    try:
        import onnx  # noqa: F401  torch's exporter needs it and onnxscript
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        hint = "pip install 'depthstream[onnx]'"
        raise MissingExtraError(f"{error.name} is not installed", where="--backend onnx", hint=hint) from error
    switch_off()  # once more: the program around this one may have imported it before
    return onnxruntime


def resolve_provider(text: str, device: torch.device, available: list[str]) -> str:
    """Resolve `auto` or a key of `PROVIDERS` to the key of a provider that is available and fits the device.

    Args:
        available: ONNX Runtime's names of the providers that this installation has.

    Raises:
        UsageError: the provider is unknown, not available, or not for the device.
    """
    fitting = _DEVICES[device.type]
    here = [name for name in fitting if PROVIDERS[name] in available]
    if text == "auto":
        if not here:
            what = f"ONNX Runtime has no provider for {device.type} here"
            raise UsageError(what, where="--backend onnx", allowed=", ".join(fitting), hint="use --device cpu")
        return here[0]
    if text not in PROVIDERS:
        raise UsageError(f"unknown provider {text!r}", where="--provider", allowed=", ".join(("auto", *PROVIDERS)))
    if text not in here:
        what = f"{text} is not for {device.type}" if text not in fitting else f"{text} is not in this ONNX Runtime"
        raise UsageError(what, where="--provider", allowed=", ".join(("auto", *here)))
    return text


class Onnx:
    """See `exported.Runtime`.

    Args:
        device: where inputs are.
        precision: `fp32`, or `fp16` on a GPU.
        threads: CPU threads.
        provider: `auto` or a key of `PROVIDERS`.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        UsageError: the provider is not available for the device.
    """

    name = "onnx"
    memory_format = torch.contiguous_format

    def __init__(self, device: torch.device, precision: str, *, threads: int, provider: str) -> None:
        self._runtime = imported()
        self.provider = resolve_provider(provider, device, self._runtime.get_available_providers())
        self.device, self.precision, self.dtype = device, precision, DTYPES[precision]
        self.pads = self.provider != "cpu"
        self.facts: dict[str, object] = {"opset": _OPSET, "onnxruntime": self._runtime.__version__}
        self.facts["provider"] = self.provider
        self._threads = threads

    def source(self, model: LoadedModel) -> nn.Module:
        """See `exported.Runtime`."""
        return placed(model.network, model.spec, self.device, self.precision)

    def make(self, program: ExportedProgram, folder: Path) -> None:
        """See `exported.Runtime`."""
        names = [f"output{number}" for number in range(len(program.graph_signature.user_outputs))]
        try:
            with errors_only("torch.onnx"), warnings.catch_warnings():  # it logs that optional packages are missing
                warnings.simplefilter("ignore")  # the exporter warns of its own internals
                torch.onnx.export(
                    program, (), str(folder / _FILE), dynamo=True, opset_version=_OPSET, external_data=True,
                    input_names=["input"], output_names=names, verbose=False,
                )  # fmt: skip
        except Exception as error:  # the exporter's exceptions have no narrower common base
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"cannot be exported to ONNX: {reason}", where=str(folder), hint="use --backend torch"
            ) from error

    def load(self, folder: Path) -> Call:
        """See `exported.Runtime`."""
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3  # errors
        wanted = PROVIDERS[self.provider]
        settings: dict[str, object] = {}
        if self.device.type == "cuda":
            settings["device_id"] = self.device.index or 0
        if self.provider == "tensorrt":
            engines = folder.parent / "tensorrt"
            engines.mkdir(exist_ok=True)
            settings |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(engines)}
            settings |= {"trt_fp16_enable": self.precision == "fp16"}
        try:
            session = self._runtime.InferenceSession(
                str(folder / _FILE), options, providers=[(wanted, settings)] if settings else [wanted]
            )
        except Exception as error:  # its exceptions have no narrower common base
            reason = str(error).strip().splitlines()[-1]
            what = f"ONNX Runtime rejects the file: {reason}"
            raise UnusableError(what, where=str(folder), hint="use --backend torch") from error
        if session.get_providers()[0] != wanted:
            what = f"ONNX Runtime could not start {wanted}"
            raise ModelError(what, where="--provider", hint="install the libraries it needs, or use --device cpu")
        return self._on_cuda(session) if self.device.type == "cuda" else self._on_host(session)

    def _on_host(self, session: Any) -> Call:
        def call(x: Tensor) -> tuple[Tensor, ...]:
            outputs = session.run(None, {"input": x.cpu().numpy()})
            return tuple(torch.from_numpy(output).to(self.device) for output in outputs)

        return call

    def _on_cuda(self, session: Any) -> Call:
        """Let the session read and write torch's memory; ONNX Runtime uses a stream of its own."""
        types = {"tensor(float16)": torch.float16, "tensor(float)": torch.float32}
        wanted = [(output.name, types[output.type], output.shape[1:]) for output in session.get_outputs()]
        kinds = {torch.float16: np.float16, torch.float32: np.float32}

        def call(x: Tensor) -> tuple[Tensor, ...]:
            x = x.contiguous()
            binding, place = session.io_binding(), ("cuda", x.device.index or 0)
            binding.bind_input("input", *place, kinds[self.dtype], tuple(x.shape), x.data_ptr())
            outputs = []
            for name, dtype, sides in wanted:
                output = torch.empty((len(x), *sides), dtype=dtype, device=x.device)
                binding.bind_output(name, *place, kinds[dtype], tuple(output.shape), output.data_ptr())
                outputs.append(output)
            torch.cuda.current_stream(x.device).synchronize()  # the input must be complete
            session.run_with_iobinding(binding)  # returns when the output is complete
            return tuple(outputs)

        return call
