"""Where the codes of the marks stand on a picture, so that none covers another.

Invariant: a code is at the box it belongs to, or one line off it where others are, at any size of the picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from stream.survey.page.html import Html, tag
from stream.survey.page.words import percent

Box = tuple[float, float, float, float]
"""Left, top, width, height in shares of the picture."""

_EMS = 15.0
"""Width of a picture on a phone, two beside each other, in units of the codes' type: there they are closest."""
_TALL_EMS = 11.0
"""Of one that is much taller than wide."""
_LETTER, _MARGIN, _LINE = 0.7, 0.4, 1.25
"""Width of a bold letter or digit at most, what is beside the code, and the height of a line, in the same unit."""
_OTHER = 0.1
"""How much it counts that a code covers one of another finding."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """A code at a corner of its box, or the middle of an edge.

    Attributes:
        x, y: the point, in shares of the picture.
        anchor: whether the code begins there, or ends there, or has its middle there.
        dx, dy: from the point to the baseline, in units of the type.
    """

    code: str
    x: float
    y: float
    anchor: str
    dx: float
    dy: float

    def html(self) -> Html:
        """The element of SVG."""
        at = {"x": percent(self.x), "y": percent(self.y), "dx": f"{self.dx:g}em", "dy": f"{self.dy:g}em"}
        return tag("text", self.code, text_anchor=self.anchor, **at)


def place_labels(findings: Sequence[Mapping[str, Box]], size: tuple[int, int]) -> dict[str, Label]:
    """A place for each code at its box, above it if there is room.

    Args:
        findings: the boxes of each by code. Codes of one finding are always shown together, those of two findings only
            if somebody wants to see both, so the latter cover each other before the former do.
        size: height and width of the picture.
    """
    height, width = size
    wide = _TALL_EMS if height > 1.6 * width else _EMS
    em = 1 / wide, width / (height * wide)
    others: list[Box] = []
    labels = {}
    for boxes in findings:
        own: list[Box] = []
        for code, box in boxes.items():
            tried = list(_tries(code, box, em))
            costs = [_outside(covered) + _on(covered, own) + _OTHER * _on(covered, others) for _, covered in tried]
            labels[code], covered = tried[costs.index(min(costs))]
            own.append(covered)
        others += own
    return labels


def _tries(code: str, box: Box, em: tuple[float, float]) -> Iterator[tuple[Label, Box]]:
    """The places of a code at its box, the best first, each with what it covers."""
    left, top, width, height = box
    wide, high = (len(code) * _LETTER + _MARGIN) * em[0], _LINE * em[1]
    low = top + height
    rows = ((top, -0.3, -high), (top, 1.05, 0.0), (low, 1.05, 0.0), (low, -0.3, -high))
    apart = ((low, 1.05 + _LINE, high), (top, -0.3 - _LINE, -2 * high))
    columns = (
        (left, "start", 0.2, 0.0),
        (left + width, "end", -0.2, -wide),
        (left + width / 2, "middle", 0.0, -wide / 2),
        (left + width, "start", 0.2, 0.0),
        (left, "end", -0.2, -wide),
    )
    for (x, anchor, dx, right), (y, dy, down) in (*product(columns, rows), *product(columns, apart)):
        yield Label(code=code, x=x, y=y, anchor=anchor, dx=dx, dy=dy), (x + right, y + down, wide, high)


def _outside(label: Box) -> float:
    """How much of it is outside the picture, where it cannot be read."""
    return round(1 - common_area(label, (0.0, 0.0, 1.0, 1.0)) / (label[2] * label[3]), 3)


def _on(label: Box, taken: list[Box]) -> float:
    """How much of it lies on others."""
    return round(sum(common_area(label, other) for other in taken) / (label[2] * label[3]), 3)


def common_area(a: Box, b: Box) -> float:
    """What two boxes have in common, in shares of the picture."""
    width, height = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(width, 0.0) * max(height, 0.0)
