"""From what was given (keywords, command-line options, keys of a file) to a `Config`.

Invariant: an error names a value as it was given: `--batch 0`, `batch=0` or the file and the key. An unknown key or
keyword is refused with the nearest right one.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from stream.config import Config, Panel, all_keys, fields, unknown_key
from stream.errors import ConfigError, UsageError
from stream.jobs.keys import RENDER_KEYS

_LONGEST_REPR = 80
"""Characters of a value in an error."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A key as an option of the command line and a keyword of Python.

    Attributes:
        key: the key's dotted path.
        flags: how it is typed, the long form last.
        negative: how a switch is turned off, empty for most.
        metavar: what stands for the value in the help, empty for a switch.
        choices: the values that are allowed, empty if they are not listed.
        limits: `1 to 256`, `0 or more`, …, empty without limits.
        default: None is explained in `help`.
        rest: key that takes the second value on, empty if there is one value only.
        alone: the value of an option that is typed without one, empty if it needs one.
    """

    key: str
    flags: tuple[str, ...]
    negative: str
    metavar: str
    panel: Panel
    help: str
    choices: tuple[str, ...]
    limits: str
    default: object
    rest: str
    alone: str

    @property
    def flag(self) -> str:
        """The long form."""
        return self.flags[-1]

    @property
    def is_repeatable(self) -> bool:
        """Whether its help says that it may be given several times."""
        return bool(self.rest) or self.metavar == "KEY=VALUE"

    @property
    def default_text(self) -> str:
        """The default as it is typed."""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def name(self) -> str:
        """The keyword in Python."""
        return self.flag.removeprefix("--").replace("-", "_")


def _options() -> Iterator[Option]:
    for key, field in fields():
        extra = field.json_schema_extra
        if not isinstance(extra, dict):
            continue
        about: Any = extra["option"]
        positive, _, negative = (about["flags"] or "--" + key.rpartition(".")[2].replace("_", "-")).partition("/")
        kinds: list[Any] = [field.annotation]
        if get_origin(field.annotation) in (Union, UnionType):
            kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
        choices = get_args(kinds[0]) if get_origin(kinds[0]) is Literal else ()
        is_switch = bool(negative) or kinds == [bool]
        metavar = about["metavar"] or "|".join(choices) or {int: "N", float: "X"}.get(kinds[0], "NAME")
        yield Option(
            key=key,
            flags=tuple(positive.split()),
            negative=negative,
            metavar="" if is_switch else metavar,
            panel=Panel(about["panel"]),
            help=field.description or "",
            choices=choices,
            limits=_limits(field),
            default=field.default,
            rest=about["rest"],
            alone=about["alone"],
        )


def _limits(field: FieldInfo) -> str:
    found = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(limit, name)
    }
    lowest = found.get("ge", found.get("gt"))
    highest = found.get("le", found.get("lt"))
    if lowest is None and highest is None:
        return ""
    low = "" if lowest is None else f"{lowest:g}" if "ge" in found else f"more than {lowest:g}"
    high = "" if highest is None else f"up to {highest:g}"
    if "ge" in found and high:
        return f"{lowest:g} to {highest:g}"
    return ", ".join(part for part in (f"{low} or more" if "ge" in found else low, high) if part)


OPTIONS: dict[str, Option] = {one.name: one for one in _options()}
"""Every option by its keyword; each key but `source`, `sources` and `model.also` has one."""


def set_key(values: MutableMapping[str, Any], key: str, value: object, *, where: str) -> str:
    """Put `value` at the dotted `key` of nested `values`.

    Args:
        key: a key, or the name of an option: `model` is `model.name`.

    Returns:
        The key.

    Raises:
        ConfigError: the key does not exist.
    """
    if key not in all_keys():
        name = key.removeprefix("--").replace("-", "_")
        if name not in OPTIONS:
            raise unknown_key(key, where=where)
        key = OPTIONS[name].key
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[leaf] = value
    return key


def set_options(
    values: MutableMapping[str, Any], options: Mapping[str, object], *, label: Callable[[Option, object], str]
) -> dict[str, str]:
    """Put options, by their keywords, into nested `values`; None means not given.

    Args:
        label: how an error names an option and its value.

    Returns:
        The labels by key, as `build` takes them.

    Raises:
        ConfigError: an unknown option, with the nearest right one.
    """
    labels: dict[str, str] = {}
    for name, value in options.items():
        if name not in OPTIONS:
            raise ConfigError(f"unknown option {name}", hint=_nearest(name))
        if value is None:
            continue
        found = OPTIONS[name]
        given = {found.key: value}
        if found.rest and not isinstance(value, str) and isinstance(value, list | tuple) and value:
            given = {found.key: value[0], found.rest: tuple(value[1:])}
        elif found.rest:
            given[found.rest] = ()
        for key, part in given.items():
            set_key(values, key, part, where=name)
            labels[key] = label(found, part)
    return labels


def _nearest(name: str) -> str:
    """The hint for an option that does not exist: the one that is typed or kept under this name, or the nearest."""
    for one in OPTIONS.values():
        if name.replace("_", "-") in (flag.lstrip("-") for flag in one.flags) or name == one.key.rpartition(".")[2]:
            return f"did you mean {one.name}?"
        if one.negative and name.replace("_", "-") == one.negative.lstrip("-"):
            return f"did you mean {one.name}=False?"
    near = difflib.get_close_matches(name, OPTIONS, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _shown(value: object) -> str:
    """`repr`, shortened where it is long: an array, a network."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}…"


