"""The command line.

Invariant: this module and the commands import nothing heavy at the top, so `depthstream --help` is instant; stderr is
for people (one line an error), stdout for programs (`--json`).
"""

import difflib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from stream.cli.bench import bench
from stream.cli.compare import compare
from stream.cli.completion import install_completion, show_completion
from stream.cli.console import fail
from stream.cli.models import models
from stream.cli.options import SETTINGS
from stream.cli.probe import cameras, probe
from stream.cli.run import demo, run
from stream.cli.weights import weights
from stream.errors import SourceNotFoundError, StreamError
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
            if near and not os.path.exists(args[0]):
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


for _command in (run, demo, compare, models, weights, cameras, probe, bench):
    app.add_command(_command)


def main() -> NoReturn:
    """Entry point: every error becomes one line on stderr and the right exit code."""
    # Pillow warns about damaged metadata, which no depth map depends on. The filters are ours to set in this process.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("depthstream").addHandler(logging.NullHandler())  # the display prints notes and skipped inputs
    code = invoke(sys.argv[1:])
    if threading.active_count() > 1:
        # Everything has been closed, so what still runs is stuck in a driver, a network call or a large model, and the
        # report has named it. Python would wait for it, or take the interpreter away from under its native code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0, 1, 2, 3 or 130."""
    arguments = list(arguments)
    debug = "--debug" in arguments
    if arguments in ([], [weights.name]):
        arguments = [*arguments, "--help"]
    try:
        code = app.main(arguments, prog_name=NAME, standalone_mode=False)
    except StreamError as error:
        return fail(str(error), error.exit_code, debug=debug)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        message = error.format_message()
        hint = ""
        if "unexpected extra argument" in message:
            hint = "; quote a pattern ('*.jpg') or name the folder"
            if "--serve" in arguments:
                hint = "; --serve takes HOST:PORT, or a port alone as --serve=PORT"
        return fail(f"{' '.join(message.split()).rstrip('.')}{hint}; see --help", 2, debug=debug)
    except (KeyboardInterrupt, click.Abort):
        return fail("interrupted", 130, debug=debug)
    except OSError as error:
        return fail(f"{error.filename or 'output'}: {error.strerror or error}", 1, debug=debug)
    except Exception as error:  # noqa: BLE001  the last boundary: a defect of ours, reported in one line
        hint = "" if debug else "; --debug shows where, please report it"
        return fail(f"{type(error).__name__}: {' '.join(str(error).split())}{hint}", 1, debug=debug)
    return code if isinstance(code, int) else 0
