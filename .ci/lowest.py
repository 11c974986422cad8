"""Prints the lowest version that pyproject.toml allows of each dependency that users install, as constraints for pip.

torch is left out: its old releases come from the package index only as CUDA builds of several GB, so .ci/run keeps the
CPU build of .ci/constraints.txt. CONTRIBUTING.md says which old torch was tested by hand.
"""

import re
import tomllib
from pathlib import Path

EXTRAS = (
    "openvino",
    "onnx",
    "plot",
    "int8",
    "web",
    "virtualcam",
    "rerun",
    "ray",
    "remote",
)  # what users ask for; the tools of developers may be new
LEFT_OUT = {"torch"}

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
wanted = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
lowest = {}
for line in wanted:
    match = re.match(r"([\w-]+)>=([\w.]+)", line)
    if match is None:
        raise SystemExit(f"pyproject.toml: {line!r} states no lowest version; write NAME>=VERSION first")
    name, version = match.groups()
    if name not in LEFT_OUT and lowest.setdefault(name, version) != version:
        raise SystemExit(f"pyproject.toml: {name} has two lowest versions, {lowest[name]} and {version}; make them one")
print(*(f"{name}=={version}" for name, version in sorted(lowest.items())), sep="\n")
