"""From what a network computes for one picture to depth at the picture's size, on the device.

Most networks give one map, which is only resized (`resized`). Others give several tensors: their family has a function
of the same form, which `registry.answer_of` finds.
Invariant: nothing here depends on weights, so an exported network has the same answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from stream.frames import Intrinsics
from stream.models.resize import to_frame_size
from stream.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class View:
    """How a picture was taken.

    Attributes:
        size_hw: (height, width) of the picture in pixels.
        intrinsics: of the camera, in pixels of the picture, from the file's metadata; None if unknown.
        fov: the horizontal field of view in degrees that the user states; None if nothing is stated.
    """

    size_hw: tuple[int, int]
    intrinsics: Intrinsics | None = None
    fov: float | None = None

    @property
    def camera(self) -> Intrinsics | None:
        """What is known of the camera: with the stated field of view, else the metadata's; None if nothing is."""
        if self.fov is not None:
            return Intrinsics.seeing(self.fov, self.size_hw[1], self.size_hw)
        return self.intrinsics


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is known of one picture.

    Attributes:
        values: float32 H×W, contiguous, at the picture's size; any value where not `valid`.
        valid: bool H×W; None if every pixel has an answer.
        confidence: float32 H×W; None if the network gives none.
        camera: float32 4: fx, fy, cx, cy in pixels of the picture; None if the network estimates none.
        network: h×w, the map before it was resized, NaN where there is no answer: what `--refine` brings to the
            picture's edges. None if it cannot be refined.
        note: what the user must know about the answers, said once; "" for nothing. `complete` may add it.
        samples: what `complete` needs besides; None if nothing.
        complete: what the host does with the answer once it is there, see `completed`; None if nothing is left to do.
    """

    values: Tensor
    valid: Tensor | None = None
    confidence: Tensor | None = None
    camera: Tensor | None = None
    network: Tensor | None = None
    note: str = ""
    samples: Tensor | None = None
    complete: "Callable[[Answer], Answer] | None" = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What belongs to the picture: all but `network`, which stays on the device."""
        every = (self.values, self.valid, self.confidence, self.camera, self.samples)
        return tuple(x for x in every if x is not None)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Answer":
        """The answer with `change` applied to each of `tensors`, and without `network` and `note`."""
        valid, confidence, camera, samples = (
            None if x is None else change(x) for x in (self.valid, self.confidence, self.camera, self.samples)
        )
        return Answer(
            values=change(self.values),
            valid=valid,
            confidence=confidence,
            camera=camera,
            samples=samples,
            complete=self.complete,
        )

    def completed(self) -> "Answer":
        """The answer, downloaded, after what is left to do on the host: what needs a decision by values, for which a
        device would have to be waited for."""
        return self if self.complete is None else self.complete(self)


AnswerOf = Callable[[ModelSpec, Sequence[Tensor], View], Answer]
"""(row, the network's outputs for one picture, without the batch axis, the picture) → answer."""


def resized(spec: ModelSpec, outputs: Sequence[Tensor], view: View) -> Answer:
    """The answer of a network that gives one map."""
    (output,) = outputs
    return Answer(values=to_frame_size(output, view.size_hw, spec.upsample), network=output)


def nowhere_negative(spec: ModelSpec, outputs: Sequence[Tensor], view: View) -> Answer:
    """Like `resized`, of a network that may give anything: the host notes negative depth."""
    found = resized(spec, outputs, view)
    if spec.output.is_disparity:
        return found
    what = f"{spec.name}: the module gave negative {spec.output.quantity}, which {_NEGATIVE}"

    def completed(found: Answer) -> Answer:
        is_negative = found.samples is not None and bool(found.samples < 0)
        return replace(found, samples=None, complete=None, note=what if is_negative else "")

    return replace(found, samples=outputs[0].amin(), complete=completed)


_NEGATIVE = "no point of a picture has; if larger is nearer, its output is disparity"
