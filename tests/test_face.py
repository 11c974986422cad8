"""The package's face: what a host program hears of a run, through callbacks and through logging."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stream
from stream.channel import Channel
from stream.errors import ModelError
from stream.frames import Frame, Result
from stream.infer.batcher import EngineInference
from stream.notes import note
from tests.support.picture_files import save, scene


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images, and a file between them that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        save(folder / name, scene())
    (folder / "b.png").write_bytes(b"not an image")
    return folder


def test_iterating_reports_what_it_skips(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    skipped: list[tuple[str, str]] = []
    seen = [frame.name for frame, _ in stream.iter_depth(photos, on_skip=lambda *item: skipped.append(item))]
    assert seen == ["a.png", "c.png"]
    ((name, reason),) = skipped
    assert name == "b.png"
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert (record.name, record.getMessage()) == ("depthstream", f"skipped b.png: {reason}")


def test_iterating_passes_on_notes_and_progress_to_the_caller_alone(photos: Path) -> None:
    (photos / "notes.txt").write_text("ignored")
    heard: list[str] = []
    totals: list[int | None] = []
    results = stream.iter_depth(photos, on_note=heard.append, on_progress=lambda now: totals.append(now.total))
    next(results)
    note("of the caller's own, between two results")
    results.close()
    assert heard == ["ignored (not an image): notes.txt"]
    assert totals
    assert set(totals) == {3}


def test_iterating_counts_what_it_yields(photos: Path) -> None:
    done: list[int] = []
    assert len(list(stream.iter_depth(photos, on_progress=lambda now: done.append(now.done)))) == 2
    assert sorted(done) == done
    assert done[-1] == 2


class Failing(EngineInference):
    """Reads every frame, then fails."""

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        for _frame in frames:
            pass
        yield from ()
        raise ModelError("broken")


def test_inputs_are_reported_also_where_the_model_fails(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skipped: list[str] = []
    monkeypatch.setattr(
        "stream.jobs.run.engine_inference", lambda _config, _source, engine: Failing(engine, batch=1, stills=True)
    )
    with pytest.raises(ModelError, match="broken"):
        list(stream.iter_depth(photos, on_skip=lambda name, _reason: skipped.append(name)))
    assert skipped == ["b.png"]


def test_a_run_passes_on_notes_and_progress(photos: Path, tmp_path: Path) -> None:
    (photos / "notes.txt").write_text("ignored")
    heard: list[str] = []
    written: list[int] = []
    report = stream.run(
        photos,
        output=tmp_path / "out",
        on_note=heard.append,
        on_progress=lambda now: written.append(now.metrics.written),
    )
    assert heard == report.notes == ["ignored (not an image): notes.txt"]
    assert sorted(written) == written
    assert written[-1] == report.written == 2


def test_an_exception_of_a_callback_ends_the_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        stream.run(photos, output=tmp_path / "out", on_progress=lambda _now: 1 / 0)


def test_without_callbacks_a_skipped_input_is_printed_unless_logging_is_configured(photos: Path) -> None:
    code = "import sys, stream; assert len(list(stream.iter_depth(sys.argv[1]))) == 2"
    silent = "import logging; logging.getLogger('depthstream').addHandler(logging.NullHandler()); "
    for start, lines in (("", 1), (silent, 0)):
        command = [sys.executable, "-c", start + code, str(photos)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr.count("skipped b.png: ") == len(done.stderr.splitlines()) == lines


def test_the_command_names_a_skipped_input_once(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stream", "run", str(photos), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.count("skipped b.png: ") == 1
