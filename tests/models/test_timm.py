"""timm: imported only for the models that need it, beside any build of torchvision, and complete after loading."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stream.bench.synthetic_weights import with_synthetic_weights
from stream.errors import ModelError
from stream.models import catalog, registry
from stream.models.backbones import SwinTransformer, SwinTransformerV2
from stream.models.midas.swin import Swin
from tests.support import forked
from tests.support.manifests import FILES, checkpoint, reference
from tests.support.paths import REPOSITORY

HEAVY = "{'timm', 'torchvision'} & set(sys.modules)"


def python(code: str, *arguments: object) -> str:
    """Run code in a process of its own; its output."""
    strict = "import sys, warnings\nwarnings.simplefilter('error')\n"
    done = forked.run([*map(str, arguments)], code=strict + code)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.slow
def test_other_models_and_light_commands_do_not_import_timm() -> None:
    python(
        f"""
import torch
from stream.bench.synthetic_weights import with_synthetic_weights
from stream.cli.main import invoke
from stream.models import registry
for arguments in (["--help"], ["models", "--json"], ["probe", sys.argv[1]]):
    assert invoke(arguments) == 0
    assert not {HEAVY}, arguments
names = ("midas_v21_small_256", "depth_anything_v2_vits")
for model in (registry.load("starter"), *(with_synthetic_weights(registry.find(name)) for name in names)):
    model.network(torch.zeros(1, 3, 224, 224))
    assert not {HEAVY}, model.spec.name
""",
        REPOSITORY / "stream/data/demo.mp4",
    )


def test_timm_and_torchvision_are_imported_in_one_module_each() -> None:
    found = {
        (package, path.name)
        for path in (REPOSITORY / "stream").rglob("*.py")
        for package in re.findall(r"^\s*(?:from|import) (timm|torchvision)\b", path.read_text(encoding="utf-8"), re.M)
    }
    assert found == {("timm", "backbones.py"), ("torchvision", "torchvision_ops.py")}


def test_the_table_of_models_that_need_timm_is_complete() -> None:
    with_timm, without = registry._timm_architectures(), registry._architectures()
    for spec in catalog.MODELS:
        if registry.runtime_of(spec) == "torch":
            assert (spec.architecture in with_timm) == registry.needs_timm(spec) != (spec.architecture in without)
    assert set(with_timm) | set(without) <= {spec.architecture for spec in catalog.MODELS}


@pytest.mark.slow
def test_timm_is_imported_in_the_background_where_it_is_needed_beside_torchvision_of_any_build() -> None:
    """Beside a CPU-only torch, PyPI's torchvision has no operators; beside a torch of its own build it has all."""
    python(
        f"""
import threading
from stream.models import registry
registry.preload(registry.find("starter"))
registry.preload(registry.find("depth_anything_v2_vits"))
assert threading.active_count() == 1
registry.preload(registry.find("dpt_swin2_tiny_256"))
(thread,) = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
assert thread.daemon
registry.build(registry.find("dpt_swin2_tiny_256"))  # while the thread imports
thread.join()
registry.preload(registry.find("dpt_swin2_tiny_256"))
assert threading.active_count() == 1
assert {HEAVY}

import torch
from stream.models import torchvision_ops
from torchvision.extension import _has_ops
assert torchvision_ops.is_active() != _has_ops()
assert torch.ops.torchvision.nms.default and torch.ops.torchvision.qnms.default
torchvision_ops.import_torchvision()  # a second call does nothing
"""
    )


