"""What does the tasks of a batch: processes on this machine, or actors on others. Tasks are those of `Worker`.

Invariant: every task that was submitted comes back once, whatever becomes of whoever had it.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

Task = Mapping[str, Any]
Result = dict[str, Any]


class Executor(Protocol):
    """Workers of one config."""

    @property
    def slots(self) -> int:
        """How many tasks can be done at once. It falls when a worker is lost for good; 0: nothing more can be done."""

    def submit(self, task: Task) -> None:
        """Start a task; there must be a free slot."""

    def wait(self, timeout_s: float) -> list[Result]:
        """What has come back, after waiting for at most `timeout_s` for anything.

        A worker that ended in the middle of a task gives `lost(task, reason)`.
        """

    def frames(self) -> dict[int, int]:
        """Frames that are done of the tasks in progress, by `id`, as far as they are known."""

    def stop(self) -> None:
        """Have the tasks in progress end in order. They come back as interrupted."""

    def close(self) -> None:
        """End all workers; idempotent. What is in progress is lost."""


def lost(task: Task, reason: str) -> Result:
    """The result of a task whose worker ended before it did."""
    about = {key: task.get(key) for key in ("id", "what", "name", "attempt")}
    return {**about, "state": "crashed", "reason": reason, "retry": True, "seconds": 0.0}


def packed(rows: Iterable[int]) -> str:
    """Numbers of segments in few characters: a compressed bitmap, so at most about a bit for each segment there is."""
    bits = bytearray()
    for row in rows:
        bits.extend(bytes(max(0, row // 8 + 1 - len(bits))))
        bits[row // 8] |= 1 << row % 8
    return base64.b64encode(zlib.compress(bits, 9)).decode()


def unpacked(text: str) -> list[int]:
    """The numbers that were `packed`, in order."""
    bits = zlib.decompress(base64.b64decode(text))
    return [row for row in range(8 * len(bits)) if bits[row // 8] >> row % 8 & 1]
