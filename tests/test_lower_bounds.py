"""No lower bound admits a release with a hole that CONTRIBUTING.md lists."""

import re
import tomllib
from collections.abc import Iterator

from tests.support.paths import REPOSITORY

ROW = re.compile(r"^\| ([\w-]+) \| ([\d.]+) \| .*CVE-\d{4}-\d{4,}", re.MULTILINE)
BOUND = re.compile(r"([\w-]+)>=([\d.]+)")
HOLES = (
    ("torch", "2.6"),
    ("pillow", "12.3"),
    ("pillow-heif", "1.3"),
    ("pyyaml", "5.4"),
    ("filelock", "3.20.3"),
    ("starlette", "0.49.1"),
    ("h11", "0.16"),
)
"""Of each that hostile files or visitors reach, the first release without the holes known when this was written."""


def bounds() -> Iterator[tuple[str, str]]:
    """(package, lowest version) of every requirement that has one."""
    content = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    project = content["project"]
    lines = [*project["dependencies"], *content["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        lines += extra
    for line in lines:
        if match := BOUND.match(line):
            yield match[1], match[2]


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def listed() -> dict[str, str]:
    return dict(ROW.findall((REPOSITORY / "CONTRIBUTING.md").read_text()))


def test_every_bound_is_the_one_of_the_list() -> None:
    table, found = listed(), list(bounds())
    assert len(table) >= len(HOLES)
    assert table.keys() <= {name for name, _ in found}
    assert [(name, version) for name, version in found if table.get(name, version) != version] == [("torch", "2.13")]


def test_the_list_excludes_the_known_holes() -> None:
    table = listed()
    assert [name for name, fixed in HOLES if numbers(table[name]) < numbers(fixed)] == []
