"""Waiting for what happens in other threads and processes."""

import time
from collections.abc import Callable
from typing import Any

WAIT_S = 60.0


def until(found: Callable[[], Any], what: str) -> Any:
    """What `found` gives as soon as it is true; fails after a minute."""
    give_up_s = time.monotonic() + WAIT_S
    while time.monotonic() < give_up_s:
        if value := found():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")
