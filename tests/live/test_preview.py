"""What a viewer of the preview can do, through a stand-in for the window."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stream
from stream.capture.base import CaptureLog
from stream.errors import SinkError
from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo, SourceKind
from stream.live.actions import HELP, KEYS, Action
from stream.live.preview import REDRAW_S, Preview
from stream.live.view import MESSAGE_S
from stream.live.window import WindowSink
from stream.metrics import Metrics
from stream.render import colormap
from stream.render.layout import GAP_PX, Layout
from stream.render.range import EmaRange, FixedRange
from stream.render.renderer import Renderer
from stream.sinks.video import AudioPolicy, VideoSink
from tests.jobs.test_run import video_times
from tests.support.fakes import ScriptedSource
from tests.support.fakes import frame as scripted_frame

HEIGHT, WIDTH = 96, 128
INFO = SourceInfo(
    name="cam:0", size=(HEIGHT, WIDTH), is_live=True, time_base=Fraction(1, 1000), rate=None, frame_count=None,
    kind=SourceKind.CAMERA,
)  # fmt: skip


def result(index: int = 0, kind: DepthKind = DepthKind.RELATIVE_DISPARITY, model: str = "") -> tuple[Frame, Depth]:
    """A gray picture and depth that grows to the right, from 0 to 1."""
    rgb = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    frame = Frame(index=index, pts=40 * index, time_base=Fraction(1, 1000), captured_at=index * 0.04, rgb=rgb)
    values = np.tile(np.linspace(0, 1, WIDTH, dtype=np.float32), (HEIGHT, 1))
    return frame, Depth(values=values, kind=kind, index=index, model=model)


class FakeWindow:
    """What OpenCvWindow is to WindowSink: shows, and reports what the test typed and clicked."""

    def __init__(self, title: str, size: tuple[int, int]) -> None:
        self.title, self.size = title, size
        self.shown: list[RgbImage] = []
        self.keys: list[str] = []
        self.clicks: list[tuple[int, int]] = []

    def show(self, image: RgbImage) -> bool:
        self.shown.append(image)
        return True

    def poll_key(self) -> int:
        return ord(self.keys.pop(0)) if self.keys else -1

    def poll_clicks(self) -> list[tuple[int, int]]:
        clicks, self.clicks = self.clicks, []
        return clicks

    def is_visible(self) -> bool:
        return True

    def close(self) -> None:
        pass


class Models:
    names = ("one", "two", "three")
    current = 0


class Viewer:
    """A preview in a fake window, with a clock that stands."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.now, self.said = 0.0, list[str]()
        self.renderer = Renderer(layout=Layout.DEPTH, colormap="gray", range_policy=FixedRange(0, 1))
        self.preview = Preview(
            self.renderer, folder=folder, say=self.said.append, clock=lambda: self.now,
            now=lambda: datetime(2026, 11, 23, 14, 5, 9),
            record=lambda path: VideoSink(path, audio=AudioPolicy.NONE), **options,  # type: ignore[arg-type]
        )  # fmt: skip
        made: list[FakeWindow] = []

        def make(title: str, size: tuple[int, int]) -> FakeWindow:
            made.append(FakeWindow(title, size))
            return made[-1]

        self.sink = WindowSink(controls=self.preview, make_window=make)
        self.sink.open(INFO, (1, 1))
        self.window = made[0]
        self.now = 100.0  # the hint to press ? is over

    def see(self, index: int = 0, **options: object) -> bool:
        """Write and poll, as the pipeline does."""
        frame, depth = result(index, **options)  # type: ignore[arg-type]
        shown = self.sink.write(frame, depth, frame.rgb)
        self.sink.poll()
        return shown

    def press(self, *keys: str) -> RgbImage:
        """Type keys, then wait until messages have gone; the picture then on show."""
        self.window.keys += keys
        for _ in keys:
            self.sink.poll()
        self.now += MESSAGE_S
        self.sink.poll()
        return self.window.shown[-1]


@pytest.fixture
def viewer(tmp_path: Path) -> Viewer:
    viewer = Viewer(tmp_path, models=Models())
    viewer.see()
    return viewer


def test_the_window_opens_at_the_previews_own_size(viewer: Viewer) -> None:
    assert viewer.window.size == (HEIGHT, WIDTH)
    assert not viewer.sink.needs_image
    assert viewer.press()[0, -1].tolist() == [255, 255, 255]


def test_the_first_picture_tells_how_to_get_help(tmp_path: Path) -> None:
    viewer = Viewer(tmp_path)
    viewer.now = 0.0
    viewer.see()
    with_hint = viewer.window.shown[-1]
    without = viewer.press()
    assert not np.array_equal(with_hint[-20:], without[-20:])
    assert np.array_equal(with_hint[:40], without[:40])


