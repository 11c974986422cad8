"""The clock in the picture: what it says is read back from a picture that was scaled, compressed and moved."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from stream.capture.clock import PERIOD_MS, ClockSource, drawn, locate, read
from stream.capture.open import open_source
from stream.capture.pattern import Pacing, PatternSource
from stream.cli.main import invoke
from stream.config import CaptureConfig
from stream.errors import SourceNotFoundError
from stream.media import cv2

TIMES_MS = (0, 1, 123_456, 7_654_321, PERIOD_MS - 1)


def busy(height: int, width: int) -> np.ndarray:
    """Blocks of all colours, the border's magenta among them."""
    corners = np.random.default_rng(0).integers(0, 2, (height // 16, width // 16, 3), dtype=np.uint8) * np.uint8(255)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("time_ms", TIMES_MS)
@pytest.mark.parametrize("size", [(480, 640), (241, 319), (640, 360), (1080, 1920)])
def test_the_time_is_read_back(time_ms: int, size: tuple[int, int]) -> None:
    image = drawn(busy(*size), time_ms + 3 * PERIOD_MS)
    box = locate(image)
    assert box is not None
    assert read(image, box) == time_ms


@pytest.mark.parametrize("scale", [0.4, 0.77, 1.0, 1.9])
def test_scaling_and_jpeg_do_no_harm(scale: float) -> None:
    shown = np.zeros((1000, 1600, 3), np.uint8)
    image = cv2.resize(drawn(busy(480, 640), 7_654_321), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ok, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert ok
    shown[50 : 50 + image.shape[0], 300 : 300 + image.shape[1]] = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    box = locate(shown)
    assert box is not None
    assert read(shown, box) == 7_654_321


def test_there_is_no_time_without_a_clock_nor_in_parts_of_two() -> None:
    first, second = (drawn(busy(480, 640), time_ms) for time_ms in (1_000, 16_777_000))
    box = locate(first)
    assert box is not None
    assert locate(busy(480, 640)) is None
    assert read(np.zeros_like(first), box) is None
    torn = first.copy()
    torn[240:] = second[240:]
    assert read(torn, box) is None


def test_each_frame_has_the_time_of_its_capture() -> None:
    ticks = iter(range(100, 200))
    pattern = PatternSource("testsrc2", size_hw=(240, 320), pacing=Pacing.NONE, max_frames=3, clock=lambda: next(ticks))
    with closing(ClockSource(pattern)) as source:
        frames = list(source)
    assert source.info.name == "pattern:clock"
    for frame in frames:
        box = locate(frame.rgb)
        assert box is not None
        assert read(frame.rgb, box) == 1000 * frame.captured_at


def test_it_is_a_pattern_like_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with closing(open_source("pattern:clock", options=CaptureConfig(max_frames=1))) as source:
        assert (source.info.is_live, source.info.size) == (True, (480, 640))
    with pytest.raises(SourceNotFoundError, match="pattern:clock: 32×32 is too small for a clock"):
        open_source("pattern:clock", options=CaptureConfig(camera_size=(32, 32)))
    assert invoke(["run", "pattern:tartan", "-o", str(tmp_path / "a.mp4")]) == 2
    assert "gradients, clock)" in capsys.readouterr().err
