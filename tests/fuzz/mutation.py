"""Random changes to valid inputs, as Hypothesis strategies: a failure is reduced to the few changes that matter.

The kinds of damage are those of real life: flipped bits, lost and repeated blocks, cut transfers, headers that lie,
parts of one file inside another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

_EXTREME = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Flip:
    """Bits, by their offsets."""

    bits: tuple[int, ...]

    def apply(self, data: bytearray, _others: Sequence[bytes]) -> bytearray:
        for bit in self.bits:
            data[bit // 8 % len(data)] ^= 1 << bit % 8
        return data


@dataclass(frozen=True)
class Number:
    """A field of a header becomes an extreme value."""

    at: int
    value: int
    width: int
    is_big_endian: bool

    def apply(self, data: bytearray, _others: Sequence[bytes]) -> bytearray:
        at = self.at % len(data)
        value = (self.value % 256**self.width).to_bytes(self.width, "big" if self.is_big_endian else "little")
        data[at : at + self.width] = value
        return data


@dataclass(frozen=True)
class Fill:
    """A block is overwritten with one byte."""

    at: int
    length: int
    byte: int

    def apply(self, data: bytearray, _others: Sequence[bytes]) -> bytearray:
        at = self.at % len(data)
        length = min(self.length, len(data) - at)
        data[at : at + length] = bytes([self.byte]) * length
        return data


@dataclass(frozen=True)
class Cut:
    """The end is missing."""

    at: int

    def apply(self, data: bytearray, _others: Sequence[bytes]) -> bytearray:
        return data[: max(1, self.at % len(data))]


@dataclass(frozen=True)
class Lose:
    """A block is missing."""

    at: int
    length: int

    def apply(self, data: bytearray, _others: Sequence[bytes]) -> bytearray:
        at = self.at % len(data)
        del data[at : at + self.length]
        return data or bytearray(1)


@dataclass(frozen=True)
class Repeat:
    """A block occurs again somewhere else."""

    at: int
    length: int
    to: int

    def apply(self, data: bytearray, _others: Sequence[bytes]) -> bytearray:
        at, to = self.at % len(data), self.to % len(data)
        data[to:to] = data[at : at + self.length]
        return data


@dataclass(frozen=True)
class Splice:
    """From some place on, it is another valid input."""

    at: int
    other: int
    since: int

    def apply(self, data: bytearray, others: Sequence[bytes]) -> bytearray:
        other = others[self.other % len(others)]
        data[self.at % len(data) :] = other[self.since % len(other) :]
        return data or bytearray(1)


Change = Flip | Number | Fill | Cut | Lose | Repeat | Splice

_PLACES = st.one_of(st.integers(0, 511), st.integers(0, 2**24))  # headers as often as all the rest
_BITS = st.one_of(st.integers(0, 8 * 512), st.integers(0, 8 * 2**24))
_LENGTHS = st.integers(1, 4096)
_CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(Flip, st.lists(_BITS, min_size=1, max_size=20).map(tuple)),
    st.builds(Number, _PLACES, st.sampled_from(_EXTREME), st.sampled_from((1, 2, 4, 8)), st.booleans()),
    st.builds(Fill, _PLACES, _LENGTHS, st.integers(0, 255)),
    st.builds(Cut, st.integers(0, 2**24)),
    st.builds(Lose, _PLACES, _LENGTHS),
    st.builds(Repeat, _PLACES, _LENGTHS, _PLACES),
    st.builds(Splice, _PLACES, st.integers(0, 99), _PLACES),
)
changes = st.lists(_CHANGES, min_size=1, max_size=4)
"""One to four changes, for `changed`."""


def changed(data: bytes, made: Sequence[Change], others: Sequence[bytes]) -> bytes:
    """Return `data` with the changes made to it.

    Args:
        others: other valid inputs of its kind, for splices.
    """
    result = bytearray(data)
    for change in made:
        result = change.apply(result, others)
    return bytes(result)
