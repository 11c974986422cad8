"""What every test shares: no test may leave a pipeline thread behind."""

import threading
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test after which a new thread is still alive two seconds later."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2
    while (left := [t for t in threading.enumerate() if t not in before]) and time.monotonic() < deadline:
        left[0].join(0.05)
    assert not left, f"threads left: {left}"
