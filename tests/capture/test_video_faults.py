"""Files that are not what they should be: one line that names the file and what is wrong, and every frame there is."""

from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from stream.capture.base import CaptureLog
from stream.capture.video import decode
from stream.capture.video.decode import FrameMaker
from stream.capture.video.file import VideoSource
from stream.errors import SourceError, SourceNotFoundError, StreamError
from stream.frames import Frame
from stream.media import av
from tests.support.media_files import (
    FULL,
    Rgb,
    number_of,
    numbered,
    packet_bytes,
    truncated,
    write_audio,
    write_video,
)

FRAMES = 40
FASTSTART = {"mux_options": {"movflags": "faststart"}}
FRAGMENTED = {"mux_options": {"movflags": "frag_keyframe+empty_moov"}}
JPEG = {"codec": "mjpeg", "pixel_format": "yuvj420p", "color_range": FULL}


def grainy(index: int, size_hw: tuple[int, int]) -> Rgb:
    """`numbered` with noise in the upper quarter, so that every packet has some weight."""
    picture = numbered(index, size_hw).copy()
    rows = size_hw[0] // 4
    picture[:rows] += np.random.default_rng(index).integers(0, 30, (rows, size_hw[1], 1), dtype=np.uint8)
    return picture


def read(path: Path, **options: Any) -> tuple[VideoSource, list[Frame]]:
    with closing(VideoSource(path, **options)) as source:
        return source, list(source)


def numbers(frames: Sequence[Frame]) -> list[int]:
    return [number_of(frame.rgb) for frame in frames]


def whole_packets(path: Path, size: int) -> int:
    """How many video packets of `path` lie within its first `size` bytes."""
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.pos is not None and packet.size]
    return sum(place <= size for place in places[1:])


def overwrite(path: Path, index: int) -> None:
    """Spoil the `index`-th video packet, and nothing of the container around it."""
    with av.open(str(path)) as container:
        packet = bytes([p for p in container.demux(container.streams.video[0]) if p.size][index])
    data = path.read_bytes()
    place = data.index(packet)
    path.write_bytes(data[:place] + b"\xff" * len(packet) + data[place + len(packet) :])


def with_cover(path: Path, *, codec: str = "", video: bool = False) -> Path:
    """A file with a picture attached, as music players store it; and sound, or a video after it."""
    cover = write_video(
        path.with_suffix(".jpg"), size_hw=(80, 80), frames=1, container_format="mjpeg", **JPEG
    ).read_bytes()  # fmt: skip
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 80, 80, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        stream: Any = container.add_stream("libx264" if video else codec, rate=25 if video else 48_000)
        if video:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        else:
            stream.layout = "mono"
        container.start_encoding()
        packet = av.Packet(cover)
        packet.stream, packet.pts, packet.dts, packet.time_base = picture, 0, 0, Fraction(1)
        packet.is_keyframe = True
        container.mux(packet)
        frames: list[Any] = []
        if video:
            frames = [av.VideoFrame.from_ndarray(numbered(i, (48, 64)), format="rgb24") for i in range(5)]
        else:
            silence = np.zeros((1, 2304), np.int16)
            frames = [av.AudioFrame.from_ndarray(silence, format="s16p", layout="mono")]
            frames[0].sample_rate = 48_000
        for index, frame in enumerate(frames):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# --- nothing to be had ---


def missing(folder: Path) -> Path:
    return folder / "nowhere.mp4"


def zero_bytes(folder: Path) -> Path:
    (folder / "zero.mp4").touch()
    return folder / "zero.mp4"


def text_file(folder: Path) -> Path:
    (folder / "text.mp4").write_text("no video, just words\n" * 40)
    return folder / "text.mp4"


def a_folder(folder: Path) -> Path:
    (folder / "folder.mp4").mkdir()
    return folder / "folder.mp4"


def sound_alone(folder: Path) -> Path:
    return write_audio(folder / "sound.m4a")


def sound_with_cover(folder: Path) -> Path:
    return with_cover(folder / "cover.mp3", codec="libmp3lame")


def index_at_the_lost_end(folder: Path) -> Path:
    return truncated(write_video(folder / "whole.mp4"), folder / "cut.mp4", share=0.9)


