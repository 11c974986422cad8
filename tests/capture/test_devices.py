"""`depthstream cameras`: what the system tells of its cameras, through stand-ins for the two libraries that ask it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import SimpleNamespace

import pytest

from stream.capture import devices as cameras
from stream.capture.devices import CameraMode, list_cameras
from stream.cli import main as cli

MJPG, YUYV = (int.from_bytes(text, "little") for text in (b"MJPG", b"YUYV"))


def found(index: int, name: str) -> SimpleNamespace:
    return SimpleNamespace(index=index, name=name, path=f"/dev/video{index}")


def frame_type(code: int, width: int, height: int, fps: object) -> SimpleNamespace:
    return SimpleNamespace(pixel_format=code, width=width, height=height, max_fps=fps)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cameras, the second of which may not be opened."""
    import cv2_enumerate_cameras
    from linuxpy.video import device

    types = [
        frame_type(YUYV, 640, 480, Fraction(30)),
        frame_type(YUYV, 640, 480, Fraction(15)),
        frame_type(MJPG, 640, 480, 0),
        frame_type(MJPG, 1920, 1080, Fraction(30000, 1001)),
    ]

    @contextmanager
    def from_id(index: int) -> Iterator[SimpleNamespace]:
        if index == 4:
            raise PermissionError(13, "Permission denied")
        yield SimpleNamespace(info=SimpleNamespace(frame_types=types))

    twice = [found(4, "Capture card"), found(0, "Integrated Camera"), found(0, "Integrated Camera")]
    monkeypatch.setattr(cv2_enumerate_cameras, "enumerate_cameras", lambda _backend: twice)
    monkeypatch.setattr(device.Device, "from_id", from_id)
    monkeypatch.setattr(cameras.sys, "platform", "linux")


@pytest.mark.usefixtures("machine")
def test_cameras_are_listed_once_in_order_with_their_modes() -> None:
    first, second = list_cameras()
    assert (first.index, first.name, first.path) == (0, "Integrated Camera", "/dev/video0")
    assert first.modes == (
        CameraMode(fourcc="MJPG", width=1920, height=1080, rates=(29.97,)),
        CameraMode(fourcc="MJPG", width=640, height=480, rates=()),
        CameraMode(fourcc="YUYV", width=640, height=480, rates=(30.0, 15.0)),
    )
    assert (second.index, second.modes) == (4, ())


@pytest.mark.usefixtures("machine")
def test_the_command_prints_what_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["cameras"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["0", "Integrated", "Camera", "/dev/video0"]
    assert lines[1].strip() == "MJPG 1920x1080 at 29.97 frames/s"
    assert lines[3].strip() == "YUYV 640x480 at 30, 15 frames/s"
    assert cli.invoke(["cameras", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["index"] for row in rows] == [0, 4]
    assert rows[0]["modes"][1] == {"fourcc": "MJPG", "width": 640, "height": 480, "rates": []}


def test_no_camera_is_no_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "_enumerate", list)
    assert cli.invoke(["cameras"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "no camera is connected; pattern:testsrc2 can be used instead of one\n")


def test_where_the_system_tells_no_modes_there_are_none() -> None:
    (camera,) = list_cameras(enumerate_cameras=lambda: [found(2, "x")], modes_of=lambda _index: ())
    assert camera.modes == ()
