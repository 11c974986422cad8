"""`depthstream batch`."""

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from stream.cli.console import default_model_line, fail, print_json
from stream.cli.options import ConfigCommand, ConfigOption, as_json, debug, is_address, own
from stream.cli.progress import clock_text
from stream.errors import UsageError

if TYPE_CHECKING:
    from stream.batch.estimate import Estimate
    from stream.batch.job import Batch, MakeExecutor
    from stream.batch.schedule import Shard, Source
    from stream.batch.summary import Summary
    from stream.config import Config

_PANEL = "Batch"


class _BatchCommand(ConfigCommand):
    """Takes the options of `run`; those that do not suit many sources are refused by name, and not in the help."""

    @cached_property
    def config_params(self) -> list[click.Parameter]:
        """See `ConfigCommand`."""
        from stream.jobs.keys import NOT_OF_A_BATCH
        from stream.jobs.options import OPTIONS

        self.keys = tuple(option.key for option in OPTIONS.values())
        made = super().config_params
        for param in made:
            if isinstance(param, ConfigOption) and param.option.key in NOT_OF_A_BATCH:
                param.hidden = True
        return made

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let `--ray` stand alone, unless the next word is an address: it may be one of the SOURCES."""
        words = list(args)
        for place, (word, after) in enumerate(zip(args, [*args[1:], ""], strict=True)):
            if word == "--":
                break
            if word == "--ray" and not (after in ("local", "auto") or after.startswith("ray://") or is_address(after)):
                words[place] = "--ray="
        return super().parse_args(ctx, words)


class _Gpus(click.ParamType):  # type: ignore[type-arg]  # no generic class in the oldest click
    """GPUs as Ray counts them: a share of one, to 1/10000, or whole ones."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType`."""
        number: float = click.FLOAT.convert(value, param, ctx)
        is_share = number == 0 or 1e-4 <= number <= 1
        if not is_share and not (number > 1 and number.is_integer()):  # nan and inf neither
            self.fail(f"{value} is no number of GPUs: 0, a share such as 0.5, 1, 2 and so on", param, ctx)
        return number


class _Bytes(click.ParamType):  # type: ignore[type-arg]  # as above
    """`8G` as bytes."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `click.ParamType`."""
        from stream.config import parse_bytes

        try:
            return value if isinstance(value, int) else parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=_BatchCommand, reads_file=True)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCES...")