def test_layouts_follow_each_other_and_change_the_size_at_once(viewer: Viewer) -> None:
    shapes = [viewer.press("l").shape[1] for _ in range(3)]
    assert shapes == [WIDTH, 2 * WIDTH + GAP_PX, WIDTH]  # overlay, side, depth


def test_colormaps_go_round_both_ways(viewer: Viewer) -> None:
    before = viewer.press().copy()
    other = viewer.press("c")
    assert not np.array_equal(before, other)
    assert np.array_equal(viewer.press("C"), before)
    viewer.press("c")
    assert np.array_equal(viewer.press("v"), before)
    assert viewer.renderer.colormap == "gray"


def test_the_overlay_gets_stronger_and_weaker_within_its_limits(viewer: Viewer) -> None:
    viewer.press("l")
    assert viewer.renderer.layout is Layout.OVERLAY
    viewer.press(*"+" * 9)
    assert viewer.renderer.alpha == 1.0
    assert viewer.press()[5, -1].tolist() == [255, 255, 255]
    viewer.press("-", "-")
    assert viewer.renderer.alpha == 0.8
    viewer.press(*"-" * 12)
    assert (viewer.press() == 90).all()
    viewer.press("=")
    assert viewer.renderer.alpha == 0.1


def test_a_frozen_picture_stays_until_it_is_freed(viewer: Viewer) -> None:
    frozen = viewer.press(" ").copy()
    assert viewer.preview.frozen
    assert not viewer.see(1), "counted as not shown"
    assert not viewer.see(2)
    assert np.array_equal(viewer.window.shown[-1], frozen)
    assert not np.array_equal(viewer.press("c"), frozen), "its colours may still be changed"
    viewer.press(" ")
    assert viewer.see(3)


def test_a_snapshot_is_the_picture_without_writing_and_the_raw_depth(viewer: Viewer, tmp_path: Path) -> None:
    viewer.press("h")
    viewer.press("s", "s")
    names = sorted(path.name for path in tmp_path.iterdir())
    stem = "depthstream_20261123-140509"
    assert names == [f"{stem}-2.npy", f"{stem}-2.png", f"{stem}.npy", f"{stem}.png"]
    picture = np.asarray(Image.open(tmp_path / f"{stem}.png"))
    assert np.array_equal(picture, viewer.renderer.render(*result()))
    assert np.array_equal(np.load(tmp_path / f"{stem}.npy"), result()[1].values)
    assert viewer.said[0].startswith("saved ")


def test_a_recording_holds_the_frames_of_its_time_and_ends_with_the_preview(viewer: Viewer, tmp_path: Path) -> None:
    viewer.press("r")
    assert viewer.preview.is_recording
    for index in range(1, 6):
        viewer.see(index)
    viewer.press(" ")
    for index in range(6, 9):
        viewer.see(index)
    assert viewer.window.shown[-1][4, -4].tolist() != [255, 255, 255], "a red dot tells"
    viewer.press("r")
    path = tmp_path / "depthstream_20261123-140509.mp4"
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    assert len(video_times(path)) == 8, "a frozen picture does not stop it"
    viewer.press("r")
    viewer.see(9)
    viewer.sink.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.stem + "-2.mp4", path.name]
    assert [note.split()[0] for note in viewer.said] == ["recorded", "recorded"]


def test_the_next_model_is_asked_for_and_one_model_says_so(viewer: Viewer, tmp_path: Path) -> None:
    for wanted in (1, 2, 0):
        viewer.press("m")
        assert viewer.preview.models is not None
        assert viewer.preview.models.current == wanted
    alone = Viewer(tmp_path)
    alone.see()
    shown = len(alone.window.shown)
    alone.press("m")
    assert len(alone.window.shown) > shown, "a line says what to do"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (DepthKind.METRIC_DEPTH, "0.50 m"),
        (DepthKind.RELATIVE_DISPARITY, "disparity 0.5039"),
        (DepthKind.RELATIVE_DEPTH, "depth 0.5039"),
    ],
)
def test_a_click_tells_the_depth_there_and_follows_it(viewer: Viewer, kind: DepthKind, says: str) -> None:
    viewer.renderer.range_policy = FixedRange(0.1, 20)
    viewer.see(1, kind=kind)
    viewer.window.clicks = [(64, 48)]
    before = viewer.press().copy()
    assert viewer.preview.depth_at_point() == says
    assert (before[48, 60:69] != viewer.renderer.render(*result(kind=kind))[48, 60:69]).any(), "it is marked"
    viewer.press("l", "l")
    assert viewer.renderer.layout is Layout.SIDE
    viewer.window.clicks = [(WIDTH + GAP_PX + 64, 48)]
    viewer.press()
    assert viewer.preview.depth_at_point() == says, "the right pane is the same place"
    viewer.window.clicks = [(WIDTH + 10, 48)]
    viewer.press()
    assert viewer.preview.depth_at_point() is None


