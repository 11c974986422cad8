"""Downloading one file: resumes after interruptions and hashes while it downloads.

Invariant: `NAME.part` is the beginning of the file that `NAME.part.json` identifies, and once `run` has returned,
`digest` is the sha256 of the whole file. Whatever a server sends, a download ends: it is bounded in bytes and in time.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stream.errors import ModelError
from stream.files import create_file, read_json
from stream.models.weights.connection import opener
from stream.version import __version__

_FIRST_WAIT_S = 1.0
"""Wait after the first failed attempt; doubles with each further one."""
_CHUNK_BYTES = 1 << 18
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_HTML = (b"<!doctype", b"<html")
_PAGES = (*_HTML, b"<?xml")
_TEMPORARY = (408, 429)
"""Temporary errors besides 5xx: request timeout, too many requests (RFC 9110, RFC 6585)."""
_RANGE_NOT_SATISFIABLE = 416
_LEAST_BYTES = 4096
"""What has to arrive within each timeout, and what an attempt has to bring to count as progress."""
_LEAST_RATE = 100_000
"""Bytes per second that a download has to reach on average."""
_LONGEST_START_S = 600.0
"""Time that a download may take beyond that."""
_DIGITS = re.compile(r"[0-9]+")
_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15})")
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,200}")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Progress of a download.

    Attributes:
        file: name of the file, with its folder if the catalog has one.
        done_bytes: bytes on the disk; `resumed_bytes` of them are from an earlier run.
        total_bytes: size of the file, None if the server does not say.
    """

    file: str
    done_bytes: int
    total_bytes: int | None
    resumed_bytes: int = 0


OnTransfer = Callable[[Transfer], None]


def size_text(size_bytes: int) -> str:
    """`1.3 GB`, `99 MB`, `3 kB`; in powers of ten, as on download pages."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def by_hand(folder: Path, url: str = "it") -> str:
    """The hint for a failed download; pass `url` if the error does not name it."""
    return f"download {url} by hand and put it into {folder}, or pass it with --weights"


def disk_full(folder: Path, url: str, what: str) -> ModelError:
    """The error for too little disk space."""
    hint = f"free some space, or download {url} to another disk by hand and pass it with --weights"
    return ModelError(what, where=str(folder), hint=hint)


class _TransferError(Exception):
    """The transfer failed for a reason that may be temporary."""


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Version of a file on the server: its strong ETag or else its date (RFC 9110, 8.8), and its length."""

    validator: str | None
    total_bytes: int | None


