"""A window of OpenCV: fits the image into it, whatever the sizes of both, and turns events into keys and clicks.

Invariant: pixels are square on the screen. If the image changes its size, the window follows at the user's scale; where
the window system refuses that (full screen, tiles), black borders fill what the image does not cover.
"""

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from stream.errors import SinkError
from stream.frames import RgbImage
from stream.media import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

HINT = "show it in a browser with --serve, or write a file with -o FILE, or raw depth with --save npy, instead"
_INITIAL_BOX_HW = (720, 1280)  # the first size fits a laptop's screen; the user may resize it
_STRETCH = 0.01
"""Relative difference of the aspect ratios of image and window that is left: whole pixels cannot always match."""
_X11_SPECIAL, _ESCAPE = 0xFF00, 0x1B
"""X11 keysyms 0xFF00 to 0xFFFF are not characters (keysymdef.h); Escape is one of them."""


class OpenCvWindow:
    """A resizable window; see `stream.live.window.Window`.

    Args:
        size: (height, width) of the first image.

    Raises:
        SinkError: there is no usable display, or this OpenCV has no windows.
    """

    def __init__(self, title: str, size: tuple[int, int]) -> None:
        self._title, self._size = title, size
        self._image: NDArray[np.uint8] | None = None
        self._painted_hw = (0, 0)
        self._place = (0, 0, 1.0)  # left, top and scale of the image in what is painted
        self._clicks: list[tuple[int, int]] = []
        scale = min(1.0, _INITIAL_BOX_HW[0] / size[0], _INITIAL_BOX_HW[1] / size[1])
        try:
            # OpenCV can keep the aspect ratio itself, but Qt's windows keep that of the first image.
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
            self._resize(size, scale)
            cv2.setMouseCallback(title, self._on_mouse)
        except cv2.error as error:
            if "not implemented" in error.err:
                hint = "install opencv-python instead of opencv-python-headless, or " + HINT
                raise SinkError("this OpenCV has no windows", where="preview", hint=hint) from error
            raise SinkError(f"cannot open a window: {error.err}", where="preview", hint=HINT) from error

    def show(self, image: RgbImage) -> bool:
        """See `Window`."""
        self.show_bgr(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8))
        return True

    def show_bgr(self, image: "NDArray[np.uint8]") -> None:
        """Display an image, uint8 H×W×3 BGR; it is kept until the next."""
        height, width = image.shape[:2]
        try:
            if (height, width) != self._size:
                self._follow((height, width))
            self._image = image
            self._paint(self._window_hw())
        except cv2.error as error:
            raise SinkError(f"cannot show an image: {error.err}", where="preview", hint=HINT) from error

    def poll_key(self) -> int:
        """See `Window`."""
        key = int(cv2.pollKey())
        with contextlib.suppress(cv2.error):  # the user has closed it
            if self._image is not None and (window_hw := self._window_hw()) != self._painted_hw:
                self._paint(window_hw)
        if key < 0 or key & 0xFF00 != _X11_SPECIAL:
            return key if key < 0 else key & 0xFF  # higher bits are modifiers such as num lock
        return _ESCAPE if key & 0xFF == _ESCAPE else -1  # the low byte of an arrow key equals some letter

    def poll_clicks(self) -> list[tuple[int, int]]:
        """See `Window`."""
        clicks, self._clicks = self._clicks, []
        return clicks

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

    def _on_mouse(self, event: int, x: int, y: int, _flags: int, _data: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            left, top, scale = self._place
            self._clicks.append((int((x - left) // scale), int((y - top) // scale)))

    def _window_hw(self) -> tuple[int, int]:
        _, _, width, height = cv2.getWindowImageRect(self._title)  # 0.1 ms
        return height, width

    def _resize(self, size: tuple[int, int], scale: float) -> None:
        cv2.resizeWindow(self._title, max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))

    def _follow(self, size: tuple[int, int]) -> None:
        """Resize the window for images of another size, at the same scale but no larger than a laptop's screen or, if
        the user has made it larger, than it is."""
        window_hw = self._window_hw()
        if min(window_hw) > 0:
            scale = min(window_hw[0] / self._size[0], window_hw[1] / self._size[1])
            room_hw = max(window_hw[0], _INITIAL_BOX_HW[0]), max(window_hw[1], _INITIAL_BOX_HW[1])
            self._resize(size, min(scale, room_hw[0] / size[0], room_hw[1] / size[1]))
        self._size = size

    def _paint(self, window_hw: tuple[int, int]) -> None:
        """Paint the image for a window of this size; the window system stretches what it gets to the whole window."""
        assert self._image is not None
        (height, width), (window_height, window_width) = self._size, window_hw
        self._painted_hw, self._place, painted = window_hw, (0, 0, 1.0), self._image
        if min(window_hw) > 0 and abs(window_width * height / (window_height * width) - 1) > _STRETCH:
            scale = min(window_height / height, window_width / width)
            inner_hw = max(1, round(height * scale)), max(1, round(width * scale))
            top, left = (window_height - inner_hw[0]) // 2, (window_width - inner_hw[1]) // 2
            painted = np.zeros((*window_hw, 3), np.uint8)
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            painted[top : top + inner_hw[0], left : left + inner_hw[1]] = cv2.resize(
                self._image, inner_hw[::-1], interpolation=way
            )
            self._place = left, top, scale
        cv2.imshow(self._title, painted)
