"""What the reader of a source's sound keeps, and what it says about the rest."""

from fractions import Fraction
from pathlib import Path

import pytest

from stream.capture.video import sound
from stream.capture.video.file import VideoSource
from stream.capture.video.sound import SoundReader
from stream.capture.video.timeline import Clock
from stream.channel import Listener
from stream.media import av
from tests.support.media_files import numbered, write_video


def test_of_too_much_sound_before_the_first_picture_the_nearest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound, "KEPT_BYTES", 10 * (1024 + 512))
    path = write_video(tmp_path / "a.mkv", frames=5, audio_s=1, audio_codec="pcm_u8")
    with av.open(str(path)) as container:
        reader = SoundReader(container, container.streams.video[0], Clock.CONTAINER)
        packets = [packet for packet in container.demux(*reader.streams) if packet.size]
        assert len(packets) > 20
        for packet in packets:
            reader.put(packet)
        last = packets[-1].pts
        reader.begin(Fraction(0))
    assert reader.audio is not None
    kept = Listener(reader.audio.packets, 1 << 20).take()
    assert 10 <= len(kept) <= 11
    assert kept[-1].packet.pts == last
    assert reader.lost == len(packets) - len(kept)
    source = VideoSource(path)
    source._reader.sound.lost = 3
    list(source)
    source.close()
    assert source.log.notes == ["3 packets of sound were dropped: too far before the first picture"]


def test_small_packets_are_counted_with_what_they_need_beside_their_data(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=5, audio_s=1)
    sizes: list[int] = []
    with av.open(str(path)) as container:
        reader = SoundReader(container, container.streams.video[0], Clock.CONTAINER)
        reader.begin(Fraction(0))
        packet = next(packet for packet in container.demux(*reader.streams) if packet.size)
        assert reader.audio is not None
        reader.audio.packets.listen(lambda _item, size: sizes.append(size))
        reader.put(packet)
    assert sizes == [packet.size + 512]


def with_streams(path: Path, pictures: int, sounds: int) -> Path:
    """Half a second of so many video and audio tracks."""
    with av.open(str(path), "w") as out:
        videos = [out.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p") for _ in range(pictures)]
        tracks = [out.add_stream("mp2", rate=48_000, layout="mono") for _ in range(sounds)]
        for index in range(5):
            for video in videos:
                out.mux(video.encode(av.VideoFrame.from_ndarray(numbered(index, (48, 64)))))
        for stream in (*videos, *tracks):
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "pictures", "sounds", "said"),
    [
        ("a.mkv", 1, 2, ""),
        ("a.mkv", 2, 0, "1 further video track"),
        ("a.mkv", 3, 1, "2 further video tracks"),
        ("a.ts", 2, 0, "other programmes"),
    ],
)
def test_further_video_tracks_are_said(name: str, pictures: int, sounds: int, said: str, tmp_path: Path) -> None:
    source = VideoSource(with_streams(tmp_path / name, pictures, sounds))
    source.close()
    assert source.info.not_kept == said
