"""Backends: exported networks are checked against torch, bounded in number, and chosen by what was measured."""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stream
from stream.capture.video.file import VideoSource
from stream.errors import MissingExtraError, ModelError, UsageError
from stream.frames import Frame
from stream.infer.backends import choose, int8, onnx, openvino
from stream.infer.backends.cache import ModelCache
from stream.infer.backends.choose import BackendOptions
from stream.infer.backends.eager import Eager
from stream.infer.backends.exported import MAX_SIZES, Call, Exported, UnusableError
from stream.infer.engine import Engine
from stream.infer.preprocess import Preprocessor
from stream.models import registry
from stream.models.spec import Resample
from tests.support import forked
from tests.support.portable import Portable
from tests.support.tiny_model import SPEC, Tiny, frame, loaded

CPU = torch.device("cpu")


def exported(runtime: Portable, tmp_path: Path, *, batch: int = 1, network: nn.Module | None = None) -> Exported:
    model = loaded(network)
    return Exported(
        model, runtime, eager=lambda: Eager(model.network, "fp32", batch=1), batch=batch, cache=ModelCache(tmp_path)
    )


def inputs(count: int, height: int = 24, width: int = 32) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(("pads", "seen"), [(False, [1, 1, 1]), (True, [2, 2])])
def test_a_group_is_computed_in_the_sizes_that_were_exported(pads: bool, seen: list[int], tmp_path: Path) -> None:
    runtime, x = Portable(pads=pads), inputs(3)
    backend = exported(runtime, tmp_path, batch=2)
    backend.prepare((24, 32))
    runtime.called_with.clear()
    with torch.inference_mode():
        torch.testing.assert_close(backend(x), Tiny()(x))
    assert runtime.called_with == seen
    assert runtime.made == [(2 if pads else 1, 24, 32)]


