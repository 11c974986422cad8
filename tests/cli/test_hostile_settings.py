"""Settings files that were made to do harm: one line, soon."""

import os
from pathlib import Path

import pytest

from stream.cli import configfile
from stream.cli.configfile import apply_assignments, load
from stream.errors import ConfigError

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested more than 20 deep"),
        ("{a: " * 100_000, "nested more than 20 deep"),
        ("- " * 100_000, "nested more than 20 deep"),
        ("model: " + "!!set {? " * 100_000, "nested more than 20 deep"),
        (BOMB, "holds more than 10,000 values"),
        ("model: &a\n  name: *a\n", "holds more than 10,000 values"),
        ("model: &a [*a]\n", "holds more than 10,000 values"),
        ("\n".join(f"k{n}: 1" for n in range(10_001)), "holds more than 10,000 values"),
        ("x" * 2_000_000, "has more than 1 MB"),
        ("capture: {max_frames: " + "9" * 5000 + "}", "is not valid YAML"),
        ("capture: {max_frames: !!int x}", "is not valid YAML"),
        ("capture: {max_frames: !!int ''}", "is not valid YAML"),
        ("capture: {live: !!bool maybe}", "is not valid YAML"),
        ("capture: {fps: !!timestamp x}", "is not valid YAML"),
        ("model: !!python/object/apply:os.system ['touch ran']", "is not valid YAML"),
        ("? [a, b]\n: 1\n", "is not valid YAML"),
        ("a: 1\na: 2\n", "a occurs twice"),
    ],
)
def test_a_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "a.yaml")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="it is no file"):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize("value", ["[" * 5000, "!!int x", "9" * 5000])
def test_an_assignment_is_text_if_it_is_no_value(value: str) -> None:
    values: dict[str, object] = {}
    apply_assignments(values, [f"model.name={value}"])
    assert values == {"model": {"name": value}}


def test_aliases_may_be_used() -> None:
    import yaml

    text = "a: &x {width: 3, on: off}\nb: *x\nc: {<<: 1}\n"
    assert yaml.load(text, configfile._loader())["b"] == {"width": 3, "on": "off"}
