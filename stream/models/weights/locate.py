"""Finding a model's weights: a given file, a file in one of the usual folders, or a download.

Invariant: every file that `find_file` returns has been hashed. A shipped or cached file has the published sha256, or
git blob, if one is known; a file of the user's may differ, which gives a note.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

from stream.errors import ModelError, UsageError, reason_of
from stream.files import expanded, real
from stream.models import catalog
from stream.models.spec import ModelSpec
from stream.models.weights.caches import in_hugging_face, in_torch_hub
from stream.models.weights.fetch import OnTransfer, by_hand, fetch, git_blob, largest_file, size_text
from stream.models.weights.lookalikes import refuse_folder
from stream.notes import note

FOLDERS = (Path("weights"), Path("checkpoints"))
"""Searched in the current folder: where users of this program and of the official scripts keep weights."""
FOLDER_VARIABLE = "DEPTHSTREAM_WEIGHTS"
OFFLINE_VARIABLE = "DEPTHSTREAM_OFFLINE"
_COPIES = 8
"""What a training checkpoint holds at most, in float32: the network, its average and two moments, each twice."""
_OFF = ("", "0", "false", "no", "off")


class Place(StrEnum):
    """Origin of a file."""

    PACKAGE = "package"
    USER = "user"
    CACHE = "cache"
    TORCH_HUB = "torch.hub"
    HUGGING_FACE = "hugging_face"

    @property
    def is_foreign(self) -> bool:
        """A cache of another program."""
        return self in (Place.TORCH_HUB, Place.HUGGING_FACE)


class Verdict(StrEnum):
    """Result of comparing a file's sha256, or its git blob if that is what is known, with the published one."""

    PUBLISHED = "published"
    DIFFERENT = "different"
    UNVERIFIED = "unverified"
    """Neither is published for this file."""


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
    cache; in each, first for the official stem with `.safetensors`, which holds nothing but tensors, then for the
    official name, both with the folder that the name may have. Then the caches of torch.hub and Hugging Face.

    Raises:
        UsageError: `weights_dir` is not a folder.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise UsageError("no such folder", where=str(weights_dir), hint="check the path given with --weights-dir")
    if spec.weights.packaged:
        return Located(path=Path(str(files("stream") / "data" / spec.weights.file)), place=Place.PACKAGE)
    from_variable = os.environ.get(FOLDER_VARIABLE)
    folders = [weights_dir, *FOLDERS, Path(expanded(from_variable)) if from_variable else None]
    places = [(folder, Place.USER) for folder in folders if folder is not None]
    for folder, place in [*places, (cache_folder(), Place.CACHE)]:
        for name in _file_names(spec):
            if os.path.isfile(folder / name):  # False if access is denied, where Path.is_file raises
                return Located(path=folder / name, place=place)
    return next(_foreign(spec), None)


def _foreign(spec: ModelSpec) -> Iterator[Located]:
    """The model's files in the caches of other programs."""
    places = [(path, Place.TORCH_HUB) for path in in_torch_hub(spec)]
    places += [(path, Place.HUGGING_FACE) for path in in_hugging_face(spec)]
    return (Located(path=path, place=place) for path, place in places if os.path.isfile(path))


def _file_names(spec: ModelSpec) -> tuple[str, ...]:
    official = Path(spec.weights.file)
    return tuple(dict.fromkeys((str(official.with_suffix(".safetensors")), str(official))))


