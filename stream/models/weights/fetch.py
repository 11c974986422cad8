"""Fetching a published weights file into a folder: once, whole and checked.

Invariant: a file under its final name is complete and, where its sha256 is known, the published one; anything less is
`NAME.part`.
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
from stream.models.weights.download import Download, OnTransfer, Transfer, by_hand, no_room, size_text

__all__ = ["Fetched", "OnNote", "OnTransfer", "Transfer", "by_hand", "fetch", "size_text"]

TIMEOUT_S = 30.0
"""For connecting, and for each wait for more data."""
ATTEMPTS = 4
"""In a row; one that brings something new starts the count again."""
OnNote = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A complete file; `sha256` is None where another process fetched it meanwhile."""

    path: Path
    sha256: str | None


def fetch(
    spec: ModelSpec,
    folder: Path,
    *,
    on_progress: OnTransfer | None = None,
    on_note: OnNote | None = None,
    timeout_s: float = TIMEOUT_S,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Download the weights of `spec` into `folder`, going on where a broken download ended.

    A second process that wants the same file waits for the first one and then finds it there.

    Args:
        on_progress: told at every chunk (256 KiB at most).
        on_note: told the licence if it is a non-commercial one, and that a file cannot be verified.
        timeout_s: for connecting, and for each wait for more data.
        attempts: in a row, see `ATTEMPTS`; the waits between them double from one second.
        sleep: waits that many seconds.

    Raises:
        ModelError: not published, not reachable, refused, no room, cut off, or not the published file. What a broken
            connection left stays as `NAME.part`; nothing else does.
    """
    from filelock import FileLock, Timeout

    url, target = spec.weights.url, folder / spec.weights.file
    if url is None:
        raise _unpublished(spec)
    say = on_note or (lambda _note: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{target.name}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"{target.name}: another process is downloading it; waiting for that")
            lock.acquire()
        with contextlib.ExitStack() as held:
            held.callback(lock.release)
            if target.is_file():
                return Fetched(path=target, sha256=None)
            say(f"downloading {target.name} to {folder}")
            if spec.licence_note:
                say(spec.licence_note)
            download = Download(url, target, on_progress=on_progress, timeout_s=timeout_s)
            download.run(attempts=attempts, sleep=sleep)
            return Fetched(path=target, sha256=_verified(spec, download, say))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room(folder, url, "the disk is full") from error
        raise ModelError(
            f"cannot be written: {error.strerror or error}",
            where=str(folder),
            hint=f"fetch {url} by hand and pass it with --weights",
        ) from error


def _verified(spec: ModelSpec, download: Download, say: OnNote) -> str:
    """Move a complete download into place if it is the published file."""
    digest = download.digest.hexdigest()
    if spec.weights.sha256 is None:
        say(f"{spec.weights.file}: unverified, its publisher's sha256 is not known")
    elif digest != spec.weights.sha256:
        download.part.remove()
        raise ModelError(
            f"what came is not the published file: its sha256 is {digest} instead of {spec.weights.sha256}; removed",
            where=download.url,
            hint=f"run again, or {by_hand(download.target.parent)}",
        )
    os.replace(download.part.path, download.target)
    download.part.remove()
    return digest


def _unpublished(spec: ModelSpec) -> ModelError:
    what = f"its weights {spec.weights.file} are published nowhere"
    return ModelError(what, where=spec.name, hint="pass a file you have with --weights")
