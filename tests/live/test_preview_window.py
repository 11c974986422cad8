"""The preview as a person uses it: the command, a real window on a virtual display, real keys and clicks."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream.capture.open import open_source
from stream.live.grid import CELL_HW
from stream.media import av
from tests.support.paths import REPOSITORY
from tests.support.virtual_display import virtual_display
from tests.support.waiting import WAIT_S, until

if not os.environ.get("CI"):  # there, a missing tool is a failure
    pytest.importorskip("Xlib", reason="needs python-xlib")


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with virtual_display(1600, 900) as name:
        yield name


class Screen:
    """The window of the preview: what it shows, and hands to use it with."""

    def __init__(self, name: str) -> None:
        from Xlib.display import Display

        self.x = Display(name)
        try:
            self.window = until(self._find, "the window")
        except BaseException:
            self.x.close()
            raise

    def _find(self) -> Any:
        for window in self.x.screen().root.query_tree().children:
            with contextlib.suppress(Exception):  # windows come and go
                if window.get_wm_name() == "depthstream" and window.get_attributes().map_state:
                    return window
        return None

    def picture(self) -> NDArray[np.uint8]:
        """The window's pixels, RGB."""
        place = self.window.get_geometry()
        data = self.x.screen().root.get_image(place.x, place.y, place.width, place.height, 2, 0xFFFFFF).data  # ZPixmap
        return np.frombuffer(data, np.uint8).reshape(place.height, place.width, 4)[..., 2::-1]

    def press(self, keysym: str, *, shift: bool = False) -> None:
        """One key with the window in focus, as fast as a person types: Qt keeps only the last of several."""
        from Xlib import XK, X
        from Xlib.protocol import event

        time.sleep(0.2)
        code = self.x.keysym_to_keycode(XK.string_to_keysym(keysym))
        places = dict.fromkeys(["root_x", "root_y", "event_x", "event_y", "time", "child"], 0)
        for kind in (event.KeyPress, event.KeyRelease):
            self.window.send_event(
                kind(
                    detail=code, window=self.window, root=self.x.screen().root, same_screen=1,
                    state=X.ShiftMask if shift else 0, **places,
                )
            )  # fmt: skip
        self.x.sync()

    def click(self, x: int, y: int) -> None:
        """The left button, at a pixel of the window."""
        from Xlib import X
        from Xlib.ext import xtest

        place = self.window.get_geometry()
        xtest.fake_input(self.x, X.MotionNotify, x=place.x + x, y=place.y + y)
        for kind in (X.ButtonPress, X.ButtonRelease):
            xtest.fake_input(self.x, kind, 1)
        self.x.sync()

    def close(self) -> None:
        self.x.close()


