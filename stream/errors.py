"""Every error a user can meet, in one tree; this module imports nothing.

    StreamError                  exit 1
    ├── UsageError               exit 2   what was typed cannot be done
    │   ├── ConfigError          unknown key, bad value
    │   ├── SourceNotFoundError  no such file, folder, camera or pattern
    │   └── OutputError          output exists, equals the input, or is not writable
    ├── SourceError              exit 1   it exists, but cannot be opened or read
    ├── ModelError               exit 1   weights missing, wrong or corrupt; non-finite output
    ├── SinkError                exit 1   writing failed (disk full, encoder, display)
    └── MissingExtraError        exit 2   an optional dependency is not installed

Invariant: `str(error)` is one line saying where, what, what is allowed, what to do.
"""


class StreamError(Exception):
    """Base of all errors that are reported as one line and never as a traceback.

    Args:
        what: what went wrong.
        where: the file, URL, option or key it happened at.
        allowed: the values or formats that would be right.
        hint: what to do now.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", allowed: str = "", hint: str = "") -> None:
        self.what, self.where, self.allowed, self.hint = what, where, allowed, hint
        line = f"{where}: {what}" if where else what
        if allowed:
            line += f" (allowed: {allowed})"
        if hint:
            line += f"; {hint}"
        super().__init__(" ".join(line.split()))


class UsageError(StreamError):
    """What was asked for cannot be done as typed; nothing was started."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value is unknown or out of range."""


class SourceNotFoundError(UsageError):
    """The source names nothing that exists."""


class OutputError(UsageError):
    """The output exists already, equals the input or cannot be created."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency that is not installed."""


class SourceError(StreamError):
    """The source exists but cannot be opened or read."""


class ModelError(StreamError):
    """A model cannot be loaded or computes something unusable."""


class SinkError(StreamError):
    """Writing or showing a result failed."""
