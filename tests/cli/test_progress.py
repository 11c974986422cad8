"""The progress display: plain lines in a log, a bar on a terminal, silence when quiet."""

import io
from types import SimpleNamespace
from typing import Any

import pytest

from stream.capture.base import CaptureLog, Skipped
from stream.cli.progress import PLAIN_EVERY_S, ProgressDisplay, clock_text, describe
from stream.metrics import Metrics


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(written: int, total: int | None, now: list[float]) -> Any:
    metrics = Metrics(clock=lambda: now[0])
    metrics.written = written
    metrics.dropped["model_busy"] = 3
    log = CaptureLog(skipped=[Skipped(name="a", reason="x"), Skipped(name="b", reason="y")])
    stages = SimpleNamespace(frames=[1] * 4, results=[1], refused=[], source=SimpleNamespace(log=log))
    return SimpleNamespace(metrics=metrics, stages=stages, total=total)


def test_a_line_tells_everything() -> None:
    line = describe(progress(25, 100, [0.0]), elapsed_s=10)
    assert line == "25/100 frames · 0.0 fps · 0:30 left · queued 4+1 · dropped 3 · skipped 2"
    assert describe(progress(25, None, [0.0]), elapsed_s=70).startswith("25 frames · 0.0 fps · 1:10 ·")


def test_a_log_gets_a_plain_line_now_and_then() -> None:
    now, out = [0.0], io.StringIO()
    with ProgressDisplay(stream=out, clock=lambda: now[0]) as display:
        for step in range(30):
            now[0] = step * PLAIN_EVERY_S / 10
            display(progress(step, 100, now))
        display.say("note: said")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[-1] == "note: said"
    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    now, out = [0.0], Terminal()
    with ProgressDisplay(stream=out, clock=lambda: now[0]) as display:
        display.say("model: [starter]")
        for step in range(4):
            now[0] = float(step)
            display(progress(step, 4, now))
    assert "model: [starter]" in out.getvalue()
    assert "3/4 frames" in out.getvalue()
    assert out.getvalue().rstrip("\r\n").endswith("\x1b[2K") or "\x1b[2K" in out.getvalue()[-30:]


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_quiet_is_silent(out: io.StringIO) -> None:
    now = [0.0]
    with ProgressDisplay(stream=out, clock=lambda: now[0], quiet=True) as display:
        display.say("nothing")
        now[0] = 1000
        display(progress(1, 2, now))
    assert out.getvalue() == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_clock_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_a_closed_pipe_switches_the_display_off() -> None:
    class Closed(io.StringIO):
        writes = 0

        def write(self, _text: str) -> int:
            self.writes += 1
            raise BrokenPipeError

    stream, now = Closed(), [0.0]
    with ProgressDisplay(stream=stream, clock=lambda: now[0]) as display:
        display.say("hello")
        now[0] = PLAIN_EVERY_S + 1
        display(progress(1, 2, now))
        display.say("hello")
    assert stream.writes == 1


def test_a_line_tells_that_the_source_is_away_and_how_often_it_was() -> None:
    now = progress(10, None, [0.0])
    now.stages.source.log = CaptureLog(waiting="reconnecting (3)", reconnects=1)
    assert "reconnecting (3)" in describe(now, elapsed_s=1.0)
    now.stages.source.log = CaptureLog(reconnects=2)
    assert "reconnected 2×" in describe(now, elapsed_s=1.0)