def test_a_click_where_there_is_no_answer_says_so(viewer: Viewer) -> None:
    frame, depth = result(1)
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[:, :64] = False
    viewer.preview.show(frame, replace(depth, valid=valid))
    viewer.window.clicks = [(63, 48)]
    viewer.press()
    assert viewer.preview.depth_at_point() == "no answer"
    viewer.window.clicks = [(64, 48)]
    viewer.press()
    assert viewer.preview.depth_at_point() == "disparity 0.5039"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (DepthKind.METRIC_DEPTH, "0.5 to 8 m"),
        (DepthKind.RELATIVE_DISPARITY, "disparity 0.5 to 8"),
        (DepthKind.RELATIVE_DEPTH, "depth 0.5 to 8"),
    ],
)
def test_the_range_is_shown_with_what_it_is(tmp_path: Path, kind: DepthKind, says: str) -> None:
    viewer = Viewer(tmp_path, kind=kind)
    viewer.preview.command("range", "0.5:8")  # before the first image
    viewer.see(1, kind=kind)
    assert dict(viewer.preview.state()["numbers"])["range"] == says
    assert viewer.preview.numbers()[-1].endswith(says)
    nothing = replace(result(2, kind=kind)[1], valid=np.zeros((HEIGHT, WIDTH), bool))
    viewer.preview.command("range", "frame")
    viewer.preview.show(result(2)[0], nothing)
    assert "range" not in dict(viewer.preview.state()["numbers"])


def test_a_fixed_range_ends_with_the_kind_that_it_was_for(viewer: Viewer) -> None:
    viewer.preview.command("range", "0.5:8")
    viewer.see(1)
    assert viewer.preview.state()["range"] == "0.5:8"
    viewer.see(2, kind=DepthKind.METRIC_DEPTH, model="two")
    assert viewer.preview.state()["range"] == "ema"
    assert "0.5:8 was for numbers of another kind" in viewer.preview.state()["message"]


def test_a_range_in_numbers_waits_until_it_is_known_what_they_mean(tmp_path: Path) -> None:
    viewer = Viewer(tmp_path)
    viewer.preview.command("range", "0.5:8")
    assert viewer.preview.state()["range"] == "ema"
    assert "from the first image on" in viewer.preview.state()["message"]


def test_help_and_numbers_can_be_shown_and_hidden(viewer: Viewer) -> None:
    plain = viewer.press().copy()
    for key in "?h":
        assert not np.array_equal(viewer.press(key), plain)
        assert np.array_equal(viewer.press(key), plain)
    assert len(HELP) == len(set(KEYS.values())) + 2
    assert {action.value for action in Action} <= {line[7:] for line in HELP}


def test_the_numbers_are_those_of_the_run(viewer: Viewer) -> None:
    now = [0.0]
    metrics = Metrics(clock=lambda: now[0])
    for step in range(90):
        now[0] = (step + 1) / 30
        metrics.count_captured()
        if step % 3 == 2:
            metrics.count_inferred()
            metrics.record_output(now[0] - (0.2 if step == 89 else 0.05))
        else:
            metrics.drop("model_busy")
    viewer.preview.metrics = metrics
    viewer.preview.log = lambda: CaptureLog(reconnects=2, dropped={"corrupt": 1})
    viewer.see(1, model="starter")
    lines = viewer.preview.numbers()
    assert lines[0] == "camera 30.0 fps  model 10.0 fps  shown 10.0 fps"
    assert lines[1] == "latency 50 ms, 95% below 50 ms"
    assert lines[2] == "dropped 1 corrupt, 60 model busy"
    assert lines[3] == "reconnected 2 times"
    assert lines[4] == "starter  depth  gray  disparity 0 to 1"
    viewer.preview.log = lambda: CaptureLog(waiting="reconnecting (4)")
    assert "reconnecting (4)" in viewer.preview.numbers()


def test_other_keys_do_nothing(viewer: Viewer) -> None:
    before = viewer.press().copy()
    shown = len(viewer.window.shown)
    assert np.array_equal(viewer.press("x", "\t"), before)
    assert len(viewer.window.shown) == shown


