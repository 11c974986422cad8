"""Network sources against servers on 127.0.0.1: files, live streams, and peers that misbehave."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from stream.capture.network import Liveness, LiveSource, open_network
from stream.capture.open import SourceOptions, open_source
from stream.capture.video import VideoSource
from stream.cli import invoke
from stream.config import Config
from stream.errors import SourceError, UsageError
from stream.frames import RgbImage, SourceKind
from stream.jobs import open_config_source
from stream.media import av, cv2
from tests.media_files import number_of, numbered, write_audio, write_video
from tests.servers import (
    WAIT_S,
    Answer,
    HttpServer,
    free_udp_port,
    refused_port,
    send_then_close,
    send_then_stall,
    send_until_left,
    tcp_server,
    udp_sender,
)

SHORT_S = 0.4
"""A timeout that a stalling peer makes us wait for."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 with its index at the front, variable rate."""
    pts = [0, 40, 90, 120, 200, 230, 300, 310, 400, 480, 500, 560]
    return write_video(
        tmp_path_factory.mktemp("net") / "clip.mp4",
        pts=pts,
        time_base=Fraction(1, 1000),
        gop=4,
        mux_options={"movflags": "faststart"},
    )


@pytest.fixture(scope="module")
def transport_stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """40 frames of MPEG-TS, a keyframe every five."""
    return write_video(tmp_path_factory.mktemp("net") / "clip.ts", frames=40, gop=5).read_bytes()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """100 frames of an mp4 that is larger than what anybody reads ahead."""
    path = tmp_path_factory.mktemp("net") / "long.mp4"
    mux_options = {"movflags": "faststart"}
    return write_video(path, frames=100, size_hw=(240, 320), mux_options=mux_options, draw=noisy).read_bytes()


def pts_of(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0) if frame.pts is not None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_finite_http_url_is_a_file(clip: Path, ranges: bool) -> None:
    with HttpServer({"/clip.mp4": Answer(clip.read_bytes(), ranges=ranges)}) as server:
        with closing(open_network(server.url())) as source:
            assert isinstance(source, VideoSource)
            assert (source.info.kind, source.info.is_live, source.info.name) == (
                SourceKind.NETWORK,
                False,
                server.url(),
            )
            frames = list(source)
        assert [frame.pts for frame in frames] == pts_of(clip)
        assert [number_of(frame.rgb) for frame in frames] == list(range(12))
        assert source.log.warnings == []


@pytest.mark.parametrize(("ranges", "requests"), [(True, 2), (False, 1)])
def test_a_part_of_a_url_is_read_with_ranges_where_the_server_has_them(
    long_clip: bytes, ranges: bool, requests: int
) -> None:
    with HttpServer({"/clip.mp4": Answer(long_clip, ranges=ranges)}) as server:
        with closing(open_network(server.url(), start_s=3.0, end_s=3.2)) as source:
            assert [frame.pts for frame in source] == [75, 76, 77, 78, 79]
        starts = [int((asked or "").removeprefix("bytes=").rstrip("-")) for _, asked in server.requests]
    assert len(starts) == requests
    assert all(start > len(long_clip) // 2 for start in starts[1:]), "what lies before the part is not downloaded"


def test_only_so_many_frames_of_a_url_are_read(clip: Path) -> None:
    with (
        HttpServer({"/clip.mp4": Answer(clip.read_bytes())}) as server,
        closing(open_network(server.url(), max_frames=3)) as source,
    ):
        assert [number_of(frame.rgb) for frame in source] == [0, 1, 2]


def test_what_is_live_can_be_said(clip: Path, transport_stream: bytes) -> None:
    answers = {"/clip.mp4": Answer(clip.read_bytes()), "/live.ts": Answer(transport_stream, kind="video/mp2t")}
    with HttpServer(answers) as server:
        with closing(open_network(server.url(), live=Liveness.LIVE)) as source:
            assert isinstance(source, LiveSource)
            assert source.info.is_live
            assert len(list(source)) == 12
        with closing(open_network(server.url("/live.ts"), live=Liveness.FILE)) as source:
            assert isinstance(source, VideoSource)
            assert [number_of(frame.rgb) for frame in source] == list(range(40))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/missing.mp4", "cannot be opened: .*404 Not Found"),
        ("/broken.mp4", "cannot be opened: .*5XX Server Error"),
        ("/page.html", "this is not a video stream"),
        ("/sound.m4a", "has no video stream, only audio"),
        ("/empty.mp4", "this is not a video stream"),
    ],
)
def test_what_is_no_video_is_one_clear_line(tmp_path: Path, path: str, says: str) -> None:
    answers = {
        "/broken.mp4": Answer(b"no", status=500),
        "/page.html": Answer(b"<html><body>Sign in</body></html>" * 50, kind="text/html"),
        "/sound.m4a": Answer(write_audio(tmp_path / "sound.m4a").read_bytes()),
        "/empty.mp4": Answer(b""),
    }
    with HttpServer(answers) as server, pytest.raises(SourceError, match=says) as caught:
        open_network(server.url(path))
    assert str(caught.value).startswith(server.url(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "tcp", "rtsp"])
