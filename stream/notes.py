"""Notes to people: each is said once.

Invariant: a note never changes what a run does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def once(on_note: Callable[[str], None] | None) -> "Notes":
    """`on_note`, made to say each note once and to remember them all."""
    return Notes(on_note or (lambda _note: None))


class Notes:
    """Says each note once; `said` holds all, in order."""

    def __init__(self, on_note: Callable[[str], None]) -> None:
        self.said: dict[str, None] = {}
        self._on_note = on_note

    def __call__(self, note: str) -> None:
        """Say `note` unless it was said."""
        if note not in self.said:
            self.said[note] = None
            self._on_note(note)