def test_a_torchvision_that_is_missing_or_broken_is_reported(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('it is broken')")
    python(
        """
import threading
from stream.models import registry
sys.modules["torchvision"] = None
registry.preload(registry.find("dpt_swin2_tiny_256"))
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
try:
    registry.build(registry.find("dpt_swin2_tiny_256"))
except ImportError as error:
    assert error.name == "torchvision"
else:
    raise AssertionError

del sys.modules["torchvision"]
sys.path.insert(0, sys.argv[1])
from stream.models import torchvision_ops
try:
    torchvision_ops.import_torchvision()
except RuntimeError as error:
    assert str(error) == "it is broken"
else:
    raise AssertionError
assert not torchvision_ops.is_active()
""",
        tmp_path,
    )


IMPORT = "from stream.models import torchvision_ops\ntorchvision_ops.import_torchvision()\nimport torchvision\n"


@pytest.mark.slow
def test_nothing_is_defined_where_the_operators_exist() -> None:
    python(
        f"""
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
try:
    import torchvision
except RuntimeError:  # not a matched pair: define what a matched one has
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
{IMPORT}
assert not torchvision_ops.is_active()
import timm
"""
    )


class Unfilled(nn.Module):
    """A module with a buffer that is in no file, and nobody to compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.zeros(3), persistent=False)


def test_a_tensor_without_values_is_an_error() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.ReLU(), Unfilled())
    with pytest.raises(ModelError, match=r"the network is incomplete: 1 without values: 1\.index; .* timm"):
        registry.finish(network)


def swin(version: int) -> tuple[Swin, SwinTransformer | SwinTransformerV2]:
    """A small network built on the meta device and finished, and timm's own, built with its values."""
    kind = (SwinTransformer, SwinTransformerV2)[version - 1]
    ours = {"size": 64, "width": 8, "depths": (2, 2), "heads": (1, 2), "window": 4}
    with torch.device("meta"):
        network = Swin(version=version, **ours, trained_windows=(3, 3))  # type: ignore[arg-type]
    theirs = kind(img_size=64, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4)
    if version == 2:
        theirs = SwinTransformerV2(
            img_size=64, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4, pretrained_window_sizes=(3, 3)
        )
    network.load_state_dict({key: torch.zeros(value.shape) for key, value in network.state_dict().items()}, assign=True)
    registry.finish(network)
    return network, theirs


@pytest.mark.parametrize("version", [1, 2])
def test_buffers_that_are_in_no_file_have_their_values(version: int) -> None:
    network, theirs = swin(version)

    def unsaved(module: nn.Module) -> dict[str, Tensor]:
        saved = module.state_dict()
        return {key: value for key, value in module.named_buffers() if key not in saved}

    ours = {key.removeprefix("model."): value for key, value in unsaved(network).items()}
    wanted = unsaved(theirs)
    assert ours.keys() == wanted.keys()
    assert any(key.endswith("attn_mask") for key in ours)
    assert all(torch.equal(ours[key], wanted[key]) for key in wanted)


@pytest.mark.slow
def test_synthetic_weights_leave_nothing_empty() -> None:
    network = with_synthetic_weights(registry.find("dpt_swin2_tiny_256")).network
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    with torch.inference_mode():
        depth = network(torch.zeros(1, 3, 256, 256))
    assert depth.shape == (1, 256, 256)
    assert torch.isfinite(depth).all()


RUN = """
from pathlib import Path
import stream
from stream.infer.backends import cache
folder = Path(sys.argv[1])
cache.cache_folder = lambda: folder / "cache"
report = stream.run(
    folder / "picture.png", output=folder / f"out{len(list(folder.iterdir()))}", model="dpt_swin2_tiny_256",
    weights=folder / "weights.pt", save="npy", picture="none", precision="fp32", backend="openvino",
)
assert report.backend == "openvino"
print(sorted({'timm', 'torchvision'} & set(sys.modules)))
"""


@pytest.mark.slow
def test_a_cached_export_needs_no_timm(tmp_path: Path) -> None:
    from PIL import Image

    path = next(path for path in FILES if path.stem == "dpt_swin2_tiny_256")
    torch.save(checkpoint(reference(path)["state_dict"]), tmp_path / "weights.pt")
    Image.new("RGB", (64, 48), (200, 80, 30)).save(tmp_path / "picture.png")
    outputs = [
        subprocess.run(
            [sys.executable, "-c", f"import sys\n{RUN}", str(tmp_path)], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert outputs == ["['timm', 'torchvision']\n", "[]\n"]
