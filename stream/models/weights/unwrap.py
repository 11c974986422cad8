"""Finds the state dict of a network in what training scripts save around it.

Invariant: tensors are never copied or combined; what is left out, because there was a choice, is noted.

Scripts nest the tensors in dictionaries (`model`, `state_dict`, `ema`, …) and short lists, and wrappers of the network
add parts to their names: `module.` (DataParallel), `_orig_mod.` (torch.compile), `model.` or `net.` (in Lightning).
The names of the wanted network decide where it is, see `prefixes`; the keys of dictionaries only decide between several
networks that fit equally well. For a file of another network, usual keys and names are all there is.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from torch import Size, Tensor

from stream.errors import ModelError
from stream.models.weights.pickled import Aside, Unusable
from stream.models.weights.prefixes import Wanted, is_match, score, shift, sizes_of
from stream.models.weights.transformers import FAMILIES
from stream.notes import note

_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "generator",
    "params_ema", "params", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "ema", "teacher", "student",
)  # fmt: skip
"""Keys of a state dict, the first of several is used. BasicSR's `params` are worse than its `params_ema`."""
_ADDED = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts that torch's wrappers add anywhere in a name; no network of the catalog has one."""
_ANCHORS = ("pretrained.cls_token", "scratch.output_conv.0.weight", *(family.mark for family in FAMILIES))
"""Names of which each file of a catalog model with an encoder has one."""
_ENCODER, _BESIDE_ENCODER = "backbone.", "head.projects.0.weight"
"""Depth Anything 3 has its encoder in a module of its own, and beside it the head."""
_MOST_LEVELS = 8
"""Deeper than any script nests; a file may contain itself."""
_COUNTED_LEVELS = 5
MAX_TENSORS = 20_000
"""Twenty times what the largest network has."""
_MAX_NAME = 500
"""Characters of a tensor's name; the longest of the catalog has 90."""
_NAMED = 3
"""A note names at most this many others."""
_MOST_ITEMS = 16
"""Longer lists are not looked into: they hold values, not networks."""

CheckPart = Callable[[Mapping[str, Size | None], str], None]
"""Called with the names and sizes in a file, and the prefix of those that are used, if others are left out."""


def unwrap(
    content: object,
    *,
    where: str,
    wanted: Wanted | None = None,
    check_part: CheckPart | None = None,
    entered: list[Mapping[object, object]] | None = None,
) -> dict[str, Tensor]:
    """The tensors of a loaded file by the names that they have in the network, or in the one of transformers.

    Args:
        content: what the file holds.
        where: the file, for errors and notes.
        wanted: the names and sizes in the network; None if it is not known.
        check_part: raises `ModelError` if what is left out belongs to the network as well.
        entered: gets the dictionaries in which the tensors are, the outermost first.

    Raises:
        ModelError: it holds no state dict, none within the first levels, or one with more tensors or longer names than
            any network has.
    """
    path: list[str] = []
    counts: dict[tuple[int, int], int] = {}
    scores: dict[tuple[int, int], int] = {}
    whole = content
    while (entries := _entries(content)) is not None:
        if entered is not None and isinstance(content, Mapping):
            entered.append(content)
        inner = _inner(entries, counts)
        if wanted:
            inner = _matching(entries, wanted, scores, inner)
        if not inner:
            break
        if len(inner) > 1:
            more = ", ".join(".".join([*path, name])[:_MAX_NAME] for name in inner[1 : 1 + _NAMED])
            more += f" and {len(inner) - 1 - _NAMED} more" if len(inner) - 1 > _NAMED else ""
            note(f"{where}: uses {'.'.join([*path, inner[0]])}; the file also holds {more}")
        path.append(inner[0])
        if len(path) > _MOST_LEVELS:
            raise ModelError(f"nests dictionaries more than {_MOST_LEVELS} deep", where=where)
        content = entries[inner[0]]
    if (not isinstance(content, Mapping) or not _has_tensors(content)) and _has_nameless(whole, set()):
        hint = "save the network's state_dict()"
        raise ModelError("holds its tensors in a list, without names", where=where, hint=hint)
    if not isinstance(content, Mapping):
        kind = "value of another kind" if isinstance(content, Aside) else type(content).__name__
        raise ModelError(f"contains a {kind}, not a state dict", where=where)
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor | Unusable)}
    if not tensors:
        raise ModelError("contains no tensors", where=where)
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"holds {len(tensors):,} tensors, more than any network", where=where)
    if any(len(key) > _MAX_NAME for key in tensors):
        raise ModelError(f"holds a tensor whose name has more than {_MAX_NAME} characters", where=where)
    chosen = _renamed({_without_added(key): value for key, value in tensors.items()}, wanted or {}, where, check_part)
    for key, value in chosen.items():
        if isinstance(value, Unusable):
            raise ModelError(f"cannot be used: it holds a {value.kind} tensor ({key})", where=where)
    return {key: value for key, value in chosen.items() if isinstance(value, Tensor)}


