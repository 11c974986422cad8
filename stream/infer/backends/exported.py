"""Networks exported once per input size and executed by another runtime.

Invariant: an export is used only if its outputs for a test image agree with torch's within the precision's tolerance.
At most `MAX_SIZES` input sizes are held; frames of other sizes run in torch, with a note and a counter.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional as F

from stream.errors import ModelError
from stream.infer.backends import Backend, InputShape
from stream.infer.backends.cache import Entry, ModelCache
from stream.models.registry import LoadedModel
from stream.version import __version__

MAX_SIZES = 4
"""Input shapes that a backend holds, batch included; torch.compile gives up after 8."""
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02, "int8": 0.2}
"""Largest error of an export against torch in fp32, in standard deviations of the test image's depth: the largest
difference for fp32, otherwise the root mean square."""
_LEAST_UNIT = 0.1
"""Further outputs are scores, confidences and angles, numbers of about 1 that may be the same everywhere: the error of
one is measured in its standard deviations, but in no smaller unit than this."""

Call = Callable[[Tensor], tuple[Tensor, ...]]


class UnusableError(ModelError):
    """A runtime rejects undamaged files, because another version or machine wrote them."""


class Runtime(Protocol):
    """Writes exported programs to files and loads such files as callables.

    Attributes:
        name: one of `backends.NAMES`.
        precision: what it computes in.
        device, dtype, memory_format: required of inputs, see `Backend`.
        pads: True if calls take exactly `batch` images, so that smaller groups are padded; False if they take one.
        facts: what its files depend on besides model, size and precision: versions, providers.
    """

    name: str
    precision: str
    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format
    pads: bool
    facts: dict[str, object]

    def source(self, model: LoadedModel) -> nn.Module:
        """The network to export."""
        ...

    def make(self, program: ExportedProgram, folder: Path) -> None:
        """Write the files of `program` into `folder`."""
        ...

    def load(self, folder: Path) -> Call:
        """Load what `make` has written; returns a callable n×3×H×W → the network's outputs, n×… each.

        Raises:
            UnusableError: the runtime rejects the files.
            ModelError: the runtime cannot start.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference from torch in fp32, in standard deviations of torch's output: the largest and the root mean square; of
    several outputs, those of the worst."""

    largest: float
    rms: float


class Exported:
    """A backend that executes exports of a network in another runtime.

    Args:
        model: the model to execute.
        runtime: what executes it.
        eager: makes the backend for sizes beyond `MAX_SIZES`, when the first such frame arrives.
        batch: see `Backend`.
        cache: where the exported files are kept.
        samples: returns float32 inputs of a shape (n, height, width) to check an export with; default: `test_input`.
    """

    def __init__(
        self,
        model: LoadedModel,
        runtime: Runtime,
        *,
        eager: Callable[[], Backend],
        batch: int,
        cache: ModelCache,
        samples: Callable[[InputShape], Sequence[Tensor]] | None = None,
    ) -> None:
        self.model, self.runtime, self.batch = model, runtime, batch
        self.name, self.dtype, self.memory_format = runtime.name, runtime.dtype, runtime.memory_format
        self.notes: list[str] = []
        self.counters: Counter[str] = Counter()
        self.differences: dict[InputShape, Difference] = {}
        """Measured difference of each exported shape (n, height, width)."""
        self._make_eager, self._cache = eager, cache
        self._samples = samples or (lambda shape: [test_input(shape)])
        self._eager: Backend | None = None
        self._calls: dict[InputShape, Call] = {}

    def __call__(self, x: Tensor, *_aspect: float) -> Tensor | tuple[Tensor, ...]:
        """See `Backend`."""
        shape = self.shape((int(x.shape[-2]), int(x.shape[-1])))
        count, call = shape[0], self._call_for(shape)
        if call is None:
            self.counters["eager_frames"] += len(x)
            return self._torch(x)
        parts = [[y[: len(part)] for y in call(_padded(part, count))] for part in torch.split(x, count)]
        outputs = tuple(torch.cat(of_all) for of_all in zip(*parts, strict=True))
        return outputs if len(outputs) > 1 else outputs[0]

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """See `Backend`: export the network for this size, or load an earlier export.

        Raises:
            ModelError: the runtime cannot execute the network, or its output differs too much.
        """
        self._call_for(self.shape(size_hw))

    def _call_for(self, shape: InputShape) -> Call | None:
        """The export for a shape (n, height, width), made if necessary; None if `MAX_SIZES` others are held.

        Raises:
            ModelError: the runtime cannot execute the network, or its output differs too much.
        """
        if shape not in self._calls:
            if len(self._calls) >= MAX_SIZES:
                held = ", ".join(f"{width}×{height}" for _, height, width in self._calls)
                self._note(f"{self.name} holds network inputs of {held}; frames of other sizes run in torch")
                return None
            self._calls[shape] = self._loaded(shape)
        return self._calls[shape]

    def _torch(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self._eager is None:
            self._eager = self._make_eager()
        return self._eager(x.to(self._eager.dtype, memory_format=self._eager.memory_format))

    def load(self, size_hw: tuple[int, int], *, cache: ModelCache | None = None) -> bool:
        """Load an earlier export for this size; False if there is none.

        Args:
            cache: where it is, if not in the backend's own.

        Raises:
            ModelError: the runtime cannot start, or rejects the files.
        """
        shape = self.shape(size_hw)
        if shape not in self._calls:
            entry = (cache or self._cache).find(self.key(shape))
            if entry is None:
                return False
            with torch.inference_mode(False), torch.no_grad():
                self._calls[shape] = self._described(self.runtime.load(entry.folder), shape, entry)
        return True

    def key(self, shape: InputShape) -> Mapping[str, object]:
        """Everything that an export for a shape (n, height, width) depends on."""
        return {
            "program": __version__,
            "torch": torch.__version__,
            "model": self.model.spec.name,
            "weights": self.model.weights_sha256,
            "max_depth_m": self.model.spec.max_depth_m,
            "backend": self.name,
            "precision": self.runtime.precision,
            "size": list(shape),
            **self.runtime.facts,
        }

    def shape(self, size_hw: tuple[int, int]) -> InputShape:
        """What is exported for inputs of (height, width)."""
        return (self.batch if self.runtime.pads else 1, *size_hw)

    def _loaded(self, shape: InputShape) -> Call:
        key = self.key(shape)

        def make(folder: Path) -> Mapping[str, Any]:
            self.runtime.make(exported(self.runtime, self.model, shape), folder)
            difference = self._checked(self.runtime.load(folder), shape)
            return {"largest": difference.largest, "rms": difference.rms}

        # Neither torch's exporter nor the runtimes support inference mode.
        with torch.inference_mode(False), torch.no_grad():
            entry = self._cache.entry(key, make)
            try:
                call = self.runtime.load(entry.folder)
            except UnusableError:  # written by a version or on a machine that the key does not distinguish
                if entry.is_new:
                    raise
                self._cache.discard(entry)
                entry = self._cache.entry(key, make)
                call = self.runtime.load(entry.folder)
            return self._described(call, shape, entry)

    def _described(self, call: Call, shape: InputShape, entry: Entry) -> Call:
        """The call, with what is known of its file and its error noted."""
        self.model.remark()
        difference = self.differences[shape] = Difference(**entry.facts)
        if self.runtime.precision != "fp32":
            where = f"{self.name} in {self.runtime.precision} at {shape[2]}×{shape[1]}"
            self._note(f"{where}: RMS error against fp32 is {difference.rms:.1%} of a standard deviation")
        return call

    def _checked(self, call: Call, shape: InputShape) -> Difference:
        """Measure how far a new export is from torch.

        Raises:
            ModelError: farther than the tolerance.
        """
        pairs = []
        for x in self._samples(shape):
            wanted = as_tuple(self.model.network(x))
            got = call(x.to(self.runtime.device, self.dtype, memory_format=self.memory_format))
            pairs.append([(y.float().cpu(), z) for y, z in zip(got, wanted, strict=True)])
        by_output = enumerate(zip(*pairs, strict=True))
        each = [_difference(of_one, least=_LEAST_UNIT if number else 0.0) for number, of_one in by_output]
        # torch's maximum propagates NaN, Python's does not
        largest, rms = torch.tensor(each, dtype=torch.float64).amax(0).tolist()
        difference = Difference(largest=largest, rms=rms)
        precision = self.runtime.precision
        limit, found = TOLERANCE[precision], difference.largest if precision == "fp32" else difference.rms
        if not found <= limit:
            what = f"{self.name} in {precision} differs from torch by {found:.2g} standard deviations"
            raise ModelError(what, where=self.model.spec.name, allowed=f"{limit:g}", hint="use --backend torch")
        return difference

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    """The outputs of a network, of which some give one and some several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _difference(pairs: Sequence[tuple[Tensor, Tensor]], *, least: float) -> tuple[float, float]:
    """The largest and the root mean square difference of an output and the wanted one for some images, in standard
    deviations or in `least`, whichever is larger."""
    largest = torch.stack([(got - wanted).abs().max() for got, wanted in pairs]).max()
    squares = torch.stack([(got - wanted).square().mean() for got, wanted in pairs]).mean()
    deviation = math.sqrt(torch.stack([wanted.var() for _, wanted in pairs]).mean())
    unit = max(deviation, least) or 1.0
    return float(largest) / unit, math.sqrt(squares) / unit


