"""How depth values become whole numbers in a file, and how they are read back.

Invariant: a value within `lo` … `hi` comes back within `error_of` it, and what has no answer comes back without one if
the mapping has a code for it.
"""

import math
from collections.abc import Mapping as Fields
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask

Codes = NDArray[np.uint16]
"""uint16 H×W."""
CODES_16 = 65535
"""The largest code of 16 bits."""
CODES_12 = 4095
"""The largest code of 12 bits."""
MILLIMETRE = 0.001
"""The unit of 16-bit depth images in ROS, where 0 is no answer, too (REP 118: ros.org/reps/rep-0118.html)."""
_ROWS = 256  # rows converted at a time: a 200-megapixel map in float64 would take 1.6 GB


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A fixed relation of depth values and codes.

    Linear: `value = lo + (code − first) / (last − first) · (hi − lo)`. With `use_log`, the same relation holds for
    `ln(value + shift)` and the logarithms of the ends, as in the depth videos of LeRobot 0.6.

    Attributes:
        lo, hi: the values of the first and the last code, in the unit of the values.
        first, last: codes. With `first` = 1, code 0 stands for pixels without an answer.
        use_log: the codes are spaced evenly in the logarithm.
        shift: added to values before the logarithm.

    Raises:
        ValueError: the numbers are not finite, `lo` is not below `hi`, a logarithm does not exist, the codes are not
            0 ≤ first < last ≤ 65535 with first ≤ 1, or float64 cannot tell the values of two codes apart.
    """

    lo: float
    hi: float
    first: int = 1
    last: int = CODES_16
    use_log: bool = False
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.lo, self.hi, self.shift))) or not self.lo < self.hi:
            raise ValueError(f"the ends must be finite, the lower one first, got {self.lo} and {self.hi}")
        if self.use_log and self.lo + self.shift <= 0:
            raise ValueError(f"the logarithm of {self.lo} + {self.shift} does not exist")
        if not 0 <= self.first <= 1 or not self.first < self.last <= CODES_16:
            raise ValueError(f"codes must be from 0 or 1 up to {CODES_16}, got {self.first} to {self.last}")
        low, high = self._bounds
        steps, finest = self.last - self.first, math.ulp(max(abs(low), abs(high)))
        if not math.isfinite(high - low) or high - low <= 4 * finest * steps or not math.isfinite(steps / (high - low)):
            raise ValueError(f"{steps + 1} codes must have different values, got {self.lo} to {self.hi}, {self.shift}")

    @classmethod
    def of_unit(cls, unit: float) -> Self:
        """Codes that count `unit` (0.001: millimetres), with 0 for no answer, as ROS and TUM write depth images."""
        return cls(lo=unit, hi=CODES_16 * unit)

    @property
    def marks_invalid(self) -> bool:
        """Pixels without an answer have a code of their own."""
        return self.first == 1

    def encode(self, values: DepthMap, valid: Mask | None = None) -> Codes:
        """The nearest code of each value; values beyond the ends get the codes of the ends.

        Args:
            values: float32 H×W.
            valid: pixels with an answer; None: all. The others get code 0.
        """
        codes = np.empty(values.shape, np.uint16)
        low, scale = self._ends()
        for top in range(0, len(values), _ROWS):
            rows = values[top : top + _ROWS].astype(np.float64)
            if self.use_log:
                rows = np.log(np.clip(rows, self.lo, self.hi) + self.shift)
            rows = np.clip(np.rint((rows - low) * scale) + self.first, self.first, self.last)
            if valid is not None:
                rows = np.where(valid[top : top + _ROWS], rows, 0)
            codes[top : top + _ROWS] = rows
        return codes

    def decode(self, codes: Codes) -> tuple[DepthMap, Mask | None]:
        """The values of codes, and which of them are answers; None: all.

        Returns:
            float32 H×W, NaN where there is no answer; bool H×W or None.
        """
        values = np.take(self._values, codes)  # 0.6 ms for 640×480; to compute them takes 8
        if not self.marks_invalid or codes.all():
            return values, None
        return values, codes != 0

    def beyond(self, values: NDArray[np.float32]) -> int:
        """How many values lie beyond the ends by more than half a code."""
        most = float(np.finfo(np.float32).max)  # values are no larger, and float64 would take twice as long
        low, high = max(-most, self.lo - self.error_at(self.lo)), min(most, self.hi + self.error_at(self.hi))
        return int(np.count_nonzero((values < low) | (values > high)))

    def error_at(self, value: float) -> float:
        """Half the step between codes at `value`, in the unit of the values: the largest error of a round trip there,
        apart from the rounding of float32."""
        _, scale = self._ends()
        return 0.5 / scale * (value + self.shift if self.use_log else 1.0)

    @property
    def formula(self) -> str:
        """The relation as text for people."""
        share = f"(code - {self.first}) / {self.last - self.first}"
        if self.use_log:
            return f"ln(value + shift) = ln(lo + shift) + {share} * (ln(hi + shift) - ln(lo + shift))"
        return f"value = lo + {share} * (hi - lo)"

    def as_fields(self) -> dict[str, float | int | bool | None]:
        """The numbers by name, for JSON; `from_fields` reads them."""
        return {
            "lo": self.lo,
            "hi": self.hi,
            "first_code": self.first,
            "last_code": self.last,
            "invalid_code": 0 if self.marks_invalid else None,
            "use_log": self.use_log,
            "shift": self.shift,
        }

    @classmethod
    def from_fields(cls, fields: Fields[str, object]) -> Self:
        """The mapping that `as_fields` described.

        Raises:
            ValueError: a number is missing, none, or not possible.
        """
        numbers = {key: _number(fields, key) for key in ("lo", "hi", "first_code", "last_code", "shift")}
        use_log = fields.get("use_log")
        if not isinstance(use_log, bool):
            raise ValueError("use_log must be true or false")
        if any(numbers[key] != int(numbers[key]) for key in ("first_code", "last_code")):
            raise ValueError("codes must be whole numbers")
        return cls(
            lo=numbers["lo"],
            hi=numbers["hi"],
            first=int(numbers["first_code"]),
            last=int(numbers["last_code"]),
            use_log=use_log,
            shift=numbers["shift"],
        )

    @cached_property
    def _values(self) -> NDArray[np.float32]:
        """The value of every code of 16 bits: float32, 65,536 of them."""
        low, scale = self._ends()
        high = low + (self.last - self.first) / scale if self.use_log else self.hi
        share = (np.arange(CODES_16 + 1) - self.first) / (self.last - self.first)
        values = low * (1 - share) + high * share  # exact at both ends, however far apart they are
        with np.errstate(over="ignore"):  # of codes beyond the last one
            table = (np.exp(values) - self.shift if self.use_log else values).astype(np.float32)
        if self.marks_invalid:
            table[0] = np.nan
        return table

    @property
    def _bounds(self) -> tuple[float, float]:
        """What the first and the last code stand for, in logarithms if need be."""
        if self.use_log:
            return math.log(self.lo + self.shift), math.log(self.hi + self.shift)
        return self.lo, self.hi

    def _ends(self) -> tuple[float, float]:
        """What the first code stands for, and codes per unit of that, in logarithms if need be."""
        low, high = self._bounds
        return low, (self.last - self.first) / (high - low)


def _number(fields: Fields[str, object], key: str) -> float:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} must be a number")
    return float(value)
