"""One window for several live sources: a grid of tiles, drawn on the main thread.

The sink of each source hands its newest image to its tile and carries out what the window was asked for, both on its
pipeline's thread. The grid draws the tiles and passes keys and clicks on, on the main thread, where macOS wants
windows.
Invariant: neither thread waits for the other.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from stream.errors import SinkError, printable
from stream.frames import RgbImage
from stream.live.controlled import ControlledSink
from stream.live.hud import write_lines
from stream.live.window import STOP_KEYS, Window, WindowControls, open_window
from stream.media import cv2

CELL_HW = (360, 640)
"""(height, width) of a tile; where there are many, they share `_MOST_HW`."""
_MOST_HW = (1080, 1920)
_BORDER = (234, 88, 12)
"""Colour of the border of the chosen tile, RGB."""
_TITLE_PX = 24
_MOST_WAITING = 64
_DIMMED = 0.4


class Tile:
    """The place of one source: images on their way to the window, keys and clicks on their way to the source.

    Args:
        name: of the source.
        changed: set when there is something new to draw.

    Attributes:
        image: the newest one, RGB uint8 H×W×3; replaced as a whole.
        status: what the source waits for, or why it has ended; "" while it is live.
        has_ended: no image will follow.
        keys, clicks: not carried out yet; a click is (x, y) in pixels of the image.
    """

    def __init__(self, name: str, changed: threading.Event) -> None:
        self.name, self._changed = name, changed
        self.image: RgbImage | None = None
        self.status, self.has_ended = "opening", False
        self.keys: deque[str] = deque(maxlen=_MOST_WAITING)
        self.clicks: deque[tuple[int, int]] = deque(maxlen=_MOST_WAITING)

    def show(self, image: RgbImage) -> None:
        """Draw this image from now on."""
        self.image, self.status = image, ""
        self._changed.set()

    def end(self, reason: str) -> None:
        """Draw why the source has ended; the first reason stays."""
        if not self.has_ended:
            self.status, self.has_ended = reason.removeprefix(f"{self.name}: "), True
            self._changed.set()


class TileWindowSink(ControlledSink[WindowControls]):
    """Shows one of several sources in its tile.

    Args:
        tile: where.
        controls: makes the images, and receives keys and clicks.
    """

    def __init__(self, tile: Tile, *, controls: WindowControls) -> None:
        super().__init__(controls)
        self._tile = tile

    def poll(self) -> None:
        """Carry out keys and clicks; never blocks."""
        while self._tile.keys:
            self._controls.press(self._tile.keys.popleft())
        while self._tile.clicks:
            self._controls.point_at(*self._tile.clicks.popleft())
        image = self._controls.refresh()
        if image is not None:
            self._tile.show(image)

    def finish(self) -> None:
        """Complete the viewer's recording."""
        self._end("ended")

    def _show(self, image: RgbImage) -> None:
        self._tile.show(image)

    def _end(self, reason: str) -> None:
        if not self._tile.has_ended:
            self._tile.end(reason)
            self._controls.close()


