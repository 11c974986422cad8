"""What an error means for a task: whether another attempt is worth it.

Invariant: a source or a call that is at fault is not tried again; whatever may be gone the next time is.
"""

import errno
from collections.abc import Iterator
from typing import Any

from stream.errors import BusyError, SinkError, SourceError, StreamError, UsageError, shown

LONGEST_REASON = 400
"""Characters of a reason in a result."""
_TRANSIENT = frozenset(
    number
    for name in ("EIO", "EAGAIN", "ESTALE", "ETIMEDOUT", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ENETDOWN",
                 "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "EREMOTEIO", "EBUSY", "ENOMEM", "EMFILE", "ENFILE")
    if (number := getattr(errno, name, None)) is not None
)  # fmt: skip
"""System errors that may be gone the next time."""
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


def failure(error: Exception) -> dict[str, Any]:
    """The result of a task that an error has ended."""
    is_full = any(number in _FULL for number in _numbers(error))
    state = "busy" if isinstance(error, BusyError) else "full" if is_full else "failed"
    text = " ".join(str(error).split())
    return {
        "state": state,
        "reason": shown(text if isinstance(error, StreamError) else f"{type(error).__name__}: {text}")[:LONGEST_REASON],
        "retry": is_full or _is_worth_a_retry(error),
        "exit_code": error.exit_code if isinstance(error, StreamError) else 1,
    }


def _is_worth_a_retry(error: Exception) -> bool:
    """False where the source or the call is at fault, which stays so: no video, no such file, an unknown option."""
    if any(number in _TRANSIENT for number in _numbers(error)):
        return True
    if isinstance(error, SourceError):
        return "://" in error.where
    return not isinstance(error, UsageError) and (not isinstance(error, StreamError) or isinstance(error, SinkError))


def _numbers(error: BaseException | None) -> Iterator[object]:
    """The numbers of the system errors that an error consists of; FFmpeg's have them, too."""
    while error is not None:
        yield getattr(error, "errno", None)
        error = error.__cause__
