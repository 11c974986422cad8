"""Memory: bounded by the settings and not by the length of the video, and freed without the garbage collector."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

import stream
from stream.capture.video.file import VideoSource
from stream.jobs import models as jobs
from stream.pipeline.memory import ceiling_bytes
from tests.support.media_files import write_video
from tests.support.paths import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "measure" / "memory.py"
MB = 1e6


def test_the_ceiling_by_hand() -> None:
    # One pixel: 15 pictures and 3 in slots of 3 bytes, 9 maps of 4, two output pictures, decoder and encoder.
    alone = ceiling_bytes((0, 0), (0, 0), batch=1, in_flight=3, queue=4)
    assert ceiling_bytes((1, 1), (1, 1), batch=1, in_flight=3, queue=4) - alone == 18 * 3 + 9 * 4 + 6 + 180
    assert ceiling_bytes((1, 1), (1, 2), batch=1, in_flight=3, queue=4) - alone == 18 * 3 + 9 * 4 + 12 + 30 + 300
    assert ceiling_bytes((1, 1), (1, 1), batch=4, in_flight=2, queue=4) - alone == 34 * 3 + 17 * 4 + 6 + 180


@pytest.mark.parametrize("rotation_deg", [0, 90])
def test_decoded_frames_do_not_wait_for_the_garbage_collector(rotation_deg: int, tmp_path: Path) -> None:
    source = VideoSource(write_video(tmp_path / "clip.mp4", frames=60, rotation_deg=rotation_deg))
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in source) == 60
        unreachable = gc.collect()
    finally:
        gc.enable()
        source.close()
    assert unreachable < 20  # the first frame and its side data; each further frame would add four


def test_too_little_memory_is_told_before_it_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=3)
    monkeypatch.setattr(jobs, "free_memory_bytes", lambda: 10_000_000)
    report = stream.run(str(clip), output=tmp_path / "d.mp4", batch=2)
    assert [n for n in report.notes if "GB is free; try a smaller --batch" in n]
    monkeypatch.undo()
    assert not [n for n in stream.run(str(clip), output=tmp_path / "e.mp4").notes if "GB is free" in n]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("size_hw", "batch"), [((480, 640), 1), ((480, 640), 4), ((1080, 1920), 1), ((1080, 1920), 4)])
def test_a_run_stays_below_the_ceiling(size_hw: tuple[int, int], batch: int, tmp_path: Path) -> None:
    from stream.bench.clip import write_clip

    clip = tmp_path / "clip.mp4"
    write_clip(clip, size_hw, 60)
    command = [sys.executable, str(SCRIPT), "--frames", "60", "--one", str(clip), str(batch)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.3 * found["ceiling"] < found["taken"] <= found["ceiling"]
