"""EXR files: what OpenEXR's own library finds in them; `test_depthfiles` has FFmpeg read the samples, too."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

import stream
from stream.errors import OutputError
from stream.frames import Depth, DepthKind, DepthMap, Frame, SourceInfo, SourceKind
from stream.sinks.depthfiles import DepthFileSink, DepthFormat
from stream.sinks.naming import sequence_name
from tests.support.media_files import write_video


def info(kind: SourceKind, name: str) -> SourceInfo:
    return SourceInfo(
        name=name, size=(37, 53), is_live=False, time_base=Fraction(1), rate=None, frame_count=None, kind=kind
    )


def written(folder: Path, depth: Depth, source: SourceInfo, *, name: str = "") -> str:
    sink = DepthFileSink(folder, format=DepthFormat.EXR)
    sink.open(source, depth.size)
    rgb = np.zeros((*depth.size, 3), np.uint8)
    frame = Frame(index=depth.index, pts=0, time_base=Fraction(1), captured_at=0.0, rgb=rgb, name=name)
    sink.write(frame, depth, rgb)
    sink.finish()
    (path,) = folder.iterdir()
    return path.name


def noise() -> DepthMap:
    values = np.random.default_rng(0).uniform(-3, 9, (37, 53)).astype(np.float32)
    values.flat[0], values.flat[-1] = 11.5, -4.25
    return values


@pytest.mark.parametrize("kind", list(DepthKind))
def test_the_file_is_one_part_of_zipped_scan_lines_with_what_the_numbers_mean(tmp_path: Path, kind: DepthKind) -> None:
    values = noise()
    name = written(tmp_path, Depth(values=values, kind=kind, index=0, model="dav2-small"), info(SourceKind.STILLS, "a"))
    with OpenEXR.File(str(tmp_path / name)) as file:
        assert len(file.parts) == 1
        header, channels = dict(file.header()), file.channels()
        assert (header["compression"], header["type"]) == (OpenEXR.ZIP_COMPRESSION, OpenEXR.scanlineimage)
        assert list(channels) == ["Z"]
        assert channels["Z"].pixels.dtype == np.float32
        assert channels["Z"].pixels.tobytes() == values.tobytes()
    stated = {key: value for key, value in header.items() if key.startswith("depth_")}
    assert stated == {
        "depth_kind": kind.value,
        "depth_unit": "m" if kind is DepthKind.METRIC_DEPTH else "unknown",
        "depth_model": "dav2-small",
        "depth_min": -4.25,
        "depth_max": 11.5,
    }


def test_pixels_without_an_answer_are_nan_and_not_in_the_range(tmp_path: Path) -> None:
    values = noise()
    valid = values < 5
    depth = Depth(values=values, kind=DepthKind.METRIC_DEPTH, index=0, valid=valid)
    written(tmp_path / "some", depth, info(SourceKind.STILLS, "a"))
    with OpenEXR.File(str(tmp_path / "some" / "000000.exr")) as file:
        read = file.channels()["Z"].pixels
        assert np.array_equal(np.isfinite(read), valid)
        assert np.array_equal(read[valid], values[valid])
        assert file.header()["depth_max"] == values[valid].max()
    nothing = Depth(values=values, kind=DepthKind.METRIC_DEPTH, index=0, valid=np.zeros_like(valid))
    written(tmp_path / "none", nothing, info(SourceKind.STILLS, "a"))
    with OpenEXR.File(str(tmp_path / "none" / "000000.exr")) as file:
        assert np.isnan(file.channels()["Z"].pixels).all()
        assert not {"depth_min", "depth_max"} & file.header().keys()


@pytest.mark.parametrize(
    ("kind", "source", "name"),
    [
        (SourceKind.VIDEO, "clips/a.b.mp4", "a.b.000012.exr"),
        (SourceKind.VIDEO, "clips/100%d #2.mp4", "100_d _2.000012.exr"),
        (SourceKind.VIDEO, f"{'é' * 125}.mp4", None),
        (SourceKind.CAMERA, "cam:0", "cam_0.000012.exr"),
        (SourceKind.CAMERA, "/dev/video2", "dev_video2.000012.exr"),
        (SourceKind.PATTERN, "pattern:testsrc2", "pattern_testsrc2.000012.exr"),
        (SourceKind.NETWORK, "rtsp://user:***@host:554/live/door?x=1", "door.000012.exr"),
        (SourceKind.NETWORK, "udp://host:5000", "000012.exr"),
        (SourceKind.STILLS, "folder", "000012.exr"),
    ],
)
def test_frames_of_a_sequence_are_called_as_compositing_programs_expect(
    tmp_path: Path, kind: SourceKind, source: str, name: str | None
) -> None:
    depth = Depth(values=noise(), kind=DepthKind.METRIC_DEPTH, index=12)
    found = written(tmp_path, depth, info(kind, source))
    assert found == name if name is not None else found.startswith("éé") and found.endswith(".000012.exr")
    assert len(found.encode()) <= 255


def test_a_picture_keeps_its_name(tmp_path: Path) -> None:
    depth = Depth(values=noise(), kind=DepthKind.METRIC_DEPTH, index=12)
    assert written(tmp_path, depth, info(SourceKind.STILLS, "folder"), name="shot.0001.jpg") == "shot.0001.exr"


def test_a_file_of_the_one_frame_beside_a_picture_is_not_replaced(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=2)
    old = tmp_path / "clip.000000.exr"
    old.write_text("precious")
    with pytest.raises(OutputError, match="the file exists"):
        stream.run(clip, output=tmp_path / "a.png", save="exr", max_frames=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.000000.exr", "clip.mp4"], (
        "refused before any work"
    )
    assert sequence_name(info(SourceKind.VIDEO, str(clip))) == "clip."
