"""The progress display: plain lines in a log, a bar on a terminal, silence when quiet."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest

from stream.capture.base import CaptureLog, Skipped
from stream.cli.console import summary
from stream.cli.display import PLAIN_EVERY_S
from stream.cli.progress import ProgressDisplay, clock_text, describe, rate_text
from stream.frames import SourceKind
from stream.jobs.report import Report
from stream.metrics import Metrics, Outcome
from stream.pipeline.runner import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(
    written: int, total: int | None, now: list[float], waiting: str = "", kind: SourceKind = SourceKind.VIDEO
) -> Progress:
    metrics = Metrics(clock=lambda: now[0])
    metrics.written = written
    metrics.dropped["model_busy"] = 3
    log = CaptureLog(skipped=[Skipped(name="a", reason="x"), Skipped(name="b", reason="y")])
    stages = SimpleNamespace(
        frames=[1] * 4, results=[1], refused=[], source=SimpleNamespace(log=log, info=SimpleNamespace(kind=kind))
    )
    stages.inference = SimpleNamespace(waiting=waiting)
    return Progress(metrics=metrics, stages=stages, total=total)  # type: ignore[arg-type]


def test_a_line_tells_everything() -> None:
    line = describe(progress(25, 100, [0.0]), elapsed_s=10)
    assert line == "25/100 frames · 0.0 fps · 0:30 left · queued 4+1 · dropped 3 · skipped 2"
    assert describe(progress(25, None, [0.0]), elapsed_s=70).startswith("25 frames · 0.0 fps · 1:10 ·")
    late = describe(progress(0, 100, [0.0], waiting="first window: 12 of 32 frames"), elapsed_s=3)
    assert "queued 4+1 · first window: 12 of 32 frames ·" in late
    resumed = progress(20, 200, [0.0])
    resumed.earlier = 100
    assert describe(resumed, elapsed_s=10).startswith("120/200 frames, 100 of them before · 0.0 fps · 0:40 left")


@pytest.mark.parametrize(("per_s", "text"), [(2.5, "2.5 photos/s"), (1.0, "1.0 photos/s"), (0.1, "10.0 s/photo")])
def test_photos_are_counted_by_their_name_and_slow_ones_in_seconds(per_s: float, text: str) -> None:
    assert rate_text(per_s, "photo") == text
    assert rate_text(per_s, "frame") == f"{per_s:.1f} fps"
    now, out = [0.0], io.StringIO()
    with ProgressDisplay(stream=out, clock=lambda: now[0], stills="photo") as display:
        for _ in range(2):
            display(progress(0, 3, now, kind=SourceKind.STILLS))
            now[0] += 2 * PLAIN_EVERY_S
        assert display.unit == "photo"
    assert out.getvalue().startswith("0/3 photos · 0:")
    with ProgressDisplay(stream=io.StringIO(), clock=lambda: 0.0, stills="photo") as display:
        display(progress(0, 3, [0.0]))
        assert display.unit == "frame"


def test_the_last_line_of_an_interruption_is_plain_where_photos_are_counted() -> None:
    report = replace(
        Report.of_failure("", source="", model="", duration_s=1.0),
        outcome=Outcome.INTERRUPTED,
        dropped={"stopped": 6},
        abandoned=["depthstream-inference"],
    )
    assert summary(report, "photo") == "interrupted before the first photo was done"
    some = replace(report, written=2, fps=0.25)
    assert summary(some, "photo") == "interrupted after 2 photos · 4.0 s/photo · 6 left"
    assert summary(some) == (
        "interrupted after 2 frames · 0.2 fps · 6 dropped (stopped) · stuck and abandoned: depthstream-inference"
    )


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
