"""What tests on a Ray cluster share."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

on_ray = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("CI") and find_spec("ray") is None,  # there, a missing tool is a failure
        reason="needs ray",
    ),
    # Ray's own: it leaves /dev/null open, and forgets processes that still run.
    pytest.mark.filterwarnings("ignore:.*(/dev/null|subprocess).*:pytest.PytestUnraisableExceptionWarning"),
]
"""Marks of a test that needs a cluster."""


_TOKEN = secrets.token_hex(32)
"""Ray reads its token once in a process."""


@contextmanager
def ray_environment() -> Iterator[None]:
    """Ray keeps its token, its sockets and its logs in a folder of the test, with a short path."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", _TOKEN)
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
    shutil.rmtree(folder)
