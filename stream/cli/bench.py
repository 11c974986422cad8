"""`depthstream bench`."""

import sys
from pathlib import Path
from typing import Annotated

from stream.cli.console import Debug, option
from stream.errors import UsageError

_PARTS = ("bare", "whole", "plain")


def bench(
    model: Annotated[list[str] | None, option("-m --model", "NAME or NAME=FILE; repeatable; default: starter.")] = None,
    size: Annotated[str, option("--size", "Of the clip that is made for it.")] = "640x480",
    backend: Annotated[str | None, option("--backend", "Comma-separated; default: those installed.")] = None,
    precision: Annotated[str | None, option("--precision", "Comma-separated; default: what pays here.")] = None,
    batch: Annotated[str, option("--batch", "Comma-separated; the pipeline takes the first.")] = "1,4",
    input_size: Annotated[str | None, option("--input-size", "Comma-separated; the pipeline takes the first.")] = None,
    device: Annotated[str, option("--device", "auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int | None, option("--threads", "CPU threads of the model.")] = None,
    layout: Annotated[str, option("--layout", "side or depth.")] = "depth",
    parts: Annotated[str, option("--parts", "Of bare, whole and plain; comma-separated.")] = ",".join(_PARTS),
    weights_dir: Annotated[Path | None, option("--weights-dir", "Folder to look for weights in first.")] = None,
    json_: Annotated[Path | None, option("--json", "Write everything to this file.")] = None,
    plot: Annotated[Path | None, option("--plot", "Draw the bare speeds: .png, .svg or .pdf.")] = None,
    debug: Debug = False,  # noqa: ARG001  read in `invoke`
) -> None:
    """Measure speed: models alone, the whole pipeline, and a plain loop as the models' own scripts have it.

    Everything runs in one process on a clip made for it, after a warm-up; medians and quartiles. `limit` is what no
    pipeline can beat: the bare model's rate, or the cores divided by the CPU time a frame. Weights that are not here
    are made up, which changes no speed.
    """
    from rich.console import Console

    from stream.bench import report as show
    from stream.bench import suite

    wanted = _words(parts)
    if unknown := [part for part in wanted if part not in _PARTS]:
        raise UsageError(f"unknown part {unknown[0]!r}", where="--parts", allowed=", ".join(_PARTS))
    if layout not in ("side", "depth"):
        raise UsageError(f"unknown layout {layout!r}", where="--layout", allowed="side, depth")
    plan = suite.Plan(
        models=model or ["starter"],
        size_hw=suite.parse_size(size),
        backends=_words(backend),
        precisions=_words(precision),
        input_sizes=_numbers(input_size, "--input-size") or [None],
        batches=_numbers(batch, "--batch") or [1],
        device=device,
        threads=threads,
        layout=layout,
        parts=wanted,
        weights_dir=weights_dir,
    )
    results = suite.run(plan, say=lambda note: print(note, file=sys.stderr))
    console = Console(width=None if sys.stdout.isatty() else 160)
    facts = show.machine()
    console.print(f"{facts['processor']}, {facts['cores']} cores, {facts['system']}; torch {show.versions()['torch']}")
    if results.rows:
        console.print(show.table(show.BARE_HEADER, [show.bare_line(row) for row in results.rows], "The network alone"))
    if results.wholes:
        lines = [show.whole_line(whole, results) for whole in results.wholes]
        title = f"The pipeline: {size} H.264 to {layout} video ({results.wholes[0].encoder})"
        console.print(show.table(show.WHOLE_HEADER, lines, title))
    for loop in results.plains:
        console.print(f"plain loop, {loop.model}: {loop.fps:.2f} fps")
    if json_ is not None:
        show.save(results, json_)
    if plot is not None:
        show.plot(results, plot)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _numbers(text: str | None, where: str) -> list[int]:
    words = _words(text)
    if bad := [word for word in words if not word.isdecimal() or int(word) < 1]:
        raise UsageError(f"{bad[0]!r} is no number from 1 on", where=where)
    return [int(word) for word in words]
