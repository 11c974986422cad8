"""PLY files, read by a small reader of the format, and whole runs that write them."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stream
from stream.cli.main import invoke
from stream.errors import OutputError, SinkError
from stream.frames import Depth, DepthKind, Frame, Intrinsics, SourceInfo, SourceKind
from stream.jobs import plan
from stream.sinks.naming import estimated_bytes
from stream.sinks.ply import PointCloudSink
from tests.capture.test_focal import exif
from tests.support.full_disk import fill_disk
from tests.support.media_files import write_video
from tests.support.picture_files import scene

HEIGHT, WIDTH = 24, 32


class Ply:
    """A binary little-endian PLY as its description has it: a header in ASCII, then one record for each vertex."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        head, end, body = content.partition(b"end_header\n")
        assert end
        lines = head.decode("ascii").splitlines()
        assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
        self.comments = dict(
            line.removeprefix("comment ").split(": ", 1)
            for line in lines
            if line.startswith("comment") and ": " in line
        )
        (element,) = (line for line in lines if line.startswith("element"))
        count = int(element.removeprefix("element vertex "))
        properties = [line.split()[1:] for line in lines if line.startswith("property")]
        assert [name for _, name in properties] == ["x", "y", "z", "red", "green", "blue"]
        record = struct.Struct("<" + "".join({"float": "f", "uchar": "B"}[kind] for kind, _ in properties))
        assert len(body) == count * record.size
        rows = np.array(list(record.iter_unpack(body)), np.float64).reshape(count, 6)
        self.xyz, self.rgb = rows[:, :3], rows[:, 3:].astype(np.uint8)


def info(kind: SourceKind = SourceKind.STILLS, **fields: Any) -> SourceInfo:
    about = {"name": "t", "is_live": False, "rate": None, "frame_count": None} | fields
    return SourceInfo(size=(HEIGHT, WIDTH), time_base=Fraction(1), kind=kind, **about)


def written(
    sink: PointCloudSink, *depths: Depth, kind: SourceKind = SourceKind.STILLS, camera: Intrinsics | None = None
) -> None:
    sink.open(info(kind), (HEIGHT, WIDTH))
    for index, depth in enumerate(depths):
        rgb = scene(HEIGHT, WIDTH)
        frame = Frame(index=index, pts=index, time_base=Fraction(1), captured_at=0, rgb=rgb, intrinsics=camera)
        assert sink.write(frame, depth, rgb[::-1])  # the rendered picture is not the frame
    sink.finish()


def wall(z: float = 2.0, kind: DepthKind = DepthKind.METRIC_DEPTH, **fields: Any) -> Depth:
    return Depth(values=np.full((HEIGHT, WIDTH), z, np.float32), kind=kind, index=0, **fields)


