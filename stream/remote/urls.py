"""Which URLs name a file in a bucket or on a file server, and their parts.

Invariant: decided from the text alone; nothing is imported or opened. Such a URL holds no password and no key: logins
come from the environment and the configuration files of the libraries.
"""

from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from stream.errors import UsageError

SCHEMES = ("s3", "gs", "sftp")
"""Of URLs that are read and written through fsspec."""
_MAGIC = "*?["
_LOGIN = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    "sftp": "use a key of ~/.ssh or the SSH agent",
}
"""How a user logs in, by scheme."""


class Place(NamedTuple):
    """The parts of a URL.

    Attributes:
        scheme: one of `SCHEMES`.
        host: the bucket, or the server with user and port.
        path: the key in the bucket, or the absolute path on the server; no `/` in front of a key.
    """

    scheme: str
    host: str
    path: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def is_pattern(self) -> bool:
        """Whether the path may be a glob; a file of that very name comes first, see `Remote.named`."""
        return not self.is_folder and any(character in self.path for character in _MAGIC)

    @property
    def is_folder(self) -> bool:
        """Whether the text says that it names a folder: by a `/` at its end, or nothing but the bucket."""
        return self.path.endswith("/") or not self.path

    def with_path(self, path: str) -> str:
        """The URL of another path in the same bucket or on the same server."""
        return f"{self.scheme}://{self.host}/{path.lstrip('/')}"


def is_remote(text: str) -> bool:
    """Whether `text` is a URL of a bucket or a file server."""
    scheme, mark, _ = text.strip().partition("://")
    return bool(mark) and scheme.lower() in SCHEMES


def parse(url: str) -> Place:
    """The parts of `url`.

    Raises:
        UsageError: it names no bucket or server, or it holds a password.
    """
    scheme, _, rest = url.strip().partition("://")
    scheme = scheme.lower()
    host, _, path = rest.partition("/")
    form = f"{scheme}://{'HOST' if scheme == 'sftp' else 'BUCKET'}/PATH"
    if "@" in host and (scheme != "sftp" or ":" in host.rpartition("@")[0]):
        what = "a login in the URL is not used"
        raise UsageError(what, where=f"{scheme}://***", allowed=form, hint=login_hint(scheme))
    if not host:
        raise UsageError("names no bucket or server", where=url, allowed=form)
    return Place(scheme, host, path if scheme != "sftp" else f"/{path}")


def server_of(place: Place) -> tuple[str, int | None, str | None]:
    """The host, port and user of an `sftp` place.

    Raises:
        UsageError: the port is no number.
    """
    parts = urlsplit(f"sftp://{place.host}")
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(
            "the port is no number", where=f"sftp://{place.host}", allowed="sftp://HOST:22/PATH"
        ) from error
    return parts.hostname or "", port, unquote(parts.username) if parts.username else None


def login_hint(scheme: str) -> str:
    """What a user does to log in."""
    return _LOGIN[scheme]
