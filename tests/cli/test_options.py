"""Options on the command line: help by panel, names in errors, `run` left out, `--serve`, completion."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from stream.cli.main import app, invoke
from stream.cli.options import is_address
from stream.config import DEFAULT_SERVE, GENERATED_TOKEN, Panel
from stream.jobs.options import OPTIONS
from stream.live.server import Address, parse_address
from tests.support.media_files import write_video


def every_command(group: click.Group = app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name)


def output_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert invoke(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert invoke(arguments) == 2
    return capsys.readouterr().err.removeprefix("depthstream: ").rstrip("\n")


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, object]:
    """SOURCE and `--serve` of the resulting config."""
    values = yaml.safe_load(output_of([arguments[0], "--print-config", *arguments[1:]], capsys))
    return values["source"], values["output"]["serve"]


@pytest.mark.parametrize("path", list(every_command()), ids="-".join)
def test_help_has_a_short_form_everywhere(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    short = output_of([*path, "-h"], capsys)
    assert short == output_of([*path, "--help"], capsys)
    assert short.startswith(f"Usage: {' '.join(['depthstream', *path])} ")


@pytest.mark.parametrize(
    ("command", "usage", "output"),
    [
        ("survey", "[OPTIONS] [PHOTOS]...", "Folder to write; default: PHOTOS_survey, in the current folder."),
        ("compare", "[OPTIONS] [SOURCE]", "Folder to write, or a video of a video; default: SOURCE_compare or"),
    ],
)
def test_the_help_of_commands_with_several_models_says_what_they_write(
    command: str, usage: str, output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = " ".join(output_of([command, "--help"], capsys).split())
    assert text.startswith(f"Usage: depthstream {command} {usage} ")
    assert f"--output OUT {output}" in text
    assert "RTMP" not in text.upper()


def test_the_help_of_run_has_panels_choices_and_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    lines = output_of(["run", "--help"], capsys).splitlines()
    titles = [line.removesuffix(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == [panel.value for panel in Panel]
    text = " ".join(" ".join(lines).split())
    for option in OPTIONS.values():
        assert f"{option.flag} " in text
        assert " ".join(option.help.split()) in text
    for words in (
        "--layout side|depth|overlay",
        "[default: inferno]",
        "[1 to 256; default: 1]",
        "--audio / --no-audio",
    ):
        assert words in text
    panel = lines[lines.index("Camera and network:") :]
    assert any("--reconnect-for" in line for line in panel[: panel.index("Speed:")])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--input-size", "0"], "--input-size 0: must be 32 or more"),
        (["--batch", "many"], "--batch many: must be a whole number"),
        (["--reconnect-for", "-1"], "--reconnect-for -1: must be 0 or more"),
        (["--layout", "above"], "--layout above: unknown value (allowed: side, depth, overlay)"),
        (["--end", "3", "--start", "5"], "--end 3: must be after start (5 s)"),
        (["--save", "npy,tga"], "--save npy,tga: unknown value (allowed: npy, png16, pfm, exr, ply, video16, conf)"),
        (["--set", "inference.batch=0"], "--set inference.batch=0: must be 1 or more"),
        (["--set", "inference.batch=0", "--batch", "300"], "--batch 300: must be 256 or less"),
        (["--output", ""], "--output '': is empty"),
        (["-m", ""], "--model '': is empty"),
        (["--save", ""], "--save '': names no format"),
        (["-m", "a", "-m", ""], "--model '': names no model"),
        (
            ["--set", "render=5"],
            "--set render=5: render is a section; it has the keys render.layout, render.colormap, "
            "render.range, render.alpha",
        ),
        (["--set", "layot=side"], "--set layot=side: unknown key layot; did you mean render.layout?"),
        (["--set", "batch=0"], "--set batch=0: must be 1 or more"),
        (["-m", "a=b.pt", "--weights", "c.pt"], "--model a=b.pt: the weights are given twice: b.pt and c.pt"),
        (["--device", "x", "--start", "2", "--end", "1"], "--end 1: must be after start (2 s)"),
        (["--config", "c.yaml", "--start", "9"], "c.yaml: capture.end: must be after start (9 s), got 8"),
        (["--config", "bad.yaml"], "bad.yaml: inference.batch: must be 1 or more, got 0"),
    ],
)
def test_an_error_names_what_was_typed(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("capture: {end: 8}\n")
    Path("bad.yaml").write_text("inference: {batch: 0}\n")
    assert error_of(["run", "clip.mp4", *arguments], capsys) == line


def test_a_file_is_overridden_by_set_and_set_by_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("source: a.mp4\ninference: {batch: 2, threads: 2, target_fps: 2}\nmodel: {also: [x]}\n")
    arguments = ["--config", "c.yaml", "--set", "inference.batch=3", "--set", "inference.threads=3", "--batch", "4"]
    values = yaml.safe_load(output_of(["run", *arguments, "-m", "a", "-m", "b", "--print-config"], capsys))
    inference = values["inference"]
    assert (inference["batch"], inference["threads"], inference["target_fps"]) == (4, 3, 2.0)
    assert values["source"] == "a.mp4"
    assert (values["model"]["name"], values["model"]["also"]) == ("a", ["b"])


def test_set_takes_the_name_of_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "run",
        "0",
        "--set",
        "model=starter",
        "--set",
        "camera-size=64x48",
        "--set",
        "output=~/x",
        "--print-config",
    ]
    values = yaml.safe_load(output_of(arguments, capsys))
    assert (values["model"]["name"], values["capture"]["camera_size"]) == ("starter", [64, 48])
    assert values["output"]["path"] == str(Path("~/x").expanduser())


def test_the_first_model_may_have_its_file_like_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "0", "-m", "a=x.pt", "-m", "b=y.pt", "--device", "1", "--print-config"]
    values = yaml.safe_load(output_of(arguments, capsys))
    assert (values["model"]["name"], values["model"]["weights"], values["model"]["also"]) == ("a", "x.pt", ["b=y.pt"])
    assert values["inference"]["device"] == "cuda:1"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["run", "a.mp4", "b.mp4"], "name an output with -o, quote a pattern ('*.jpg'), or name the folder"),
        (["run", "a.mp4", "--serve", "9000"], "--serve takes HOST:PORT, or a port alone as --serve=PORT"),
        (["run", "a.mp4", "--serve-token", "12345678"], "--serve-token takes its value as --serve-token=TOKEN"),
        (["run", "-a.mp4"], "a file whose name begins with a hyphen is ./-a.mp4"),
        (["models", "x"], "unexpected extra argument (x); see --help"),
        (["run", "a.mp4", "--provider", "cuda", "--backend", "torch"], "remove it, or add --backend onnx"),
    ],
)
def test_a_hint_is_what_was_probably_meant(
    arguments: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "-a.mp4"):
        write_video(tmp_path / name, frames=1)
    assert hint in error_of(arguments, capsys)


@pytest.mark.parametrize("arguments", [["0"], ["clip.mp4"], ["rtsp://host/x"], ["--batch", "4", "0"], ["-q", "0"]])
def test_run_may_be_left_out(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of([*arguments, "--print-config"], capsys) == output_of(["run", *arguments, "--print-config"], capsys)


def test_a_mistyped_command_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(["modles"], capsys).endswith("did you mean `depthstream models`?")
    assert error_of(["weigths", "list"], capsys).endswith("did you mean `depthstream weights`?")
    assert error_of(["nowhere.mp4"], capsys) == "nowhere.mp4: no such file or folder"
    Path("bnch").mkdir()
    assert printed(["bnch"], capsys)[0] == "bnch", "it exists"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["0", "--serve"], ("0", DEFAULT_SERVE)),
        (["--serve", "0"], ("0", DEFAULT_SERVE)),
        (["--serve", "cam:1"], ("cam:1", DEFAULT_SERVE)),
        (["--serve", "clip.mp4"], ("clip.mp4", DEFAULT_SERVE)),
        (["--serve", "http://host:80"], ("http://host:80", DEFAULT_SERVE)),
        (["--serve", "--batch", "2", "0"], ("0", DEFAULT_SERVE)),
        (["--serve=9000", "0"], ("0", "9000")),
        (["--serve", "0.0.0.0:9000", "0"], ("0", "0.0.0.0:9000")),
        (["0", "--serve", "host:9000"], ("0", "host:9000")),
        (["--serve", "192.168.0.4", "0"], ("0", "192.168.0.4")),
        (["--serve", "[::1]:9000", "0"], ("0", "[::1]:9000")),
        (["--serve", "localhost", "0"], ("0", "localhost")),
        (["0", "--serve", "-m", "starter"], ("0", DEFAULT_SERVE)),
        (["0", "-o", "--serve"], ("0", None)),
        (["--", "--serve"], ("--serve", None)),
    ],
)
def test_serve_takes_the_next_word_only_if_it_is_an_address(
    arguments: list[str], expected: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(["run", *arguments], capsys) == expected


@pytest.mark.parametrize("arguments", [["--serve-token", "clip.mp4"], ["--serve-token", "--serve", "clip.mp4"]])
def test_a_source_is_never_taken_for_the_token(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load(output_of(["run", "--serve", *arguments, "--print-config"], capsys))
    assert (values["source"], values["output"]["serve_token"]) == ("clip.mp4", GENERATED_TOKEN)


def test_a_port_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_address("9000") == Address("127.0.0.1", 9000)
    assert not is_address("9000"), "it could be a camera"
    assert error_of(["run", "0", "--serve", "9000"], capsys).split("; ")[1].endswith("a port alone as --serve=PORT")


def test_completion_offers_options_choices_and_models() -> None:
    def offered(words: str, count: int) -> set[str]:
        variables = {"_DEPTHSTREAM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        out = CliRunner(env=variables).invoke(app, prog_name="depthstream").output
        return {line.partition(",")[2] for line in out.splitlines()}

    assert {"run", "models", "weights"} <= offered("depthstream ", 1)
    assert "--reconnect-for" in offered("depthstream run --re", 2)
    assert offered("depthstream run --layout ", 3) == {"side", "depth", "overlay"}
    assert "dav2-small" in offered("depthstream run -m dav2", 3)
    for command in ("compare", "survey"):
        assert "dav2-small" in offered(f"depthstream {command} -m starter -m dav2", 5)
        assert {"--max-frames", "--overwrite"} <= offered(f"depthstream {command} --", 2)
    assert offered("depthstream survey holi", 2) == {"holi"}  # the shell looks for files


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_once(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    startup = tmp_path / f".{shell}rc"
    if shell != "fish":
        startup.write_text("alias x=y")
    for _ in range(2):
        assert invoke(["--install-completion", shell]) == 0
    (script,) = [path for path in (tmp_path / ".config").rglob("*") if path.is_file()]
    assert "_DEPTHSTREAM_COMPLETE" in script.read_text()
    if shell != "fish":
        first, line = startup.read_text().splitlines()
        assert first == "alias x=y"
        assert f'source "{script}"' in line


def test_completion_for_the_users_own_shell(capsys: pytest.CaptureFixture[str]) -> None:
    code = "from stream.cli.main import main; main()"
    command = [sys.executable, "-c", code, "--show-completion"]
    done = subprocess.run(command, env={"SHELL": "/usr/bin/zsh"}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("#compdef depthstream")
    assert invoke(["--show-completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err


@pytest.mark.parametrize("is_daemon", [True, False])
def test_a_stuck_thread_does_not_keep_the_program(is_daemon: bool) -> None:
    """A stage that hangs in a driver was abandoned, or a model computes on; the exit code is that of the command."""
    code = (
        "import sys, threading, time; from stream.cli.main import main\n"
        f"threading.Thread(target=time.sleep, args=(3600,), daemon={is_daemon}).start()\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "modles"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean `depthstream models`" in done.stderr
