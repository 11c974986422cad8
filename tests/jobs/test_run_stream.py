"""What is streamed: every kind of receiver gets every frame, and one that fails is an error without its secrets."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stream.errors import ConfigError, SinkError, SourceError, UsageError
from stream.jobs.options import from_options
from stream.jobs.report import Report
from stream.jobs.run import run_config
from stream.media import av
from stream.metrics import Outcome
from stream.sinks.pipe_writer import PipeWriter
from stream.sinks.stream import StreamSink
from stream.sinks.target import parse_target
from tests.support import forked
from tests.support.media_files import write_video
from tests.support.servers import (
    WAIT_S,
    RtspReceiver,
    collect,
    datagrams,
    free_udp_port,
    receive_then_close,
    receiving,
    refused_port,
    stay_silent,
    tcp_server,
)
from tests.support.sink_input import fill, info_of, results
from tests.support.tiny_model import own
from tests.support.waiting import until

FRAMES = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "clip.mp4"
    return write_video(path, frames=FRAMES, rate=Fraction(25))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def push(url: str, *, count: int = FRAMES, **options: Any) -> StreamSink:
    """Stream some frames of a file at 25 fps, without a model."""
    sink = StreamSink(parse_target(url), **options)
    tick = Fraction(1, 25)
    try:
        fill(sink, range(count), tick=tick, rate=1 / tick)
    except BaseException as error:
        sink.keep_partial(str(error))
        raise
    sink.finish()
    assert os.listdir() == []
    return sink


def command(source: Path | str, *arguments: str) -> list[str]:
    return ["run", str(source), "--input-size", "64", "--backend", "torch", *arguments]


def run(source: Path | str, options: dict[str, Any]) -> Report:
    with own() as model:
        return run_config(from_options(str(source), {"quiet": True, **options}), model=model)


def frames_in(data: bytes) -> list[float]:
    with av.open(io.BytesIO(data)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def test_tcp_gets_a_transport_stream_with_every_frame() -> None:
    received = bytearray()
    with tcp_server(collect(received)) as port:
        sink = push(f"TCP://127.0.0.1:{port}")
    times = frames_in(bytes(received))
    assert [round(time - times[0], 6) for time in times] == [index / 25 for index in range(FRAMES)]
    assert (sink.outputs, sink.warnings) == ([f"tcp://127.0.0.1:{port}"], [])


# FFmpeg's RTP muxer never sends a last packet that is not full: 1.3 kB, some frames of this small video.
@pytest.mark.parametrize(("scheme", "header_bytes", "unsent"), [("udp", 0, 0), ("rtp", 12, 4)])
def test_datagrams_hold_whole_packets_of_a_transport_stream(scheme: str, header_bytes: int, unsent: int) -> None:
    with datagrams() as (port, arrived):
        push(f"{scheme}://127.0.0.1:{port}")
        found = [data[header_bytes:] for data in arrived()]
    assert {len(data) % 188 for data in found} == {0}
    assert max(map(len, found)) == 7 * 188
    assert FRAMES - unsent <= len(frames_in(b"".join(found))) <= FRAMES


def test_a_file_is_sent_to_the_network_at_its_own_rate_and_to_tcp_at_once() -> None:
    now, waited = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        waited.append(round(seconds, 6))
        now[0] += seconds

    push(f"udp://127.0.0.1:{free_udp_port()}", count=4, clock=lambda: now[0], sleep=sleep)
    assert waited == [0.04] * 3
    with tcp_server(collect(bytearray())) as port:
        push(f"tcp://127.0.0.1:{port}", clock=lambda: now[0], sleep=sleep)
    assert waited == [0.04] * 3


def reaches(url: str) -> bool:
    """Whether the frames could be sent."""
    try:
        push(url)
    except SinkError:
        return False
    return True


def test_rtmp_gets_every_frame() -> None:
    url = f"rtmp://127.0.0.1:{refused_port()}/live/key"
    with receiving(url, listen="1") as times:
        until(lambda: reaches(url), "the listener")  # it accepts one connection, so nothing else can ask for it
    assert len(times) == FRAMES


def test_rtsp_is_announced_and_gets_every_frame() -> None:
    receiver = RtspReceiver()
    with tcp_server(receiver.talk) as port:
        push(f"rtsp://127.0.0.1:{port}/live")
    assert [method for method in receiver.methods if method != "OPTIONS"] == ["ANNOUNCE", "SETUP", "RECORD", "TEARDOWN"]
    assert receiver.frames == FRAMES


def test_a_listening_target_waits_for_its_reader() -> None:
    port, received = refused_port(), bytearray()

    def connected() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        except ConnectionRefusedError:
            return None

    def read() -> None:
        with until(connected, "the sink") as reader:
            while data := reader.recv(1 << 16):
                received.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    sink = push(f"tcp://127.0.0.1:{port}?listen")
    thread.join(WAIT_S)
    assert len(frames_in(bytes(received))) == FRAMES
    assert sink.notes == [f"tcp://127.0.0.1:{port}?***: waiting for a reader"]


def is_taken(port: int) -> bool:
    """Whether some process listens on the port; found out without connecting."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def waited_for(port: int, *, taken: bool) -> bool:
    """Wait until the port is taken, or free."""
    deadline = time.monotonic() + 6 * WAIT_S
    while is_taken(port) is not taken and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_taken(port) is taken


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_run_that_is_killed_leaves_nothing_that_waits_for_a_reader() -> None:
    port = refused_port()
    process = forked.start(command("pattern:testsrc2", "-o", f"tcp://127.0.0.1:{port}?listen"))
    try:
        assert waited_for(port, taken=True)
    finally:
        process.kill()
    assert waited_for(port, taken=False)