@contextlib.contextmanager
def previewing(display: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, with its window on the display."""
    command = [sys.executable, "-c", "from stream.cli.main import main; main()", "run", *arguments, "-q"]
    environment = {**os.environ, "DISPLAY": display, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def child(display: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with previewing(display, tmp_path, "pattern:testsrc2", "--layout", "side", "--input-size", "64") as process:
        yield process


def differs(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    if a.shape != b.shape:  # the window has just opened, or was resized
        return 255.0
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.slow
def test_a_person_at_the_window(child: subprocess.Popen[str], display: str, tmp_path: Path) -> None:
    screen = Screen(display)

    def saved(suffix: str, count: int) -> list[Path]:
        return until(lambda: len(f := sorted(tmp_path.glob(f"*{suffix}"), key=os.path.getmtime)) == count and f, suffix)

    def snapshot(count: int) -> NDArray[np.uint8]:
        """Press s; the picture it saved."""
        screen.press("s")
        saved(".npy", count)
        return cv2.cvtColor(cv2.imread(str(saved(".png", count)[-1])), cv2.COLOR_BGR2RGB)

    def still() -> bool:
        now = screen.picture()
        time.sleep(0.3)  # several pictures of a moving one
        return differs(screen.picture(), now) == 0

    try:
        until(lambda: screen.picture().std() > 30, "a picture")
        until(lambda: not still(), "the picture to move")

        screen.press("Left")  # its keysym ends in the code of Q
        screen.press("space")
        until(still, "the picture to freeze")
        side = snapshot(1)
        assert side.shape == (480, 2 * 640 + 50, 3)
        raw = np.load(saved(".npy", 1)[0])
        assert (raw.shape, raw.dtype) == ((480, 640), np.float32)
        seen = screen.picture()
        expected = cv2.resize(side, seen.shape[1::-1], interpolation=cv2.INTER_AREA)
        upper = slice(0, int(seen.shape[0] * 0.85))  # a message stands below
        assert differs(seen[upper], expected[upper]) < 6, "the window shows what was saved"

        def act(keysym: str, **options: bool) -> None:
            """Press a key whose effect shows; one at a time, as the window system tells of the latest alone."""
            before = screen.picture()
            screen.press(keysym, **options)
            until(lambda: differs(screen.picture(), before) > 0, f"{keysym} to show")

        act("c")
        other = snapshot(2)
        assert differs(other[:, :640], side[:, :640]) == 0, "frozen: the same picture"
        assert differs(other[:, 690:], side[:, 690:]) > 5, "in other colours"
        act("v")
        assert differs(snapshot(3), side) == 0

        act("l")
        assert snapshot(4).shape == (480, 640, 3), "the next layout"

        before = screen.picture()
        x, y = before.shape[1] // 2, before.shape[0] // 3
        screen.click(x, y)

        def marked() -> bool:
            return (
                differs(screen.picture()[y - 20 : y + 20, x - 20 : x + 20], before[y - 20 : y + 20, x - 20 : x + 20])
                > 3
            )

        until(marked, "a mark where it was clicked")

        screen.press("question", shift=True)
        until(lambda: screen.picture()[:200, :200].mean() < before[:200, :200].mean() * 0.8, "the help")
        screen.press("space")
        screen.press("r")
        saved(".mp4", 1)
        until(lambda: saved(".mp4", 1)[0].stat().st_size > 30_000, "some pictures")
        screen.press("r")
        (recording,) = until(lambda: [p for p in tmp_path.glob("*.mp4") if "partial" not in p.name], "the recording")
        with av.open(str(recording)) as container:
            frames = list(container.decode(video=0))
        assert len(frames) > 3
        assert all(a.pts < b.pts for a, b in pairwise(frames))  # type: ignore[operator]

        screen.press("q")
        assert child.wait(WAIT_S) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""
    finally:
        screen.close()


@pytest.mark.slow
def test_a_person_at_the_window_of_several_sources(display: str, tmp_path: Path) -> None:
    names = ["pattern:smptebars", "pattern:testsrc2"]
    first = []
    for name in names:
        with contextlib.closing(open_source(name)) as source:
            first.append(next(iter(source)).rgb)
    with previewing(display, tmp_path, *names, "--layout", "side", "--colormap", "gray") as child:
        screen = Screen(display)

        def tile(number: int) -> NDArray[np.uint8]:
            """The image in a tile, without the line above it: the frame, a gap and its depth."""
            width = CELL_HW[1]
            return screen.picture()[24:, number * width : (number + 1) * width]

        def pane(number: int) -> NDArray[np.uint8]:
            """The upper half of the frame: below, testsrc2 moves most."""
            shown = tile(number)
            high = round(CELL_HW[1] * 480 / (2 * 640 + 50))
            top = (shown.shape[0] - high) // 2
            return shown[top : top + high // 2, : CELL_HW[1] * 640 // (2 * 640 + 50)]

        def expected(number: int) -> NDArray[np.uint8]:
            height, width = pane(number).shape[:2]
            return cv2.resize(first[number][:240], (width, height), interpolation=cv2.INTER_AREA)

        def colours(number: int) -> float:
            depth = tile(number)[:, CELL_HW[1] * 6 // 10 : CELL_HW[1] - 8].astype(int)
            return float(np.abs(depth - depth.mean(2, keepdims=True)).mean())

        def border(number: int) -> bool:
            return bool((np.abs(tile(number)[100, :2].astype(int) - (234, 88, 12)) < 12).all())

        try:
            until(lambda: screen.picture().shape == (CELL_HW[0], 2 * CELL_HW[1], 3), "a tile for each")
            until(lambda: min(tile(number).std() for number in (0, 1)) > 30, "a picture in each")
            for number in (0, 1):
                assert differs(pane(number), expected(number)) < 25, names[number]
                assert differs(pane(number), expected(1 - number)) > 50, "its own picture"
            before = tile(1)
            until(lambda: differs(tile(1), before) > 0, "the second to move")
            assert max(colours(number) for number in (0, 1)) < 1

            screen.press("2")
            until(lambda: border(1) and not border(0), "the second to be chosen")
            screen.press("v")
            until(lambda: colours(1) > 5, "colours in it")
            assert colours(0) < 1, "and in no other"
            screen.click(CELL_HW[1] // 4, CELL_HW[0] // 2)
            until(lambda: border(0) and not border(1), "the first to be chosen by a click")
            screen.press("v")
            until(lambda: colours(0) > 5, "colours in it")

            screen.press("q")
            assert child.wait(WAIT_S) == 0
            assert child.stderr is not None
            assert child.stderr.read() == ""
        finally:
            screen.close()