@own(
    "-j",
    "--jobs",
    type=click.IntRange(1, 256),
    metavar="N",
    panel=_PANEL,
    help_text="Processes at a time; default: one for each GPU, or one.",
)
@own(
    "--shard",
    metavar="I/N",
    panel=_PANEL,
    help_text="Do share I of N, from 1/N to N/N: for machines that share OUT, a folder or a bucket, and nothing else.",
)
@own(
    "--ray",
    metavar="[ADDRESS]",
    panel=_PANEL,
    help_text="Work on a Ray cluster: HOST:PORT, or local for a new one on this machine; alone: that of RAY_ADDRESS.",
)
@own(
    "--gpus-per-worker",
    type=_Gpus(),
    metavar="N",
    panel=_PANEL,
    help_text="With --ray: GPUs for each worker; 0.5 puts two on each. Default: 1 if there are any.",
)
@own(
    "--memory-per-worker",
    type=_Bytes(),
    metavar="BYTES",
    panel=_PANEL,
    help_text="With --ray: memory that a machine must have for each worker, such as 8G, and the worker's --max-memory.",
)
@own("--dry-run", is_flag=True, panel=_PANEL, help_text="Print the plan, and what it would take; do nothing.")
@as_json
@debug
def batch(
    config: "Config",
    sources: Sequence[str],
    jobs: int | None,
    shard: str | None,
    ray: str | None,
    gpus_per_worker: float | None,
    memory_per_worker: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Turn many videos and pictures into depth, in a tree of results that mirrors theirs.

    SOURCES are files, folders (with all below them), globs and .txt lists; --output names the folder of the results.
    A video X.mov becomes X.mp4, a picture X.jpg becomes X.png. What is done is not done again: the same command goes on
    after an interruption, and tries again what has failed. A source that fails three times, or cannot be read, ends in
    OUT/failed and stops nothing else.

    Exit codes: 0 done, 1 nothing done, 2 bad usage, 3 done but some failed, 130 interrupted.
    """
    from stream.batch.job import Batch
    from stream.batch.summary import Hooks
    from stream.cli.table import BatchDisplay

    with BatchDisplay(quiet=config.output.quiet) as display:

        def finished(source: "Source") -> None:
            if source.state == "failed":
                display.say(f"failed {source.item.name}: {source.result['reason']}{_attempts(source)}")
            if as_json:
                print_json(_fields(source))
                sys.stdout.flush()

        hooks = Hooks(on_note=lambda note: display.say(f"note: {note}"), on_status=display)
        if not dry_run:
            hooks.on_source = finished
        on_ray = _on_ray(config, ray, jobs=jobs, gpus=gpus_per_worker, memory=memory_per_worker, notes=display.say)
        if on_ray is None or dry_run:
            made = Batch(config, sources, jobs=jobs, shard=parse_shard(shard), hooks=hooks)
        else:
            made = Batch(config, sources, shard=parse_shard(shard), executor=on_ray, hooks=hooks)
        if dry_run:
            return _dry_run(made, as_json=as_json)
        if config.model.name is None:
            display.say(default_model_line())
        summary = made.run()
        display.say(_line(summary))
    if as_json:
        print_json(_totals(summary))
    if summary.error:
        return fail(f"{summary.error}; the same command goes on when there is room", 1, debug=False)
    return summary.exit_code


def _on_ray(
    config: "Config",
    address: str | None,
    *,
    jobs: int | None,
    gpus: float | None,
    memory: int | None,
    notes: "Callable[[str], None]",
) -> "MakeExecutor | None":
    """What makes the workers on Ray; None without `--ray`.

    Raises:
        UsageError: an option needs `--ray`, or Ray is not installed.
    """
    if address is None:
        for flag, value in (("--gpus-per-worker", gpus), ("--memory-per-worker", memory)):
            if value is not None:
                raise UsageError("is only for --ray", where=flag, hint="add --ray, or use -j")
        return None
    from stream.batch.ray import Actors, check_installed
    from stream.notes import Notes

    check_installed()
    told = Notes(lambda text: notes(f"note: {text}"))  # once, though many workers say the same
    return lambda _configs: Actors(config, address=address, count=jobs, gpus=gpus, memory=memory, on_note=told.add)


def parse_shard(text: str | None) -> "Shard | None":
    """The share that `I/N` means; None if there is no text.

    Raises:
        UsageError: it is no share.
    """
    from stream.batch.schedule import Shard

    if text is None:
        return None
    number, slash, count = text.partition("/")
    parts = [int(part) if part.isascii() and part.isdecimal() and len(part) < 10 else 0 for part in (number, count)]
    if not slash or not 1 <= parts[0] <= parts[1]:
        raise UsageError("is no share", where=f"--shard {text}", allowed="I/N with I from 1 to N, such as 1/8")
    return Shard(number=parts[0], count=parts[1])


def _attempts(source: "Source") -> str:
    return f" ({source.attempts} attempts)" if source.attempts > 1 else ""


def _fields(source: "Source") -> dict[str, Any]:
    """A finished source for JSON."""
    item, result = source.item, source.result
    fields: dict[str, Any] = {"name": item.name, "state": source.state, "attempts": source.attempts}
    if source.state == "failed":
        fields["reason"] = result["reason"]
    else:
        fields |= {"output": item.output, "frames": source.frames, "seconds": round(source.seconds, 3)}
        fields |= {key: result[key] for key in ("skipped", "warnings") if result.get(key)}
    return fields


def _totals(summary: "Summary") -> dict[str, Any]:
    states = [source.state for source in summary.sources]
    frames = [source.frames or 0 for source in summary.having("done", "segments") if not source.earlier]
    return {
        "exit_code": summary.exit_code,
        "error": summary.error or None,
        "sources": len(states),
        "done": states.count("done"),
        "earlier": sum(source.earlier for source in summary.sources),
        "failed": states.count("failed"),
        "in_segments": states.count("segments"),
        "elsewhere": states.count("elsewhere"),
        "left": states.count("waiting") + states.count("planned"),
        "frames": sum(frames),
        "seconds": round(summary.seconds, 3),
        "output": str(summary.out),
    }


def _line(summary: "Summary") -> str:
    """One line for people: `done: 47 of 50 (10 earlier) · 1410 frames · 3 failed, see OUT/failed → OUT`."""
    totals = _totals(summary)
    verb = "interrupted:" if summary.interrupted else "ended early:" if summary.error else "done:"
    parts = [f"{verb} {totals['done']} of {totals['sources'] - totals['elsewhere'] - totals['in_segments']}"]
    if totals["earlier"]:
        parts[0] += f" ({totals['earlier']} earlier)"
    if totals["in_segments"]:
        parts.append(
            f"segments of {totals['in_segments']} videos: `depthstream join {summary.out}` when all shards end"
        )
    if totals["frames"]:
        parts.append(f"{totals['frames']} frames in {clock_text(summary.seconds)}")
    if totals["failed"]:
        parts.append(f"{totals['failed']} failed, see {summary.out}/failed")
    if totals["left"]:
        parts.append(f"{totals['left']} left: the same command goes on")
    return f"{' · '.join(parts)} → {summary.out}"


def _dry_run(made: "Batch", *, as_json: bool) -> int:
    """Print what would be done."""
    from dataclasses import asdict

    from stream.batch.estimate import estimate

    schedule = made.look()
    found = estimate(schedule, made.config, slots=len(made.configs), speed=_speed(made.config))
    planned = [source for source in schedule.sources.values() if source.state in ("planned", "failed")]
    if as_json:
        for source in planned:
            fields: dict[str, Any] = {"name": source.item.name, "output": source.item.output, "state": source.state}
            fields |= {"frames": source.frames, "size": source.size, "segments": source.rows, "bytes": source.needs}
            if source.state == "failed":
                fields["reason"] = source.result["reason"]
            print_json(fields)
        print_json(asdict(found))
    else:
        from stream.errors import shown

        for source in planned:
            print(shown(f"{source.item.name} → {source.item.output}{_facts(source)}"))
        print(_what(found))
    return 3 if found.failed else 0


def _facts(source: "Source") -> str:
    if source.state == "failed":
        return f"  would fail: {source.result['reason']}"
    parts = []
    if source.size is not None:
        parts.append(f"{source.size[1]}×{source.size[0]}")
    if source.frames is not None and not source.item.is_picture:
        parts.append(f"{source.frames} frames")
    if source.rows:
        parts.append(f"{source.rows} segments")
    return f"  ({', '.join(parts)})" if parts else ""


def _what(found: "Estimate") -> str:
    """The last lines of `--dry-run`."""
    from stream.models.weights.fetch import size_text

    parts = [f"{found.videos} videos", f"{found.pictures} pictures", f"{found.frames} frames"]
    if found.unknown:
        parts.append(f"{found.unknown} videos of unknown length")
    if found.segments:
        parts.append(f"{found.segments} segments")
    parts += [
        f"{count} {what}" for count, what in ((found.done, "done earlier"), (found.failed, "would fail")) if count
    ]
    if found.elsewhere:
        parts.append(f"{found.elsewhere} of other shards")
    time = found.speed if found.seconds is None else f"about {clock_text(found.seconds)} ({found.speed})"
    space = f"about {size_text(found.needed_bytes)} for the videos" if found.videos else "as the pictures need"
    return f"{' · '.join(parts)}\ntime: {time}\nspace: {space}"


def _speed(config: "Config") -> tuple[float, str] | None:
    """The speed of a run of this model that `bench` has measured on this machine."""
    from stream.bench.measured import on_this_machine
    from stream.models import registry

    known = on_this_machine().get(registry.find(config.model.name or registry.DEFAULT).name, [])
    found = next((speed for speed in known if speed.part == "pipeline"), None)
    return None if found is None else (found.fps, f"at {found}")
