"""What one input may cost: time, and address space, so that a hang or a bomb is a failure with its input kept."""

import faulthandler
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from stream.errors import StreamError

LIMIT_S = 20.0
"""An input that takes longer ends the process with the stacks of all threads: native code cannot be interrupted."""
LIMIT_BYTES = 2 << 30
"""Address space beyond what is used before; an allocation that fails is a finding unless it is refused in order."""
_DEFAULT = 100  # Hypothesis' max_examples where no profile of tests/conftest.py is asked for


def fuzzed(count: int) -> Callable[[Any], Any]:
    """Decorate a test: it gets `count` inputs, always the same, or ten or a hundred times as many fresh ones with the
    profiles `fuzz` and `fuzz-long`."""
    chosen = settings().max_examples
    return settings(
        max_examples=count * chosen // _DEFAULT,
        deadline=None,
        derandomize=chosen == _DEFAULT,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def limited(data: bytes, kept: Path) -> Iterator[Path]:
    """Write an input to the file `kept`, and hold what is done with it to the limits.

    If the process has to be ended, the input stays there, with the stacks beside it.
    """
    kept.write_bytes(data)
    with kept.with_suffix(".stacks").open("w") as stacks, _address_space():
        faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=stacks)
        try:
            yield kept
        finally:
            faulthandler.cancel_dump_traceback_later()


@contextmanager
def may_be_refused() -> Iterator[None]:
    """Let a `StreamError` of one line pass, and nothing else."""
    refusal = ""
    try:
        yield
    except StreamError as error:
        refusal = str(error)
    assert "\n" not in refusal


@contextmanager
def _address_space() -> Iterator[None]:
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
