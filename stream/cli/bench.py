"""`depthstream bench`."""

import sys
from pathlib import Path
from typing import Annotated

from stream.bench import PARTS
from stream.cli.console import Debug, option
from stream.errors import UsageError


def bench(
    model: Annotated[list[str] | None, option("-m --model", "NAME or NAME=FILE; repeatable; default: starter.")] = None,
    size: Annotated[str, option("--size", "Size of the generated test clip.")] = "640x480",
    backend: Annotated[str | None, option("--backend", "Backends, comma-separated; default: those installed.")] = None,
    precision: Annotated[
        str | None, option("--precision", "Precisions, comma-separated; default: the useful ones.")
    ] = None,
    batch: Annotated[str, option("--batch", "Batch sizes, comma-separated; the pipeline uses the first.")] = "1,4",
    input_size: Annotated[
        str | None, option("--input-size", "Inference sizes, comma-separated; the pipeline uses the first.")
    ] = None,
    device: Annotated[str, option("--device", "auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int | None, option("--threads", "CPU threads of the model.")] = None,
    layout: Annotated[str, option("--layout", "side or depth.")] = "depth",
    parts: Annotated[str, option("--parts", f"Some of {', '.join(PARTS)}; comma-separated.")] = ",".join(PARTS),
    weights_dir: Annotated[Path | None, option("--weights-dir", "Folder to look for weights in first.")] = None,
    json_: Annotated[Path | None, option("--json", "Write all results to this file.")] = None,
    plot: Annotated[Path | None, option("--plot", "Plot the network speeds: .png, .svg or .pdf.")] = None,
    debug: Debug = False,  # noqa: ARG001  read in `invoke`
) -> None:
    """Measure speed: the network alone, the whole pipeline, and a baseline that works like the models' own scripts.

    Everything runs in one process on a generated clip, after a warm-up; results are medians and quartiles. `limit` is a
    bound for any pipeline: the network's rate, or the cores divided by the CPU time per frame. Models whose weights are
    not installed get synthetic ones, which does not affect speed.
    """
    from rich.console import Console

    from stream.bench import report, suite

    wanted = _words(parts)
    if unknown := [part for part in wanted if part not in PARTS]:
        raise UsageError(f"unknown part {unknown[0]!r}", where="--parts", allowed=", ".join(PARTS))
    if layout not in ("side", "depth"):
        raise UsageError(f"unknown layout {layout!r}", where="--layout", allowed="side, depth")
    options = suite.BenchOptions(
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
    results = suite.run(options, on_note=lambda note: print(note, file=sys.stderr))
    console = Console(width=None if sys.stdout.isatty() else 160)
    facts = report.machine()
    console.print(
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}; torch {report.versions()['torch']}"
    )
    if results.networks:
        lines = [report.network_line(result) for result in results.networks]
        console.print(report.table(report.NETWORK_HEADER, lines, "The network alone"))
    if results.pipelines:
        lines = [report.pipeline_line(result, results) for result in results.pipelines]
        title = f"The pipeline: {size} H.264 to {layout} video ({results.pipelines[0].encoder})"
        console.print(report.table(report.PIPELINE_HEADER, lines, title))
    for baseline in results.baselines:
        console.print(f"baseline, {baseline.model}: {baseline.fps:.2f} fps")
    if json_ is not None:
        report.save(results, json_)
    if plot is not None:
        report.plot(results, plot)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _numbers(text: str | None, where: str) -> list[int]:
    words = _words(text)
    if bad := [word for word in words if not word.isdecimal() or int(word) < 1]:
        raise UsageError(f"{bad[0]!r} is not a number from 1 on", where=where)
    return [int(word) for word in words]
