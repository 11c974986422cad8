"""Memory: bounded by the settings and not by the length of the video, and freed without the garbage collector."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

import stream
from stream.capture.video.file import VideoSource
from stream.errors import SourceError
from stream.jobs import models as jobs
from stream.pipeline.memory import ceiling_bytes, stills_ceiling_bytes
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
@pytest.mark.slow
def test_decoded_frames_do_not_wait_for_the_garbage_collector(rotation_deg: int, tmp_path: Path) -> None:
    source = VideoSource(write_video(tmp_path / "clip.mp4", frames=60, rotation_deg=rotation_deg))
    while gc.collect():  # what earlier tests have left may take several passes
        pass
    gc.disable()
    try:
        assert sum(1 for _ in source) == 60
        unreachable = gc.collect()
    finally:
        gc.enable()
        source.close()
    assert unreachable < 20  # the first frame and its side data; each further frame would add four


def test_a_video_beyond_the_budget_is_refused_before_it_starts(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", size_hw=(1200, 1600), frames=2)
    with pytest.raises(
        SourceError, match=r"clip\.mp4: a video of 1600×1200 takes 0\.\d GB.*up to 0\.4 GB.*--max-memory"
    ):
        stream.run(str(clip), output=tmp_path / "d.mp4", max_memory="1G")
    assert not (tmp_path / "d.mp4").exists()


def test_too_little_memory_is_told_before_it_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=3)
    monkeypatch.setattr(jobs, "free_memory_bytes", lambda: 10_000_000)
    report = stream.run(str(clip), output=tmp_path / "d.mp4", batch=2)
    assert [n for n in report.notes if "GB is free; try a smaller --batch" in n]
    monkeypatch.undo()
    assert not [n for n in stream.run(str(clip), output=tmp_path / "e.mp4").notes if "GB is free" in n]


PEAK_OF_STILLS = """
import sys, stream
def status(key): return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(key))
stream.run(sys.argv[1], output=sys.argv[2] + "/first", max_frames=1, backend="torch", device="cpu")
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # resets the peak, see proc(5)
stream.run(sys.argv[3], output=sys.argv[2] + "/out", backend="torch", device="cpu", max_memory=sys.argv[4])
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stills_stay_below_their_ceiling_and_a_small_budget_takes_less(tmp_path: Path) -> None:
    from PIL import Image

    size_hw, count = (2000, 3000), 6
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "small" / "a.png")
    for number in range(count):
        Image.radial_gradient("L").resize(size_hw[::-1]).convert("RGB").save(tmp_path / "large" / f"{number}.jpg")

    def taken(budget: str) -> int:
        folders = [str(tmp_path / "small"), str(tmp_path / budget), str(tmp_path / "large")]
        command = [sys.executable, "-c", PEAK_OF_STILLS, *folders, budget]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    ceiling = stills_ceiling_bytes(size_hw, size_hw, count=count, grouped=4, batch=1, in_flight=3, queue=4)
    free = taken("16G")
    assert 0.25 * ceiling < free <= ceiling
    assert taken("1G") <= min(free, 400_000_000)


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
