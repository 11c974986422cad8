"""The command batch: what it prints before, while and after the work."""

import io
import json
from pathlib import Path

import pytest

from stream.batch.schedule import Shard
from stream.batch.summary import Status
from stream.cli.batch import parse_shard
from stream.cli.display import PLAIN_EVERY_S
from stream.cli.main import invoke
from stream.cli.table import BatchDisplay, describe
from stream.errors import UsageError
from tests.cli.test_progress import Terminal
from tests.support.picture_files import save, scene


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_prints_the_plan_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("h/a.jpg", "h/sub/b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        save(Path(name), scene(20, 30))
    assert invoke(["batch", "h", "-o", "out", "--dry-run"]) == 0
    plain = capsys.readouterr().out
    assert plain.splitlines()[:2] == ["h/a.jpg → h/a.png", "h/sub/b.png → h/sub/b.png"]
    assert "0 videos · 2 pictures · 2 frames" in plain
    assert "time: unknown; `depthstream bench -m starter` measures it" in plain
    assert invoke(["batch", "h", "-o", "out", "--dry-run", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["output"] for line in lines[:2]] == ["h/a.png", "h/sub/b.png"]
    assert (lines[2]["pictures"], lines[2]["seconds"]) == (2, None)
    assert not Path("out").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "/", "-1/3", "٣/3"])
def test_a_share_is_one_of_n(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard .*I/N"):
        parse_shard(text)
    assert parse_shard("3/3") == Shard(number=3, count=3)
    assert parse_shard(None) is None


def test_what_does_not_suit_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    save(Path("p.png"), scene(20, 30))
    for arguments, words in (
        (["--serve"], "--serve"),
        (["--report", "r.json"], "--report"),
        (["--set", "output.preview=window"], "--preview"),
        (["--shard", "9"], "--shard 9"),
    ):
        assert invoke(["batch", "p.png", "-o", "out", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert invoke(["batch", "p.png"]) == 2
    assert "no OUT given" in capsys.readouterr().err
    assert invoke(["batch", "--help"]) == 0
    assert "--serve" not in capsys.readouterr().out


STATUS = Status(
    total=60, elsewhere=10, done=12, earlier=2, failed=1, fps=31.24, left_s=65.0,
    running=[("holiday/[a].mp4", 30, 120), ("holiday/\x1b[2J.png", 0, None)],
)  # fmt: skip


def test_a_line_tells_everything() -> None:
    assert describe(STATUS) == "12/50 done (2 earlier) · 1 failed · 2 running · 31.2 fps · 1:05 left"
    assert describe(Status(total=3, phase="looking at the videos")) == "0/3 done · looking at the videos"


def test_a_log_gets_a_plain_line_now_and_then_and_a_quiet_one_none() -> None:
    now, out = [0.0], io.StringIO()
    with BatchDisplay(stream=out, clock=lambda: now[0]) as display:
        for step in range(30):
            now[0] = step * PLAIN_EVERY_S / 10
            display(STATUS)
        display.say("failed a.mp4: the file is empty")
    assert [line[:10] for line in out.getvalue().splitlines()] == ["12/50 done", "12/50 done", "failed a.m"]
    quiet = io.StringIO()
    with BatchDisplay(stream=quiet, clock=lambda: now[0], quiet=True) as display:
        now[0] += 100
        display(STATUS)
        display.say("nothing")
    assert quiet.getvalue() == ""


def test_a_terminal_gets_a_table_of_what_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    now, out = [0.0], Terminal()
    with BatchDisplay(stream=out, clock=lambda: now[0]) as display:
        display.say("failed [x].mp4: no video")
        for step in range(3):
            now[0] = float(step)
            display(STATUS)
    text = out.getvalue()
    assert "failed [x].mp4: no video" in text
    assert "holiday/[a].mp4" in text
    assert "30/120 frames" in text
    assert "\x1b[2J" not in text, "a name acts on no terminal"
