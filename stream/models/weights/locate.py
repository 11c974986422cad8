"""Finding a model's weights: a file given, one in the folders people keep them in, or a download.

Invariant: what `find_file` returns has been hashed once, and a file of the program's own (shipped, or in the cache)
is the published one where that is known; another one of the user's is taken, and said.
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
from stream.models.weights.fetch import OnNote, OnTransfer, by_hand, fetch

FOLDERS = (Path("weights"), Path("checkpoints"))
"""Searched in the current folder: where this program's and the official scripts' users put their files."""
FOLDER_VARIABLE = "DEPTHSTREAM_WEIGHTS"
OFFLINE_VARIABLE = "DEPTHSTREAM_OFFLINE"
_OFF = ("", "0", "false", "no", "off")


class Place(StrEnum):
    """Who put a file where it is."""

    PACKAGE = "package"
    USER = "user"
    CACHE = "cache"


class Verdict(StrEnum):
    """What a file's sha256 says."""

    PUBLISHED = "published"
    DIFFERENT = "different"
    UNVERIFIED = "unverified"
    """There is no published sha256 of this file."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """A weights file that is there."""

    path: Path
    place: Place


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A weights file to use, with the sha256 of its content and what is worth saying about it."""

    path: Path
    sha256: str
    notes: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Where downloads go: `weights` in the user's cache folder for this program; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("depthstream", appauthor=False) / "weights"


def search(spec: ModelSpec, *, weights_dir: Path | None = None) -> Located | None:
    """The weights file of `spec` that is used without a download, None if there is none.

    In each folder the official name is looked for first, then the same stem with `.safetensors`. The folders, in this
    order: `weights_dir`, `./weights`, `./checkpoints`, `$DEPTHSTREAM_WEIGHTS`, the cache.

    Raises:
        UsageError: `weights_dir` is no folder.
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
            if os.path.isfile(folder / name):  # False where one may not look; Path.is_file raises
                return Located(path=folder / name, place=place)
    return None


def find_file(
    spec: ModelSpec,
    weights: Path | None = None,
    *,
    weights_dir: Path | None = None,
    offline: bool = False,
    on_progress: OnTransfer | None = None,
    on_note: OnNote | None = None,
) -> Checked:
    """The weights file to use, downloaded into the cache if it is nowhere.

    Args:
        weights: take this file.
        weights_dir: look there first, see `search`.
        offline: never download; nor with `DEPTHSTREAM_OFFLINE=1` in the environment.
        on_progress: told how far a download is.
        on_note: told each note when it arises; they are in the result too.

    Raises:
        UsageError: `weights` or `weights_dir` does not exist.
        ModelError: there is no file and it cannot be downloaded, or a file of the program's own is damaged.
    """
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        if on_note is not None:
            on_note(line)

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
        fetched = fetch(spec, cache_folder(), on_progress=on_progress, on_note=note)
        found, digest = Located(path=fetched.path, place=Place.CACHE), fetched.sha256
    digest = digest or sha256(found.path)
    if spec.weights.sha256 not in (None, digest):
        # Models of one size have the same keys and shapes; only the published hash tells their files apart.
        others = [row.name for row in catalog.MODELS if row.weights.sha256 == digest and row.name != spec.name]
        if others:
            hint = f"use -m {' or -m '.join(others)}"
            raise ModelError(f"is not the file of {spec.name}", where=str(found.path), hint=hint)
        if found.place is not Place.USER and verdict(spec, found.path, digest) is Verdict.DIFFERENT:
            raise _damaged(spec, found, digest)
        note(f"{found.path}: not the published file (sha256 {digest})")
    return Checked(path=found.path, sha256=digest, notes=tuple(notes))


def verdict(spec: ModelSpec, path: Path, digest: str) -> Verdict:
    """What the sha256 of a file says; one under another name than the official (converted) cannot be compared."""
    if digest == spec.weights.sha256:
        return Verdict.PUBLISHED
    if spec.weights.sha256 is None or path.name != spec.weights.file:
        return Verdict.UNVERIFIED
    return Verdict.DIFFERENT


def is_offline() -> bool:
    """True if the environment forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "").lower() not in _OFF


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces.

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
        hint = "pass a file you have with --weights"
    else:
        hint = by_hand(cache_folder(), spec.weights.url)
    return ModelError(
        f"its weights {spec.weights.file} are not here, and downloads are off (--offline or {OFFLINE_VARIABLE})",
        where=spec.name,
        hint=hint,
    )


def _damaged(spec: ModelSpec, found: Located, digest: str) -> ModelError:
    hint = f"`depthstream weights get {spec.name}` fetches it again"
    if found.place is Place.PACKAGE:
        hint = "install depthstream again"
    return ModelError(
        f"is damaged: its sha256 is {digest} instead of the published {spec.weights.sha256}",
        where=str(found.path),
        hint=hint,
    )