def header_alone(options: dict[str, Any], suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write_video(folder / f"whole{suffix}", **options)
        head = folder / f"head{suffix}"
        head.write_bytes(path.read_bytes()[: packet_bytes(path, 0)[0]])
        return head

    return make


def first_bytes(folder: Path) -> Path:
    return truncated(write_video(folder / "whole.mkv"), folder / "first.mkv", share=0.01)


UNUSABLE: tuple[tuple[Callable[[Path], Path], type[StreamError], str], ...] = (
    (missing, SourceNotFoundError, "no such file; check the name"),
    (zero_bytes, SourceError, "the file is empty"),
    (text_file, SourceError, "is not a video in a supported format, or its header is missing (cut off?)"),
    (a_folder, SourceError, "cannot be opened: Is a directory"),
    (sound_alone, SourceError, "has no video stream, only audio"),
    (sound_with_cover, SourceError, "has no video stream, only audio, cover art"),
    (index_at_the_lost_end, SourceError, "is not a video in a supported format, or its header is missing (cut off?)"),
    (first_bytes, SourceError, "is not a video in a supported format, or its header is missing (cut off?)"),
    (header_alone(FASTSTART, ".mp4"), SourceError, "contains no frame that can be decoded"),
    (header_alone(FRAGMENTED, ".mp4"), SourceError, "contains no frame that can be decoded"),
    (header_alone({}, ".mkv"), SourceError, "contains no frame that can be decoded"),
)


@pytest.mark.parametrize(("make", "kind", "text"), UNUSABLE)
def test_a_file_without_a_single_frame_is_an_error_that_names_it(
    tmp_path: Path, make: Callable[[Path], Path], kind: type[StreamError], text: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(StreamError) as caught:
        VideoSource(path)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{path}: {text}")
    assert "\n" not in str(caught.value)
    assert path.name not in {Path(file.path).name for file in psutil.Process().open_files()}


def test_a_cover_is_not_taken_for_the_video(tmp_path: Path) -> None:
    source, frames = read(with_cover(tmp_path / "a.mp4", video=True))
    assert numbers(frames) == list(range(5))
    assert source.info.size == (48, 64)
    assert source.log.warnings == []


# --- a part to be had ---


@pytest.mark.parametrize("share", [0.4, 0.75])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", FASTSTART),
        (".mp4", FASTSTART | {"b_frames": 2}),
        (".mov", FASTSTART | {"codec": "prores_ks", "pixel_format": "yuv422p10le"}),
        (".mp4", FRAGMENTED),
        (".mkv", {}),
        (".webm", {"codec": "libvpx-vp9"}),
        (".ts", {}),
        (".avi", JPEG),
    ],
)
def test_what_can_be_read_of_a_cut_file_is_and_the_rest_is_named_once(
    tmp_path: Path, suffix: str, options: dict[str, Any], share: float
) -> None:
    path = write_video(tmp_path / f"whole{suffix}", frames=FRAMES, gop=10, draw=grainy, **options)
    cut = truncated(path, tmp_path / f"cut{suffix}", share=share)
    complete = whole_packets(path, cut.stat().st_size)
    assert 5 < complete < FRAMES - 5
    source, frames = read(cut)
    seen = numbers(frames)
    if options.get("b_frames"):  # the last pictures wait for references that are gone
        assert seen == sorted(set(seen))
        assert len(seen) == complete
    else:
        assert seen[:complete] == list(range(complete))
        assert len(seen) <= complete + 1  # the decoder may guess the packet that was cut through
    assert len(source.log.warnings) == 1
    assert source.log.warnings[0].startswith(f"{cut}: ")
    assert "\n" not in source.log.warnings[0]


