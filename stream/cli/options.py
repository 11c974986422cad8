"""Commands whose options are made from the config.

A command names the config keys that it takes; their flags, help, choices and defaults come from `stream.config`, and it
is called with the finished `Config` as `config`.

Invariant: importing this module loads no config, so the list of commands costs nothing; the options are made when a
command is looked into.
"""

import ipaddress
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from stream.errors import ConfigError
from stream.files import expanded

if TYPE_CHECKING:
    from stream.config import Config
    from stream.jobs.options import Option

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
"""Of every command: how help is asked for, and how wide it may get."""
EVERY_KEY = ("*",)
_RUN_PANEL = "Run"
_LONGEST_CAMERA, _SHORTEST_TOKEN = 2, 8
"""A number of more digits is a port rather than a camera; a token has at least so many characters."""


class PanelOption(click.Option):
    """An option that belongs to a command alone, in a panel of the help."""

    def __init__(self, *args: Any, panel: str = _RUN_PANEL, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.panel = panel


class FilePath(click.Path):
    """A path that may begin with `~` also where no shell has replaced it, as in `--config=~/c.yaml`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.Path`."""
        return super().convert(expanded(value), param, ctx)


def own(*flags: str, help_text: str, panel: str = _RUN_PANEL, **settings: Any) -> Callable[[Any], Any]:
    """Decorator for an option that is not a config key."""
    return click.option(*flags, cls=PanelOption, help=help_text, panel=panel, **settings)


debug = own("--debug", is_flag=True, expose_value=False, help_text="Show tracebacks.")
"""Decorator for `--debug`, which `stream.cli.main.invoke` reads."""
as_json = own("--json", "as_json", is_flag=True, help_text="Print the result as JSON on stdout.")


def model_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Every name that `-m` takes and that begins so, for completion."""
    from stream.models import catalog

    names = [*catalog.CHOICES, *(name for spec in catalog.MODELS for name in (spec.name, *spec.aliases))]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def file_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the name of a file or folder."""
    return [CompletionItem(incomplete, type="file")]


KEYS_OF_SEVERAL_MODELS = (
    "model.weights_dir",
    "model.offline",
    "model.commercial_only",
    "model.kind",
    "model.max_depth",
    "capture.start",
    "capture.end",
    "capture.max_frames",
    "capture.recursive",
    "inference.device",
    "inference.precision",
    "inference.refine",
    "render.colormap",
    "output.path",
    "output.report",
    "output.overwrite",
    "output.quiet",
)
"""What every command that runs several models takes."""
several_models = own(
    "-m",
    "--model",
    "models",
    multiple=True,
    required=True,
    panel="Model",
    metavar="MODEL[=FILE]",
    help_text="Model, or a checkpoint of yours for it; twice or more.  [repeatable]",
    shell_complete=model_names,
)
"""Decorator for the `-m` of commands that run several models."""


class ConfigOption(PanelOption):
    """An option made from a key of the config, which checks its value."""

    def __init__(self, option: "Option", help_text: str | None = None) -> None:
        flags = [*option.flags]
        text = _help_text(option) if help_text is None else help_text
        settings: dict[str, Any] = {"default": None, "help": text, "panel": option.panel.value}
        if not option.metavar:
            flags[-1] += f"/{option.negative}" if option.negative else ""
            settings["is_flag"] = True
        else:
            is_multiple = option.is_repeatable or option.default == ()
            settings |= {"type": str, "metavar": option.metavar, "multiple": is_multiple}
        super().__init__([*flags, option.name], **settings)
        self.option = option

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The choices, model names or files that begin so."""
        if self.option.metavar == "MODEL":
            return model_names(ctx, self, incomplete)
        if self.option.metavar in ("FILE", "FOLDER", "OUT"):
            return [CompletionItem(incomplete, type="dir" if self.option.metavar == "FOLDER" else "file")]
        return [CompletionItem(word) for word in self.option.choices if word.startswith(incomplete)]


def _help_text(option: "Option") -> str:
    limits = option.limits.removeprefix("more than 0, ")  # which goes without saying
    facts = [limits] if " to " in f" {limits}" else []
    if option.default is True:
        facts.append("default: on")
    elif option.metavar and option.default not in (None, ()):
        facts.append(f"default: {option.default_text}")
    if option.is_repeatable:
        facts.append("repeatable")
    return f"{option.help}  [{'; '.join(facts)}]" if facts else option.help


class ConfigCommand(click.Command):
    """A command that takes config keys as options and is called with `config`.

    Args:
        keys: the keys, `source` for a SOURCE argument; `EVERY_KEY` for all.
        reads_file: takes `--config` and `--set`, too.
        needs_source: a SOURCE must be given, by the argument or the file.
        takes_several: there may be several SOURCES, if all are live.
        help_of: the help of keys that mean something else here than in a run.
    """

    def __init__(
        self,
        *args: Any,
        keys: Sequence[str] = (),
        reads_file: bool = False,
        needs_source: bool = False,
        takes_several: bool = False,
        help_of: Mapping[str, str] = MappingProxyType({}),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{"context_settings": SETTINGS, **kwargs})
        self.keys, self.reads_file, self.needs_source = keys, reads_file, needs_source
        self.takes_several, self.help_of = takes_several, help_of

    @cached_property
    def config_params(self) -> list[click.Parameter]:
        """The parameters that are made from the config."""
        from stream.jobs.options import OPTIONS

        wanted = self.keys
        made: list[click.Parameter] = []
        if "source" in wanted or wanted == EVERY_KEY:
            made.append(click.Argument(["source"], required=False, nargs=-1 if self.takes_several else 1))
        named = [one for one in OPTIONS.values() if one.key in wanted or wanted == EVERY_KEY]
        made += [ConfigOption(one, self.help_of.get(one.key)) for one in named]
        if self.reads_file:
            made.append(
                PanelOption(
                    ["--config", "config_file"],
                    type=FilePath(path_type=Path),
                    metavar="FILE",
                    help="YAML file of settings, see configs/; options override it.",
                )
            )
            made.append(
                PanelOption(
                    ["--set", "assignments"],
                    multiple=True,
                    metavar="KEY=VALUE",
                    help="Set a key of the config, such as render.alpha=0.5.  [repeatable]",
                )
            )
        return made

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Those made from the config, then the command's own."""
        return [*self.config_params, *super().get_params(ctx)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give an option that may stand alone its value, unless the next word is an address for `--serve`.

        Every other value needs the `=`: the next word may be the SOURCE.
        """
        options = [param.option for param in self.config_params if isinstance(param, ConfigOption)]
        alone = {one.flag: one.alone for one in options if one.alone}
        wants_value = {
            flag
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and not param.is_flag
            for flag in param.opts
        }
        given, is_value = list(args), False
        for place, (arg, after) in enumerate(zip(args, [*args[1:], None], strict=False)):
            if is_value:
                is_value = False
            elif arg == "--":
                break
            elif arg in alone and not (arg == "--serve" and after is not None and is_address(after)):
                given[place] = f"{arg}={alone[arg]}"
            else:
                is_value = arg in wants_value
        left = super().parse_args(ctx, given)
        sources = ctx.params.get("source") if self.takes_several else ()
        if sources and len(sources) > 1 and not _are_live(sources, args):
            words = " ".join(sources[1:])
            raise click.UsageError(f"Got unexpected extra argument{'s' * (len(sources) > 2)} ({words})", ctx)
        return left

    def invoke(self, ctx: click.Context) -> Any:
        """Build the config and call the command."""
        given = {param.name: ctx.params.pop(param.name) for param in self.config_params if param.name}
        source, file = given.pop("source", None), given.pop("config_file", None)
        config = read_config(source, given, file=file, assignments=given.pop("assignments", ()))
        is_named = config.source is not None or (self.takes_several and config.sources)
        if self.needs_source and not is_named and not ctx.params.get("print_config"):
            hint = f"`depthstream {ctx.info_name} 0` reads the camera, `depthstream demo` needs none"
            raise ConfigError("no SOURCE given", hint=hint)
        ctx.params["config"] = config
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options by panel, those of the config's panels in their order."""
        from stream.config import Panel

        panels: dict[str, list[tuple[str, str]]] = {panel.value: [] for panel in Panel}
        for param in sorted(self.get_params(ctx), key=_place):
            record = None if isinstance(param, click.Argument) else param.get_help_record(ctx)
            if record is not None:
                panel = param.panel if isinstance(param, PanelOption) else _RUN_PANEL
                panels.setdefault(panel, []).append(record)
        panels[_RUN_PANEL] = panels.pop(_RUN_PANEL)  # at the end
        for title, rows in panels.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _place(param: click.Parameter) -> int:
    """Within a panel: a command's own options, the config's, then `--debug` and `--help`."""
    if isinstance(param, ConfigOption):
        return 1
    return 2 if {"--debug", "--help"} & set(param.opts) else 0


def _are_live(sources: Sequence[str], args: Sequence[str]) -> bool:
    """Whether all SOURCES may be live, and none seems to be the value of the option before it, which lacks its `=`."""
    from stream.capture.parse import may_be_live

    for option, word in itertools.pairwise(args):
        is_port = option == "--serve" and word.isdecimal() and len(word) > _LONGEST_CAMERA
        is_token = option == "--serve-token" and ":" not in word and len(word) >= _SHORTEST_TOKEN
        if word in sources and (is_port or is_token):
            return False
    return all(map(may_be_live, sources))


def is_address(text: str) -> bool:
    """True for `HOST:PORT`, an IP address and `localhost`: what may follow `--serve` and is no SOURCE.

    A port alone would look like a camera's number: it needs the `=`.
    """
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and host != "cam" and "/" not in host:
        return True
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return text == "localhost"
    return True


def read_config(
    source: str | Sequence[str] | None,
    options: dict[str, Any],
    *,
    file: Path | None = None,
    assignments: Sequence[str] = (),
) -> "Config":
    """The config of a file, then `--set`, then options; each error names what was typed, or the file and the key.

    Raises:
        ConfigError: an unknown key or a bad value.
    """
    from stream.cli.configfile import apply_assignments, load
    from stream.jobs.options import build, set_options

    values = {} if file is None else load(file)
    labels = {key: f"{file}: {key}" for key in _keys_of(values)}
    labels |= apply_assignments(values, assignments) if assignments else {}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    labels |= set_options(values, given, label=_as_typed)
    if source:
        values.pop("source", None)
        values.pop("sources", None)
        several = not isinstance(source, str) and len(source) > 1
        key = "sources" if several else "source"
        values[key] = source if several or isinstance(source, str) else source[0]
        labels[key] = "SOURCE"
    return build(values, where="", labels=labels)


def _as_typed(option: "Option", value: object) -> str:
    if isinstance(value, bool):
        return option.flag if value else option.negative
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"{option.flag} {text or repr(text)}"


def _keys_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _keys_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key
