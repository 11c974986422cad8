"""Shell completion: `--show-completion` and `--install-completion`.

Invariant: a shell's start-up file gets one line at most, once, and it is printed.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from stream.files import write_file

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_DEPTHSTREAM_COMPLETE"
"""What click reads for the name `depthstream`."""


def _script(shell: str, program: click.Command) -> str:
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None
    return completion(program, {}, "depthstream", _VARIABLE).source()


def _show(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    if shell is None or ctx.resilient_parsing:
        return
    click.echo(_script(shell, ctx.command))
    ctx.exit()


def _install(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    if shell is None or ctx.resilient_parsing:
        return
    script = _script(shell, ctx.command)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    if shell == "fish":  # which reads every file of this folder
        path, startup = config / "fish" / "completions" / "depthstream.fish", None
    else:
        path, startup = config / "depthstream" / f"complete.{shell}", Path.home() / f".{shell}rc"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, script.encode())
    click.echo(f"completion for {shell} is in {path}; it works in a new shell")
    if startup is not None:
        begin = "autoload -Uz compinit && compinit && " if shell == "zsh" else ""
        line = f'{begin}source "{path}"  # completion of depthstream'
        before = startup.read_text(encoding="utf-8") if startup.exists() else ""
        if line not in before.splitlines():
            with startup.open("a", encoding="utf-8") as file:
                file.write(("" if not before or before.endswith("\n") else "\n") + line + "\n")
            click.echo(f"added to {startup}: {line}")
    ctx.exit()


def _option(flag: str, callback: Any, help_text: str) -> Callable[[_Decorated], _Decorated]:
    return click.option(
        flag,
        type=click.Choice(_SHELLS),
        is_flag=False,
        flag_value=os.path.basename(os.environ.get("SHELL", "bash")),
        callback=callback,
        expose_value=False,
        is_eager=True,
        help=help_text,
    )


install_completion = _option("--install-completion", _install, "Install completion for a shell; default: yours.")
show_completion = _option("--show-completion", _show, "Print the completion script for a shell; default: yours.")
