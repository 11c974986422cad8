"""YAML files of settings, and `--set`.

Invariant: `to_yaml` writes what `load` reads. Scalars follow YAML 1.2: `off` is a word and `1:30` is no number.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.config import Config
from stream.errors import ConfigError
from stream.jobs.options import build, set_key

if TYPE_CHECKING:
    from yaml import MappingNode, SafeLoader


@cache
def _loader() -> "type[SafeLoader]":
    """PyYAML's loader with YAML 1.2's scalars; PyYAML itself follows 1.1, where `off` is False and `1:30` is 90."""
    import yaml

    class Yaml12(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  as the base class declares it

        def construct_mapping(self, node: "MappingNode", deep: bool = False) -> dict[Any, Any]:
            """Refuses a key that occurs twice, where PyYAML would take the last."""
            keys = [key.value for key, _ in node.value]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                raise yaml.YAMLError(f"{twice} occurs twice, line {node.start_mark.line + 1}")
            return super().construct_mapping(node, deep=deep)

    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
        ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
        ("int", r"[-+]?[0-9]+", tuple("-+0123456789")),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", tuple("-+.0123456789")),
    ):
        Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)
    return Yaml12


def load(path: Path) -> dict[str, Any]:
    """Nested values of a YAML file, checked.

    Raises:
        ConfigError: the file is missing, not YAML, or holds an unknown key or bad value.
    """
    import yaml

    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _loader())
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="see configs/ for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"is not valid YAML: {' '.join(str(error).split())}", where=str(path)) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError("must hold sections such as model: and output:", where=str(path))
    build(values, where=str(path))
    return values


def apply_assignments(values: dict[str, Any], assignments: Iterable[str]) -> dict[str, str]:
    """Apply the KEY=VALUE of each `--set` to nested `values`; VALUE is read as YAML.

    Returns:
        What errors call the keys that were set, as `build` takes it.

    Raises:
        ConfigError: an assignment without `=`, or an unknown key.
    """
    import yaml

    labels: dict[str, str] = {}
    for assignment in assignments:
        key, sep, text = assignment.partition("=")
        if not sep:
            raise ConfigError("must be KEY=VALUE", where=f"--set {assignment}")
        try:
            value = yaml.load(text, _loader())
        except yaml.YAMLError:
            value = text
        set_key(values, key.strip(), value, where="--set")
        labels[key.strip()] = f"--set {assignment}"
    return labels


def to_yaml(config: Config) -> str:
    """YAML that `load` reads back to an equal config."""
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