def exported(runtime: Runtime, model: LoadedModel, shape: InputShape) -> ExportedProgram:
    """Export the network with torch's exporter, for inputs of exactly this shape.

    Raises:
        ModelError: the network cannot be exported.
    """
    network = runtime.source(model)
    x = test_input(shape).to(runtime.device, runtime.dtype, memory_format=runtime.memory_format)
    network(x)  # fills the tables that depend on the size, so that they become constants of the program
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of its own internals
            return torch.export.export(network, (x,), strict=False)
    except Exception as error:  # the exporter's exceptions have no narrower common base
        what = f"cannot be exported for {runtime.name}: {str(error).strip().splitlines()[0]}"
        raise ModelError(what, where=model.spec.name, hint="use --backend torch") from error


def test_input(shape: InputShape) -> Tensor:
    """A deterministic test image with large and small structures, float32 N×3×H×W in the range of normalised images."""
    count, height, width = shape
    generator = torch.Generator().manual_seed(height * 10_007 + width)
    x = torch.zeros(count, 3, height, width)
    for cells, weight in ((4, 0.8), (12, 0.4), (36, 0.2)):
        shapes = torch.randn(count, 3, cells, cells, generator=generator)
        x += weight * F.interpolate(shapes, (height, width), mode="bicubic")
    return x.clamp_(-2.1, 2.6)


def _padded(x: Tensor, count: int) -> Tensor:
    """`x` padded to `count` images by repeating the last one."""
    missing = count - len(x)
    return x if not missing else torch.cat([x, x[-1:].expand(missing, -1, -1, -1)])
