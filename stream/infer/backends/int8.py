"""Post-training quantisation with NNCF, extra `int8`: OpenVINO models in 8-bit integers, calibrated on the user's own
pictures.

Invariant: nothing is quantised that was not asked for, and the error on pictures kept apart is measured before use.
"""

import contextlib
import hashlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stream.errors import MissingExtraError, UsageError
from stream.frames import Frame
from stream.infer.backends import Size
from stream.infer.backends.exported import Program
from stream.infer.preprocess import Preprocessor

PICTURES = 32
"""Of the source: three quarters to calibrate with, the rest to measure the error with."""


class Samples:
    """Network inputs made from the user's own pictures.

    Args:
        frames: the pictures; three of four are for calibration, the others for measuring the error. Fewer than four
            serve for both.
        preprocess: see `Preprocessor`.

    Attributes:
        digest: tells one set of pictures from another.
        notes: worth saying once.

    Raises:
        UsageError: there are none.
    """

    def __init__(self, frames: Sequence[Frame], preprocess: Preprocessor) -> None:
        if not frames:
            raise UsageError("needs pictures to calibrate with", where="--precision int8", hint="use bf16 or fp32")
        self._preprocess, self.notes = preprocess, list[str]()
        self._used, self._apart = [f for i, f in enumerate(frames) if i % 4 != 3], list(frames[3::4])
        if not self._apart:
            self._apart = self._used
            self.notes.append("int8: too few pictures to measure the error on others than it is calibrated with")
        digest = hashlib.sha256()
        for frame in frames:
            digest.update(frame.rgb.tobytes())
        self.digest = digest.hexdigest()

    def to_calibrate(self, size: Size) -> list[Tensor]:
        """float32 1×3×height×width each, for a size (n, height, width)."""
        return self._inputs(self._used, size)

    def to_check(self, size: Size) -> list[Tensor]:
        """Likewise, of the pictures kept apart."""
        return self._inputs(self._apart, size)

    def _inputs(self, frames: Sequence[Frame], size: Size) -> list[Tensor]:
        return [
            self._preprocess(torch.tensor(frame.rgb), size[1:], torch.float32, torch.contiguous_format)
            for frame in frames
        ]


def imported() -> Any:
    """The package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        hint = "pip install 'depthstream[int8]'"
        raise MissingExtraError("NNCF is not installed", where="--precision int8", hint=hint) from error
    return nncf


def quantized(model: Any, samples: Sequence[Tensor], program: Program) -> Any:
    """An OpenVINO model with weights and activations in int8.

    Args:
        samples: float32 inputs, the user's own.
        program: what `model` was converted from; attention asks for another scheme.
    """
    nncf = imported()
    nncf.set_log_level(40)  # logging.ERROR: NNCF tells its progress otherwise
    has_attention = any("scaled_dot_product_attention" in str(node.target) for node in program.graph.nodes)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset([sample.numpy() for sample in samples]),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
        )
