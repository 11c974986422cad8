"""From the SOURCES of a batch to the list of its sources, each with the place of its result.

Results mirror the tree of the sources. A folder keeps its own name: `holiday/a/b.mov` of the source `holiday` becomes
`OUT/holiday/a/b.mp4`. Single files, globs and lists are named from the deepest folder that all of them share.
Invariant: the same SOURCES give the same names on every machine, and no two sources have one result.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from stream.capture.parse import ParsedSource, SourceForm, parse_source
from stream.capture.stills.find import (
    common_folder,
    find_media,
    find_pictures,
    is_special,
    is_video_name,
    media_among,
    natural_key,
    not_found,
)
from stream.capture.stills.formats import SUFFIXES
from stream.config import Config
from stream.depthdata.description import DepthCodec
from stream.errors import SourceNotFoundError, UsageError, redacted
from stream.files import real
from stream.jobs.plan import file_formats
from stream.remote.urls import is_remote, parse
from stream.sinks.naming import FrameNames

ANIMATED = frozenset((".gif", ".webp", ".png", ".apng", ".avif"))
"""Suffixes of pictures that may hold several frames."""
_ALLOWED = "video and picture files, folders, globs and .txt lists, also in buckets"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One source of a batch.

    Attributes:
        name: unique; with `/` between folders, relative to where the tree of the results begins.
        source: absolute path, or URL.
        output: relative to the output folder.
        is_picture: by its name.
        size: bytes; 0 if unknown.
        stamp: its ETag, if it is in a bucket.
    """

    name: str
    source: str
    output: str
    is_picture: bool
    size: int = 0
    stamp: str = ""


class Found(NamedTuple):
    """The result of `find_sources`.

    Attributes:
        items: in natural order.
        notes: what was left out.
    """

    items: tuple[Item, ...]
    notes: tuple[str, ...]


