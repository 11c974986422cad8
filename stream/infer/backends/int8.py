"""Post-training quantisation with NNCF, extra `int8`: OpenVINO models in 8-bit integers, calibrated on the user's own
images.

Invariant: a model is quantised only on request, and its error on images held out from calibration is measured first.
"""

import contextlib
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from stream.errors import MissingExtraError, UsageError
from stream.frames import Frame
from stream.infer.backends import InputShape
from stream.infer.backends.quiet import errors_only

CALIBRATION_IMAGES = 32
"""Images requested of the source: three quarters for calibration, the rest for measuring the error."""


class CalibrationSet:
    """Network inputs made from the user's own images.

    Args:
        frames: the images; three of four are for calibration, the others for measuring the error. Fewer than four
            serve both purposes.
        to_input: makes a network input of a frame and the input's (height, width): float32 1×3×height×width.

    Attributes:
        digest: identifies this set of images.
        notes: messages for the user, each to be shown once.

    Raises:
        UsageError: there are no images.
    """

    def __init__(self, frames: Sequence[Frame], to_input: Callable[[Frame, tuple[int, int]], Tensor]) -> None:
        if not frames:
            raise UsageError("needs images to calibrate with", where="--precision int8", hint="use bf16 or fp32")
        self._to_input, self.notes = to_input, list[str]()
        self._used, self._held_out = [f for i, f in enumerate(frames) if i % 4 != 3], list(frames[3::4])
        if not self._held_out:
            self._held_out = self._used
            self.notes.append("int8: too few images to hold some out; the error is measured on the calibration images")
        digest = hashlib.sha256()
        for frame in frames:
            digest.update(frame.rgb.tobytes())
        self.digest = digest.hexdigest()

    def to_calibrate(self, shape: InputShape) -> list[Tensor]:
        """Inputs for calibration: float32 1×3×height×width each, for a shape (n, height, width)."""
        return self._inputs(self._used, shape)

    def to_check(self, shape: InputShape) -> list[Tensor]:
        """Inputs for measuring the error, likewise."""
        return self._inputs(self._held_out, shape)

    def _inputs(self, frames: Sequence[Frame], shape: InputShape) -> list[Tensor]:
        return [self._to_input(frame, shape[1:]) for frame in frames]


def imported() -> Any:
    """Import NNCF.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        hint = "pip install 'depthstream[int8]'"
        raise MissingExtraError("NNCF is not installed", where="--precision int8", hint=hint) from error
    return nncf


def quantized(model: Any, samples: Sequence[Tensor], program: ExportedProgram) -> Any:
    """Quantise weights and activations of an OpenVINO model to int8.

    Args:
        samples: float32 inputs made from the user's own images.
        program: what `model` was converted from; a network with attention needs another scheme.
    """
    nncf = imported()
    has_attention = any("scaled_dot_product_attention" in str(node.target) for node in program.graph.nodes)
    # NNCF's own `set_log_level` would change handlers that other code has added to its logger.
    with errors_only("nncf"), contextlib.redirect_stdout(io.StringIO()):  # it prints progress bars
        return nncf.quantize(
            model,
            nncf.Dataset([sample.numpy() for sample in samples]),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
        )
