"""Standard streams that are closed, full or not read, texts that act on a terminal, and a terminal that goes away."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from stream.cli.configfile import load, to_yaml
from stream.config import Config
from stream.files import json_text
from tests.support import forked
from tests.support import picture_files as files

ACTING = "\x1b]0;x\x07\x9b1m\x7f\u202e\u2066\u200f\u061c\u2028\x85\u200b\ufeff\U000e0041"
"""Escape sequences, C1, DEL, marks of direction, ends of lines, and what is not visible."""
needs_a_shell = pytest.mark.skipif(sys.platform == "win32", reason="shells differ there")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photo")
    files.save(folder / "p.png", files.scene())
    return folder / "p.png"


def shell(line: str, folder: Path) -> tuple[int, str, str]:
    """Exit code of `depthstream` in a shell's line, stdout and stderr; `@` stands for the program."""
    line = line.replace("@", f"'{sys.executable}' -m stream")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_run_ends_well_with_all_streams_closed(photo: Path, tmp_path: Path) -> None:
    """The output must not get one of their numbers, and be printed into."""
    closed = partial(os.closerange, 0, 3)
    command = ["run", str(photo), "-o", "o.png", "--backend", "torch", "--input-size", "64"]
    assert forked.run(command, cwd=tmp_path, first=closed).returncode == 0
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")


@needs_a_shell
@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("@ probe none.png 2>&-", 2, ""),
        ("@ probe none.png 2>/dev/full", 2, ""),
        ("@ models | true", 0, ""),
        ("@ models --json | head -c 1 >/dev/null", 0, ""),
        ("@ models 2>&- | true", 0, ""),
        ("@ models >/dev/full", 1, "depthstream: stdout: No space left on device\n"),
        ("@ models >&-", 1, "depthstream: stdout: Bad file descriptor\n"),
    ],
)
def test_what_cannot_be_printed(line: str, code: int, says: str, tmp_path: Path) -> None:
    """Nobody has to read; what was asked for and cannot be written is an error."""
    assert shell(line, tmp_path) == (code, "", says)


@needs_a_shell
@pytest.mark.parametrize(("ignored", "code"), [(False, 129), (True, 0)])
def test_a_closed_terminal_ends_a_command_in_order_unless_that_is_ignored(
    ignored: bool, code: int, tmp_path: Path
) -> None:
    """Here it waits for a pipe, which a run does before anything handles signals."""
    os.mkfifo(tmp_path / "f.png")
    disposition = signal.SIG_IGN if ignored else signal.SIG_DFL
    reading, writing = os.pipe()
    program = forked.start(
        ["run", "f.png", "--backend", "torch", "--input-size", "64", "-o", "o.png"],
        cwd=tmp_path,
        stderr=writing,
        first=partial(signal.signal, signal.SIGHUP, disposition),
    )
    os.close(writing)
    with open(reading) as said:
        for line in said:
            if "waiting for a program" in line:
                break
        os.kill(program.pid or 0, signal.SIGHUP)
        if ignored:
            (tmp_path / "f.png").write_bytes(files.jpeg_bytes(files.scene()))
        rest = said.read()
    assert forked.ended(program) == code, rest
    if not ignored:
        assert rest == "depthstream: interrupted\n"


PRINTS = """
import json, sys, warnings
from pathlib import Path
from stream.cli import terminal
from stream.cli.main import invoke
from stream.cli.progress import ProgressDisplay
terminal.prepare()
acting = json.loads(sys.argv[1])
Path("c.yaml").write_text(json.dumps({acting: 1}), encoding="utf-8")
assert invoke(["run", f"{acting}.png", "--debug"]) == 2
assert invoke(["run", "x.png", "--config", "c.yaml"]) == 2
assert invoke(["run", "x.png", "--set", f"a{acting}=1"]) == 2
assert invoke(["run", "x.png", "-m", acting]) == 2
assert invoke(["run", "x.png", f"--{acting}"]) == 2
assert invoke(["run", acting, "--print-config"]) == 0
assert invoke(["weights", "list", "--weights-dir", acting]) in (0, 2)
warnings.warn(acting)
with ProgressDisplay() as display:
    display.say(acting)
print(acting)
assert terminal.flush() is None
"""


def test_nothing_that_is_printed_acts_on_a_terminal(tmp_path: Path) -> None:
    """Whoever prints it: an error, a warning of a library, a listing, progress, a traceback, YAML."""
    done = forked.run([json.dumps(ACTING)], code=PRINTS, cwd=tmp_path)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, err
    assert err.count("\\x1b]0;x\\x07\\x9b1m\\x7f\\u202e\\u2066\\u200f\\u061c") >= 5
    assert not {character for character in ACTING if not character.isprintable()} & set(out + err)


def test_json_and_yaml_are_escaped_in_their_own_way(tmp_path: Path) -> None:
    """And read back as they were; joiners of emoji and other letters stay."""
    name = f"{ACTING} 日本 \U0001f468\u200d\U0001f469"
    text = json_text({"name": name})
    assert json.loads(text) == {"name": name}
    assert text.isascii() is False
    assert not set(ACTING[1:]) & set(text) & {"\u202e", "\x7f", "\x9b", "\u2028"}
    config = to_yaml(Config(source=name))
    assert yaml.safe_load(config)["source"] == name
    assert not {"\u202e", "\x7f", "\x9b", "\u2028"} & set(config)
    (tmp_path / "c.yaml").write_text(config, encoding="utf-8")
    assert load(tmp_path / "c.yaml")["source"] == name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="libgomp says what it has read")
@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_the_user_wants_otherwise(
    given: str | None, used: str, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({} if given is None else {"OMP_WAIT_POLICY": given})
    command = [sys.executable, "-m", "stream", "run", "pattern:testsrc2", "--max-frames", "1", "-o", "out.mp4"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"OMP_WAIT_POLICY = '{used}'" in done.stderr
