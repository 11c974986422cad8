"""Downloading a published weights file into a folder, once, and verifying it.

Invariant: a file under its final name is complete and, if the published sha256 or git blob is known, has that; an
incomplete file is called `NAME.part`.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ModelError
from stream.models.spec import ModelSpec
from stream.models.weights.download import Download, OnTransfer, Transfer, by_hand, disk_full, part_size, size_text
from stream.models.weights.locks import locked
from stream.notes import note

__all__ = ["Fetched", "OnTransfer", "Transfer", "by_hand", "fetch", "largest_file", "size_text"]

TIMEOUT_S = 30.0
"""Limit for connecting, and for each wait for more data."""
ATTEMPTS = 4
"""Attempts in a row without progress (4 kB) before giving up; progress restarts the count."""
_IDLE_S = ATTEMPTS * TIMEOUT_S
"""How long another process may download nothing before it is waited for no longer."""
_LIMIT_S = 12 * 3600.0
_BLOCK_BYTES = 1 << 20
_COPIES = 2
"""The published files hold their parameters once, and position tables."""
_BESIDE_BYTES = 64_000_000
"""What a file may hold beside the parameters."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A complete file; `sha256` is None if another process has downloaded it in the meantime."""

    path: Path
    sha256: str | None


def largest_file(spec: ModelSpec, copies: int) -> int:
    """The most bytes that a file with `copies` of the model's parameters as float32 can have."""
    return _BESIDE_BYTES + round(copies * 4e6 * spec.parameters_m)


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
            connection breaks or the disk is full, or another process that downloads it does not get on. After an
            interruption `NAME.part` stays; otherwise nothing does.
    """
    url, name = spec.weights.url, spec.weights.file
    target = folder / name
    folder = target.parent
    if url is None:
        raise _unpublished(spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(
            folder / f".{target.name}.lock",
            waiting=f"{name}: waiting for another process that is downloading it",
            progress=lambda: part_size(target),
            idle_s=_IDLE_S,
            limit_s=_LIMIT_S,
        ):
            if target.is_file():
                return Fetched(path=target, sha256=None)
            note(f"downloading {name} to {folder}")
            if spec.licence_note:
                note(spec.licence_note)
            most = largest_file(spec, _COPIES)
            download = Download(url, target, name=name, on_progress=on_progress, timeout_s=timeout_s, most_bytes=most)
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
    digest, known = download.digest.hexdigest(), spec.weights
    if not known.is_verifiable:
        note(f"{known.file}: not verified, because the publisher's sha256 is unknown")
    found = [("sha256", digest, known.sha256)]
    if known.git_blob is not None:
        found.append(("git blob", git_blob(download.part.path), known.git_blob))
    for what, computed, published in found:
        if published not in (None, computed):
            download.part.remove()
            raise ModelError(
                f"deleted the download, which is not the published file: {what} {computed} instead of {published}",
                where=download.url,
                hint=f"run again, or {by_hand(download.target.parent)}",
            )
    os.replace(download.part.path, download.target)
    download.part.remove()
    return digest


def git_blob(path: Path) -> str:
    """The hex name that git gives a file's content, by SHA-1; `git hash-object FILE` prints it. Raises `OSError`."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        digest = hashlib.sha1(f"blob {length}\0".encode(), usedforsecurity=False)
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _unpublished(spec: ModelSpec) -> ModelError:
    what = f"the weights ({spec.weights.file}) were never published"
    return ModelError(what, where=spec.name, hint="if you have the file, pass it with --weights")
