"""The package's face: what a host program hears of a run, through callbacks and through logging."""

import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stream
from stream.channel import Channel
from stream.errors import ConfigError, ModelError, UsageError
from stream.frames import Frame, Result
from stream.infer.batcher import EngineInference
from stream.media import av
from stream.notes import note
from tests.support import forked
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
    skipped: list[str] = []
    report = stream.run(
        photos,
        output=tmp_path / "out",
        on_note=heard.append,
        on_skip=lambda name, _reason: skipped.append(name),
        on_progress=lambda now: written.append(now.metrics.written),
    )
    assert heard == report.notes == ["ignored (not an image): notes.txt"]
    assert sorted(written) == written
    assert written[-1] == report.written == 2
    assert skipped == ["b.png"]


def test_an_exception_of_a_callback_ends_the_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        stream.run(photos, output=tmp_path / "out", on_progress=lambda _now: 1 / 0)


def test_without_callbacks_a_skipped_input_is_printed_unless_logging_is_configured(photos: Path) -> None:
    code = """
import logging, sys, stream
def seen():
    return [frame.name for frame, _ in stream.iter_depth(sys.argv[1], backend="torch", input_size=64)]
assert seen() == ["a.png", "c.png"]
print("configured", file=sys.stderr)
logging.getLogger("depthstream").addHandler(logging.NullHandler())
assert seen() == ["a.png", "c.png"]
"""
    done = forked.run([str(photos)], code=code)
    skipped, configured = done.stderr.decode().splitlines()
    assert "skipped b.png: " in skipped
    assert configured == "configured"


def test_the_command_names_a_skipped_input_once(photos: Path, tmp_path: Path) -> None:
    quick = ["--backend", "torch", "--input-size", "64"]
    done = forked.run(["run", str(photos), "-o", str(tmp_path / "out"), *quick])
    assert done.returncode == 3
    assert done.stderr.count(b"skipped b.png: ") == 1


QUICK = {"backend": "torch", "input_size": 64}


def test_images_in_memory_give_the_depth_of_their_files(photos: Path) -> None:
    from_file = next(stream.iter_depth(photos / "a.png"))[1]
    with Image.open(photos / "a.png") as image:
        results = list(stream.iter_depth([np.asarray(image), image, str(photos / "a.png")]))
    for _frame, depth in results:
        assert np.array_equal(np.asarray(depth), from_file.values)
    assert np.array_equal(np.asarray(results[0][0]), results[1][0].rgb), "a frame is an array, too"
    frame, depth = pickle.loads(pickle.dumps(results[0]))
    assert np.array_equal(depth.values, from_file.values)
    assert frame.size == depth.size
    assert np.array(depth).flags.writeable


