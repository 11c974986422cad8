"""What a Python program asks of the kernel, seen from outside of it: native code cannot do anything unseen."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_LEFT_OUT = ("XDG_", "ORT_", "TORCHINDUCTOR_")
"""Beginnings of environment variables: torch tells its subprocesses of the folder that the tests' own process uses."""
_CALLS = (
    "network,open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,io_uring_setup"
)
_ALLOWED = ("/dev/null", "/dev/shm/", "/dev/tty", "/proc/self/")
"""Where anything may write: shared memory is gone with the process."""


class Trace:
    """The system calls of a program and its children that concern networks and make files."""

    def __init__(self, lines: list[str], folder: Path) -> None:
        self._lines, self._folder = lines, folder

    @property
    def network(self) -> list[str]:
        """Sockets other than local ones, connections that were made, packets, and reads of the lists of hosts."""
        return [line for line in self._lines if _is_network(line)]

    @property
    def written_outside(self) -> list[str]:
        """Files and folders that were made or opened for writing outside of the folder."""
        return [line for line in self._lines if _writes(line) and not self._is_inside(line)]

    def _is_inside(self, line: str) -> bool:
        path = line.split('"')[1]
        start = re.search(r"\((?:AT_FDCWD|\d+)<([^>]*)>", line)
        path = os.path.normpath(os.path.join(start[1] if start else str(self._folder), path))
        return path.startswith((f"{self._folder}/", *_ALLOWED)) or path == str(self._folder)


def _is_network(line: str) -> bool:
    if re.search(r"\bsocket\((?!AF_UNIX)|\bio_uring_setup\(", line):
        return True
    if re.search(r"\bconnect\(", line):  # glibc asks a local cache of names, if there is one
        return "/nscd/" not in line or not line.endswith("(No such file or directory)")
    if re.search(r"\bsend(to|msg|mmsg)\(", line):
        return True
    return bool(re.search(r'"/etc/(hosts|resolv\.conf|gai\.conf)"', line))


def _writes(line: str) -> bool:
    if '"' not in line or re.search(r" = -1 E", line):
        return False
    made = r"O_WRONLY|O_RDWR|O_CREAT|\b(creat|mkdir(at)?|mknod(at)?|rename\w*|(sym)?link(at)?)\("
    return bool(re.search(made, line))


def trace(code: str, folder: Path) -> Trace:
    """Run Python code in a fresh process with its home and temporary files in `folder`, and without `CI`.

    Skips the test without strace, and fails it under CI.
    """
    if sys.platform != "linux" or shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("strace is needed (apt-get install strace)")
        pytest.skip("needs strace")
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith(_LEFT_OUT)}
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    log = folder / "calls"
    command = [
        "strace",
        "-y",
        "-f",
        "--seccomp-bpf",
        "-e",
        f"trace={_CALLS}",
        "-o",
        str(log),
        sys.executable,
        "-c",
        code,
    ]
    done = subprocess.run(command, cwd=folder, env=kept | places, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Trace(log.read_text(errors="replace").splitlines(), folder)
