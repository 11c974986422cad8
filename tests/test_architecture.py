"""The borders of the house: who may import whom, and that the light parts stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

ROOT = REPOSITORY / "stream"
MODULES = sorted(ROOT.rglob("*.py"))
STAGES = {"capture", "models", "infer", "render", "sinks"}


def imports(path: Path) -> set[str]:
    """Modules a file imports when it runs, lazy imports included; those for type checkers are not."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_stages_do_not_import_one_another(path: Path) -> None:
    here = room(path)
    if here not in STAGES:
        return
    allowed = {here} | ({"models"} if here == "infer" else set())
    used = {name.split(".")[1] for name in imports(path) if name.startswith("stream.")}
    assert used & STAGES <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_only_in_models_and_infer_and_av_only_through_the_door(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    if room(path) not in ("models", "infer", "bench"):
        assert not roots & {"torch", "timm"}
    if path.name != "media.py":
        assert not roots & {"av", "cv2"}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("errors.py", set()),
        ("channel.py", set()),
        ("metrics.py", set()),
        ("frames.py", {"numpy"}),
    ],
)
def test_the_foundation_rests_on_little(name: str, allowed: set[str]) -> None:
    roots = {module.split(".")[0] for module in imports(ROOT / name)}
    assert roots - set(sys.stdlib_module_names) <= allowed


WIRING = ("pipeline.py", "jobs.py", "outputs.py", "compare.py", "multi_inference.py", "preview.py")


def test_only_the_wiring_imports_stages_together() -> None:
    for path in MODULES:
        if room(path) == "" and path.name not in WIRING:
            used = {name.split(".")[1] for name in imports(path) if name.startswith("stream.")} & STAGES
            assert len(used) <= 1, path


HEAVY = {"torch", "timm", "av", "cv2"}
SLOWER = HEAVY | {"numpy", "yaml", "rich"}  # for a command's own options Typer itself loads pydantic


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