def _inner(content: Mapping[object, object], counts: dict[tuple[int, int], int]) -> list[str]:
    """Keys of the dictionaries that hold a network, the best first; none if `content` itself is a state dict.

    Args:
        counts: see `_count`.
    """
    nested = {key: value for key, value in content.items() if isinstance(key, str) and _is_nest(value)}
    if known := [key for key in _WRAPPERS if key in nested and _count(nested[key], counts)]:
        return known
    if any(isinstance(value, Tensor | Unusable) for value in content.values()):
        return []
    numbers = {key: _count(value, counts) for key, value in nested.items()}
    return sorted((key for key in numbers if numbers[key]), key=lambda key: -numbers[key])


def _matching(
    content: Mapping[object, object], wanted: Wanted, scores: dict[tuple[int, int], int], usual: list[str]
) -> list[str]:
    """Keys of the dictionaries that hold the wanted network, the usual ones first; none if `content` itself holds it.

    Args:
        scores: see `_best_score`.
        usual: what `_inner` gives; returned if the network is nowhere.
    """
    found = {key: _best_score(value, wanted, scores) for key, value in content.items() if isinstance(key, str)}
    own = _score(content, wanted)
    best = max(own, *found.values(), 0)
    if best < len(wanted):
        return usual
    fitting = [key for key in found if found[key] == best]
    if own == best and not any(key in _WRAPPERS for key in fitting):
        return []
    return sorted(fitting, key=lambda key: _WRAPPERS.index(key) if key in _WRAPPERS else len(_WRAPPERS))


def _best_score(
    content: object, wanted: Wanted, scores: dict[tuple[int, int], int], levels: int = _COUNTED_LEVELS
) -> int:
    """The best `score` of a dictionary and of those in it; `scores` and `levels` as in `_count`."""
    if (entries := _entries(content)) is None or not levels:
        return 0
    key = id(content), levels
    if key not in scores:
        scores[key] = 0  # while it is looked into
        inner = [value for name, value in entries.items() if isinstance(name, str)]
        found = (_best_score(value, wanted, scores, levels - 1) for value in inner)
        scores[key] = max(_score(entries, wanted), max(found, default=0))
    return scores[key]


def _score(content: Mapping[object, object], wanted: Wanted) -> int:
    tensors = {_without_added(str(key)): value for key, value in content.items() if _is_tensor(value)}
    return score(tensors, wanted)


def _is_nest(value: object) -> bool:
    """True for what may hold a network: a dictionary, or a short list of such."""
    return isinstance(value, Mapping) or (isinstance(value, list | tuple) and len(value) <= _MOST_ITEMS)


def _entries(content: object) -> Mapping[object, object] | None:
    """What `content` holds, by key; what a list holds by number, but no tensor, which has no name there."""
    if isinstance(content, list | tuple) and _is_nest(content):
        return {str(number): value for number, value in enumerate(content) if _is_nest(value)}
    return content if isinstance(content, Mapping) else None


