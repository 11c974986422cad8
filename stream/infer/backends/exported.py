"""A network exported once for each input size, and executed by another runtime.

Invariant: an exported network is used only if it gave what torch gives, on a test picture, within the runtime's
tolerance; a runtime holds at most `MAX_SIZES` input sizes, and frames of further sizes run in torch, said and counted.
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
from torch.nn import functional as F

from stream.errors import ModelError
from stream.infer.backends import Backend, Size
from stream.infer.backends.cache import ModelCache
from stream.models.registry import LoadedModel
from stream.version import __version__

MAX_SIZES = 4
"""Of the network's input, batch included; torch itself gives up after 8."""
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02, "int8": 0.2}
"""How far from torch's fp32 an export may be, in standard deviations of the test picture's depth: in fp32 anywhere,
else as root mean square."""

Program = torch.export.ExportedProgram
Call = Callable[[Tensor], Tensor]


class UnusableError(ModelError):
    """A runtime does not take files that are whole: they are of another version or machine than it is."""


class Runtime(Protocol):
    """Turns exported programs into files, and files into calls.

    Attributes:
        name: one of `backends.NAMES`.
        precision: what it computes in.
        device, dtype, memory_format: of inputs, see `Backend`.
        pads: True if calls take exactly `batch` pictures, so that a smaller group is filled up; False if they take one.
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

    def make(self, program: Program, folder: Path) -> None:
        """Write the files of `program` into `folder`."""
        ...

    def load(self, folder: Path) -> Call:
        """What `make` has written, ready to be called with n×3×H×W, giving n×H×W.

        Raises:
            UnusableError: the runtime does not take the files.
            ModelError: it cannot start.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Difference:
    """From torch in fp32, in standard deviations of its output: the largest, and the root mean square."""

    largest: float
    rms: float