def test_points_are_where_the_camera_saw_them_in_the_frames_colours(tmp_path: Path) -> None:
    written(PointCloudSink(tmp_path, fov=90), wall(model="some-metric"))
    ply = Ply(tmp_path / "000000.ply")
    x = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / (WIDTH / 2) * 2
    y = (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / (WIDTH / 2) * 2
    expected = np.stack([*np.broadcast_arrays(x, y[:, None]), np.full((HEIGHT, WIDTH), 2.0)], axis=-1).reshape(-1, 3)
    assert np.allclose(ply.xyz, expected, atol=1e-6)
    assert np.array_equal(ply.rgb, scene(HEIGHT, WIDTH).reshape(-1, 3))
    comments = ply.comments
    assert (comments["unit"], comments["kind"], comments["model"]) == ("metres", "metric_depth", "some-metric")
    assert comments["focal"] == "16.000000000000004 16.000000000000004 pixels, from --fov"
    assert "y down" in comments["axes"]


@pytest.mark.parametrize(
    ("kind", "unit"), [(DepthKind.RELATIVE_DEPTH, "the model's own"), (DepthKind.RELATIVE_DISPARITY, "unknown; near")]
)
def test_a_relative_kind_states_that_its_unit_is_unknown(tmp_path: Path, kind: DepthKind, unit: str) -> None:
    written(PointCloudSink(tmp_path, ends=(0.5, 3.5)), wall(3.5, kind))
    ply = Ply(tmp_path / "000000.ply")
    assert ply.comments["unit"].startswith(unit)
    is_disparity = kind is DepthKind.RELATIVE_DISPARITY
    assert ply.xyz[:, 2] == pytest.approx(1.0 if is_disparity else 3.5)
    assert ("disparity 0.5 lies at the far end, 3.5 at the near end" in ply.comments["kind"]) == is_disparity


def test_masked_pixels_are_left_out_and_a_cloud_may_be_empty(tmp_path: Path) -> None:
    valid = np.zeros((HEIGHT, WIDTH), bool)
    nothing = wall(valid=valid)
    some = valid.copy()
    some[:, :5] = True
    written(PointCloudSink(tmp_path), nothing, wall(valid=some))
    assert len(Ply(tmp_path / "000000.ply").xyz) == 0
    ply = Ply(tmp_path / "000001.ply")
    assert len(ply.xyz) == 5 * HEIGHT
    assert np.isfinite(ply.xyz).all()


def test_a_model_name_cannot_break_the_header(tmp_path: Path) -> None:
    written(PointCloudSink(tmp_path), wall(model="é\nend_header\nelement vertex 9"))
    assert Ply(tmp_path / "000000.ply").comments["model"] == "? end_header element vertex 9"


def test_the_assumed_camera_and_the_changing_scale_are_said_once(tmp_path: Path) -> None:
    sink = PointCloudSink(tmp_path)
    disparity = wall(kind=DepthKind.RELATIVE_DISPARITY)
    written(sink, disparity, disparity, kind=SourceKind.VIDEO)
    assert len(sink.notes) == 2
    assert "60°" in sink.notes[1]
    assert "--range clip or LO:HI" in sink.notes[0]
    assert sink.counters["assumed_cameras"] == 2
    known = PointCloudSink(tmp_path / "known", ends=(0, 1))
    written(known, disparity, kind=SourceKind.VIDEO, camera=Intrinsics(fx=9, fy=9, cx=1, cy=1))
    assert known.notes == []
    assert known.counters == {}


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, tmp_path / ".000000.ply.partial")
    with pytest.raises(SinkError, match="No space left"):
        written(PointCloudSink(tmp_path), wall())
    assert list(tmp_path.iterdir()) == []


def test_every_nth_frame_is_written_and_the_others_are_counted(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=7)
    report = stream.run(clip, output=tmp_path / "out.mp4", save=("ply", "npy"), every=3, input_size=64)
    names = sorted(path.name for path in (tmp_path / "out_depth").iterdir())
    assert names == [f"{index:06d}.{kind}" for index in (0, 3, 6) for kind in ("npy", "ply")]
    assert (report.captured, report.written, report.skipped) == (7, 7, [])
    assert report.counters["between_every"] == 4
    assert sum(1 for _ in stream.iter_depth(tmp_path / "out.mp4", input_size=64)) == 7  # the video has them all


def test_the_clouds_of_a_clip_share_one_scale(tmp_path: Path) -> None:
    """By the depth in the files of numbers: one relation of disparity and distance holds in all frames."""
    clip = write_video(tmp_path / "clip.mp4", frames=4)
    notes: list[str] = []
    stream.run(
        clip, output=tmp_path / "out", picture="none", save=("ply", "npy"), range="clip", input_size=64, fov=60,
        on_note=notes.append,
    )  # fmt: skip
    assert not any("scale" in note for note in notes)
    values = [np.load(tmp_path / "out" / f"{index:06d}.npy") for index in range(4)]
    low, high = np.percentile(np.stack(values), (1, 99))
    focal = 32 / np.tan(np.radians(30))
    for index, disparity in enumerate(values):
        ply = Ply(tmp_path / "out" / f"{index:06d}.ply")
        columns = np.rint(ply.xyz[:, 0] / ply.xyz[:, 2] * focal + 32 - 0.5).astype(int)
        rows = np.rint(ply.xyz[:, 1] / ply.xyz[:, 2] * focal + 24 - 0.5).astype(int)
        share = 0.1 + 0.9 * (disparity[rows, columns] - low) / (high - low)
        assert np.allclose(1 / ply.xyz[:, 2], np.maximum(share, 0.05), rtol=0.02)


