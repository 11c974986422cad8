"""The one way to buckets and file servers: fsspec's file systems, their errors in one line, and bounded retries.

Invariant: a lost connection is tried again `len(PAUSES_S)` times and each time announced; every error that leaves is a
`StreamError` that names the URL and holds no secret.
"""

import errno
import filecmp
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from stream.errors import (
    MissingExtraError,
    SourceError,
    SourceNotFoundError,
    StreamError,
    reason_of,
    without_secrets,
)
from stream.notes import note
from stream.remote.urls import Place, login_hint, parse, server_of

T = TypeVar("T")
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each further attempt."""
CONNECT_S = 15.0
_PART_BYTES, _MOST_PARTS = 16 << 20, 10_000
"""Of an upload; S3 takes parts of 5 MiB to 5 GiB."""
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "sftp": "paramiko"}
_LIBRARY_ERRORS = {
    "s3": ("botocore.exceptions.BotoCoreError", "botocore.exceptions.ClientError", "aiohttp.ClientError"),
    "gs": ("gcsfs.retry.HttpError", "google.auth.exceptions.GoogleAuthError", "aiohttp.ClientError"),
    "sftp": ("paramiko.SSHException",),
}
"""What the libraries raise beside `OSError`."""
_NO_LOGIN = frozenset(
    ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError", "RefreshError")
)
_REFUSED = frozenset(("AuthenticationException", "BadAuthenticationType", "PasswordRequiredException"))
_WRONG_CALL = frozenset(("ParamValidationError", "InvalidRegionError", "NoRegionError", "UnknownServiceError"))
_UNKNOWN_HOST = ("BadHostKeyException", "not found in known_hosts")
_PERMANENT = (errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS, errno.EPERM, getattr(errno, "EREMCHG", errno.ENOENT))
"""Numbers that s3fs gives to refusals; it gives EIO, EREMOTEIO and EBUSY to failures that may pass."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file in a bucket or on a server.

    Attributes:
        url: of the file.
        size: bytes.
        etag: changes with the content; of a server, the time of the last change. "" if unknown.
    """

    url: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return parse(self.url).name


class Remote:
    """The bucket or server of a URL.

    Args:
        url: of anything in it.
        kind: the error that is raised, `SourceError` while reading or `SinkError` while writing.
        timeout_s: of each wait for data.
        stop: ends the pauses between attempts.

    Raises:
        MissingExtraError: the package for this kind of URL is not installed.
        UsageError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        kind: type[StreamError] = SourceError,
        timeout_s: float = 30.0,
        stop: threading.Event | None = None,
    ) -> None:
        self.place, self._kind, self._timeout_s = parse(url), kind, timeout_s
        self._stop = stop or threading.Event()
        check_installed(self.place.scheme)
        self._errors = _errors_of(self.place.scheme)
        self._system: Any = None
        self._losses = 0

    def stop(self) -> None:
        """End the wait for a lost connection, from any thread."""
        self._stop.set()

    def state(self, url: str) -> Entry:
        """The size and ETag of one file.

        Raises:
            SourceNotFoundError: there is none.
        """
        found = self.call(lambda system: system.info(self.path_of(url)), url)
        if found.get("type") == "directory":
            raise SourceNotFoundError("is a folder", where=url, hint=f"name it with a / at its end: {url}/")
        return self._entry(found)

    def named(self, url: str) -> Entry | None:
        """The file of this very name; None if `url` is a folder, or a glob and there is no such file.

        Raises:
            SourceNotFoundError: it is no glob, and there is no such file.
        """
        place = parse(url)
        if place.is_folder or (place.is_pattern and not self.exists(url)):
            return None
        return self.state(url)

    def files(self, url: str, *, recursive: bool = True, prefix: str = "") -> list[Entry]:
        """The files below a folder, or those that match a glob, by name. A thousand take about one request.

        Args:
            recursive: not only those in the folder itself.
            prefix: of the names in the folder, if `recursive`; others are not listed.

        Raises:
            SourceNotFoundError: there is no such bucket or folder.
        """
        path, place = self.path_of(url), parse(url)
        if place.is_pattern:
            found = self.call(lambda system: system.glob(path, detail=True), url).values()
        elif recursive:
            how = {"prefix": prefix} if prefix and place.scheme != "sftp" else {}
            found = self.call(lambda system: system.find(path, detail=True, **how), url).values()
        else:
            found = self.call(lambda system: system.ls(path, detail=True), url)
        wanted = [one for one in found if one.get("type") == "file" and not one["name"].endswith("/")]
        if prefix:
            wanted = [one for one in wanted if one["name"].removeprefix(path).lstrip("/").startswith(prefix)]
        return sorted(map(self._entry, wanted), key=lambda entry: entry.url)

    def exists(self, url: str) -> bool:
        """Whether there is a file of this name, or a folder that is not empty."""
        return bool(self.call(lambda system: system.exists(self.path_of(url)), url))

    def read(self, url: str) -> bytes:
        """The content of a small file."""
        return bytes(self.call(lambda system: system.cat_file(self.path_of(url)), url))

    def read_all(self, urls: list[str]) -> list[bytes]:
        """The contents of small files, none of them empty, fetched side by side."""
        if not urls:
            return []
        paths, starts, ends = [self.path_of(url) for url in urls], [0] * len(urls), [None] * len(urls)

        def fetch(system: Any) -> list[Any]:
            found = list(system.cat_ranges(paths, starts, ends))  # to read all of it, s3fs asks for the size first
            for one in found:
                if isinstance(one, BaseException):
                    raise one
            return found

        return [bytes(one) for one in self.call(fetch, urls[0])]

    def opened(self, system: Any, entry: Entry) -> Any:
        """A file object for reading that keeps nothing; for an `action` of `call`.

        Raises:
            SourceError: the file is another one than it was.
        """
        path = self.path_of(entry.url)
        if self._entry(system.info(path)) != entry:
            raise self._changed(entry.url)
        return system.open(path, "rb", cache_type="none")

    def fetch(self, url: str, path: Path) -> None:
        """Download one file."""
        self.call(lambda system: system.get_file(self.path_of(url), os.fspath(path)), url)

    def upload(self, path: Path, url: str, *, replace: bool) -> None:
        """Upload a file. It is there under its name when it is complete, or not at all.

        Raises:
            FileExistsError: it exists, and `replace` is False.
            SinkError: it cannot be uploaded.
        """
        target = self.path_of(url)
        if self.place.scheme == "sftp":
            self.call(lambda system: _put_beside(system, path, target, replace=replace), url)
            return
        how: dict[str, Any] = {"mode": "overwrite" if replace else "create"}
        if self.place.scheme == "s3":  # by default, ten parts of 50 MB are in memory
            how |= {"chunksize": max(_PART_BYTES, path.stat().st_size // _MOST_PARTS + 1), "max_concurrency": 4}
        self.call(lambda system: system.put_file(os.fspath(path), target, **how), url)

    def holds(self, url: str, path: Path) -> bool:
        """Whether a file that is there is this one."""
        if self.state(url).size != path.stat().st_size:
            return False
        with TemporaryDirectory(prefix="depthstream-") as folder:
            self.fetch(url, Path(folder, "found"))
            return filecmp.cmp(Path(folder, "found"), path, shallow=False)

    def remove(self, urls: list[str]) -> None:
        """Delete files."""
        if urls:
            self.call(lambda system: system.rm([self.path_of(url) for url in urls]), urls[0])

    def path_of(self, url: str) -> str:
        """As fsspec takes it."""
        place = parse(url)
        return place.path if place.scheme == "sftp" else f"{place.host}/{place.path}".rstrip("/")

    def call(self, action: Callable[[Any], T], url: str, *, on_retry: Callable[[str], None] = note) -> T:
        """Do something with the file system; what fails because of the connection is tried again.

        Args:
            action: is given fsspec's file system.
            url: for messages.
            on_retry: called with a line before each further attempt.

        Raises:
            StreamError: it has failed.
            FileExistsError: `action` raised it.
        """
        for attempt, pause_s in enumerate((*PAUSES_S, None), 1):
            try:
                return action(self._connected())
            except FileExistsError:
                raise
            except self._errors as error:
                final = self._final(error, url)
                if final is None and (pause_s is None or self._stop.is_set()):
                    final = self._failed(error, url)
                if final is not None or pause_s is None:
                    without_secrets(error)
                    raise final or self._failed(error, url) from error
                self._system = None
                self._losses += 1
                so_far = f", {self._losses} losses so far" if self._losses > attempt else ""  # no line comes twice
                on_retry(f"{url}: connection lost ({_short(error)}); retry {attempt} of {len(PAUSES_S)}{so_far}")
                self._stop.wait(pause_s)
        raise AssertionError("unreachable")

    def _connected(self) -> Any:
        if self._system is None:
            self._system = _system(self.place, self._timeout_s)
        return self._system

    def _entry(self, found: dict[str, Any]) -> Entry:
        name = str(found["name"])
        path = name if self.place.scheme == "sftp" else name.partition("/")[2]
        stamp = found.get("ETag") or found.get("etag") or found.get("mtime") or ""
        return Entry(url=self.place.with_path(path), size=int(found.get("size") or 0), etag=str(stamp).strip('"'))

    def _final(self, error: BaseException, url: str) -> StreamError | None:
        """The error if trying again is of no use, else None."""
        scheme, name = self.place.scheme, type(error).__name__
        if isinstance(error, FileNotFoundError):
            what = "no such file or bucket" if scheme != "sftp" else "no such file or folder"
            missing = SourceNotFoundError if self._kind is SourceError else self._kind
            return missing(what, where=url, hint="check the name")
        if name in _NO_LOGIN:
            return self._kind("no credentials found", where=url, hint=login_hint(scheme))
        if isinstance(error, PermissionError) or name in _REFUSED:
            why = "" if name in _REFUSED else f" ({_short(error)})"
            return self._kind(f"access denied{why}", where=url, hint=login_hint(scheme))
        if name == _UNKNOWN_HOST[0] or _UNKNOWN_HOST[1] in str(error):
            hint = f"connect once with `ssh {self.place.host.partition(':')[0]}`, and check its key"
            return self._kind("the key of the server is not in known_hosts, or another one", where=url, hint=hint)
        if getattr(error, "errno", None) == errno.EINVAL and "pre-condition" in str(error).lower():
            return self._changed(url)
        code = getattr(error, "code", None)  # gcsfs
        refused = code is not None and str(code).isdecimal() and 400 <= int(code) < 500 and int(code) not in (408, 429)
        if isinstance(error, ValueError) or name in _WRONG_CALL or getattr(error, "errno", 0) in _PERMANENT or refused:
            return self._failed(error, url)
        return None

    def _changed(self, url: str) -> StreamError:
        return self._kind("has changed while it was read", where=url, hint="start again")

    def _failed(self, error: BaseException, url: str) -> StreamError:
        doing = "reading" if self._kind is SourceError else "writing"
        return self._kind(f"{doing} failed: {_short(error)}", where=url, hint="check the connection and the address")


def shared(url: str) -> Remote:
    """The bucket or server of `url` for reading, the same each time: opening a connection takes 0.3 s."""
    place = parse(url)
    return _shared(place.with_path(""))


@lru_cache(maxsize=8)
def _shared(root: str) -> Remote:
    return Remote(root)


def check_installed(scheme: str) -> None:
    """Raise `MissingExtraError` without the packages for `scheme`."""
    for package in ("fsspec", _PACKAGES[scheme]):
        try:
            import_module(package)
        except ImportError as error:
            hint = "pip install 'depthstream[remote]'"
            raise MissingExtraError(f"{package} is not installed", where=f"{scheme}://", hint=hint) from error


def _errors_of(scheme: str) -> tuple[type[BaseException], ...]:
    found: list[type[BaseException]] = [OSError, EOFError, ValueError]  # the last for what is no name of a bucket
    for name in _LIBRARY_ERRORS[scheme]:
        module, _, kind = name.rpartition(".")
        found.append(getattr(import_module(module), kind))
    return tuple(found)


def _system(place: Place, timeout_s: float) -> Any:
    """A new file system, which keeps no listings. Retries are ours alone, but for the parts of an upload."""
    import fsspec

    if place.scheme == "sftp":
        return _sftp(place, timeout_s)
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if place.scheme == "s3":
        limits = {"connect_timeout": min(CONNECT_S, timeout_s), "read_timeout": timeout_s}
        options["config_kwargs"] = {**limits, "retries": {"total_max_attempts": 1}}
    system = fsspec.filesystem(place.scheme, **options)
    system._expand_path = _exactly
    if place.scheme == "s3":
        system.retries = 1
    return system


async def _exactly(path: list[str], **_how: Any) -> list[str]:
    """The names that `rm` and `cat` are given: they would take those with `[` for globs."""
    return path


def _sftp(place: Place, timeout_s: float) -> Any:
    """A connection to a server whose key is known. fsspec's own would accept any key."""
    import paramiko
    from fsspec.implementations.sftp import SFTPFileSystem

    host, port, user = server_of(place)
    asked = paramiko.SSHConfig()
    config = Path("~/.ssh/config").expanduser()
    if config.is_file():
        asked = paramiko.SSHConfig.from_path(os.fspath(config))
    known = asked.lookup(host)

    class KnownServer(SFTPFileSystem):  # type: ignore[misc]
        cachable = False

        def _connect(self) -> None:
            self.client = paramiko.SSHClient()
            self.client.load_system_host_keys()
            self.client.connect(self.host, **self.ssh_kwargs)
            self.ftp = self.client.open_sftp()
            self.ftp.get_channel().settimeout(timeout_s)

        def expand_path(self, path: list[str], **_how: Any) -> list[str]:
            return path

    return KnownServer(
        known.get("hostname", host),
        port=port or int(known.get("port", 22)),
        username=user or known.get("user"),
        key_filename=known.get("identityfile"),
        timeout=min(CONNECT_S, timeout_s),
        banner_timeout=timeout_s,
        auth_timeout=timeout_s,
        skip_instance_cache=True,
    )


def _put_beside(system: Any, path: Path, target: str, *, replace: bool) -> None:
    """Upload to a server under another name, which then becomes the final one."""
    if not replace and system.exists(target):
        raise FileExistsError(errno.EEXIST, "exists", target)
    folder, _, name = target.rpartition("/")
    system.makedirs(folder or "/", exist_ok=True)
    partial = f"{folder}/.{name}.partial"
    system.put_file(os.fspath(path), partial)
    system.ftp.posix_rename(partial, target)


def _short(error: BaseException) -> str:
    """The reason in one short line."""
    text = " ".join(reason_of(error).split())
    return text if len(text) <= 160 else f"{text[:160]}…"
