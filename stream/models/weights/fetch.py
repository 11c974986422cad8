"""Downloading a published weights file into a folder, once, and verifying it.

Invariant: a file under its final name is complete and, if the published sha256 is known, has that; an incomplete file
is called `NAME.part`.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ModelError
from stream.models.spec import ModelSpec
from stream.models.weights.download import Download, OnTransfer, Transfer, by_hand, disk_full, size_text
from stream.notes import note

__all__ = ["Fetched", "OnTransfer", "Transfer", "by_hand", "fetch", "size_text"]

TIMEOUT_S = 30.0
"""Limit for connecting, and for each wait for more data."""
ATTEMPTS = 4
"""Attempts in a row without progress before giving up; progress restarts the count."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A complete file; `sha256` is None if another process has downloaded it in the meantime."""

    path: Path
    sha256: str | None


def fetch(
    spec: ModelSpec,
    folder: Path,
    *,
    on_progress: OnTransfer | None = None,
    timeout_s: float = TIMEOUT_S,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Download the weights of `spec` into `folder`, resuming an interrupted download.

    If another process is downloading the same file, wait for it and use its file.

    Args:
        on_progress: called after every chunk (256 KiB at most).
        timeout_s: limit for connecting, and for each wait for more data.
        attempts: see `ATTEMPTS`; the waits between attempts double, starting at one second.
        sleep: waits for a number of seconds.

    Raises:
        ModelError: the file is not published or not the published one, the server refuses or cannot be reached, the
            connection breaks or the disk is full. After an interruption `NAME.part` stays; otherwise nothing does.
    """
    from filelock import FileLock, Timeout

    url, target = spec.weights.url, folder / spec.weights.file
    if url is None:
        raise _unpublished(spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{target.name}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            note(f"{target.name}: waiting for another process that is downloading it")
            lock.acquire()
        with contextlib.ExitStack() as held:
            held.callback(lock.release)
            if target.is_file():
                return Fetched(path=target, sha256=None)
            note(f"downloading {target.name} to {folder}")
            if spec.licence_note:
                note(spec.licence_note)
            download = Download(url, target, on_progress=on_progress, timeout_s=timeout_s)
            download.run(attempts=attempts, sleep=sleep)
            return Fetched(path=target, sha256=_verified(spec, download))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder, url, "the disk is full") from error
        raise ModelError(
            f"cannot be written: {error.strerror or error}",
            where=str(folder),
            hint=f"download {url} by hand and pass it with --weights",
        ) from error


def _verified(spec: ModelSpec, download: Download) -> str:
    """Move a complete download into place if it is the published file; returns its sha256."""
    digest = download.digest.hexdigest()
    if spec.weights.sha256 is None:
        note(f"{spec.weights.file}: not verified, because the publisher's sha256 is unknown")
    elif digest != spec.weights.sha256:
        download.part.remove()
        raise ModelError(
            f"deleted the download, which is not the published file: sha256 {digest} instead of {spec.weights.sha256}",
            where=download.url,
            hint=f"run again, or {by_hand(download.target.parent)}",
        )
    os.replace(download.part.path, download.target)
    download.part.remove()
    return digest


def _unpublished(spec: ModelSpec) -> ModelError:
    what = f"the weights ({spec.weights.file}) were never published"
    return ModelError(what, where=spec.name, hint="if you have the file, pass it with --weights")
