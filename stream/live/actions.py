"""What a viewer may ask for: keys and page share it."""

from enum import StrEnum

ALPHA_STEP = 0.1


class Action(StrEnum):
    """What a viewer may ask for; the values are the help's words."""

    FREEZE = "freeze"
    SNAPSHOT = "save this picture and its raw depth"
    RECORD = "start or stop recording"
    NEXT_COLORMAP = "next colormap"
    PREVIOUS_COLORMAP = "previous colormap"
    NEXT_LAYOUT = "next layout"
    NEXT_MODEL = "next model"
    HUD = "numbers"
    STRONGER = "stronger overlay"
    WEAKER = "weaker overlay"
    HELP = "this help"


KEYS: dict[str, Action] = {
    " ": Action.FREEZE,
    "s": Action.SNAPSHOT,
    "r": Action.RECORD,
    "c": Action.NEXT_COLORMAP,
    "C": Action.PREVIOUS_COLORMAP,
    "v": Action.PREVIOUS_COLORMAP,
    "l": Action.NEXT_LAYOUT,
    "m": Action.NEXT_MODEL,
    "h": Action.HUD,
    "+": Action.STRONGER,
    "=": Action.STRONGER,
    "-": Action.WEAKER,
    "?": Action.HELP,
}
"""`=` is the key of `+` without shift. OpenCV's Qt windows, those of its Linux wheel, do not tell `C` from `c` (5.0):
`v` does the same."""
_HELP_KEYS = {" ": "space", "C": "C, v"}
HELP = [
    *(f"{_HELP_KEYS.get(key, key):>5}  {action.value}" for key, action in KEYS.items() if key not in ("=", "v")),
    "click  depth at that point",
    "    q  quit (or Esc)",
]