class Grid:
    """The window; every method is called on the main thread.

    Keys act on all sources until one is chosen by a click or by its number; 0 chooses all again. Esc, q and the close
    button end the run.

    Args:
        tiles: of the sources, in order.
        is_only_output: without the window the run has no purpose: losing the display is an error.
        title: of the window.
        make_window: makes the window from its title and the (height, width) of the images; default `open_window`.

    Attributes:
        wants_stop: the viewer has asked to end the run.
        note: what became of the window, to be reported once; "" for nothing.
    """

    def __init__(
        self,
        tiles: Sequence[Tile],
        *,
        is_only_output: bool = True,
        title: str = "depthstream",
        make_window: Callable[[str, tuple[int, int]], Window] | None = None,
    ) -> None:
        self._tiles, self._is_only_output = tiles, is_only_output
        self._title, self._make_window = title, make_window or open_window
        self._columns = math.ceil(math.sqrt(len(tiles)))
        self._rows = math.ceil(len(tiles) / self._columns)
        height = min(CELL_HW[0], _MOST_HW[0] // self._rows, _MOST_HW[1] // self._columns * CELL_HW[0] // CELL_HW[1])
        self._cell_hw = height, height * CELL_HW[1] // CELL_HW[0]
        self._canvas = np.zeros((self._rows * self._cell_hw[0], self._columns * self._cell_hw[1], 3), np.uint8)
        self._drawn: list[tuple[object, ...]] = [()] * len(tiles)
        self._chosen: int | None = None
        self._window: Window | None = None
        self.wants_stop, self.note = False, ""

    def open(self) -> None:
        """Open the window.

        Raises:
            SinkError: there is no usable display, or this OpenCV has no windows.
        """
        height, width = self._canvas.shape[:2]
        self._window = self._make_window(self._title, (height, width))

    def poll(self) -> None:
        """Pass keys and clicks on, and draw what has changed; never waits for a source.

        Raises:
            SinkError: the display was lost, and there is no other output.
        """
        if self._window is None or self.wants_stop:
            return
        try:
            self._poll(self._window)
        except SinkError as error:
            if self._is_only_output:
                raise
            self.close()
            self.note = f"{error.where}: {error.what}; the run goes on without its window"

    def close(self) -> None:
        """Close the window. Idempotent."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def image(self) -> RgbImage | None:
        """The grid, RGB uint8 H×W×3, if a tile has changed since the last call; otherwise None."""
        wanted = [
            (tile.image, tile.status, tile.has_ended, number == self._chosen) for number, tile in enumerate(self._tiles)
        ]
        stale = [n for n, new in enumerate(wanted) if not _same(new, self._drawn[n])]
        for number in stale:
            self._draw(number)
        for number in stale:
            self._drawn[number] = wanted[number]
        return self._canvas if stale else None

    def press(self, key: str) -> None:
        """Choose a tile, or pass the key on to the chosen one, else to all."""
        if key.isascii() and key.isdecimal():
            if int(key) <= len(self._tiles):
                self._chosen = int(key) - 1 if int(key) else None
            return
        for number, tile in enumerate(self._tiles):
            if self._chosen in (None, number):
                tile.keys.append(key)

    def click(self, x: int, y: int) -> None:
        """Choose the tile at this pixel of the grid, and display the depth there."""
        height, width = self._cell_hw
        row, column = y // height, x // width
        number = row * self._columns + column
        if not (0 <= row < self._rows and 0 <= column < self._columns and number < len(self._tiles)):
            return
        self._chosen = number
        tile = self._tiles[number]
        if tile.image is not None:
            scale, top, left = self._fit(tile.image)
            tile.clicks.append((int((x - column * width - left) / scale), int((y - row * height - top) / scale)))

    def _poll(self, window: Window) -> None:
        while (key := window.poll_key()) >= 0:
            if key in STOP_KEYS:
                self.wants_stop = True
                return
            if key < 0x80:
                self.press(chr(key))
        self.wants_stop = not window.is_visible()
        if self.wants_stop:
            return
        for x, y in window.poll_clicks():
            self.click(x, y)
        if (image := self.image()) is not None:
            window.show(image)

    def _fit(self, image: RgbImage) -> tuple[float, int, int]:
        """How an image goes into a tile: scale, top and left edge in pixels."""
        height, width = self._cell_hw[0] - _TITLE_PX, self._cell_hw[1]
        high, wide = image.shape[:2]
        scale = min(height / high, width / wide)
        return scale, _TITLE_PX + (height - round(high * scale)) // 2, (width - round(wide * scale)) // 2

    def _draw(self, number: int) -> None:
        tile, (height, width) = self._tiles[number], self._cell_hw
        row, column = divmod(number, self._columns)
        cell = self._canvas[row * height : (row + 1) * height, column * width : (column + 1) * width]
        cell[:] = 0
        if tile.image is not None:
            scale, top, left = self._fit(tile.image)
            high, wide = max(1, round(tile.image.shape[0] * scale)), max(1, round(tile.image.shape[1] * scale))
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            cell[top : top + high, left : left + wide] = cv2.resize(tile.image, (wide, high), interpolation=how)
        if tile.has_ended:
            np.multiply(cell, _DIMMED, out=cell, casting="unsafe")
        text = f"{number + 1} {tile.name}" + (f": {tile.status}" if tile.status else "")
        write_lines(cell[:_TITLE_PX], [printable(text).encode("ascii", "replace").decode()])
        if number == self._chosen:
            cv2.rectangle(self._canvas, *_corners(row, column, height, width), _BORDER, 3)


def _corners(row: int, column: int, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    left, top = column * width + 1, row * height + 1
    return (left, top), (left + width - 3, top + height - 3)


def _same(new: tuple[object, ...], old: tuple[object, ...]) -> bool:
    """Whether both have the same image, which is compared by identity, and equal facts."""
    return bool(old) and new[0] is old[0] and new[1:] == old[1:]
