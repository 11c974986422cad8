"""A video put together from pieces is the video that one run writes: times, tags, header, sound and pixels."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.mapping import Mapping
from stream.depthdata.video import open_depth_video
from stream.errors import SinkError
from stream.frames import Depth, DepthKind, Frame, Intrinsics, SourceInfo, SourceKind
from stream.media import av
from stream.sinks.depthvideo import DepthVideoSink
from stream.sinks.joined import JoinedDepthVideo, JoinedVideo
from stream.sinks.pieces import DepthPieceSink, VideoPieceSink
from stream.sinks.video import VideoSink
from tests.support.media_files import numbered

TICK = Fraction(1, 30_000)
SIZE = (45, 63)
INFO = SourceInfo(
    name="clip.mp4", size=SIZE, is_live=False, time_base=TICK, rate=Fraction(30_000, 1001), frame_count=None,
    kind=SourceKind.VIDEO,
)  # fmt: skip
CUTS = (0, 13, 14, 30)
"""A piece of one frame is shorter than an encoder's delay."""
LAST = 1777


def frames(first_pts: int = 0) -> list[Frame]:
    """At a variable rate, and the last one is shown for longer."""
    steps = [1001 + (index % 3) * 37 for index in range(CUTS[-1])]
    return [
        Frame(
            index=index,
            pts=first_pts + sum(steps[:index]),
            time_base=TICK,
            captured_at=0.0,
            rgb=numbered(index, SIZE),
            duration=LAST if index == len(steps) - 1 else step,
        )
        for index, step in enumerate(steps)
    ]


def depth(frame: Frame, camera: Intrinsics | None = None) -> Depth:
    values = np.linspace(1, 2 + frame.index, frame.rgb[..., 0].size, dtype=np.float32).reshape(frame.size)
    return Depth(values=values, kind=DepthKind.METRIC_DEPTH, index=frame.index, intrinsics=camera)


def write(sink: VideoSink, wanted: Sequence[Frame], info: SourceInfo = INFO) -> Path:
    sink.open(info, info.size)
    for frame in wanted:
        camera = Intrinsics(fx=50.0 + frame.index, fy=50, cx=30, cy=20)
        sink.write(frame, depth(frame, camera), frame.rgb)
    sink.finish()
    return sink.path


def pieces(folder: Path, of: Path, codec: str | None, all_frames: Sequence[Frame]) -> list[Path]:
    made = []
    for number, (start, end) in enumerate(pairwise(CUTS)):
        (folder / str(number)).mkdir()
        made.append(write(VideoPieceSink(folder / str(number), of=of, codec=codec), all_frames[start:end]))
    return made


def joined(path: Path, made: Sequence[Path], codec: str | None = None, info: SourceInfo = INFO) -> JoinedVideo:
    sink = JoinedVideo(path, codec=codec)
    sink.begin(info, made, read_sound=lambda _until: None, last_duration=LAST)
    sink.copy()
    sink.finish()
    return sink


