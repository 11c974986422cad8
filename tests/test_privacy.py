"""No library that the program uses sends anything, looks a name up, or leaves a file outside of the program's folders.

Most libraries keep quiet where `CI` is set, so the programs here run without it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import picture_files as files
from tests.support.tracing import Trace, trace

LIBRARIES = """
from stream.infer.backends import onnx
from stream.models import openvino_ir
import numpy, onnx as format
openvino_ir.imported(where="").Core().available_devices
info = format.helper.make_tensor_value_info
x, y = (info(name, format.TensorProto.FLOAT, [1]) for name in "xy")
graph = format.helper.make_graph([format.helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
opset = [format.helper.make_opsetid("", 18)]
model = format.helper.make_model(graph, ir_version=8, opset_imports=opset).SerializeToString()
session = onnx.imported().InferenceSession(model, providers=["CPUExecutionProvider"])
assert session.run(None, {"x": numpy.ones(1, "float32")})[0][0] == -1
"""
BACKENDS = """
import stream
for backend in ("torch", "openvino", "onnx", "compile"):
    stream.run("p.png", output=f"{backend}.png", input_size=64, backend=backend, offline=True)
"""
OTHER_PARTS = """
from stream.infer.backends import int8
from stream.models import backbones
int8.imported()
from matplotlib.figure import Figure
from stream.live import guard, server
from stream.media import av, cv2
import huggingface_hub, pyvirtualcam, safetensors, starlette, uvicorn
from huggingface_hub import constants
assert constants.HF_HUB_DISABLE_TELEMETRY
"""


def left_at_home(folder: Path) -> set[str]:
    """Files and empty folders in the home folder, but for those of this program."""
    home = folder / "home"
    found = {path.relative_to(home).as_posix() for path in home.rglob("*")}
    return {name for name in found if not name.startswith(".cache/depthstream")} - {".cache"}


def is_quiet(seen: Trace, folder: Path) -> None:
    assert seen.network == []
    assert seen.written_outside == []
    assert left_at_home(folder) == set()


@pytest.mark.slow
def test_what_runs_networks_sends_nothing_and_leaves_no_identifier(tmp_path: Path) -> None:
    is_quiet(trace(LIBRARIES, tmp_path), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)  # every backend under strace: 160 s on a busy machine
def test_a_run_with_every_backend_sends_nothing_and_leaves_no_identifier(tmp_path: Path) -> None:
    files.save(tmp_path / "p.png", files.scene())
    is_quiet(trace(BACKENDS, tmp_path), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_other_library_sends_anything(tmp_path: Path) -> None:
    seen = trace(f"from stream.models import catalog\n{OTHER_PARTS}", tmp_path)
    assert seen.network == []
    assert seen.written_outside == []


def test_the_tracer_sees_what_it_has_to(tmp_path: Path) -> None:
    """A look-up, and a file in the folder of the program's home and one outside of it."""
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    seen = trace(
        "import pathlib, socket, contextlib\n"
        f"pathlib.Path({str(outside)!r}).write_text('')\n"
        "pathlib.Path.home().joinpath('id').write_text('')\n"
        "with contextlib.suppress(OSError): socket.getaddrinfo('localhost.invalid', 443)\n",
        tmp_path,
    )
    assert seen.network
    assert [str(outside) in line for line in seen.written_outside] == [True]
    assert left_at_home(tmp_path) == {"id"}


def test_whatever_the_environment_says_telemetry_is_off() -> None:
    code = (
        "import os; from stream.models import catalog\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == os.environ['HF_HUB_DISABLE_TELEMETRY'] == '1'"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "ORT_DISABLE_TELEMETRY": "0"}, check=True)
