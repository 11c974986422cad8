"""Runs of several live sources: real servers and patterns, and what becomes of each when another one fails."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from stream.cli.configfile import load
from stream.cli.main import invoke
from stream.config import CaptureConfig, Config
from stream.errors import ConfigError, OutputError, SinkError, StreamError, UsageError
from stream.infer.engine import Engine
from stream.jobs.each_source import config_of_one
from stream.jobs.models import make_engine
from stream.jobs.options import build, from_options
from stream.jobs.report import ReportOfSeveral
from stream.jobs.run import run_config
from stream.jobs.several import Part, _most_together, run_several
from stream.media import av
from stream.metrics import Outcome
from tests.support.media_files import number_of, numbered, write_video
from tests.support.servers import (
    Talk,
    refused_port,
    send_in_steps,
    send_then_close,
    stay_silent,
    tcp_server,
)
from tests.support.tiny_model import loaded

SIZE = (48, 64)
FRAMES = 24
SHORT_S = 0.4
FAST = {"camera_size": (64, 48), "camera_fps": 200}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Four clips whose frames show different numbers: 0 to 23, 60 to 83, 120 to 143, 180 to 203."""
    folder, found = tmp_path_factory.mktemp("clips"), []
    for source in range(4):
        path = folder / f"{source}.ts"
        write_video(
            path, size_hw=SIZE, frames=FRAMES, gop=2, draw=lambda index, size, n=60 * source: numbered(n + index, size)
        )
        found.append(path.read_bytes())
    return found


@pytest.fixture
def one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of one layer instead of the starter, in an engine as real as the starter's: for a tenth of its time."""

    def load(config: Config, *, exact: bool, **_more: Any) -> Engine:
        return make_engine(config, loaded(), backend="torch", exact=exact)

    monkeypatch.setattr("stream.jobs.several.load_engine", load)


