"""What a viewer can do, and carrying it out.

Invariant: a key and a control of the page that mean the same call the same method, so both have the same effect.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

from stream.errors import ConfigError
from stream.frames import DepthKind
from stream.live.recording import Recorder
from stream.live.view import View
from stream.render import colormap as colormaps
from stream.render.layout import Layout
from stream.render.range import parse_range

T = TypeVar("T")
ALPHA_STEP = 0.1


class Action(StrEnum):
    """What a key can do; the values are the texts of the help."""

    FREEZE = "freeze or resume"
    SNAPSHOT = "save the image and its raw depth"
    RECORD = "start or stop recording"
    NEXT_COLORMAP = "next colormap"
    PREVIOUS_COLORMAP = "previous colormap"
    NEXT_LAYOUT = "next layout"
    NEXT_MODEL = "next model"
    NUMBERS = "show or hide the numbers"
    STRONGER = "stronger overlay"
    WEAKER = "weaker overlay"
    HELP = "show or hide this help"


KEYS: dict[str, Action] = {
    " ": Action.FREEZE,
    "s": Action.SNAPSHOT,
    "r": Action.RECORD,
    "c": Action.NEXT_COLORMAP,
    "C": Action.PREVIOUS_COLORMAP,
    "v": Action.PREVIOUS_COLORMAP,
    "l": Action.NEXT_LAYOUT,
    "m": Action.NEXT_MODEL,
    "h": Action.NUMBERS,
    "+": Action.STRONGER,
    "=": Action.STRONGER,
    "-": Action.WEAKER,
    "?": Action.HELP,
}
"""`=` is the key of `+` without shift. `v` repeats `C` because OpenCV's Qt windows, those of its Linux wheel, do not
distinguish `C` from `c` (OpenCV 5.0)."""
_KEY_NAMES = {" ": "space", "C": "C, v"}
HELP = [
    *(f"{_KEY_NAMES.get(key, key):>5}  {action.value}" for key, action in KEYS.items() if key not in ("=", "v")),
    "click  depth at that point",
    "    q  quit (or Esc)",
]


class Models(Protocol):
    """The loaded models that a viewer can switch between; `current` is the index of the one in use."""

    @property
    def names(self) -> Sequence[str]: ...

    current: int


class Actions:
    """Carries out what viewers ask for, by key or from a page.

    Args:
        view: the state to change.
        recorder: writes snapshots and recordings.
        models: None if one model is loaded.
    """

    def __init__(self, view: View, recorder: Recorder, models: Models | None) -> None:
        self._view, self._recorder, self._models = view, recorder, models

    def press(self, key: str) -> None:
        """Carry out the action of a key; keys that are not in `KEYS` do nothing."""
        if key in KEYS:
            self.do(KEYS[key])

    def command(self, name: str, value: object) -> None:
        """Carry out what a page sent; a command that makes no sense changes nothing and shows a message."""
        match name, value:
            case "layout", str() if value in set(Layout):
                self._set_layout(Layout(value))
            case "colormap", str() if value in colormaps.NAMES:
                self._set_colormap(value)
            case "alpha", int() | float() if 0 <= value <= 1:
                self._set_alpha(float(value))
            case "range", str():
                self._set_range(value.strip())
            case "model", str() if self._models is not None and value in self._models.names:
                self._set_model(self._models, list(self._models.names).index(value))
            case "freeze", bool():
                self._freeze(value)
            case "record", bool():
                self._record(value)
            case _:
                self._view.show_message(f"{name[:20]} cannot be {str(value)[:40]}")

    def take_kind(self, kind: DepthKind) -> None:
        """What follows is of this kind: a fixed range in the numbers of another one gives way."""
        before, self._view.kind = self._view.kind, kind
        fixed = self._view.range_text
        if before not in (None, kind) and ":" in fixed:
            self._set_range("ema")
            self._view.show_message(f"range ema: {fixed} was for numbers of another kind")

    def do(self, action: Action) -> None:
        """Carry out an action."""
        view, renderer = self._view, self._view.renderer
        view.needs_drawing = True
        match action:
            case Action.FREEZE:
                self._freeze(not view.frozen)
            case Action.SNAPSHOT:
                if view.shown is not None:
                    self._recorder.save(view.shown)
            case Action.RECORD:
                self._record(not self._recorder.is_recording)
            case Action.NEXT_COLORMAP:
                self._set_colormap(_neighbour(colormaps.NAMES, renderer.colormap, 1))
            case Action.PREVIOUS_COLORMAP:
                self._set_colormap(_neighbour(colormaps.NAMES, renderer.colormap, -1))
            case Action.NEXT_LAYOUT:
                self._set_layout(_neighbour(list(Layout), renderer.layout, 1))
            case Action.NEXT_MODEL:
                if self._models is None or len(self._models.names) < 2:
                    view.show_message("only one model is loaded; load several with -m A -m B")
                else:
                    self._set_model(self._models, (self._models.current + 1) % len(self._models.names))
            case Action.NUMBERS:
                view.shows_numbers = not view.shows_numbers
            case Action.STRONGER:
                self._set_alpha(renderer.alpha + ALPHA_STEP)
            case Action.WEAKER:
                self._set_alpha(renderer.alpha - ALPHA_STEP)
            case Action.HELP:
                view.shows_help = not view.shows_help

    def _freeze(self, frozen: bool) -> None:
        if frozen != self._view.frozen:
            self._view.frozen = frozen
            self._view.show_message("frozen; press space to resume" if frozen else "live")

    def _record(self, record: bool) -> None:
        if record == self._recorder.is_recording:
            return
        if not record:
            self._recorder.stop()
        elif self._view.shown is not None:
            self._recorder.start(self._view.renderer.output_size(self._view.shown.frame.size))

    def _set_colormap(self, name: str) -> None:
        self._view.renderer.colormap = name
        self._view.restyle()
        self._view.show_message(f"colormap {name}")

    def _set_layout(self, layout: Layout) -> None:
        self._view.renderer.layout = layout
        self._view.clear_point()
        self._view.restyle()
        self._view.show_message(f"layout {layout.value}")

    def _set_alpha(self, alpha: float) -> None:
        within = round(min(1.0, max(0.0, alpha)), 2)
        self._view.renderer.alpha = within
        self._view.restyle()
        self._view.show_message(f"overlay {within:.0%}")

    def _set_range(self, text: str) -> None:
        if self._view.kind is None and ":" in text:
            self._view.show_message(f"range {text} is possible from the first image on")
            return
        try:
            policy = parse_range(text, kind=self._view.kind or DepthKind.RELATIVE_DISPARITY)
            self._view.renderer.range_policy = policy
        except ConfigError as error:
            self._view.show_message(str(error))
            return
        self._view.range_text = text
        self._view.restyle()
        self._view.show_message(f"range {text}")

    def _set_model(self, models: Models, index: int) -> None:
        models.current = index
        self._view.show_message(f"model {models.names[index]}")


def _neighbour(values: Sequence[T], value: T, step: int) -> T:
    """The value `step` places further, starting again after the last."""
    return values[(list(values).index(value) + step) % len(values)]
