"""The command line as people and scripts meet it: exit codes, one-line errors, config, probe, demo."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from stream.cli.main import invoke
from stream.media import av
from stream.version import __version__
from tests.support import forked
from tests.support.media_files import write_video
from tests.support.paths import REPOSITORY
from tests.support.waiting import until


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert invoke(["--help"]) == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.mp4"], ["nowhere.mp4"]),
        (["run", "photo.png", "-m", "startr"], ["startr", "starter"]),
        (["run", "photo.png", "--colormap", "infern"], ["infern", "inferno"]),
        (["run", "photo.png", "--layout", "above"], ["layout", "side"]),
        (["run", "photo.png", "--range", "nan:1"], ["finite"]),
        (["run", "photo.png", "--batch", "0"], ["batch"]),
        (["run", "photo.png", "--batch", "many"], ["batch"]),
        (["run", "photo.png", "--precision", "fp8"], ["precision", "bf16"]),
        (["run", "photo.png", "--device", "tpu"], ["tpu", "cpu"]),
        (["run", "photo.png", "--save", "tga"], ["npy"]),
        (["run", "photo.png", "--colour", "x"], ["--colour"]),
        (["run", "photo.png", "-o", "photo.png"], ["photo.png"]),
        (["run", "photo.png", "-o", "photo.png", "--overwrite"], ["input"]),
        (["run", "photo.png", "--fps", "24"], ["--fps"]),
        (["run", "photo.png", "--set", "render.colourmap=gray"], ["render.colormap"]),
        (["run", "photo.png", "--config", "none.yaml"], ["none.yaml"]),
        (["run", "pattern:nothing"], ["nothing", "testsrc2"]),
        (["run", "empty"], ["empty"]),
        (["run"], ["SOURCE"]),
        (["rum"], ["rum"]),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(
    arguments: list[str], words: list[str], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo.parent / "empty").mkdir()
    before = sorted(p.name for p in photo.parent.iterdir())
    assert invoke([*arguments, "--quiet"] if len(arguments) > 1 else arguments) == 2
    line = one_line(capsys)
    assert all(word in line for word in words), line
    assert sorted(p.name for p in photo.parent.iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"not a media file at all" * 50])
@pytest.mark.parametrize("name", ["a.mp4", "a.jpg", "a.heic"])
def test_unreadable_input_is_one_line_and_exit_1(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert invoke(["run", name, "--quiet"]) == 1
    assert name in one_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_one_picture_gets_a_picture_its_raw_depth_and_a_report(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "photo.png", "--save", "npy", "--report", "r.json", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "starter" in err
    with Image.open("photo_depth.png") as picture:
        assert picture.size == (64, 48)
    values = np.load("photo.npy")
    assert (values.dtype, values.shape) == (np.float32, (48, 64))
    report = json.loads(out)
    assert report == json.loads(Path("r.json").read_text())
    assert report["captured"] == report["written"] == 1
    assert re.fullmatch("[0-9a-f]{64}", report["weights_sha256"])
    assert invoke(["run", "photo.png", "--save", "npy"]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_quiet_says_nothing(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", str(photo), "-o", "out", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert [p.name for p in Path("out").iterdir()] == ["photo.png"]


def test_printed_config_can_be_fed_back(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "run",
        str(photo),
        "-o",
        "x.png",
        "--colormap",
        "turbo",
        "--range",
        "0:2",
        "--set",
        "inference.batch=3",
    ]
    assert invoke([*arguments, "--print-config"]) == 0
    first = capsys.readouterr().out
    Path("c.yaml").write_text(first)
    assert yaml.safe_load(first)["inference"]["batch"] == 3
    assert invoke(["run", "--config", "c.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == first
    assert not Path("x.png").exists()


def test_models_as_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["name"] == "starter"
    assert rows[0]["licence"] == "Apache-2.0"
    assert invoke(["models"]) == 0
    assert "starter" in capsys.readouterr().out


def test_probe(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["probe", str(photo), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["width"], facts["height"], facts["kind"]) == (64, 48, "stills")
    assert invoke(["probe", "pattern:testsrc2"]) == 0
    assert "pattern" in capsys.readouterr().out


@pytest.mark.slow
def test_demo_runs_and_says_where_the_result_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["demo"]) == 0
    assert "demo_depth.mp4" in capsys.readouterr().err
    with av.open("demo_depth.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) > 50
    assert [p.name for p in tmp_path.iterdir()] == ["demo_depth.mp4"]


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", str(tmp_path / "none.mp4"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def interrupted(arguments: list[str], folder: Path, partial: str) -> int:
    """Run the command line in a process of its own and press Ctrl-C once it has written something."""
    written = folder / partial
    process = forked.start(arguments, cwd=folder)
    try:
        until(lambda: not process.is_alive() or (written.exists() and written.stat().st_size > 2000), "an output")
        os.kill(process.pid or 0, signal.SIGINT)
        return forked.ended(process)
    finally:
        process.kill()


def test_ctrl_c_on_a_live_source_finishes_the_recording(tmp_path: Path) -> None:
    assert interrupted(["run", "pattern:testsrc2", "-o", "rec.mp4"], tmp_path, "rec.partial.mp4") == 0
    assert [p.name for p in tmp_path.iterdir()] == ["rec.mp4"]
    with av.open(str(tmp_path / "rec.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 0


def test_ctrl_c_on_a_file_job_keeps_a_playable_partial(tmp_path: Path) -> None:
    quick = ["--input-size", "64", "--backend", "torch"]  # an encoder looks ahead for a hundred frames
    write_video(tmp_path / "long.mp4", frames=1000, gop=100)
    assert interrupted(["run", "long.mp4", *quick], tmp_path, "long_depth.partial.mp4") == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.mp4", "long_depth.partial.mp4"]
    with av.open(str(tmp_path / "long_depth.partial.mp4")) as container:
        assert 5 < sum(1 for _ in container.decode(video=0)) < 1000


def test_the_webcam_config_runs_on_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = str(REPOSITORY / "configs" / "webcam.yaml")
    arguments = ["run", "pattern:smptebars", "--config", config, "-o", "cam.mp4", "--max-frames", "20", "--json"]
    assert invoke(arguments) == 0
    with av.open("cam.mp4") as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (2 * 640 + 50, 480)


def test_a_demo_never_replaces_what_somebody_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.mp4").write_bytes(b"my holiday")
    assert invoke(["demo", "-o", "mine.mp4", "-q"]) == 2
    assert Path("mine.mp4").read_bytes() == b"my holiday"


def test_an_error_comes_alone_and_a_shell_pattern_gets_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "nowhere.mp4"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert invoke(["run", "a.jpg", "b.jpg"]) == 2
    assert "quote a pattern" in capsys.readouterr().err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["weights"]):
        assert invoke(arguments) == 0
        assert "Usage:" in capsys.readouterr().out
