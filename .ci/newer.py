"""Says which of the packages in pip's installation report differ from .ci/constraints.txt; exit code 1 if any does."""

import json
import re
import sys
from pathlib import Path

LEFT_OUT = {"depthstream", "pip", "setuptools", "wheel"}
"""What `pip freeze`, which the constraints are made with, leaves out too."""


def pinned() -> dict[str, str]:
    """Normalised name → version, as .ci/constraints.txt states them."""
    lines = (Path(__file__).parent / "constraints.txt").read_text().splitlines()
    return dict(normalised(*line.split("==")) for line in lines if "==" in line)


def normalised(name: str, version: str) -> tuple[str, str]:
    """The name as PEP 503 has it, and the version without a build's suffix such as `+cpu`."""
    return re.sub(r"[-_.]+", "-", name).lower(), version.partition("+")[0]


def newest(report: Path) -> dict[str, str]:
    """Normalised name → version of everything that pip would install, but for `LEFT_OUT`."""
    packages = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    found = dict(normalised(package["name"], package["version"]) for package in packages)
    return {name: version for name, version in found.items() if name not in LEFT_OUT}


tested = pinned()
changed = {name: version for name, version in newest(Path(sys.argv[1])).items() if tested.get(name) != version}
for name, version in sorted(changed.items()):
    print(f"{name}: {tested.get(name, 'none')} was tested, {version} is the newest")
if not changed:
    print("the newest versions are the tested ones: nothing else to run")
sys.exit(bool(changed))
