"""The sink that shows a live preview in an OpenCV window, on the thread that calls it.

Invariant: a missing or broken display raises `SinkError` and never ends the process. Qt, which OpenCV's wheel contains,
aborts the process when it cannot connect to a display, so a child process tries to open a window first.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from stream.errors import SinkError
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.media import cv2
from stream.sinks.base import Sink

_STOP_KEYS = frozenset({27, ord("q"), ord("Q")})  # 27 is Esc
_INITIAL_BOX_HW = (720, 1280)  # the first size fits a laptop's screen; the user may resize it
_PROBE_TIMEOUT_S = 10.0  # opening takes 0.3 s; a display behind a dead network connection never answers
_HINT = "write a file with -o FILE, or raw depth with --save npy, instead"
_PROBE = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import cv2
cv2.namedWindow("depthstream", cv2.WINDOW_NORMAL)
cv2.destroyAllWindows()
"""
_X11_SPECIAL, _ESCAPE = 0xFF00, 0x1B
"""X11 keysyms 0xFF00 to 0xFFFF are not characters (keysymdef.h); Escape is one of them."""


class Window(Protocol):
    """What `WindowSink` needs of a window; the constructor raises `SinkError` if there is no display."""

    def show(self, image: RgbImage) -> None:
        """Display an RGB image."""
        ...

    def poll_key(self) -> int:
        """Process pending events; returns the key that was pressed, or -1. Never waits."""
        ...

    def poll_clicks(self) -> list[tuple[int, int]]:
        """Clicks since the last call, (x, y) in pixels of the image."""
        ...

    def is_visible(self) -> bool:
        """False once the user has closed the window."""
        ...

    def close(self) -> None:
        """Remove the window; idempotent."""
        ...


class WindowControls(Protocol):
    """Makes the images of an interactive window and receives keys and clicks; see `stream.live.preview.Preview`."""

    @property
    def scene_cuts(self) -> int: ...
    def open(self, info: SourceInfo) -> None: ...
    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]: ...
    def show(self, frame: Frame, depth: Depth) -> RgbImage | None: ...
    def refresh(self) -> RgbImage | None: ...
    def press(self, key: str) -> None: ...
    def point_at(self, x: int, y: int) -> None: ...
    def close(self) -> None: ...


class WindowSink(Sink):
    """Shows each image; Esc, q or the window's close button end the run.

    Use it on one thread, on macOS the main thread.

    Args:
        title: the window's title.
        controls: makes the images instead of the run's renderer, and receives the other keys and the clicks.
        make_window: makes the window from its title and the (height, width) of the images; default `OpenCvWindow`.
    """

    def __init__(
        self,
        title: str = "depthstream",
        *,
        controls: WindowControls | None = None,
        make_window: Callable[[str, tuple[int, int]], Window] | None = None,
    ) -> None:
        self._title, self._controls = title, controls
        self._make_window = make_window or OpenCvWindow
        self._window: Window | None = None
        self.needs_image = controls is None

    @property
    def is_lossless(self) -> bool:
        """False: a preview may skip."""
        return False

    @property
    def outputs(self) -> list[str]:
        """The window's title."""
        return [f"window '{self._title}'"]

    @property
    def scene_cuts(self) -> int:
        """Scene cuts that the controls' renderer has seen."""
        return 0 if self._controls is None else self._controls.scene_cuts

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Open the window.

        Raises:
            SinkError: there is no usable display, or this OpenCV has no windows.
        """
        if self._controls is not None:
            self._controls.open(info)
            size = self._controls.output_size(info.size)
        self._window = self._make_window(self._title, size)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Show `image`; False once the user has closed the window, and while the image is frozen.

        Raises:
            SinkError: the window system failed.
        """
        if self._window is None or self.wants_stop:
            return False
        shown = image if self._controls is None else self._controls.show(frame, depth)
        if shown is not None:
            self._window.show(shown)
        return shown is not None

    def poll(self) -> None:
        """Process keys and clicks, and let the window system paint; never blocks."""
        if self._window is None or self.wants_stop:
            return
        key = self._window.poll_key()
        self.wants_stop = key in _STOP_KEYS or not self._window.is_visible()
        if self._controls is None or self.wants_stop:
            return
        if 0 <= key < 0x80:
            self._controls.press(chr(key))
        for x, y in self._window.poll_clicks():
            self._controls.point_at(x, y)
        image = self._controls.refresh()
        if image is not None:
            self._window.show(image)

    def finish(self) -> None:
        """Close the window and complete the viewer's recording."""
        if self._window is not None:
            self._window.close()
            self._window = None
            if self._controls is not None:
                self._controls.close()

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - a window keeps nothing
        """Close the window."""
        self.finish()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Close the window."""
        self.finish()


class OpenCvWindow:
    """A resizable OpenCV window that keeps the image's aspect ratio.

    Raises:
        SinkError: there is no usable display, or this OpenCV has no windows.
    """

    def __init__(self, title: str, size: tuple[int, int]) -> None:
        check_display()
        self._title = title
        self._clicks: list[tuple[int, int]] = []
        scale = min(1.0, _INITIAL_BOX_HW[0] / size[0], _INITIAL_BOX_HW[1] / size[1])
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(title, max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
            cv2.setMouseCallback(title, self._on_mouse)
        except cv2.error as error:
            raise SinkError(f"cannot open a window: {error.err}", where="preview", hint=_HINT) from error

    def show(self, image: RgbImage) -> None:
        """See `Window`."""
        try:
            cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise SinkError(f"cannot show an image: {error.err}", where="preview", hint=_HINT) from error

    def poll_key(self) -> int:
        """See `Window`."""
        key = int(cv2.pollKey())
        if key < 0 or key & 0xFF00 != _X11_SPECIAL:
            return key if key < 0 else key & 0xFF  # higher bits are modifiers such as num lock
        return _ESCAPE if key & 0xFF == _ESCAPE else -1  # the low byte of an arrow key equals some letter

    def poll_clicks(self) -> list[tuple[int, int]]:
        """See `Window`."""
        clicks, self._clicks = self._clicks, []
        return clicks

    def _on_mouse(self, event: int, x: int, y: int, _flags: int, _data: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self._clicks.append((x, y))

    def is_visible(self) -> bool:
        """See `Window`."""
        with contextlib.suppress(cv2.error):  # some builds raise for a closed window
            return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1)
        return False

    def close(self) -> None:
        """See `Window`."""
        with contextlib.suppress(cv2.error):  # the user has closed it already
            cv2.destroyWindow(self._title)
        cv2.pollKey()  # lets the window system remove it from the screen


def check_display(*, timeout_s: float = _PROBE_TIMEOUT_S) -> None:
    """Check that this process can open a window.

    Raises:
        SinkError: no display is set, or a child process could not open a window on it within `timeout_s`.
    """
    if sys.platform in ("win32", "darwin"):  # there, opening a window raises an exception and does not abort
        return
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not display:
        raise SinkError("there is no display to show a preview on", where="preview", hint=_HINT)
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SinkError(f"the display {display} does not answer", where="preview", hint=_HINT) from error
    except OSError as error:
        raise SinkError(f"cannot try the display {display}: {error}", where="preview", hint=_HINT) from error
    if child.returncode != 0:
        raise SinkError(f"no window can be opened on the display {display}", where="preview", hint=_HINT)
