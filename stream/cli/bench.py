"""`depthstream bench`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.bench import LATENCY, PARTS, QUALITY
from stream.cli.options import ConfigCommand, FilePath, debug, own
from stream.cli.terminal import raw
from stream.errors import UsageError, printable
from stream.notes import Notes, collected

if TYPE_CHECKING:
    from stream.config import Config

_PANEL = "Measurements"
_FILE = FilePath(path_type=Path)


_KEYS = ("model.weights_dir", "model.kind", "model.max_depth", "inference.device", "inference.threads")


@click.command(cls=ConfigCommand, keys=_KEYS)
@own(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="MODEL[=FILE]",
    panel="Model",
    help_text="Model, or a checkpoint of yours for it; default: starter.  [repeatable]",
)
@own(
    "--size",
    default="640x480",
    metavar="WIDTHxHEIGHT",
    panel=_PANEL,
    help_text="Size of the generated test clip.",
    show_default=True,
)
@own("--backend", metavar="LIST", panel=_PANEL, help_text="Backends, comma-separated; default: those installed.")
@own(
    "--precision",
    metavar="LIST",
    panel=_PANEL,
    help_text="Precisions, comma-separated; default: those that can be faster here.",
)
@own(
    "--batch",
    default="1,4",
    metavar="LIST",
    panel=_PANEL,
    help_text="Batch sizes, comma-separated; the pipeline uses the first.",
    show_default=True,
)
@own(
    "--input-size",
    metavar="LIST",
    panel=_PANEL,
    help_text="Inference sizes, comma-separated; the pipeline uses the first.",
)
@own(
    "--layout",
    metavar="side|depth",
    default="depth",
    panel=_PANEL,
    help_text="What the pipeline writes.",
    show_default=True,
)
@own(
    "--parts",
    metavar="LIST",
    panel=_PANEL,
    help_text="What to measure: the network alone, the whole pipeline, a plain loop (baseline), and how much "
    "depth changes from frame to frame (steadiness); default: all, or none with --quality or --latency.",
)
@own(
    "--quality",
    metavar="PHOTOS",
    panel=_PANEL,
    help_text="Measure accuracy and speed on photos whose depth was measured: a folder, glob or list of photos, with "
    "the depth in metres in files beside them, as for `survey --truth`.",
)
@own("--truth", type=_FILE, metavar="DIR", panel=_PANEL, help_text="Folder of the depth files of --quality.")
@own(
    "--clip",
    type=_FILE,
    metavar="VIDEO",
    panel=_PANEL,
    help_text="Video on which --quality measures flicker: how much depth changes from frame to frame.",
)
@own(
    "--latency",
    is_flag=True,
    panel=_PANEL,
    help_text="Measure the age of what a viewer sees in the window and on the page, read from a virtual screen; needs "
    "Xvfb, and Chromium for the page.",
)
@own(
    "--beside",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    panel=_PANEL,
    help_text="Measure the pipeline once more while N other processes keep a core busy each.",
)
@own("--json", "json_file", type=_FILE, metavar="FILE", help_text="Write everything to this JSON file.")
@own("--plot", type=_FILE, metavar="FILE", help_text="Draw the speeds of the network alone: .png, .svg or .pdf.")
@debug
def bench(
    config: "Config",
    models: Sequence[str],
    size: str,
    backend: str | None,
    precision: str | None,
    batch: str,
    input_size: str | None,
    layout: str,
    parts: str | None,
    quality: str | None,
    truth: Path | None,
    clip: Path | None,
    latency: bool,
    beside: int,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Measure speed: the network alone, the whole pipeline, and a baseline that works like the models' own scripts.

    Everything runs in one process on a generated clip, after a warm-up; results are medians and quartiles. `limit` is a
    bound for any pipeline: the network's rate, or the cores divided by the CPU time per frame. Models whose weights are
    not installed get synthetic ones, which does not affect speed. `depthstream models` shows the speeds from then on.
    """
    from rich.console import Console

    from stream.bench import measured, report, suite
    from stream.bench.quality import Truths
    from stream.models import registry
    from stream.models.kinds import KINDS

    asked = [part for part, given in ((QUALITY, quality is not None), (LATENCY, latency)) if given]
    wanted = _words(parts) if parts is not None or asked else list(PARTS)
    for flag, value in ("--truth", truth), ("--clip", clip):
        if value is not None and quality is None:
            raise UsageError("only applies to --quality", where=flag, hint="add --quality PHOTOS")
    if unknown := [part for part in wanted if part not in PARTS]:
        raise UsageError(f"unknown part {unknown[0]!r}", where="--parts", allowed=", ".join(PARTS))
    if layout not in ("side", "depth"):
        raise UsageError(f"unknown layout {layout!r}", where="--layout", allowed="side, depth")
    options = suite.BenchOptions(
        models=models or [registry.DEFAULT],
        size_hw=suite.parse_size(size),
        backends=_words(backend),
        precisions=_words(precision),
        input_sizes=_numbers(input_size, "--input-size") or [None],
        batches=_numbers(batch, "--batch") or [1],
        device=config.inference.device,
        threads=config.inference.threads,
        layout=layout,
        parts=[*wanted, *asked],
        beside=beside,
        truths=None if quality is None else Truths(photos=quality, depth=truth, clip=clip),
        weights_dir=config.model.weights_dir,
        kind=KINDS[config.model.kind] if config.model.kind else None,
        max_depth_m=config.model.max_depth,
    )
    with collected(Notes(lambda note: print(printable(note), file=sys.stderr))):
        results = suite.run(options)
        measured.keep(results, input_size=options.input_sizes[0], batch=options.batches[0])
    console = Console(file=raw(sys.stdout), width=None if sys.stdout.isatty() else 160)
    facts = report.machine()
    console.print(
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}; torch {report.versions()['torch']}"
    )
    if results.networks:
        lines = [tuple(map(printable, report.network_line(result))) for result in results.networks]
        console.print(report.table(report.NETWORK_HEADER, lines, "The network alone"))
    if results.pipelines:
        lines = [tuple(map(printable, report.pipeline_line(result, results))) for result in results.pipelines]
        title = f"The pipeline: {size} H.264 to {layout} video ({results.pipelines[0].encoder})"
        console.print(report.table(report.PIPELINE_HEADER, lines, title))
    if results.loaded:
        pairs = zip(results.pipelines, results.loaded, strict=True)
        lines = [tuple(map(printable, report.load_line(*pair))) for pair in pairs]
        console.print(report.table(report.LOAD_HEADER, lines, f"The pipeline beside {beside} busy processes"))
    if results.qualities:
        lines = [tuple(map(printable, report.quality_line(result))) for result in results.qualities]
        console.print(report.table(report.QUALITY_HEADER, lines, f"Accuracy on {printable(quality or '')}"))
    if results.latencies:
        lines = [tuple(map(printable, report.latency_line(result))) for result in results.latencies]
        title = f"Age of what a viewer sees: {size} at {results.latencies[0].camera_fps:g} fps"
        console.print(report.table(report.LATENCY_HEADER, lines, title))
    for baseline in results.baselines:
        console.print(f"baseline, {printable(baseline.model)}: {baseline.fps:.2f} fps")
    for change in results.steadiness:
        shares = f"{change.raw:.2%} of its range, with --steady by {change.steadied:.2%}"
        console.print(f"steadiness, {printable(change.model)}: depth changes from frame to frame by {shares}")
    if json_file is not None:
        report.save(results, json_file)
    if plot is not None:
        report.plot(results, plot)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _numbers(text: str | None, where: str) -> list[int]:
    words = _words(text)
    if bad := [word for word in words if not word.isdecimal() or int(word) < 1]:
        raise UsageError(f"{bad[0]!r} is not a number from 1 on", where=where)
    return [int(word) for word in words]
