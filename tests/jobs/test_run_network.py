"""Whole runs on network sources: a URL as a file, recordings of live streams, and what a vanished sender leaves."""

import socket
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import stream
from stream.compare.job import compare_config
from stream.errors import SourceError, UsageError
from stream.jobs.models import load_engine
from stream.jobs.options import from_options
from stream.jobs.run import run_config
from stream.media import av
from stream.pipeline.runner import Progress
from tests.support.media_files import write_video
from tests.support.servers import (
    WAIT_S,
    Answer,
    HttpServer,
    RtspCamera,
    Talk,
    refused_port,
    send_then_close,
    send_then_stall,
    tcp_server,
)

SHORT_S = 0.4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of MPEG-TS, a keyframe every five."""
    return write_video(tmp_path_factory.mktemp("net") / "clip.ts", frames=40, gop=5)


def pts_of(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0) if frame.pts is not None]


def test_a_url_runs_through_the_pipeline_as_a_file(tmp_path: Path) -> None:
    pts = [0, 40, 90, 120, 200, 230]
    options = {"movflags": "faststart"}
    body = write_video(tmp_path / "clip.mp4", pts=pts, time_base=Fraction(1, 1000), mux_options=options).read_bytes()
    with HttpServer({"/clip.mp4": Answer(body)}) as server:
        report = stream.run(server.url(), output=tmp_path / "out.mp4")
        seen = [frame.pts for frame, _ in stream.iter_depth(server.url(), max_frames=4)]
    assert (report.captured, report.written, report.exit_code) == (6, 6, 0)
    assert pts_of(tmp_path / "out.mp4") == pts
    assert seen == pts[:4]


def whole(clip: Path) -> Talk:
    return send_then_close(clip.read_bytes())


def cut_in_mid_packet(clip: Path) -> Talk:
    return send_then_close(clip.read_bytes()[: clip.stat().st_size * 3 // 4 + 77])


def stalled(clip: Path) -> Talk:
    return send_then_stall(clip.read_bytes())


def camera(clip: Path) -> Talk:
    return RtspCamera(clip).talk


def vanished_camera(clip: Path) -> Talk:
    return RtspCamera(clip, hangs_up=True).talk


@pytest.mark.parametrize(
    ("scheme", "talk", "max_frames"),
    [
        ("tcp", whole, None),
        ("tcp", cut_in_mid_packet, None),
        ("rtsp", vanished_camera, None),
        ("tcp", stalled, 5),
        ("rtsp", camera, 5),
    ],
)
def test_a_recording_ends_well_where_the_stream_ends_or_enough_was_recorded(
    clip: Path, tmp_path: Path, scheme: str, talk: Callable[[Path], Talk], max_frames: int | None
) -> None:
    with tcp_server(talk(clip)) as port:
        report = stream.run(
            f"{scheme}://127.0.0.1:{port}", output=tmp_path / "rec.mp4", max_frames=max_frames, reconnect_for=0
        )
    assert report.exit_code == 0
    assert report.captured == report.written + sum(report.dropped.values())
    assert report.captured == max_frames or max_frames is None
    assert report.written == len(pts_of(tmp_path / "rec.mp4")) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["rec.mp4"]


def test_a_recording_survives_a_sender_that_falls_silent(clip: Path, tmp_path: Path) -> None:
    recorded = threading.Event()

    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        data = clip.read_bytes()
        while not recorded.is_set():  # the same again: the model may need long for the first frame
            for start in range(0, len(data), 1316):
                connection.sendall(data[start : start + 1316])
                recorded.wait(0.002)
        stopped.wait(WAIT_S)

    def watch(progress: Progress) -> None:
        if progress.metrics.written:
            recorded.set()

    options = {"output": tmp_path / "rec.mp4", "read_timeout_s": SHORT_S, "reconnect_for": 0}
    with tcp_server(talk) as port, pytest.raises(SourceError, match=r"no data for 0\.4 s"):
        run_config(from_options(f"tcp://127.0.0.1:{port}", options), on_progress=watch)
    assert pts_of(tmp_path / "rec.partial.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["rec.partial.mp4"]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened in which order: `model` when one is loaded; a test adds the rest."""
    happened: list[str] = []

    def load(*args: Any, **kwargs: Any) -> Any:
        engine = load_engine(*args, **kwargs)
        happened.append("model")
        return engine

    monkeypatch.setattr("stream.jobs.run.load_engine", load)
    monkeypatch.setattr("stream.jobs.opening.load_engine", load)
    return happened


@pytest.mark.parametrize("face", ["run", "iter_depth"])
def test_a_live_source_is_opened_when_the_model_is_ready(
    clip: Path, tmp_path: Path, order: list[str], face: str
) -> None:
    def talk(connection: socket.socket, _stopped: threading.Event) -> None:
        order.append("connected")
        connection.sendall(clip.read_bytes())

    with tcp_server(talk) as port:
        url = f"tcp://127.0.0.1:{port}"
        if face == "run":
            assert stream.run(url, output=tmp_path / "rec.mp4", reconnect_for=0).written > 0
        else:
            assert list(stream.iter_depth(url, reconnect_for=0))
    assert order == ["model", "connected"]


def test_what_has_no_effect_is_said_when_the_live_source_is_open(clip: Path, tmp_path: Path, order: list[str]) -> None:
    def talk(connection: socket.socket, _stopped: threading.Event) -> None:
        order.append("connected")
        connection.sendall(clip.read_bytes())

    with tcp_server(talk) as port:
        options: Any = {"output": tmp_path / "rec.mp4", "reconnect_for": 0, "max_frames": 1, "recursive": True}
        stream.run(f"tcp://127.0.0.1:{port}", on_note=order.append, **options)
    said = "--recursive has no effect: the source is no folder"
    assert [text for text in order if text in (said, "model", "connected")] == ["model", "connected", said]


def test_a_file_behind_a_url_is_opened_before_the_model_is_loaded(order: list[str]) -> None:
    with pytest.raises(SourceError, match="Connection refused"):
        stream.run(f"http://127.0.0.1:{refused_port()}/clip.mp4", output="out.mp4")
    assert order == []


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("rtsp://127.0.0.1:1/x", {"start": 1.0}, "--start: does not apply: a live stream has no start time"),
        ("udp://127.0.0.1:1", {"output": "x.txt"}, "cannot write .txt files"),
        ("tcp://127.0.0.1:1", {"colormap": "blue"}, "blue"),
        ("cam:97", {}, "cam"),
    ],
)
def test_what_is_wrong_with_a_live_source_is_said_before_the_model_is_loaded(
    order: list[str], source: str, options: Any, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        stream.run(source, **options)
    assert order == []


def test_a_live_source_is_refused_for_a_comparison_without_connecting_to_it() -> None:
    with pytest.raises(UsageError, match="a live source cannot be compared"):
        compare_config(from_options(f"tcp://127.0.0.1:{refused_port()}", {}), ["starter", "dav2-small"])
