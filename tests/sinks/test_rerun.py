"""Rerun: a recording read back by its own reader, viewers that hang or are closed, and nothing without the package."""

import json
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stream
from stream.cli.main import invoke
from stream.errors import MissingExtraError, OutputError, SinkError, StreamError
from stream.frames import Depth, DepthKind, Frame, Intrinsics, SourceInfo, SourceKind
from stream.sinks import rerun as module
from stream.sinks.rerun import RerunSink
from tests.support.media_files import write_video
from tests.support.picture_files import scene
from tests.support.tracing import trace
from tests.support.waiting import until

HEIGHT, WIDTH = 24, 32
HAS_RERUN = find_spec("rerun") is not None
needs_rerun = pytest.mark.skipif(not HAS_RERUN, reason="needs rerun-sdk")


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "depthstream-rerun"]


def info(*, is_live: bool = False, kind: SourceKind = SourceKind.VIDEO) -> SourceInfo:
    return SourceInfo(
        name="t", size=(HEIGHT, WIDTH), is_live=is_live, time_base=Fraction(1, 10), rate=Fraction(10), frame_count=None,
        kind=kind,
    )  # fmt: skip


def result(index: int, *, camera: Intrinsics | None = None) -> tuple[Frame, Depth, np.ndarray]:
    rgb = scene(HEIGHT, WIDTH)
    frame = Frame(index=index, pts=3 * index, time_base=Fraction(1, 10), captured_at=0, rgb=rgb, intrinsics=camera)
    values = np.full((HEIGHT, WIDTH), 2 + index, np.float32)
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[0] = False
    return frame, Depth(values=values, kind=DepthKind.METRIC_DEPTH, index=index, valid=valid), rgb


