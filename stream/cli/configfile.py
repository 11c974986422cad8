"""YAML files of settings, and `--set`.

Invariant: `to_yaml` writes what `load` reads. Scalars follow YAML 1.2: `off` is a word and `1:30` is no number.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.config import Config
from stream.errors import ConfigError, printable
from stream.jobs.options import build, set_key

if TYPE_CHECKING:
    from yaml import MappingNode, Node, SafeLoader

MAX_BYTES = 1_000_000
"""The longest file; one with every option has 4 kB."""
_MAX_LEVELS = 20
_MAX_VALUES = 10_000
"""The most values, each as often as aliases repeat it."""
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
"""What PyYAML raises for values that do not fit their explicit tags (`!!int x`), and for very long numbers."""


@cache
def _loader() -> "type[SafeLoader]":
    """PyYAML's loader with YAML 1.2's scalars; PyYAML itself follows 1.1, where `off` is False and `1:30` is 90."""
    import yaml

    class Yaml12(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  as the base class declares it

        level = 0

        def compose_node(self, parent: "Node | None", index: Any) -> "Node | None":
            """Refuses what is nested so deeply that Python's stack would end, or contains itself."""
            self.level += 1
            if self.level > _MAX_LEVELS:
                raise yaml.YAMLError(f"is nested more than {_MAX_LEVELS} deep")
            node = super().compose_node(parent, index)
            self.level -= 1
            return node

        def get_single_node(self) -> "Node | None":
            """Refuses a document whose aliases multiply."""
            node = super().get_single_node()
            if node is not None and _count(node, {}) > _MAX_VALUES:
                raise yaml.YAMLError(f"holds more than {_MAX_VALUES:,} values")
            return node

        def construct_mapping(self, node: "MappingNode", deep: bool = False) -> dict[Any, Any]:
            """Refuses a key that occurs twice, where PyYAML would take the last."""
            keys = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
            if twice := next((key for key, count in keys.items() if count > 1), None):
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


def _count(node: "Node", counts: dict[int, int]) -> int:
    """Number of values in a node, those of an alias as often as it occurs; one that contains itself has too many."""
    if id(node) not in counts:
        counts[id(node)] = _MAX_VALUES + 1
        inner = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        counts[id(node)] = 1 + (0 if isinstance(node.value, str) else sum(_count(part, counts) for part in inner))
    return counts[id(node)]


def load(path: Path) -> dict[str, Any]:
    """Nested values of a YAML file, checked.

    Raises:
        ConfigError: the file is missing, not YAML, or holds an unknown key or bad value.
    """
    import yaml

    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for ever
            raise ConfigError("cannot be read: it is no file", where=str(path))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"cannot be read: it has more than {MAX_BYTES // 10**6} MB", where=str(path))
        values = yaml.load(content.decode(), _loader())
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="see configs/ for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    except (yaml.YAMLError, *_DAMAGE) as error:
        raise ConfigError(f"is not valid YAML: {' '.join(str(error).split())[:500]}", where=str(path)) from error
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
        except (yaml.YAMLError, *_DAMAGE):
            value = text
        labels[set_key(values, key.strip(), value, where=f"--set {assignment}")] = f"--set {assignment}"
    return labels


def to_yaml(config: Config) -> str:
    """YAML that `load` reads back to an equal config."""
    import yaml

    values = config.model_dump(mode="json")
    if isinstance(config.output.path, Path) and values["output"]["path"] == "-":
        values["output"]["path"] = "./-"  # a file of this name; - alone is stdout
    if config.sources and "batch" not in config.inference.model_fields_set:
        del values["inference"]["batch"]  # the number of sources, where that is faster
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    # What PyYAML takes as printable may still act on a terminal.
    return text if printable(text, lines=True) == text else yaml.safe_dump(values, sort_keys=False)
