"""Damaged config files, and well-formed ones with any value in any place."""

from pathlib import Path

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from stream.cli import configfile
from stream.config import Config
from stream.jobs.options import all_keys, build
from tests.fuzz.limits import fuzzed, limited, may_be_refused
from tests.fuzz.mutation import Change, changed, changes
from tests.support.paths import REPOSITORY

WHOLE = [
    *(path.read_bytes() for path in sorted((REPOSITORY / "configs").glob("*.yaml"))),
    configfile.to_yaml(Config()).encode(),
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=9), st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def load(path: Path) -> None:
    with may_be_refused():
        build(configfile.load(path), where=path.name)


@fuzzed(100)
@given(number=st.integers(0, len(WHOLE) - 1), made=changes)
def test_a_damaged_config_is_read_or_refused_in_one_line(tmp_path: Path, number: int, made: list[Change]) -> None:
    with limited(changed(WHOLE[number], made, WHOLE), tmp_path / "a.yaml") as path:
        load(path)


@fuzzed(100)
@example(values={"model.name": [None], "model.also": True})
@example(values={"source": "\0"})
@given(values=st.dictionaries(st.sampled_from([*all_keys()]), VALUES, min_size=1, max_size=3))
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(tmp_path: Path, values: dict[str, object]) -> None:
    nested: dict[str, object] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})  # type: ignore[assignment]
        inner[last] = value
    with limited(yaml.safe_dump(nested).encode(), tmp_path / "a.yaml") as path:
        load(path)