def columns(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Entity → component or timeline → its values in a recording, by the reader of whichever version is installed."""
    found: dict[str, dict[str, list[Any]]] = {}
    try:
        from rerun.chunk import RrdReader
    except ImportError:
        from rerun.dataframe import load_recording

        recording = load_recording(path)
        table = recording.view(index="time", contents="/**").select().read_all()
        timelines = [name for name in ("frame", "time") if name in table.schema.names]
        for column in recording.schema().component_columns():
            if not column.is_static:
                rows = table.select([*timelines, f"{column.entity_path}:{column.component}"])
                rows = rows.filter(rows[-1].is_valid())
                times = {name: rows[name].to_pylist() for name in timelines}
                found.setdefault(column.entity_path, times)[column.component] = rows[-1].to_pylist()
        return found
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RRD file has no footer")  # nor has one that was received
        chunks = list(RrdReader(path).stream())
    for chunk in chunks:
        batch = chunk.to_record_batch()
        entity = found.setdefault(str(chunk.entity_path), {})
        for name in batch.schema.names:
            if name != "log_time":  # in nanoseconds, which need pandas
                entity.setdefault(name, []).extend(batch.column(name).to_pylist())
    return found


def seconds(value: Any) -> float:
    return float(value.total_seconds()) if hasattr(value, "total_seconds") else float(value) / 1e9


def depths(found: dict[str, dict[str, list[Any]]]) -> list[np.ndarray]:
    buffers = found["/camera/depth"]["DepthImage:buffer"]
    return [np.array(buffer[0], np.uint8).view(np.float32).reshape(HEIGHT, WIDTH) for buffer in buffers]


def program() -> str:
    import rerun_cli

    return str(Path(rerun_cli.__file__).with_name("rerun"))


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """In place of the viewer, which needs a screen: the same program, which writes what arrives to `received.rrd`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> "subprocess.Popen[bytes]":
        command = [program(), "--port", str(port), "--bind", "127.0.0.1", "--save", str(tmp_path / "received.rrd")]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    monkeypatch.setattr(module, "_started_viewer", start)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    yield started
    for process in started:
        process.kill()
        process.wait()


def received(folder: Path) -> list[int]:
    """Frames whose depth has arrived at the receiver; none while its file cannot be read."""
    try:
        return sorted(columns(folder / "received.rrd")["/camera/depth"]["frame"])
    except (KeyError, OSError, RuntimeError, ValueError):
        return []


@needs_rerun
def test_a_recording_holds_image_depth_and_camera_on_both_timelines(tmp_path: Path) -> None:
    sink = RerunSink(tmp_path / "new" / "a.rrd")
    sink.open(info(), (HEIGHT, WIDTH))
    camera = Intrinsics(fx=20, fy=21, cx=15, cy=12)
    for index in range(3):
        assert sink.write(*result(index, camera=camera))
    assert not (tmp_path / "new" / "a.rrd").exists()
    sink.finish()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.rrd"]
    found = columns(tmp_path / "new" / "a.rrd")
    for entity in "/camera/image", "/camera/depth":
        assert found[entity]["frame"] == [0, 1, 2]
        assert [seconds(time) for time in found[entity]["time"]] == pytest.approx([0, 0.3, 0.6])
    for index, values in enumerate(depths(found)):
        assert (values[0] == 0).all()  # no answer
        assert (values[1:] == 2 + index).all()
    assert found["/camera/depth"]["DepthImage:meter"] == [[1.0]] * 3
    (matrix,) = found["/camera"]["Pinhole:image_from_camera"]  # once, because it stays the same
    assert np.array_equal(np.reshape(matrix[0], (3, 3)).T, [[20, 0, 15], [0, 21, 12], [0, 0, 1]])
    assert found["/camera"]["Pinhole:resolution"] == [[[WIDTH, HEIGHT]]]
    jpeg = tmp_path / "a.jpg"
    jpeg.write_bytes(bytes(found["/camera/image"]["EncodedImage:blob"][0][0]))
    with Image.open(jpeg) as picture:
        assert np.abs(np.asarray(picture, float) - scene(HEIGHT, WIDTH)).mean() < 8
    assert sink.counters == {"rerun_frames": 3}
    assert sink.notes == []


@needs_rerun
def test_a_run_records_and_writes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = write_video(tmp_path / "clip.mp4", frames=3)
    report = stream.run(clip, rerun=tmp_path / "a.rrd", input_size=64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rrd", "clip.mp4"]
    assert (report.outputs, report.written, report.counters["rerun_frames"]) == ([str(tmp_path / "a.rrd")], 3, 3)
    assert columns(tmp_path / "a.rrd")["/camera/depth"]["frame"] == [0, 1, 2]
    with pytest.raises(OutputError, match="exists"):
        stream.run(clip, rerun=tmp_path / "a.rrd", input_size=64)
    stream.run(clip, rerun=tmp_path / "a.rrd", input_size=64, overwrite=True, max_frames=1)
    assert columns(tmp_path / "a.rrd")["/camera/depth"]["frame"] == [0]
    with pytest.raises(OutputError):
        stream.run(clip, rerun=tmp_path / "clip.mp4" / "a.rrd", input_size=64)


@needs_rerun
def test_a_run_that_fails_keeps_the_partial_recording_and_one_that_wrote_nothing_leaves_none(tmp_path: Path) -> None:
    sink = RerunSink(tmp_path / "a.rrd")
    sink.open(info(), (HEIGHT, WIDTH))
    sink.write(*result(0))
    sink.keep_partial("interrupted")
    assert sink.outputs == [str(tmp_path / "a.partial.rrd")]
    assert columns(tmp_path / "a.partial.rrd")["/camera/depth"]["frame"] == [0]
    other = RerunSink(tmp_path / "folder" / "b.rrd")
    other.open(info(), (HEIGHT, WIDTH))
    other.abort(RuntimeError("nothing came"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.rrd"]


@needs_rerun
def test_a_disk_that_is_full_ends_the_run_with_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rerun writes in native code, so the file is one that no byte fits into."""
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=0))
    sink = RerunSink(tmp_path / "a.rrd", overwrite=True)
    (tmp_path / "a.partial.rrd").symlink_to("/dev/full")

    def record() -> None:  # which of these notices it depends on the version
        sink.open(info(), (HEIGHT, WIDTH))
        sink.write(*result(0))
        sink.finish()

    with pytest.raises(StreamError, match="No space left"):
        record()
    sink.abort(RuntimeError())
    assert list(tmp_path.iterdir()) == []


@needs_rerun
def test_a_viewer_gets_every_frame_of_a_file(
    tmp_path: Path, receiver: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = write_video(tmp_path / "clip.mp4", frames=4)
    notes: list[str] = []
    report = stream.run(clip, rerun=True, input_size=64, on_note=notes.append)
    assert (report.written, report.shown, report.not_shown) == (4, 4, 0)
    assert not (tmp_path / "clip_depth.mp4").exists()
    until(lambda: received(tmp_path) == [0, 1, 2, 3], "every frame")
    assert any("usage statistics are switched off" in note for note in notes)
    assert json.loads((tmp_path / "config" / "rerun" / "analytics.json").read_bytes())["analytics_enabled"] is False


@needs_rerun
def test_a_viewer_that_is_closed_is_noted_once_and_ends_a_run_without_another_output(receiver: list[Any]) -> None:
    sinks = [RerunSink(is_only_output=True), RerunSink()]
    for sink in sinks:
        sink.open(info(is_live=True), (HEIGHT, WIDTH))
        assert sink.write(*result(0))
        with sink._changed:
            sink._await(lambda: sink._shown == 1)  # noqa: B023
        sink._viewer.send_signal(15)  # type: ignore[union-attr]
        sink._viewer.wait()  # type: ignore[union-attr]
        sink._viewer.returncode = 0  # type: ignore[union-attr]  as when its window is closed
        for index in (1, 2):
            sink.poll()
            assert not sink.write(*result(index))
        sink.finish()
        assert len([note for note in sink.notes if "was closed" in note]) == 1
    assert [sink.wants_stop for sink in sinks] == [True, False]


@needs_rerun
def test_a_viewer_that_fails_is_an_error_where_it_is_the_only_output(
    receiver: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.1)
    sink = RerunSink(is_only_output=True)
    sink.open(info(is_live=True), (HEIGHT, WIDTH))
    assert sink.write(*result(0))
    with sink._changed:
        sink._await(lambda: sink._shown == 1)
    receiver[0].kill()
    receiver[0].wait()
    with pytest.raises(SinkError, match="viewer has failed"):
        sink.poll()
    sink.abort(RuntimeError())


@needs_rerun
def test_a_viewer_that_hangs_stops_neither_a_live_run_nor_its_end(
    receiver: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The viewer takes the connection and reads nothing: a queue would fill, and a flush never end."""
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        monkeypatch.setattr(module, "_free_port", lambda: hung.getsockname()[1])
        monkeypatch.setattr(
            module,
            "_started_viewer",
            lambda _port: subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE),
        )
        sink = RerunSink()
        sink.open(info(is_live=True), (HEIGHT, WIDTH))
        for index in range(200):
            sink.write(*result(index))
        sink.finish()
        assert sink._shown < 200
        assert any("viewer" in note and "statistics" not in note for note in sink.notes)
    sink._viewer.communicate()  # type: ignore[union-attr]
    sink._thread.join()  # type: ignore[union-attr]  its connection is refused now


@needs_rerun
def test_usage_statistics_are_switched_off_where_rerun_itself_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "XDG_CONFIG_HOME", "XDG_DATA_HOME":
        monkeypatch.setenv(name, str(tmp_path / name))
    file = tmp_path / "XDG_CONFIG_HOME" / "rerun" / "analytics.json"
    assert str(file) in module.switched_off()
    shown = subprocess.run([program(), "analytics", "config"], capture_output=True, text=True, check=True).stdout
    assert '"analytics_enabled": false' in shown
    made = json.loads(file.read_bytes())
    assert made["analytics_id"] in shown
    file.write_text(json.dumps(made | {"analytics_enabled": True, "metadata": {"email": "a@b.c"}}))
    module.switched_off()
    assert json.loads(file.read_bytes()) == made | {"metadata": {"email": "a@b.c"}}
    before = file.stat().st_mtime_ns
    module.switched_off()
    assert file.stat().st_mtime_ns == before
    file.write_text("damaged")
    module.switched_off()
    assert json.loads(file.read_bytes())["analytics_enabled"] is False


def test_settings_that_cannot_be_written_stop_the_viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("a file")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(SinkError, match="cannot be switched off"):
        module.switched_off()


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingExtraError, match="rerun-sdk is not installed"):
        RerunSink(tmp_path / "a.rrd").open(info(), (HEIGHT, WIDTH))
    Image.fromarray(scene()).save(tmp_path / "a.png")
    assert invoke(["run", str(tmp_path / "a.png"), f"--rerun={tmp_path / 'a.rrd'}", "--input-size", "64", "-q"]) == 2
    (line,) = capsys.readouterr().err.splitlines()  # before any work
    assert "depthstream[rerun]" in line
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@needs_rerun
@pytest.mark.slow
def test_a_recording_sends_nothing_and_leaves_no_identifier(tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "a.png")
    seen = trace("import stream; stream.run('a.png', rerun='a.rrd', input_size=64, offline=True)", tmp_path)
    assert (tmp_path / "a.rrd").stat().st_size > 1000
    assert seen.network == []
    assert seen.written_outside == []
    assert not [path for path in (tmp_path / "home").rglob("*") if "rerun" in path.name]
