"""Every error a user can meet, in one tree, and the words for errors of others; this module imports nothing.

    StreamError                  exit 1
    ├── UsageError               exit 2   the command or call cannot be carried out as given
    │   ├── ConfigError          unknown key, bad value
    │   ├── SourceNotFoundError  no such file, folder, camera or pattern
    │   └── OutputError          output exists already, is the input, or cannot be created
    ├── SourceError              exit 1   it exists, but cannot be opened or read
    ├── ModelError               exit 1   weights are missing, wrong or corrupt; output is not finite
    ├── SinkError                exit 1   a result cannot be written or shown (disk full, encoder, display)
    └── MissingExtraError        exit 2   an optional dependency is not installed

Invariant: `str(error)` is one line saying where, what, what is allowed, what to do.
"""


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
        self.what, self.where, self.allowed, self.hint = what, where, allowed, hint
        line = f"{where}: {self.reason}" if where else self.reason
        if hint:
            line += f"; {hint}"
        super().__init__(" ".join(line.split()))

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


class MissingExtraError(UsageError):
    """A feature needs an optional dependency that is not installed."""


class SourceError(StreamError):
    """The source exists but cannot be opened or read."""


class ModelError(StreamError):
    """A model cannot be loaded, or its output is not finite."""


class SinkError(StreamError):
    """A result cannot be written or shown."""


def reason_of(error: BaseException) -> str:
    """Return the message of a system or FFmpeg error without its number and path; of others, what they say or are."""
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
