"""The reference page of the options is current."""

import subprocess
import sys

from tests.support.paths import REPOSITORY


def test_the_page_is_made_from_the_config() -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "docs" / "options.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
