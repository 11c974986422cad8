"""The command line.

Invariant: this module imports nothing heavy, so `depthstream --help` is instant; stderr is for people (one line
an error), stdout for programs (`--json`).
"""

import os
import re
import sys
import threading
import warnings
from typing import Annotated, NoReturn

import typer

from stream.cli import weights as weights_cli
from stream.cli.bench import bench
from stream.cli.compare import compare
from stream.cli.console import fail
from stream.cli.models import models
from stream.cli.probe import cameras, probe
from stream.cli.run import demo, run
from stream.errors import StreamError
from stream.version import __version__

app = typer.Typer(
    name="depthstream",
    help="Depth from a camera, a video or a pile of photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.add_typer(weights_cli.app, name="weights")


# typer carries a click of its own in recent versions, so its errors are found through typer.
_CommandLineError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"depthstream {__version__}")
        raise typer.Exit


for _command in (run, demo, compare, models, cameras, bench, probe):
    app.command()(_command)


def main() -> NoReturn:
    """Entry point: every error becomes one line on stderr and the right exit code."""
    # Pillow warns about damaged metadata, which no depth map depends on. The filters are ours to set in this process.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    code = invoke(sys.argv[1:])
    if any(thread.name.startswith("depthstream-") for thread in threading.enumerate()):
        # Stuck in a driver, a network call or a large model, and said so: Python would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


_ADDRESS = re.compile(r"(?!cam:)[\w.\[\]:-]*:\d+|(\d{1,3}\.){3}\d{1,3}|localhost")


def _with_address(arguments: list[str]) -> list[str]:
    """`--serve` may stand alone: what follows it is its value only if it looks like HOST:PORT."""
    given = list(arguments)
    if "--serve" in given:
        from stream.config import DEFAULT_SERVE

        after = given.index("--serve") + 1
        if after == len(given) or not _ADDRESS.fullmatch(given[after]):
            given[after - 1] = f"--serve={DEFAULT_SERVE}"
    return given


def invoke(arguments: list[str]) -> int:
    """Run a command line and return its exit code: 0, 1, 2, 3 or 130."""
    debug = "--debug" in arguments
    arguments = _with_address(arguments)
    if arguments in ([], ["weights"]):
        arguments = [*arguments, "--help"]
    try:
        code = app(arguments, standalone_mode=False)
    except StreamError as error:
        return fail(str(error), error.exit_code, debug=debug)
    except typer.Exit as done:
        return int(done.exit_code)
    except _CommandLineError as error:
        message = getattr(error, "format_message", error.__str__)()
        hint = "; quote a pattern ('*.jpg') or name the folder" if "unexpected extra argument" in message else ""
        return fail(f"{' '.join(message.split()).rstrip('.')}{hint}; see --help", 2, debug=debug)
    except (KeyboardInterrupt, typer.Abort):
        return fail("interrupted", 130, debug=debug)
    except OSError as error:
        return fail(f"{error.filename or 'output'}: {error.strerror or error}", 1, debug=debug)
    except Exception as error:  # noqa: BLE001  the last boundary: a defect of ours, told in one line
        hint = "" if debug else "; --debug shows where, and the bug tracker would like to know"
        return fail(f"{type(error).__name__}: {' '.join(str(error).split())}{hint}", 1, debug=debug)
    return code if isinstance(code, int) else 0
