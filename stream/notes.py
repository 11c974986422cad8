"""Notes: what a program tells people while it works, each once, to the caller and to the logger `depthstream`.

Invariant: a note never changes what a run does, and none is lost: where nobody listens it still reaches the log.

Any module calls `note`; nothing hands a callback down. The current run is a context variable, so a thread of a run must
be started in a copy of the context.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from stream.errors import shown

logger = logging.getLogger("depthstream")
"""Notes are INFO; skipped inputs and warnings are WARNING, which Python prints to stderr unless the host program has
configured logging."""

OnNote = Callable[[str], None]


class Notes:
    """The notes of one run, each once, in order. Thread-safe.

    Args:
        on_note: called with each note, once, on the thread on which it arises.
    """

    def __init__(self, on_note: OnNote | None = None) -> None:
        self._on_note = on_note
        self._said: dict[str, None] = {}
        self._lock = threading.Lock()

    @property
    def said(self) -> list[str]:
        """Every note so far."""
        return list(self._said)

    def add(self, text: str) -> None:
        """Pass on `text`, printable and without secrets, unless it was said before."""
        text = shown(text)
        with self._lock:
            if text in self._said:
                return
            self._said[text] = None
        logger.info(text)
        self.announce(text)

    def announce(self, text: str) -> None:
        """Pass `text` to the listener alone: it is neither kept nor logged (an address with a token in it)."""
        if self._on_note is not None:
            self._on_note(text)


_current: ContextVar[Notes | None] = ContextVar("depthstream_notes", default=None)


@contextmanager
def collected(notes: Notes) -> Iterator[Notes]:
    """Makes `notes` the ones that `note` adds to, in this context and in the threads that are started in a copy."""
    token = _current.set(notes)
    try:
        yield notes
    finally:
        _current.reset(token)


def current() -> Notes | None:
    """Those of the run that this context belongs to, if it belongs to one."""
    return _current.get()


def note(text: str) -> None:
    """Tell people `text`, once a run; outside of a run it is logged."""
    run = _current.get()
    if run is None:
        logger.info(shown(text))
    else:
        run.add(text)


def announce(text: str) -> None:
    """Tell the caller `text` and keep it nowhere; outside of a run nothing happens."""
    current = _current.get()
    if current is not None:
        current.announce(text)
