"""Sources whose clocks start again, start late or do not exist: every picture and its sound come at the right time."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stream.capture.base import Source
from stream.capture.open import open_source
from stream.capture.video.file import VideoSource
from stream.capture.video.network import open_network
from stream.channel import Listener
from stream.frames import AudioPacket, Frame
from stream.media import av, cv2
from tests.support.media_files import number_of, numbered, remuxed, write_video
from tests.support.servers import Answer, HttpServer, send_then_close, tcp_server

STEP_S = 0.04


def later(first: int) -> Callable[[int, tuple[int, int]], Any]:
    """Draws numbers that go on where another part ended."""
    return lambda index, size_hw: numbered(first + index, size_hw)


def part(path: Path, first: int, *, offset_s: int = 0, **options: Any) -> Path:
    """Ten pictures, numbered from `first`, whose clock starts at `offset_s`."""
    pts = [25 * offset_s + i for i in range(10)]
    return write_video(path, pts=pts, time_base=Fraction(1, 25), draw=later(first), gop=5, **options)


def read(source: Source) -> tuple[list[Frame], list[AudioPacket]]:
    """All frames, and the sound that came with them."""
    with closing(source):
        audio = source.info.audio
        listener = None if audio is None else Listener(audio.packets, 1 << 30)
        frames = list(source)
        return frames, [] if listener is None else listener.take()


def sound_times(packets: list[AudioPacket]) -> list[float]:
    return [float((item.packet.pts or 0) * item.packet.time_base) for item in packets]


JOINED: dict[str, dict[str, Any]] = {
    "a.ts": {},
    "b-frames.ts": {"b_frames": 2},
    "sound.ts": {"audio_s": 0.4},
    "mpeg2.ts": {"codec": "mpeg2video", "audio_s": 0.4, "audio_codec": "mp2"},
    "a.mpg": {"codec": "mpeg2video", "audio_s": 0.4, "audio_codec": "mp2"},
}


@pytest.mark.parametrize("name", JOINED)
def test_recordings_that_are_joined_follow_each_other(name: str, tmp_path: Path) -> None:
    options = JOINED[name]
    first = part(tmp_path / f"1{name}", 0, **options)
    second = part(tmp_path / f"2{name}", 10, **options)
    path = tmp_path / name
    path.write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    source = VideoSource(path)
    frames, sound = read(source)
    assert [number_of(frame.rgb) for frame in frames] == [*range(20), *range(10)]
    steps = [late.time_s - early.time_s for early, late in pairwise(frames)]
    assert frames[0].pts == 0
    assert [step for number, step in enumerate(steps, 1) if number % 10] == pytest.approx([STEP_S] * 27, abs=1e-4)
    assert all(STEP_S - 1e-4 < steps[number] < STEP_S + 0.08 for number in (9, 19))  # sound may last a little longer
    if not options.get("audio_s"):
        assert steps == pytest.approx([STEP_S] * 29, abs=1e-3)
    assert (source.log.repaired_pts, source.log.warnings, source.log.skipped) == (0, [], [])
    assert source.log.notes == ["the timestamps start again or jump 2 times; the parts were joined"]
    assert source.log.clock_jumps == 2
    if options.get("audio_s"):
        times = sound_times(sound)
        assert all(late > early for early, late in pairwise(times))
        assert max(late - early for early, late in pairwise(times)) < 0.11
        assert times[-1] == pytest.approx(frames[-1].time_s, abs=0.1)


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
@pytest.mark.parametrize(("start_s", "end_s"), [(0.2, 0.3), (0.5, 0.7), (0.9, 1.0)])
def test_a_part_of_joined_recordings_is_found(suffix: str, start_s: float, end_s: float, tmp_path: Path) -> None:
    options = {"codec": "mpeg2video"} if suffix == ".mpg" else {"b_frames": 2}
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"".join(part(tmp_path / f"{n}{suffix}", 10 * n, **options).read_bytes() for n in range(3)))
    source = VideoSource(path, start_s=start_s, end_s=end_s)
    frames, _ = read(source)
    wanted = [n for n in range(30) if start_s - 1e-3 <= n * STEP_S < end_s - 1e-3]
    assert [number_of(frame.rgb) for frame in frames] == wanted
    assert [frame.time_s for frame in frames] == pytest.approx([n * STEP_S for n in wanted], abs=1e-3)
    assert source.log.warnings == []


def test_a_jump_forwards_is_closed_up_in_a_transport_stream_and_a_pause_in_a_file_with_an_index(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(
        part(tmp_path / "1.ts", 0).read_bytes() + part(tmp_path / "2.ts", 10, offset_s=3600).read_bytes()
    )  # fmt: skip
    source = VideoSource(path)
    assert [frame.time_s for frame in read(source)[0]] == pytest.approx([i * STEP_S for i in range(20)], abs=1e-4)
    assert source.log.clock_jumps == 1
    times = [0, 40, 80, 3_600_000, 3_600_040]
    for suffix in (".mp4", ".mkv"):
        still = VideoSource(write_video(tmp_path / f"still{suffix}", pts=times, time_base=Fraction(1, 1000)))
        assert [frame.time_s for frame in read(still)[0]] == [t / 1000 for t in times]
        assert still.log.clock_jumps == 0


def test_pauses_of_a_recorded_flv_stay(tmp_path: Path) -> None:
    times = [0, 2, 20, 50, 120, 121]
    source = VideoSource(write_video(tmp_path / "a.flv", pts=[1000 * t for t in times], time_base=Fraction(1, 1000)))
    assert [frame.time_s for frame in read(source)[0]] == times
    assert source.log.clock_jumps == 0


@pytest.mark.parametrize("which", [{20}, {20, 21}, set(range(20, 40))])
def test_damaged_display_times_are_replaced(which: set[int], tmp_path: Path) -> None:
    """In a transport stream, where the decode times beside them are whole."""
    path = write_video(tmp_path / "a.ts", frames=60, b_frames=2)
    data, number = bytearray(path.read_bytes()), -1
    for packet in range(0, len(data), 188):
        at = data.find(b"\0\0\1\xe0", packet, packet + 188) + 9  # ISO/IEC 13818-1, 2.4.3.6
        if at < 9:
            continue
        number += 1
        if number in which and data[at - 2] & 0x40:  # pts and dts
            ticks = 90_000 * 18_000
            fields = (0x31 | ticks >> 29 & 0xE, ticks >> 22 & 255, ticks >> 14 & 255 | 1, ticks >> 7 & 255)
            data[at : at + 5] = bytes((*fields, ticks << 1 & 255 | 1))
    path.write_bytes(data)
    source = VideoSource(path)
    frames, _ = read(source)
    assert len(frames) == 60
    steps = [late.time_s - early.time_s for early, late in pairwise(frames)]
    assert max(steps) <= 3 * STEP_S
    assert frames[-1].time_s == pytest.approx(59 * STEP_S, abs=STEP_S)
    assert 0 < source.log.repaired_pts <= 2 * len(which)
    notes = [note for note in source.log.notes if "no timestamp" in note]
    assert len(notes) == (source.log.repaired_pts > 10)


def test_a_trusted_clock_that_steps_back_further_than_any_reordering_goes_on(tmp_path: Path) -> None:
    first, second = part(tmp_path / "1.mkv", 0, offset_s=2), part(tmp_path / "2.mkv", 10)
    path = tmp_path / "a.mkv"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    source = VideoSource(path)
    frames, _ = read(source)
    assert [number_of(frame.rgb) for frame in frames] == list(range(20))
    assert [frame.time_s for frame in frames] == pytest.approx([i * STEP_S for i in range(20)])
    assert source.log.clock_jumps == 1


def test_hls_with_a_discontinuity_goes_on(tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\n/0.ts\n#EXT-X-DISCONTINUITY\n"
    answers = {"/list.m3u8": Answer(f"{playlist}#EXTINF:0.4,\n/1.ts\n#EXT-X-ENDLIST\n".encode())}
    for number in range(2):
        data = part(tmp_path / f"{number}.ts", 10 * number, audio_s=0.4).read_bytes()
        answers[f"/{number}.ts"] = Answer(data, kind="video/mp2t")
    with HttpServer(answers) as server:
        source = open_network(server.url("/list.m3u8"))
        frames, sound = read(source)
    assert [number_of(frame.rgb) for frame in frames] == list(range(20))
    assert frames[-1].time_s == pytest.approx(19 * STEP_S, abs=0.08)
    assert sound_times(sound)[-1] == pytest.approx(frames[-1].time_s, abs=0.1)
    assert source.log.clock_jumps == 1


def test_a_looped_live_sender_goes_on_with_its_sound(tmp_path: Path) -> None:
    data = part(tmp_path / "a.ts", 0, audio_s=0.4).read_bytes()
    looped = data * (800_000 // len(data))  # 500 kB are read to recognise the stream, and discarded
    with tcp_server(send_then_close(looped)) as port:
        source = open_network(f"tcp://127.0.0.1:{port}")
        frames, sound = read(source)
    assert source.log.clock_jumps >= 2
    length_s = (len(frames) - 1) * STEP_S
    assert (
        length_s - 0.01 < frames[-1].time_s < 1.1 * length_s
    )  # the sound of a part is a packet longer than its pictures
    assert sound_times(sound)[-1] == pytest.approx(frames[-1].time_s, abs=0.1)


LATE: dict[str, dict[str, Any]] = {
    "a.ts": {},
    "sound.ts": {},
    "a.mkv": {},
    "a.flv": {},
    "fragments.mp4": {"mux_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}},
}


@pytest.mark.parametrize("name", LATE)
def test_a_clock_that_starts_at_ten_hours_starts_at_zero(name: str, tmp_path: Path) -> None:
    path = part(tmp_path / name, 0, offset_s=36_000, **LATE[name])
    source = VideoSource(path)
    frames, _ = read(source)
    assert [frame.time_s for frame in frames] == pytest.approx([i * STEP_S for i in range(10)], abs=1e-3)
    assert source.log.warnings == source.log.notes == []


def late_fragments(path: Path, by_s: int) -> Path:
    """A segment of a broadcast as DASH and CMAF have it: fragments whose decode times (`tfdt`) start late."""
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    write_video(path, frames=20, gop=5, time_base=Fraction(1, 12_800), mux_options=options)
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"tfdt", at)) > 0:
        size = 8 if data[at + 4] else 4
        time = int.from_bytes(data[at + 8 : at + 8 + size], "big") + by_s * 12_800
        data[at + 8 : at + 8 + size] = time.to_bytes(size, "big")
        at += 4
    path.write_bytes(data)
    return path


def test_late_fragments_are_not_called_cut_off(tmp_path: Path) -> None:
    source = VideoSource(late_fragments(tmp_path / "a.mp4", 100))
    frames, _ = read(source)
    assert [frame.time_s for frame in frames] == pytest.approx([i * STEP_S for i in range(20)])
    assert source.log.warnings == []


# --- without a clock ---


def jpeg(number: int, size_hw: tuple[int, int] = (48, 64)) -> bytes:
    ok, data = cv2.imencode(".jpg", numbered(number % 256, size_hw))
    assert ok
    return bytes(data.tobytes())


def test_frames_of_a_live_stream_without_timestamps_are_timed_when_they_arrive() -> None:
    def parts() -> Iterator[bytes]:
        number = 0
        while True:
            data = jpeg(number)
            number += 1
            yield b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n"

    now, wanted = [0.0], threading.Semaphore(2)

    def clock() -> float:
        if threading.current_thread().name == "depthstream-reader":  # once for each frame: five a second
            wanted.acquire(timeout=5)
            now[0] += 1 / 5
        return now[0]

    answer = Answer(kind="multipart/x-mixed-replace; boundary=frame", endless=parts)
    with (
        HttpServer({"/cam": answer}) as server,
        closing(open_network(server.url("/cam"), max_frames=10, clock=clock)) as source,
    ):
        assert source.info.rate is None
        times = []
        for frame in source:
            times.append(frame.time_s)
            wanted.release()
        wanted.release(100)
    assert times == pytest.approx([i / 5 for i in range(10)], abs=1e-4)


@pytest.mark.parametrize("name", ["cam.mjpeg", "cam.mjpg", "cam.bin", "cam"])
def test_a_raw_mjpeg_file_is_a_video_and_its_rate_is_said_to_be_assumed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"".join(jpeg(number) for number in range(25)))
    source = open_source(str(path))
    frames, _ = read(source)
    assert [number_of(frame.rgb) for frame in frames] == list(range(25))
    assert [frame.time_s for frame in frames] == pytest.approx([i * STEP_S for i in range(25)])
    assert source.info.notes == (f"{path} has no timestamps: 25 frames per second are assumed",)


def test_jpegs_in_a_row_under_a_photos_name_are_a_video_and_other_pictures_in_a_photo_are_not(tmp_path: Path) -> None:
    def frames_in(data: bytes) -> list[int]:
        path = tmp_path / "a.jpg"
        path.write_bytes(data)
        return [number_of(frame.rgb) for frame in read(open_source(str(path)))[0]]

    assert frames_in(b"".join(jpeg(number) for number in range(5))) == list(range(5))
    assert frames_in(jpeg(7) + jpeg(1, (24, 32)) + jpeg(2, (12, 16))) == [7]  # previews behind a photo
    assert frames_in(jpeg(7) + jpeg(8)) == [7]
    pictures = [Image.fromarray(numbered(number, (48, 64))) for number in (3, 4, 5)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "MPO", save_all=True, append_images=pictures[1:])
    assert frames_in(buffer.getvalue()) == [3]


# --- pictures that cannot be decoded ---


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
def test_pictures_before_the_first_key_frame_are_counted_and_said(suffix: str, tmp_path: Path) -> None:
    whole = write_video(tmp_path / f"whole{suffix}", frames=20, gop=10, codec="mpeg2video", time_base=Fraction(1, 25))
    source = VideoSource(remuxed(whole, tmp_path / f"a{suffix}", lambda packets: packets[4:]))
    frames, _ = read(source)
    assert [number_of(frame.rgb) for frame in frames] == list(range(10, 20))
    assert frames[0].pts == 0
    assert source.log.notes == [f"{tmp_path / f'a{suffix}'}: 6 pictures before the first key frame cannot be decoded"]
    assert source.log.warnings == []


def test_leading_pictures_of_an_open_group_are_counted(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=20, codec="mpeg2video", b_frames=2, gop=9)
    with av.open(str(whole)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    second = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
    leading = sum(packet.pts < packets[second].pts for packet in packets[second:])
    assert leading > 0
    source = VideoSource(remuxed(whole, tmp_path / "a.mkv", lambda packets: packets[second:]))
    frames, _ = read(source)
    assert len(frames) == len(packets) - second - leading
    assert [f" {leading} picture" in note for note in source.log.notes] == [True]