class _Part:
    """The part of `target` on the disk."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._about = target.with_name(f"{target.name}.part.json")

    @property
    def size_bytes(self) -> int:
        """Of the part; 0 if there is none, or something else has its name."""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def version(self) -> _Version | None:
        """The version the part belongs to; None if unknown, so that the part cannot be resumed."""
        content = read_json(self._about, most_bytes=10_000)
        if not isinstance(content, dict) or content.keys() != {"validator", "total_bytes"}:
            return None  # incomplete, or not written by this program
        validator, total = content["validator"], content["total_bytes"]
        if not isinstance(validator, str | None) or not isinstance(total, int | None):
            return None
        return _Version(validator=validator, total_bytes=total)

    def begin(self, version: _Version) -> None:
        """Discard the part and start one of `version`."""
        self.remove()
        with create_file(self._about) as file:
            file.write(json.dumps(vars(version)).encode())
        create_file(self.path).close()

    def open(self, flags: int) -> BinaryIO:
        """Open the part itself, never what a link of its name leads to. Raises `OSError`."""
        file = os.open(self.path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        return os.fdopen(file, "rb" if flags == os.O_RDONLY else "ab")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)


def part_size(target: Path) -> int:
    """Bytes of `target` that have been downloaded so far."""
    return _Part(target).size_bytes


class Download:
    """Downloads `url` to `part`, beside `target`.

    Args:
        name: of the file, for `on_progress`; None for that of `target`.
        on_progress: called after every chunk (256 KiB at most).
        timeout_s: limit for connecting, for the headers of an answer, and for each 4 kB of a file.
        most_bytes: the largest file that is taken.
        clock: seconds.

    Attributes:
        digest: the sha256 of the part.
    """

    def __init__(
        self,
        url: str,
        target: Path,
        *,
        name: str | None = None,
        on_progress: OnTransfer | None,
        timeout_s: float,
        most_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url, self.target, self._name = url, target, name or target.name
        self.part = _Part(target)
        self.digest = hashlib.sha256()
        self._digested = 0
        self._resumed: int | None = None
        self._on_progress, self._timeout_s = on_progress, timeout_s
        self._most_bytes, self._clock = most_bytes, clock
        self._limit_s = _LONGEST_START_S + most_bytes / _LEAST_RATE
        self._deadline = clock() + self._limit_s
        self._opener = opener(answer_s=timeout_s)

    def run(self, *, attempts: int, sleep: Callable[[float], None]) -> None:
        """Retry until the part is the whole file, or until `attempts` in a row have made no progress.

        Args:
            sleep: waits for a number of seconds, which doubles from attempt to attempt.

        Raises:
            ModelError: the server refuses or cannot be reached, the connection breaks, something else arrives instead
                of the file, it is too large or takes too long, or the disk has too little space.
            OSError: the part cannot be written.
        """
        failed, most = 0, self.part.size_bytes
        while True:
            try:
                self._attempt()
                return
            except _TransferError as error:
                got = self.part.size_bytes
                failed = 1 if got >= most + _LEAST_BYTES else failed + 1
                most = max(most, got)
                if failed >= attempts:
                    again = f"run again to resume after {size_text(got)}" if got else "try again later"
                    raise ModelError(
                        f"the download failed{f' {failed} times; last error' if failed > 1 else ''}: {error}",
                        where=self.url,
                        hint=f"{again}, or {by_hand(self.target.parent)}",
                    ) from error
            self._check_time()
            sleep(_FIRST_WAIT_S * 2 ** (failed - 1))

    def _attempt(self) -> None:
        start, version = self.part.size_bytes, self.part.version()
        if version is None:
            start = 0
        elif start and start == version.total_bytes:
            self._digest_part(start)
            return
        headers = {"User-Agent": f"depthstream/{__version__}", "Accept-Encoding": "identity"}
        if start and version is not None:
            headers["Range"] = f"bytes={start}-"
            if version.validator is not None:
                headers["If-Range"] = version.validator
        with self._answer(headers) as response:
            if response.headers.get_content_type() in _PAGE_TYPES:
                raise self._is_page()
            coding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if coding not in ("", "identity"):
                what = f"the server sent the file encoded ({coding[:20]}), although that was not asked for"
                raise ModelError(what, where=self.url, hint=by_hand(self.target.parent))
            answered = _version(response)
            if start and not _resumes(response, start, version, answered):
                start = 0
                if response.status == http.client.PARTIAL_CONTENT:
                    self.part.remove()
                    raise _TransferError("the file on the server has changed")
            self._check_size(answered.total_bytes)
            self._check_room(answered.total_bytes, start)
            with _network():
                chunk = response.read1(_CHUNK_BYTES)
            if start:
                self._digest_part(start)
            else:
                pages = _PAGES if self.target.suffix != ".xml" else _HTML
                if chunk.lstrip().lower().startswith(pages):
                    raise self._is_page()
                self.part.begin(answered)
                self.digest, self._digested = hashlib.sha256(), 0
            if self._resumed is None or not start:
                self._resumed = start
            self._save(response, chunk, answered.total_bytes)

    def _save(self, response: http.client.HTTPResponse, chunk: bytes, total: int | None) -> None:
        since, count = self._clock(), 0
        with self.part.open(os.O_WRONLY | os.O_APPEND) as file:
            while chunk:
                self._check_size(self._digested + len(chunk))
                file.write(chunk)
                self.digest.update(chunk)
                self._digested += len(chunk)
                if self._on_progress is not None:
                    self._on_progress(
                        Transfer(
                            file=self._name,
                            done_bytes=self._digested,
                            total_bytes=total,
                            resumed_bytes=self._resumed or 0,
                        )
                    )
                count += len(chunk)
                if (now := self._clock()) - since > self._timeout_s:
                    if count < _LEAST_BYTES:
                        raise _TransferError(f"only {count} bytes arrived in {self._timeout_s:.0f} s")
                    self._check_time()
                    since, count = now, 0
                with _network():
                    chunk = response.read1(_CHUNK_BYTES)
        if total is not None and self._digested > total:
            self.part.remove()
            raise _TransferError("the server sent more than it had announced")
        if not self._digested or (total is not None and self._digested < total):
            of = f" of {size_text(total)}" if total else ""
            raise _TransferError(f"the connection ended after {size_text(self._digested)}{of}")

    def _digest_part(self, size_bytes: int) -> None:
        """Bring `digest` up to date with the part on the disk; within a run nothing is read twice."""
        if self._digested == size_bytes:
            return
        self.digest, self._digested = hashlib.sha256(), size_bytes
        with self.part.open(os.O_RDONLY) as file:
            while block := file.read(_CHUNK_BYTES):
                self.digest.update(block)

    @contextmanager
    def _answer(self, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """A response with the file or a part of it; refusals become errors."""
        request = urllib.request.Request(self.url, headers=dict(headers))
        try:
            with _network():
                response = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as refusal:
            refusal.close()
            answer = f"the server answered {refusal.code} ({str(refusal.reason)[:200]})"
            if refusal.code == _RANGE_NOT_SATISFIABLE:
                self.part.remove()
                raise _TransferError(answer) from refusal
            if refusal.code >= 500 or refusal.code in _TEMPORARY:
                raise _TransferError(answer) from refusal
            raise ModelError(answer, where=self.url, hint=by_hand(self.target.parent)) from refusal
        except ssl.SSLCertVerificationError as error:
            what = f"the server's certificate cannot be verified: {error.verify_message}"
            raise ModelError(what, where=self.url, hint=by_hand(self.target.parent)) from error
        with response:
            yield response

    def _is_page(self) -> ModelError:
        what = "the server sent a web page instead of the file (a login page or a proxy?)"
        return ModelError(what, where=self.url, hint=by_hand(self.target.parent))

    def _check_size(self, size_bytes: int | None) -> None:
        if size_bytes is not None and size_bytes > self._most_bytes:
            self.part.remove()
            what = f"the server sends more than the {size_text(self._most_bytes)} that this file can have"
            raise ModelError(what, where=self.url, hint=by_hand(self.target.parent))

    def _check_time(self) -> None:
        if self._clock() > self._deadline:
            what = f"the download took longer than {self._limit_s / 3600:.1f} hours"
            hint = f"run again to go on, or {by_hand(self.target.parent)}"
            raise ModelError(what, where=self.url, hint=hint)

    def _check_room(self, total: int | None, start: int) -> None:
        folder = self.target.parent
        free = shutil.disk_usage(folder).free
        if total is not None and total - start > free:
            needs = f"{size_text(total - start)} to download, but only {size_text(free)} is free"
            raise disk_full(folder, self.url, needs)


@contextmanager
def _network() -> Iterator[None]:
    """Turn network errors into `_TransferError`, so that an `OSError` elsewhere is a disk error."""
    try:
        yield
    except (urllib.error.HTTPError, ssl.SSLCertVerificationError):
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise error.reason from error
        raise _TransferError(f"cannot be reached: {error.reason}") from error
    except TimeoutError as error:
        raise _TransferError("no data arrived in time") from error
    except (http.client.HTTPException, OSError, ValueError) as error:  # ValueError: a length that is no number
        raise _TransferError(f"the connection broke: {str(error)[:200] or type(error).__name__}") from error


def _version(response: http.client.HTTPResponse) -> _Version:
    tag, length = response.headers.get("ETag"), response.headers.get("Content-Length", "")
    if response.status == http.client.PARTIAL_CONTENT:
        length = (_RANGE.fullmatch(response.headers.get("Content-Range", "")) or ("",) * 3)[2]
    is_strong = tag is not None and not tag.startswith("W/")
    validator = (tag if is_strong else response.headers.get("Last-Modified")) or ""
    return _Version(
        validator=validator if _VALIDATOR.fullmatch(validator) else None,
        total_bytes=int(length[:20]) if _DIGITS.fullmatch(length) else None,
    )


def _resumes(response: http.client.HTTPResponse, start: int, wanted: _Version | None, answered: _Version) -> bool:
    """True if a response is the rest, from `start` on, of the file that the part belongs to.

    A 206 may omit the date (RFC 9110, 15.3.7), so a missing validator is not a mismatch.
    """
    answer = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (
        response.status == http.client.PARTIAL_CONTENT
        and answer is not None
        and int(answer[1]) == start
        and wanted is not None
        and wanted.total_bytes == answered.total_bytes
        and (answered.validator is None or wanted.validator == answered.validator)
    )
