"""Generated text in the documentation is what the generator gives today."""

import sys

import pytest

from tests.support.paths import REPOSITORY


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`scripts/docs/generate.py` as a module; import path and modules are put back."""
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "scripts" / "docs"), *sys.path])
    before = set(sys.modules)
    import generate

    yield generate
    for name in set(sys.modules) - before:
        if name in ("generate", "api", "cost", "simulate", "speed_table"):
            del sys.modules[name]


def test_no_table_and_no_reference_is_stale(generator) -> None:  # type: ignore[no-untyped-def]
    stale = [str(path.relative_to(REPOSITORY)) for path in generator.stale()]
    assert not stale, f"{stale}: run `python scripts/docs/generate.py`"


def test_every_part_is_used_and_a_change_by_hand_is_noticed(generator) -> None:  # type: ignore[no-untyped-def]
    pages = "".join((REPOSITORY / page).read_text(encoding="utf-8") for page in generator.PAGES)
    assert {name for _, name, _ in generator.PART.findall(pages)} == set(generator.PARTS)
    assert pages.count("<!-- generated:") == pages.count("<!-- end -->") == len(generator.PARTS)
    edited = pages.replace("Built in: plausible depth", "Built in: perfect depth", 1)
    assert generator.filled(edited) == generator.filled(pages) == pages != edited


def test_the_reference_has_every_public_name(generator) -> None:  # type: ignore[no-untyped-def]
    import stream

    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    assert {line[5:-1] for line in page.splitlines() if line.startswith("### `")} == set(stream.__all__)