def from_options(source: str | None, options: Mapping[str, object], *, base: dict[str, Any] | None = None) -> Config:
    """Config of a source and Python's keywords on top of nested `base` values; None means not given.

    Raises:
        ConfigError: an unknown option or a bad value.
    """
    values = base if base is not None else {}
    if source is not None:
        values["source"] = source
    labels = set_options(values, options, label=lambda one, value: f"{one.name}={_shown(value)}")
    return build(values, where="", labels=labels)


def check_only(options: Mapping[str, object], belongs: Callable[[str], bool], *, to: str) -> None:
    """Refuse options that do not belong to what is loaded or opened.

    Args:
        belongs: whether the option of a key does.
        to: what it is, with its article.

    Raises:
        UsageError: one does not.
    """
    for name in options:
        if name in OPTIONS and not belongs(OPTIONS[name].key):
            allowed = ", ".join(one.name for one in OPTIONS.values() if belongs(one.key))
            raise UsageError(f"is an option of a run, not of {to}", where=name, allowed=allowed)


def check_free(options: Mapping[str, object], is_fixed: Callable[[str], bool], *, by: str, opener: str) -> None:
    """Refuse options of a run that were chosen when its model was loaded or its source opened.

    Args:
        is_fixed: whether the option of a key was.
        by: what has fixed it.
        opener: the function that takes the option.

    Raises:
        UsageError: one of them is given.
    """
    for name, value in options.items():
        if value is not None and name in OPTIONS and is_fixed(OPTIONS[name].key):
            raise UsageError(f"cannot be chosen for {by}", where=name, hint=f"give it to {opener}")


def from_render_options(source: str, options: Mapping[str, object]) -> Config:
    """Like `from_options`, for a depth video as the source.

    Raises:
        ConfigError: an unknown option, a bad value, or an option that only a run with a model has.
    """
    for name in options:
        if name in OPTIONS and OPTIONS[name].key not in RENDER_KEYS:
            allowed = ", ".join(one.name for one in OPTIONS.values() if one.key in RENDER_KEYS)
            raise ConfigError("has no effect on a depth video", where=name, allowed=allowed)
    return from_options(source, options)


def build(values: Mapping[str, Any], *, where: str, labels: Mapping[str, str] | None = None) -> Config:
    """Validate nested values.

    Args:
        where: where the values come from, for errors.
        labels: what an error calls a key instead of `where: key`: the option as it was typed, say.

    Raises:
        ConfigError: an unknown key (with the nearest right one) or a bad value.
    """
    return Config.model_validate(values, context={"where": where, "labels": labels})