def steps(data: bytes) -> Talk:
    """Half a second's worth, after enough to open it."""
    return send_in_steps(data, first=len(data) // 3, step=len(data) // 36, every_s=0.02)


class Falling:
    """A sender that repeats its clip until something of it was written, and then falls silent."""

    def __init__(self, data: bytes) -> None:
        self.data, self.was_seen = data, threading.Event()

    def talk(self, connection: socket.socket, stopped: threading.Event) -> None:
        while not self.was_seen.is_set() and not stopped.is_set():
            for start in range(0, len(self.data), 1316):
                connection.sendall(self.data[start : start + 1316])
                self.was_seen.wait(0.01)
        connection.recv(1)  # until the client has gone

    def look(self, parts: Sequence[Part]) -> None:
        if parts[0].progress is not None and parts[0].progress.metrics.written:
            self.was_seen.set()


@contextmanager
def served(*talks: Talk | Sequence[Talk]) -> Iterator[list[str]]:
    """A server for each source, with a talk for each of its connections."""
    with ExitStack() as stack:
        each = [talk if isinstance(talk, Sequence) else [talk] for talk in talks]
        yield [f"tcp://127.0.0.1:{stack.enter_context(tcp_server(*own))}" for own in each]


def config_of(sources: Sequence[str], **options: Any) -> Config:
    options = {"layout": "side", "reconnect_for": 0, "preview": "off", **options}
    return from_options(None, options, base={"sources": list(sources)})


def numbers_in(path: Path | str) -> list[int]:
    """What the left half of each picture shows."""
    with av.open(str(path)) as container:
        return [number_of(frame.to_ndarray(format="rgb24")[:, : SIZE[1]]) for frame in container.decode(video=0)]


def assert_own(numbers: Sequence[int], source: int) -> None:
    """The frames of one source and no other, in order."""
    assert numbers
    assert list(numbers) == sorted(set(numbers))
    assert set(numbers) <= set(range(60 * source, 60 * source + FRAMES))


def assert_adds_up(report: ReportOfSeveral) -> None:
    for one in report.sources:
        assert one.captured == one.written + sum(one.dropped.values()) + len(one.skipped)


def test_four_sources_give_four_files_with_their_own_frames(clips: list[bytes], tmp_path: Path) -> None:
    options: Any = {"save": ["npy"], "precision": "fp32", "backend": "torch"}
    clip = tmp_path / "clip.ts"
    clip.write_bytes(clips[1])
    run_config(from_options(str(clip), {**options, "output": tmp_path / "alone", "picture": "none"}))
    parts: list[Sequence[Part]] = []
    with served(*map(steps, clips)) as urls:
        config = config_of(urls, output=tmp_path / "out", report=tmp_path / "report.json", **options)
        report = run_several(config, on_parts=parts.append)
    assert (report.exit_code, report.names) == (0, urls)
    assert_adds_up(report)
    for source, one in enumerate(report.sources):
        video = tmp_path / "out" / f"{urls[source].removeprefix('tcp://').replace(':', '_')}.mp4"
        assert str(video) in one.outputs
        numbers, depth = numbers_in(video), sorted(video.with_name(f"{video.stem}_depth").glob("*.npy"))
        assert_own(numbers, source)
        assert len(numbers) == len(depth) == one.written
        if source == 1:
            for number, path in zip(numbers, depth, strict=True):
                expected = np.load(tmp_path / "alone" / f"{number - 60:06}.npy")
                np.testing.assert_allclose(np.load(path), expected, rtol=1e-4, atol=1e-4)
    assert len(list((tmp_path / "out").iterdir())) == 8
    written = json.loads((tmp_path / "report.json").read_text())
    assert [one["name"] for one in written["sources"]] == urls
    assert [one["written"] for one in written["sources"]] == [one.written for one in report.sources]
    assert {part.state for part in parts[0]} <= {"opening", "live"}


@pytest.mark.usefixtures("one_layer")
def test_a_source_that_fails_leaves_the_others_alone(clips: list[bytes], tmp_path: Path) -> None:
    said, falling = list[str](), Falling(clips[0])
    with served(falling.talk, steps(clips[1]), steps(clips[2])) as urls:
        urls.append(f"tcp://127.0.0.1:{refused_port()}")
        config = config_of(urls, output=tmp_path, read_timeout_s=SHORT_S)
        report = run_several(config, on_note=said.append, on_parts=falling.look)
    outcomes = [one.outcome for one in report.sources]
    assert outcomes == [Outcome.FAILED, Outcome.DONE, Outcome.DONE, Outcome.FAILED]
    assert report.exit_code == 3
    for source in (1, 2):
        assert_own(numbers_in(report.sources[source].outputs[0]), source)
    (partial,) = report.sources[0].outputs
    assert partial.endswith(".partial.mp4")
    assert set(numbers_in(partial)) <= set(range(FRAMES))
    assert "no data for 0.4 s" in (report.sources[0].error or "")
    assert report.sources[3].outputs == []
    assert [text for text in said if text.startswith(f"{urls[0]}: failed: ")]
    assert [text for text in said if text.startswith(f"{urls[3]}: failed: ")]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_an_output_that_cannot_be_finished_is_no_concern_of_the_other(clips: list[bytes], tmp_path: Path) -> None:
    is_taken = threading.Event()

    def repeat_until_taken(connection: socket.socket, stopped: threading.Event) -> None:
        while not is_taken.is_set() and not stopped.is_set():
            steps(clips[0])(connection, stopped)

    with served(repeat_until_taken, steps(clips[1])) as urls:
        name = urls[0].removeprefix("tcp://").replace(":", "_")

        def take_its_name(parts: Sequence[Part]) -> None:
            if parts[0].progress is not None and parts[0].progress.metrics.written:
                (tmp_path / f"{name}.mp4").mkdir(exist_ok=True)
                is_taken.set()

        report = run_several(config_of(urls, output=tmp_path), on_parts=take_its_name)
    assert [one.outcome for one in report.sources] == [Outcome.FAILED, Outcome.DONE]
    assert_own(numbers_in(report.sources[1].outputs[0]), 1)


def test_a_camera_that_is_absent_fails_alone(tmp_path: Path) -> None:
    said, cameras = list[str](), ["999998", "999998", "/dev/video999998"]
    config = config_of([*cameras, "pattern:testsrc2"], output=tmp_path, max_frames=3, **FAST)
    report = run_several(config, on_note=said.append)
    assert [one.outcome for one in report.sources] == [*[Outcome.FAILED] * 3, Outcome.DONE]
    assert all("camera" in (one.error or "") for one in report.sources[:3])
    for name in ("999998", "999998 (2)", "/dev/video999998"):
        (failure,) = (text for text in said if text.startswith(f"{name}: failed: "))
        assert failure.removeprefix(f"{name}: failed: ").startswith("no "), "the source is named once"
    assert [path.name for path in tmp_path.iterdir()] == ["testsrc2.mp4"]


@pytest.mark.usefixtures("one_layer")
def test_all_failing_is_a_failure(tmp_path: Path) -> None:
    urls = [f"tcp://127.0.0.1:{refused_port()}" for _ in range(2)]
    report = run_several(config_of(urls, output=tmp_path))
    assert (report.exit_code, [one.outcome for one in report.sources]) == (1, [Outcome.FAILED] * 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("one_layer")
def test_one_connects_again_while_the_other_goes_on(clips: list[bytes], tmp_path: Path) -> None:
    falling = Falling(clips[0])
    with served([falling.talk, steps(clips[0])], steps(clips[1])) as urls:
        options: Any = {"read_timeout_s": SHORT_S, "reconnect_for": 20}
        said = list[str]()
        config = config_of(urls, output=tmp_path, **options)
        report = run_several(config, on_parts=falling.look, on_note=said.append)
    assert report.exit_code == 0
    assert [one.counters.get("reconnects", 0) for one in report.sources] == [1, 0]
    assert [text for text in said if text.startswith(f"{urls[0]}: interrupted (")]
    again = numbers_in(report.sources[0].outputs[0])
    assert set(again) <= set(range(FRAMES))
    assert_own(numbers_in(report.sources[1].outputs[0]), 1)


@pytest.mark.usefixtures("one_layer")
def test_a_slow_source_holds_no_other_one(clips: list[bytes], tmp_path: Path) -> None:
    """One sends nothing but its beginning until the other has ended."""
    other_ended = threading.Event()

    def slow(connection: socket.socket, _stopped: threading.Event) -> None:
        connection.sendall(clips[0][: len(clips[0]) // 2])
        assert other_ended.wait(20)
        connection.sendall(clips[0][len(clips[0]) // 2 :])

    def look(parts: Sequence[Part]) -> None:
        if parts[1].state == "done":
            other_ended.set()

    with served(slow, steps(clips[1])) as urls:
        report = run_several(config_of(urls, output=tmp_path), on_parts=look)
    assert report.exit_code == 0
    assert other_ended.is_set()
    for source, one in enumerate(report.sources):
        assert_own(numbers_in(one.outputs[0]), source)


def run_until_interrupted(config: Config, *, opening: int = 0) -> ReportOfSeveral:
    """Ctrl-C once every source but `opening` of them has written something."""
    sent: list[bool] = []

    def look(parts: Sequence[Part]) -> None:
        ready = sum(part.progress is not None and part.progress.metrics.written > 1 for part in parts)
        if ready == len(parts) - opening and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    return run_several(config, on_parts=look)


@pytest.mark.usefixtures("one_layer")
def test_ctrl_c_ends_all_in_order(tmp_path: Path) -> None:
    report = run_until_interrupted(config_of(["pattern:testsrc2", "pattern:mandelbrot"], output=tmp_path, **FAST))
    assert (report.exit_code, [one.outcome for one in report.sources]) == (0, [Outcome.DONE] * 2)
    assert_adds_up(report)
    for name, one in zip(("testsrc2", "mandelbrot"), report.sources, strict=True):
        assert one.outputs == [str(tmp_path / f"{name}.mp4")]
        with av.open(one.outputs[0]) as container:
            assert len(list(container.decode(video=0))) == one.written


def test_a_run_that_fails_as_a_whole_is_reported(tmp_path: Path) -> None:
    def lose_the_display(parts: Sequence[Part]) -> None:
        has_written = parts[0].progress is not None and parts[0].progress.metrics.written
        if has_written and parts[1].state == "failed":
            raise SinkError("the display was lost", where="preview")

    options: Any = {"output": tmp_path / "out", "report": tmp_path / "report.json", **FAST}
    with pytest.raises(SinkError):
        run_several(config_of(["pattern:testsrc2", "999998"], **options), on_parts=lose_the_display)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["error"], report["exit_code"]) == ("preview: the display was lost", 1)
    assert [one["outcome"] for one in report["sources"]] == ["failed", "failed"]
    (partial,) = report["sources"][0]["outputs"]
    with av.open(partial) as container:
        assert len(list(container.decode(video=0))) == report["sources"][0]["written"] > 0


def test_a_page_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        serve = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StreamError) as caught:
            run_several(config_of(["999998", "999998"], serve=serve, report=tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["error"], report["exit_code"]) == (str(caught.value), 1)
    assert [(one["outcome"], one["abandoned"]) for one in report["sources"]] == [("interrupted", [])] * 2


@pytest.mark.slow
def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def look(parts: Sequence[Part]) -> None:
        if all(part.progress is not None and part.progress.metrics.written > 1 for part in parts):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    config = config_of(["pattern:testsrc2", "pattern:mandelbrot"], output=tmp_path, **FAST)
    with pytest.raises(KeyboardInterrupt):
        run_several(config, on_parts=look, on_note=said.append)
    assert signal.getsignal(signal.SIGINT) is before
    assert [text for text in [*said, caplog.text] if "pattern:" in text] == [], "no source has failed"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("depthstream-")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mandelbrot.partial.mp4", "testsrc2.partial.mp4"]
    for path in tmp_path.iterdir():
        with av.open(str(path)) as container:
            assert len(list(container.decode(video=0))) > 1


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_source_that_does_not_answer(tmp_path: Path) -> None:
    with served(stay_silent) as urls:
        options: Any = {"output": tmp_path, "open_timeout_s": 2.5, **FAST}
        report = run_until_interrupted(config_of(["pattern:testsrc2", *urls], **options), opening=1)
        assert [one.outcome for one in report.sources] == [Outcome.DONE, Outcome.INTERRUPTED]
        assert (report.exit_code, len(report.sources[1].abandoned)) == (3, 1)
        for thread in threading.enumerate():
            if thread.name in ("depthstream-open", *report.sources[1].abandoned):
                thread.join(10)
    assert [path.name for path in tmp_path.iterdir()] == ["testsrc2.mp4"]


def test_each_source_has_the_options_of_a_run(tmp_path: Path) -> None:
    sources = ["pattern:testsrc2", "pattern:mandelbrot", "pattern:testsrc2"]
    options: Any = {
        "max_frames": 12,
        "steady": True,
        "save": ["npy", "video16"],
        "depth_codec": "float32",
        "refine": True,
        **FAST,
    }
    report = run_several(config_of(sources, output=tmp_path, **options))
    assert report.exit_code == 0
    assert report.names == ["pattern:testsrc2", "pattern:mandelbrot", "pattern:testsrc2 (2)"]
    assert all(len(one.depth_change) == 1 for one in report.sources), "measured for each"
    names = {path.name for path in tmp_path.iterdir()}
    for stem in ("testsrc2", "mandelbrot", "testsrc2-2"):
        assert {f"{stem}.mp4", f"{stem}_depth", f"{stem}.depth.mkv"} <= names


def test_an_option_of_one_kind_of_source_applies_to_that_kind_only() -> None:
    options: Any = {"camera_fourcc": "MJPG", "camera_size": (64, 48), "live": True, "hwaccel": "auto"}

    def of_each(*sources: str) -> list[tuple[object, ...]]:
        config = config_of(sources, output="out", **options)
        each = [config_of_one(config, number, sources).capture for number in range(len(sources))]
        return [(one.camera_fourcc, one.camera_size, one.live, one.hwaccel) for one in each]

    untouched = CaptureConfig()
    camera, pattern, network = of_each("0", "pattern:testsrc", "rtsp://host/a")
    assert camera == ("MJPG", (64, 48), untouched.live, untouched.hwaccel)
    assert pattern == (None, (64, 48), untouched.live, untouched.hwaccel)
    assert network == (None, None, "live", "auto")
    (alone,) = of_each("pattern:testsrc")
    assert alone == ("MJPG", (64, 48), "live", "auto"), "nothing else takes them: a note or an error says so"


def test_the_sources_share_the_memory_of_the_run(tmp_path: Path) -> None:
    options: Any = {"camera_size": (1200, 1000), "max_frames": 1, "layout": "depth"}

    def run(count: int, memory: str) -> ReportOfSeveral:
        config = config_of(["pattern:testsrc2"] * count, output=tmp_path / memory, max_memory=memory, **options)
        return run_several(config)

    report = run(2, "1G")
    assert (report.exit_code, [one.outcome for one in report.sources]) == (1, [Outcome.FAILED] * 2)
    error = report.sources[1].error or ""
    assert "takes 0.3 GB of memory (allowed: up to 0.2 GB for each of 2 sources); set --max-memory 1." in error
    assert run(2, error.partition("--max-memory ")[2].split()[0]).exit_code == 0


@pytest.mark.parametrize(
    ("sources", "options", "flag"),
    [
        (["0", "1"], {"model": ("starter", "dav2-small")}, "-m several times"),
        (["0", "1"], {"target_fps": 20}, "--target-fps"),
        (["0", "1"], {"virtual_camera": True}, "--virtual-camera"),
        (["0", "1"], {"rerun": True}, "--rerun"),
        (["0", "1"], {"resume": True}, "--resume"),
        (["0", "1"], {"output": "out.mp4"}, "-o out.mp4"),
        (["0", "1"], {"output": "-"}, "-o -"),
        (["0", "1"], {"output": "rtmp://host/x"}, "-o rtmp://host/x"),
        (["0", "1"], {"save": ["npy"], "preview": "window"}, "--save"),
        (["pattern:testsrc", "pattern:nothing"], {"preview": "window"}, "pattern:nothing"),
        (["pattern:testsrc"] * 2, {"range": "clip", "preview": "window"}, "--range"),
        (["pattern:testsrc"] * 2, {"temporal": "window", "preview": "window"}, "--temporal window"),
        (["pattern:testsrc"] * 2, {"colormap": "nothing", "preview": "window"}, "nothing"),
        (["pattern:testsrc", "clip.mp4"], {"preview": "window"}, "clip.mp4"),
        (["pattern:testsrc"] * 2, {}, "nothing would be written or shown"),
        (["pattern:testsrc"] * 2, {"start": 3, "preview": "window"}, "--start"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_before_anything(
    sources: list[str], options: dict[str, Any], flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stream.jobs.several.load_engine", lambda *_args, **_: pytest.fail("a model was loaded"))
    with pytest.raises(UsageError, match=flag.replace(".", r"\.")):
        run_several(config_of(sources, **options))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_and_no_other_is_touched(tmp_path: Path) -> None:
    (tmp_path / "testsrc2.mp4").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"testsrc2\.mp4: the file exists"):
        run_several(config_of(["pattern:mandelbrot", "pattern:testsrc2"], output=tmp_path, **FAST))
    assert [path.name for path in tmp_path.iterdir()] == ["testsrc2.mp4"]


@pytest.mark.usefixtures("one_layer")
def test_secrets_of_a_url_go_into_no_name_and_no_report(clips: list[bytes], tmp_path: Path) -> None:
    with served(send_then_close(clips[0])) as (url,):
        secret = url.replace("tcp://", "tcp://me:hunter2@") + "/cam?token=hunter3"
        said: list[str] = []
        report = run_several(config_of([secret, "pattern:testsrc"], output=tmp_path,
                                       max_frames=3, **FAST), on_note=said.append)  # fmt: skip
    everything = json.dumps(report.to_dict()) + " ".join([*said, *(path.name for path in tmp_path.iterdir())])
    assert "hunter" not in everything


@pytest.mark.usefixtures("one_layer")
def test_a_file_among_network_sources_is_named(clips: list[bytes], tmp_path: Path) -> None:
    from tests.support.servers import Answer, HttpServer

    clip = write_video(tmp_path / "clip.mp4", frames=5, mux_options={"movflags": "faststart"})
    with HttpServer({"/clip.mp4": Answer(clip.read_bytes())}) as server, served(steps(clips[0])) as urls:
        report = run_several(config_of([server.url(), *urls], output=tmp_path / "out"))
    assert [one.outcome for one in report.sources] == [Outcome.FAILED, Outcome.DONE]
    assert "is a file, not a live stream" in (report.sources[0].error or "")


@pytest.mark.parametrize(
    ("given", "on_cuda", "on_cpu"), [([], 3, 1), (["--batch", "1"], 1, 1), (["--batch", "2"], 2, 2)]
)
def test_a_batch_that_is_given_holds_on_every_device(
    given: list[str], on_cuda: int, on_cpu: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also through a config that was printed."""
    assert invoke(["run", "0", "1", "2", *given, "--print-config"]) == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    config = build(load(tmp_path / "c.yaml"), where="c.yaml")
    assert [_most_together(config, 3, device) for device in ("cuda", "cpu")] == [on_cuda, on_cpu]


def test_sources_are_a_key_of_a_config_and_run_needs_them_or_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(
        "sources: [pattern:testsrc2, pattern:mandelbrot]\n"
        "capture: {max_frames: 4, camera_size: [64, 48]}\noutput: {path: out, quiet: true}\n"
    )
    assert invoke(["run", "--config", "c.yaml", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in printed["sources"]] == ["pattern:testsrc2", "pattern:mandelbrot"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["mandelbrot.mp4", "testsrc2.mp4"]

    assert invoke(["run", "--config", "c.yaml", "pattern:testsrc", "--print-config"]) == 0
    out = capsys.readouterr().out
    assert ("source: pattern:testsrc\n" in out, "sources: []" in out) == (True, True), "arguments replace the file's"
    with pytest.raises(ConfigError, match="cannot be given together with source"):
        Config(source="0", sources=("1", "2"))
    with pytest.raises(StreamError, match="only one source can be read here"):
        run_config(Config(sources=("0", "1")))


def test_the_command_reports_each_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = f"tcp://127.0.0.1:{refused_port()}"
    arguments = ["run", "pattern:testsrc2", gone, "--camera-size", "64x48", "--max-frames", "4", "-o", str(tmp_path)]
    assert invoke(arguments) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("pattern:testsrc2: done: ")]
    assert [line for line in lines if line.startswith(f"{gone}: failed after 0 frames")]
    assert invoke(["run", gone, gone, "-q", "-o", str(tmp_path / "b")]) == 1
    first, second, all_of_them = capsys.readouterr().err.splitlines()
    assert first == f"depthstream: {gone}: cannot be opened: Connection refused"
    assert second.startswith(f"depthstream: {gone} (2): cannot be opened")
    assert all_of_them == "depthstream: every source failed"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "0", "clip.mp4"],
        ["run", "rtsp://host/a", "--serve", "9000"],
        ["run", "0", "--serve-token", "12345678"],
        ["run", "0", "--serve-token", "geheimwort"],
    ],
)
def test_a_word_that_is_no_live_source_is_refused_and_no_token_is_shown(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments) == 2
    error = capsys.readouterr().err
    assert "12345678" not in error
    assert "geheimwort" not in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    process, used = psutil.Process(), dict[int, int]()

    def look(parts: Sequence[Part]) -> None:
        done = min(part.progress.metrics.delivered if part.progress is not None else 0 for part in parts)
        used.setdefault(done // 100, process.memory_info().rss)

    sources = ["pattern:testsrc2", "pattern:mandelbrot", "pattern:testsrc", "pattern:smptebars"]
    options: Any = {"camera_fps": 60, "max_frames": 900, "steady": True}
    report = run_several(config_of(sources, output=tmp_path, **options), on_parts=look)
    assert report.exit_code == 0
    assert used[max(used)] - used[3] < 30_000_000
