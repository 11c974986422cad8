"""The preview window: with a fake window for the logic, and for real on a virtual display."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from stream.errors import SinkError
from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo, SourceKind
from stream.live.window import WindowSink, check_display
from stream.pipeline.runner import Pipeline, Progress
from stream.sinks.base import Sink
from tests.support.fakes import ScriptedInference, ScriptedRenderer, ScriptedSource
from tests.support.paths import REPOSITORY
from tests.support.virtual_display import virtual_display

SIZE = (24, 32)
INFO = SourceInfo(
    name="t", size=SIZE, is_live=True, time_base=Fraction(1, 25), rate=None, frame_count=None, kind=SourceKind.CAMERA
)
FRAME = Frame(index=0, pts=0, time_base=Fraction(1, 25), captured_at=0.0, rgb=np.zeros((*SIZE, 3), np.uint8))
DEPTH = Depth(values=np.zeros(SIZE, np.float32), kind=DepthKind.RELATIVE_DISPARITY, index=0)
IMAGE = np.full((*SIZE, 3), (250, 120, 10), np.uint8)


class FakeWindow:
    def __init__(self, title: str, size: tuple[int, int]) -> None:
        self.title, self.size = title, size
        self.shown: list[RgbImage] = []
        self.keys: list[int] = []
        self.polls = 0
        self.visible, self.closed = True, 0

    def show(self, image: RgbImage) -> None:
        self.shown.append(image)

    def poll_key(self) -> int:
        self.polls += 1
        return self.keys.pop(0) if self.keys else -1

    def is_visible(self) -> bool:
        return self.visible

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def opened() -> tuple[WindowSink, FakeWindow]:
    made: list[FakeWindow] = []

    def make(title: str, size: tuple[int, int]) -> FakeWindow:
        made.append(FakeWindow(title, size))
        return made[-1]

    sink = WindowSink("look", make_window=make)
    sink.open(INFO, SIZE)
    return sink, made[0]


def test_shows_every_picture_and_closes(opened: tuple[WindowSink, FakeWindow]) -> None:
    sink, window = opened
    assert (window.title, window.size) == ("look", SIZE)
    assert not sink.is_lossless
    assert sink.outputs == ["window 'look'"]
    assert sink.write(FRAME, DEPTH, IMAGE)
    assert sink.write(FRAME, DEPTH, IMAGE)
    assert len(window.shown) == 2
    assert not sink.wants_stop
    sink.finish()
    sink.abort(RuntimeError())
    assert window.closed == 1
    assert not sink.write(FRAME, DEPTH, IMAGE)


@pytest.mark.parametrize("key", [27, ord("q"), ord("Q")])
def test_key_asks_for_the_end(opened: tuple[WindowSink, FakeWindow], key: int) -> None:
    sink, window = opened
    window.keys = [ord("x"), key]
    assert sink.write(FRAME, DEPTH, IMAGE)
    sink.poll()
    assert not sink.wants_stop
    assert sink.write(FRAME, DEPTH, IMAGE)
    sink.poll()
    assert sink.wants_stop
    assert not sink.write(FRAME, DEPTH, IMAGE)
    assert len(window.shown) == 2
    sink.keep_partial("stopped")
    assert window.closed == 1


def test_closing_the_window_asks_for_the_end(opened: tuple[WindowSink, FakeWindow]) -> None:
    sink, window = opened
    window.visible = False
    sink.poll()
    assert sink.wants_stop


def test_a_run_polls_the_window_once_a_frame_and_while_it_waits() -> None:
    made: list[FakeWindow] = []
    rounds = 0

    def make(title: str, size: tuple[int, int]) -> FakeWindow:
        made.append(FakeWindow(title, size))
        return made[-1]

    def look(_progress: Progress) -> None:
        nonlocal rounds
        rounds += 1

    sinks: list[Sink] = [WindowSink(make_window=make)]
    Pipeline(ScriptedSource(12), ScriptedInference(), ScriptedRenderer(), sinks, on_progress=look).run()
    assert len(made[0].shown) == 12
    assert made[0].polls == rounds >= 12


def test_abort_before_open_is_fine() -> None:
    WindowSink().abort(RuntimeError())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a window needs no display variable")
@pytest.mark.parametrize("display", [None, "", ":987"])
def test_without_a_display_the_error_names_the_alternatives(
    monkeypatch: pytest.MonkeyPatch, display: str | None
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    before = threading.active_count()
    with pytest.raises(SinkError) as caught:
        WindowSink().open(INFO, SIZE)
    assert "-o FILE" in str(caught.value)
    assert "--save" in str(caught.value)
    assert threading.active_count() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a window needs no display variable")
def test_a_display_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DISPLAY", f"127.0.0.1:{silent.getsockname()[1] - 6000}")  # display n is TCP port 6000 + n
        with pytest.raises(SinkError, match="does not answer"):
            check_display(timeout_s=1)


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with virtual_display(800, 600) as name:
        yield name


# In a process of its own, because Qt stays loaded. It asks for `av` first: stream.media must order the imports, or the
# first picture is never shown.
PREVIEW = """
import sys
sys.path.insert(0, sys.argv[1])
from stream.media import av
from tests.live.test_window import DEPTH, FRAME, IMAGE, INFO, SIZE
from stream.live.window import WindowSink
sink = WindowSink("depthstream test")
sink.open(INFO, SIZE)
shown = 0
while not sink.wants_stop:
    shown += sink.write(FRAME, DEPTH, IMAGE)
    sink.poll()
    if shown == 5:
        print("ready", flush=True)
