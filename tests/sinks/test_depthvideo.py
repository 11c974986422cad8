"""Depth videos give back what was written, to our reader and to others."""

import json
import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stream import open_depth_video
from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.mapping import CODES_12, Codes, Mapping
from stream.errors import ConfigError, OutputError, SinkError, UsageError
from stream.frames import Depth, DepthKind, Frame, Intrinsics, SourceInfo, SourceKind
from stream.sinks import depthvideo
from stream.sinks.depthvideo import DepthVideoSink

NTSC, NTSC_RATE = Fraction(1, 30000), Fraction(30000, 1001)
MPEG_TICK = Fraction(1, 90000)
CODECS = list(DepthCodec)
LO, HI = 0.25, 80.0


def mapping_of(codec: DepthCodec, **fields: bool | float) -> Mapping | None:
    match codec:
        case DepthCodec.FFV1:
            return Mapping(lo=LO, hi=HI)
        case DepthCodec.HEVC12:
            return Mapping(lo=LO, hi=HI, first=0, last=CODES_12, **fields)  # type: ignore[arg-type]
    return None


def maps(count: int, size: tuple[int, int], *, kind: DepthKind, holes: bool) -> list[Depth]:
    """Noise over the whole range, ends included, which is what a lossy step would change first."""
    random = np.random.default_rng(7)
    made = []
    for index in range(count):
        values = random.uniform(LO, HI, size).astype(np.float32)
        values.flat[0], values.flat[-1] = LO, HI
        valid = random.random(size) > 0.2 if holes else None
        made.append(Depth(values=values, kind=kind, index=index, valid=valid))
    return made


@dataclass
class Written:
    path: Path
    sink: DepthVideoSink
    depths: list[Depth]
    pts: list[int]


def write(
    folder: Path,
    codec: DepthCodec = DepthCodec.FFV1,
    *,
    size: tuple[int, int] = (34, 46),
    pts: Sequence[int] = tuple(range(0, 12 * 1001, 1001)),
    tick: Fraction = NTSC,
    kind: DepthKind = DepthKind.METRIC_DEPTH,
    holes: bool = True,
    announced: tuple[int, int] | None = None,
    cameras: Sequence[Intrinsics | None] = (),
    mapping: Mapping | None = None,
    name: str = "a",
    finish: bool = True,
    overwrite: bool = False,
) -> Written:
    path = folder / (name + codec.suffix)
    description = Description(
        kind=kind, model="starter", weights_sha256="ab" * 32, mapping=mapping or mapping_of(codec)
    )
    sink = DepthVideoSink(path, codec=codec, description=description, overwrite=overwrite)
    info = SourceInfo(
        name="rtsp://user:secret@cam/clip.mp4", size=announced or size, is_live=False, time_base=tick, rate=NTSC_RATE,
        frame_count=len(pts), kind=SourceKind.VIDEO,
    )  # fmt: skip
    depths = maps(len(pts), size, kind=kind, holes=holes)
    sink.open(info, (3, 5))  # the rendered image has another size
    black = np.zeros((*size, 3), np.uint8)
    for number, camera in enumerate(cameras):
        depths[number] = replace(depths[number], intrinsics=camera)
    for at, depth in zip(pts, depths, strict=True):
        frame = Frame(index=depth.index, pts=at, time_base=tick, captured_at=0.0, rgb=black, duration=1001)
        assert sink.write(frame, depth, black)
    if finish:
        sink.finish()
    return Written(path, sink, depths, list(pts))


