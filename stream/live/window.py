"""The sink that shows a live preview in a window.

Invariant: a display that is missing, or is lost during the run, never ends the process. Missing at the start is an
error; lost later, the other outputs go on.
"""

import sys
from collections.abc import Callable
from typing import Protocol

from stream.errors import SinkError
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.live.controlled import Controls
from stream.sinks.base import Sink

STOP_KEYS = frozenset({27, ord("q"), ord("Q")})  # 27 is Esc


class Window(Protocol):
    """What `WindowSink` needs of a window.

    The constructor raises `SinkError` if there is no display; `show` and `poll_key` raise it if the display is lost.
    """

    def show(self, image: RgbImage) -> bool:
        """Display an RGB image; False if the window is still busy with an earlier one. Then the newest image waits."""
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


class WindowControls(Controls, Protocol):
    """Also receives the keys and clicks of a window."""

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]: ...
    def press(self, key: str) -> None: ...
    def point_at(self, x: int, y: int) -> None: ...


class WindowSink(Sink):
    """Shows each image; Esc, q or the window's close button end the run.

    Use it on one thread, on macOS the main thread.

    Args:
        title: the window's title.
        controls: makes the images instead of the run's renderer, and receives the other keys and the clicks.
        is_only_output: without the window the run has no purpose. If the display is lost, an error then ends the run;
            otherwise a note says that it goes on.
        make_window: makes the window from its title and the (height, width) of the images; default `open_window`.
    """

    def __init__(
        self,
        title: str = "depthstream",
        *,
        controls: WindowControls | None = None,
        is_only_output: bool = True,
        make_window: Callable[[str, tuple[int, int]], Window] | None = None,
    ) -> None:
        self._title, self._controls, self._is_only_output = title, controls, is_only_output
        self._make_window = make_window or open_window
        self._window: Window | None = None
        self.notes: list[str] = []
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
        """Show `image`; False if it may not appear: the window is closed, lost or busy, or its image is frozen.

        Raises:
            SinkError: the display was lost, and there is no other output.
        """
        if self._window is None or self.wants_stop:
            return False
        shown = image if self._controls is None else self._controls.show(frame, depth)
        try:
            return shown is not None and self._window.show(shown)
        except SinkError as error:
            self._lose_window(error)
            return False

    def poll(self) -> None:
        """Process keys and clicks, and let the window system paint; never blocks.

        Raises:
            SinkError: as for `write`.
        """
        if self._window is None or self.wants_stop:
            return
        try:
            self._poll(self._window)
        except SinkError as error:
            self._lose_window(error)

    def _poll(self, window: Window) -> None:
        while (key := window.poll_key()) >= 0:  # all of them: a key that was held must not act after its release
            if key in STOP_KEYS:
                self.wants_stop = True
                return
            if self._controls is not None and key < 0x80:
                self._controls.press(chr(key))
        self.wants_stop = not window.is_visible()
        if self._controls is None or self.wants_stop:
            return
        for x, y in window.poll_clicks():
            self._controls.point_at(x, y)
        image = self._controls.refresh()
        if image is not None:
            window.show(image)

    def _lose_window(self, error: SinkError) -> None:
        if self._is_only_output:
            raise error
        self.finish()
        self.notes.append(f"{error.where}: {error.what}; the run goes on without its window")

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


def open_window(title: str, size: tuple[int, int]) -> Window:
    """A window for images of `size` = (height, width), in a process of its own where a display can end its process.

    Raises:
        SinkError: there is no usable display, or this OpenCV has no windows.
    """
    if sys.platform in ("win32", "darwin"):  # no display to be lost; macOS wants windows on the main thread
        from stream.live.opencv_window import OpenCvWindow

        return OpenCvWindow(title, size)
    from stream.live.window_process import WindowProcess

    return WindowProcess(title, size)
