"""From what was given (keywords, command-line options, keys of a file) to a `Config`.

Invariant: an error names a value as it was given: `--batch 0`, `batch=0` or the file and the key. An unknown key or
keyword is refused with the nearest right one.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from stream.config import Config, Panel
from stream.errors import ConfigError


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
    def default_text(self) -> str:
        """The default as it is typed."""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def name(self) -> str:
        """The keyword in Python."""
        return self.flag.removeprefix("--").replace("-", "_")


def fields(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key as a dotted path, with its field."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def all_keys() -> list[str]:
    """Every settable key as a dotted path."""
    return [key for key, _ in fields()]


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
"""Every option by its keyword; each key but `source` and `model.also` has one."""


def set_key(values: MutableMapping[str, Any], key: str, value: object, *, where: str) -> None:
    """Put `value` at the dotted `key` of nested `values`.

    Raises:
        ConfigError: the key does not exist.
    """
    if key not in all_keys():
        raise unknown_key(key, where=where)
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[leaf] = value


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
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            raise ConfigError(f"unknown option {name}", hint=f"did you mean {near[0]}?" if near else "")
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


def from_options(source: str | None, options: Mapping[str, object], *, base: dict[str, Any] | None = None) -> Config:
    """Config of a source and Python's keywords on top of nested `base` values; None means not given.

    Raises:
        ConfigError: an unknown option or a bad value.
    """
    values = base if base is not None else {}
    if source is not None:
        values["source"] = source
    labels = set_options(values, options, label=lambda one, value: f"{one.name}={value!r}")
    return build(values, where="config", labels=labels)


def build(values: Mapping[str, Any], *, where: str, labels: Mapping[str, str] | None = None) -> Config:
    """Validate nested values.

    Args:
        where: where the values come from, for errors.
        labels: what an error calls a key instead of `where: key`: the option as it was typed, say.

    Raises:
        ConfigError: an unknown key (with the nearest right one) or a bad value.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        if first["type"] == "extra_forbidden":
            raise unknown_key(path, where=where) from None
        label = (labels or {}).get(path, f"{where}: {path}")
        got = first.get("input")
        is_shown = not isinstance(got, str | int | float) or str(got) in label
        what, allowed = _explained(first)
        raise ConfigError(what + ("" if is_shown else f", got {got!r}"), where=label, allowed=allowed) from None


_REASONS = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "path": "must be a path",
    "tuple": "must be a list",
    "model": "must hold keys of its own",
}
"""pydantic's error types, whole or up to the first underscore, in our words."""


def _explained(error: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong, and what is allowed."""
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind == "literal_error":
        return "unknown value", str(context["expected"]).replace("'", "").replace(" or ", ", ")
    reason = _REASONS.get(kind) or _REASONS.get(kind.partition("_")[0])
    return (reason.format(**context) if reason else str(error["msg"]).removeprefix("Value error, ")), ""


def unknown_key(path: str, *, where: str) -> ConfigError:
    """The error for a key that does not exist, naming the nearest one."""
    keys = all_keys()
    near = difflib.get_close_matches(path, keys + list(Config.model_fields), n=1, cutoff=0.5)
    if not near:
        leaf = path.rpartition(".")[2]
        near = [key for key in keys if key.rpartition(".")[2] == leaf][:1]
    hint = f"did you mean {near[0]}?" if near else "`depthstream run --print-config` shows every key"
    return ConfigError(f"unknown key {path}", where=where, hint=hint)
