"""Network sources against servers on 127.0.0.1: files, live streams, and peers that misbehave."""

import threading
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import stream
from stream.capture.video.file import VideoSource
from stream.capture.video.network import Liveness, LiveSource, open_network
from stream.cli.main import invoke
from stream.errors import ConfigError, SourceError
from stream.frames import SourceKind
from stream.jobs.options import from_options
from stream.media import av, cv2
from tests.support.media_files import number_of, numbered, write_audio, write_video
from tests.support.servers import (
    Answer,
    HttpServer,
    free_udp_port,
    refused_port,
    send_then_close,
    send_then_stall,
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


def test_a_part_of_a_url_is_read_with_ranges(clip: Path) -> None:
    with HttpServer({"/clip.mp4": Answer(clip.read_bytes(), ranges=True)}) as server:
        with closing(open_network(server.url(), start_s=0.2, end_s=0.45)) as source:
            assert [number_of(frame.rgb) for frame in source] == [4, 5, 6, 7, 8]
        with closing(open_network(server.url(), max_frames=3)) as source:
            assert [number_of(frame.rgb) for frame in source] == [0, 1, 2]


def test_live_and_file_can_be_requested(clip: Path, transport_stream: bytes) -> None:
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
        ("/missing.mp4", "cannot be opened: .*(404|Not Found|not found)"),
        ("/broken.mp4", "cannot be opened: .*(500|Server|server)"),
        ("/page.html", "this is not a video stream"),
        ("/sound.m4a", "has no video stream, only audio"),
        ("/empty.mp4", "cannot be opened|not a video stream"),
    ],
)
def test_a_url_that_is_not_a_video_is_a_one_line_error(tmp_path: Path, path: str, says: str) -> None:
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
def test_a_refused_connection_is_an_error(scheme: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be opened: Connection refused"):
        open_network(f"{scheme}://127.0.0.1:{refused_port()}/x", open_timeout_s=5)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_peer_that_never_answers_runs_into_the_open_timeout(scheme: str) -> None:
    with tcp_server(send_then_stall(b"")) as port, pytest.raises(SourceError, match=r"no data for 0\.4 s"):
        open_network(f"{scheme}://127.0.0.1:{port}/x", open_timeout_s=SHORT_S)


@pytest.mark.slow
def test_a_file_whose_server_stalls_runs_into_the_read_timeout(tmp_path: Path) -> None:
    long = write_video(
        tmp_path / "long.mp4", frames=200, size_hw=(240, 320), mux_options={"movflags": "faststart"}, draw=noisy
    )
    body = long.read_bytes()
    answer = Answer(body, sent=len(body) // 2, stall=True)
    with (
        HttpServer({"/clip.mp4": answer}) as server,
        closing(open_network(server.url(), read_timeout_s=SHORT_S)) as source,
    ):
        frames, failure = counted(source)
    assert "reading failed: no data" in failure
    assert 10 < frames < 200


def test_a_file_whose_server_hangs_up_gives_what_came_and_says_so(tmp_path: Path) -> None:
    long = write_video(
        tmp_path / "long.mp4", frames=100, size_hw=(240, 320), mux_options={"movflags": "faststart"}, draw=noisy
    )
    body = long.read_bytes()
    answer = Answer(body, sent=len(body) // 2)
    with HttpServer({"/clip.mp4": answer}) as server, closing(open_network(server.url())) as source:
        frames, failure = counted(source)
    assert 10 < frames < 100
    assert failure or source.log.warnings


def counted(source: "LiveSource | VideoSource") -> tuple[int, str]:
    """Frames that came, and what ended them, if anything did."""
    frames = 0
    try:
        for _ in source:
            frames += 1
    except SourceError as error:
        return frames, str(error)
    return frames, ""


def noisy(index: int, size_hw: tuple[int, int]) -> "stream.frames.RgbImage":
    """A picture that does not compress, so that a file has some size."""
    import numpy as np

    return np.random.default_rng(index).integers(0, 255, (*size_hw, 3), np.uint8)


def playlist(*, ends: bool) -> str:
    segments = "".join(f"#EXTINF:0.8,\n/{n}.ts\n" for n in range(2))
    return f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n{segments}{'#EXT-X-ENDLIST' if ends else ''}\n"


@pytest.mark.parametrize("ends", [True, False])
def test_hls_is_a_file_where_its_list_ends_and_live_where_it_does_not(tmp_path: Path, ends: bool) -> None:
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
    with HttpServer(answers) as server, closing(open_network(server.url("/list.m3u8"), max_frames=25)) as source:
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
        with closing(open_network(url, read_timeout_s=SHORT_S)) as source:
            frames, failure = counted(source)
    assert failure == f"{url}: reading failed: no data for 0.4 s; is the sender running?"
    assert frames > 0


def test_interrupt_while_waiting_ends_within_the_read_timeout(transport_stream: bytes) -> None:
    with tcp_server(send_then_stall(transport_stream)) as port:
        with closing(open_network(f"tcp://127.0.0.1:{port}", read_timeout_s=SHORT_S)) as source:
            half = threading.Event()

            def read() -> None:
                for number, _ in enumerate(source):
                    if number == 5:
                        half.set()

            reader = threading.Thread(target=read)
            reader.start()
            assert half.wait(5)
            source.interrupt()
            reader.join(5)
            assert not reader.is_alive()
        source.close()


def test_a_password_is_never_shown(clip: Path) -> None:
    with HttpServer({"/clip.mp4": Answer(clip.read_bytes())}) as server:
        url = server.url().replace("http://", "http://me:s3cret@")
        with closing(open_network(url)) as source:
            assert source.info.name == url.replace("s3cret", "***")
        with pytest.raises(SourceError) as caught:
            open_network(url.replace("clip", "nothing"))
    assert "s3cret" not in str(caught.value)


def test_a_url_runs_through_the_pipeline(clip: Path, tmp_path: Path) -> None:
    with HttpServer({"/clip.mp4": Answer(clip.read_bytes(), ranges=True)}) as server:
        report = stream.run(server.url(), output=tmp_path / "out.mp4")
        assert (report.written, report.exit_code) == (12, 0)
        assert pts_of(tmp_path / "out.mp4") == pts_of(clip)
        seen = [frame.pts for frame, _ in stream.iter_depth(server.url(), max_frames=4)]
        assert seen == pts_of(clip)[:4]


def test_a_recording_of_a_live_stream_survives_its_sender(transport_stream: bytes, tmp_path: Path) -> None:
    limits = {"read_timeout_s": SHORT_S, "open_timeout_s": SHORT_S, "reconnect_for": SHORT_S}
    with (
        tcp_server(send_then_stall(transport_stream)) as port,
        pytest.raises(SourceError, match=r"no data for 0\.4 s, and the source did not come back within 0\.4 s"),
    ):
        stream.run(f"tcp://127.0.0.1:{port}", output=tmp_path / "rec.mp4", **limits)
    assert not (tmp_path / "rec.mp4").exists()
    assert pts_of(tmp_path / "rec.partial.mp4")


def test_a_recording_ends_well_where_the_stream_does(transport_stream: bytes, tmp_path: Path) -> None:
    with tcp_server(send_then_close(transport_stream)) as port:
        report = stream.run(f"tcp://127.0.0.1:{port}", output=tmp_path / "rec.mp4")
    assert report.captured == report.written + sum(report.dropped.values())
    assert report.written == len(pts_of(tmp_path / "rec.mp4")) > 0


@pytest.mark.parametrize(("option", "liveness"), [(None, "auto"), (True, "live"), (False, "file")])
def test_live_and_no_live_reach_the_source(option: bool | None, liveness: str) -> None:
    text = None if option is None else "live" if option else "file"
    assert from_options("http://x/y", {"live": text}).capture.live == liveness


def test_input_options_reach_the_server_and_secrets_stay_there(clip: Path, tmp_path: Path) -> None:
    given = {
        "headers": "Authorization: Bearer s3cret\r\nX-Camera: 7",
        "user_agent": "player/1",
        "referer": "http://x/",
        "cookies": "id=s3cret; path=/",
    }
    notes: list[str] = []
    with HttpServer({"/clip.mp4": Answer(clip.read_bytes())}) as server:
        report = stream.run(server.url(), output=tmp_path / "out.mp4", input_option=given, on_note=notes.append)
        sent = server.headers[0]
        with pytest.raises(SourceError) as failure:
            stream.run(server.url("/none.mp4"), output=tmp_path / "b.mp4", input_option=given)
    assert (sent["authorization"], sent["x-camera"]) == ("Bearer s3cret", "7")
    assert (sent["user-agent"], sent["referer"], sent["cookie"]) == ("player/1", "http://x/", "id=s3cret")
    assert report.written == 12
    assert "s3cret" not in f"{report.to_dict()} {notes} {failure.value}"


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (
            "http://x/",
            ["protocol_whitelist=file"],
            "--input-option: unknown input option 'protocol_whitelist' (allowed: ",
        ),
        ("http://x/", ["Bearer s3cret"], "--input-option: must be KEY=VALUE"),
        ("http://x/", ["probesize=s3cret"], "--input-option: probesize must be a whole number"),
        ("rtsp://x/", ["rtsp_transport=s3cret"], "--input-option: unknown rtsp_transport (allowed: tcp, udp, "),
        (
            "http://x/",
            ["rtsp_transport=udp"],
            "--input-option: http:// does not take rtsp_transport (allowed: user_agent, ",
        ),
        ("udp://x:1", ["headers=A: s3cret"], "--input-option: udp:// does not take headers (allowed: buffer_size, "),
        ("pattern:testsrc2", ["headers=A: s3cret"], "--input-option: does not apply: a pattern is no network source"),
        ("x.mp4", ["headers=A: s3cret"], "x.mp4: no such file"),
    ],
)
def test_input_options_that_do_not_apply_are_refused_without_showing_them(
    capsys: pytest.CaptureFixture[str], source: str, options: list[str], says: str
) -> None:
    given = [word for one in options for word in ("--input-option", one)]
    assert invoke(["run", source, "-o", "never.mp4", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"depthstream: {says}")
    assert "s3cret" not in error


def test_input_options_may_come_from_a_file_python_or_several_options() -> None:
    merged = from_options("http://x/", {"input_option": ("headers=A: 1", "headers=B: 2", "user_agent=me")})
    assert merged.capture.input_options == {"headers": "A: 1\r\nB: 2", "user_agent": "me"}
    numbers = from_options("http://x/", {}, base={"capture": {"input_options": {"probesize": 500000}}})
    assert numbers.capture.input_options == {"probesize": "500000"}
    with pytest.raises(ConfigError) as refusal:
        from_options("http://x/", {"input_option": {"header": "s3cret"}})
    assert str(refusal.value).startswith("input_option: unknown input option 'header'")
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip.h264", {"container_format": "h264"}),
        ("clip.mkv", {"mux_options": {"live": "1"}}),  # what a live sender has written, without a duration
    ],
)
def test_a_video_of_a_stated_size_is_a_file_even_without_a_duration(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    content = write_video(tmp_path / name, frames=20, **options).read_bytes()
    with HttpServer({f"/{name}": Answer(content, ranges=True)}) as server:
        with closing(open_network(server.url(f"/{name}"))) as source:
            frames = list(source)
            assert not source.info.is_live
        assert [number_of(frame.rgb) for frame in frames] == list(range(20))
        assert frames[-1].time_s == pytest.approx(19 / 25, abs=0.002)
        with closing(open_network(server.url(f"/{name}"), live=Liveness.LIVE)) as source:
            assert source.info.is_live