class _Tree:
    """The sources so far, by name."""

    def __init__(self, out: Path | str) -> None:
        self._out = f"{real(out)}{os.sep}" if isinstance(out, Path) else f"{out.rstrip('/')}/"
        self.folders: dict[Path, None] = {}
        self.files: dict[str, None] = {}
        self.urls: dict[str, None] = {}
        self.remote: dict[str, str] = {}
        """The names of the results of files in buckets and on servers, by URL."""
        self.sizes: dict[str, int] = {}
        """Their sizes."""
        self.stamps: dict[str, str] = {}
        """Their ETags."""
        self.ignored = self.repeated = self.results = 0
        self.unreadable: list[tuple[str, str]] = []

    def add(self, parsed: ParsedSource, text: str) -> None:
        """Add what one of the SOURCES names. Raises `StreamError`."""
        path = Path(parsed.value)
        match parsed.form:
            case SourceForm.FOLDER:
                self._add_folder(path)
            case SourceForm.GLOB if glob.has_magic(parsed.value):
                matches = sorted(glob.glob(parsed.value, recursive=True), key=lambda name: (natural_key(name), name))
                if not matches:
                    raise SourceNotFoundError("no file matches", where=text)
                for match in matches:
                    self._add_match(Path(match))
            case SourceForm.GLOB:
                self._add_files(find_pictures(parsed.value).paths)
            case SourceForm.LIST:
                found = find_pictures(parsed.value)
                self.repeated += len(found.ignored)
                self.unreadable += found.unreadable
                for entry in found.paths:
                    if is_special(entry):
                        self.ignored += 1
                        continue
                    self._add_folder(entry) if entry.is_dir() else self._add_files([entry])
            case SourceForm.PICTURE | SourceForm.VIDEO:
                if not os.path.lexists(path):
                    raise not_found(path)
                self._add_files([path])
            case SourceForm.NETWORK if parsed.value.startswith(("http://", "https://")):
                self.urls[parsed.value] = None
            case SourceForm.REMOTE:
                self._add_remote(parsed.value)
            case _:
                what = f"is {_kind(parsed.form)}, which has no end or can be read only once"
                raise UsageError(what, where=redacted(text), allowed=_ALLOWED, hint="use `depthstream run` for it")

    def _add_remote(self, url: str) -> None:
        """Add a file, the files of a folder or those that match a glob in a bucket or on a server."""
        from stream.remote.access import Remote

        place, remote = parse(url), Remote(url)
        if f"{url.rstrip('/')}/".startswith(self._out):
            what, hint = "lies in the output folder, where results go", "choose another folder with -o"
            raise UsageError(what, where=url, hint=hint)
        if (exact := remote.named(url)) is not None:
            self.urls[url] = None
            self.sizes[url], self.stamps[url] = exact.size, exact.etag
            return
        listed = remote.files(url)
        found = [entry for entry in listed if not entry.url.startswith(self._out)]
        self.results += len(listed) - len(found)
        entries = {parse(entry.url).path: entry for entry in found}
        visible = [path for path in entries if not any(part.startswith(".") for part in path.split("/"))]
        if place.is_pattern and not visible:
            raise SourceNotFoundError("no file matches", where=url)
        root = place.path if place.is_folder else os.path.commonpath([os.path.dirname(path) for path in visible])
        name = place.name if place.is_folder else ""
        media = media_among(visible)
        self.ignored += len(entries) - len(media)
        for path in media:
            entry = entries[path]
            inside = "/".join(_plain(part) for part in path[len(root) :].split("/") if part)
            self.remote[entry.url] = f"{name}/{inside}" if name else inside
            self.sizes[entry.url], self.stamps[entry.url] = entry.size, entry.etag

    def _add_match(self, path: Path) -> None:
        if path.is_dir():
            self._add_folder(path)
        elif _is_media(path) and not is_special(path):
            self._add_files([path])
        else:
            self.ignored += 1

    def _add_folder(self, folder: Path) -> None:
        self._check_apart(folder)
        self.folders[Path(os.path.normpath(folder))] = None

    def _add_files(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._check_apart(path)
            self.files[os.path.abspath(path)] = None

    def _check_apart(self, path: Path) -> None:
        if f"{real(path)}{os.sep}".startswith(self._out):
            what, hint = "lies in the output folder, where results go", "choose another folder with -o"
            raise UsageError(what, where=str(path), hint=hint)

    def named(self) -> dict[str, str]:
        """Name → source, without those that are there already under another name."""
        found: dict[str, str] = {}
        known: set[str] = set()

        def take(name: str, source: str) -> None:
            if source in known:
                self.repeated += 1
                return
            if found.setdefault(name, source) != source:
                what = f"and {found[name]} would have the same name in the output folder"
                raise UsageError(what, where=source, hint="give them to two commands, with a folder each")
            known.add(source)

        for folder, prefix in _prefixes(self.folders).items():
            media = find_media(folder)
            self.ignored += media.ignored
            self.unreadable += media.unreadable
            for path in media.paths:
                if f"{real(path)}".startswith(self._out):
                    self.results += 1
                    continue
                take((prefix / path.relative_to(folder).as_posix()).as_posix(), os.path.abspath(path))
        root = common_folder(map(Path, self.files)) if self.files else Path()
        for file in self.files:
            take(Path(file).relative_to(root).as_posix(), file)
        for url, name in self.remote.items():
            take(name, url)
        lasts = Counter(_last_part(url) for url in self.urls)
        for url in self.urls:
            take(_last_part(url) if lasts[_last_part(url)] == 1 else _whole_path(url), url)
        return found


def find_sources(texts: Sequence[str], config: Config, *, out: Path | str) -> Found:
    """Find what the SOURCES of a batch name.

    Args:
        texts: files, folders, globs and lists, as typed.
        config: decides the formats of the results.
        out: the output folder or its URL; what is in it is no source.

    Raises:
        UsageError: one of them does not exist, is live, or lies in the output folder; or nothing is found.
    """
    tree = _Tree(out)
    for text in texts:
        tree.add(parse_source(text), text)
    named = tree.named()
    notes = []
    if tree.ignored:
        notes.append(f"left out, no video and no picture: {_count(tree.ignored, 'file')}")
    if tree.results:
        notes.append(f"left out, in the output folder: {_count(tree.results, 'file')}")
    if tree.repeated:
        notes.append(f"named more than once, done once: {_count(tree.repeated, 'file')}")
    notes += [f"left out, {name}: {reason}" for name, reason in tree.unreadable]
    if not named:
        raise SourceNotFoundError("no video and no picture", where=" ".join(texts[:3]), allowed=_ALLOWED)
    ordered = sorted(named, key=lambda name: (natural_key(name), name))
    outputs = _outputs(ordered, config)
    items = [
        Item(
            name=name,
            source=named[name],
            output=outputs[name],
            is_picture=_is_picture(name),
            size=tree.sizes.get(named[name]) or _size(named[name]),
            stamp=tree.stamps.get(named[name], ""),
        )
        for name in ordered
    ]
    return Found(tuple(items), tuple(notes))


def _outputs(names: Sequence[str], config: Config) -> dict[str, str]:
    """The result of each source. Where two would have one name, both keep their suffix: `a.mp4.mp4`, `a.mov.mp4`."""
    output = config.output
    picture = "png" if output.picture == "none" else output.picture
    video_ends, picture_ends = [".mp4", "_depth"], [f".{picture}"]
    if output.picture == "none":
        codec = DepthCodec(output.depth_codec or DepthCodec.FFV1)
        video_ends = [codec.suffix] if output.save and not file_formats(config) else [""]
    videos = [name for name in names if not _is_picture(name)]
    found = {}
    for some, ends in ((videos, video_ends), ([name for name in names if _is_picture(name)], picture_ends)):
        stems = FrameNames(some, {*ends, ".depth.mkv"} if "video16" in output.save else ends)
        for name in some:
            found[name] = stems.stem_of(name, 0) + ends[0]
    return found


def _prefixes(folders: Iterable[Path]) -> dict[Path, PurePosixPath]:
    """What stands before the names of the files in each folder: its own name, or as much as tells folders apart."""
    by_name: dict[str, list[Path]] = {}
    for folder in folders:
        by_name.setdefault("" if folder == Path() else real(folder).name, []).append(folder)
    found: dict[Path, PurePosixPath] = {}
    for name, same in by_name.items():
        root = common_folder(folder.absolute() for folder in same)
        for folder in same:
            inside = folder.absolute().relative_to(root) if len(same) > 1 else Path(name)
            found[folder] = PurePosixPath(inside.as_posix())
    return found


def _is_media(path: Path) -> bool:
    return is_video_name(path) or path.suffix.lower() in SUFFIXES


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _size(source: str) -> int:
    try:
        return 0 if "://" in source else os.stat(source).st_size
    except (OSError, ValueError):
        return 0


def _last_part(url: str) -> str:
    return _plain(PurePosixPath(_path_of(url)).name or urlsplit(url).netloc)


def _whole_path(url: str) -> str:
    return "/".join(_plain(part) for part in (urlsplit(url).hostname or "", *_path_of(url).split("/")) if part)


def _path_of(url: str) -> str:
    return parse(url).path if is_remote(url) else unquote(urlsplit(url).path)


def _plain(name: str) -> str:
    return "_" if name in (".", "..") else name.replace("/", "_").replace("\0", "_")


def _kind(form: SourceForm) -> str:
    return {SourceForm.CAMERA: "a camera", SourceForm.PATTERN: "a test pattern", SourceForm.PIPE: "a pipe"}.get(
        form, "a stream"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
