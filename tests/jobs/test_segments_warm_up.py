"""A segment that is made alone: the frames before it bring what remembers them into its state."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from stream.jobs.loaded import Model
from stream.jobs.options import from_options
from stream.jobs.segments.cutting import warm_up_of_range_s
from stream.jobs.segments.store import LocalStore
from stream.jobs.segments.work import run_rows
from tests.support.media_files import Rgb, write_video
from tests.support.segments import in_pieces, plan_by_frames, started

RATE, BORDER = 10, 60


class Brightness(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        return x.mean(1)


def brighter(index: int, size_hw: tuple[int, int]) -> Rgb:
    """A ramp whose ends move all the time, so that a range that follows them never rests."""
    high = 150 + 100 * math.sin(index / 5)
    ramp = np.linspace(0.2 * high, high, size_hw[1]).astype(np.uint8)
    return np.broadcast_to(ramp[None, :, None], (*size_hw, 3)).copy()


@pytest.mark.parametrize(("seconds", "at_most", "at_least"), [(warm_up_of_range_s(), 1, 0), (0, 255, 20)])
def test_a_range_that_follows_the_clip_needs_its_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, at_most: int, at_least: int
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_video(
        tmp_path / "clip.mp4", frames=BORDER + 10, gop=10, rate=Fraction(RATE), size_hw=(32, 48), draw=brighter
    )
    config = from_options(str(source), {"output": "out.mkv", "codec": "ffv1", "colormap": "gray", "range": "ema"})
    plan = plan_by_frames(config, [0, BORDER], warm=math.ceil(seconds * RATE))
    together, alone = (started(LocalStore(tmp_path / name), plan) for name in ("together", "alone"))
    with Model.from_module(Brightness(), output="disparity", size=32, multiple_of=8, device="cpu", threads=1) as model:
        run_rows(config, plan, plan.rows, together, model=model)
        records = run_rows(config, plan, plan.rows[1:], alone, model=model)
    assert [record.frames for record in records] == [10]
    wanted, found = in_pieces(together, records), in_pieces(alone, records)
    assert [time for time, _ in found] == [time for time, _ in wanted]
    away = max(np.abs(one.astype(int) - other).max() for (_, one), (_, other) in zip(found, wanted, strict=True))
    assert at_least <= away <= at_most