def test_the_warning_says_how_much_is_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.mp4", frames=FRAMES, draw=grainy, **FASTSTART)
    place, size = packet_bytes(path, 30)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: place + size // 2])
    assert read(cut)[0].log.warnings == [
        f"{cut}: is cut off: 30 of 40 frames could be read, 0.4 s are missing, "
        "1 damaged packet could not be decoded"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"max_frames": 3}, {"end_s": 0.2}, {"start_s": 0.1, "end_s": 0.3}, {"start_s": 0.2, "max_frames": 2}]
)
def test_a_cut_behind_the_part_asked_for_is_no_matter(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write_video(tmp_path / "whole.mp4", frames=FRAMES, draw=grainy, **FASTSTART)
    source, frames = read(truncated(path, tmp_path / "cut.mp4", share=0.8), **options)
    assert len(frames) in (2, 3, 5)
    assert source.log.warnings == []


VP8_START = b"\x9d\x01\x2a"
"""In front of the size in a key frame; see RFC 6386."""
DAMAGED: tuple[tuple[str, dict[str, Any]], ...] = (
    (".mp4", {}),
    (".mkv", {}),
    (".mp4", {"codec": "libx265"}),
    (".mp4", {"codec": "mpeg4"}),
    (".webm", {"codec": "libvpx-vp9"}),
    (".avi", JPEG),
)


@pytest.mark.parametrize(("suffix", "options"), DAMAGED)
def test_a_damaged_packet_costs_what_depends_on_it_and_is_named_once(
    tmp_path: Path, suffix: str, options: dict[str, Any]
) -> None:
    path = write_video(tmp_path / f"a{suffix}", frames=20, gop=5, draw=grainy, **options)
    overwrite(path, 7)
    source, frames = read(path)
    seen = numbers(frames)
    assert seen[:7] == list(range(7))
    assert seen[-10:] == list(range(10, 20))  # from the next keyframe on
    assert 7 not in seen[:-10]
    assert len(seen) >= 17
    times = [frame.time_s for frame in frames]
    known = [*range(7), *range(10, 20)]  # between them a decoder may show an earlier picture again
    assert times[:7] + times[-10:] == pytest.approx([number / 25 for number in known])
    assert len(source.log.warnings) == 1
    assert source.log.warnings[0].startswith(f"{path}: 1 damaged packet could not be decoded")


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\xff\x3f\xff\x3f"], ids=["none", "huge"])
@pytest.mark.parametrize("key_frame", [0, 1])
def test_a_key_frame_with_an_impossible_size_is_one_damaged_packet(tmp_path: Path, key_frame: int, size: bytes) -> None:
    path = write_video(tmp_path / "a.webm", frames=20, gop=5, draw=grainy, codec="libvpx")
    parts = path.read_bytes().split(VP8_START)
    parts[key_frame + 1] = size + parts[key_frame + 1][4:]
    path.write_bytes(VP8_START.join(parts))
    source, frames = read(path)
    assert numbers(frames) == [number for number in range(20) if number // 5 != key_frame]
    assert source.log.warnings == [f"{path}: 5 damaged packets could not be decoded"]


@pytest.mark.parametrize(
    ("options", "is_told"),
    [
        ({"max_frames": 12}, True),
        ({"end_s": 0.6}, True),
        ({"start_s": 0.2, "end_s": 0.6}, True),
        ({"start_s": 0.6}, False),
        ({"end_s": 0.1}, False),
    ],
)
def test_damage_is_told_if_it_lies_in_the_part_asked_for(
    tmp_path: Path, options: dict[str, Any], is_told: bool
) -> None:
    path = write_video(tmp_path / "a.mp4", frames=20, gop=5, draw=grainy)
    overwrite(path, 7)
    source, _ = read(path, **options)
    assert [("damaged packet" in warning) for warning in source.log.warnings] == [True] * is_told


@pytest.mark.parametrize(("start_s", "first"), [(None, 5), (0.1, 8)])  # counted from the first that can be decoded
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_first_packet_that_is_damaged_costs_the_frames_before_the_next_keyframe(
    tmp_path: Path, suffix: str, start_s: float | None, first: int
) -> None:
    path = write_video(tmp_path / f"a{suffix}", frames=20, gop=5, codec="libx265", draw=grainy)
    overwrite(path, 0)
    source, frames = read(path, start_s=start_s)
    assert numbers(frames) == list(range(first, 20))
    lies_in_the_part = start_s is None
    assert source.log.warnings == [f"{path}: 1 damaged packet could not be decoded"] * lies_in_the_part


def test_a_file_whose_every_packet_is_damaged_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, draw=grainy)
    for index in range(3):
        overwrite(path, index)
    with pytest.raises(SourceError, match="no frame that can be decoded: 3 damaged packets could not be decoded"):
        VideoSource(path)


def test_a_pixel_aspect_ratio_that_no_format_has_is_ignored_and_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=2, codec="mpeg4", pixel_aspect=Fraction(4, 3))
    data = bytearray(path.read_bytes())
    at = data.index(b"pasp") + 4
    data[at : at + 8] = (255).to_bytes(4, "big") + (1).to_bytes(4, "big")
    path.write_bytes(data)
    source, frames = read(path)
    assert [frame.size for frame in frames] == [(48, 64)] * 2
    assert source.info.notes == ("a pixel aspect ratio of 255 is stated; it is ignored and pixels are square",)


def test_a_frame_that_cannot_be_converted_is_an_error_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise av.error.ArgumentError(22, "Invalid argument")

    monkeypatch.setattr(decode, "to_rgb", refuse)
    path = write_video(tmp_path / "a.mp4", frames=2)
    with pytest.raises(SourceError, match=r"frame 0 \(64×48\) cannot be converted: Invalid argument") as caught:
        read(path)
    assert caught.value.where == str(path)


def test_of_many_changes_of_size_the_first_is_noted_and_all_are_counted() -> None:
    log = CaptureLog()
    maker = FrameMaker(log, time_base=Fraction(1, 25))
    for number in range(9):
        maker.make(av.VideoFrame(64 + 2 * number, 48, "yuv420p"), number)
    assert (log.notes, log.size_changes) == (["the frame size changed to 66×48 at frame 1"], 8)
