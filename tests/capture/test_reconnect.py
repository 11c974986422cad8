"""Live streams that break and come back: how often they are tried, how their frames are numbered, when it is enough."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import stream
from stream.capture.base import CaptureLog, Skipped, Source
from stream.capture.reconnect import MAX_DELAY_S, ReconnectingSource
from stream.channel import Listener
from stream.errors import SourceError
from stream.frames import AudioPacket, Frame, SourceInfo, SourceKind
from tests.support.media_files import audio_of, number_of, write_video
from tests.support.servers import RtspCamera, Talk, tcp_server

RGB = np.zeros((2, 2, 3), np.uint8)
LOST = SourceError("reading failed: the connection was lost", where="cam")


class World:
    """A clock, the waits of the source, and connections to hand out."""

    def __init__(self, *connections: "Connection | SourceError") -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self.connections = list(connections)
        self.on_wait: Callable[[], None] = lambda: None

    def wait(self, stopped: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        self.on_wait()
        return stopped.is_set()

    def open(self, within_s: float = 9) -> Source:
        assert within_s > 0
        nxt = self.connections.pop(0) if self.connections else SourceError("cannot be opened: refused", where="cam")
        if isinstance(nxt, SourceError):
            raise nxt
        nxt.world = self
        return nxt

    def source(
        self, *, give_up_after_s: float = 30.0, ends: bool = False, max_frames: int | None = None
    ) -> ReconnectingSource:
        return ReconnectingSource(
            self.open(), self.open, give_up_after_s=give_up_after_s, ends=ends, max_frames=max_frames,
            clock=lambda: self.now, wait=self.wait, chance=lambda: 0.0,
        )  # fmt: skip


class Connection(Source):
    """A live source of `frames` frames, 0.1 s apart, that then fails or ends."""

    world: World

    def __init__(
        self, frames: int, *, fails: SourceError | None = LOST, time_base: Fraction = Fraction(1, 1000)
    ) -> None:
        self.frames, self.fails, self.time_base = frames, fails, time_base
        self.info = SourceInfo(
            name="cam",
            size=(2, 2),
            is_live=True,
            time_base=time_base,
            rate=Fraction(10),
            frame_count=None,
            kind=SourceKind.NETWORK,
        )
        self._log = CaptureLog()
        self.closed = self.interrupted = 0

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            self.world.now += 0.1
            pts = 5000 + round(index * Fraction(1, 10) / self.time_base)
            yield Frame(
                index=index, pts=pts, time_base=self.time_base, captured_at=self.world.now, rgb=RGB, duration=None
            )
        self.log.dropped = {"corrupt": 1}
        if self.fails:
            raise self.fails

    def interrupt(self) -> None:
        self.interrupted += 1

    def close(self) -> None:
        self.closed += 1


def test_frames_go_on_where_they_stopped_and_nothing_is_invented() -> None:
    first, second = Connection(3), Connection(4, fails=None, time_base=Fraction(1, 90_000))
    world = World(first, second)
    source = world.source(ends=True)
    frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 5, 6]
    assert {frame.time_base for frame in frames} == {Fraction(1, 1000)}
    steps = [late.pts - early.pts for early, late in pairwise(frames)]
    assert steps == [100, 100, 600, 100, 100, 100]  # half a second away, then the tenth until its first frame
    assert (source.log.reconnects, source.log.dropped) == (1, {"corrupt": 2})
    assert source.log.notes == [
        "cam: interrupted (reading failed: the connection was lost); reconnecting for up to 30 s"
    ]
    assert (first.closed, second.closed) == (1, 0)
    source.close()
    assert second.closed == 1


def sound_times(listener: Listener[AudioPacket]) -> list[float]:
    return [float((item.packet.pts or 0) * item.packet.time_base) for item in listener.take()]


def test_sound_goes_on_with_the_frames_after_an_interruption(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", frames=10, audio_s=0.3)
    first, second = Connection(3), Connection(3, fails=None)
    for connection in (first, second):
        connection.info = replace(connection.info, audio=audio_of(path))
    source = World(first, second).source(ends=True)
    assert source.info.audio is not None
    listener = Listener(source.info.audio.packets, 1 << 20)
    frames = list(source)
    times = sound_times(listener)
    half = len(times) // 2
    moved_s = frames[3].time_s - frames[0].time_s  # both connections start at the same time of their own clock
    assert half > 10
    assert times[half:] == pytest.approx([time + moved_s for time in times[:half]], abs=1e-3)
    assert listener.has_ended


def test_sound_of_another_format_is_left_out_after_an_interruption_and_said(tmp_path: Path) -> None:
    first, second = Connection(3), Connection(3, fails=None)
    first.info = replace(first.info, audio=audio_of(write_video(tmp_path / "a.ts", frames=10, audio_s=0.3)))
    other = write_video(tmp_path / "b.ts", frames=10, audio_s=0.3, audio_codec="libmp3lame")
    second.info = replace(second.info, audio=audio_of(other))
    source = World(first, second).source(ends=True)
    assert source.info.audio is not None
    listener = Listener(source.info.audio.packets, 1 << 20)
    assert len(list(source)) == 6
    assert 0 < len(listener.take()) < 30
    assert "cam: no audio after the interruption, its format has changed" in source.log.notes


def test_waits_double_to_a_limit_and_end_when_it_is_enough() -> None:
    world = World(Connection(1))
    with pytest.raises(SourceError) as failure:
        list(world.source(give_up_after_s=30))
    assert world.waits[:5] == [0.5, 1, 2, 4, MAX_DELAY_S]
    assert sum(world.waits) == pytest.approx(30)
    assert str(failure.value) == (
        "cam: cannot be opened: refused, and the source did not come back within 30 s; "
        "raise --reconnect-for to wait longer"
    )


def test_waits_are_shortened_at_random_but_not_below_half() -> None:
    chances = iter([0.0, 0.5, 0.999])
    world = World(Connection(1))
    source = ReconnectingSource(
        world.open(), world.open, give_up_after_s=3, ends=False,
        clock=lambda: world.now, wait=world.wait, chance=lambda: next(chances, 0.0),
    )  # fmt: skip
    with pytest.raises(SourceError):
        list(source)
    assert world.waits[:3] == pytest.approx([0.5, 0.75, 1.001])


def test_each_interruption_has_the_whole_time_and_the_first_short_wait() -> None:
    refused = SourceError("cannot be opened: refused", where="cam")
    world = World(Connection(1), refused, refused, Connection(1), refused, Connection(1, fails=None))
    source = world.source(give_up_after_s=4, ends=True)
    assert len(list(source)) == 3
    assert world.waits == [0.5, 1, 2, 0.5, 1]
    assert source.log.reconnects == 2


def test_an_end_is_final_where_senders_do_not_come_back() -> None:
    world = World(Connection(2, fails=None))
    assert len(list(world.source(ends=True))) == 2
    assert world.waits == []


def test_an_end_that_may_be_a_restart_is_waited_for_and_is_no_failure() -> None:
    world = World(Connection(2, fails=None), Connection(1, fails=None))
    source = world.source(give_up_after_s=1)
    assert len(list(source)) == 3
    assert sum(world.waits) == pytest.approx(0.5 + 1)
    assert source.log.waiting == ""


def test_the_limit_of_frames_holds_over_all_connections() -> None:
    world = World(Connection(3), Connection(5))
    source = world.source(max_frames=4)
    assert source.info.frame_count == 4
    assert [frame.index for frame in source] == [0, 1, 2, 3]


def test_an_interruption_ends_the_wait_without_an_error() -> None:
    world = World(Connection(1), Connection(1))
    source = world.source()
    seen: list[str] = []

    def stop() -> None:
        seen.append(source.log.waiting)
        source.interrupt()

    world.on_wait = stop
    assert len(list(source)) == 1
    assert seen == ["reconnecting (attempt 1)"]
    assert len(world.connections) == 1


def test_logs_add_up() -> None:
    one = CaptureLog(
        skipped=[Skipped(name="a", reason="b")], repaired_pts=1, dropped={"x": 1}, notes=["n"], reconnects=1
    )
    two = CaptureLog(repaired_pts=2, ignored=3, dropped={"x": 1, "y": 2}, warnings=["w"], notes=["n", "m"], waiting="w")
    both = one.plus(two)
    assert both == CaptureLog(
        skipped=[Skipped(name="a", reason="b")], repaired_pts=3, ignored=3, dropped={"x": 2, "y": 2}, warnings=["w"],
        notes=["n", "m"], reconnects=1, waiting="w",
    )  # fmt: skip
    assert one.dropped == {"x": 1}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("again") / "clip.ts", frames=60, gop=5)


def hang_up(connection: object, stopped: threading.Event) -> None:
    """Accepts and says nothing."""


@pytest.mark.slow
def test_a_camera_that_restarts_is_recorded_into_one_file(clip: Path, tmp_path: Path) -> None:
    def playing() -> Talk:
        return RtspCamera(clip, hangs_up=True).talk

    with tcp_server(playing(), hang_up, playing()) as port:
        report = stream.run(
            f"rtsp://127.0.0.1:{port}/cam", output=tmp_path / "rec.mp4", layout="depth", reconnect_for=2
        )
    assert report.counters["reconnects"] == 1
    assert report.exit_code == 0
    assert report.captured == report.written + sum(report.dropped.values())
    assert any("reconnecting for up to 2 s" in note for note in report.notes)
    assert report.written > 0


def test_frames_of_both_connections_arrive(clip: Path) -> None:
    from stream.capture.open import open_source
    from stream.config import CaptureConfig

    cameras = [RtspCamera(clip, hangs_up=True), RtspCamera(clip, hangs_up=True)]
    with tcp_server(*(camera.talk for camera in cameras)) as port:
        source = open_source(f"rtsp://127.0.0.1:{port}/cam", options=CaptureConfig(reconnect_for_s=1))
        frames = list(source)
        source.close()
    numbers = [number_of(frame.rgb) for frame in frames]
    assert numbers.count(59) == 2
    assert all(late.pts > early.pts and late.index > early.index for early, late in pairwise(frames))
    assert source.log.reconnects == 1


def test_what_the_run_takes_does_not_count_against_a_reconnection(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stream.capture.open import open_source
    from stream.config import CaptureConfig

    free = [4 * 10**9]
    monkeypatch.setattr("stream.machine.free_memory_bytes", lambda: free[0])
    with tcp_server(RtspCamera(clip, hangs_up=True).talk, RtspCamera(clip, hangs_up=True).talk) as port:
        source = open_source(f"rtsp://127.0.0.1:{port}/cam", options=CaptureConfig(reconnect_for_s=1))
        free[0] = 0
        assert [number_of(frame.rgb) for frame in source].count(59) == 2
        source.close()
    assert source.log.reconnects == 1


@pytest.mark.slow
def test_a_stream_that_does_not_come_back_is_an_error_after_the_asked_time(clip: Path, tmp_path: Path) -> None:
    from stream.cli.main import invoke

    with tcp_server(RtspCamera(clip).talk) as port:
        code = invoke(
            [
                "run",
                f"rtsp://127.0.0.1:{port}/cam",
                "-o",
                str(tmp_path / "rec.mp4"),
                "--read-timeout-s",
                "0.4",
                "--open-timeout-s",
                "0.4",
                "--reconnect-for",
                "1",
                "--quiet",
            ]
        )
    assert code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rec.partial.mp4"]
