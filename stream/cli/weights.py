"""`depthstream weights`: which weights files are here, fetch them, check them.

Invariant: as in `cli`, nothing heavy is imported to show the help; files on stdout, everything else on stderr.
"""

import contextlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.cli.console import print_json
from stream.cli.options import SETTINGS, ConfigCommand, as_json, debug, own
from stream.errors import StreamError, UsageError, printable
from stream.notes import Notes, collected

if TYPE_CHECKING:
    from stream.cli.progress import ProgressDisplay
    from stream.config import Config
    from stream.models.spec import ModelSpec
    from stream.models.weights.locate import Located


@click.group(context_settings=SETTINGS)
def weights() -> None:
    """List, fetch and verify weights files."""


@weights.command(name="list", cls=ConfigCommand, keys=("model.weights_dir",))
@as_json
@debug
def list_files(config: "Config", as_json: bool) -> None:
    """List the weights files: where each one is, its size, its licence."""
    from stream.models import catalog
    from stream.models.weights.fetch import size_text
    from stream.models.weights.locate import search

    found = {spec.name: search(spec, weights_dir=config.model.weights_dir) for spec in catalog.MODELS}
    if as_json:
        rows = [_row(spec, found[spec.name]) for spec in catalog.MODELS]
        print_json(rows, indent=2)
        return
    lines = []
    for spec in catalog.MODELS:
        here = found[spec.name]
        where = str(here.path) if here else f"not here: {spec.weights.file}"
        if not here and spec.weights.url is None:
            where += " (not published)"
        lines.append((spec.name, size_text(here.path.stat().st_size) if here else "-", spec.licence_text, where))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, size, licence, where in lines:
        print(f"{name:<{widths[0]}}  {size:>{widths[1]}}  {licence:<{widths[2]}}  {printable(where)}")


def _row(spec: "ModelSpec", here: "Located | None") -> dict[str, str | int | None]:
    return {
        "name": spec.name,
        "file": spec.weights.file,
        "licence": spec.licence,
        "url": spec.weights.url,
        "path": str(here.path) if here else None,
        "place": here.place.value if here else None,
        "size_bytes": here.path.stat().st_size if here else None,
    }


_names = click.argument("names", nargs=-1, metavar="[NAME]...")


@weights.command(cls=ConfigCommand, keys=("model.weights_dir", "model.commercial_only", "output.quiet"))
@_names
@own("--all", "wants_all", is_flag=True, help_text="Fetch every published file.")
@debug
def get(config: "Config", names: Sequence[str], wants_all: bool) -> None:
    """Fetch the weights of the models NAME into the cache, unless they are here; print each file's path.

    A damaged file in the cache is downloaded again. With several names, a failure does not stop the others.
    """
    from stream.cli.progress import ProgressDisplay
    from stream.models import catalog, registry

    commercial_only = config.model.commercial_only
    if bool(names) == wants_all:
        raise UsageError("name the models to fetch, or pass --all", where="weights get")
    specs = [registry.find(name) for name in names]
    if wants_all:
        specs = [spec for spec in catalog.MODELS if spec.weights.url is not None]
        specs = [spec for spec in specs if not (commercial_only and spec.forbids_commerce)]
    if refused := [spec.name for spec in specs if commercial_only and spec.forbids_commerce]:
        raise UsageError(f"the licence of {', '.join(refused)} forbids commercial use", where="--commercial-only")
    failures: list[StreamError] = []
    with ProgressDisplay(quiet=config.output.quiet) as display:
        for spec in _parts(specs):
            try:
                print(printable(str(_get(spec, config.model.weights_dir, display))), flush=True)
            except UsageError:
                raise
            except StreamError as error:
                failures.append(error)
    for failure in failures[:-1]:
        print(f"depthstream: {failure}", file=sys.stderr)
    if failures:
        raise failures[-1]


def _parts(specs: Iterable["ModelSpec"]) -> list["ModelSpec"]:
    """One spec for each file: most models have one."""
    return [part for spec in specs for part in spec.parts()]


def _get(spec: "ModelSpec", weights_dir: Path | None, display: "ProgressDisplay") -> Path:
    from stream.models.weights.locate import Place, Verdict, find_file, is_offline, search, sha256, verdict

    found = search(spec, weights_dir=weights_dir)
    if found is not None and found.place is Place.CACHE and not is_offline():
        if verdict(spec, found.path, sha256(found.path)) is not Verdict.DIFFERENT:
            return found.path
        display.say(f"note: {found.path} is damaged; downloading it again")
        with contextlib.suppress(FileNotFoundError):  # another process did the same
            found.path.unlink()
    with collected(Notes(lambda text: display.say(f"note: {text}"))):
        return find_file(spec, weights_dir=weights_dir, on_progress=display.download).path


@weights.command(cls=ConfigCommand, keys=("model.weights_dir",))
@_names
@debug
def verify(config: "Config", names: Sequence[str]) -> int:
    """Compare the sha256 (or git blob) of the files with the published ones; without NAME, of every file that is here.

    Exit code 1 if one differs, or if a named one is not here.
    """
    from stream.models import catalog, registry
    from stream.models.weights.locate import Verdict, difference, search, sha256, verdict

    is_good = True
    chosen = [registry.find(name) for name in names] if names else catalog.MODELS
    for spec in _parts(chosen):
        found = search(spec, weights_dir=config.model.weights_dir)
        if found is None:
            if names:
                print(f"{spec.name}: not here")
                is_good = False
            continue
        digest = sha256(found.path)
        result = verdict(spec, found.path, digest)
        if result is Verdict.DIFFERENT:
            what, has, published = difference(spec, found.path, digest)
            line = f"DIFFERENT: {what} {has} instead of {published}"
        elif result is Verdict.PUBLISHED:
            line = "ok"
        else:
            line = f"unverified, no sha256 is known for this file (it has {digest})"
        print(f"{spec.name}: {line}: {printable(str(found.path))}", flush=True)
        is_good &= result is not Verdict.DIFFERENT
    return 0 if is_good else 1
