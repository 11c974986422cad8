"""What is said about a name that no model of the catalog has: the nearest ones, or why there is none of it.

Invariant: the family that is meant comes first; another size of it is suggested only where it lacks the one that is
meant, and then the next smaller one.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch

from stream.models import catalog
from stream.models.spec import ModelSpec

_SAME_WORDS = {
    "small": "vits", "vits14": "vits", "base": "vitb", "vitb14": "vitb", "large": "vitl", "vitl14": "vitl",
    "giant": "vitg", "vitg14": "vitg", "indoor": "hypersim", "outdoor": "vkitti",
}  # fmt: skip
"""Words of other names for a model, and those of the names here."""
_SIZES = ("tiny", "vits", "vitb", "vitl", "vitg")
"""From the smallest; of the words above and those of the catalog."""
_SPELLINGS = (
    (re.compile(r"dav3|depth[^a-z0-9]?anything[^a-z0-9]?v?3"), "da3"),
    (re.compile(r"da3[^a-z0-9](?=mono|metric|nested)"), "da3"),
)
"""Other spellings of a family, and the one of the names here."""
_SIMILAR, _AS_SIMILAR, _SAME_WORD = 0.5, 0.05, 0.8
"""Least similarity of a suggestion, how much less than the best it may have, and the least of one of its words."""
_MOST = 3
"""Suggestions at once."""
_LEAST_PREFIX = 3
"""Characters of the beginning of a name from which on it is taken for one."""


def without_row(name: str) -> catalog.WithoutRow | None:
    """What is known of a published model that the catalog has no row for; None for any other name."""
    asked = re.sub("[^a-z0-9]+", "-", _plain(name)).strip("-")
    return next((one for one in catalog.WITHOUT_ROW if any(fnmatch(asked, each) for each in one.names)), None)


def nearest(name: str, rows: Mapping[str, ModelSpec]) -> str:
    """The most similar of the names and aliases in `rows`, joined by `or`; empty if none is similar.

    Each has every word of `name` that is a word of some model's (a version, a family), and the size that is meant or,
    if none of them has it, the next one.
    """
    asked = _plain(name)
    wanted, words = _words(asked), {row: _words(row) for row in rows}
    known = {word for those in words.values() for word in those}
    if known.issuperset(wanted) and (found := _beginning("_".join(wanted), words)):
        return _joined(found, rows)
    for size in _from_nearest(wanted):
        if found := _similar(size, asked, words, known):
            return _joined(found, rows)
    choices = difflib.get_close_matches(asked, catalog.CHOICES, n=1)
    return " or ".join(choices) or _joined(_beginning("_".join(wanted), words), rows)


def _plain(name: str) -> str:
    plain = name.lower().rpartition("/")[2].removesuffix("-hf")
    for pattern, spelling in _SPELLINGS:
        plain = pattern.sub(spelling, plain)
    return plain


def _words(name: str) -> list[str]:
    return [_SAME_WORDS.get(word, word) for word in re.split("[^a-z0-9]+", name) if word]


def _beginning(asked: str, words: Mapping[str, list[str]]) -> list[str]:
    """The names that begin with `asked`, in the catalog's order; only itself if it is one of them."""
    whole = {row: "_".join(those) for row, those in words.items()}
    if same := [row for row, text in whole.items() if text == asked]:
        return same
    return [row for row, text in whole.items() if len(asked) >= _LEAST_PREFIX and text.startswith(asked)]


def _from_nearest(wanted: list[str]) -> Iterable[list[str]]:
    """`wanted`, then with each other size instead of its own: the next smaller ones first, then the larger ones."""
    yield wanted
    for own in [word for word in wanted if word in _SIZES]:
        place = _SIZES.index(own)
        for size in (*reversed(_SIZES[:place]), *_SIZES[place + 1 :]):
            yield [size if word == own else word for word in wanted]


def _similar(wanted: list[str], asked: str, words: Mapping[str, list[str]], known: set[str]) -> list[str]:
    fixed = set(wanted) & known
    scores = {
        row: max(_similarity("_".join(those), "_".join(wanted)), _similarity(row, asked))
        for row, those in words.items()
        if fixed <= set(those) and any(_similarity(one, other) >= _SAME_WORD for one in those for other in wanted)
    }
    best = max(scores.values(), default=0.0)
    least = 1.0 if best == 1 else max(_SIMILAR, best - _AS_SIMILAR)
    return sorted((row for row, score in scores.items() if score >= least), key=lambda row: -scores[row])


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(a=one, b=other).ratio()


def _joined(found: list[str], rows: Mapping[str, ModelSpec]) -> str:
    """The first name of each model among those found."""
    by_model: dict[str, str] = {}
    for row in found:
        by_model.setdefault(rows[row].name, row)
    return " or ".join(list(by_model.values())[:_MOST])