def check(written: Written, codec: DepthCodec, got: Sequence[Depth]) -> None:
    mapping = mapping_of(codec)
    for depth, back in zip(written.depths, got, strict=True):
        assert (back.kind, back.model, back.size) == (depth.kind, "starter", depth.size)
        if mapping is None:
            np.testing.assert_array_equal(back.values, depth.values)
            continue
        if mapping.marks_invalid:
            np.testing.assert_array_equal(np.isnan(back.values), np.isnan(depth.values))
        else:
            missing = np.isnan(depth.values)
            assert (back.values[missing] == np.float32(mapping.lo)).all()
        with np.errstate(invalid="ignore"):
            error = np.nanmax(np.abs(back.values - depth.values))
        assert error <= mapping.error_at(HI) * 1.001 + 4e-6  # and the rounding of float32


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(34, 46), (21, 33), (1, 1), (1, 40), (40, 1), (17, 16)], ids=str)
def test_gives_back_values_masks_and_times(tmp_path: Path, codec: DepthCodec, size: tuple[int, int]) -> None:
    irregular = [7, 1009, 1010, 90_000, 90_001, 5_000_000]  # two frames in one millisecond, pauses
    written = write(tmp_path, codec, size=size, pts=irregular, tick=MPEG_TICK)

    with open_depth_video(written.path) as video:
        timed = list(video.timed())
        assert (video.size, video.time_base, video.rate, video.frame_count) == (size, MPEG_TICK, NTSC_RATE, 6)
        assert video.description.weights_sha256 == "ab" * 32
        assert "secret" not in video.description.source
        assert video.description == written.sink.description

    assert [pts for pts, _, _ in timed] == irregular
    assert [depth.index for _, _, depth in timed] == list(range(6))
    check(written, codec, [depth for _, _, depth in timed])


@pytest.mark.parametrize(
    "size", [(400, 15), (15, 400), (2, 3000), (3000, 2), (1, 3000), (3000, 1), (289, 353)], ids=str
)
@pytest.mark.parametrize("codec", [DepthCodec.FFV1, DepthCodec.FLOAT32])
def test_long_thin_maps_can_be_written(tmp_path: Path, codec: DepthCodec, size: tuple[int, int]) -> None:
    written = write(tmp_path, codec, size=size, pts=range(2))

    with open_depth_video(written.path) as video:
        check(written, codec, list(video))


def test_large_maps_find_an_encoder(tmp_path: Path) -> None:
    """A photograph of 20 megapixels: FFV1 takes no slices as large as a quarter of its two halves."""
    sink = DepthVideoSink(
        tmp_path / "a.depth.mkv", codec=DepthCodec.FLOAT32, description=Description(kind=DepthKind.METRIC_DEPTH)
    )
    info = SourceInfo(
        name="a.jpg", size=(4000, 5000), is_live=False, time_base=NTSC, rate=NTSC_RATE, frame_count=1,
        kind=SourceKind.VIDEO,
    )  # fmt: skip
    sink.open(info, info.size)
    sink.abort(RuntimeError())


def test_an_encoder_that_fails_is_not_to_be_replaced_by_one_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depthvideo, "_ffv1_options", lambda *_: {"level": "3", "slices": "5"})  # no such number
    with pytest.raises(SinkError, match=r"does not work here.*--depth-codec float32") as caught:
        write(tmp_path, pts=range(1))
    assert "libx264" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("codec", CODECS)
def test_holds_every_kind_and_ntsc_times(tmp_path: Path, codec: DepthCodec, kind: DepthKind) -> None:
    written = write(tmp_path, codec, kind=kind, holes=False)

    with open_depth_video(written.path) as video:
        assert [(pts, duration) for pts, duration, _ in video.timed()] == [(pts, 1001) for pts in written.pts]
        video.seek(0)
        check(written, codec, list(video))
    assert json.loads(written.path.with_suffix(".json").read_text()) == written.sink.description.as_fields()


