"""Every encoder keeps the exact times of any source, whatever clock and frame rate it has itself."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from stream.capture.video.file import VideoSource
from stream.errors import SinkError, UsageError
from stream.media import av
from stream.sinks.video import VideoSink
from tests.support.media_files import write_video
from tests.support.sink_input import fill

CLOCKS = {
    "transport stream": (Fraction(1, 90_000), Fraction(25)),
    "transport stream, NTSC": (Fraction(1, 90_000), Fraction(30_000, 1001)),
    "microseconds": (Fraction(1, 1_000_000), Fraction(30)),
    "a browser's recording": (Fraction(1, 1000), Fraction(1000)),
    "slow motion": (Fraction(1, 15_360), Fraction(480)),
    "a rate of one's ticks": (Fraction(1, 90_000), Fraction(90_000)),
    "rate unknown": (Fraction(1, 1000), None),
    "photos": (Fraction(1), Fraction(1)),
    "a rate with large numbers": (Fraction(1, 90_000), Fraction(123_456_789_012, 4_115_226_301)),
}
SIZE = (96, 128)


@pytest.mark.parametrize(
    "codec", ["libx264", "libx265", "libsvtav1", "libvpx-vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "ffv1"]
)
def test_every_encoder_keeps_the_times_of_every_clock(codec: str, tmp_path: Path) -> None:
    for name, (tick, rate) in CLOCKS.items():
        path = tmp_path / "out.mp4"
        step = max(1, round(1 / (min(rate or 30, 30) * tick)))
        # Uneven, and twice faster than any frame rate allows; the last frames come after a pause.
        pts = [0, step, step + 1, 2 * step, 3 * step + step // 3, 60 * step, 61 * step]
        pts = sorted(set(pts))
        sink = VideoSink(path, codec=codec, overwrite=True)
        fill(sink, pts, tick=tick, rate=rate, size=SIZE)
        sink.finish()
        with av.open(str(path)) as container:
            times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        assert times == [time * tick for time in pts], name
        assert (sink.notes, sink.warnings) == ([], []), name


@pytest.mark.parametrize("codec", ["dvvideo", "mpeg4_v4l2m2m"])
def test_an_encoder_that_fails_is_not_blamed_on_the_sound(codec: str, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", audio_s=0.5)
    sink = VideoSink(tmp_path / "out.mov", codec=codec)
    with closing(VideoSource(tmp_path / "clip.mp4")) as source:
        assert source.info.audio is not None
        with pytest.raises(SinkError, match=f"the encoder {codec} does not work here for 128×96"):
            sink.open(source.info, SIZE)
    assert sink.notes == []
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libsvtav1"])
def test_codecs_that_only_the_muxer_lists_are_refused_at_once(codec: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.mov files do not support"):
        VideoSink(tmp_path / "out.mov", codec=codec)
