"""Finding a model's weights: a given file, a file in one of the usual folders, or a download.

Invariant: every file that `find_file` returns has been hashed. A shipped or cached file has the published sha256 if
one is known; a file of the user's may differ, which gives a note.
"""

import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

from stream.errors import ModelError, UsageError
from stream.models import catalog
from stream.models.spec import ModelSpec
from stream.models.weights.fetch import OnTransfer, by_hand, fetch
from stream.notes import note

FOLDERS = (Path("weights"), Path("checkpoints"))
"""Searched in the current folder: where users of this program and of the official scripts keep weights."""
FOLDER_VARIABLE = "DEPTHSTREAM_WEIGHTS"
OFFLINE_VARIABLE = "DEPTHSTREAM_OFFLINE"
_OFF = ("", "0", "false", "no", "off")


class Place(StrEnum):
    """Origin of a file."""

    PACKAGE = "package"
    USER = "user"
    CACHE = "cache"


class Verdict(StrEnum):
    """Result of comparing a file's sha256 with the published one."""

    PUBLISHED = "published"
    DIFFERENT = "different"
    UNVERIFIED = "unverified"
    """No sha256 is published for this file."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """A weights file that exists."""

    path: Path
    place: Place


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A weights file to use, with the sha256 of its content."""

    path: Path
    sha256: str


def cache_folder() -> Path:
    """Folder for downloads: `weights` in the user's cache folder for this program; it may not exist yet."""
    from platformdirs import user_cache_path

    return user_cache_path("depthstream", appauthor=False) / "weights"


def search(spec: ModelSpec, *, weights_dir: Path | None = None) -> Located | None:
    """The local weights file of `spec`; None if there is none.

    Searches these folders, in this order: `weights_dir`, `./weights`, `./checkpoints`, `$DEPTHSTREAM_WEIGHTS`, the
    cache; in each, first for the official name, then for the same stem with `.safetensors`.

    Raises:
        UsageError: `weights_dir` is not a folder.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise UsageError("no such folder", where=str(weights_dir), hint="check the path given with --weights-dir")
    if spec.weights.packaged:
        return Located(path=Path(str(files("stream") / "data" / spec.weights.file)), place=Place.PACKAGE)
    from_variable = os.environ.get(FOLDER_VARIABLE)
    folders = [weights_dir, *FOLDERS, Path(from_variable).expanduser() if from_variable else None]
    places = [(folder, Place.USER) for folder in folders if folder is not None]
    official = Path(spec.weights.file)
    for folder, place in [*places, (cache_folder(), Place.CACHE)]:
        for name in dict.fromkeys((official, official.with_suffix(".safetensors"))):
            if os.path.isfile(folder / name):  # False if access is denied, where Path.is_file raises
                return Located(path=folder / name, place=place)
    return None


def find_file(
    spec: ModelSpec,
    weights: Path | None = None,
    *,
    weights_dir: Path | None = None,
    offline: bool = False,
    on_progress: OnTransfer | None = None,
) -> Checked:
    """The weights file to use, downloaded into the cache if there is no local file.

    Args:
        weights: use this file.
        weights_dir: search this folder first, see `search`.
        offline: never download; so does `DEPTHSTREAM_OFFLINE=1` in the environment.
        on_progress: receives the progress of a download.

    Raises:
        UsageError: `weights` or `weights_dir` does not exist.
        ModelError: there is no local file and it cannot be downloaded, or a shipped or cached file is damaged.
    """
    digest: str | None = None
    if weights is not None:
        if not weights.is_file():
            raise UsageError("no such weights file", where=str(weights), hint="check the path given with --weights")
        found: Located | None = Located(path=weights, place=Place.USER)
    else:
        found = search(spec, weights_dir=weights_dir)
    if found is None:
        if offline or is_offline():
            raise _offline(spec)
        fetched = fetch(spec, cache_folder(), on_progress=on_progress)
        found, digest = Located(path=fetched.path, place=Place.CACHE), fetched.sha256
    digest = digest or sha256(found.path)
    if spec.weights.sha256 not in (None, digest):
        # Models of one size have the same keys and shapes; only the published hash distinguishes their files.
        others = [row.name for row in catalog.MODELS if row.weights.sha256 == digest and row.name != spec.name]
        if others:
            hint = f"use -m {' or -m '.join(others)}"
            raise ModelError(f"is not the file of {spec.name}", where=str(found.path), hint=hint)
        if found.place is not Place.USER and verdict(spec, found.path, digest) is Verdict.DIFFERENT:
            raise _damaged(spec, found, digest)
        note(f"{found.path}: not the published file (sha256 {digest})")
    return Checked(path=found.path, sha256=digest)


def verdict(spec: ModelSpec, path: Path, digest: str) -> Verdict:
    """Compare a file's sha256 with the published one; a file with another name (a converted one) is not comparable."""
    if digest == spec.weights.sha256:
        return Verdict.PUBLISHED
    if spec.weights.sha256 is None or path.name != spec.weights.file:
        return Verdict.UNVERIFIED
    return Verdict.DIFFERENT


def is_offline() -> bool:
    """True if the environment forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "").lower() not in _OFF


def sha256(path: Path) -> str:
    """Hex digest of a file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _offline(spec: ModelSpec) -> ModelError:
    if spec.weights.url is None:
        hint = "if you have the file, pass it with --weights"
    else:
        hint = by_hand(cache_folder(), spec.weights.url)
    return ModelError(
        f"the weights ({spec.weights.file}) are missing, and downloads are disabled (--offline or {OFFLINE_VARIABLE})",
        where=spec.name,
        hint=hint,
    )


def _damaged(spec: ModelSpec, found: Located, digest: str) -> ModelError:
    hint = f"`depthstream weights get {spec.name}` downloads it again"
    if found.place is Place.PACKAGE:
        hint = "reinstall depthstream"
    return ModelError(
        f"is damaged: its sha256 is {digest} instead of the published {spec.weights.sha256}",
        where=str(found.path),
        hint=hint,
    )