@pytest.mark.parametrize("codec", CODECS)
def test_seeks_to_the_frame_that_is_shown(tmp_path: Path, codec: DepthCodec) -> None:
    pts = [5, 1000, 1001, 40_000, 45_000, 900_000, 1_200_000]
    written = write(tmp_path, codec, pts=pts, tick=MPEG_TICK)

    with open_depth_video(written.path) as video:
        asked = [0.0, -3.0, 1000 / 90_000, 1001 / 90_000, 0.4, 0.4999, 9.9, 10.0, 13.0, 1e8, 0.5, 5 / 90_000]
        for time_s in asked:
            video.seek(time_s)
            rest = list(video.timed())
            shown = max([i for i, at in enumerate(pts) if at <= time_s * 90_000 + 1e-3], default=0)
            assert [at for at, _, _ in rest] == pts[shown:], time_s
            assert rest[0][2].index == shown
            check(Written(written.path, written.sink, written.depths[shown:], pts), codec, [d for _, _, d in rest])
        with pytest.raises(UsageError, match="no time"):
            video.seek(math.nan)


needs_ffmpeg = pytest.mark.skipif(
    "CI" not in os.environ and (shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None),
    reason="needs the programs of FFmpeg",
)


def ffmpeg_codes(path: Path, size: tuple[int, int], *, pixel_format: str) -> Codes:
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt",
         pixel_format, "-"], check=True, capture_output=True,
    )  # fmt: skip
    return np.frombuffer(raw.stdout, np.uint16).reshape(-1, *size)


def probed(path: Path) -> dict[str, str]:
    asked = ["-show_entries", "stream=codec_name,pix_fmt,profile:format_tags", "-of", "json"]
    shown = json.loads(subprocess.run(
        ["ffprobe", "-v", "error", *asked, str(path)], check=True, capture_output=True, text=True
    ).stdout)  # fmt: skip
    return shown["streams"][0] | shown["format"]["tags"]


@needs_ffmpeg
def test_ffmpeg_reads_the_codes_that_the_mapping_gave(tmp_path: Path) -> None:
    written = write(tmp_path, size=(21, 33))

    stream = probed(written.path)
    assert (stream["codec_name"], stream["pix_fmt"]) == ("ffv1", "gray16le")
    assert json.loads(stream["DEPTHSTREAM"])["mapping"]["hi"] == HI
    codes = ffmpeg_codes(written.path, (21, 33), pixel_format="gray16le")
    mapping = mapping_of(DepthCodec.FFV1)
    assert mapping is not None
    np.testing.assert_array_equal(codes, [mapping.encode(depth.values, depth.valid) for depth in written.depths])
    assert (codes == 0).any()


@needs_ffmpeg
def test_float32_is_two_halves_for_others(tmp_path: Path) -> None:
    written = write(tmp_path, DepthCodec.FLOAT32, size=(21, 33))

    halves = ffmpeg_codes(written.path, (42, 33), pixel_format="gray16le").astype(np.uint32)
    values = (halves[:, :21] << 16 | halves[:, 21:]).view(np.float32)
    np.testing.assert_array_equal(values, [depth.values for depth in written.depths])


@needs_ffmpeg
@pytest.mark.parametrize("mapping", [{}, {"use_log": True, "shift": 3.5}], ids=["linear", "log"])
def test_hevc12_is_what_lerobot_reads(tmp_path: Path, mapping: dict[str, bool | float]) -> None:
    """Its loader takes the numbers from the feature's info and inverts the formula on float32."""
    wanted = mapping_of(DepthCodec.HEVC12, **mapping)
    assert wanted is not None
    written = write(tmp_path, DepthCodec.HEVC12, mapping=wanted, holes=False, size=(48, 64))

    stream = probed(written.path)
    assert (stream["codec_name"], stream["pix_fmt"]) == ("hevc", "gray12le")
    info = json.loads(written.path.with_suffix(".json").read_text())
    for key in ("is_depth_map", "video.depth_min", "video.depth_max", "video.shift", "video.use_log"):
        assert json.loads(stream[key]) == info[key]
    assert info["is_depth_map"] is True

    codes = ffmpeg_codes(written.path, (48, 64), pixel_format="gray12le")
    low, high = info["video.depth_min"], info["video.depth_max"]
    if info["video.use_log"]:
        shift = info["video.shift"]
        ends = math.log(low + shift), math.log(high + shift)
        values = np.exp(codes.astype(np.float32) * np.float32((ends[1] - ends[0]) / 4095) + np.float32(ends[0])) - shift
        half_code = (HI + shift) * (ends[1] - ends[0]) / 4095 / 2
    else:
        values = codes.astype(np.float32) * np.float32((high - low) / 4095) + np.float32(low)
        half_code = (high - low) / 4095 / 2
    errors = np.abs(values - np.stack([depth.values for depth in written.depths]))
    assert errors.max() <= half_code * 1.01 + 1e-4  # the loader's float32 arithmetic
    assert codes.min() == 0
    assert codes.max() == 4095


