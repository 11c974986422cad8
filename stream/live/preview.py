"""What a live viewer sees and can change; a window, and whatever else shows pictures, takes its pictures from here.

Invariant: everything here runs on the pipeline's own thread, and nothing a viewer does changes what files get.
"""

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stream.capture.base import CaptureLog
from stream.errors import ConfigError, SinkError, StreamError
from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo
from stream.live.actions import ALPHA_STEP, HELP, KEYS, Action
from stream.live.hud import mark_point, recording_dot, write_lines
from stream.media import cv2
from stream.metrics import Metrics
from stream.render import colormap as colormaps
from stream.render.layout import GAP_PX, Layout
from stream.render.range import parse_range
from stream.render.renderer import Renderer
from stream.sinks.base import Sink

MESSAGE_S = 4.0
REDRAW_S = 0.5


class Models(Protocol):
    """The models that may be switched between; see `multi_inference.Switching`."""

    @property
    def names(self) -> Sequence[str]: ...

    current: int


class Preview:
    """The picture on show, and everything that can be done to it.

    Args:
        renderer: the preview's own: files have another, so a viewer changes nothing in them.
        models: switched with `m`; None where there is one.
        range_text: what the renderer's range policy was made from.
        record: makes the sink of a recording at a path.
        name: what files are called after: `NAME_20261231-235959.png`.
        folder: where snapshots and recordings go.
        say: told of each file that was written.
        writes_text: draw messages, numbers and marks into the picture; a page shows them beside it.
        clock, now: monotonic seconds, and the date for names.
    """

    def __init__(
        self,
        renderer: Renderer,
        *,
        models: Models | None = None,
        range_text: str = "ema",
        record: Callable[[Path], Sink] | None = None,
        name: str = "depthstream",
        folder: Path = Path(),
        say: Callable[[str], None] = lambda _note: None,
        writes_text: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.renderer, self.models, self._range_text = renderer, models, range_text
        self.metrics: Metrics | None = None
        """For the numbers; set by whoever runs the pipeline."""
        self.log: Callable[[], CaptureLog] = CaptureLog
        """Of the source, for the numbers."""
        self.frozen = self.shows_hud = self.shows_help = False
        self._make_recording, self._name, self._folder, self._say = record, name, folder, say
        self._clock, self._now, self._writes_text = clock, now, writes_text
        self._recordings: dict[int, Path] = {}
        self._recorded = 0
        self._info: SourceInfo | None = None
        self._result: tuple[Frame, Depth] | None = None
        self._rendered: RgbImage | None = None
        self._cursor: tuple[float, float] | None = None
        self._recording: Sink | None = None
        self._message, self._message_until_s = "press ? for help" if writes_text else "", clock() + MESSAGE_S
        self._changed = self._restyled = False
        self._waiting, self._drawn_s = "", 0.0

    @property
    def is_recording(self) -> bool:
        """A recording started by the viewer is running."""
        return self._recording is not None

    def open(self, info: SourceInfo) -> None:
        """Tell what is being shown; before the first picture."""
        self._info = info

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the picture for frames of `size_hw`, in the layout of now."""
        return self.renderer.output_size(size_hw)

    def show(self, frame: Frame, depth: Depth) -> RgbImage | None:
        """The picture of a new result, uint8 H×W×3; None while frozen. A running recording gets it either way."""
        if self._recording is not None or not self.frozen:
            image = self.renderer.render(frame, depth)
            if self._recording is not None:
                with self._told():
                    self._record(self._recording, frame, depth, image)
            if not self.frozen:
                self._result, self._rendered, self._restyled = (frame, depth), image, False
        return None if self.frozen else self._drawn()

    def refresh(self) -> RgbImage | None:
        """The picture on show once more, where an action or the end of a message changed it since; else None."""
        now_s = self._clock()
        if self._message and now_s >= self._message_until_s:
            self._message, self._changed = "", True
        if self._writes_text and (waiting := self.log().waiting) != self._waiting:
            self._waiting, self._changed = waiting, True
        if self._writes_text and self.shows_hud and now_s - self._drawn_s >= REDRAW_S:
            self._changed = True  # the numbers go on while no picture comes
        if not self._changed or self._result is None:
            return None
        if self._restyled:
            self._rendered, self._restyled = self.renderer.render(*self._result, same_range=True), False
        return self._drawn()

    def do(self, action: Action) -> None:
        """Carry out what a viewer asked for; what fails (a full disk) is told, and ends nothing else."""
        self._changed = True
        with self._told():
            self._do(action)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A viewer's snapshot or recording that cannot be written is the viewer's to know of, not the run's end."""
        try:
            yield
        except StreamError as error:
            self._say(str(error))
            self.tell(str(error))

    def _do(self, action: Action) -> None:
        match action:
            case Action.FREEZE:
                self.frozen = not self.frozen
                self.tell("frozen; space goes on" if self.frozen else "live")
            case Action.SNAPSHOT:
                self._save()
            case Action.RECORD:
                self._toggle_recording()
            case Action.NEXT_COLORMAP | Action.PREVIOUS_COLORMAP:
                step = 1 if action is Action.NEXT_COLORMAP else -1
                names = list(colormaps.NAMES)
                self._restyled = True
                self.renderer.colormap = names[(names.index(self.renderer.colormap) + step) % len(names)]
                self.tell(f"colormap {self.renderer.colormap}")
            case Action.NEXT_LAYOUT:
                layouts = list(Layout)
                self._restyled = True
                self.renderer.layout = layouts[(layouts.index(self.renderer.layout) + 1) % len(layouts)]
                self._cursor = None
                self.tell(f"layout {self.renderer.layout.value}")
            case Action.NEXT_MODEL:
                self._next_model()
            case Action.HUD:
                self.shows_hud = not self.shows_hud
            case Action.HELP:
                self.shows_help = not self.shows_help
            case Action.STRONGER | Action.WEAKER:
                step_by = ALPHA_STEP if action is Action.STRONGER else -ALPHA_STEP
                self._restyled = True
                self.renderer.alpha = round(min(1.0, max(0.0, self.renderer.alpha + step_by)), 2)
                self.tell(f"overlay {self.renderer.alpha:.0%}")

    def press(self, key: str) -> None:
        """Carry out what `KEYS` has for a key; other keys do nothing."""
        if key in KEYS:
            self.do(KEYS[key])

    def command(self, name: str, value: object) -> None:
        """Carry out what a page sent; what makes no sense is answered with a message and changes nothing."""
        match name, value:
            case "layout", str() if value in set(Layout):
                self.renderer.layout = Layout(value)
                self._cursor, self._restyled, self._changed = None, True, True
            case "colormap", str() if value in colormaps.NAMES:
                self.renderer.colormap = value
                self._restyled = self._changed = True
            case "alpha", int() | float() if 0 <= value <= 1:
                self.renderer.alpha = float(value)
                self._restyled = self._changed = True
            case "range", str():
                self._set_range(value)
            case "model", str() if self.models is not None and value in self.models.names:
                self.models.current = list(self.models.names).index(value)
                self.tell(f"model {value}")
            case "freeze", bool():
                if value != self.frozen:
                    self.do(Action.FREEZE)
            case "record", bool():
                if value != self.is_recording:
                    self.do(Action.RECORD)
            case _:
                self.tell(f"{name[:20]} cannot be {str(value)[:40]}")

    def state(self) -> dict[str, Any]:
        """Everything a page shows beside the picture, ready for JSON."""
        log, now = self.log(), self.metrics
        rows: list[tuple[str, str]] = []
        ages: list[float] = []
        if now is not None:
            rates = (("camera", now.capture_rate), ("model", now.model_rate), ("shown", now.output_rate))
            rows += [(name, f"{rate.per_s:.1f} fps") for name, rate in rates]
            ages = [round(age * 1000, 1) for percent in (50, 95) if (age := now.recent_latency_s(percent)) is not None]
            rows += [(name, f"{age:.0f} ms") for name, age in zip(("age", "age, 95 % below"), ages, strict=False)]
            rows += [(cause.replace("_", " "), f"{n} dropped") for cause, n in {**log.dropped, **now.dropped}.items()]
            rows.append(("frames", str(now.written)))
        if log.reconnects:
            rows.append(("reconnected", f"{log.reconnects} times"))
        if self.renderer.current_range is not None:
            rows.append(("range", "{:.4g} to {:.4g}".format(*self.renderer.current_range)))
        names = [] if self.models is None else list(self.models.names)
        return {
            "layout": self.renderer.layout.value,
            "layouts": [layout.value for layout in Layout],
            "colormap": self.renderer.colormap,
            "colormaps": list(colormaps.NAMES),
            "alpha": self.renderer.alpha,
            "range": self._range_text,
            "model": names[self.models.current] if self.models is not None else self._model(),
            "models": names,
            "frozen": self.frozen,
            "recording": self.is_recording,
            "recordings": [(number, path.name) for number, path in self._recordings.items()],
            "message": self._message,
            "waiting": log.waiting,
            "numbers": rows,
            "ages": ages,
        }

    def snapshot_files(self) -> tuple[bytes, bytes] | None:
        """The picture on show as PNG, and its raw depth as .npy; None before the first. From any thread."""
        result, rendered = self._result, self._rendered
        if result is None or rendered is None:
            return None
        ok, png = cv2.imencode(".png", cv2.cvtColor(rendered, cv2.COLOR_RGB2BGR))
        if not ok:
            return None
        depth = io.BytesIO()
        np.save(depth, result[1].values)
        return png.tobytes(), depth.getvalue()

    def recordings(self) -> dict[int, Path]:
        """Finished recordings by number. From any thread."""
        return dict(self._recordings)

    def _set_range(self, text: str) -> None:
        kind = DepthKind.RELATIVE_DISPARITY if self._result is None else self._result[1].kind
        try:
            self.renderer.range_policy = parse_range(text.strip(), kind=kind)
        except ConfigError as error:
            self.tell(str(error))
            return
        self._range_text, self._restyled, self._changed = text.strip(), True, True
        self.tell(f"range {text.strip()}")

    def point_at(self, x: int, y: int) -> None:
        """Tell the depth at this pixel of the picture on show, from now on; a click into the gap ends that."""
        self._changed = True
        self._cursor = None
        if self._result is None:
            return
        height, width = self._result[0].size
        if self.renderer.layout is Layout.SIDE and x >= width + GAP_PX:
            x -= width + GAP_PX
        if 0 <= x < width and 0 <= y < height:
            self._cursor = x / width, y / height  # frames may change size

    def tell(self, message: str) -> None:
        """Show a line for some seconds."""
        self._message, self._message_until_s, self._changed = message, self._clock() + MESSAGE_S, True

    def close(self) -> None:
        """Complete a running recording; one that holds nothing leaves nothing. What fails is told."""
        with self._told():
            self._end_recording()

    def _end_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        if not self._recorded:
            recording.abort(RuntimeError("nothing was recorded"))
        else:
            recording.finish()
            self._recordings |= {len(self._recordings): Path(path) for path in recording.outputs}
            self._say(f"recorded {', '.join(recording.outputs)}")

    def depth_at_cursor(self) -> str | None:
        """`1.52 m` for metric models, else the disparity; None where nothing was clicked."""
        if self._cursor is None or self._result is None:
            return None
        depth = self._result[1]
        height, width = depth.size
        value = float(depth.values[int(self._cursor[1] * height), int(self._cursor[0] * width)])
        return f"{value:.2f} m" if depth.kind is DepthKind.METRIC_DEPTH else f"disparity {value:.4g}"

    def numbers(self) -> list[str]:
        """The lines of the HUD."""
        lines: list[str] = []
        log = self.log()
        if self.metrics is not None:
            now = self.metrics
            rates = (("camera", now.capture_rate), ("model", now.model_rate), ("shown", now.output_rate))
            lines.append("  ".join(f"{name} {rate.per_s:.1f} fps" for name, rate in rates))
            ages = [age * 1000 for percent in (50, 95) if (age := now.recent_latency_s(percent)) is not None]
            if ages:
                lines.append(f"age {ages[0]:.0f} ms, 95% below {ages[1]:.0f} ms")
            dropped = {**log.dropped, **now.dropped}
            if dropped:
                causes = ", ".join(f"{count} {cause.replace('_', ' ')}" for cause, count in dropped.items())
                lines.append(f"dropped {causes}")
        if log.waiting or log.reconnects:
            lines.append(log.waiting or f"reconnected {log.reconnects} times")
        kind = self.renderer.layout.value
        if self.renderer.layout is Layout.OVERLAY:
            kind += f" {self.renderer.alpha:.0%}"
        parts = [self._model(), kind, self.renderer.colormap]
        if self.renderer.current_range is not None:
            parts.append("{:.4g} to {:.4g}".format(*self.renderer.current_range))
        return [*lines, "  ".join(part for part in parts if part)]

    def _record(self, recording: Sink, frame: Frame, depth: Depth, image: RgbImage) -> None:
        try:
            recording.write(frame, depth, image)
        except BaseException as error:
            self._recording = None
            recording.keep_partial(str(error))
            raise
        self._recorded += 1

    def _model(self) -> str:
        if self._result is not None and self._result[1].model:
            return self._result[1].model
        return "" if self.models is None else self.models.names[self.models.current]

    def _drawn(self) -> RgbImage | None:
        self._changed = False
        if self._rendered is None or self._result is None:
            return None
        if not self._writes_text:
            return self._rendered
        self._drawn_s = self._clock()
        picture = self._rendered.copy()
        self._mark(picture)
        write_lines(picture, HELP if self.shows_help else self.numbers() if self.shows_hud else [])
        if bottom := self._waiting or self._message:
            write_lines(picture, [bottom], at_bottom=True)
        if self._recording is not None:
            recording_dot(picture)
        return picture

    def _mark(self, picture: RgbImage) -> None:
        text = self.depth_at_cursor()
        if text is None or self._cursor is None or self._result is None:
            return
        height, width = self._result[0].size
        x, y = int(self._cursor[0] * width), int(self._cursor[1] * height)
        points = [(x, y)] if self.renderer.layout is not Layout.SIDE else [(x, y), (x + width + GAP_PX, y)]
        mark_point(picture, points, text)

    def _next_model(self) -> None:
        if self.models is None or len(self.models.names) < 2:
            self.tell("one model is loaded; give several with -m A -m B")
            return
        self.models.current = (self.models.current + 1) % len(self.models.names)
        self.tell(f"model {self.models.names[self.models.current]}")

    def _toggle_recording(self) -> None:
        if self._recording is not None:
            done, count = self._recording, self._recorded
            self._end_recording()
            self.tell(f"recorded {Path(done.outputs[0]).name}" if count else "nothing was recorded")
        elif self._make_recording is not None and self._info is not None and self._result is not None:
            path = self._free(".mp4")
            recording = self._make_recording(path)
            # As live: it starts when the viewer says so, not at the file's time.
            recording.open(replace(self._info, is_live=True), self.output_size(self._result[0].size))
            self._recording, self._recorded = recording, 0
            self.tell(f"recording {path.name}")

    def _save(self) -> None:
        if self._result is None or self._rendered is None:
            return
        path, (_, depth) = self._free(".png"), self._result
        ok, png = cv2.imencode(".png", cv2.cvtColor(self._rendered, cv2.COLOR_RGB2BGR))
        if not ok:
            raise SinkError("cannot encode the picture", where=str(path))
        partial = path.with_suffix(".partial")
        try:
            partial.write_bytes(png.tobytes())
            partial.rename(path)
            with partial.open("wb") as file:
                np.save(file, depth.values)
            partial.rename(path.with_suffix(".npy"))
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise SinkError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
        self._say(f"saved {path} and {path.stem}.npy")
        self.tell(f"saved {path.name} and .npy")

    def _free(self, suffix: str) -> Path:
        """A name that no file has, with any suffix that is written here."""
        stem, number = f"{self._name}_{self._now():%Y%m%d-%H%M%S}", 1
        candidate = stem
        while any(os.path.lexists(self._folder / f"{candidate}{s}") for s in (".png", ".npy", ".mp4", ".partial.mp4")):
            number += 1
            candidate = f"{stem}-{number}"
        return self._folder / f"{candidate}{suffix}"