def test_a_photo_becomes_a_cloud_with_the_focal_length_of_its_exif(tmp_path: Path) -> None:
    Image.fromarray(scene(96, 128)).save(tmp_path / "photo.jpg", exif=exif(28))
    notes: list[str] = []
    stream.run(tmp_path / "photo.jpg", output=tmp_path / "out", save="ply", input_size=64, on_note=notes.append)
    ply = Ply(tmp_path / "out" / "photo.ply")
    focal = 28 / 43.2666 * 160  # the diagonal of 128 × 96
    assert float(ply.comments["focal"].split()[0]) == pytest.approx(focal, rel=1e-4)
    assert ply.comments["focal"].endswith("from EXIF")
    assert ply.comments["model"] == "starter"
    assert 0 < len(ply.xyz) <= 96 * 128
    assert (abs(ply.xyz[:, 0] / ply.xyz[:, 2]) < 64 / focal).all()
    with Image.open(tmp_path / "photo.jpg") as photo:
        seen = {tuple(colour) for colour in np.asarray(photo).reshape(-1, 3)}
    assert {tuple(colour) for colour in ply.rgb} <= seen
    assert not any("60°" in note for note in notes)


def test_the_field_of_view_that_is_typed_wins_over_exif(tmp_path: Path) -> None:
    Image.fromarray(scene(96, 128)).save(tmp_path / "photo.jpg", exif=exif(28))
    stream.run(tmp_path / "photo.jpg", output=tmp_path / "out", save="ply", input_size=64, fov=90)
    assert float(Ply(tmp_path / "out" / "photo.ply").comments["focal"].split()[0]) == pytest.approx(64)


@pytest.mark.parametrize(
    "arguments", [["--fov", "0"], ["--fov", "180"], ["--every", "0"], ["--fov", "nan"], ["--rerun=x.txt"]]
)
def test_impossible_values_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "pattern:testsrc2", "--save", "ply", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_options_without_effect_are_named(tmp_path: Path) -> None:
    Image.fromarray(scene(48, 64)).save(tmp_path / "a.png")
    notes: list[str] = []
    stream.run(tmp_path / "a.png", output=tmp_path / "b.png", fov=90, every=2, input_size=64, on_note=notes.append)
    assert any(note.startswith("--fov has no effect") for note in notes)
    assert any(note.startswith("--every has no effect") for note in notes)


def test_out_cannot_name_a_cloud(tmp_path: Path) -> None:
    Image.fromarray(scene(48, 64)).save(tmp_path / "a.png")
    with pytest.raises(OutputError, match="cannot name a depth file"):
        stream.run(tmp_path / "a.png", output=tmp_path / "a.ply")


def test_clouds_that_do_not_fit_on_the_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=9)
    asked: list[tuple[int, str]] = []
    monkeypatch.setattr(plan, "check_free_space", lambda _folder, needed, what: asked.append((needed, what)))
    for every in (1, 4):
        stream.run(clip, output=tmp_path / f"{every}.mp4", save="ply", every=every, max_frames=9, input_size=64)
    assert estimated_bytes("ply", (1080, 1920), 1) == 31_104_000
    assert asked == [(9 * 48 * 64 * 15, "9 × ply"), (3 * 48 * 64 * 15, "3 × ply")]
