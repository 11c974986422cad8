"""Damaged checkpoints, and pickles that are damaged inside a sound archive."""

import io
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from stream.models.weights.read import fill, read_state_dict
from tests.fuzz.limits import fuzzed, limited, may_be_refused
from tests.fuzz.mutation import Change, changed, changes


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))


def saved(content: object, *, is_zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=is_zipped)
    return file.getvalue()


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    tensors = network().state_dict()
    odd = {**tensors, "0.weight": tensors["0.weight"].transpose(0, 1).contiguous().transpose(0, 1)}
    return {
        "a.safetensors": save({key: value.contiguous() for key, value in tensors.items()}),
        "a.pth": saved(tensors),
        "legacy.pth": saved(tensors, is_zipped=False),
        "wrapped.pt": saved({"state_dict": {f"module.{key}": value for key, value in odd.items()}, "epoch": 3}),
        "half.pth": saved({key: value.half() for key, value in tensors.items()}),
    }


def load(path: Path) -> None:
    """Read a file into a network, and run that: a tensor can look right and be of no use."""
    made = network().eval()
    fill(made, read_state_dict(path), where=path.name)
    with torch.no_grad():
        made(torch.zeros(1, 3, 8, 8))


def repickled(archive: bytes, made: list[Change], others: list[bytes]) -> bytes:
    """The archive with changes to its pickle alone, and right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, changed(data, made, others) if entry.filename.endswith(".pkl") else data)
    return file.getvalue()


def test_the_whole_files_are_read(whole: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in whole.items():
        with limited(content, tmp_path / name) as path:
            load(path)


@fuzzed(150)
@given(number=st.integers(0, 4), inside=st.booleans(), made=changes)
def test_a_damaged_checkpoint_is_read_or_refused_in_one_line(
    whole: dict[str, bytes], tmp_path: Path, number: int, inside: bool, made: list[Change]
) -> None:
    name = [*whole][number]
    others = list(whole.values())
    is_archive = zipfile.is_zipfile(io.BytesIO(whole[name]))
    damaged = repickled if inside and is_archive else changed
    with limited(damaged(whole[name], made, others), tmp_path / name) as path, may_be_refused():
        load(path)
