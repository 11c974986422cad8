"""What is written about dependencies, Pythons and CI steps in several places is the same everywhere."""

import importlib
import re
import subprocess
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import REPOSITORY

CI = REPOSITORY / ".ci"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines if not line.startswith("depthstream")]


def test_the_tested_versions_lie_in_the_declared_ranges_and_none_is_missing() -> None:
    lines = (CI / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines if not line.startswith("#"))  # type: ignore[union-attr]
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    for wanted in requirements(*EXTRAS):
        assert pinned[canonicalize_name(wanted.name)] in wanted.specifier, wanted
    assert "torchvision" in pinned


def test_the_lowest_versions_are_those_of_the_project() -> None:
    printed = subprocess.run([sys.executable, str(CI / "lowest.py")], capture_output=True, text=True, check=True).stdout
    lowest = dict(line.split("==") for line in printed.splitlines())
    for wanted in requirements("openvino", "onnx", "plot", "int8", "web", "virtualcam", "rerun", "ray", "remote"):
        if wanted.name != "torch":
            assert f">={lowest[wanted.name]}" in str(wanted.specifier).split(",")


def test_ci_the_workflow_and_the_guide_for_contributors_name_the_same_steps_and_pythons() -> None:
    run = (CI / "run").read_text(encoding="utf-8")
    steps = re.search(r"^steps=\((.+)\)$", run, re.MULTILINE)
    assert steps is not None
    names = set(steps[1].split())
    named = re.search(r"^named=\((.+)\)$", run, re.MULTILINE)
    assert named is not None
    known = names | set(named[1].split())
    assert known == set(re.findall(r"^step_(\w+)\(\)", run, re.M)) == set(re.findall(r"^#   (\w+)  ", run, re.M))
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    matrix = re.search(r"step: \[(.+)\]", workflow)
    assert matrix is not None
    assert {*matrix[1].split(", "), "system", "test"} == names
    table = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert known <= {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    pythons = re.search(r"python: \[(.+)\]", workflow)
    assert pythons is not None
    classified = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)}
    assert set(re.findall(r'"([\d.]+)"', pythons[1])) >= classified


def test_the_installed_command_is_a_function() -> None:
    module, _, name = PROJECT["scripts"]["depthstream"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