def _given(spec: ModelSpec, weights: Path) -> Path:
    """The file that the user names, or the model's file in the folder that the user names.

    Raises:
        UsageError: there is none.
    """
    if os.path.isfile(weights):  # False if access is denied, where Path.is_file raises
        return weights
    if os.path.isdir(weights):
        refuse_folder(weights)
        names = _file_names(spec)
        if Path(spec.weights.file).parts[:-1] in ((), (real(weights).name,)):  # the model's own folder, or none
            names = tuple(dict.fromkeys((*names, *(Path(name).name for name in names))))
        if name := next((name for name in names if os.path.isfile(weights / name)), None):
            return weights / name
        hint = "name the file itself"
        with suppress(OSError):  # the folder may be searched, but not listed
            hint = hint if any(weights.iterdir()) else "the folder is empty"
        raise UsageError(
            f"this folder holds no weights of {spec.name}",
            where=str(weights),
            allowed=", ".join(names[::-1]),
            hint=hint,
        )
    raise UsageError("no such weights file", where=str(weights), hint="check the path")


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
        weights: use this file, or the model's in this folder.
        weights_dir: search this folder first, see `search`.
        offline: never download; so does `DEPTHSTREAM_OFFLINE=1` in the environment.
        on_progress: receives the progress of a download.

    Raises:
        UsageError: `weights` or `weights_dir` does not exist.
        ModelError: there is no local file and it cannot be downloaded, or a shipped or cached file is damaged.
    """
    digest: str | None = None
    if weights is not None:
        found: Located | None = Located(path=_given(spec, weights), place=Place.USER)
    else:
        found = search(spec, weights_dir=weights_dir)
    if found is not None and found.place.is_foreign:
        found, digest = _verified_foreign(spec)
    if found is None:
        if offline or is_offline():
            raise _offline(spec)
        fetched = fetch(spec, cache_folder(), on_progress=on_progress)
        found, digest = Located(path=fetched.path, place=Place.CACHE), fetched.sha256
    digest = digest or _sized_sha256(spec, found.path)
    # Models of one size have the same keys and shapes; only the published hash distinguishes their files.
    is_known = found.place is not Place.CACHE or spec.weights.is_verifiable  # else it is what the address gave
    if is_known and (others := _published_as(digest, spec)):
        hint = f"use -m {' or -m '.join(others)}"
        raise ModelError(f"is not the file of {spec.name}", where=str(found.path), hint=hint)
    if spec.weights.is_verifiable and (result := verdict(spec, found.path, digest)) is not Verdict.PUBLISHED:
        if found.place is not Place.USER and result is Verdict.DIFFERENT:
            raise _damaged(spec, found, digest)
        note(f"{found.path}: not the published file (sha256 {digest})")
    return Checked(path=found.path, sha256=digest)


def _published_as(digest: str, spec: ModelSpec) -> list[str]:
    """Names of the other models whose published file has this sha256."""
    if digest == spec.weights.sha256:
        return []
    return [row.name for row in catalog.MODELS if row.weights.sha256 == digest and row.name != spec.name]


def _verified_foreign(spec: ModelSpec) -> tuple[Located | None, str | None]:
    """The first of the model's files in the caches of other programs that is not known to be another one; noted."""
    for found in _foreign(spec):
        try:
            digest = _sized_sha256(spec, found.path)
        except ModelError as error:
            note(f"{error}; not used")
            continue
        if verdict(spec, found.path, digest) is Verdict.DIFFERENT or _published_as(digest, spec):
            note(f"{found.path}: not the published file (sha256 {digest}); not used")
            continue
        name = "torch.hub" if found.place is Place.TORCH_HUB else "Hugging Face"
        note(f"{found.path}: used from the cache of {name}")
        return found, digest
    return None, None


def verdict(spec: ModelSpec, path: Path, digest: str) -> Verdict:
    """Compare a file with the published one; a file with another name (a converted one) is not comparable.

    Args:
        digest: the file's sha256.

    Raises:
        ModelError: the file has to be read, because only its git blob is known, and cannot be.
    """
    known = spec.weights
    is_blob_known = known.sha256 is None and known.git_blob is not None
    if digest == known.sha256 or (is_blob_known and _git_blob(path) == known.git_blob):
        return Verdict.PUBLISHED
    if not known.is_verifiable or path.name != Path(known.file).name:
        return Verdict.UNVERIFIED
    return Verdict.DIFFERENT


def difference(spec: ModelSpec, path: Path, digest: str) -> tuple[str, str, str]:
    """What was compared ("sha256" or "git blob"), what the file has, and what is published; else as for `verdict`."""
    if spec.weights.sha256 is None and spec.weights.git_blob is not None:
        return "git blob", _git_blob(path), spec.weights.git_blob
    return "sha256", digest, str(spec.weights.sha256)


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


def _git_blob(path: Path) -> str:
    try:
        return git_blob(path)
    except OSError as error:
        raise ModelError(f"cannot be read: {reason_of(error)}", where=str(path)) from error


def _sized_sha256(spec: ModelSpec, path: Path) -> str:
    """Hex digest of a file that can be one of this model's: a larger one is refused unread.

    Raises:
        ModelError: it is too large, or cannot be read.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"cannot be read: {reason_of(error)}", where=str(path)) from error
    most = largest_file(spec, _COPIES)
    if size > most:
        what = f"has {size_text(size)}, and a checkpoint of {spec.name} at most {size_text(most)}"
        raise ModelError(what, where=str(path), hint="save the state dict alone")
    return sha256(path)


def _offline(spec: ModelSpec) -> ModelError:
    if spec.weights.url is None:
        hint = "if you have the file, pass it with --weights"
    else:
        hint = by_hand((cache_folder() / spec.weights.file).parent, spec.weights.url)
    return ModelError(
        f"the weights ({spec.weights.file}) are missing, and downloads are disabled (--offline or {OFFLINE_VARIABLE})",
        where=spec.name,
        hint=hint,
    )


def _damaged(spec: ModelSpec, found: Located, digest: str) -> ModelError:
    hint = f"`depthstream weights get {spec.name}` downloads it again"
    if found.place is Place.PACKAGE:
        hint = "reinstall depthstream"
    what, has, published = difference(spec, found.path, digest)
    return ModelError(
        f"is damaged: its {what} is {has} instead of the published {published}",
        where=str(found.path),
        hint=hint,
    )