class Several(Tiny):
    """Gives a map, the same score everywhere, and two numbers."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """N×3×H×W → N×H×W twice, and N×2."""
        y = super().forward(x)
        return y, 0 * y + 0.5, 0.3 + 0.001 * x[:, 0, 0, :2]


@pytest.mark.parametrize(("pads", "off"), [(True, 0.0), (False, 5e-5)])
def test_a_network_of_several_outputs_is_executed(pads: bool, off: float, tmp_path: Path) -> None:
    network, x = Several().eval(), inputs(3)
    backend = exported(Portable(pads=pads, off=off), tmp_path, batch=2, network=network)
    with torch.inference_mode():
        torch.testing.assert_close(backend(x), network(x), atol=1e-4, rtol=1e-4)


def test_each_of_several_outputs_is_checked(tmp_path: Path) -> None:
    """The last one, off by 2e-4, whose unit is 0.1 because its numbers hardly differ."""
    backend = exported(Portable(off=2e-4), tmp_path, network=Several().eval())
    with pytest.raises(ModelError, match="portable in fp32 differs from torch by 0"):
        backend.prepare((24, 32))


def test_a_backend_that_a_row_excludes_is_neither_used_nor_tried(tmp_path: Path) -> None:
    model = loaded(backends=("torch", "onnx"))
    with pytest.raises(UsageError, match=r"--backend openvino: cannot execute tiny .*auto, torch, onnx"):
        Engine(model, device="cpu", backend="openvino", cache=ModelCache(tmp_path))
    model = replace(model, origin={})
    options = BackendOptions(
        model=model, device=CPU, precision="fp32", batch=1, threads=1, provider="auto", cache=ModelCache(tmp_path)
    )
    assert choose.candidates(options) == ["onnx"]
    only_torch = replace(options, model=replace(loaded(backends=("torch",)), origin={}))
    assert choose.candidates(only_torch) == []


def test_what_was_exported_before_is_loaded(tmp_path: Path) -> None:
    first, second = Portable(), Portable()
    for runtime in (first, second):
        exported(runtime, tmp_path)(inputs(1))
    assert (first.made, second.made) == ([(1, 24, 32)], [])


def test_what_loads_no_more_is_exported_anew_once(tmp_path: Path, notes: list[str]) -> None:
    class Forgetful(Portable):
        """Rejects files that it has not made itself, as after an update of its libraries."""

        def load(self, folder: Path) -> Call:
            if not self.made:
                raise UnusableError("written by another version")
            return super().load(folder)

    exported(Portable(), tmp_path).prepare((24, 32))
    runtime = Forgetful()
    backend = exported(runtime, tmp_path)
    backend._cache = ModelCache(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(backend(inputs(1)), Tiny()(inputs(1)))
    assert runtime.made == [(1, 24, 32)]
    (note,) = notes
    assert note.endswith("does not load here; exporting it again")


def test_what_never_loads_is_an_error(tmp_path: Path) -> None:
    class Broken(Portable):
        def load(self, folder: Path) -> Call:
            raise ModelError("no")

    exported(Portable(), tmp_path).prepare((24, 32))
    broken = Broken()
    with pytest.raises(ModelError, match="no"):
        exported(broken, tmp_path).prepare((24, 32))
    assert broken.made == []  # the files are not the cause, so they are kept
    again = Portable()
    exported(again, tmp_path).prepare((24, 32))
    assert again.made == []


def test_other_weights_or_versions_are_exported_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Portable()
    exported(runtime, tmp_path).prepare((24, 32))
    other = exported(runtime, tmp_path)
    other.model = replace(other.model, weights_sha256="1" * 64)
    other.prepare((24, 32))
    monkeypatch.setattr("stream.infer.backends.exported.__version__", "9.9")
    exported(runtime, tmp_path).prepare((24, 32))
    assert len(runtime.made) == 3


@pytest.mark.parametrize(("precision", "off"), [("fp32", 2e-3), ("bf16", 0.2), ("fp32", float("nan"))])
def test_a_network_that_came_out_wrong_is_refused(precision: str, off: float, tmp_path: Path) -> None:
    runtime = Portable(off=off * float(Tiny()(inputs(1)).std()) * 2, precision=precision)
    with pytest.raises(
        ModelError, match=rf"tiny: portable in {precision} differs from torch by .* \(allowed: .*--backend torch"
    ):
        exported(runtime, tmp_path)(inputs(1))
    assert not list(tmp_path.glob("*/model.pt2"))


def test_a_reduced_precision_states_its_error(tmp_path: Path) -> None:
    backend = exported(Portable(off=1e-3, precision="bf16"), tmp_path)
    backend.prepare((24, 32))
    assert 1e-4 < backend.differences[(1, 24, 32)].rms < 1e-2
    (note,) = backend.notes
    assert note.startswith("portable in bf16 at 32×24: RMS error against fp32 is 0.")


def test_a_network_that_cannot_be_exported_says_so(tmp_path: Path) -> None:
    class Undecided(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    model = loaded(Undecided())
    runtime = Portable()
    backend = Exported(
        model, runtime, eager=lambda: Eager(model.network, "fp32", batch=1), batch=1, cache=ModelCache(tmp_path)
    )
    with pytest.raises(ModelError, match=r"tiny: cannot be exported for portable: .*; use --backend torch"):
        backend.prepare((24, 32))


def test_further_sizes_run_in_torch_and_are_counted(tmp_path: Path) -> None:
    runtime = Portable()
    backend = exported(runtime, tmp_path)
    sizes = [(8 * number, 32) for number in range(1, MAX_SIZES + 3)]
    with torch.inference_mode():
        for _ in range(2):
            for size in sizes:
                x = inputs(1, *size)
                torch.testing.assert_close(backend(x), Tiny()(x))
    assert len(runtime.made) == MAX_SIZES
    assert backend.counters == {"eager_frames": 4}
    assert backend.notes == [
        "portable holds network inputs of 32×8, 32×16, 32×24, 32×32; frames of other sizes run in torch"
    ]


@pytest.fixture(scope="module")
def starter() -> registry.LoadedModel:
    return registry.load("starter")


REAL = ["openvino", "onnx", "compile"]


def check_backend(model: registry.LoadedModel, name: str, folder: Path, groups: list[list[Frame]]) -> None:
    """Compare a backend's depth of groups of frames, in two orders, with torch's."""
    reference = Engine(model, device="cpu")
    engine = Engine(model, device="cpu", backend=name, batch=2, cache=ModelCache(folder))
    assert engine.backend == name
    for group in groups:
        wanted = [reference.infer([one])[0].values for one in group]
        got = [depth.values for depth in engine.infer(group)]
        later = [depth.values for depth in engine.infer(group[::-1])][::-1]
        for a, b, c in zip(wanted, got, later, strict=True):
            assert np.abs(a - b).max() < 1e-3 * a.std()
            np.testing.assert_array_equal(b, c)
    assert not engine.counters
    engine.close()
    reference.close()


WIDE, TALL = [frame(0, 640, 480), frame(2, 640, 480)], [frame(1, 480, 640)]


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        pytest.param("openvino", [WIDE], id="openvino"),
        *(pytest.param(name, [WIDE, TALL], id=f"{name}, two sizes", marks=pytest.mark.slow) for name in REAL),
    ],
)
def test_the_engine_gives_the_same_depth_with_every_backend(
    name: str, groups: list[list[Frame]], starter: registry.LoadedModel, tmp_path: Path
) -> None:
    """In every run, the other backends execute a small network alone; see below."""
    check_backend(starter, name, tmp_path, groups)


def test_the_programs_own_warnings_are_heard_after_a_conversion_that_failed(tmp_path: Path) -> None:
    class Unknown(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigh(x[:, 0] @ x[:, 0].mT)[1]

    program = torch.export.export(Unknown(), (torch.rand(1, 3, 8, 8),))
    level = logging.getLogger().level
    with pytest.raises(UnusableError, match="OpenVINO rejects the model"):
        openvino.OpenVino("fp32", threads=1).make(program, tmp_path)
    assert logging.getLogger().level == level


@pytest.mark.parametrize("name", ["openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_every_backend_holds_several_sizes(name: str, tmp_path: Path) -> None:
    """Of a small network, whose export takes a second instead of five."""
    check_backend(loaded(), name, tmp_path, [WIDE, TALL])


@pytest.mark.parametrize("name", ["tiny", "resized by OpenCV", pytest.param("starter", marks=pytest.mark.slow)])
def test_int8_is_calibrated_on_the_users_pictures_and_states_its_error(
    name: str, starter: registry.LoadedModel, tmp_path: Path
) -> None:
    model = starter if name == "starter" else loaded()
    if name == "resized by OpenCV":
        policy = replace(SPEC.input, resample=Resample.OPENCV_LINEAR)
        model = replace(model, spec=replace(model.spec, input=policy))
    source = VideoSource(
        Path(stream.__file__).parent / "data" / "demo.mp4", max_frames=48
    )  # unlike the noise of other tests, what a user would give
    frames = list(source)[::3]
    source.close()
    asked = 0

    def pictures() -> list[stream.Frame]:
        nonlocal asked
        asked += 1
        return frames

    engine = Engine(
        model, device="cpu", precision="int8", backend="openvino", calibration=pictures, cache=ModelCache(tmp_path)
    )
    (depth,) = engine.infer(frames[:1])
    engine.close()
    exact = Engine(model, device="cpu")
    (wanted,) = exact.infer(frames[:1])
    exact.close()
    rms = np.sqrt(np.square(depth.values - wanted.values).mean()) / wanted.values.std()
    assert 1e-4 < rms < 0.1
    assert asked == 1
    size = "288×224" if name == "starter" else "32×24"
    assert any(f"openvino in int8 at {size}" in note for note in engine.notes)


def test_int8_without_pictures_is_refused(starter: registry.LoadedModel) -> None:
    with pytest.raises(UsageError, match="--precision int8: needs images"):
        Engine(starter, device="cpu", precision="int8", backend="openvino")


def test_pictures_to_measure_with_are_others_than_those_to_calibrate_with(starter: registry.LoadedModel) -> None:
    def preprocess(frame: Frame, size_hw: tuple[int, int]) -> Tensor:
        return Preprocessor(starter.spec.input, CPU)(torch.tensor(frame.rgb), size_hw, torch.float32)

    many = int8.CalibrationSet([frame(i) for i in range(9)], preprocess)
    assert (len(many.to_calibrate((1, 192, 256))), len(many.to_check((1, 192, 256)))) == (7, 2)
    few = int8.CalibrationSet([frame(i) for i in range(3)], preprocess)
    assert (len(few.to_calibrate((1, 192, 256))), len(few.to_check((1, 192, 256)))) == (3, 3)
    assert few.notes
    assert few.digest != many.digest == int8.CalibrationSet([frame(i) for i in range(9)], preprocess).digest


def test_without_a_compiler_one_line_and_eager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    engine = Engine(loaded(), device="cpu", backend="compile", cache=ModelCache(tmp_path))
    assert engine.backend == "torch"
    assert engine.counters == {"backend_fallbacks": 1}
    wanted = "--backend compile needs a C++ compiler (no-such-compiler): the network runs in torch as it is"
    assert engine.notes == [wanted]
    assert len(engine.infer([frame(0)])) == 1


@pytest.mark.parametrize(
    ("package", "backend", "precision", "hint"),
    [
        ("openvino", "openvino", "fp32", r"depthstream\[openvino\]"),
        ("onnxruntime", "onnx", "fp32", r"depthstream\[onnx\]"),
        ("onnxscript", "onnx", "fp32", r"depthstream\[onnx\]"),
        ("nncf", "openvino", "int8", r"depthstream\[int8\]"),
    ],
)
def test_a_missing_package_is_one_line(
    package: str, backend: str, precision: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=hint):
        Engine(loaded(), device="cpu", backend=backend, precision=precision, calibration=lambda: [frame(0)])


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("onnx", "bf16", r"the backend does not compute in bf16 \(allowed: fp32\)"),
        ("torch", "int8", r"does not compute in int8 \(allowed: fp32, bf16, fp16\)"),
        ("compile", "fp16", "fp16 does not work on cpu"),
    ],
)
def test_a_precision_that_the_backend_lacks_is_refused(backend: str, precision: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Engine(loaded(), device="cpu", backend=backend, precision=precision)


CUDA, MPS = torch.device("cuda", 0), torch.device("mps")


@pytest.mark.parametrize(
    ("asked", "device", "here", "wanted"),
    [
        ("auto", CPU, ["cpu"], "cpu"),
        ("auto", CPU, ["directml", "cpu"], "cpu"),
        ("directml", CPU, ["directml", "cpu"], "directml"),
        ("auto", CUDA, ["tensorrt", "cuda", "cpu"], "cuda"),
        ("tensorrt", CUDA, ["tensorrt", "cuda", "cpu"], "tensorrt"),
        ("auto", MPS, ["coreml", "cpu"], "coreml"),
    ],
)
def test_the_provider_fits_the_device(asked: str, device: torch.device, here: list[str], wanted: str) -> None:
    assert onnx.resolve_provider(asked, device, [onnx.PROVIDERS[name] for name in here]) == wanted


@pytest.mark.parametrize(
    ("asked", "device", "here", "message"),
    [
        ("auto", CUDA, ["cpu"], r"no provider for cuda here \(allowed: cuda, tensorrt\); use --device cpu"),
        ("cuda", CPU, ["cuda", "cpu"], r"cuda is not for cpu \(allowed: auto, cpu\)"),
        ("tensorrt", CUDA, ["cuda"], r"tensorrt is not in this ONNX Runtime \(allowed: auto, cuda\)"),
        ("rocm", CPU, ["cpu"], "unknown provider 'rocm'"),
    ],
)
def test_a_provider_that_cannot_be_had_is_refused(
    asked: str, device: torch.device, here: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        onnx.resolve_provider(asked, device, [onnx.PROVIDERS[name] for name in here])


def test_what_is_installed_and_takes_the_precision_is_a_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin: dict[str, object] | None = {}

    def found(precision: str, absent: Callable[[str], bool] = lambda _name: False) -> list[str]:
        monkeypatch.setattr(choose, "find_spec", lambda name: None if absent(name) else find_spec(name))
        options = BackendOptions(
            model=replace(loaded(), origin=origin), device=CPU, precision=precision, batch=1, threads=1,
            provider="auto", cache=ModelCache(tmp_path),
        )  # fmt: skip
        return choose.candidates(options)

    assert found("fp32") == ["openvino", "onnx"]
    assert found("bf16") == ["openvino"]
    assert found("fp32", lambda name: name == "openvino") == ["onnx"]
    assert found("bf16", lambda name: name == "openvino") == []
    origin = None  # a child process could not load it
    assert found("fp32") == []


def test_no_backend_is_imported_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import stream, sys; list(stream.iter_depth('pattern:testsrc', max_frames=1));"
        "print({'openvino', 'onnx', 'onnxruntime', 'nncf', 'torch._inductor'} & set(sys.modules))"
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing was measured earlier
    done = forked.run([], code=code)
    assert (done.returncode, done.stdout.strip()) == (0, b"set()"), done.stderr


def test_the_spec_of_the_test_model_is_no_bf16_one() -> None:
    assert not SPEC.bf16_on_cpu  # `auto` must mean the same on every machine that runs these tests
