"""The storeys of the program: who may import whom, no circles, and light parts that stay light.

docs/architecture.md draws the picture. A file at the root of `stream/` is ground: anyone may import it, and it imports
no room. A folder is a room.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

ROOT = REPOSITORY / "stream"
GROUND = "ground"
STOREYS: tuple[set[str], ...] = (
    {GROUND},
    {"models", "depthdata", "motion", "remote"},
    {"capture", "infer", "render", "sinks"},
    {"pipeline", "live"},
    {"jobs"},
    {"compare", "bench", "batch", "face"},
    {"survey"},
    {"cli"},
)
"""From the bottom up. Each room imports only what lies below it, or itself."""
MOST_GROUND_MODULES = 12
HANGS_ON_BASES = {"pipeline": {"capture", "infer", "render", "sinks"}, "live": {"capture", "sinks"}}
"""Rooms that know these others through their `base` alone."""
LIVE_KNOWS = {"render", "sinks", "capture"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(path: Path) -> Iterator[str]:
    """What a file imports when it runs, lazy imports included; those for type checkers alone are not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"  # noqa: PT018
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in submodules)


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports; parsing all takes seconds, so not while tests are collected."""
    return {name: set(imported(path)) for name, path in MODULES.items()}


def room(module: str) -> str:
    parts = module.split(".")
    if parts == ["stream"]:
        return "face"
    if parts == ["stream", "__main__"]:
        return "cli"
    return parts[1] if (ROOT / parts[1]).is_dir() else GROUND


def storey(name: str) -> int:
    (number,) = (number for number, rooms in enumerate(STOREYS) if name in rooms)
    return number


def violations() -> Iterator[str]:
    for module, names in imports().items():
        here = room(module)
        for name in sorted(names):
            root = name.partition(".")[0]
            if root in ("torch", "timm", "torchvision") and here not in ("models", "infer", "bench"):
                yield f"{module} imports {root}: only models, infer and bench may"
            if root in ("av", "cv2") and module != "stream.media":
                yield f"{module} imports {root}: only stream.media may"
            if root != "stream":
                continue
            there = room(name)
            if there == "face" and module != "stream.__main__":
                yield f"{module} imports the package's face: import the module that has the name"
            elif there != here and storey(there) >= storey(here):
                yield f"{module} imports {name}: {there} does not lie below {here}"
            elif there in HANGS_ON_BASES.get(here, set()) and not name.endswith(".base"):
                yield f"{module} imports {name}: {here} may import {there}.base alone"
            elif here == "live" and storey(there) > 0 and there not in LIVE_KNOWS | {here}:
                yield f"{module} imports {name}: live may import render, sinks.base and capture.base"


def test_each_room_imports_only_what_lies_below_it() -> None:
    assert list(violations()) == []


def test_no_import_runs_in_a_circle() -> None:
    graph = {name: {used for used in names if used in MODULES and used != name} for name, names in imports().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_the_ground_is_small() -> None:
    assert len([name for name in MODULES if room(name) in (GROUND, "face") or name == "stream.__main__"]) <= (
        MOST_GROUND_MODULES
    )


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("errors", set()), ("channel", set()), ("metrics", set()), ("version", set()), ("frames", {"numpy"})],
)
def test_the_ground_rests_on_little(name: str, allowed: set[str]) -> None:
    roots = {module.partition(".")[0] for module in imports()[f"stream.{name}"]} - {"stream"}
    assert roots - set(sys.stdlib_module_names) <= allowed


HEAVY = {"torch", "timm", "torchvision", "av", "cv2"}
SLOWER = HEAVY | {"numpy", "yaml", "rich"}  # the options of a command are made from pydantic models


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import stream", SLOWER | {"pydantic"}),
        ("from stream.cli.main import invoke; assert invoke(['--help']) == 0", SLOWER | {"pydantic"}),
        ("from stream.cli.main import invoke; assert invoke(['run', '--help']) == 0", SLOWER),
        ("from stream.cli.main import invoke; assert invoke(['models', '--json']) == 0", HEAVY),
    ],
)
def test_help_and_import_load_nothing_heavy(code: str, unwanted: set[str]) -> None:
    check = f"import sys; loaded = {unwanted} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", f"{code}\n{check}"], check=True, stdout=subprocess.DEVNULL)


def test_the_public_names_are_there_whenever_they_are_loaded() -> None:
    import stream

    assert {name for name in stream.__all__ if not hasattr(stream, name)} == set()
    assert set(stream.__all__) <= set(dir(stream))
    with pytest.raises(AttributeError, match="module 'stream' has no attribute 'Fraem'"):
        stream.Fraem  # noqa: B018
