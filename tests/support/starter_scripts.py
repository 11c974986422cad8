"""Makes the modules of scripts/starter importable."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts" / "starter"))

needs_compiler = pytest.mark.skipif(
    not os.environ.get("CI")  # there, a missing tool is a failure
    and not (shutil.which("c++") and Path(sysconfig.get_path("include"), "Python.h").exists()),
    reason="needs a C++ compiler and Python's headers",
)
