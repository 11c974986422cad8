"""Exports of a network for sizes that are asked for while torch computes.

Invariant: one process of a machine exports a network for a size and a runtime; others wait for it and use its files.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from stream.infer.backends import choose
from stream.infer.backends.cache import ModelCache
from stream.infer.backends.child import ChildError, Request, StoppedError, export
from stream.infer.backends.choose import BackendOptions
from stream.infer.backends.exported import Exported
from stream.machine import free_memory_bytes

BYTES_PER_PARAMETER, LEAST_BYTES = 16, 10**9
"""Memory that an export may take: the network, its program, the runtime's model and the check; and the libraries."""
_WAIT_S = 1.0


class Exporter:
    """Has exports made by child processes, and loads them.

    Args:
        options: of the backends.
        stop: ends every wait, and the child.
        notes: where it says what users should know.
    """

    def __init__(self, options: BackendOptions, *, stop: Event, notes: list[str]) -> None:
        self._options, self._stop, self._notes = options, stop, notes
        self._temporary: list[tempfile.TemporaryDirectory[str]] = []

    def get(self, name: str, size_hw: tuple[int, int]) -> Exported:
        """The backend called `name` with an export for inputs of (height, width), an earlier one or one made now.

        Raises:
            ModelError: the network cannot be exported, or the export differs too much from it.
            ChildError: it could not be made here and now.
            StoppedError: `stop` was set.
        """
        cache, backend = self._options.cache, choose.make(name, self._options)
        assert isinstance(backend, Exported)
        key = backend.key(backend.shape(size_hw))
        while not backend.load(size_hw):
            with ExitStack() as stack:
                try:
                    folder = stack.enter_context(cache.making(key))
                except OSError as error:
                    reason = f"{cache.folder} is not writable ({error.strerror})"
                    self._notes.append(f"{reason}; exported models are not kept")
                    return self._for_now(backend, size_hw)
                if folder is None:  # another process exports it
                    if self._stop.wait(_WAIT_S):
                        raise StoppedError
                elif not backend.load(size_hw):  # by a process that held the lock a moment ago
                    self._export(name, size_hw, folder)
                    if (made := ModelCache(folder).find(key)) is None:
                        raise ChildError("the export is incomplete")
                    cache.adopt(made)
        return backend

    def close(self) -> None:
        """Remove what is not kept."""
        while self._temporary:
            self._temporary.pop().cleanup()

    def _for_now(self, backend: Exported, size_hw: tuple[int, int]) -> Exported:
        """The backend with an export that is removed in the end."""
        self._temporary.append(tempfile.TemporaryDirectory(prefix="depthstream-", ignore_cleanup_errors=True))
        folder = Path(self._temporary[-1].name)
        self._export(backend.name, size_hw, folder)
        if not backend.load(size_hw, cache=ModelCache(folder)):
            raise ChildError("the export is incomplete")
        return backend

    def _export(self, name: str, size_hw: tuple[int, int], folder: Path) -> None:
        options = self._options
        need = int(options.model.spec.parameters_m * 1e6 * BYTES_PER_PARAMETER) + LEAST_BYTES
        free = free_memory_bytes()
        if free is not None and free < need:
            raise ChildError(f"to export it may take {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB is free")
        assert options.model.origin is not None
        request = Request(
            origin=options.model.origin,
            weights_sha256=options.model.weights_sha256,
            backend=name,
            precision=options.precision,
            batch=options.batch,
            provider=options.provider,
            size_hw=size_hw,
            folder=folder,
        )
        export(request, stop=self._stop)