class Exported:
    """A backend around a runtime.

    Args:
        model: what to execute.
        runtime: what executes it.
        eager: makes the backend for further sizes, when one comes.
        batch: see `Backend`.
        cache: of the exported files.
        samples: float32 inputs of a size (n, height, width) to check an export with; default: `picture`.
    """

    def __init__(
        self,
        model: LoadedModel,
        runtime: Runtime,
        *,
        eager: Callable[[], Backend],
        batch: int,
        cache: ModelCache,
        samples: Callable[[Size], Sequence[Tensor]] | None = None,
    ) -> None:
        self.model, self.runtime, self.batch = model, runtime, batch
        self.name, self.dtype, self.memory_format = runtime.name, runtime.dtype, runtime.memory_format
        self.notes: list[str] = []
        self.counters: Counter[str] = Counter()
        self.differences: dict[Size, Difference] = {}
        """Of each exported size (n, height, width), as measured when it was exported."""
        self._make_eager, self._cache = eager, cache
        self._samples = samples or (lambda size: [picture(size)])
        self._eager: Backend | None = None
        self._calls: dict[Size, Call] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """See `Backend`."""
        taken = self.batch if self.runtime.pads else 1
        call = self._call_for((taken, int(x.shape[-2]), int(x.shape[-1])))
        if call is None:
            self.counters["eager_frames"] += len(x)
            return self._torch(x)
        return torch.cat([call(_filled(part, taken))[: len(part)] for part in torch.split(x, taken)])

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """Export for inputs of (height, width), unless that was done; the first frame need not wait then.

        Raises:
            ModelError: the runtime cannot take the network, or computes something else.
        """
        self._call_for((self.batch if self.runtime.pads else 1, *size_hw))

    def _call_for(self, size: Size) -> Call | None:
        """What executes inputs of a size (n, height, width), made if need be; None if there are `MAX_SIZES` others.

        Raises:
            ModelError: the runtime cannot take the network, or computes something else.
        """
        if size not in self._calls:
            if len(self._calls) >= MAX_SIZES:
                held = ", ".join(f"{width}×{height}" for _, height, width in self._calls)
                self._note(f"{self.name} holds network inputs of {held}; frames of other sizes run in torch")
                return None
            self._calls[size] = self._loaded(size)
        return self._calls[size]

    def _torch(self, x: Tensor) -> Tensor:
        if self._eager is None:
            self._eager = self._make_eager()
        return self._eager(x.to(self._eager.dtype, memory_format=self._eager.memory_format))

    def _loaded(self, size: Size) -> Call:
        key = {
            "program": __version__,
            "torch": torch.__version__,
            "model": self.model.spec.name,
            "weights": self.model.weights_sha256,
            "backend": self.name,
            "precision": self.runtime.precision,
            "size": list(size),
            **self.runtime.facts,
        }

        def make(folder: Path) -> Mapping[str, Any]:
            self.runtime.make(exported(self.runtime, self.model, size), folder)
            difference = self._checked(self.runtime.load(folder), size)
            return {"largest": difference.largest, "rms": difference.rms}

        # Neither torch's exporter nor the runtimes know inference mode.
        with torch.inference_mode(False), torch.no_grad():
            entry = self._cache.entry(key, make)
            try:
                call = self.runtime.load(entry.folder)
            except UnusableError:  # of another version or machine than the key could tell
                if entry.is_new:
                    raise
                self._cache.discard(entry)
                entry = self._cache.entry(key, make)
                call = self.runtime.load(entry.folder)
            difference = self.differences[size] = Difference(**entry.facts)
            if self.runtime.precision != "fp32":
                where = f"{self.name} in {self.runtime.precision} at {size[2]}×{size[1]}"
                self._note(f"{where}: {difference.rms:.1%} of a standard deviation off fp32, root mean square")
            return call

    def _checked(self, call: Call, size: Size) -> Difference:
        """How far a fresh export is from torch.

        Raises:
            ModelError: beyond the tolerance.
        """
        largest, squares, variances = [], [], []
        for x in self._samples(size):
            wanted = self.model.network(x)
            got = call(x.to(self.runtime.device, self.dtype, memory_format=self.memory_format)).float().cpu()
            largest.append((got - wanted).abs().max())
            squares.append((got - wanted).square().mean())
            variances.append(wanted.var())
        deviation = math.sqrt(torch.stack(variances).mean()) or 1.0
        difference = Difference(  # torch's maximum of what is not a number is no number either
            largest=float(torch.stack(largest).max()) / deviation,
            rms=math.sqrt(torch.stack(squares).mean()) / deviation,
        )
        precision = self.runtime.precision
        limit, found = TOLERANCE[precision], difference.largest if precision == "fp32" else difference.rms
        if not found <= limit:
            what = f"{self.name} in {precision} is off by {found:.2g} standard deviations"
            raise ModelError(what, where=self.model.spec.name, allowed=f"{limit:g}", hint="use --backend torch")
        return difference

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def exported(runtime: Runtime, model: LoadedModel, size: Size) -> Program:
    """The network as torch's exporter gives it, for inputs of exactly this size.

    Raises:
        ModelError: it cannot be exported.
    """
    network = runtime.source(model)
    x = picture(size).to(runtime.device, runtime.dtype, memory_format=runtime.memory_format)
    network(x)  # fills the tables that depend on the size: they become constants of the program
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, of its own parts
            return torch.export.export(network, (x,), strict=False)
    except Exception as error:  # the exporter raises what it likes
        what = f"cannot be exported for {runtime.name}: {str(error).strip().splitlines()[0]}"
        raise ModelError(what, where=model.spec.name, hint="use --backend torch") from error


def picture(size: Size) -> Tensor:
    """A test input, float32 N×3×H×W, as normalised pictures are: large and small shapes, the same every time."""
    count, height, width = size
    generator = torch.Generator().manual_seed(height * 10_007 + width)
    x = torch.zeros(count, 3, height, width)
    for cells, weight in ((4, 0.8), (12, 0.4), (36, 0.2)):
        shapes = torch.randn(count, 3, cells, cells, generator=generator)
        x += weight * F.interpolate(shapes, (height, width), mode="bicubic")
    return x.clamp_(-2.1, 2.6)


def _filled(x: Tensor, count: int) -> Tensor:
    """`x` with its last picture repeated up to `count`."""
    missing = count - len(x)
    return x if not missing else torch.cat([x, x[-1:].expand(missing, -1, -1, -1)])
