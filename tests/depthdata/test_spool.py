"""Depth that waits on the disk comes back bit for bit, and leaves nothing behind."""

import os
import shutil
from dataclasses import replace
from fractions import Fraction
from io import BufferedIOBase
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from stream.depthdata import spool as spools
from stream.depthdata.spool import Maps, Spool
from stream.errors import OutputError, SinkError
from stream.frames import Depth, DepthKind, Intrinsics
from tests.support.fakes import frame


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(spools.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def depths() -> list[Depth]:
    values = np.random.default_rng(1).normal(0, 1e3, (5, 7)).astype(np.float32)
    values[0, 0], values[0, 1] = -0.0, np.float32(1e-45)
    mask = np.ones((5, 7), bool)
    mask[2:4] = False
    camera = Intrinsics(fx=500.5, fy=501, cx=3.5, cy=2.5)
    plain = Depth(values=values, kind=DepthKind.RELATIVE_DEPTH, index=3, model="m")
    masked = Depth(
        values=values, kind=DepthKind.RELATIVE_DEPTH, index=4, model="m", valid=mask, intrinsics=camera,
        confidence=np.arange(35, dtype=np.float32).reshape(5, 7),
    )  # fmt: skip
    tall = Depth(values=values.T.copy(), kind=DepthKind.RELATIVE_DEPTH, index=9, model="m")
    return [plain, masked, tall]


@pytest.mark.parametrize("keeps_confidence", [True, False])
def test_everything_comes_back_in_order_and_more_than_once(temporary: Path, keeps_confidence: bool) -> None:
    spool = Spool((5, 7), 3, keeps_confidence=keeps_confidence)
    for depth in depths():
        spool.append(replace(frame(depth.index), time_base=Fraction(1001, 30000)), depth)
    for _ in range(2):
        found = list(spool)
        assert [time for time, _ in found] == [index * 512 * Fraction(1001, 30000) for index in (3, 4, 9)]
        for (_, back), depth in zip(found, depths(), strict=True):
            assert back.values.tobytes() == depth.values.tobytes()
            assert (back.kind, back.index, back.model) == (depth.kind, depth.index, depth.model)
            assert back.intrinsics == depth.intrinsics
            assert (back.valid is None) == (depth.valid is None)
            wanted = depth.confidence if keeps_confidence else None
            assert (back.confidence is None) == (wanted is None)
            assert wanted is None or np.array_equal(back.confidence, wanted)
    spool.close()
    spool.close()
    assert list(temporary.iterdir()) == []


def test_a_disk_that_fills_up(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr(spools.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "w+b"))  # noqa: SIM115
    spool = Spool((5, 7), None)
    large = Depth(values=np.zeros((100, 100), np.float32), kind=DepthKind.METRIC_DEPTH, index=0)
    with pytest.raises(SinkError, match=r"cannot be stored: No space left on device; free some space, or set TMPDIR"):
        spool.append(frame(0), large)
    spool.close()


def test_a_disk_that_is_too_small_is_refused_first(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10_000_000))
    with pytest.raises(OutputError, match=r"100 temporary depth maps would take about 123 MB.*set TMPDIR"):
        Spool((480, 640), 100)
    Spool((480, 640), None).close()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("change", ["size", "time base", "cut off in a map", "cut off in a header", "becomes shorter"])
def test_a_damaged_file_is_named(temporary: Path, change: str) -> None:
    path = temporary / "depth.spool"
    with path.open("xb") as file:
        maps = Maps(cast("BufferedIOBase", file), temporary)
        for depth in depths():
            maps.append(frame(depth.index), depth)
    data = bytearray(path.read_bytes())
    if change == "size":
        data[32:40] = (2**40).to_bytes(8, "little")
    elif change == "time base":
        data[24:32] = bytes(8)
    elif change.startswith("cut off"):
        del data[-20 if change.endswith("map") else 100 :]
    path.write_bytes(data)
    with path.open("rb", buffering=0) as stored:
        found = iter(Maps(cast("BufferedIOBase", stored), temporary))
        if change == "becomes shorter":
            next(found)
            os.truncate(path, 300)
        with pytest.raises(SinkError, match="the depth maps are damaged since they were stored"):
            list(found)
