"""What a batch tells while it works, and in the end.

Invariant: plain values only; they hold for local processes, shards and clusters alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stream.batch.schedule import Source


@dataclass(kw_only=True)
class Status:
    """How far a batch is.

    Attributes:
        total, done, failed: sources; `earlier` of the done ones are an earlier run's.
        elsewhere: sources that fall to other shards.
        frames: done by this run.
        fps: frames per second of this run so far; None before the first.
        left_s: estimated; None if unknown.
        running: name, frames done, frames in all.
        phase: "looking at the videos", "loading the model", "" while the work is done, "ending".
    """

    total: int = 0
    done: int = 0
    earlier: int = 0
    failed: int = 0
    elsewhere: int = 0
    frames: int = 0
    fps: float | None = None
    left_s: float | None = None
    running: list[tuple[str, int, int | None]] = field(default_factory=list)
    phase: str = ""


@dataclass(kw_only=True)
class Summary:
    """What a batch has done.

    Attributes:
        sources: all, each with its state.
        error: why it ended early; "" if it did not.
        interrupted: by Ctrl-C, or by a closed terminal (`hung_up`).
        seconds: of the whole batch.
    """

    sources: list[Source]
    out: Path | str
    error: str = ""
    interrupted: bool = False
    hung_up: bool = False
    seconds: float = 0.0

    def having(self, *states: str) -> list[Source]:
        """The sources in one of these states."""
        return [source for source in self.sources if source.state in states]

    @property
    def exit_code(self) -> int:
        """As of a run: 0 all done, 3 some failed or have skipped inputs, 1 nothing done, 129 and 130 interrupted."""
        if self.interrupted:
            return 129 if self.hung_up else 130
        if self.error:
            return 1
        done = self.having("done", "segments", "elsewhere")
        if self.having("failed"):
            return 3 if done else 1
        is_whole = all(not source.result.get("skipped") and not source.result.get("warnings") for source in done)
        return 0 if is_whole else 3


@dataclass(kw_only=True)
class Hooks:
    """What a batch tells its caller.

    Attributes:
        on_note: called once with each thing worth knowing.
        on_source: called with each source that is over, but for those of an earlier run.
        on_status: called a few times a second.
    """

    on_note: Callable[[str], None] | None = None
    on_source: Callable[[Source], None] = lambda _source: None
    on_status: Callable[[Status], None] = lambda _status: None
