"""The sound of a run: all tracks, in time with the pictures, whatever the source; and what is said if it is missing."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.media import av
from tests.support.media_files import numbered, write_video
from tests.support.servers import send_in_steps, tcp_server
from tests.support.tiny_model import depths, run

SOUND, MUSIC = 440, 1500
LOW, HIGH = 60, 200
FPS = 10  # few pictures: the model takes most of the time


def beeping(path: Path, *, first_s: float = 0.0, seconds: float = 2.0, lead_s: float = 0.0) -> Path:
    """Pictures that turn white, and a beep at the same moment, a second after the first picture.

    Args:
        first_s: time of the first picture on the file's clock.
        lead_s: the sound begins so much earlier, silent.
    """
    rate = 48_000
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("aac", rate=rate, layout="mono")
        for index in range(round(seconds * FPS)):
            level = HIGH if index >= FPS else LOW
            frame: Any = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index + round(first_s * FPS), Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        samples = np.zeros(round((seconds + lead_s) * rate), np.float32)
        beep = samples[round((1 + lead_s) * rate) :]
        beep[:] = 0.5 * np.sin(2 * np.pi * SOUND * np.arange(len(beep)) / rate)
        for at in range(0, len(samples) - 1023, 1024):
            block: Any = av.AudioFrame.from_ndarray(samples[None, at : at + 1024], format="fltp", layout="mono")
            block.sample_rate, block.time_base = rate, Fraction(1, rate)
            block.pts = at + round((first_s - lead_s) * rate)
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    return path


def moments(path: Path) -> tuple[float, float, float]:
    """Times of the first picture, of the first bright picture and of the start of the beep."""
    first = bright = beep = None
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            first = frame.time if first is None else first
            if bright is None and frame.to_ndarray(format="gray")[:, :64].mean() > (LOW + HIGH) / 2:
                bright = frame.time
    with av.open(str(path)) as container:
        for sound in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(sound.to_ndarray().astype(np.float64)).reshape(-1) > 0.1)
            if beep is None and loud.size:
                beep = sound.time + float(loud[0]) / sound.sample_rate
    assert first is not None
    assert bright is not None
    assert beep is not None
    return first, bright, beep


RUN: dict[str, Any] = {"layout": "side"}


@pytest.mark.parametrize(
    ("name", "output"),
    [("in.ts", "out.mp4"), ("in.ts", "out.mkv"), ("in.ts", "out.webm"), ("in.mkv", "out.mp4"), ("in.flv", "out.mp4")],
)
def test_a_recording_that_starts_late_starts_at_zero_in_sync(name: str, output: str, tmp_path: Path) -> None:
    source = beeping(tmp_path / name, first_s=100.0, seconds=1.4)
    run(str(source), output=tmp_path / output, **RUN)
    first, bright, beep = moments(tmp_path / output)
    assert first == pytest.approx(0, abs=0.022)
    assert bright - first == pytest.approx(1, abs=0.002)
    assert beep == pytest.approx(bright, abs=0.03)


def test_sound_that_begins_before_the_pictures_is_kept_as_the_file_has_it(tmp_path: Path) -> None:
    source = beeping(tmp_path / "in.mp4", first_s=0.6, lead_s=0.6, seconds=1.4)
    run(str(source), output=tmp_path / "out.mp4", **RUN)
    assert moments(tmp_path / "out.mp4") == pytest.approx(moments(source), abs=1e-3)
    first = depths(str(source), max_frames=2)
    assert [frame.time_s for frame, _ in first] == pytest.approx([0, 1 / FPS])


def test_recordings_that_are_joined_stay_in_sync(tmp_path: Path) -> None:
    data = beeping(tmp_path / "one.ts").read_bytes()
    (tmp_path / "in.ts").write_bytes(data + data)
    report = run(str(tmp_path / "in.ts"), output=tmp_path / "out.mp4", **RUN)
    assert report.exit_code == 0
    assert report.counters == {"clock_jumps": 1} | {
        name: count for name, count in report.counters.items() if name != "clock_jumps"
    }
    assert [note for note in report.notes if "packets" in note] == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == 4 * FPS
    assert times[-1] == pytest.approx(4 - 1 / FPS, abs=0.1)
    loud = beeps(tmp_path / "out.mp4")
    assert [round(start) for start, _ in loud] == [1, 3]
    assert loud[1][0] == pytest.approx(times[3 * FPS], abs=0.03)


def beeps(path: Path) -> list[tuple[float, float]]:
    """(start, end) of every beep."""
    found: list[tuple[float, float]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            if np.abs(frame.to_ndarray().astype(np.float64)).max() > 0.1:
                start, end = frame.time, frame.time + frame.samples / frame.sample_rate
                found = (
                    [*found[:-1], (found[-1][0], end)]
                    if found and start - found[-1][1] < 0.1
                    else [*found, (start, end)]
                )
    return found


# --- tracks ---


def with_tracks(path: Path, tones: dict[int, dict[str, str]], *, default: int) -> Path:
    """A second of video with a track for each tone; the one of `default` is marked so."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=FPS, width=64, height=48)
        tracks: list[Any] = []
        for tone, tags in tones.items():
            track: Any = out.add_stream("aac", rate=48_000, layout="mono")
            track.disposition = av.stream.Disposition.default if tone == default else av.stream.Disposition(0)
            track.metadata.update(tags)
            tracks.append(track)
        for index in range(FPS):
            out.mux(video.encode(av.VideoFrame.from_ndarray(numbered(index, (48, 64)))))
        out.mux(video.encode(None))
        for track, tone in zip(tracks, tones, strict=True):
            wave = (0.3 * np.sin(2 * np.pi * tone * np.arange(47 * 1024) / 48_000)).astype(np.float32)
            for at in range(0, len(wave), 1024):
                block: Any = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = 48_000, at
                out.mux(track.encode(block))
            out.mux(track.encode(None))
    return path


