"""An X server without a screen, for windows that are really opened."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Display(str):
    """The name of a display."""

    server: subprocess.Popen[bytes]

    def crash(self) -> None:
        """End the X server at once."""
        self.server.kill()
        self.server.wait(10)


@contextmanager
def virtual_display(width: int, height: int) -> Iterator[Display]:
    """The name of a display of this size; skips the test without Xvfb, and fails it under CI."""
    if shutil.which("Xvfb") is None:
        if os.environ.get("CI"):
            pytest.fail("Xvfb is needed (apt-get install xvfb)")
        pytest.skip("needs Xvfb")
    reader, writer = os.pipe()
    server = subprocess.Popen(
        # Without -noreset, the server begins anew whenever its last client has left, perhaps as the next one connects.
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as numbers:
            display = Display(f":{numbers.readline().strip()}")
            display.server = server
            yield display
    finally:
        server.terminate()
        server.wait(10)
