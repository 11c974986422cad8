"""Cameras, through a stand-in for OpenCV's capture object: what is asked, granted, delivered and said when it fails."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stream.capture import camera
from stream.capture.camera import CameraSource, camera_index
from stream.errors import SourceError, SourceNotFoundError
from stream.frames import SourceKind
from stream.media import cv2

BGR = np.zeros((48, 64, 3), np.uint8)
BGR[:] = (10, 20, 30)
GARBLED = None
GONE = "gone"


class FakeCapture:
    """Behaves as cv2.VideoCapture does at its border: properties, grab, retrieve, release."""

    def __init__(
        self,
        pictures: Sequence[object] | None = None,
        *,
        opened: bool = True,
        granted: dict[int, float] | None = None,
        on_grab: Callable[[int], None] | None = None,
    ) -> None:
        self.pictures = itertools.cycle([BGR]) if pictures is None else iter(pictures)
        self.opened, self.granted, self.on_grab = opened, granted or {}, on_grab
        self.asked: list[tuple[int, float]] = []
        self.grabs = self.releases = 0
        self.current: object = None

    def isOpened(self) -> bool:
        return self.opened

    def set(self, prop: int, value: float, /) -> bool:
        self.asked.append((prop, value))
        return prop in self.granted

    def get(self, prop: int, /) -> float:
        return self.granted.get(prop, 0.0)

    def grab(self) -> bool:
        self.grabs += 1
        if self.on_grab:
            self.on_grab(self.grabs)
        self.current = next(self.pictures, GONE)
        return self.current is not GONE

    def retrieve(self) -> tuple[bool, object]:
        return self.current is not GARBLED, self.current

    def release(self) -> None:
        self.releases += 1


class Clock:
    """Advances by the given steps, then by a thirtieth of a second, at each look."""

    def __init__(self, *steps_s: float) -> None:
        self.now, self.steps = 100.0, iter(steps_s)

    def __call__(self) -> float:
        self.now += next(self.steps, 1 / 30)
        return self.now


def source_of(fake: FakeCapture, **options: object) -> CameraSource:
    return CameraSource(0, open_capture=lambda _index: fake, **{"clock": Clock(), **options})  # type: ignore[arg-type]


def test_frames_are_rgb_with_times_from_the_clock() -> None:
    fake = FakeCapture()
    source = source_of(fake, max_frames=3, clock=Clock(0, 0.04, 0.05))
    frames = list(source)
    assert [(frame.index, frame.pts) for frame in frames] == [(0, 0), (1, 40_000), (2, 90_000)]
    assert frames[0].time_base == Fraction(1, 1_000_000)
    assert [frame.captured_at for frame in frames] == pytest.approx([100, 100.04, 100.09])
    assert frames[0].rgb[0, 0].tolist() == [30, 20, 10]
    assert (source.info.name, source.info.kind, source.info.is_live) == ("cam:0", SourceKind.CAMERA, True)
    assert source.info.size == (48, 64)
    source.close()
    source.close()
    assert fake.releases == 1
    assert list(source) == []


def test_times_increase_even_if_the_clock_does_not() -> None:
    source = source_of(FakeCapture(), max_frames=4, clock=Clock(0, 0, 0, 1))
    assert [frame.pts for frame in source] == [0, 1, 2, 1_000_000]
    assert source.log.repaired_pts == 2


def test_what_is_asked_for_and_what_is_granted() -> None:
    granted = {cv2.CAP_PROP_FPS: 29.97002997, cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV"))}
    fake = FakeCapture(granted=granted)
    source = source_of(fake, size_hw=(1080, 1920), rate=Fraction(60), fourcc="MJPG", read_timeout_s=3)
    assert fake.asked == [
        (cv2.CAP_PROP_READ_TIMEOUT_MSEC, 3000),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1920),
        (cv2.CAP_PROP_FRAME_HEIGHT, 1080),
        (cv2.CAP_PROP_FPS, 60.0),
    ]
    assert source.info.rate == Fraction(30000, 1001)
    assert source.info.notes == ("cam:0 delivers 64×48, 29.97 frames/s, YUYV (asked for 1920×1080, 60 frames/s, MJPG)",)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_driver_that_knows_no_rate(fps: float) -> None:
    source = source_of(FakeCapture(granted={cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FOURCC: -1.0}))
    assert source.info.rate is None
    assert source.info.notes == ("cam:0 delivers 64×48",)


def test_garbled_pictures_are_gaps_that_are_counted() -> None:
    warm_up = [GARBLED, GARBLED, BGR, BGR]
    source = source_of(FakeCapture([*warm_up, BGR, GARBLED, np.zeros((0, 0, 3), np.uint8), BGR, GONE]), max_frames=2)
    assert [frame.index for frame in source] == [0, 3]
    assert source.log.dropped == {"undecodable": 2}


def test_only_garbled_pictures_end_in_an_error() -> None:
    fake = FakeCapture([GARBLED] * 100)
    with pytest.raises(SourceError, match="cannot be decoded"):
        source_of(fake)
    assert fake.releases == 1
    with pytest.raises(SourceError, match="30 frames in a row could not be decoded"):
        list(source_of(FakeCapture([BGR] * 3 + [GARBLED] * 100)))


def test_a_gray_camera() -> None:
    source = source_of(FakeCapture(itertools.repeat(BGR[..., 1])), max_frames=1)  # type: ignore[arg-type]
    assert next(iter(source)).rgb[0, 0].tolist() == [20, 20, 20]


def test_a_camera_that_vanishes() -> None:
    source = source_of(FakeCapture([BGR] * 7))
    frames = iter(source)
    assert [next(frames).index for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(SourceError, match=r"^cam:0: stopped delivering after 5 frames; was it unplugged\?$"):
        next(frames)


def test_a_camera_that_opens_but_delivers_nothing() -> None:
    fake = FakeCapture([])
    with pytest.raises(SourceError, match="delivers no frames; another program"):
        source_of(fake)
    assert fake.releases == 1


def test_absent_busy_and_forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    nodes: dict[str, Path] = {}
    monkeypatch.setattr(camera, "Path", lambda text: nodes.setdefault(str(text), tmp_path / str(text).lstrip("/")))

    def refusal(index: int) -> str:
        fake = FakeCapture(opened=False)
        with pytest.raises((SourceError, SourceNotFoundError)) as caught:
            CameraSource(index, open_capture=lambda _index: fake)
        assert fake.releases == 1
        return f"{type(caught.value).__name__} {caught.value}"

    assert refusal(7) == (
        "SourceNotFoundError cam:7: no camera is connected; use a file, a URL or pattern:testsrc2 instead"
    )
    (tmp_path / "dev").mkdir()
    for node in ("video0", "video2", "video10"):
        (tmp_path / "dev" / node).touch()
    assert refusal(7) == "SourceNotFoundError cam:7: no such camera (allowed: cam:0, cam:2, cam:10)"
    assert "another program may be using it" in refusal(2)
    monkeypatch.setattr("os.access", lambda *_args: False)
    assert refusal(2).startswith("SourceError cam:2: no permission")


def test_devices_and_links_to_them(tmp_path: Path) -> None:
    assert camera_index(3) == camera_index("3") == 3
    (tmp_path / "video4").touch()
    (tmp_path / "by-id").symlink_to(tmp_path / "video4")
    assert camera_index(str(tmp_path / "by-id")) == 4
    with pytest.raises(SourceNotFoundError, match="no such camera"):
        camera_index("/dev/video99")
    (tmp_path / "null").touch()
    with pytest.raises(SourceNotFoundError, match="is not a camera"):
        camera_index(str(tmp_path / "null"))


def test_what_opencv_raises_is_one_line() -> None:
    error = cv2.error("x")
    error.err = "bad index"  # type: ignore[attr-defined]

    def refuse(_index: int) -> camera.VideoCapture:
        raise error

    with pytest.raises(SourceError, match="cam:7: cannot be opened: bad index"):
        CameraSource(7, open_capture=refuse)


def test_interrupt_ends_after_the_read_in_progress() -> None:
    source: CameraSource

    def interrupt_at(grab: int) -> None:
        if grab == 6:
            source.interrupt()

    source = source_of(FakeCapture(on_grab=interrupt_at))
    assert len(list(source)) == 3, "grab 1 at opening, grab 2 empties the buffer, grab 6 is interrupted"


def test_an_end_time_counts_from_the_first_frame() -> None:
    source = source_of(FakeCapture(), end_s=0.25, clock=Clock(*[0.1] * 10))
    assert [frame.pts for frame in source] == [0, 100_000, 200_000]


@pytest.mark.skipif(Path("/dev/video63").exists(), reason="there is a camera 63")
def test_opencv_itself_prints_nothing_about_an_absent_camera() -> None:
    code = (
        "from stream.capture.camera import CameraSource\n"
        "from stream.errors import SourceNotFoundError\n"
        "from stream.media import cv2\n"
        "level = cv2.utils.logging.getLogLevel()\n"
        "try:\n    CameraSource(63)\n"
        "except SourceNotFoundError as error:\n    print(error)\n"
        "assert cv2.utils.logging.getLogLevel() == level\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "camera" in done.stdout
    assert done.stderr == ""


def test_a_camera_that_changes_its_resolution_goes_on(tmp_path: Path) -> None:
    """As some do when they are turned, or when another program asks for a mode."""
    from stream.media import av
    from stream.metrics import Outcome
    from stream.pipeline.runner import Pipeline
    from stream.sinks.video import VideoSink
    from tests.support.fakes import ScriptedInference, ScriptedRenderer

    tall = np.full((64, 48, 3), 200, np.uint8)
    pictures = [BGR, BGR, BGR, tall, tall, BGR]
    source = source_of(FakeCapture(pictures), max_frames=4)
    sink = VideoSink(tmp_path / "out.mp4")
    pipeline = Pipeline(source, ScriptedInference(), ScriptedRenderer(), [sink])
    assert pipeline.run() is Outcome.DONE
    written, dropped = pipeline.metrics.written, sum(pipeline.metrics.dropped.values())
    assert written + dropped == 4
    with av.open(str(tmp_path / "out.mp4")) as container:
        sizes = [(frame.height, frame.width) for frame in container.decode(video=0)]
    assert sizes == [(48, 64)] * written
