"""Switches off the usage data of the libraries that run networks, because users have not agreed to send any.

Invariant: nothing here depends on a setting, an environment variable or `--offline`.
"""

import os
import sys

_SETTINGS = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""ONNX Runtime reads the first when it is imported. Without it, 1.29 and later keep a device's id in
`~/.cache/Microsoft` and send usage data, except where `CI` is set. timm imports huggingface_hub, which reads the
others."""


def switch_off() -> None:
    """Switch off the telemetry of ONNX Runtime, OpenVINO, NNCF and huggingface_hub, also for child processes.

    A library that the program around this one has imported before is told now, where it can be.
    """
    os.environ.update(_SETTINGS)
    # OpenVINO and NNCF fall back to stubs of their own if this package cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    runtime = sys.modules.get("onnxruntime")
    if runtime is not None and hasattr(runtime, "disable_telemetry_events"):
        runtime.disable_telemetry_events()