def test_says_and_counts_what_it_changes(tmp_path: Path) -> None:
    written = write(tmp_path, mapping=Mapping(lo=1.0, hi=40.0), holes=False)

    beyond = sum(int(((depth.values < 1.0) | (depth.values > 40.0)).sum()) for depth in written.depths)
    assert written.sink.counters["depth_values_clipped"] == pytest.approx(beyond, abs=20)  # half a code is within
    assert written.sink.notes == ["values beyond 1 … 40 are written as these ends"]
    holes = write(tmp_path, DepthCodec.HEVC12, name="b")
    assert [note for note in holes.sink.notes if "code 0" in note]


def test_skips_a_picture_of_another_size_and_stops_at_such_a_frame(tmp_path: Path) -> None:
    written = write(tmp_path, finish=False)
    other = Depth(values=np.ones((9, 9), np.float32), kind=DepthKind.METRIC_DEPTH, index=12)
    rgb = np.zeros((9, 9, 3), np.uint8)

    def frame(name: str) -> Frame:
        return Frame(index=12, pts=10**6, time_base=NTSC, captured_at=0.0, rgb=rgb, name=name)

    assert not written.sink.write(frame("b.jpg"), other, rgb)
    assert [(lost.index, lost.name) for lost in written.sink.unwritten] == [(12, "b.jpg")]
    assert "9×9" in written.sink.unwritten[0].reason
    with pytest.raises(SinkError, match=r"frame 12 is 9×9.*46×34"):
        written.sink.write(frame(""), other, rgb)
    relative = Depth(values=np.ones((34, 46), np.float32), kind=DepthKind.RELATIVE_DEPTH, index=13)
    with pytest.raises(SinkError, match="relative_depth"):
        written.sink.write(frame(""), relative, rgb)
    written.sink.finish()
    with open_depth_video(written.path) as video:
        assert len(list(video)) == 12


@pytest.mark.parametrize("codec", [DepthCodec.FFV1, DepthCodec.FLOAT32])
def test_gives_back_the_camera_of_each_frame(tmp_path: Path, codec: DepthCodec) -> None:
    cameras = [Intrinsics(fx=50.25, fy=49.5, cx=23.0, cy=17.0), None, Intrinsics(fx=1 / 3, fy=1e5, cx=-2.5, cy=0.0)]
    written = write(tmp_path, codec, pts=range(3), cameras=cameras)

    with open_depth_video(written.path) as video:
        assert [depth.intrinsics for depth in video] == cameras
        video.seek(2 * float(NTSC))
        assert [depth.intrinsics for depth in video] == cameras[2:]
    assert written.sink.notes == []


