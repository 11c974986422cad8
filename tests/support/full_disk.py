"""A disk that is full for one file."""

from pathlib import Path
from typing import BinaryIO

import pytest

from stream import files


def fill_disk(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let the temporary file `path` have no space; all others are as ever."""
    create = files.create_file

    def full(asked: Path) -> BinaryIO:
        return Path("/dev/full").open("wb") if asked == path else create(asked)

    monkeypatch.setattr(files, "create_file", full)
