"""What a finding is: a question about depth maps that a number answers.

Invariant: measuring changes nothing, and a number is finite or there is none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from stream.survey.record import RESOLUTION, Better
from stream.survey.scene import Scene


class Basis(StrEnum):
    """What the numbers of a photo are measured against."""

    TRUTH = "truth"
    """Known depths or marked regions: the numbers are errors."""
    MODELS = "models"
    """What most of the models say, which may be wrong."""
    PICTURE = "picture"
    """The picture alone."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in a photo that made a number, to be marked.

    Attributes:
        box: left, top, width and height, in shares of the photo's width and height.
        text: what is seen there, in a few words.
    """

    box: tuple[float, float, float, float]
    text: str


@dataclass(frozen=True, kw_only=True)
class Number:
    """The answer for one model on one photo.

    Attributes:
        value: None where the photo does not ask the question: it has no sky, say.
        details: further numbers, by name.
        places: where it was best or worst, a few.
    """

    value: float | None
    details: Mapping[str, float] = field(default_factory=dict)
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of one photo.

    Attributes:
        basis: what they are measured against.
        numbers: by model.
    """

    basis: Basis
    numbers: Mapping[str, Number]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A question about depth maps.

    Attributes:
        key: in files, such as "thin".
        title: for people, such as "Thin structures".
        question: one line, such as "Do thin things stand out in depth?".
        unit: of the number: "" for a share or a ratio, "‰" for per mille of the longer side.
        better: which numbers are better; "neither" where a number says how models differ and not which is right.
        definition: the formula and its source in plain text, a paragraph.
        measure: returns the answers; None if the photo does not ask the question of any model.
        details: what the further numbers mean, by name.
        resolution: what the number can tell; models that differ by no more are alike, and share the best.
    """

    key: str
    title: str
    question: str
    unit: str
    better: Better
    definition: str
    measure: Callable[[Scene], Answers | None]
    details: Mapping[str, str] = field(default_factory=dict)
    resolution: float = RESOLUTION
