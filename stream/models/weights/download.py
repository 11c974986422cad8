"""One file's way over the network onto the disk: resumed after breaks, hashed as it comes.

Invariant: what lies in `NAME.part` is the beginning of the file that `NAME.part.json` identifies, and `digest` is the
sha256 of all of it once `run` has returned.
"""

import hashlib
import http.client
import json
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stream.errors import ModelError
from stream.version import __version__

_FIRST_WAIT_S = 1.0
"""Doubled after each attempt."""
_CHUNK_BYTES = 1 << 18
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_PAGES_BUT_XML = (b"<!doctype", b"<html")
_PAGES = (*_PAGES_BUT_XML, b"<?xml")
_PASSING = (408, 429)
"""Refusals besides 5xx that pass: request timeout, too many requests (RFC 9110, RFC 6585)."""
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How far a download is.

    Attributes:
        file: name of the file.
        done_bytes: on the disk, `resumed_bytes` of them from an earlier run.
        total_bytes: None where the server does not say.
    """

    file: str
    done_bytes: int
    total_bytes: int | None
    resumed_bytes: int = 0


OnTransfer = Callable[[Transfer], None]


def size_text(size_bytes: int) -> str:
    """`1.3 GB`, `99 MB`, `3 kB`; powers of ten, as download pages count."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def by_hand(folder: Path, url: str = "it") -> str:
    """What to do where the program cannot download; `url` where the error has not named it."""
    return f"fetch {url} by hand and put it into {folder}, or pass it with --weights"


def no_room(folder: Path, url: str, what: str) -> ModelError:
    """The error for a disk that is too small."""
    hint = f"free some space, or fetch {url} onto another disk by hand and pass it with --weights"
    return ModelError(what, where=str(folder), hint=hint)


class _Broken(Exception):
    """The transfer broke in a way that may pass."""


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Which state of a file a server speaks of: a strong ETag or else a date (RFC 9110, 8.8), and its length."""

    validator: str | None
    total_bytes: int | None


class _Part:
    """The part of `target` that is on the disk."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._about = target.with_name(f"{target.name}.part.json")

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self) -> _Version | None:
        """None where it is not known, so that the part is useless."""
        try:
            content = json.loads(self._about.read_text(encoding="utf-8"))
            return _Version(**content)
        except (FileNotFoundError, ValueError, TypeError):  # cut off or not ours
            return None

    def begin(self, version: _Version) -> None:
        """Forget what is there; from now on it is a part of `version`."""
        self.remove()
        self._about.write_text(json.dumps(vars(version)), encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)


