"""The command line.

Invariant: this module and the commands import nothing heavy at the top, so `depthstream --help` is instant; stderr is
for people (one line an error), stdout for programs (`--json`).
"""

import difflib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from stream.cli import terminal
from stream.cli.batch import batch
from stream.cli.bench import bench
from stream.cli.compare import compare
from stream.cli.completion import install_completion, show_completion
from stream.cli.console import fail, resuming
from stream.cli.join import join
from stream.cli.models import models
from stream.cli.options import SETTINGS, ConfigCommand
from stream.cli.probe import cameras, probe
from stream.cli.render import render
from stream.cli.run import demo, run
from stream.cli.survey import survey
from stream.cli.weights import weights
from stream.errors import SourceNotFoundError, StreamError, reason_of
from stream.version import __version__

NAME = "depthstream"


class _Commands(click.Group):
    """The commands in the order in which they were added; a SOURCE where a command should stand means `run`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Each with the first sentence of its help, in full."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=200)) for name, one in self.commands.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Add the word `run` where it was left out.

        Raises:
            SourceNotFoundError: a mistyped command.
        """
        if args and args[0] not in self.commands and not self._is_own(ctx, args[0]):
            near = difflib.get_close_matches(args[0], self.commands, n=1, cutoff=0.7)
            if near and not args[0].startswith("-") and not os.path.exists(args[0]):
                hint = f"did you mean `{NAME} {near[0]}`?"
                raise SourceNotFoundError("no such command, file or folder", where=args[0], hint=hint)
            args = [run.name or "run", *args]
        return super().parse_args(ctx, args)

    def _is_own(self, ctx: click.Context, word: str) -> bool:
        """An option of the program itself rather than of `run`."""
        return any(word.partition("=")[0] in param.opts for param in self.get_params(ctx))


@click.group(cls=_Commands, context_settings=SETTINGS, subcommand_metavar="SOURCE | COMMAND [ARGS]...")
@click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s", help="Print the version.")
@install_completion
@show_completion
def app() -> None:
    """Depth from a camera, a video or a pile of photos.

    `depthstream SOURCE` is short for `depthstream run SOURCE`: `depthstream 0` shows the camera, `depthstream clip.mp4`
    writes clip_depth.mp4. `depthstream run --help` lists the options.
    """


for _command in (run, batch, join, demo, render, compare, survey, models, weights, cameras, probe, bench):
    app.add_command(_command)


def main() -> NoReturn:
    """Entry point: every error becomes one line on stderr and the right exit code."""
    terminal.prepare()
    # Read when torch is loaded. By default its threads spin while they wait for one another, and where another program
    # needs a core, all of them wait for the one that has none (docs/speed.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Pillow warns about damaged metadata, which no depth map depends on. The filters are ours to set in this process.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("depthstream").addHandler(logging.NullHandler())  # the display prints notes and skipped inputs
    hung_up = _end_in_order_on_hang_up()
    code = invoke(sys.argv[1:])
    if code == 130 and hung_up:
        code = 129
    unwritten = terminal.flush()
    if unwritten is not None:
        code = fail(f"stdout: {reason_of(unwritten)}", code or 1, debug=False)
    if threading.active_count() > 1:
        # Everything has been closed, so what still runs is stuck in a driver, a network call or a large model, and the
        # report has named it. Python would wait for it, or take the interpreter away from under its native code.
        os._exit(code)
    sys.exit(code)


def _end_in_order_on_hang_up() -> list[int]:
    """Let a closed terminal (SIGHUP) end a command as Ctrl-C does, unless it is ignored (nohup).

    Returns:
        Empty; holds the signal when it has come. A run that is under way handles it by itself.
    """
    came: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        if not came:  # several come, none of which means: now
            came.append(number)
            raise KeyboardInterrupt

    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, end)
    return came


def _is_hyphened_file(word: str) -> bool:
    return word.startswith("-") and os.path.isfile(word)


def _hint_for_extra(arguments: Sequence[str], ctx: click.Context | None) -> str:
    """What a second SOURCE was probably meant to be."""
    if "--serve-token" in arguments:
        return "; --serve-token takes its value as --serve-token=TOKEN"
    if "--serve" in arguments:
        return "; --serve takes HOST:PORT, or a port alone as --serve=PORT"
    if ctx is None or not isinstance(ctx.command, ConfigCommand) or not ctx.command.needs_source:
        return ""
    return (
        "; name an output with -o, quote a pattern ('*.jpg'), or name the folder; only live sources run together, "
        "`depthstream batch` works through files"
    )


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0, 1, 2, 3, 129 or 130."""
    arguments = list(arguments)
    debug = "--debug" in arguments
    if arguments in ([], [weights.name]):
        arguments = [*arguments, "--help"]
    try:
        code = app.main(arguments, prog_name=NAME, standalone_mode=False, obj=resuming(arguments, NAME))
    except StreamError as error:
        return fail(str(error), error.exit_code, debug=debug)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        message = error.format_message()
        hint = ""
        if "unexpected extra argument" in message:
            if "--serve-token" in arguments:  # it may be the token, which no error shows
                message = "there are more words than a SOURCE"
            hint = _hint_for_extra(arguments, error.ctx if isinstance(error, click.UsageError) else None)
        if isinstance(error, click.NoSuchOption) and (names := [word for word in arguments if _is_hyphened_file(word)]):
            hint = f"; a file whose name begins with a hyphen is ./{names[0]}"
        return fail(f"{' '.join(message.split()).rstrip('.')}{hint}; see --help", 2, debug=debug)
    except (KeyboardInterrupt, click.Abort):
        return fail("interrupted", 130, debug=debug)
    except OSError as error:
        return fail(f"{error.filename or 'output'}: {error.strerror or error}", 1, debug=debug)
    except Exception as error:  # noqa: BLE001  the last boundary: a defect of ours, reported in one line
        hint = "" if debug else "; --debug shows where, please report it"
        return fail(f"{type(error).__name__}: {' '.join(str(error).split())}{hint}", 1, debug=debug)
    return code if isinstance(code, int) else 0
