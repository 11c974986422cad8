"""`depthstream models`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from stream.cli.console import print_json
from stream.cli.options import SETTINGS, as_json, debug
from stream.cli.terminal import raw
from stream.errors import printable

if TYPE_CHECKING:
    from stream.bench.measured import Speed
    from stream.models.spec import ModelSpec

_BOLD, _PLAIN, _DIM = "bold", "", "dim"
_WIDEST = 120
"""Columns of text in a wide terminal."""
_NARROWEST = 40


@click.command(context_settings=SETTINGS)
@as_json
@debug
def models(as_json: bool) -> None:
    """List the models by what they are for: size, licence, output, whether they are here, and how fast they were.

    Speeds are those that `depthstream bench` has measured on this machine.
    """
    from dataclasses import asdict

    from stream.bench.measured import on_this_machine
    from stream.models import catalog
    from stream.models.weights.locate import search

    here = {spec.name: search(spec) for spec in catalog.MODELS}
    speeds = on_this_machine()
    if as_json:
        rows = [
            {
                **spec.describe(),
                "purpose": catalog.purpose(spec).name.lower(),
                "choices": [word for word, choice in catalog.CHOICES.items() if choice.model == spec.name],
                "present": found is not None,
                "path": str(found.path) if found else None,
                "measured": [asdict(speed) for speed in speeds.get(spec.name, ())],
            }
            for spec in catalog.MODELS
            for found in [here[spec.name]]
        ]
        print_json(rows, indent=2)
        return
    _show(_lines({name: found is not None for name, found in here.items()}, speeds))


def _lines(here: Mapping[str, bool], speeds: "Mapping[str, Sequence[Speed]]") -> Iterator[tuple[str, int, str]]:
    """Style, indentation and text of each line."""
    from stream.models import catalog

    yield _BOLD, 0, "A word instead of a name"
    for word, choice in catalog.CHOICES.items():
        yield _PLAIN, 2, f"-m {word:<9} {choice.model}: {choice.reason}"
    for purpose in catalog.Purpose:
        yield _PLAIN, 0, ""
        yield _BOLD, 0, purpose.value
        for spec in catalog.MODELS:
            if catalog.purpose(spec) is purpose:
                yield from _model(spec, is_here=here[spec.name], speeds=speeds.get(spec.name, ()))
    if not speeds:
        yield _PLAIN, 0, ""
        yield _PLAIN, 0, "No speed was measured on this machine yet: `depthstream bench -m MODEL` does."


def _model(spec: "ModelSpec", *, is_here: bool, speeds: "Sequence[Speed]") -> Iterator[tuple[str, int, str]]:
    height, width = spec.input.size_hw
    also = f"  also {', '.join(spec.aliases)}" if spec.aliases else ""
    place = "here" if is_here else "not here"
    yield _BOLD, 2, f"{spec.name}{also}"
    facts = (
        f"{spec.parameters_m:g} M parameters, {spec.output.quantity}, {spec.licence_text}, {width}×{height}, {place}"
    )
    yield _DIM, 4, f"{facts}; measured: {printable(str(speeds[0]))}" if speeds else facts
    yield _PLAIN, 4, spec.summary


def _show(lines: Iterator[tuple[str, int, str]]) -> None:
    """Print lines: wrapped and with their styles on a terminal, as they are elsewhere."""
    if not sys.stdout.isatty():
        for _, indent, text in lines:
            print(f"{' ' * indent}{text}".rstrip())
        return
    import textwrap

    from rich.console import Console

    console = Console(file=raw(sys.stdout))
    width = max(_NARROWEST, min(console.width, _WIDEST))
    for style, indent, text in lines:
        first, rest = " " * indent, " " * (indent + 2)
        wrapped = textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
        console.print("\n".join(wrapped), style=style, markup=False, highlight=False, soft_wrap=True)
