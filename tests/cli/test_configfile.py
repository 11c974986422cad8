"""YAML files of settings, and `--set`."""

from pathlib import Path

import pytest

from stream.cli import configfile
from stream.errors import ConfigError
from stream.jobs.options import build


def test_assignments_are_typed_and_checked() -> None:
    values: dict[str, object] = {"inference": {"batch": 2}}
    configfile.apply_assignments(values, ["inference.batch=8", "output.save=[npy, pfm]", "capture.start=1:30"])
    made = build(values, where="--set")
    assert (made.inference.batch, made.output.save, made.capture.start) == (8, ("npy", "pfm"), 90.0)
    with pytest.raises(ConfigError, match=r"did you mean inference\.batch"):
        configfile.apply_assignments(values, ["inference.bach=8"])
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        configfile.apply_assignments(values, ["inference.batch"])


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        configfile.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        configfile.load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="must hold sections"):
        configfile.load(tmp_path / "list.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert configfile.load(tmp_path / "empty.yaml") == {}


def test_yaml_is_read_as_version_1_2(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("source: 0\nrender: {range: 1:30}\noutput: {preview: off, path: 2024, audio: false}\n")
    built = build(configfile.load(path), where="test")
    assert (built.source, built.render.range) == ("0", "1:30")
    assert (built.output.preview, built.output.path, built.output.audio) == ("off", Path("2024"), False)
    values: dict[str, object] = {}
    configfile.apply_assignments(values, ["output.preview=off", "source=0", "capture.fps=.5", "render.range=-1:2"])
    built = build(values, where="test")
    assert (built.output.preview, built.source, built.capture.fps) == ("off", "0", 0.5)
    assert built.render.range == "-1:2"


def test_a_key_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("render:\n  alpha: 0.5\nrender:\n  alpha: 0.6\n")
    with pytest.raises(ConfigError, match="render occurs twice"):
        configfile.load(path)