def tracks_of(path: Path) -> list[tuple[int, str | None, str | None, bool]]:
    """(tone in Hz, language, title, is default) of every audio track."""
    found = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for number in range(count):
        with av.open(str(path)) as container:
            track = container.streams.audio[number]
            wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(track)]).astype(np.float64)
            tone = round(float(np.argmax(np.abs(np.fft.rfft(wave[4800:43200]))) * 48_000 / 38_400))
            title = track.metadata.get("title") or track.metadata.get("handler_name")
            is_default = bool(track.disposition & av.stream.Disposition.default)
            found.append((tone, track.language, title, is_default))
    return found


@pytest.mark.parametrize("output", ["out.mp4", "out.mkv", "out.webm"])
def test_all_tracks_are_kept_the_default_one_first(output: str, tmp_path: Path) -> None:
    source = with_tracks(
        tmp_path / "in.mkv",
        {SOUND: {"language": "eng", "title": "Original"}, MUSIC: {"language": "deu", "title": "Musik"}},
        default=MUSIC,
    )
    report = run(str(source), output=tmp_path / output, **RUN)
    kept = tracks_of(tmp_path / output)
    assert [(tone, language, is_default) for tone, language, _, is_default in kept] == [
        (MUSIC, "deu", True),
        (SOUND, "eng", False),
    ]
    if output != "out.mp4":
        assert [title for _, _, title, _ in kept] == ["Musik", "Original"]
    encoded = ["audio: webm does not support aac; encoded as libopus"]
    assert [note for note in report.notes if "audio" in note] == (encoded if output == "out.webm" else [])


def test_a_track_that_cannot_be_read_is_said_and_the_others_are_kept(tmp_path: Path) -> None:
    source = with_tracks(tmp_path / "in.mkv", {SOUND: {}, MUSIC: {}}, default=SOUND)
    data = source.read_bytes()
    at = data.find(b"A_AAC")
    source.write_bytes(data[:at] + b"A_XYZ" + data[at + 5 :])
    report = run(str(source), output=tmp_path / "out.mp4", **RUN)
    assert [tone for tone, *_ in tracks_of(tmp_path / "out.mp4")] == [MUSIC]
    assert "not kept in the video: 1 audio track that FFmpeg cannot read" in report.notes


def test_chapters_and_subtitles_are_said_once_where_a_video_is_written(tmp_path: Path) -> None:
    path = tmp_path / "in.mkv"
    whole = write_video(tmp_path / "whole.mkv", frames=10)
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        second = {"time_base": Fraction(1, 1000), "metadata": {}}
        new.set_chapters([{"id": 1, "start": 0, "end": 200, **second}, {"id": 2, "start": 200, "end": 400, **second}])  # type: ignore[list-item]
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = video
                new.mux(packet)
    report = run(str(path), output=tmp_path / "out.mp4", **RUN)
    assert [note for note in report.notes if "not kept" in note] == ["not kept in the video: 2 chapters"]
    report = run(str(path), output=tmp_path / "frames", **RUN)
    assert [note for note in report.notes if "not kept" in note] == []


# --- live ---


def test_a_live_recording_has_the_sound_in_sync(tmp_path: Path) -> None:
    data = beeping(tmp_path / "in.ts").read_bytes()
    data *= 800_000 // len(data)
    with tcp_server(send_in_steps(data, first=100_000)) as port:  # at once, most frames are dropped on a busy machine
        report = run(f"tcp://127.0.0.1:{port}", output=tmp_path / "out.mp4", reconnect_for=0, **RUN)
    assert report.written > 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [track.codec_context.name for track in container.streams.audio] == ["aac"]
        times: dict[str, list[float]] = {"video": [], "audio": []}
        for packet in container.demux():
            if packet.pts is not None:
                times[packet.stream.type].append(float(packet.pts * packet.time_base))
    assert len(times["audio"]) > 100
    length_s = max(times["video"]) - min(times["video"])
    assert len(times["audio"]) == pytest.approx(length_s * 48_000 / 1024, rel=0.1)
    assert min(times["audio"]) == pytest.approx(0, abs=0.05)
    assert max(times["audio"]) == pytest.approx(max(times["video"]), abs=0.2)
    assert not [note for note in report.notes if "no audio" in note]


def test_no_audio_leaves_the_sound_out_and_says_nothing(tmp_path: Path) -> None:
    source = beeping(tmp_path / "in.ts")
    report = run(str(source), output=tmp_path / "out.mp4", audio=False, **RUN)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
    assert [note for note in report.notes if "audio" in note] == []


@pytest.mark.parametrize("name", ["in.ts", "in.mp4", "in.mkv"])
@pytest.mark.parametrize(
    ("options", "begin_s", "end_s"),
    [({"start": 0.6, "end": 1.4}, 0.6, 1.4), ({"max_frames": 12}, 0.0, 1.2)],
)
def test_a_part_has_its_sound_to_its_end(
    name: str, options: dict[str, Any], begin_s: float, end_s: float, tmp_path: Path
) -> None:
    source = beeping(tmp_path / name, seconds=3.0)
    run(str(source), output=tmp_path / "out.mp4", **options, **RUN)
    _, bright, beep = moments(tmp_path / "out.mp4")
    assert bright == pytest.approx(1 - begin_s, abs=0.002)
    assert beep == pytest.approx(bright, abs=0.03)
    ((_, end),) = beeps(tmp_path / "out.mp4")
    assert end == pytest.approx(end_s - begin_s, abs=0.05)
