"""A live preview in an OpenCV window, on the thread that calls it.

Invariant: a missing or dead display is a `SinkError` and never the end of the process. Qt, inside OpenCV's wheel,
aborts the process when it cannot connect to a display, so a window is first tried in a child process.
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

_STOP_KEYS = frozenset({27, ord("q"), ord("Q")})  # 27 is Esc
_INITIAL_BOX_HW = (720, 1280)  # a first size that fits a laptop's screen; the user may resize
_PROBE_TIMEOUT_S = 10.0  # a window takes 0.3 s; a display behind a dead network connection never answers
_HINT = "write a file with -o FILE or raw depth with --save npy instead"
_PROBE = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import cv2
cv2.namedWindow("depthstream", cv2.WINDOW_NORMAL)
cv2.destroyAllWindows()
"""


_X11_SPECIAL, _ESCAPE = 0xFF00, 0x1B
"""Keysyms 0xFF00 to 0xFFFF of X11 are no characters (keysymdef.h); Escape is one of them."""


class Window(Protocol):
    """The little that `WindowSink` needs of a window; its constructor raises `SinkError` where there is no display."""

    def show(self, image: RgbImage) -> None:
        """Display an RGB picture."""
        ...

    def poll_key(self) -> int:
        """Process pending events; the key that was pressed, or -1. Never waits."""
        ...

    def poll_clicks(self) -> list[tuple[int, int]]:
        """Where the picture was clicked since the last call: (x, y) in its pixels."""
        ...

    def is_visible(self) -> bool:
        """False once the user has closed the window."""
        ...

    def close(self) -> None:
        """Remove the window; idempotent."""
        ...


class Controls(Protocol):
    """Makes the pictures of an interactive window and hears what the viewer does; see `stream.live.preview.Preview`."""

    def open(self, info: SourceInfo) -> None: ...
    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]: ...
    def show(self, frame: Frame, depth: Depth) -> RgbImage | None: ...
    def refresh(self) -> RgbImage | None: ...
    def press(self, key: str) -> None: ...
    def point_at(self, x: int, y: int) -> None: ...
    def close(self) -> None: ...


class WindowSink:
    """Shows each rendered picture; Esc, q or the window's close button ask the run to end.

    Open, write and finish it on one thread, the main one on macOS.

    Args:
        title: the window's title.
        controls: makes the pictures instead of the run's renderer, and gets the other keys and the clicks.
        show: makes the window from its title and the (height, width) of the pictures; `OpenCvWindow` but in tests.
    """

    def __init__(
        self,
        title: str = "depthstream",
        *,
        controls: Controls | None = None,
        show: Callable[[str, tuple[int, int]], Window] | None = None,
    ) -> None:
        self._title, self._controls = title, controls
        self._make_window = show or OpenCvWindow
        self._window: Window | None = None
        self.closed_by_user = False
        """The user pressed Esc or q or closed the window."""

    @property
    def is_lossless(self) -> bool:
        """False: a preview may skip."""
        return False

    @property
    def needs_image(self) -> bool:
        """False where the controls render."""
        return self._controls is None

    @property
    def outputs(self) -> list[str]:
        """The window's name."""
        return [f"window '{self._title}'"]

    @property
    def wants_stop(self) -> bool:
        """True once the user asked for the end; to be read after each write."""
        return self.closed_by_user

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Open the window.

        Raises:
            SinkError: there is no usable display, or OpenCV was built without windows.
        """
        if self._controls is not None:
            self._controls.open(info)
            size = self._controls.output_size(info.size)
        self._window = self._make_window(self._title, size)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Show `image`; False once the user has closed the window, and while the picture is frozen.

        Raises:
            SinkError: the window system failed.
        """
        if self._window is None or self.closed_by_user:
            return False
        picture = image if self._controls is None else self._controls.show(frame, depth)
        if picture is not None:
            self._window.show(picture)
        self.poll()
        return picture is not None

    def poll(self) -> None:
        """Process keys and mouse; worth calling while waiting long for the next picture. Never blocks."""
        if self._window is None or self.closed_by_user:
            return
        key = self._window.poll_key()
        self.closed_by_user = key in _STOP_KEYS or not self._window.is_visible()
        if self._controls is None or self.closed_by_user:
            return
        if 0 <= key < 0x80:
            self._controls.press(chr(key))
        for x, y in self._window.poll_clicks():
            self._controls.point_at(x, y)
        picture = self._controls.refresh()
        if picture is not None:
            self._window.show(picture)

    def finish(self) -> None:
        """Close the window and complete what the viewer records."""
        if self._window is not None:
            self._window.close()
            self._window = None
            if self._controls is not None:
                self._controls.close()

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - nothing is kept
        """Close the window."""
        self.finish()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Close the window."""
        self.finish()


class OpenCvWindow:
    """A resizable OpenCV window that keeps the picture's ratio.

    Raises:
        SinkError: there is no usable display, or OpenCV was built without windows.
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
            raise SinkError(f"cannot show a picture: {error.err}", where="preview", hint=_HINT) from error

    def poll_key(self) -> int:
        """See `Window`."""
        key = int(cv2.pollKey())
        if key < 0 or key & 0xFF00 != _X11_SPECIAL:
            return key if key < 0 else key & 0xFF  # the upper bits are modifiers such as num lock
        return _ESCAPE if key & 0xFF == _ESCAPE else -1  # arrows and the like: their low byte is some letter's

    def poll_clicks(self) -> list[tuple[int, int]]:
        """See `Window`."""
        clicks, self._clicks = self._clicks, []
        return clicks

    def _on_mouse(self, event: int, x: int, y: int, _flags: int, _data: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self._clicks.append((x, y))

    def is_visible(self) -> bool:
        """See `Window`."""
        with contextlib.suppress(cv2.error):  # some builds raise for a window that is gone
            return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1)
        return False

    def close(self) -> None:
        """See `Window`."""
        with contextlib.suppress(cv2.error):  # the user has closed it already
            cv2.destroyWindow(self._title)
        cv2.pollKey()  # lets the window system take it off the screen


def check_display(*, timeout_s: float = _PROBE_TIMEOUT_S) -> None:
    """Make sure that a window can be opened from this process.

    Raises:
        SinkError: no display is set, or a child process could not open a window on it within `timeout_s`.
    """
    if sys.platform in ("win32", "darwin"):  # a window fails there with an exception, not an abort
        return
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not display:
        raise SinkError("no display for a preview", where="preview", hint=_HINT)
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