def header(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        names = ("name", "height", "width", "pix_fmt", "profile", "color_range", "colorspace", "color_trc")
        found = {name: getattr(context, name) for name in (*names, "color_primaries", "codec_tag")}
        times = (stream.time_base, stream.start_time, stream.duration, container.start_time, container.duration)
        return found | {"times": times, "frames": stream.frames, "tags": dict(container.metadata)}


def rate(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate


def decoded(path: Path) -> tuple[list[int | None], list[np.ndarray]]:
    with av.open(str(path)) as container:
        found = list(container.decode(video=0))
    return [frame.pts for frame in found], [frame.to_ndarray(format="rgb24") for frame in found]


KINDS = {
    "mp4": ("libx264", "out.mp4"),
    "m4v": ("libx264", "out.m4v"),
    "mov, no NUT": ("prores_ks", "out.mov"),
    "mkv, B-frames": ("libx264", "out.mkv"),
    "mkv, lossless": ("ffv1", "out.mkv"),
    "webm": ("libvpx-vp9", "out.webm"),
    "mp4, coarse clock": ("mpeg4", "out.mp4"),
    "mp4, hevc": ("libx265", "out.mp4"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_header_times_and_pictures_of_one_run(kind: str, tmp_path: Path) -> None:
    codec, name = KINDS[kind]
    shown = frames()
    plain = write(VideoSink(tmp_path / f"plain_{name}", codec=codec), shown)
    made = pieces(tmp_path, tmp_path / name, codec, shown)
    sink = joined(tmp_path / name, made, codec)
    assert sink.warnings == []
    assert sink.counters == {"frames_read_back": len(shown)}
    assert header(sink.path) == header(plain)
    if name != "out.mp4":  # of MP4, FFmpeg works it out from the decode times, which an encoder chooses
        assert rate(sink.path) == rate(plain)
    assert decoded(sink.path)[0] == decoded(plain)[0]
    alone = [image for path in made for image in decoded(path)[1]]
    assert all(np.array_equal(*both) for both in zip(decoded(sink.path)[1], alone, strict=True))


def test_decode_times_increase_and_come_before_display_times(tmp_path: Path) -> None:
    shown = frames()
    sink = joined(tmp_path / "out.mp4", pieces(tmp_path, tmp_path / "out.mp4", None, shown))
    with av.open(str(sink.path)) as container:
        times = [(packet.dts, packet.pts) for packet in container.demux(video=0) if packet.size]
    assert [pts for _, pts in times] != [frame.pts for frame in shown]  # there are B-frames
    assert all(dts <= pts for dts, pts in times if dts is not None and pts is not None)
    assert [dts for dts, _ in times] == sorted({dts for dts, _ in times})


def test_a_part_of_a_source_starts_at_zero(tmp_path: Path) -> None:
    shown, info = frames(90_000), replace(INFO, start_s=3.0)
    made = []
    for number in range(len(CUTS) - 1):
        (tmp_path / str(number)).mkdir()
        piece = VideoPieceSink(tmp_path / str(number), of=tmp_path / "out.mp4")
        made.append(write(piece, shown[CUTS[number] : CUTS[number + 1]], info))
    sink = joined(tmp_path / "out.mp4", made, info=info)
    assert decoded(sink.path)[0] == [frame.pts for frame in frames()]


def test_pieces_that_do_not_fit_together_are_refused_by_name(tmp_path: Path) -> None:
    shown, out = frames(), tmp_path / "out.mp4"
    made = pieces(tmp_path, out, None, shown)
    (tmp_path / "other").mkdir()
    other = write(VideoPieceSink(tmp_path / "other", of=out, preset="ultrafast"), shown[CUTS[2] :])
    with pytest.raises(SinkError, match=r"other/video.nut: was encoded otherwise than .*1/video.nut; start again"):
        joined(out, [*made[:2], other])
    with pytest.raises(SinkError, match=r"0/video.nut: begins before .*1/video.nut ends"):
        joined(out, [made[1], made[0]])
    made[1].write_bytes(made[1].read_bytes()[:100])
    with pytest.raises(SinkError, match=r"1/video.nut: cannot be read"):
        joined(out, made)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("codec", DepthCodec)
def test_a_depth_video_has_all_numbers_exact_times_and_cameras(codec: DepthCodec, tmp_path: Path) -> None:
    mapping = None if codec is DepthCodec.FLOAT32 else Mapping(lo=1.0, hi=40.0, last=codec.last_code)
    about = Description(kind=DepthKind.METRIC_DEPTH, mapping=mapping, model="tiny")
    shown, made = frames(), []
    for number in range(len(CUTS) - 1):
        (tmp_path / str(number)).mkdir()
        piece = DepthPieceSink(tmp_path / str(number), codec=codec, description=about)
        made.append(write(piece, shown[CUTS[number] : CUTS[number + 1]]))
    plain = write(DepthVideoSink(tmp_path / f"plain{codec.suffix}", codec=codec, description=about), shown)
    sink = JoinedDepthVideo(tmp_path / f"out{codec.suffix}", made)
    sink.begin(INFO, made, read_sound=lambda _until: None, last_duration=LAST)
    sink.copy()
    sink.finish()
    assert (tmp_path / "out.depth.json").read_bytes() == (tmp_path / "plain.depth.json").read_bytes()
    ours, theirs = open_depth_video(sink.path), open_depth_video(plain)
    try:
        assert ours.description == theirs.description
        for (pts, duration, values), (wanted, length, expected) in zip(ours.timed(), theirs.timed(), strict=True):
            assert (pts, duration, values.intrinsics) == (wanted, length, expected.intrinsics)
            assert np.array_equal(values.values, expected.values, equal_nan=True)
    finally:
        ours.close()
        theirs.close()


def test_depth_videos_with_other_codes_are_refused_by_name(tmp_path: Path) -> None:
    made = []
    for number, hi in enumerate((40.0, 41.0)):
        (tmp_path / str(number)).mkdir()
        about = Description(kind=DepthKind.METRIC_DEPTH, mapping=Mapping(lo=1.0, hi=hi, last=65535), model="tiny")
        piece = DepthPieceSink(tmp_path / str(number), codec=DepthCodec.FFV1, description=about)
        made.append(write(piece, frames()[CUTS[number] : CUTS[number + 1]]))
    with pytest.raises(SinkError, match=r"1/depth.mkv: its numbers mean something else than those of .*0/depth.mkv"):
        JoinedDepthVideo(tmp_path / "out.depth.mkv", made)
