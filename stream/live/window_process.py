"""A window in a process of its own, because Qt and Xlib end their process when the display is lost.

Invariant: the caller never waits for the window system. An image that the window is too busy for waits until the next
image replaces it, and the end of the other process is an exception here.

Pixels go through shared memory, everything else through a socket. The process is started anew, not forked: a fork
would inherit locks and the GPU's context.
"""

import contextlib
import mmap
import os
import resource
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from stream.errors import SinkError
from stream.frames import RgbImage
from stream.live.opencv_window import HINT, OpenCvWindow
from stream.media import cv2

OPEN_TIMEOUT_S = 10.0
"""Opening takes 0.5 s; a display behind a dead network connection never answers."""
_CLOSE_TIMEOUT_S = 2.0
_POLL_S = 0.02
"""How often the window looks for keys and resizing while no image arrives."""

_START = """
import sys
sys.path[:] = {path}
from multiprocessing.connection import Connection
events = Connection({events_fd})
try:
    from stream.live.window_process import serve
    serve(events, *{arguments})
except Exception as error:
    events.send(("failed", f"the window failed: {{type(error).__name__}}: {{error}}", ""))
"""
"""The other process. Its modules may fail to load, which is not to be blamed on the display."""


class WindowProcess:
    """A window on X11 or Wayland; see `stream.live.window.Window`.

    Raises:
        SinkError: no display is set, no window can be opened on it within `timeout_s`, or OpenCV has no windows.
    """

    def __init__(self, title: str, size: tuple[int, int], *, timeout_s: float = OPEN_TIMEOUT_S) -> None:
        self._display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if not self._display:
            raise SinkError("there is no display to show a preview on", where="preview", hint=HINT)
        self._is_open, self._is_busy = True, False
        self._waiting: RgbImage | None = None
        self._keys, self._clicks = deque[int](), list[tuple[int, int]]()
        self._memory: mmap.mmap | None = None
        try:
            self._start(title, size)
        except OSError as error:
            raise SinkError(f"cannot start the window: {error}", where="preview", hint=HINT) from error
        try:
            self._await_window(timeout_s)
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def _start(self, title: str, size: tuple[int, int]) -> None:
        with contextlib.ExitStack() as unless_started:
            self._pixels = os.memfd_create("depthstream window")
            unless_started.callback(os.close, self._pixels)
            ours, theirs = socket.socketpair()
            self._events: Connection[Any, Any] = Connection(ours.detach())
            unless_started.callback(self._events.close)
            with theirs:
                passed = theirs.fileno(), self._pixels
                values = {"path": sys.path, "events_fd": passed[0], "arguments": (self._pixels, title, size)}
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START.format_map({key: repr(of) for key, of in values.items()})],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=passed,
                    start_new_session=True,  # Ctrl-C and a closing terminal are the caller's to handle
                )
            unless_started.pop_all()

    def _await_window(self, timeout_s: float) -> None:
        try:
            if not self._events.poll(timeout_s):
                raise SinkError(f"the display {self._display} does not answer", where="preview", hint=HINT)
            kind, *values = self._events.recv()
        except (EOFError, OSError):
            what = f"no window can be opened on the display {self._display}"
            raise SinkError(what, where="preview", hint=HINT) from None
        if kind == "failed":
            raise SinkError(values[0], where="preview", hint=values[1])

    def show(self, image: RgbImage) -> bool:
        """See `Window`; the image must not change later.

        Raises:
            SinkError: the display was lost.
        """
        self._receive()
        if self._is_busy or not self._is_open:
            self._waiting = image
            return False
        self._send(image)
        return True

    def poll_key(self) -> int:
        """See `Window`.

        Raises:
            SinkError: the display was lost.
        """
        self._receive()
        if self._waiting is not None and not self._is_busy and self._is_open:
            self._send(self._waiting)
        return self._keys.popleft() if self._keys else -1

    def poll_clicks(self) -> list[tuple[int, int]]:
        """See `Window`."""
        clicks, self._clicks = self._clicks, []
        return clicks

    def is_visible(self) -> bool:
        """See `Window`."""
        return self._is_open

    def close(self) -> None:
        """See `Window`."""
        with contextlib.suppress(OSError):
            self._events.send(None)
        self._events.close()
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # it waits for a display that does not answer
            self._process.kill()
            self._process.wait()
        if self._pixels >= 0:
            os.close(self._pixels)
            self._pixels = -1

    def _send(self, image: RgbImage) -> None:
        if self._memory is None or len(self._memory) < image.nbytes:
            os.ftruncate(self._pixels, image.nbytes)
            self._memory = mmap.mmap(self._pixels, image.nbytes)
        bgr = np.frombuffer(self._memory, np.uint8, image.nbytes).reshape(image.shape)
        cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=bgr)
        self._tell(image.shape[:2])
        self._is_busy, self._waiting = True, None

    def _tell(self, message: object) -> None:
        try:
            self._events.send(message)
        except OSError:
            self._receive()  # the user may have closed it
            if self._is_open:
                raise self._lost() from None

    def _receive(self) -> None:
        try:
            while self._is_open and self._events.poll():
                match self._events.recv():
                    case "shown", *_:
                        self._is_busy = False
                    case "key", int(key):
                        self._keys.append(key)
                    case "click", int(x), int(y):
                        self._clicks.append((x, y))
                    case "closed", *_:
                        self._is_open = False
                    case "failed", what, hint:
                        raise SinkError(what, where="preview", hint=hint)
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> SinkError:
        return SinkError(f"the display {self._display} was lost", where="preview", hint=HINT)


def serve(events: "Connection[Any, Any]", pixels_fd: int, title: str, size: tuple[int, int]) -> None:
    """The other process: shows what it is sent until it is told to end, the user closes the window or the caller ends.

    Args:
        events: the socket.
        pixels_fd: the memory of the images, each from its start, uint8 H×W×3 BGR.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # Qt aborts when it cannot connect to the display
    with contextlib.suppress(EOFError, OSError):  # the caller has ended
        try:
            window = OpenCvWindow(title, size)
            events.send(("open",))
            _serve(window, events, _Pixels(pixels_fd))
        except SinkError as error:
            events.send(("failed", error.what, error.hint))


def _serve(window: OpenCvWindow, events: "Connection[Any, Any]", read: Callable[[int, int], Any]) -> None:
    while True:
        if events.poll(_POLL_S):
            size = events.recv()
            if size is None:
                window.close()
                return
            window.show_bgr(read(*size))
            events.send(("shown",))
        key = window.poll_key()
        if key >= 0:
            events.send(("key", key))
        for x, y in window.poll_clicks():
            events.send(("click", x, y))
        if not window.is_visible():
            events.send(("closed",))
            return


class _Pixels:
    """Copies images out of the shared memory, which may have grown."""

    def __init__(self, pixels_fd: int) -> None:
        self._fd = pixels_fd
        self._memory: mmap.mmap | None = None

    def __call__(self, height: int, width: int) -> Any:
        count = 3 * height * width
        if self._memory is None or len(self._memory) < count:
            self._memory = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ)
        return np.frombuffer(self._memory, np.uint8, count).reshape(height, width, 3).copy()
