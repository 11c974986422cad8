"""Command lines in processes of their own that start in milliseconds: forks of one that has imported the program.

Importing torch takes seconds of CPU in each fresh interpreter. What tests the interpreter's own start or end (what is
imported, variables that it reads, its flush at exit) needs a fresh one all the same.
"""

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

_IMPORTED = [
    "torch",
    "stream.cli.main",
    "stream.jobs.run",
    "stream.jobs.segments.resume",
    "stream.infer.engine",
    "stream.models.registry",
    "stream.models.starter",
    "stream.render.renderer",
    "stream.sinks.video",
]
"""What a run of a video imports that takes long, and that starts no thread: these do not outlive a fork."""
END_S = 120.0
"""How long a command may take."""


def start(
    arguments: Sequence[str],
    *,
    code: str | None = None,
    stdin: IO[Any] | int | None = None,
    stdout: IO[Any] | int | None = None,
    stderr: IO[Any] | int | None = None,
    cwd: Path | None = None,
    first: Callable[[], object] | None = None,
) -> ForkServerProcess:
    """Run `depthstream` with these arguments.

    Args:
        code: Python to run instead, with `sys.argv` as after `python -c`.
        stdin: a file or its descriptor, as the other streams; None is `/dev/null`.
        cwd: its current folder; None is this process's.
        first: is called in the new process before its streams are looked at; must be picklable.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_IMPORTED)
    with open(os.devnull, "r+b") as null:
        streams = tuple(_Stream(_descriptor(null if one is None else one)) for one in (stdin, stdout, stderr))
        process = server.Process(target=_work, args=(list(arguments), code, streams, dict(os.environ), cwd, first))
        process.start()
    return process


def run(arguments: Sequence[str], **how: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run `depthstream` to its end, see `start`; its stdout and stderr are in the result."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(arguments, stdout=out, stderr=err, **how)
        code = ended(process)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())


def ended(process: ForkServerProcess, within_s: float = END_S) -> int:
    """The exit code of a process, negative for a signal; one that does not end in time is killed and fails the test."""
    process.join(within_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"did not end within {within_s:.0f} s")
    return process.exitcode


@dataclass(frozen=True)
class _Stream:
    """An open file that is handed to the new process."""

    descriptor: int

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.descriptor),)


def _received(sent: Any) -> _Stream:
    return _Stream(sent.detach())


def _descriptor(file: IO[Any] | int) -> int:
    return file if isinstance(file, int) else file.fileno()


def _work(
    arguments: list[str],
    code: str | None,
    streams: tuple[_Stream, ...],
    environment: Mapping[str, str],
    cwd: Path | None,
    first: Callable[[], object] | None,
) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream.descriptor, number)
        os.close(stream.descriptor)
    os.environ.clear()
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    if first is not None:
        first()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        text = _text(number)
        for attribute in (name, f"__{name}__"):  # as the interpreter, which keeps them open by the second
            setattr(sys, attribute, text)
    sys.argv = ["depthstream" if code is None else "-c", *arguments]
    exec(code or "from stream.cli.main import main; main()", {"__name__": "__main__"})


def _text(number: int) -> io.TextIOWrapper | None:
    """A standard stream as a fresh interpreter opens it; None if it is closed."""
    try:
        os.fstat(number)
    except OSError:
        return None
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    binary = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115  the stream closes it
    return io.TextIOWrapper(binary, encoding, errors="backslashreplace", line_buffering=number == 2)