def test_the_camera_of_the_model_else_of_the_photo_is_kept_and_hevc12_says_that_it_keeps_none(tmp_path: Path) -> None:
    depth = maps(1, (48, 64), kind=DepthKind.METRIC_DEPTH, holes=False)[0]
    rgb = np.zeros((48, 64, 3), np.uint8)
    info = SourceInfo(
        name="photos", size=(48, 64), is_live=False, time_base=NTSC, rate=NTSC_RATE, frame_count=1,
        kind=SourceKind.STILLS,
    )  # fmt: skip
    photo = Intrinsics(fx=60.0, fy=60.0, cx=32.0, cy=24.0)
    model = Intrinsics(fx=70.0, fy=70.0, cx=32.0, cy=24.0)
    frame = Frame(index=0, pts=0, time_base=NTSC, captured_at=0.0, rgb=rgb, name="a.jpg", intrinsics=photo)
    for codec, estimated, kept, notes in [
        (DepthCodec.FFV1, None, photo, 0), (DepthCodec.FFV1, model, model, 0), (DepthCodec.HEVC12, model, None, 1)
    ]:  # fmt: skip
        description = Description(kind=depth.kind, mapping=mapping_of(codec))
        sink = DepthVideoSink(
            tmp_path / f"{codec}{estimated is None}{codec.suffix}", codec=codec, description=description
        )
        sink.open(info, info.size)
        sink.write(frame, replace(depth, intrinsics=estimated), rgb)
        sink.finish()
        assert len([note for note in sink.notes if "the camera" in note]) == notes
        with open_depth_video(sink.path) as video:
            assert [depth.intrinsics for depth in video] == [kept]


@pytest.mark.parametrize("announced", [(20, 30), (34, 40), (400, 12)], ids=str)
@pytest.mark.parametrize("codec", CODECS)
def test_has_the_size_of_the_first_map(tmp_path: Path, codec: DepthCodec, announced: tuple[int, int]) -> None:
    """The picture that the source took its size from may be one that cannot be read."""
    written = write(tmp_path / "new", codec, announced=announced)

    assert written.sink.unwritten == []
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.depth.json", "a" + codec.suffix]
    with open_depth_video(written.path) as video:
        assert video.size == (34, 46)
        check(written, codec, list(video))


def test_leaves_nothing_under_a_final_name_before_the_end(tmp_path: Path) -> None:
    cut = write(tmp_path, finish=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.depth.partial.mkv"]
    cut.sink.keep_partial("interrupted")
    assert cut.sink.outputs == [str(tmp_path / "a.depth.partial.mkv")]
    with open_depth_video(tmp_path / "a.depth.partial.mkv") as video:
        assert [pts for pts, _, _ in video.timed()] == cut.pts
    stopped = write(tmp_path, finish=False, name="b")
    stopped.sink.abort(RuntimeError())
    assert [path.name for path in tmp_path.iterdir()] == ["a.depth.partial.mkv"]


def test_replaces_a_video_and_its_sidecar_only_if_told(tmp_path: Path) -> None:
    first = write(tmp_path)
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path)
    first.path.unlink()
    with pytest.raises(OutputError, match=r"a\.depth\.json: the file exists"):
        write(tmp_path)
    second = write(tmp_path, pts=range(3), overwrite=True)
    with open_depth_video(second.path) as video:
        assert video.frame_count == 3


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("has_sidecar", [True, False])
def test_two_videos_never_share_a_sidecar(tmp_path: Path, *, overwrite: bool, has_sidecar: bool) -> None:
    first = write(tmp_path)
    if not has_sidecar:
        first.path.with_suffix(".json").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"a\.depth\.(mkv is there|json: the file exists)"):
        write(tmp_path, DepthCodec.HEVC12, overwrite=overwrite)
    assert sorted(tmp_path.iterdir()) == before
    with open_depth_video(first.path) as video:
        check(first, DepthCodec.FFV1, list(video))


def test_refuses_what_does_not_fit_together(tmp_path: Path) -> None:
    metric = Description(kind=DepthKind.METRIC_DEPTH)
    mapped = Description(kind=DepthKind.METRIC_DEPTH, mapping=Mapping(lo=0, hi=1))
    for name, codec, description, what in [
        ("a.depth.mp4", DepthCodec.FFV1, mapped, "needs another name"),
        ("a.depth.mkv", DepthCodec.FFV1, metric, "needs a mapping.*--range"),
        ("a.depth.mkv", DepthCodec.FLOAT32, mapped, "needs no mapping"),
        ("a.depth.mp4", DepthCodec.HEVC12, mapped, "last code"),
    ]:
        with pytest.raises((ConfigError, UsageError), match=what):
            DepthVideoSink(tmp_path / name, codec=codec, description=description)