def test_an_interrupt_ends_a_run_that_waits_for_a_reader() -> None:
    port = refused_port()
    with Path("said").open("wb") as said:
        process = forked.start(command("pattern:testsrc2", "-o", f"tcp://127.0.0.1:{port}?listen"), stderr=said)
    try:
        assert waited_for(port, taken=True)
        os.kill(process.pid or 0, signal.SIGINT)
        code = forked.ended(process)
    finally:
        process.kill()
    assert (code, "stopped before everything was sent" in Path("said").read_text()) == (0, True)
    assert waited_for(port, taken=False)


def listening(stopping: Callable[[], bool]) -> StreamSink:
    """A sink that nobody reads, after some frames that are more than a pipe holds."""
    sink = StreamSink(parse_target(f"tcp://127.0.0.1:{refused_port()}?listen"), crf=0)
    sink.stopping = stopping
    rng = np.random.default_rng(1)
    try:
        tick = Fraction(1, 25)
        sink.open(info_of(tick=tick, rate=1 / tick, size=(192, 256)), (192, 256))
        for frame, depth in results(range(4), tick=tick, size=(192, 256)):
            sink.write(frame, depth, rng.integers(0, 256, (192, 256, 3), np.uint8))
        sink.finish()
    except BaseException:
        sink.keep_partial("interrupted")
        raise
    return sink


def test_a_sink_whose_pipe_is_full_ends_with_its_run() -> None:
    sink = listening(lambda: True)
    assert sink.wants_stop
    assert "stopped before everything was sent" in sink.notes[-1]


def test_a_second_interrupt_gets_through_a_sink_whose_pipe_is_full() -> None:
    def stopping() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        listening(stopping)


def test_a_reader_that_takes_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.sinks.pipe_writer.PATIENCE_S", 0.0)
    reader, writer = os.pipe()
    pipe = PipeWriter(writer, lambda: True)
    with pytest.raises(BrokenPipeError):
        pipe.write(bytes(1 << 20))
    assert pipe.gave_up
    os.close(reader)
    os.close(writer)


def test_a_pause_in_a_file_ends_with_its_run() -> None:
    waited = list[float]()
    sink = StreamSink(parse_target(f"udp://127.0.0.1:{free_udp_port()}"), sleep=waited.append, clock=lambda: 0.0)
    sink.stopping = lambda: len(waited) == 3
    fill(sink, (0, 8), tick=Fraction(1), rate=None)
    sink.finish()
    assert waited == [0.05] * 3


def test_stdout_gets_matroska_and_nothing_else(clip: Path) -> None:
    done = forked.run(command(clip, "-o", "-"))
    assert done.returncode == 0, done.stderr
    with av.open(io.BytesIO(done.stdout)) as container:
        assert "matroska" in container.format.name
    assert frames_in(done.stdout) == [index / 25 for index in range(FRAMES)]
    assert b"stdout" in done.stderr.splitlines()[-1]
    assert os.listdir() == []


def test_a_reader_of_stdout_that_leaves_ends_the_run_quietly() -> None:
    reading, writing = os.pipe()
    with Path("said").open("wb") as said:
        endless = command("pattern:testsrc2", "-o", "-", "--report", "r.json")
        process = forked.start(endless, stdout=writing, stderr=said)
    os.close(writing)
    assert os.read(reading, 2000)
    os.close(reading)
    assert forked.ended(process) == 0, Path("said").read_text()
    assert b"depthstream:" not in Path("said").read_bytes()
    assert json.loads(Path("r.json").read_text())["outputs"] == ["stdout"]


def test_the_sound_of_a_file_is_streamed_too() -> None:
    write_video(Path("clip.mp4"), frames=FRAMES, audio_s=0.4)
    received = bytearray()
    with tcp_server(collect(received)) as port:
        run("clip.mp4", {"output": f"tcp://127.0.0.1:{port}"})
    assert len(frames_in(bytes(received))) == FRAMES
    with av.open(io.BytesIO(received)) as container:
        assert sum(packet.size > 0 for packet in container.demux(audio=0)) > 10


