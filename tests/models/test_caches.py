"""Weights that torch.hub or Hugging Face have downloaded are used, verified, and not downloaded again."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stream.errors import ModelError
from stream.models import catalog, registry
from stream.models.catalog import STARTER
from stream.models.spec import ModelSpec, WeightsFile
from stream.models.weights import locate
from stream.models.weights.caches import in_hugging_face, in_torch_hub
from stream.models.weights.locate import Place, find_file, search
from tests.support.weights_server import CONTENT, SHA256, Server, serving

TORCH_HUB = Path("torch/hub/checkpoints")
HUB = Path("hf/hub")


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caches of a user who works in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("DEPTHSTREAM_WEIGHTS", raising=False)
    monkeypatch.delenv("DEPTHSTREAM_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(locate, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.absolute()


def snapshot(
    repository: str, file: str, revision: str = "0af3", content: bytes = CONTENT, *, main: bool = True
) -> Path:
    """A file as Hugging Face keeps it: a blob, and a link to it in a snapshot."""
    folder = HUB / repository
    blob = put(folder / "blobs" / f"{len(content)}-{revision}", content)
    link = folder / "snapshots" / revision / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        put(folder / "refs" / "main", revision.encode())
    return link.absolute()


def published(server: Server, url: str, *, sha256: str | None = SHA256, file: str = "tiny.pt") -> ModelSpec:
    return replace(server.spec(), weights=WeightsFile(file=file, url=url, sha256=sha256))


def test_torch_hubs_file_is_used(server: Server, notes: list[str]) -> None:
    path, spec = put(TORCH_HUB / "tiny.pt"), server.spec()
    assert getattr(search(spec), "place", None) is Place.TORCH_HUB
    assert find_file(spec).path == path
    assert notes == [f"{path}: used from the cache of torch.hub"]
    assert server.requests == []
    own = put(Path("cache/tiny.pt"))
    assert find_file(spec).path == own  # the caches of others come last


def test_another_content_is_not_used_and_the_published_one_is_downloaded(server: Server, notes: list[str]) -> None:
    path = put(TORCH_HUB / "tiny.pt", b"an interrupted download")
    assert find_file(server.spec()).path == Path("cache/tiny.pt").absolute()
    assert any(f"{path}: not the published file (sha256 " in note and note.endswith("; not used") for note in notes)
    assert len(server.requests) == 1
    assert path.read_bytes() == b"an interrupted download"


def test_offline_it_is_used_or_its_absence_is_said(server: Server) -> None:
    with pytest.raises(ModelError, match="downloads are disabled"):
        find_file(server.spec(), offline=True)
    path = put(TORCH_HUB / "tiny.pt")
    assert find_file(server.spec(), offline=True).path == path


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TORCH_HOME": "elsewhere"}, "elsewhere/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/torch/hub/checkpoints"),
        ({"HOME": "home", "USERPROFILE": "home"}, "home/.cache/torch/hub/checkpoints"),
    ],
)
def test_torch_hubs_cache_is_where_torch_has_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], folder: str
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    assert list(in_torch_hub(server.spec())) == [tmp_path / folder / "tiny.pt"]
    assert str(tmp_path / folder) == f"{torch.hub.get_dir()}/checkpoints"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "one", "HF_HOME": "two"}, "one"),
        ({"HUGGINGFACE_HUB_CACHE": "one"}, "one"),
        ({"HF_HOME": "two"}, "two/hub"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/huggingface/hub"),
        ({"HOME": "home", "USERPROFILE": "home"}, "home/.cache/huggingface/hub"),
    ],
)
def test_hugging_faces_cache_is_where_its_library_has_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], folder: str
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    path = put(tmp_path / folder / "models--a--b" / "snapshots" / "1" / "tiny.pt")
    assert list(in_hugging_face(published(server, "https://huggingface.co/a/b/resolve/main/tiny.pt"))) == [path]


def test_hugging_faces_file_is_found_by_its_repository(server: Server, notes: list[str]) -> None:
    spec = published(server, "https://huggingface.co/depth-anything/B/resolve/main/sub/model.safetensors", file="B/m.s")
    snapshot("models--depth-anything--A", "sub/model.safetensors")  # another model's file of the same name
    assert search(spec) is None
    path = snapshot("models--depth-anything--B", "sub/model.safetensors")
    assert find_file(spec).path == path
    assert notes == [f"{path}: used from the cache of Hugging Face"]
    space = published(server, "https://huggingface.co/spaces/a/b/resolve/main/tiny.pt")
    assert search(space) is None
    assert getattr(search(space), "path", None) is None
    put(HUB / "spaces--a--b" / "snapshots" / "1" / "tiny.pt")
    assert getattr(search(space), "place", None) is Place.HUGGING_FACE


def test_the_newest_revision_comes_first_and_a_changed_one_is_passed_over(server: Server, notes: list[str]) -> None:
    spec = published(server, "https://huggingface.co/a/b/resolve/main/tiny.pt")
    old = snapshot("models--a--b", "tiny.pt", "1111")
    snapshot("models--a--b", "tiny.pt", "0000", main=False)
    assert next(in_hugging_face(spec)) == old
    changed = snapshot("models--a--b", "tiny.pt", "2222", b"a later version")
    assert find_file(spec).path.parent.name == "0000"
    assert notes[0].startswith(f"{changed}: not the published file")


def test_a_file_whose_sha256_is_unknown_is_used_unless_it_is_another_models(
    server: Server, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    spec = published(server, "https://huggingface.co/a/b/resolve/main/tiny.pt", sha256=None)
    path = snapshot("models--a--b", "tiny.pt")
    assert find_file(spec).path == path
    monkeypatch.setattr(catalog, "MODELS", (*catalog.MODELS, replace(server.spec(), name="other")))
    with pytest.raises(ModelError, match="are missing"):
        find_file(spec, offline=True)
    assert "not used" in notes[-1]


def test_a_broken_link_and_a_folder_in_its_place_are_no_file(server: Server) -> None:
    spec = published(server, "https://huggingface.co/a/b/resolve/main/tiny.pt")
    snapshot("models--a--b", "tiny.pt").resolve().unlink()
    (TORCH_HUB / "tiny.pt").mkdir(parents=True)
    assert search(spec) is None
    put(Path("hf/hub2"))
    assert list(in_hugging_face(replace(spec, weights=WeightsFile(file="x.pt")))) == []


def test_the_file_of_transformers_is_used_for_its_model(monkeypatch: pytest.MonkeyPatch, notes: list[str]) -> None:
    """It has no published sha256; what it is stands in its config.json."""
    row = registry.find("depth_anything_v2_vits")
    monkeypatch.setattr(catalog, "MODELS", (STARTER, row))
    folder = HUB / "models--depth-anything--Depth-Anything-V2-Small-hf" / "snapshots" / "1"
    folder.mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "depth_anything"}))
    assert getattr(search(row), "path", None) == (folder / "model.safetensors").absolute()
    snapshot("models--someone--depth-anything-v2-base-hf", "model.safetensors")
    assert search(registry.find("depth_anything_v2_vits")) is not None
    found = find_file(row, offline=True)
    assert notes[0] == f"{found.path}: used from the cache of Hugging Face"
    assert notes[1].startswith(f"{found.path}: not the published file (sha256 ")


def test_a_model_runs_from_torch_hubs_cache(notes: list[str]) -> None:
    tensors = load_file(find_file(STARTER).path)
    TORCH_HUB.mkdir(parents=True)
    torch.save(tensors, TORCH_HUB / "other.pt")
    url = "https://example.org/other.pt"
    digest = locate.sha256(TORCH_HUB / "other.pt")
    model = registry.load(replace(STARTER, weights=WeightsFile(file="other.pt", url=url, sha256=digest)))
    assert model.weights_sha256 == digest
    assert notes == [f"{(TORCH_HUB / 'other.pt').absolute()}: used from the cache of torch.hub"]
