"""The reference page of every option, docs/options.md, made from the config.

python scripts/docs/options.py            rewrites the page
python scripts/docs/options.py --check    fails if it is stale
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stream.cli.main import app  # noqa: E402
from stream.cli.options import EVERY_KEY, ConfigCommand  # noqa: E402
from stream.config import Config, Panel  # noqa: E402
from stream.jobs.options import OPTIONS, Option  # noqa: E402

PAGE = ROOT / "docs" / "options.md"
INTRODUCTION = """\
# Options

<!-- Made by scripts/docs/options.py from stream/config.py: change it there. -->

Every option of `depthstream run` is also a key of a YAML file (`--config FILE`) and of `--set KEY=VALUE`, and a keyword
of `stream.run` and `stream.iter_depth`: its name with underscores, such as `input_size=518` for `--input-size 518`.
Options override `--set`, which overrides the file. `depthstream run --print-config` prints the result as YAML.

A switch such as `--preview/--no-preview` is True or False in Python and in YAML. Values with commas may be lists there,
and times are seconds or `[HH:]MM:SS`."""


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION, "", *source()]
    for panel in Panel:
        options = [option for option in OPTIONS.values() if option.panel is panel]
        if options:
            lines += ["", f"## {panel.value}", "", "| Option | Key | Values | Default | |", "|---|---|---|---|---|"]
            lines += [row(option) for option in options]
    return "\n".join([*lines, "", *commands(), ""])


def source() -> list[str]:
    """The argument."""
    one, several = (Config.model_fields[name].description or "" for name in ("source", "sources"))
    return [
        f"`SOURCE` (key `source`, first argument in Python): {one}",
        "",
        f"`SOURCE SOURCE...` (key `sources`): {several}",
    ]


def row(option: Option) -> str:
    """One line of a table."""
    flags = ", ".join(option.flags) + (f", {option.negative}" if option.negative else "")
    keys = f"`{option.key}`" + (f", `{option.rest}`" if option.rest else "")
    shown = option.metavar or "|".join(option.choices)
    values = ", ".join(filter(None, [f"`{shown}`" if shown else "switch", option.limits]))
    default = {None: "", True: "on", False: "off", (): ""}.get(option.default)  # type: ignore[call-overload]
    if default is None or (option.default == 1 and option.metavar):
        default = f"`{option.default_text}`"
    cells = [f"`{flags}`", keys, values, default, option.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def commands() -> list[str]:
    """Which of these options the other commands take."""
    flags = {option.key: option.flag for option in OPTIONS.values()}
    lines = ["## Other commands", "", "| Command | takes of these |", "|---|---|"]
    found = [(name, command) for name, command in app.commands.items()]
    found += [(f"weights {name}", command) for name, command in app.commands["weights"].commands.items()]  # type: ignore[attr-defined]
    for name, command in found:
        if isinstance(command, ConfigCommand) and command.keys != EVERY_KEY:
            taken = ["SOURCE" if key == "source" else flags[key] for key in command.keys]
            taken += ["--config", "--set"] if command.reads_file else []
            lines.append(f"| `{name}` | {', '.join(f'`{one}`' for one in taken)} |")
    return lines


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is stale")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        raise SystemExit(f"{PAGE.relative_to(ROOT)} is stale; run python scripts/docs/options.py")


if __name__ == "__main__":
    main()
