"""`depthstream cameras`."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

from stream.console import option


def cameras(as_json: Annotated[bool, option("--json", "Print as JSON.")] = False) -> None:
    """List the cameras of this machine and, where the system tells, their modes."""
    from stream.capture.cameras import list_cameras

    found = list_cameras()
    if as_json:
        print(json.dumps([asdict(camera) for camera in found], ensure_ascii=False, indent=2))
        return
    if not found:
        print("no camera is connected; pattern:testsrc2 stands in for one", file=sys.stderr)
    for camera in found:
        print(f"{camera.index:>3}  {camera.name}" + (f"  {camera.path}" if camera.path else ""))
        for mode in camera.modes:
            print(f"     {mode}")
