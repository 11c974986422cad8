"""`depthstream weights`: which weights files are here, fetch them, check them.

Invariant: as in `cli`, nothing heavy is imported to show the help; files on stdout, everything else on stderr.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.errors import StreamError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream.cli.progress import ProgressDisplay
    from stream.models.spec import ModelSpec
    from stream.models.weights.locate import Located

app = typer.Typer(help="List, fetch and verify weights files.", no_args_is_help=True, rich_markup_mode=None)

_Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Model names, see `depthstream models`.")]
_Folder = Annotated[
    Path | None, typer.Option("--weights-dir", help="Folder to look in first, as for `run`.", show_default=False)
]
_Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", show_default=False)]


@app.command(name="list")
def list_files(
    weights_dir: _Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.", show_default=False)] = False,
    debug: _Debug = False,  # noqa: ARG001  read in `cli.invoke`
) -> None:
    """List the weights files: where each one is, its size, its licence."""
    from stream.models import catalog
    from stream.models.weights.fetch import size_text
    from stream.models.weights.locate import search

    found = {spec.name: search(spec, weights_dir=weights_dir) for spec in catalog.MODELS}
    if as_json:
        rows = [_row(spec, found[spec.name]) for spec in catalog.MODELS]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    lines = []
    for spec in catalog.MODELS:
        here = found[spec.name]
        where = str(here.path) if here else f"not here: {spec.weights.file}"
        if not here and spec.weights.url is None:
            where += " (not published)"
        lines.append((spec.name, size_text(here.path.stat().st_size) if here else "-", spec.licence, where))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, size, licence, where in lines:
        print(f"{name:<{widths[0]}}  {size:>{widths[1]}}  {licence:<{widths[2]}}  {where}")


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


@app.command()
def get(
    names: _Names = None,
    all_: Annotated[bool, typer.Option("--all", help="Every published file.", show_default=False)] = False,
    weights_dir: _Folder = None,
    commercial_only: Annotated[
        bool, typer.Option("--commercial-only", help="Refuse non-commercial licences.", show_default=False)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.", show_default=False)
    ] = False,
    debug: _Debug = False,  # noqa: ARG001
) -> None:
    """Fetch the weights of the models NAME into the cache, unless they are here; prints each file's path.

    A damaged file in the cache is fetched again. With several names a failure does not stop the others.
    """
    from stream.cli.progress import ProgressDisplay
    from stream.models import catalog, registry

    if bool(names) == all_:
        raise UsageError("name the models to fetch, or pass --all", where="weights get")
    specs = [registry.find(name) for name in names or []]
    if all_:
        specs = [spec for spec in catalog.MODELS if spec.weights.url is not None]
        specs = [spec for spec in specs if not (commercial_only and spec.licence_note)]
    if refused := [spec.name for spec in specs if commercial_only and spec.licence_note]:
        raise UsageError(f"{', '.join(refused)} may not be used commercially", where="--commercial-only")
    failures: list[StreamError] = []
    with ProgressDisplay(quiet=quiet) as display:
        for spec in _parts(specs):
            try:
                print(_get(spec, weights_dir, display), flush=True)
            except UsageError:
                raise
            except StreamError as error:
                failures.append(error)
    for failure in failures[:-1]:
        print(f"depthstream: {failure}", file=sys.stderr)
    if failures:
        raise failures[-1]


def _parts(specs: "Iterable[ModelSpec]") -> "list[ModelSpec]":
    """A row for each file: most models have one."""
    return [part for spec in specs for part in spec.parts()]


def _get(spec: "ModelSpec", weights_dir: Path | None, display: "ProgressDisplay") -> Path:
    from stream.models.weights.locate import Place, Verdict, find_file, is_offline, search, sha256, verdict

    found = search(spec, weights_dir=weights_dir)
    if found is not None and found.place is Place.CACHE and not is_offline():
        if verdict(spec, found.path, sha256(found.path)) is not Verdict.DIFFERENT:
            return found.path
        display.say(f"{found.path} is damaged, so it is fetched again")
        with contextlib.suppress(FileNotFoundError):  # another process did the same
            found.path.unlink()
    return find_file(
        spec,
        weights_dir=weights_dir,
        on_progress=display.download,
        on_note=lambda note: display.say(f"note: {note}"),
    ).path


@app.command()
def verify(
    names: _Names = None,
    weights_dir: _Folder = None,
    debug: _Debug = False,  # noqa: ARG001
) -> None:
    """Compare the sha256 of the files with the published ones; without NAME, of every file that is here.

    Exit code 1 if one differs, or if a named one is not here.
    """
    from stream.models import catalog, registry
    from stream.models.weights.locate import Verdict, search, sha256, verdict

    is_good = True
    chosen = [registry.find(name) for name in names] if names else catalog.MODELS
    for spec in _parts(chosen):
        found = search(spec, weights_dir=weights_dir)
        if found is None:
            if names:
                print(f"{spec.name}: not here")
                is_good = False
            continue
        digest = sha256(found.path)
        result = verdict(spec, found.path, digest)
        said = {
            Verdict.PUBLISHED: "ok",
            Verdict.UNVERIFIED: f"unverified, no sha256 is known for this file (it has {digest})",
            Verdict.DIFFERENT: f"DIFFERENT: sha256 {digest} instead of {spec.weights.sha256}",
        }[result]
        print(f"{spec.name}: {said}: {found.path}", flush=True)
        is_good &= result is not Verdict.DIFFERENT
    if not is_good:
        raise typer.Exit(1)
