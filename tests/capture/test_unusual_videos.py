"""Videos whose metadata are unusual: text that is not UTF-8, side data of any kind."""

import io
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from stream.capture.open import open_source
from stream.media import av
from tests.support.media_files import VIDEO_FILES, number_of, numbered, write_video

Write = Callable[[Path], Path]


def frames_in(path: Path) -> int:
    with closing(open_source(str(path))) as source:
        return sum(1 for _ in source)


def replaced(name: str, old: bytes, new: bytes) -> Write:
    """A video with a byte string put in the place of another of the same length."""

    def write(folder: Path) -> Path:
        path = write_video(folder / name, frames=4, **VIDEO_FILES[name])
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))
        return path

    return write


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(replaced("a.mp4", b"VideoHandler", b"Vid\xe9oHandler"), id="handler"),
        pytest.param(replaced("a.mkv", b"Lavf", b"L\xe4vf"), id="muxing application"),
        pytest.param(replaced("a.mkv", b"DURATION", b"DUR\xc4TION"), id="name of a tag"),
        pytest.param(replaced("a.mkv", b"00:00:00.", b"00:0\xb0:00."), id="duration"),
        pytest.param(replaced("a.flv", b"encoder", b"enc\xf6der"), id="metadata key"),
    ],
)
def test_text_that_is_not_utf_8_is_no_obstacle(tmp_path: Path, write: Write) -> None:
    assert frames_in(write(tmp_path)) == 4


@pytest.mark.parametrize("suffix", [".avi", ".mov", ".mkv"])
def test_frames_may_carry_side_data_that_pyav_cannot_name(tmp_path: Path, suffix: str) -> None:
    """EXIF in each JPEG, as cameras write it; its orientation is applied."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 6
    with av.open(str(tmp_path / f"a{suffix}"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for i in range(3):
            jpeg = io.BytesIO()
            Image.fromarray(numbered(i, (96, 64))).transpose(Image.Transpose.ROTATE_90).save(jpeg, "JPEG", exif=exif)
            packet = av.Packet(jpeg.getvalue())
            packet.pts = packet.dts = i
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, True
            container.mux(packet)
    source = open_source(str(tmp_path / f"a{suffix}"))
    try:
        frames = list(source)
    finally:
        source.close()
    assert [frame.size for frame in frames] == [(96, 64)] * 3
    assert [number_of(frame.rgb) for frame in frames] == [0, 1, 2]
