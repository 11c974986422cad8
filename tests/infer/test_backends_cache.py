"""The cache of exported models: entries are kept, checked, and made again if damaged."""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from stream.infer.backends import cache
from stream.infer.backends.cache import RECORD, ModelCache

KEY = {"model": "tiny", "size": [1, 24, 32]}


class Maker:
    """Writes a file and counts how often it did so."""

    def __init__(self, content: str = "weights") -> None:
        self.content, self.times = content, 0

    def __call__(self, folder: Path) -> Mapping[str, float]:
        assert not list(folder.iterdir())
        (folder / "model.bin").write_text(self.content)
        self.times += 1
        return {"rms": 0.25}


@pytest.fixture
def kept(tmp_path: Path, notes: list[str]) -> ModelCache:
    return ModelCache(tmp_path / "cache")


def test_an_entry_is_made_once(kept: ModelCache, tmp_path: Path, notes: list[str]) -> None:
    make = Maker()
    first = kept.entry(KEY, make)
    again = ModelCache(tmp_path / "cache").entry(dict(KEY), make)
    assert (first.folder, first.facts) == (again.folder, again.facts)
    assert (again.folder / "model.bin").read_text() == "weights"
    assert again.facts == {"rms": 0.25}
    assert make.times == 1
    assert not notes


def test_another_key_is_another_entry(kept: ModelCache) -> None:
    make = Maker()
    folders = {kept.entry({**KEY, "version": version}, make).folder for version in "ab"}
    assert len(folders) == make.times == 2


def test_recall_makes_nothing(kept: ModelCache) -> None:
    assert kept.recall(KEY) is None
    kept.entry(KEY, Maker())
    assert kept.recall(KEY) == {"rms": 0.25}


def damage_file(folder: Path) -> None:
    (folder / "model.bin").write_text("Weights")


def remove_file(folder: Path) -> None:
    (folder / "model.bin").unlink()


def add_file(folder: Path) -> None:
    (folder / "model.xml").write_text("")


def remove_record(folder: Path) -> None:
    (folder / RECORD).unlink()


def damage_record(folder: Path) -> None:
    (folder / RECORD).write_text("[]")


def other_key(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    record["key"]["model"] = "large"
    (folder / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize("damage", [damage_file, remove_file, add_file, remove_record, damage_record, other_key])
def test_what_cannot_be_trusted_is_made_again_and_said(kept: ModelCache, notes: list[str], damage: object) -> None:
    make = Maker()
    damage(kept.entry(KEY, make).folder)  # type: ignore[operator]
    entry = kept.entry(KEY, make)
    assert make.times == 2
    assert [path.name for path in sorted(entry.folder.iterdir())] == [RECORD, "model.bin"]
    assert (entry.folder / "model.bin").read_text() == "weights"
    assert notes == [f"{entry.folder} is damaged; exporting it again"]


def test_a_maker_that_fails_leaves_nothing(kept: ModelCache) -> None:
    def fail(folder: Path) -> Mapping[str, float]:
        (folder / "model.bin").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.entry(KEY, fail)
    assert [path.suffix for path in kept.folder.iterdir()] == [".lock"]
    assert kept.entry(KEY, Maker()).facts == {"rms": 0.25}


def test_two_that_want_the_same_make_it_once(kept: ModelCache) -> None:
    makes, may_go_on = Maker(), threading.Event()

    def slow(folder: Path) -> Mapping[str, float]:
        assert may_go_on.wait(20)
        return makes(folder)

    threads = [threading.Thread(target=kept.entry, args=(KEY, slow)) for _ in range(2)]
    for thread in threads:
        thread.start()
    may_go_on.set()
    for thread in threads:
        thread.join(20)
    assert makes.times == 1


def test_a_folder_that_cannot_be_made_costs_only_the_keeping(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / "cache").write_text("a file")
    kept = ModelCache(tmp_path / "cache")
    entry = kept.entry(KEY, Maker())
    folder = entry.folder
    assert (folder / "model.bin").read_text() == "weights"
    assert entry.facts == {"rms": 0.25}
    assert notes == [f"{tmp_path / 'cache'} is not writable (File exists); exported models are not kept"]
    del entry
    assert not folder.exists()


def test_the_longest_unused_go_first(kept: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 2500)
    entries = [kept.entry({"number": number}, Maker("x" * 1000)) for number in range(2)]
    for number, entry in enumerate(entries):
        os.utime(entry.folder / RECORD, (number, number))
    kept.entry({"number": 0}, Maker())  # marks it as the more recently used
    newest = kept.entry({"number": 2}, Maker("x" * 1000))
    assert [entry.folder.is_dir() for entry in entries] == [True, False]
    assert newest.folder.is_dir()


def test_one_that_is_too_large_by_itself_is_kept_while_it_is_the_newest(
    kept: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 10)
    assert kept.entry(KEY, Maker()).folder.is_dir()
    assert kept.recall(KEY) is not None
