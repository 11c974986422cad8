"""Every error a user can meet, in one tree, and what is shown of a text: no secret, nothing that acts on a terminal.

    StreamError                  exit 1
    ├── UsageError               exit 2   the command or call cannot be carried out as given
    │   ├── ConfigError          unknown key, bad value
    │   ├── SourceNotFoundError  no such file, folder, camera or pattern
    │   └── OutputError          output exists already, is the input, or cannot be created
    ├── SourceError              exit 1   it exists, but cannot be opened or read
    ├── ModelError               exit 1   weights are missing, wrong or corrupt; output is not finite
    ├── SinkError                exit 1   a result cannot be written or shown (disk full, encoder, display)
    └── MissingExtraError        exit 2   an optional dependency is not installed

Invariant: `str(error)` is one line saying where, what, what is allowed, what to do; `masked` and `printable`.
"""

import re


class StreamError(Exception):
    """Base class of all errors that are reported as one line and not as a traceback.

    Args:
        what: what went wrong.
        where: the file, URL, option or key concerned.
        allowed: the valid values or formats.
        hint: what the user can do.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", allowed: str = "", hint: str = "") -> None:
        where = redacted(where) if "://" in where else where  # a password may hold blanks
        self.what, self.where, self.allowed, self.hint = map(masked, (what, where, allowed, hint))
        line = f"{self.where}: {self.reason}" if where else self.reason
        if hint:
            line += f"; {self.hint}"
        super().__init__(printable(" ".join(line.split())))

    @property
    def reason(self) -> str:
        """What went wrong and what is allowed, for a report that says where by itself."""
        return f"{self.what} (allowed: {self.allowed})" if self.allowed else self.what


class UsageError(StreamError):
    """The command or call cannot be carried out as given; nothing was started."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value is unknown or out of range."""


class SourceNotFoundError(UsageError):
    """The source does not exist."""


class OutputError(UsageError):
    """The output exists already, is the input, or cannot be created."""


class BusyError(OutputError):
    """Another run is working on the same output."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency that is not installed."""


class SourceError(StreamError):
    """The source exists but cannot be opened or read."""


class ModelError(StreamError):
    """A model cannot be loaded, or its output is not finite."""


class SinkError(StreamError):
    """A result cannot be written or shown."""


ACTING = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # these change the direction of what follows
    "\u2028\u2029"  # end a line
    "\xad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # these are not visible
    "\ud800-\udfff]"  # bytes of a file name that are not UTF-8
)
"""Characters that act on a terminal, hide, or fit in no encoding. The joiners of emoji and of Persian stay."""


def printable(text: str, *, lines: bool = False) -> str:
    """Return `text` with what a terminal or a log cannot take written as `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`.

    These are control characters, marks that reorder a line or are not visible, and the bytes of a file name that are
    not UTF-8: Python keeps them as lone surrogates.

    Args:
        lines: line feeds stay.
    """
    if text.isprintable():
        return text
    return ACTING.sub(lambda found: "\n" if lines and found[0] == "\n" else _escape(found[0]), text)