@pytest.mark.parametrize("scheme", ["rtmp", "rtmps", "rtsp", "tcp"])
def test_an_unreachable_target_is_an_error_without_its_secrets(scheme: str) -> None:
    path = {"rtmp": "/live/secret2", "rtmps": "/live/secret2", "rtsp": "/cam", "tcp": ""}[scheme]
    url = f"{scheme}://me:secret1@127.0.0.1:{refused_port()}{path}?token=secret3"
    with pytest.raises(SinkError, match="cannot be reached: Connection refused") as caught:
        push(url.replace("me:secret1@", "") if scheme == "tcp" else url)
    assert "secret" not in str(caught.value)
    assert os.listdir() == []


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_a_target_that_never_answers_is_given_up(scheme: str) -> None:
    with tcp_server(stay_silent) as port, pytest.raises(SinkError, match="no answer in time"):
        push(f"{scheme}://127.0.0.1:{port}/live/key", open_limit_s=0.3, send_limit_s=0.3)


def test_a_target_that_goes_away_is_an_error() -> None:
    with tcp_server(receive_then_close(3000)) as port, pytest.raises(SinkError, match="the connection was lost"):
        push(f"tcp://127.0.0.1:{port}", count=3000)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("foo://x/y", "cannot stream to foo://"),
        ("http://me:secret@127.0.0.1/x", "cannot stream to http://"),
        ("ftp://127.0.0.1/x.mp4", "cannot stream to ftp://"),
        ("rtmp://", "the address is missing"),
        ("rtmp://[::1/secret", "rtmp://…: not a valid URL"),
    ],
)
def test_other_urls_are_refused_before_anything_is_opened(output: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        run("no such file.mp4", {"output": output})
    assert "rtmp://" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert os.listdir() == []


def test_what_needs_stdout_or_a_folder_is_refused_with_stdout(clip: Path) -> None:
    with pytest.raises(ConfigError, match="no place beside stdout"):
        run(clip, {"output": "-", "save": "npy"})
    done = forked.run(command(clip, "-o", "-", "--json"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"stdout has the video" in done.stderr


def test_photos_need_a_rate_and_a_codec_must_fit(clip: Path) -> None:
    Path("photos").mkdir()
    for name in "ab":
        Image.new("RGB", (64, 48)).save(Path("photos", f"{name}.png"))
    with pytest.raises(ConfigError, match="still images have no frame rate"):
        run("photos", {"output": "udp://127.0.0.1:9"})
    with pytest.raises(UsageError, match="flv streams do not support"):
        run(clip, {"output": "rtmp://127.0.0.1/a/b", "codec": "ffv1"})


def test_home_and_file_urls_are_paths(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for output, name in (("~/a b.mp4", "a b.mp4"), (f"FILE://{tmp_path}/c%20d.mp4", "c d.mp4"), ("-.mp4", "-.mp4")):
        report = run(clip, {"output": output, "report": "~/r.json"})
        assert (report.outcome, Path(report.outputs[0]).name) == (Outcome.DONE, name)
        assert (tmp_path / name).exists()
    assert (tmp_path / "r.json").exists()


def test_what_a_message_shows_of_a_target() -> None:
    shown = {
        "rtmps://me:pw@host:1935/app/inst/KEY?x=1": "rtmps://me:***@host:1935/app/inst/***?***",
        "rtmp://host/KEY": "rtmp://host/***",
        "rtmp://host/KEY#a/b": "rtmp://host/***",
        "rtmp://u:pa/ss@host/app/KEY": "rtmp://***@host/app/***",
        "rtsp://me:p:w@host/live/KEY": "rtsp://me:***@host/live/***",
        "SRT://host:9?passphrase=pw": "srt://host:9?***",
        "udp://239.0.0.1:1234": "udp://239.0.0.1:1234",
        "-": "stdout",
    }
    assert {text: parse_target(text).shown for text in shown} == shown


def test_only_a_url_that_asks_for_it_waits_for_a_reader() -> None:
    found = {
        query: parse_target(f"tcp://127.0.0.1:9{query}").waits_for_reader
        for query in ("", "?listen", "?listen=1", "?listen=0", "?mode=listener", "?mode=caller", "?streamid=listen")
    }
    assert [query for query, waits in found.items() if waits] == ["?listen", "?listen=1", "?mode=listener"]


def test_the_encoder_of_a_stream_has_an_effect(clip: Path) -> None:
    with tcp_server(collect(bytearray())) as port:
        report = run(clip, {"output": f"tcp://127.0.0.1:{port}", "crf": 30})
    assert report.notes == []


def test_the_report_of_a_source_that_cannot_be_opened_holds_no_secret() -> None:
    url = f"http://me:secret1@127.0.0.1:{refused_port()}/a.mp4?token=secret2"
    with pytest.raises(SourceError) as caught:
        run(url, {"report": "r.json", "output": "out.mp4"})
    assert "secret" not in str(caught.value) + Path("r.json").read_text()


def test_files_are_planned_without_the_libraries_of_streams() -> None:
    script = "import sys; from stream.config import Config; from stream.jobs.plan import stream_target as target\n"
    script += "assert target(Config()) is None; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