def test_a_recording_without_a_picture_leaves_nothing(viewer: Viewer, tmp_path: Path) -> None:
    viewer.press("r")
    viewer.press("r")
    assert list(tmp_path.iterdir()) == []
    viewer.press("r")
    viewer.sink.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_breaks_is_kept_and_told_and_ends_nothing_else(
    viewer: Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer.press("r")
    for index in range(1, 4):
        viewer.see(index)

    def full(*_args: object) -> bool:
        raise SinkError("no space left on device", where="x.mp4")

    monkeypatch.setattr(VideoSink, "write", full)
    assert viewer.see(4)
    assert not viewer.preview.is_recording
    assert "x.mp4: no space left on device" in viewer.said
    viewer.sink.finish()
    (kept,) = tmp_path.iterdir()
    assert kept.name.endswith(".partial.mp4")
    assert len(video_times(kept)) == 3


@pytest.mark.parametrize("key", ["s", "r"])
def test_a_folder_that_cannot_be_written_is_told_and_ends_nothing(tmp_path: Path, key: str) -> None:
    viewer = Viewer(tmp_path / "absent" / "folder")
    (tmp_path / "absent").write_text("a file")
    viewer.see()
    viewer.window.keys.append(key)
    viewer.sink.poll()
    assert len(viewer.said) == 1
    assert viewer.see(1)
    assert not viewer.preview.is_recording


def test_an_outage_is_shown_while_it_lasts(viewer: Viewer) -> None:
    before = viewer.window.shown[-1]
    log = CaptureLog()
    viewer.preview.log = lambda: log
    log.waiting = "reconnecting (1)"
    viewer.sink.poll()
    assert not np.array_equal(viewer.window.shown[-1], before)
    log.waiting = ""
    viewer.sink.poll()
    assert np.array_equal(viewer.window.shown[-1], before)


def test_the_numbers_go_on_while_no_picture_comes(viewer: Viewer) -> None:
    viewer.preview.metrics = Metrics()
    viewer.press("h")
    shown = len(viewer.window.shown)
    for _ in range(4):
        viewer.now += REDRAW_S
        viewer.sink.poll()
    assert len(viewer.window.shown) == shown + 4


def test_a_new_range_reaches_a_frozen_picture(viewer: Viewer) -> None:
    viewer.press(" ")
    before = viewer.window.shown[-1].copy()
    viewer.preview.command("range", "0:100")
    viewer.press("x")
    after = viewer.window.shown[-1]
    assert after.max() < before.max()


def test_a_recording_of_a_file_starts_at_zero(tmp_path: Path) -> None:
    viewer = Viewer(tmp_path)
    viewer.preview.open(replace(INFO, is_live=False, kind=SourceKind.VIDEO))
    for index in range(15000, 15010):
        viewer.see(index)
        if index == 15000:
            viewer.press("r")
    viewer.press("r")
    (path,) = tmp_path.glob("*.mp4")
    assert video_times(path)[0][0] == 0


def test_a_run_that_is_only_previewed_reports_the_scene_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = threading.Semaphore(1)

    class Scenes(ScriptedSource):
        """Four scenes of three frames; each frame waits until the one before was shown, so that none is dropped."""

        def __iter__(self) -> Iterator[Frame]:
            for index in range(12):
                assert shown.acquire(timeout=20)
                blank = scripted_frame(index)
                noise = np.random.default_rng(index // 3).integers(0, 256, (*blank.size, 3), np.uint8)
                yield replace(blank, rgb=noise)

    class Window(FakeWindow):
        def show(self, image: RgbImage) -> bool:
            super().show(image)
            shown.release()
            return True

    monkeypatch.setattr("stream.jobs.opening.open_config_source", lambda _config: Scenes(12, live=True))
    monkeypatch.setattr("stream.live.window.open_window", Window)
    report = stream.run("cam:0")
    assert (report.shown, report.counters.get("scene_cuts")) == (12, 3)


def test_scene_cuts_are_kept_when_a_viewer_changes_the_range() -> None:
    renderer = Renderer(layout=Layout.DEPTH, colormap="gray", range_policy=EmaRange())
    preview = Preview(renderer)
    for scene in range(3):
        still, depth = result(scene)
        noise = np.random.default_rng(scene).integers(0, 256, still.rgb.shape, np.uint8)
        preview.show(replace(still, rgb=noise), depth)
    assert preview.scene_cuts == 2
    preview.command("range", "0:1")
    preview.command("range", "ema")
    assert preview.scene_cuts == 2


def test_a_key_and_a_control_of_the_page_do_the_same(viewer: Viewer) -> None:
    def seen() -> dict[str, object]:
        return {key: value for key, value in viewer.preview.state().items() if key != "latencies_ms"}

    for key, name, value in (
        ("l", "layout", "overlay"),
        ("c", "colormap", colormap.NAMES[(colormap.NAMES.index("gray") + 1) % len(colormap.NAMES)]),
        ("+", "alpha", 0.7),
        ("m", "model", "two"),
        (" ", "freeze", True),
    ):
        before = seen()
        viewer.preview.press(key)
        by_key = seen()
        assert by_key["message"]
        if name == "freeze":
            viewer.preview.command(name, False)
        else:
            viewer.preview.command(name, before[name])
        viewer.preview.command(name, value)
        assert seen() == by_key