def _has_tensors(content: Mapping[object, object]) -> bool:
    return any(_is_tensor(value) for value in content.values())


def _has_nameless(content: object, seen: set[int], levels: int = _MOST_LEVELS) -> bool:
    """True if tensors lie in a list somewhere; `seen` are the containers that were looked into."""
    if not isinstance(content, Mapping | list | tuple) or id(content) in seen or not levels:
        return False
    seen.add(id(content))
    values = list(content.values()) if isinstance(content, Mapping) else list(content)
    if not isinstance(content, Mapping) and any(_is_tensor(value) for value in values):
        return True
    return any(_has_nameless(value, seen, levels - 1) for value in values)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor | Unusable)


def _count(content: object, counts: dict[tuple[int, int], int], levels: int = _COUNTED_LEVELS) -> int:
    """Number of named tensors in nested dictionaries; an optimizer numbers its tensors.

    Args:
        counts: the results by dictionary and levels, so that one that occurs often, in itself say, is counted once.
        levels: how deep to look.
    """
    if (entries := _entries(content)) is None or not levels:
        return 0
    key = id(content), levels
    if key not in counts:
        named = [value for name, value in entries.items() if isinstance(name, str)]
        counts[key] = sum(isinstance(value, Tensor | Unusable) or _count(value, counts, levels - 1) for value in named)
    return counts[key]


def _without_added(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _ADDED) or key


def _renamed(
    tensors: dict[str, Tensor | Unusable], wanted: Wanted, where: str, check_part: CheckPart | None
) -> dict[str, Tensor | Unusable]:
    """Change what stands before the network's own names, and remove with it what does not belong to the network."""
    sizes = sizes_of(tensors)
    found = shift(sizes, wanted)
    if not is_match(found, wanted):
        return _without_prefix(tensors, where)
    if found.removed:
        if check_part is not None and not all(key.startswith(found.removed) for key in tensors):
            check_part(sizes, found.removed)
        _note_others(tensors, found.removed, where)
    named = {found(key): value for key, value in tensors.items()}
    return {key: value for key, value in named.items() if key is not None}


def _without_prefix(tensors: dict[str, Tensor | Unusable], where: str) -> dict[str, Tensor | Unusable]:
    """Remove what stands before the usual names, and with it what does not belong to the network."""
    prefixes = list(dict.fromkeys(_prefixes(tensors)))
    if not prefixes:
        return _without_shared(tensors)
    prefix = min(prefixes, key=len)
    if not prefix and len(prefixes) == 1:
        return tensors
    if prefix:
        _note_others(tensors, prefix, where)
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _note_others(tensors: Mapping[str, object], prefix: str, where: str) -> None:
    """Say which tensors are left out: all without `prefix`."""
    if left := Counter(key.partition(".")[0] for key in tensors if not key.startswith(prefix)):
        names = ", ".join(f"{name}.*" for name, _ in left.most_common(3))
        note(f"{where}: uses {prefix.removesuffix('.')}; the file also holds {names}")


def _prefixes(tensors: Mapping[str, object]) -> Iterator[str]:
    for key in tensors:
        for anchor in _ANCHORS:
            if key == anchor or key.endswith(f".{anchor}"):
                prefix = key.removesuffix(anchor)
                outer = prefix.removesuffix(_ENCODER)
                yield outer if f"{outer}{_BESIDE_ENCODER}" in tensors else prefix


def _without_shared(tensors: dict[str, Tensor | Unusable]) -> dict[str, Tensor | Unusable]:
    """Without the module that contains all others: `model.enc.0.weight` and `model.head.bias` lose `model.`."""
    while True:
        first, *others = {key.partition(".")[0] for key in tensors}
        inside = [key.partition(".")[2] for key in tensors]
        if others or first.isdecimal() or len({rest.partition(".")[0] for rest in inside if "." in rest}) < 2:
            return tensors
        tensors = dict(zip(inside, tensors.values(), strict=True))
