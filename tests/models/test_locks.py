"""Locks of other processes: a wait is said and ends, and who was waited for is named."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.errors import ModelError
from stream.infer.backends.cache import ModelCache
from stream.models.weights import locks
from stream.models.weights.locks import locked
from stream.notes import Notes, collected

HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[int]:
    """The number of a process that holds `tmp_path / "a.lock"` and is stopped."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGSTOP)
        yield process.pid
        process.kill()


def test_a_stopped_process_is_waited_for_and_named(tmp_path: Path, stopped: int) -> None:
    with (
        collected(Notes()) as notes,
        pytest.raises(ModelError) as caught,
        locked(tmp_path / "a.lock", waiting="waiting", idle_s=0.1),
    ):
        raise AssertionError
    assert notes.said == ["waiting"]
    assert f"for process {stopped} (" in str(caught.value)
    assert "stopped), which holds this lock; end it, or wait" in str(caught.value)


def test_a_process_that_gets_on_is_waited_for(tmp_path: Path, stopped: int) -> None:
    steps = iter(range(5))

    def progress() -> int:
        if (step := next(steps)) == 3:
            os.kill(stopped, signal.SIGKILL)
        return step

    with locked(tmp_path / "a.lock", waiting="waiting", progress=progress, idle_s=0.0):
        assert next(steps) >= 4


def test_where_the_holder_is_unknown_the_wait_ends(
    tmp_path: Path, stopped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LOCKS", tmp_path / "nothing")
    with (
        pytest.raises(ModelError, match=r"a\.lock: waited 0 s for another process, which holds"),
        locked(tmp_path / "a.lock", waiting="waiting", idle_s=0.0, limit_s=0.1),
    ):
        raise AssertionError


def test_a_cached_export_is_waited_for(tmp_path: Path, stopped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "IDLE_S", 0.1)
    monkeypatch.setattr("stream.infer.backends.cache._name", lambda _key: "a")
    with collected(Notes()) as notes, pytest.raises(ModelError, match=f"process {stopped}"):
        ModelCache(tmp_path).entry({}, lambda _folder: {})
    assert notes.said == ["waiting for another process that exports the same model"]
