"""A live stream stays at the present: what is skipped where the decoder is too slow, and how old a frame is."""

import queue
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream.capture.base import CaptureLog
from stream.capture.video import live
from stream.capture.video.live import BEHIND, LivePackets, StreamClock
from stream.capture.video.network import LiveSource, open_network
from stream.channel import Listener
from stream.errors import SourceError
from stream.media import av
from tests.support.media_files import number_of, write_video
from tests.support.servers import send_then_stall, tcp_server

GOP, STEP_S = 10, 0.04


class Sender:
    """Stands for a container whose packets arrive when the test says so: each is queued when `send` returns."""

    def __init__(self, clip: Path, flags: int = 0) -> None:
        self._container = av.open(str(clip))
        self.stream = self._container.streams.video[0]
        self.packets = [packet for packet in self._container.demux(self.stream) if packet.size]
        self.format = SimpleNamespace(name="mpegts", flags=flags)
        self.now_s, self.closed = 100.0, 0
        self._sent: queue.Queue[tuple[Any, float] | None] = queue.Queue()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def clock(self) -> float:
        return self.now_s

    def demux(self, *_streams: object) -> Iterator[Any]:
        while (item := self._sent.get()) is not None:
            packet, self.now_s = item
            yield packet
            self._sent.task_done()
        self._sent.task_done()

    def send(self, *numbers: int, every_s: float = STEP_S) -> None:
        for number in numbers:
            self._sent.put((self.packets[number], self.now_s + every_s))
            self._sent.join()

    def prepare(self, *numbers: int, every_s: float) -> None:
        """Let packets arrive as fast as they are read, and then the end."""
        for count, number in enumerate(numbers, 1):
            self._sent.put((self.packets[number], self.now_s + count * every_s))
        self.end()

    def end(self) -> None:
        self._sent.put(None)

    def close(self) -> None:
        self.closed += 1
        self._container.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames at 25 per second, a key frame every ten."""
    return write_video(tmp_path_factory.mktemp("live") / "clip.ts", frames=60, gop=GOP)


@pytest.fixture
def sender(clip: Path, monkeypatch: pytest.MonkeyPatch) -> Sender:
    for name in ("_HOLD_S", "_GRACE_S", "_CATCH_UP_S"):  # real seconds, which are not what is tested here
        monkeypatch.setattr(live, name, 0.0)
    return Sender(clip)


def begun(sender: Sender) -> tuple[LivePackets, Iterator[Any], CaptureLog]:
    """Packets of which the first has arrived and was taken."""
    log = CaptureLog()
    packets = LivePackets(sender, sender.stream, log, name="cam", clock=sender.clock)  # type: ignore[arg-type]
    taken = packets.demux(sender.stream)
    reader = threading.Thread(target=sender.send, args=(0,))
    reader.start()
    assert next(taken) is sender.packets[0]
    reader.join()
    assert not packets.begin()
    return packets, taken, log


def test_a_slow_decoder_goes_on_at_the_newest_key_frame_and_it_is_counted_and_said(sender: Sender) -> None:
    packets, taken, log = begun(sender)
    sender.send(*range(1, 29))
    assert next(taken) is sender.packets[20], "the newest key frame"
    assert packets.take_skipped() == 19
    assert [next(taken) for _ in range(8)] == sender.packets[21:29]
    assert log.notes == ["cam: decoding is slower than the stream; skipping to the newest key frame"]
    sender.end()
    packets.close()


def test_what_arrives_in_a_burst_is_decoded_in_full(sender: Sender) -> None:
    packets, taken, log = begun(sender)
    sender.now_s += 5
    sender.send(*range(1, 29), every_s=0.001)
    assert [next(taken) for _ in range(28)] == sender.packets[1:29]
    assert (packets.take_skipped(), log.notes) == (0, [])
    sender.end()
    packets.close()


def test_without_a_key_frame_nothing_is_skipped_but_it_is_said(sender: Sender) -> None:
    packets, taken, log = begun(sender)
    sender.send(*range(1, 8), every_s=0.2)
    assert next(taken) is sender.packets[1]
    assert packets.take_skipped() == 0
    assert log.notes == ["cam: behind the stream, and no key frame to skip to has arrived yet"]
    sender.end()
    packets.close()


def test_what_waits_is_bounded_even_without_key_frames(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    packets, taken, _ = begun(sender)
    monkeypatch.setattr(live, "_MOST_BYTES", 1)
    sender.send(*range(1, 8), every_s=0.2)
    waiting = threading.Thread(target=sender.send, args=range(8, 12))
    waiting.start()
    assert next(taken) is sender.packets[10], "the next key frame"
    waiting.join()
    assert packets.take_skipped() == 9
    sender.end()
    packets.close()


def test_what_arrived_before_frames_were_wanted_is_dropped_and_not_counted(sender: Sender) -> None:
    log = CaptureLog()
    packets = LivePackets(sender, sender.stream, log, name="cam", clock=sender.clock)  # type: ignore[arg-type]
    taken = packets.demux(sender.stream)
    reader = threading.Thread(target=sender.send, args=range(45))
    reader.start()
    next(taken)
    reader.join()
    assert packets.begin(), "the first frame is outdated"
    assert next(taken) is sender.packets[40]
    assert (packets.take_skipped(), log.notes) == (0, [])
    sender.end()
    packets.close()


def opened(sender: Sender) -> LiveSource:
    """A source for which the first three packets have arrived."""
    reader = threading.Thread(target=sender.send, args=range(3))
    reader.start()
    source = LiveSource(sender, "tcp://cam", read_timeout_s=1, clock=sender.clock)  # type: ignore[arg-type]
    reader.join()
    return source


def test_the_age_is_measured_by_the_clock_of_the_stream(sender: Sender) -> None:
    source = opened(sender)
    frames = iter(source)
    first = next(frames)
    sender.now_s += 7  # the network holds up the rest
    sender.send(3, 4, every_s=0.001)
    sender.end()
    rest = list(frames)
    source.close()
    assert [frame.captured_at for frame in (first, *rest)] == pytest.approx([100 + n * STEP_S for n in range(1, 6)])


def test_without_timestamps_the_age_is_that_since_the_arrival(sender: Sender) -> None:
    sender.format.flags = 0x80
    source = opened(sender)
    sender.send(3, every_s=0.7)
    sender.end()
    frames = list(source)
    source.close()
    arrived = [100 + STEP_S, 100 + 2 * STEP_S, 100 + 3 * STEP_S, 100.7 + 3 * STEP_S]
    assert [frame.captured_at for frame in frames] == pytest.approx(arrived)
    assert [frame.time_s for frame in frames] == pytest.approx([at - arrived[0] for at in arrived], abs=1e-4)


def test_the_container_is_closed_once_by_whoever_is_last(sender: Sender) -> None:
    packets, _, _ = begun(sender)
    packets.close()
    assert sender.closed == 0, "its reader still waits for the sender"
    sender.end()
    packets.close()
    reader = packets._thread
    assert reader is not None
    reader.join(5)
    assert sender.closed == 1


def test_the_clock_follows_the_stream() -> None:
    clock = StreamClock()
    clock.arrived(5.0, 100.0)
    clock.arrived(6.0, 101.3)
    assert clock.captured_at(6.0, 101.4) == 101.0
    assert clock.captured_at(7.0, 101.5) == 101.5, "never later than now"
    for second in range(2, 100):  # the way becomes longer for good
        clock.arrived(5.0 + second, 100.5 + second)
    assert clock.captured_at(104.0, 199.6) == 199.5
    clock.arrived(0.0, 300.0)  # the clock of the sender starts again
    assert clock.captured_at(0.0, 300.2) == 300.0


def test_frames_of_a_live_source_are_as_old_as_the_stream_says(clip: Path) -> None:
    with closing(LiveSource(av.open(str(clip)), "tcp://cam", read_timeout_s=1, clock=lambda: 50.0)) as source:
        frames = list(source)
    assert [number_of(frame.rgb) for frame in frames] == list(range(60))
    assert max(frame.captured_at for frame in frames) <= 50.0
    assert source.log.dropped == {}


def test_interrupt_does_not_wait_for_the_sender(clip: Path) -> None:
    with tcp_server(send_then_stall(clip.read_bytes())) as port:
        source = open_network(f"tcp://127.0.0.1:{port}", read_timeout_s=60)
        last = threading.Event()

        def read() -> None:
            for frame in source:
                if number_of(frame.rgb) >= 55:
                    last.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert last.wait(5)
        source.interrupt()
        reader.join(5)
        assert not reader.is_alive()
        source.close()


def test_skipped_frames_leave_a_gap_and_are_in_the_log(sender: Sender) -> None:
    source = opened(sender)
    frames = iter(source)
    assert next(frames).index == 0
    sender.send(*range(3, 45))
    sender.end()
    rest = list(frames)
    source.close()
    numbers = [number_of(frame.rgb) for frame in rest]
    assert numbers[-5:] == [40, 41, 42, 43, 44]
    assert len(numbers) < 20
    assert source.log.dropped[BEHIND] > 20
    assert rest[-1].index + 1 == 1 + len(rest) + source.log.dropped[BEHIND]


def test_sound_does_not_pile_up_while_nobody_takes_frames(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[object] = []
    starts = LivePackets._starts
    monkeypatch.setattr(LivePackets, "_starts", lambda self, packet: looked_at.append(packet) or starts(self, packet))
    packets = LivePackets(sender, sender.stream, CaptureLog(), name="cam", clock=sender.clock)  # type: ignore[arg-type]
    for packet in sender.packets:  # with twelve packets of sound for each picture
        sender.now_s += 0.7
        for item in (packet, *[SimpleNamespace(stream=SimpleNamespace(index=9), pts=None, size=400)] * 12):
            packets._put(item)
        assert len(packets._queue) <= 13 * (GOP + 1)
    assert len(packets._queue) == 13 * GOP
    assert len(looked_at) < 3 * 13 * len(sender.packets), "each key frame is looked for once"
    packets.close()


def test_opening_ends_if_no_picture_can_be_decoded(sender: Sender) -> None:
    sender.prepare(*range(1, 9), every_s=2.0)
    with pytest.raises(SourceError, match="tcp://cam: none of its pictures could be decoded within 10 s"):
        LiveSource(sender, "tcp://cam", open_timeout_s=10, read_timeout_s=1, clock=sender.clock)  # type: ignore[arg-type]


def test_the_sound_starts_with_the_first_picture_that_is_not_outdated(
    sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_FEWEST", 240)  # the clock stands still while a full queue waits
    sender = Sender(write_video(tmp_path / "sound.ts", frames=60, gop=GOP, audio_s=2.4), flags=0x200)
    sender._container.seek(0)
    sender.packets = [packet for packet in sender._container.demux() if packet.size]
    pictures = [n for n, packet in enumerate(sender.packets) if packet.stream.index == sender.stream.index]

    def send(first: int, end: int) -> None:
        for number in range(first, end):
            sender.send(number, every_s=STEP_S if number in pictures else 0)

    reader = threading.Thread(target=send, args=(0, pictures[3]))
    reader.start()
    source = LiveSource(sender, "tcp://cam", read_timeout_s=1, clock=sender.clock)  # type: ignore[arg-type]
    reader.join()
    send(pictures[3], pictures[45])
    assert source.info.audio is not None
    early = Listener(source.info.audio.packets, 1 << 30)
    frames = iter(source)
    first = next(frames)
    assert (number_of(first.rgb), first.pts) == (40, 0)
    send(pictures[45], len(sender.packets))
    sender.end()
    rest = list(frames)
    late = Listener(source.info.audio.packets, 1 << 30)
    source.close()
    times = [float(item.packet.pts * item.packet.time_base) for item in early.take()]
    assert times == [float(item.packet.pts * item.packet.time_base) for item in late.take()]
    assert times == sorted(times)
    assert times[0] == pytest.approx(0, abs=0.1)
    assert times[-1] == pytest.approx(rest[-1].time_s, abs=0.1)