sink.finish()
print("stopped", flush=True)
"""


def find_window(x: Any) -> Any:
    (window,) = (w for w in x.screen().root.query_tree().children if w.get_wm_name() == "depthstream test")
    return window


def colour_on_screen(x: Any, window: Any) -> tuple[int, ...]:
    place = window.get_geometry()
    centre = (place.x + place.width // 2, place.y + place.height // 2)
    pixel = x.screen().root.get_image(*centre, 1, 1, 2, 0xFFFFFF)  # 2 is ZPixmap
    return tuple(pixel.data[2::-1])  # the screen is 24-bit BGR


def stop(x: Any, window: Any, how: str) -> None:
    from Xlib import XK
    from Xlib.protocol import event

    if how == "close":
        data = (32, [x.intern_atom("WM_DELETE_WINDOW"), 0, 0, 0, 0])
        window.send_event(event.ClientMessage(window=window, client_type=x.intern_atom("WM_PROTOCOLS"), data=data))
    else:
        code = x.keysym_to_keycode(XK.string_to_keysym(how))
        places = dict.fromkeys(["root_x", "root_y", "event_x", "event_y", "state", "time", "child"], 0)
        root = x.screen().root
        window.send_event(event.KeyPress(detail=code, window=window, root=root, same_screen=1, **places))
    x.sync()


@pytest.mark.parametrize("how", ["Escape", "q", "close"])
def test_real_window_shows_and_stops(display: str, how: str) -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("Xlib", reason="needs python-xlib")
    from Xlib.display import Display

    command = [sys.executable, "-c", PREVIEW, str(REPOSITORY)]
    with (
        subprocess.Popen(
            command,
            env={**os.environ, "DISPLAY": display},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child,
        contextlib.closing(Display(display)) as x,
    ):
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            window = find_window(x)
            expected = (250, 120, 10)
            give_up_s, seen = time.monotonic() + 20, colour_on_screen(x, window)
            while seen != expected and time.monotonic() < give_up_s:
                seen = colour_on_screen(x, window)
            assert seen == expected, "the picture was never painted"
            stop(x, window, how)
            out, err = child.communicate(timeout=30)
        finally:
            child.kill()
    assert (out, err, child.returncode) == ("stopped\n", "", 0)
