"""Command lines in processes of their own that start in milliseconds: forks of one that has imported the program."""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

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


def start(arguments: Sequence[str], errors: Path) -> ForkServerProcess:
    """Run `depthstream` with these arguments in the current folder; its stderr goes into a file."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_IMPORTED)
    process = server.Process(target=_work, args=(list(arguments), errors))
    process.start()
    return process


def _work(arguments: list[str], errors: Path) -> None:
    from stream.cli.main import main

    with open(errors, "wb") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["depthstream", *arguments]
    main()
