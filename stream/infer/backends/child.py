"""Exports a network in a child process, so that frames are computed meanwhile: both ends of it.

Invariant: no child outlives the call that started it, nor this program; what it leaves behind lies in the folder that
the caller gave it, and removes.
"""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from stream.errors import ModelError, StreamError

NICENESS = 10
"""Of the child: it gets a tenth of a core that the run uses as well, and all of one that is free."""
_REFUSED = 3
"""Exit code: the network cannot be exported, or its outputs differ too much; the last line says why."""
_POLL_S = 0.1
_LAST_WORDS = 4096


class ChildError(Exception):
    """The child could not do its work here and now; another time it may."""


class StoppedError(Exception):
    """The child was ended because nobody needs the export any more."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to export.

    Attributes:
        origin: see `LoadedModel`.
        weights_sha256: of the file that it must lead to.
        backend, precision, batch, provider: see `BackendOptions`.
        size_hw: (height, width) of the network's input.
        folder: becomes the cache that holds the export.
    """

    origin: Mapping[str, Any]
    weights_sha256: str
    backend: str
    precision: str
    batch: int
    provider: str
    size_hw: tuple[int, int]
    folder: Path


def command() -> list[str]:
    """Starts the child. Its request comes through stdin, which stays open for as long as the parent lives."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from stream.infer.backends.child import main; main()"
    return [sys.executable, "-P", "-B", "-c", code]


def export(request: Request, *, stop: Event) -> None:
    """Export in a child process with low priority and one thread.

    Raises:
        ModelError: the network cannot be exported, or the export differs too much from it.
        ChildError: the child failed for another reason, such as a full disk, or was killed.
        StoppedError: `stop` was set.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | threads,
                start_new_session=True,  # Ctrl-C is this process's to handle
                creationflags=flags,
            )
        except OSError as error:
            raise ChildError(f"the export could not be started: {error.strerror or error}") from error
        try:
            assert process.stdin is not None
            try:
                process.stdin.write(pickle.dumps(request))
                process.stdin.flush()
            except BrokenPipeError:  # its exit code and its last words say more
                pass
            while process.poll() is None:
                if stop.wait(_POLL_S):
                    raise StoppedError
        finally:
            process.kill()
            process.communicate()
        if process.returncode == 0:
            return
        reason = _last_line(log)
        if process.returncode == _REFUSED:
            raise ModelError(reason)
        ended = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise ChildError(f"the export ended with {ended}{reason and f': {reason}'}")


def _last_line(log: Any) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_WORDS))
    lines = log.read().decode(errors="replace").strip().splitlines()
    return str(lines[-1]) if lines else ""


def main() -> None:
    """The child: does what the request on stdin says, and ends with the parent."""
    request: Request = pickle.load(sys.stdin.buffer)  # it comes from this same program
    threading.Thread(target=_end_with_parent, args=(request.folder,), daemon=True).start()
    if sys.platform != "win32":
        os.nice(NICENESS)
    try:
        _export(request)
    except StreamError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(_REFUSED)


def _end_with_parent(folder: Path) -> None:
    os.read(0, 1)  # returns when the parent closes its end, or the system does so for it
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _export(request: Request) -> None:
    import torch

    from stream.infer.backends.cache import ModelCache
    from stream.infer.backends.choose import BackendOptions, make
    from stream.models import registry

    torch.set_num_threads(1)
    model = registry.load(**request.origin)
    if model.weights_sha256 != request.weights_sha256:
        raise ModelError("the weights file has changed meanwhile", where=model.spec.name)
    options = BackendOptions(
        model=model,
        device=torch.device("cpu"),
        precision=request.precision,
        batch=request.batch,
        threads=1,
        provider=request.provider,
        cache=ModelCache(request.folder),
    )
    make(request.backend, options).prepare(request.size_hw)
