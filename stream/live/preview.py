"""The image that a live viewer sees, with its numbers, messages and marks; a window and a page show it.

Invariant: nothing that a viewer does changes the run's output files. Everything here runs on the pipeline's thread,
except the methods marked "from any thread".
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from stream.capture.base import CaptureLog
from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo
from stream.live.actions import HELP, Actions, Models
from stream.live.hud import mark_point, recording_dot, write_lines
from stream.live.numbers import Numbers
from stream.live.recording import Recorder, encode_npy, encode_png
from stream.live.view import Shown, View, in_words
from stream.metrics import Metrics
from stream.notes import note
from stream.render import colormap as colormaps
from stream.render.layout import Layout
from stream.render.renderer import Renderer
from stream.sinks.base import Sink

REDRAW_S = 0.5
"""How often the numbers are drawn again while no new result arrives."""


class Preview:
    """The controls of a window or a page: makes its images and carries out what viewers ask for.

    Args:
        renderer: the preview's own; output files have another, so a viewer changes nothing in them.
        models: the models to switch between; None if one is loaded.
        range_text: the `--range` value of the renderer's range policy.
        kind: of the first result, if it is known.
        record: makes the sink of a recording from its path; None if recording is not possible.
        name: start of the names of snapshots and recordings: `NAME_20261231-235959.png`.
        folder: where snapshots and recordings go.
        say: called with a message about each of these files; default: a note of the run.
        writes_text: draw messages, numbers and marks into the image; a page shows them beside it.
        clock, now: monotonic seconds, and the date and time for file names.

    Attributes:
        metrics: the run's counters; whoever starts the pipeline sets it.
        log: returns the source's log; whoever starts the pipeline sets it.
    """

    def __init__(
        self,
        renderer: Renderer,
        *,
        models: Models | None = None,
        range_text: str = "ema",
        kind: DepthKind | None = None,
        record: Callable[[Path], Sink] | None = None,
        name: str = "depthstream",
        folder: Path = Path(),
        say: Callable[[str], None] = note,
        writes_text: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.renderer, self.models = renderer, models
        self.metrics: Metrics | None = None
        self.log: Callable[[], CaptureLog] = CaptureLog
        self._view = view = View(renderer, range_text=range_text, kind=kind, clock=clock)
        self._recorder = Recorder(
            make_sink=record, name=name, folder=folder, say=say, show_message=view.show_message, now=now
        )
        self._actions = Actions(view, self._recorder, models)
        self._writes_text, self._clock = writes_text, clock
        self._waiting, self._drawn_s = "", 0.0
        self._encoded: tuple[Shown, tuple[bytes, bytes]] | None = None
        self._encoding = threading.Lock()
        if writes_text:
            view.show_message("press ? for help")

    @property
    def frozen(self) -> bool:
        """True while new results are not shown."""
        return self._view.frozen

    @property
    def is_recording(self) -> bool:
        """True while a viewer's recording is running."""
        return self._recorder.is_recording

    @property
    def scene_cuts(self) -> int:
        """Scene cuts that the preview's renderer has seen."""
        return self.renderer.scene_cuts

    def open(self, info: SourceInfo) -> None:
        """Set the source; call it before the first image."""
        self._recorder.open(info)

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the image for frames of `size_hw`, in the current layout."""
        return self.renderer.output_size(size_hw)

    def show(self, frame: Frame, depth: Depth) -> RgbImage | None:
        """The image of a new result, uint8 H×W×3; None while frozen. A running recording gets the result either way."""
        view = self._view
        if view.frozen and not self.is_recording:
            return None
        self._actions.take_kind(depth.kind)
        image = self.renderer.render(frame, depth)
        self._recorder.write(frame, depth, image)
        if view.frozen:
            return None
        view.shown, view.needs_rendering = Shown(frame=frame, depth=depth, image=image), False
        return self._drawn(view.shown)

    def refresh(self) -> RgbImage | None:
        """The image on show drawn again, if an action, a message or the numbers changed it; otherwise None."""
        view = self._view
        view.expire_message()
        if self._writes_text:
            if (waiting := self.log().waiting) != self._waiting:
                self._waiting, view.needs_drawing = waiting, True
            if view.shows_numbers and self._clock() - self._drawn_s >= REDRAW_S:
                view.needs_drawing = True
        if not view.needs_drawing or view.shown is None:
            return None
        if view.needs_rendering:
            image = self.renderer.render(view.shown.frame, view.shown.depth, same_range=True)
            view.shown, view.needs_rendering = replace(view.shown, image=image), False
        return self._drawn(view.shown)

    def press(self, key: str) -> None:
        """Carry out the action of a key."""
        self._actions.press(key)

    def command(self, name: str, value: object) -> None:
        """Carry out what a page sent."""
        self._actions.command(name, value)

    def point_at(self, x: int, y: int) -> None:
        """Display the depth at this pixel of the image from now on; a click beside the panes ends that."""
        self._view.point_at(x, y)

    def close(self) -> None:
        """Complete a running recording."""
        self._recorder.close()

    def depth_at_point(self) -> str | None:
        """See `View.depth_at_point`."""
        return self._view.depth_at_point()

    def numbers(self) -> list[str]:
        """The lines that are drawn over the image."""
        renderer = self.renderer
        layout = renderer.layout.value
        if renderer.layout is Layout.OVERLAY:
            layout += f" {renderer.alpha:.0%}"
        style = [self._model(), layout, renderer.colormap, self._range()]
        return [*Numbers.of(self.metrics, self.log()).lines(), "  ".join(part for part in style if part)]

    def state(self) -> dict[str, Any]:
        """Everything that a page shows beside the image, ready for JSON."""
        view, numbers = self._view, Numbers.of(self.metrics, self.log())
        ranges = [("range", self._range())] if self._range() else []
        return {
            "layout": self.renderer.layout.value,
            "layouts": [layout.value for layout in Layout],
            "colormap": self.renderer.colormap,
            "colormaps": list(colormaps.NAMES),
            "alpha": self.renderer.alpha,
            "range": view.range_text,
            "model": self._model() if self.models is None else self.models.names[self.models.current],
            "models": [] if self.models is None else list(self.models.names),
            "frozen": view.frozen,
            "recording": self.is_recording,
            "recordings": [(number, path.name) for number, path in self.recordings().items()],
            "message": view.message,
            "waiting": numbers.waiting,
            "numbers": numbers.rows() + ranges,
            "latencies_ms": [round(latency_ms, 1) for latency_ms in numbers.latencies_ms],
        }

    def snapshot_files(self) -> tuple[bytes, bytes] | None:
        """The image on show as PNG, and its raw depth as .npy; None before the first. From any thread.

        Each image is encoded once, whoever asks.
        """
        with self._encoding:
            shown = self._view.shown
            if shown is None:
                return None
            if self._encoded is None or self._encoded[0] is not shown:
                self._encoded = shown, (encode_png(shown.image), encode_npy(shown.depth))
            return self._encoded[1]

    def recordings(self) -> dict[int, Path]:
        """Finished recordings by number. From any thread."""
        return self._recorder.finished

    def _drawn(self, shown: Shown) -> RgbImage:
        view = self._view
        view.needs_drawing = False
        if not self._writes_text:
            return shown.image
        self._drawn_s = self._clock()
        image = shown.image.copy()
        mark_point(image, view.points_px(), view.depth_at_point() or "")
        write_lines(image, HELP if view.shows_help else self.numbers() if view.shows_numbers else [])
        if bottom := self._waiting or view.message:
            write_lines(image, [bottom], at_bottom=True)
        if self.is_recording:
            recording_dot(image)
        return image

    def _model(self) -> str:
        """The model of the result on show; before the first, the one in use."""
        shown = self._view.shown
        if shown is not None and shown.depth.model:
            return shown.depth.model
        return "" if self.models is None else self.models.names[self.models.current]

    def _range(self) -> str:
        """What maps to the ends of the colormap; "" before the first image, and if nothing in it has an answer."""
        shown, kind = self.renderer.current_range, self._view.kind
        return "" if shown is None or kind is None else in_words("{:.4g} to {:.4g}".format(*shown), kind)
