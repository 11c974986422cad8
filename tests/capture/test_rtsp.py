"""RTSP against a small camera on 127.0.0.1: how it is asked, what it delivers, and how it may vanish."""

from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from stream.capture.video.network import LiveSource, open_network
from stream.errors import SourceError
from tests.support.media_files import number_of, write_video
from tests.support.servers import RtspCamera, tcp_server

FRAMES, SHORT_S = 80, 0.4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the camera sees: a keyframe every five frames, because what is read while probing is thrown away."""
    return write_video(tmp_path_factory.mktemp("rtsp") / "clip.ts", frames=FRAMES, gop=5)


def test_a_camera_with_a_password_is_live_and_is_asked_for_tcp(clip: Path) -> None:
    camera = RtspCamera(clip, login="me:s3cret")
    with tcp_server(camera.talk) as port:
        with closing(open_network(f"rtsp://me:s3cret@127.0.0.1:{port}/cam", max_frames=20)) as source:
            assert isinstance(source, LiveSource)
            assert (source.info.is_live, source.info.size) == (True, (48, 64))
            assert source.info.name == f"rtsp://me:***@127.0.0.1:{port}/cam"
            frames = list(source)
        source.close()
    numbers = [number_of(frame.rgb) for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 20))
    assert {late.pts - early.pts for early, late in pairwise(frames)} == {3600}, "the camera's clock, 90 kHz"
    assert camera.methods == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]


def test_a_wrong_password_is_named_as_such_and_not_shown(clip: Path) -> None:
    camera = RtspCamera(clip, login="me:s3cret")
    with tcp_server(camera.talk) as port, pytest.raises(SourceError, match="401 Unauthorized") as refusal:
        open_network(f"rtsp://me:gue55@127.0.0.1:{port}/cam")
    assert "gue55" not in str(refusal.value)
    assert camera.methods == []


@pytest.mark.parametrize(("hangs_up", "says"), [(True, "ended before the first frame"), (False, r"no data for 0\.4 s")])
def test_a_camera_that_plays_nothing_is_an_error(clip: Path, hangs_up: bool, says: str) -> None:
    with (
        tcp_server(RtspCamera(clip, sent=0, hangs_up=hangs_up).talk) as port,
        pytest.raises(SourceError, match=says) as refusal,
    ):
        open_network(f"rtsp://127.0.0.1:{port}/cam", open_timeout_s=SHORT_S, read_timeout_s=SHORT_S)
    assert str(refusal.value).startswith(f"rtsp://127.0.0.1:{port}/cam: ")


@pytest.mark.parametrize(("hangs_up", "says"), [(True, ""), (False, "reading failed: no data for 0.4 s")])
def test_a_camera_that_vanishes_has_delivered_all_it_sent(clip: Path, hangs_up: bool, says: str) -> None:
    numbers, failure = list[int](), ""
    with (
        tcp_server(RtspCamera(clip, hangs_up=hangs_up).talk) as port,
        closing(open_network(f"rtsp://127.0.0.1:{port}/cam", read_timeout_s=SHORT_S)) as source,
    ):
        try:
            numbers += (number_of(frame.rgb) for frame in source)
        except SourceError as error:
            failure = str(error)
    assert numbers == list(range(numbers[0], FRAMES))
    assert says in failure
    assert bool(says) == bool(failure)


def test_a_camera_that_refuses_tcp_is_received_over_udp_which_is_said_and_counted(clip: Path) -> None:
    cameras = [RtspCamera(clip, udp_only=True) for _ in range(2)]
    with (
        tcp_server(*(camera.talk for camera in cameras)) as port,
        closing(open_network(f"rtsp://127.0.0.1:{port}/cam", max_frames=10)) as source,
    ):
        numbers = [number_of(frame.rgb) for frame in source]
        notes = source.info.notes
    assert numbers == list(range(numbers[0], numbers[0] + 10))
    assert notes == (f"rtsp://127.0.0.1:{port}/cam: refuses TCP; receiving over UDP, which may lose packets",)
    assert source.log.transport_fallbacks == 1
    assert "PLAY" not in cameras[0].methods


def test_the_transport_can_be_chosen_and_is_then_the_only_one_tried(clip: Path) -> None:
    camera = RtspCamera(clip, udp_only=True)
    chosen = {"rtsp_transport": "udp"}
    with (
        tcp_server(camera.talk) as port,
        closing(open_network(f"rtsp://127.0.0.1:{port}/cam", max_frames=5, input_options=chosen)) as source,
    ):
        assert len(list(source)) == 5
        assert (source.log.transport_fallbacks, source.info.notes) == (0, ())
    with tcp_server(RtspCamera(clip).talk) as port, pytest.raises(SourceError, match="Protocol not supported"):
        open_network(f"rtsp://127.0.0.1:{port}/cam", input_options=chosen)
