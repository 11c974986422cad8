"""Notes reach the caller and the log, each once, from any thread of a run."""

import logging
import threading
from contextvars import copy_context

import pytest

from stream.notes import Notes, announce, collected, note


def test_each_note_is_passed_on_once_and_in_order(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    with caplog.at_level(logging.INFO, "depthstream"), collected(Notes(heard.append)) as notes:
        for text in ("a", "b", "a"):
            note(text)
    assert heard == notes.said == ["a", "b"]
    assert [(record.levelname, record.message) for record in caplog.records] == [("INFO", "a"), ("INFO", "b")]


def test_two_runs_do_not_hear_each_other() -> None:
    with collected(Notes()) as outer:
        note("outer")
        with collected(Notes()) as inner:
            note("inner")
        note("outer again")
    assert (outer.said, inner.said) == (["outer", "outer again"], ["inner"])


def test_a_thread_started_in_a_copy_of_the_context_belongs_to_the_run() -> None:
    with collected(Notes()) as notes:
        thread = threading.Thread(target=copy_context().run, args=(note, "from a thread"))
    thread.start()
    thread.join()
    assert notes.said == ["from a thread"]


def test_outside_of_a_run_a_note_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "depthstream"):
        note("alone")
    assert caplog.messages == ["alone"]


def test_an_announcement_is_kept_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    with caplog.at_level(logging.DEBUG, "depthstream"), collected(Notes(heard.append)) as notes:
        announce("token")
    announce("to nobody")
    assert (heard, notes.said, caplog.messages) == (["token"], [], [])
