"""What every test shares: no test may leave a pipeline thread behind, or use the user's cache of exported models."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from stream.notes import Notes, collected


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test after which a new thread is still alive two seconds later."""
    before = set(threading.enumerate())
    yield
    if _left(before):
        gc.collect()  # an engine that a caught exception's traceback keeps, and its threads
    deadline = time.monotonic() + 2
    while (left := _left(before)) and time.monotonic() < deadline:
        left[0].join(0.05)
    assert not left, f"threads left: {left}"


def _left(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads that are new, but for tqdm's, which torch's exporter starts once in a process."""
    return [thread for thread in threading.enumerate() if thread not in before and thread.name != "tqdm_monitor"]


@pytest.fixture(autouse=True)
def no_backend_of_the_users(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of one test are there for the next, but not those that whoever runs the tests has made before."""
    folder = tmp_path_factory.getbasetemp() / "backends"
    monkeypatch.setattr("stream.infer.backends.cache.cache_folder", lambda: folder)


@pytest.fixture
def notes() -> Iterator[list[str]]:
    """What is noted during the test."""
    noted: list[str] = []
    with collected(Notes(noted.append)):
        yield noted