def test_images_in_memory_are_written(photos: Path, tmp_path: Path) -> None:
    report = stream.run([scene(), photos / "b.png", scene()], output=tmp_path / "out", save=["npy"], **QUICK)
    assert (report.written, report.exit_code) == (2, 3)
    names = ["000000.npy", "000000.png", "000002.npy", "000002.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    report = stream.run((scene() for _ in range(3)), output=tmp_path / "film.mp4", fps=10, **QUICK)
    with av.open(str(tmp_path / "film.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == report.written == 3
    stream.run(scene(), output=tmp_path / "one.png", **QUICK)
    with Image.open(tmp_path / "one.png") as written:
        assert written.size == (64, 40)


def test_images_in_memory_need_an_output_and_a_rate_for_video(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output: images in memory have no name to name it after; pass output="):
        stream.run(scene())
    with pytest.raises(ConfigError, match="--fps: still images have no frame rate"):
        stream.run(iter([scene()]), output=tmp_path / "film.mp4")
    with pytest.raises(UsageError, match="an iterator gives only once"):
        stream.run(iter([scene()]), output=tmp_path / "out", precision="int8")


def test_the_callers_array_stays_writable() -> None:
    mine = scene()
    frame, _depth = next(stream.iter_depth(mine))
    assert mine.flags.writeable
    assert not frame.rgb.flags.writeable
    Frame(index=0, pts=0, time_base=frame.time_base, captured_at=0.0, rgb=mine)
    assert mine.flags.writeable


def test_what_an_iterator_raises_comes_out_as_it_is() -> None:
    def images() -> Iterator[object]:
        yield scene()
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        list(stream.iter_depth(images()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "no SOURCE given; name a camera"),
        ({"source": "nofile.mp4"}, "nofile.mp4: no such file or folder"),
        ({"source": "ftp://host/x"}, "unknown kind of URL ftp://"),
        ({"source": 1.5}, "source: a float is no image"),
        ({"source": "0", "o": "x"}, "unknown option o; did you mean output?"),
        ({"source": "0", "no_audio": True}, "unknown option no_audio; did you mean audio=False?"),
        ({"source": "0", "path": "x"}, "unknown option path; did you mean output?"),
        ({"source": "0", "batch": True}, "batch=True: must be a number"),
        ({"source": "0", "model": ""}, "model='': is empty"),
        ({"source": "0", "model": object}, "must be text"),
        ({"source": "0", "weights": np.zeros(9999)}, "weights=array([0., 0., 0., "),
        ({"source": "0", "model": ["starter", "bogus"]}, "model: iter_depth gives the depth of one model"),
        ({"source": "0", "target_fps": 9}, "target_fps: does not apply to iter_depth"),
        ({"source": "0", "stop": True}, "stop: bool is no event (allowed: a threading.Event)"),
        ({"config": "c.yaml"}, "config: must be a stream.Config, got str"),
        ({"config": {}, "source": "0"}, "either config= or a source"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        stream.iter_depth(**arguments)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sauce": "x"}, "Config: unknown key sauce; did you mean source?"),
        ({"render": {"layout": "xx"}}, "Config: render.layout: unknown value, got 'xx'"),
        ({"layout": "side"}, "Config: unknown key layout; did you mean render.layout?"),
        ({"render": 5}, "Config: render: must hold keys of its own"),
    ],
)
def test_a_config_is_refused_in_our_words(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stream.Config(**values)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert stream.Config(source=Path("x"), model="a=b.pt").model.weights == Path("b.pt")  # type: ignore[arg-type]


def test_a_run_is_stopped_from_another_thread(tmp_path: Path) -> None:
    """Not from the main thread: no signal handler is set, and the report comes back."""
    stop, reports, outputs = threading.Event(), [], ("film.mp4", "live.mp4")

    def work() -> None:
        sources = ((scene() for _ in iter(int, 1)), "pattern:testsrc2")
        for source, output, options in zip(sources, outputs, ({"fps": 10}, {}), strict=True):
            stop.clear()
            reports.append(
                stream.run(
                    source,
                    output=tmp_path / output,
                    preview=False,
                    stop=stop,
                    on_progress=lambda now: stop.set() if now.done > 2 else None,
                    **options,
                    **QUICK,
                )
            )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    endless, live = reports
    assert (endless.outcome, live.outcome) == (stream.Outcome.INTERRUPTED, stream.Outcome.DONE)
    assert endless.outputs == [str(tmp_path / "film.partial.mp4")]
    assert live.outputs == [str(tmp_path / "live.mp4")]
    for report in reports:
        with av.open(report.outputs[0]) as film:
            assert sum(1 for _ in film.decode(video=0)) == report.written >= 3


def test_an_iteration_is_stopped_from_another_thread() -> None:
    stop = threading.Event()
    seen = 0
    for seen, _result in enumerate(stream.iter_depth((scene() for _ in iter(int, 1)), stop=stop), 1):
        if seen == 2:
            stopper = threading.Thread(target=stop.set)
            stopper.start()
            stopper.join()
    assert seen == 2
