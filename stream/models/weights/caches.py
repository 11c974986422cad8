"""Finds a model's weights in the caches of torch.hub and Hugging Face, where other programs have put them.

Layouts: https://pytorch.org/docs/stable/hub.html ("Where are my downloaded models saved?") and
https://huggingface.co/docs/huggingface_hub/guides/manage-cache; `refs/main` names the newest revision.
Invariant: nothing is written there, and nothing is found that was not published under the name of this model.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stream.files import expanded
from stream.models.spec import ModelSpec

_HUGGING_FACE = re.compile(r"https://huggingface\.co/(spaces/)?([^/]+)/([^/]+)/resolve/main/(.+)")
_OWNERS = ("depth-anything", "LiheYoung", "Intel")
"""Authors, and those who converted the authors' files for transformers."""
_CONVERTED = ("model.safetensors", "pytorch_model.bin")
"""Names of a file of transformers."""


def in_torch_hub(spec: ModelSpec) -> Iterator[Path]:
    """Places of a model's file in torch.hub's cache; it keeps the last part of the address only."""
    if spec.weights.url is None or "/" in spec.weights.file:
        return
    home = _folder("TORCH_HOME") or _cache() / "torch"
    yield home / "hub" / "checkpoints" / spec.weights.file


def in_hugging_face(spec: ModelSpec) -> Iterator[Path]:
    """Places of a model's file in Hugging Face's cache: the published one, then that of transformers."""
    hub = _folder("HF_HUB_CACHE") or _folder("HUGGINGFACE_HUB_CACHE")
    hub = hub or (_folder("HF_HOME") or _cache() / "huggingface") / "hub"
    if published := _HUGGING_FACE.fullmatch(spec.weights.url or ""):
        kind, owner, name, file = published.groups()
        for snapshot in _snapshots(hub / f"{'spaces' if kind else 'models'}--{owner}--{name}"):
            yield snapshot / file
    wanted = {f"models--{owner}--{alias}".lower() for owner in _OWNERS for alias in _repositories(spec)}
    for folder in _listed(hub):
        if folder.name.lower() in wanted:
            yield from (snapshot / file for snapshot in _snapshots(folder) for file in _CONVERTED)


def _repositories(spec: ModelSpec) -> Iterator[str]:
    """Names of a model's repositories with files of transformers."""
    return (alias for alias in spec.aliases if alias.endswith("-hf") or alias.startswith("dpt-"))


def _snapshots(repository: Path) -> list[Path]:
    """The revisions of a repository that are here, the newest first as far as that is known."""
    newest = ""
    with suppress(OSError, ValueError):
        newest = (repository / "refs" / "main").read_text(encoding="ascii").strip()[:64]
    return sorted(_listed(repository / "snapshots"), key=lambda path: (path.name != newest, path.name))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # missing, or it may not be listed
        return []


def _cache() -> Path:
    return _folder("XDG_CACHE_HOME") or Path(expanded("~/.cache"))


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(expanded(value)) if value else None