class Download:
    """One file's way from `url` to `part`, beside `target`.

    Args:
        on_progress: told at every chunk (256 KiB at most).
        timeout_s: for connecting, and for each wait for more data.

    Attributes:
        digest: the sha256 of what is there.
    """

    def __init__(self, url: str, target: Path, *, on_progress: OnTransfer | None, timeout_s: float) -> None:
        self.url, self.target = url, target
        self.part = _Part(target)
        self.digest = hashlib.sha256()
        self._digested = 0
        self._resumed: int | None = None
        self._on_progress, self._timeout_s = on_progress, timeout_s
        self._opener = urllib.request.build_opener(_Redirects)

    def run(self, *, attempts: int, sleep: Callable[[float], None]) -> None:
        """Attempt until the part is the whole file, or until `attempts` in a row have brought nothing new.

        Args:
            sleep: waits that many seconds; from attempt to attempt they double.

        Raises:
            ModelError: refused, not reachable, cut off, a web page, or no room.
            OSError: the part cannot be written.
        """
        failed, most = 0, self.part.size_bytes
        while True:
            try:
                self._attempt()
                return
            except _Broken as error:
                got = self.part.size_bytes
                failed = 1 if got > most else failed + 1
                most = max(most, got)
                if failed >= attempts:
                    again = f"run again to go on after {size_text(got)}" if got else "try again later"
                    raise ModelError(
                        f"the download failed{f' {failed} times, at last' if failed > 1 else ''}: {error}",
                        where=self.url,
                        hint=f"{again}, or {by_hand(self.target.parent)}",
                    ) from error
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
            answered = _version(response)
            if start and not _goes_on(response, start, version, answered):
                start = 0
                if response.status == http.client.PARTIAL_CONTENT:
                    self.part.remove()
                    raise _Broken("the file changed meanwhile")
            self._check_room(answered.total_bytes, start)
            with _network():
                chunk = response.read1(_CHUNK_BYTES)
            if start:
                self._digest_part(start)
            else:
                pages = _PAGES if self.target.suffix != ".xml" else _PAGES_BUT_XML
                if chunk.lstrip().lower().startswith(pages):
                    raise self._is_page()
                self.part.begin(answered)
                self.digest, self._digested = hashlib.sha256(), 0
            if self._resumed is None or not start:
                self._resumed = start
            self._save(response, chunk, answered.total_bytes)

    def _save(self, response: http.client.HTTPResponse, chunk: bytes, total: int | None) -> None:
        with self.part.path.open("ab") as file:
            while chunk:
                file.write(chunk)
                self.digest.update(chunk)
                self._digested += len(chunk)
                if self._on_progress is not None:
                    self._on_progress(
                        Transfer(
                            file=self.target.name,
                            done_bytes=self._digested,
                            total_bytes=total,
                            resumed_bytes=self._resumed or 0,
                        )
                    )
                with _network():
                    chunk = response.read1(_CHUNK_BYTES)
        if not self._digested or (total is not None and self._digested < total):
            of = f" of {size_text(total)}" if total else ""
            raise _Broken(f"the connection ended after {size_text(self._digested)}{of}")

    def _digest_part(self, size_bytes: int) -> None:
        """Bring `digest` up to what lies on the disk; within a run nothing is read twice."""
        if self._digested == size_bytes:
            return
        self.digest, self._digested = hashlib.sha256(), size_bytes
        with self.part.path.open("rb") as file:
            while block := file.read(_CHUNK_BYTES):
                self.digest.update(block)

    @contextmanager
    def _answer(self, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """A response that brings (a part of) the file; refusals become errors."""
        request = urllib.request.Request(self.url, headers=dict(headers))
        try:
            with _network():
                response = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as refusal:
            refusal.close()
            answer = f"the server answers {refusal.code} ({refusal.reason})"
            if refusal.code == _RANGE_NOT_SATISFIABLE:
                self.part.remove()
                raise _Broken(answer) from refusal
            if refusal.code >= 500 or refusal.code in _PASSING:
                raise _Broken(answer) from refusal
            raise ModelError(answer, where=self.url, hint=by_hand(self.target.parent)) from refusal
        except ssl.SSLCertVerificationError as error:
            what = f"the server's certificate cannot be verified: {error.verify_message}"
            raise ModelError(what, where=self.url, hint=by_hand(self.target.parent)) from error
        with response:
            yield response

    def _is_page(self) -> ModelError:
        what = "a web page came instead of the file (a login, a proxy?)"
        return ModelError(what, where=self.url, hint=by_hand(self.target.parent))

    def _check_room(self, total: int | None, start: int) -> None:
        folder = self.target.parent
        free = shutil.disk_usage(folder).free
        if total is not None and total - start > free:
            needs = f"{size_text(total - start)} to download, but {size_text(free)} free"
            raise no_room(folder, self.url, needs)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects (Hugging Face and GitHub answer with one), but never from https to something weaker."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """See the base class."""
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            fp.close()
            what = f"redirects from https to {newurl}, which is not followed"
            raise ModelError(what, where=req.full_url, hint="fetch it by hand and pass it with --weights")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _network() -> Iterator[None]:
    """Make `_Broken` of what a network does, so that an `OSError` elsewhere is one of the disk."""
    try:
        yield
    except (urllib.error.HTTPError, ssl.SSLCertVerificationError):
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise error.reason from error
        raise _Broken(f"cannot be reached: {error.reason}") from error
    except TimeoutError as error:
        raise _Broken("no data came in time") from error
    except (http.client.HTTPException, OSError) as error:
        raise _Broken(f"the connection broke: {error or type(error).__name__}") from error


def _version(response: http.client.HTTPResponse) -> _Version:
    tag, length = response.headers.get("ETag"), response.headers.get("Content-Length")
    if response.status == http.client.PARTIAL_CONTENT:
        length = response.headers.get("Content-Range", "").rpartition("/")[2]
    is_strong = tag is not None and not tag.startswith("W/")
    return _Version(
        validator=tag if is_strong else response.headers.get("Last-Modified"),
        total_bytes=int(length) if length and length.isdigit() else None,
    )


def _goes_on(response: http.client.HTTPResponse, start: int, wanted: _Version | None, answered: _Version) -> bool:
    """True if a response is the rest, from `start` on, of the file the part is of.

    A 206 may leave the date out (RFC 9110, 15.3.7), so a missing validator contradicts nothing.
    """
    return (
        response.status == http.client.PARTIAL_CONTENT
        and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        and wanted is not None
        and wanted.total_bytes == answered.total_bytes
        and (answered.validator is None or wanted.validator == answered.validator)
    )
