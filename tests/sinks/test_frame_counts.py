"""Every frame that was written is given back by every reader, at its time; a file that gives back fewer is reported."""

import itertools
from fractions import Fraction
from pathlib import Path

import pytest

from stream.jobs.options import from_options
from stream.jobs.run import run_config
from stream.media import av, cv2
from stream.metrics import Outcome
from stream.sinks import video
from stream.sinks.video import VideoSink
from tests.support.media_files import write_video
from tests.support.sink_input import fill

TICK = Fraction(1, 90_000)
RATES = [Fraction(1), Fraction(2), Fraction(10), Fraction(30_000, 1001)]


def decoded(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def counted_by_opencv(path: Path) -> int:
    reader = cv2.VideoCapture(str(path))
    return sum(1 for _ in iter(lambda: reader.grab() or None, None))


# The frame that an edit list would hide depends on where the last B-frames fall: these counts were cut off.
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(
    ("codec", "counts"),
    [("libx264", (1, 2, 13, 16, 19, 22, 24, 25, 26, 29, 31, 32)), ("libx265", (1, 2, 3, 8, 12)), ("mpeg4", (1, 2, 16))],
)
def test_no_frame_is_hidden_by_the_edit_list(codec: str, counts: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    for rate, count in itertools.product(RATES, counts):
        path = tmp_path / f"{count}{suffix}"
        sink = VideoSink(path, codec=codec, overwrite=True)
        pts = [round(index / rate / TICK) for index in range(count)]
        fill(sink, pts, tick=TICK, rate=rate)
        sink.finish()
        assert decoded(path) == [time * TICK for time in pts], (rate, count)
        assert counted_by_opencv(path) == count, (rate, count)
        assert (sink.counters, sink.warnings) == ({"frames_read_back": count}, [])


def test_no_frame_of_a_variable_rate_is_hidden(tmp_path: Path) -> None:
    tick = Fraction(1, 1000)
    for codec, count in itertools.product(("libx264", "libx265"), (8, 11, 15, 22, 31)):
        path = tmp_path / "out.mp4"
        pts = list(itertools.accumulate((37 * index * index) % 900 + 20 for index in range(count)))
        sink = VideoSink(path, codec=codec, overwrite=True)
        fill(sink, pts, tick=tick, rate=Fraction(3))
        sink.finish()
        assert decoded(path) == [time * tick for time in pts], (codec, count)
        assert counted_by_opencv(path) == count, (codec, count)


def test_a_file_that_gives_back_fewer_frames_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output, count = tmp_path / "clip.mp4", tmp_path / "out.mp4", video.count_frames
    write_video(source, frames=12)
    monkeypatch.setattr(video, "count_frames", lambda path: count(path) - 1)
    report = run_config(from_options(str(source), {"output": output, "input_size": 64, "backend": "torch"}))
    assert (report.outcome, report.exit_code) == (Outcome.DONE_WITH_SKIPS, 3)
    assert report.warnings == [f"{output}: gives back 11 of the 12 frames written"]
    assert report.counters["frames_read_back"] == 11
    assert output.exists()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_that_an_edit_list_hides_are_not_counted(suffix: str, tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / f"whole{suffix}", audio=video.AudioPolicy.NONE)
    fill(sink, range(8), tick=Fraction(1, 25), rate=Fraction(25))
    sink.finish()
    assert sink.counters == {"frames_read_back": 8}
    cut = tmp_path / f"cut{suffix}"
    with av.open(str(sink.path)) as whole, av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as output:
        stream = output.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size and packet.pts is not None and packet.dts is not None:
                shift = round(3 / 25 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                output.mux(packet)
    with av.open(str(cut)) as found:
        shown = sum(1 for packet in found.demux(video=0) if packet.size and not packet.is_discard)
    assert video.count_frames(cut) == shown < 8
