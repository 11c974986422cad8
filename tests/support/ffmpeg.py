"""The programs of FFmpeg, which make and read what PyAV does not."""

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of `ffmpeg` or `ffprobe`; skips the test without it, except in CI, where a missing tool is a failure."""
    found = shutil.which(name)
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"needs the program {name} of FFmpeg")
    return found or name
