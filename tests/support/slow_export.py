"""A child process that exports slowly, or fails, in the place of that of `stream.infer.backends.child`.

It needs no torch, so it starts quickly.
"""

import errno
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from stream.errors import ModelError
from stream.infer.backends import child
from tests.support.paths import REPOSITORY


def command(folder: Path, how: str) -> list[str]:
    """Starts `main` in a process of its own."""
    call = f"from tests.support.slow_export import main; main(Path({str(folder)!r}), {how!r})"
    code = f"import sys; sys.path[:] = {[str(REPOSITORY), *sys.path]!r}; from pathlib import Path; {call}"
    return [sys.executable, "-P", "-c", code]


def export_and_wait(folder: Path, cache: Path) -> None:
    """Start a child, and wait for it."""
    child.command = lambda: command(folder, "works")
    request = child.Request(
        origin={}, weights_sha256="", backend="", precision="", batch=1, provider="", size_hw=(1, 1), folder=cache
    )
    child.export(request, stop=threading.Event())


def main(folder: Path, how: str) -> None:
    """Do as the real child does, but instead of exporting wait for the file `go` and copy the folder `made`.

    Args:
        folder: has these two; gets a line in `started` for each child.
        how: `works`, `refuses`, `fills`: the disk is full, or `dies`.
    """

    def export(request: child.Request) -> None:
        with (folder / "started").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not (folder / "go").exists():
            time.sleep(0.01)
        if how == "refuses":
            raise ModelError("differs from torch", where="tiny")
        if how == "fills":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        shutil.copytree(folder / "made", request.folder, dirs_exist_ok=True)

    child._export = export
    child.main()
