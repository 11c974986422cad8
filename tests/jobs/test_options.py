"""Options are written once: keywords, their types, and errors that name what was given."""

import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

import stream
from stream.errors import ConfigError
from stream.jobs.options import OPTIONS, Option, all_keys, fields, from_options

FIELDS = dict(fields())


def test_every_key_has_an_option_and_back() -> None:
    keys = [key for option in OPTIONS.values() for key in (option.key, option.rest) if key]
    assert sorted([*keys, "source", "sources"]) == sorted(all_keys())
    flags = [flag for option in OPTIONS.values() for flag in (*option.flags, option.negative) if flag]
    assert len(set(flags)) == len(flags)
    assert all(option.help.endswith((".", "…")) for option in OPTIONS.values())


def accepted(option: Option) -> set[Any]:
    """The types that a keyword accepts: the key's, and the texts that stand for it."""
    kinds = set(members(FIELDS[option.key].annotation))
    if Path in kinds:  # and perhaps a text that is no path: a URL
        return kinds - {Path} | {str, os.PathLike[str]}
    if option.metavar == "N|auto":  # a number or a word
        return kinds
    (kind,) = kinds - {NoneType}
    if option.rest:
        kinds.add(Sequence[str])
    elif get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis:
        kinds = kinds - {kind} | {str, Sequence[get_args(kind)[0]]}  # type: ignore[misc]
    elif get_origin(kind) is tuple or option.metavar in ("TIME", "SIZE", "LENGTH"):
        kinds.add(str)
    further = {"device": {int}, "range": {tuple[float, float]}, "rerun": {os.PathLike[str]}, "model": {stream.Model}}
    kinds |= further.get(option.name, set())
    if (option.negative and kind is not bool) or option.alone:
        kinds.add(bool)
    return kinds


def members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def test_the_keywords_are_the_options_with_their_types() -> None:
    hints = get_type_hints(stream.Options)
    assert list(hints) == list(OPTIONS), "also in the same order"
    for name, hint in hints.items():
        assert set(members(hint)) == accepted(OPTIONS[name]), name


def test_an_unknown_keyword_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean colormap"):
        from_options("x.mp4", {"colourmap": "gray"})
    with pytest.raises(ConfigError, match="unknown option colourmap; did you mean colormap"):
        stream.run("x.mp4", colourmap="gray")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"batch": 0}, "batch=0: must be 1 or more"),
        ({"input_size": 9000}, "input_size=9000: must be 8192 or less"),
        ({"reconnect_for": "long"}, "reconnect_for='long': must be a number"),
        ({"layout": "above"}, "layout='above': unknown value (allowed: side, depth, overlay)"),
        ({"start": 5, "end": 4}, "end=4: must be after start (5 s)"),
        ({"preview": "sometimes"}, "preview='sometimes': unknown value (allowed: auto, window, off)"),
        (
            {"save": ["npy", "tga"]},
            "save=['npy', 'tga']: unknown value (allowed: npy, png16, pfm, exr, ply, video16, conf)",
        ),
    ],
)
def test_an_error_names_the_keyword(options: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_options("x.mp4", options)
    assert str(caught.value) == line


def test_several_models_are_one_keyword() -> None:
    assert from_options("0", {"model": "a"}).model.also == ()
    built = from_options("0", {"model": ("a", "b", "c")}).model
    assert (built.name, built.also) == ("a", ("b", "c"))
    base: dict[str, Any] = {"model": {"name": "x", "also": ["y"]}}
    assert from_options("0", {"model": ["a"]}, base=base).model.also == (), "replaces the list of a file"


def test_limits_are_described() -> None:
    described = {name: OPTIONS[name].limits for name in ("batch", "fps", "max_frames", "camera_fps", "colormap")}
    assert described == {
        "batch": "1 to 256",
        "fps": "more than 0, up to 1000",
        "max_frames": "1 or more",
        "camera_fps": "more than 0",
        "colormap": "",
    }


@pytest.mark.slow
def test_the_type_checker_finds_a_typo(tmp_path: Path) -> None:
    lines = {
        'stream.run("a.mp4", colormap="gray", save=["npy"], start="1:30", preview=False, output=pathlib.Path("b"))': "",
        'stream.run("a.mp4", colourmap="gray")': 'Unexpected keyword argument "colourmap"',
        'stream.iter_depth("a.mp4", input_size="big")': 'Argument "input_size" to "iter_depth" has incompatible type',
        'stream.run("a.mp4", layout="above")': 'Argument "layout" to "run" has incompatible type',
        'made: stream.Options = {"batch": 4, "backend": "tpu"}': 'TypedDict item "backend"',
    }
    # A name for each place: mypy's cache repeats what it found in a module of this name, with the path of that time.
    snippet = tmp_path / f"snippet_{zlib.crc32(bytes(tmp_path)):08x}.py"
    snippet.write_text("\n".join(["import pathlib, stream", *lines]) + "\n")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(snippet)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    for number, words in enumerate(lines.values(), 2):
        here = [line for line in said if line.startswith(f"{snippet}:{number}:")]
        assert bool(here) == bool(words), said
        assert not words or words in here[0]


def test_choices_are_those_of_the_field() -> None:
    for option in OPTIONS.values():
        kinds = set(members(FIELDS[option.key].annotation)) - {NoneType}
        words = [kind for kind in kinds if get_origin(kind) is Literal]
        assert option.choices == (get_args(words[0]) if len(words) == len(kinds) else ())
