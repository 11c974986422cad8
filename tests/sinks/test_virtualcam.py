"""Depth as a webcam: pyvirtualcam itself, on a device that a test registers with it."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import pyvirtualcam
from pyvirtualcam import camera as registry

import stream
from stream.cli.main import invoke
from stream.errors import MissingExtraError, SinkError
from stream.frames import Depth, DepthKind, Frame, SourceInfo, SourceKind
from stream.sinks.virtualcam import VirtualCameraSink


class Device:
    """A backend as pyvirtualcam's own are: remembers what it was sent."""

    opened: list["Device"] = []  # noqa: RUF012  filled by pyvirtualcam, which makes the devices

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
        if device == "busy":
            raise RuntimeError("device is already\nin use")
        self.size, self.fps, self.name = (height, width), fps, device or "/dev/video10"
        self.sent: list[np.ndarray] = []
        self.closed, self.breaks_after = 0, 10**9
        Device.opened.append(self)

    def device(self) -> str:
        return self.name

    def native_fourcc(self) -> None:
        return None

    def send(self, frame: np.ndarray) -> None:
        if len(self.sent) >= self.breaks_after:
            raise RuntimeError("the device is gone")
        self.sent.append(np.array(frame).reshape(*self.size, 3))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[Device]:
    monkeypatch.setattr(registry, "BACKENDS", {})
    Device.opened = []
    pyvirtualcam.register_backend("fake", Device)
    return Device


def info(size: tuple[int, int], rate: Fraction | None = None) -> SourceInfo:
    return SourceInfo(
        name="cam:0", size=size, is_live=True, time_base=Fraction(1, 30), rate=rate, frame_count=None,
        kind=SourceKind.CAMERA,
    )  # fmt: skip


def send(sink: VirtualCameraSink, image: np.ndarray) -> bool:
    frame = Frame(index=0, pts=0, time_base=Fraction(1, 30), captured_at=0.0, rgb=image)
    depth = Depth(values=np.zeros(image.shape[:2], np.float32), kind=DepthKind.RELATIVE_DISPARITY, index=0)
    return sink.write(frame, depth, image)


def test_images_arrive_unchanged_and_odd_sizes_are_padded(device: type[Device]) -> None:
    sink = VirtualCameraSink()
    sink.open(info((5, 7), Fraction(25)), (5, 7))
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    assert send(sink, image)
    assert send(sink, np.full((10, 14, 3), 9, np.uint8)), "a change of size is fitted in"
    sink.finish()
    (made,) = device.opened
    assert (made.size, made.fps) == ((6, 8), 25)
    assert np.array_equal(made.sent[0][:5, :7], image)
    assert (made.sent[1][:5, :7] == 9).all()
    assert made.closed >= 1
    assert not send(sink, image)
    assert sink.outputs == ["/dev/video10"]


def test_a_device_that_cannot_be_used_is_one_line(device: type[Device]) -> None:
    with pytest.raises(SinkError) as caught:
        VirtualCameraSink("busy").open(info((4, 4)), (4, 4))
    assert str(caught.value).startswith(
        "--virtual-camera: no virtual camera can be used: 'fake' backend: device is already in use"
    )


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or Path("/dev/video0").exists(), reason="there may be a device"
)
def test_without_a_device_the_real_library_says_so_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "pattern:testsrc2", "--virtual-camera", "--max-frames", "2", "-q"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "no virtual camera can be used" in line
    assert "modprobe v4l2loopback" in line


def test_a_device_that_vanishes_ends_the_run(device: type[Device]) -> None:
    sink = VirtualCameraSink()
    sink.open(info((4, 4)), (4, 4))
    device.opened[0].breaks_after = 1
    image = np.zeros((4, 4, 3), np.uint8)
    assert send(sink, image)
    with pytest.raises(SinkError, match="no longer accepts images"):
        send(sink, image)
    sink.keep_partial("gone")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'depthstream\[virtualcam\]'"):
        VirtualCameraSink().open(info((4, 4)), (4, 4))


def test_a_live_run_shows_depth_alone_and_opens_no_window(
    device: type[Device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    report = stream.run("pattern:testsrc2", virtual_camera=True, max_frames=3)
    (made,) = device.opened
    assert made.size == (480, 640)
    assert len(made.sent) == report.shown == report.written > 0
    assert report.captured == 3
    assert made.sent[-1].std() > 10
    assert report.outputs == ["/dev/video10"]
    assert list(tmp_path.iterdir()) == []