def _escape(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number < 0xDD00:
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def reason_of(error: BaseException) -> str:
    """Return the message of a system or FFmpeg error without its number and path; of others, what they say or are."""
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__


_SCHEME = r"\b(?:rtspu?|rtmp|rtmpt?e|https?|hls|tcp|udp|tls|srt|rtp|ftp|sftp|mms[ht]?|ws)s?"
_URL = re.compile(
    r"[a-z][\w+.-]{0,30}://[^\s/@:]{0,200}:(?!\d+[\s:,;.])[^/@\n]{0,200}@\S*|"  # a password may hold blanks
    r"[a-z][\w+.-]{0,30}://\S*|"
    rf"{_SCHEME}:[\\/]{{0,3}}[^\s@/]{{0,200}}:\S{{0,200}}@\S*|"
    rf"{_SCHEME}(?:%3a|:)(?:%2f|/){{2}}\S*",
    re.IGNORECASE,
)
"""What may hold a secret inside of other text: a URL, one with too few slashes, and one that is percent-encoded."""
_END = re.compile(r"[:,;.'\")\]}>]*\Z")
"""What follows a URL in a sentence."""
_NESTED = re.compile(r"%3a%2f%2f\S*", re.IGNORECASE)
"""What follows the scheme of a URL that stands percent-encoded in the path of another."""
_SECRET_IN_PATH = re.compile(
    r"((?<![a-z])(?:user(?:name)?|usr|login|account|[a-z]{0,20}pass(?:w(?:or)?d|wd|phrase)?|pwd|psw|[a-z_-]{0,20}token|"
    r"auth\w{0,20}|(?:api|access|stream)?[_-]?key|sig(?:nature)?|session(?:_?id)?|sid|[a-z_-]{0,20}secret|credentials?)"
    r"(?:=|%3d)|/(?:token|auth|session|passw(?:or)?d|pwd|signature)/)[^/&;?#\s]+",
    re.IGNORECASE,
)
"""What cameras take in the path: `/user=admin_password=…_channel=1`, `/token/…/live`."""
_HEADER = re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)(\s*[:=]\s*)\S.*", re.IGNORECASE)


def masked(text: str) -> str:
    """Return any text with the secrets of each URL in it masked, see `redacted`, and those of HTTP headers."""
    if ":" not in text and "%" not in text and "=" not in text:
        return text
    return _HEADER.sub(r"\1\2***", _URL.sub(_masked_url, text))


def shown(text: str) -> str:
    """Return any text as one that may be shown and logged: `masked` and `printable`."""
    return printable(masked(text))


def _masked_url(found: re.Match[str]) -> str:
    url = found[0]
    end = _END.search(url)
    sentence = end[0] if end else ""
    return redacted(url[: len(url) - len(sentence)]) + sentence


def redacted(url: str) -> str:
    """Return a URL without its password, query and fragment, for messages; anything else as it is.

    A password may hold the `/`, `?`, `#` and `@` that end it elsewhere. Where it may be longer than a URL's rules say,
    all that may belong to it is left out.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return _without_login(url) if _URL.fullmatch(url) else url
    login, at, address = rest.rpartition("@")
    if at and not any(end in login for end in "/?#"):
        user = re.split(":|%3a", login, maxsplit=1, flags=re.IGNORECASE)[0]
        login = login if user == login else f"{user}:***"
    elif ":" in login:
        if "?" in login or "#" in login:
            return f"{scheme}://***"  # what follows may be part of a query
        login = "***"
    else:  # an @ of the path or the query
        login, at, address = "", "", rest
    end = min((place for place in map(address.find, "?#") if place >= 0), default=len(address))
    path = _SECRET_IN_PATH.sub(r"\1***", _NESTED.sub("%3A%2F%2F***", address[:end]))
    return f"{scheme}://{login}{at}{path}{address[end : end + 1] and f'{address[end]}***'}"


def _without_login(url: str) -> str:
    """Of what is nearly a URL (`rtsp:/user:password@host/cam`, or percent-encoded), what can hold no secret."""
    scheme = re.split(":|%3a", url, maxsplit=1, flags=re.IGNORECASE)[0]
    return f"{scheme}:***"


def without_secrets(error: BaseException) -> None:
    """Mask the secrets in an error of another library that becomes the cause of one of ours: tracebacks show it."""
    error.args = _masked_parts(error.args)
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and isinstance(error.filename, str):
        error.filename = redacted(error.filename)  # PyAV's errors take it from `args`


def _masked_parts(parts: tuple[object, ...]) -> tuple[object, ...]:
    """Texts masked, also those in tuples: FFmpeg's last line of log is one."""
    return tuple(
        masked(part) if isinstance(part, str) else _masked_parts(part) if isinstance(part, tuple) else part
        for part in parts
    )