def test_nobody_listens(scheme: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be opened: Connection refused"):
        open_network(f"{scheme}://127.0.0.1:{refused_port()}/x", open_timeout_s=5)


@pytest.mark.parametrize("scheme", ["http", "tcp", "rtsp"])
def test_a_peer_that_never_answers_runs_into_the_open_timeout(scheme: str) -> None:
    with tcp_server(send_then_stall(b"")) as port, soon(), pytest.raises(SourceError, match=r"no data for 0\.4 s"):
        open_network(f"{scheme}://127.0.0.1:{port}/x", open_timeout_s=SHORT_S)


def test_a_file_whose_server_stalls_runs_into_the_read_timeout_unless_it_is_interrupted(long_clip: bytes) -> None:
    with HttpServer({"/clip.mp4": Answer(long_clip, sent=len(long_clip) // 2, stall=True)}) as server:
        with soon(), closing(open_network(server.url(), read_timeout_s=SHORT_S)) as source:
            frames, failure = counted(source)
        assert failure.startswith(f"{server.url()}: reading failed: no data")
        assert 40 < frames < 60
        with closing(open_network(server.url(), read_timeout_s=SHORT_S)) as source:
            assert interrupted_at(source, frames) == frames


@pytest.mark.parametrize(("live", "says"), [("file", "reading failed"), ("live", "the connection was lost")])
def test_a_file_whose_server_hangs_up_gives_what_came_and_says_so(long_clip: bytes, live: str, says: str) -> None:
    with (
        HttpServer({"/clip.mp4": Answer(long_clip, sent=len(long_clip) // 2)}) as server,
        closing(open_network(server.url(), live=Liveness(live))) as source,
    ):
        frames, failure = counted(source)
    assert 40 < frames < 60
    assert says in failure


@contextmanager
def soon() -> Iterator[None]:
    """A guard against hangs: fails if what it holds ends only because the server gave up, or not much earlier."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < WAIT_S / 2


def counted(source: "LiveSource | VideoSource") -> tuple[int, str]:
    """Frames that came, and what ended them, if anything did."""
    frames = 0
    try:
        for _ in source:
            frames += 1
    except SourceError as error:
        return frames, str(error)
    return frames, ""


def interrupted_at(source: "LiveSource | VideoSource", count: int) -> int:
    """Reads in a thread, interrupts after frame `count`, and returns how many came; a failure there fails the test."""
    numbers, reached = list[int](), threading.Event()

    def read() -> None:
        for frame in source:
            numbers.append(frame.index)
            if len(numbers) == count:
                reached.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert reached.wait(5)
    finally:
        source.interrupt()
        reader.join(5)
    assert not reader.is_alive()
    return len(numbers)


def noisy(index: int, size_hw: tuple[int, int]) -> RgbImage:
    """A picture that does not compress, so that a file has some size."""
    return np.random.default_rng(index).integers(0, 255, (*size_hw, 3), np.uint8)


def playlist(*, ends: bool) -> str:
    segments = "".join(f"#EXTINF:0.8,\n/{n}.ts\n" for n in range(2))
    return f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n{segments}{'#EXT-X-ENDLIST' if ends else ''}\n"


@pytest.mark.parametrize(("scheme", "ends"), [("http", True), ("http", False), ("hls", True), ("hls+http", True)])
def test_hls_is_a_file_where_its_list_ends_and_live_where_it_does_not(tmp_path: Path, scheme: str, ends: bool) -> None:
    kind = "application/vnd.apple.mpegurl"
    answers = {"/list.m3u8": Answer(playlist(ends=ends).encode(), kind=kind)}
    for n in range(2):
        part = write_video(
            tmp_path / f"{n}.ts",
            pts=[(20 * n + i) * 3600 for i in range(20)],
            time_base=Fraction(1, 90_000),
            draw=lambda i, size, n=n: numbered(20 * n + i, size),  # type: ignore[misc]
        )
        answers[f"/{n}.ts"] = Answer(part.read_bytes(), kind="video/mp2t")
    with (
        HttpServer(answers) as server,
        closing(open_network(server.url("/list.m3u8").replace("http", scheme, 1), max_frames=25)) as source,
    ):
        assert source.info.is_live is not ends
        assert [number_of(frame.rgb) for frame in source] == list(range(25))


def test_tcp_is_live_and_ends_with_its_sender(transport_stream: bytes) -> None:
    with (
        tcp_server(send_then_close(transport_stream)) as port,
        closing(open_network(f"tcp://127.0.0.1:{port}")) as source,
    ):
        assert source.info.is_live
        numbers = [number_of(frame.rgb) for frame in source]
    assert numbers == list(range(numbers[0], 40))
    # What was read while probing is thrown away for a live stream, so the first is not frame 0; then none is missing.


def test_tcp_is_live_even_where_it_carries_a_file(long_clip: bytes) -> None:
    with (
        tcp_server(send_then_close(long_clip)) as port,
        closing(open_network(f"tcp://127.0.0.1:{port}")) as source,
    ):
        assert source.info.is_live


def test_udp_is_live(transport_stream: bytes) -> None:
    port = free_udp_port()
    with (
        udp_sender(transport_stream, port=port),
        closing(open_network(f"udp://127.0.0.1:{port}", max_frames=30)) as source,
    ):
        frames = list(source)
    assert len(frames) == 30
    assert all(late.pts > early.pts for early, late in pairwise(frames))


def test_an_ip_camera_that_sends_jpegs_is_live() -> None:
    def parts() -> Iterator[bytes]:
        number = 0
        while True:
            ok, data = cv2.imencode(".jpg", numbered(number % 256, (48, 64)))
            assert ok
            number += 1
            yield b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
            yield data.tobytes() + b"\r\n"

    answer = Answer(kind="multipart/x-mixed-replace; boundary=frame", endless=parts)
    with HttpServer({"/cam": answer}) as server, closing(open_network(server.url("/cam"), max_frames=8)) as source:
        assert source.info.is_live
        numbers = [number_of(frame.rgb) for frame in source]
    assert numbers == list(range(numbers[0], numbers[0] + 8))


def test_a_live_stream_that_stalls_in_mid_packet_ends_with_an_error_that_names_the_timeout(
    transport_stream: bytes,
) -> None:
    cut = len(transport_stream) * 3 // 4 + 77
    with tcp_server(send_then_stall(transport_stream[:cut])) as port:
        url = f"tcp://127.0.0.1:{port}"
        with soon(), closing(open_network(url, read_timeout_s=SHORT_S)) as source:
            frames, failure = counted(source)
    assert failure == f"{url}: reading failed: no data for 0.4 s; is the sender running?"
    assert frames > 0


def test_interrupt_while_waiting_ends_within_the_read_timeout(transport_stream: bytes) -> None:
    with (
        tcp_server(send_then_stall(transport_stream)) as port,
        closing(open_network(f"tcp://127.0.0.1:{port}", read_timeout_s=SHORT_S)) as source,
    ):
        first = number_of(next(iter(source)).rgb)
        # Whether frame 39 is whole is known only when something follows, so after frame 38 the reader waits.
        assert interrupted_at(source, 38 - first) == 38 - first


def test_close_hangs_up_and_may_be_repeated(transport_stream: bytes) -> None:
    left = threading.Event()
    with tcp_server(send_until_left(transport_stream, left)) as port:
        source = open_network(f"tcp://127.0.0.1:{port}")
        next(iter(source))
        assert not left.is_set()
        source.close()
        assert left.wait(5)
        source.close()
        assert list(source) == []


@pytest.mark.parametrize("options", [SourceOptions(start_s=1.0), SourceOptions(end_s=1.0)])
def test_a_live_stream_has_no_part_and_the_refusal_hangs_up(transport_stream: bytes, options: SourceOptions) -> None:
    left = threading.Event()
    with tcp_server(send_until_left(transport_stream, left)) as port:
        with pytest.raises(UsageError, match="a live stream has no time to st"):
            open_source(f"tcp://127.0.0.1:{port}", options=options)
        assert left.wait(5)


def test_a_password_is_never_shown(clip: Path, long_clip: bytes) -> None:
    cut_off = Answer(long_clip, sent=len(long_clip) // 2)
    with HttpServer({"/clip.mp4": Answer(clip.read_bytes()), "/cut.mp4": cut_off}) as server:
        url = server.url("").replace("http://", "http://me:s3cret@")
        with closing(open_network(f"{url}/clip.mp4")) as file:
            assert file.info.name == server.url().replace("http://", "http://me:***@")
        with pytest.raises(SourceError) as refusal:
            open_network(f"{url}/nothing.mp4")
        with closing(open_network(f"{url}/cut.mp4", live=Liveness.LIVE)) as source:
            _, failure = counted(source)
    assert len(source.log.notes) == 1
    for said in (str(refusal.value), source.info.name, failure, *source.log.notes):
        assert "//me:***@127.0.0.1" in said
        assert "s3cret" not in said


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://me:s3cret@host/x", "ftp://me:***@host/x: unknown kind of URL ftp:// (allowed: rtsp, "),
        ("rtsp://me:[s3cret@host/x", "rtsp://…: not a valid URL; write the special characters of a password as %XX"),
    ],
)
def test_a_url_that_is_none_is_bad_usage_and_shows_no_password(url: str, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        open_source(url)
    assert str(refusal.value).startswith(says)
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(("option", "live"), [(None, "auto"), ("--live", "live"), ("--no-live", "file")])
def test_live_and_no_live_reach_the_source(
    clip: Path, capsys: pytest.CaptureFixture[str], option: str | None, live: str
) -> None:
    with HttpServer({"/clip.mp4": Answer(clip.read_bytes())}) as server:
        assert invoke(["run", server.url(), "--print-config", *([option] if option else [])]) == 0
        config = Config.model_validate(yaml.safe_load(capsys.readouterr().out))
        assert config.capture.live == live
        with closing(open_config_source(config)) as source:
            assert source.info.is_live is (option == "--live")
