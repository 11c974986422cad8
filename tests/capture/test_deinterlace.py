"""Interlaced video: what is combed becomes smooth, frame by frame, and progressive video is not touched."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from stream.capture.open import open_source
from stream.capture.video.deinterlace import Deinterlacer
from stream.config import CaptureConfig
from stream.errors import UsageError
from stream.frames import RgbImage
from stream.media import av
from tests.support.media_files import write_video

FRAMES, SIZE = 10, (64, 96)
ENCODERS = {
    "h264.mp4": ("libx264", {"flags": "+ildct+ilme", "x264-params": "tff=1"}),
    "mpeg2.ts": ("mpeg2video", {"flags": "+ildct+ilme"}),
}


def fields(index: int, size_hw: tuple[int, int]) -> RgbImage:
    """A white bar that moves by 4 pixels a field: the two fields of a frame show it in different places."""
    picture = np.full((*size_hw, 3), 30, np.uint8)
    for parity in (0, 1):
        left = 8 + 4 * (2 * index + parity) % (size_hw[1] - 24)
        picture[parity::2, left : left + 8] = 220
    return picture


def combing(rgb: RgbImage) -> float:
    """Mean difference of a line from the two around it."""
    lines = rgb.mean(2)
    return float(np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean())


def interlaced(folder: Path, name: str, frames: int = FRAMES) -> Path:
    codec, options = ENCODERS[name]
    return write_video(folder / name, frames=frames, size_hw=SIZE, codec=codec, options=options, draw=fields)


def read(path: Path, deinterlace: str) -> tuple[list[int], list[float], list[str]]:
    """pts and combing of each frame, and the notes."""
    with closing(open_source(str(path), options=CaptureConfig.model_validate({"deinterlace": deinterlace}))) as source:
        frames = list(source)
        notes = [*source.info.notes, *source.log.notes]
    return [frame.pts for frame in frames], [combing(frame.rgb) for frame in frames], notes


@pytest.mark.parametrize("name", list(ENCODERS))
def test_interlaced_video_loses_its_combs_and_nothing_else(tmp_path: Path, name: str) -> None:
    clip = interlaced(tmp_path, name)
    times, combed, silent = read(clip, "off")
    assert len(times) == FRAMES
    assert not [note for note in silent if "interlace" in note]
    for mode in ("auto", "on"):
        same_times, smooth, notes = read(clip, mode)
        assert same_times == times
        assert max(smooth) < min(combed) / 3
        assert [note for note in notes if "interlace" in note] == ["interlaced video: deinterlaced (bwdif)"]


def test_a_part_and_a_single_frame_are_deinterlaced_too(tmp_path: Path) -> None:
    clip = interlaced(tmp_path, "mpeg2.ts")
    options = CaptureConfig(start=0.2, max_frames=3)
    with closing(open_source(str(clip), options=options)) as source:
        frames = list(source)
    assert [round(frame.time_s * 25) for frame in frames] == [5, 6, 7]
    assert max(combing(frame.rgb) for frame in frames) < 5
    times, _, _ = read(interlaced(tmp_path, "h264.mp4", frames=1), "auto")
    assert times == [0]


def test_progressive_video_is_passed_on_as_it_is(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=3)
    notes: list[str] = []
    deinterlacer = Deinterlacer("auto", notes.append)
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            (same,) = deinterlacer.put(frame)
            assert same is frame
    assert (list(deinterlacer.flush()), notes) == ([], [])


def test_colours_and_size_changes_survive(tmp_path: Path) -> None:
    one = interlaced(tmp_path, "h264.mp4")
    deinterlacer = Deinterlacer("auto", lambda _note: None)
    with av.open(str(one)) as container:
        large = list(container.decode(video=0))
    small = [frame.reformat(48, 32) for frame in large]
    for before, after in zip(small, large, strict=True):
        before.pts, before.time_base = after.pts, after.time_base
    made = [done for frame in (*large, *small) for done in deinterlacer.put(frame)]
    made += deinterlacer.flush()
    assert [frame.pts for frame in made] == [frame.pts for frame in (*large, *small)]
    assert [frame.width for frame in made] == [SIZE[1]] * FRAMES + [48] * FRAMES
    assert {(frame.colorspace, frame.color_range) for frame in made[:FRAMES]} == {
        (frame.colorspace, frame.color_range) for frame in large
    }


def test_what_is_not_decoded_as_video_refuses_the_option() -> None:
    with pytest.raises(UsageError, match="--deinterlace: does not apply: a pattern needs no video decoder"):
        open_source("pattern:testsrc2", options=CaptureConfig(deinterlace="on"))
