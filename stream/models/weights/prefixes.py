"""Matches the names in a file with those of the wanted network, whatever stands before either.

Training scripts save a network as an attribute of another one (`net.encoder.…` for `encoder.…`), or save only the
inner one (`encoder.…` for `model.encoder.…`). The network's own names decide which of it is the case, so no family
needs a rule here.

Invariant: a prefix is added or removed only if at least half of the network is found by it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Size, Tensor

from stream.models.weights.transformers import FAMILIES, to_official

_MOST_PARTS = 16
"""Deepest prefix; `module.model.net._orig_mod.…` has four parts."""

Wanted = Mapping[str, Size]
"""The names of a network's tensors, and their sizes."""


@dataclass(frozen=True)
class Shift:
    """What turns the names of a file into those of the network.

    Attributes:
        score: one for each name that both have, and one more if the sizes are equal too. The network alone, of another
            size, gets one for each of its names, so less is no match.
        removed, added: prefixes, each with its final dot; one of them is empty.
    """

    score: int
    removed: str
    added: str

    def __call__(self, key: str) -> str | None:
        """The network's name for one of the file; None for what is not the network's."""
        return self.added + key.removeprefix(self.removed) if key.startswith(self.removed) else None


def shift(sizes: Mapping[str, Size | None], wanted: Wanted) -> Shift:
    """The best match of a file's names with the wanted ones; the shortest prefix of several that are equally good.

    Args:
        sizes: the names in a file, and the sizes of their tensors if they have one.
    """
    if all(sizes.get(key) == size for key, size in wanted.items()):
        return Shift(2 * len(wanted), "", "")
    votes = Counter[tuple[str, str]]()
    for key, size in sizes.items():
        for prefix, rest in _splits(key):
            if rest in wanted:
                votes[prefix, ""] += 1 + (size == wanted[rest])
    for key in wanted if max(votes.values(), default=0) < 2 * len(wanted) else ():
        for prefix, rest in _splits(key):
            if prefix and rest in sizes:
                votes["", prefix] += 1 + (sizes[rest] == wanted[key])
    if not votes:
        return Shift(0, "", "")
    best = max(votes, key=lambda pair: (votes[pair], -len(pair[0]), -len(pair[1])))
    return Shift(votes[best], *best)


def is_match(found: Shift, wanted: Wanted) -> bool:
    """True if a file has the network: half of it in its sizes, or all of it in others."""
    return found.score >= max(1, len(wanted))


def score(tensors: Mapping[str, object], wanted: Wanted) -> int:
    """How much of the wanted network a file holds, see `Shift`; also one in the names of transformers."""
    if 2 * len(tensors) < len(wanted):  # cannot match
        return 0
    found = shift(sizes_of(tensors), wanted).score
    return found if found >= len(wanted) else max(found, _transformers_score(tensors, wanted))


def _transformers_score(tensors: Mapping[str, object], wanted: Wanted) -> int:
    marks = [family.mark for family in FAMILIES]
    for key in tensors:
        if mark := next((mark for mark in marks if key == mark or key.endswith(f".{mark}")), None):
            prefix = key.removesuffix(mark)
            own = {
                key.removeprefix(prefix): value.to("meta")
                for key, value in tensors.items()
                if isinstance(value, Tensor) and key.startswith(prefix)
            }
            sizes = {key: value.shape for key, value in to_official(own).items()}
            return sum(1 + (sizes[key] == wanted[key]) for key in sizes.keys() & wanted.keys())
    return 0


def sizes_of(tensors: Mapping[str, object]) -> dict[str, Size | None]:
    """The sizes of tensors; None for one of an unusable kind."""
    return {key: value.shape if isinstance(value, Tensor) else None for key, value in tensors.items()}


def _splits(key: str) -> Iterator[tuple[str, str]]:
    """("", key), then each prefix that ends in a dot with the rest."""
    yield "", key
    place = 0
    for _ in range(_MOST_PARTS):
        place = key.find(".", place) + 1
        if not place:
            return
        yield key[:place], key[place:]
