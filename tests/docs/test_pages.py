"""What the documentation points at exists: links, paths, commands and their options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.cli.main import app
from stream.models import registry
from tests.support.paths import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob(".github/*.md")])
COMMAND = re.compile(r"^    (depthstream .+)$|`(depthstream [^`]+)`", re.MULTILINE)
PATH = re.compile(r"`((?:stream|tests|scripts|docs|configs|examples|\.ci|\.github)/[\w./-]*)`")


def ids(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_and_paths_exist(page: Path) -> None:
    text = text_of(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(text_of(linked)), target
    missing = [path for path in PATH.findall(text) if not (REPOSITORY / path).exists()]
    assert not missing


def test_each_promise_on_security_names_a_test_that_exists() -> None:
    rows = re.findall(
        r"^\| (.+) \| `(tests/[\w/]+\.py)(?:::(\w+))?` \|$", text_of(REPOSITORY / "SECURITY.md"), re.MULTILINE
    )
    assert len(rows) == 20
    for promise, path, name in rows:
        assert f"def {name or 'test_'}" in text_of(REPOSITORY / path), promise


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block, span in COMMAND.findall(text_of(page)):
            command = (block or span).split("  #")[0].strip()
            if "…" not in command:
                yield ids(page), command


@pytest.mark.parametrize(("page", "command"), [*dict.fromkeys(commands())])
def test_commands_are_understood(page: str, command: str) -> None:
    known: Any = app
    words = shlex.split(command)[1:]
    if words[-1] == "--serve":  # may stand alone at the end
        words[-1] = "--serve=127.0.0.1:8765"
    if words[0] not in known.commands:
        words = ["run", *words]
    while hasattr(known, "commands"):
        known, words = known.commands[words[0]], words[1:]
    if words == ["--help"]:
        return
    found = known.make_context("depthstream", words)
    models = found.params.get("model") or ()
    for model in [models] if isinstance(models, str) else models:
        registry.find(model.partition("=")[0])


def test_the_architecture_page_names_every_base_module_and_every_package() -> None:
    named = set(PATH.findall(text_of(REPOSITORY / "docs" / "architecture.md")))
    root = REPOSITORY / "stream"
    modules = {f"stream/{path.name}" for path in root.glob("*.py")}
    packages = {f"stream/{path.parent.name}/" for path in root.glob("*/__init__.py")}
    assert modules <= named, modules - named
    assert packages <= named, packages - named
