"""Whole runs with `--skip`: what is written, what the report counts, and what it does not suit."""

import json
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stream
from stream.cli.main import invoke
from stream.config import Config
from stream.errors import StreamError
from stream.infer.engine import Engine
from stream.jobs.models import make_engine, resizes
from stream.jobs.options import from_options
from stream.jobs.several import run_several
from stream.jobs.skip import model_fps
from stream.media import av
from stream.metrics import Outcome
from tests.support.media_files import write_video
from tests.support.pumping import SIZE, views
from tests.support.tiny_model import loaded, own

COUNT = 14


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path, shown = tmp_path_factory.mktemp("clip") / "clip.mp4", [view.rgb for view in views(COUNT)]
    write_video(path, size_hw=SIZE, frames=COUNT, draw=lambda index, _: shown[index])
    return str(path)


@pytest.fixture
def model() -> Iterator[stream.Model]:
    with own() as made:
        yield made


def times_of(path: str) -> list[Fraction]:
    with av.open(path) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def test_files_and_the_report_say_what_was_carried(clip: str, model: stream.Model) -> None:
    report = stream.run(clip, model=model, output="out.depth.mkv", save="npy", skip=4, depth_codec="float32")
    assert (report.captured, report.written, report.inferred, report.carried) == (COUNT, COUNT, 5, COUNT - 5)
    full = [depth.values for _, depth in stream.iter_depth(clip, model=model)]
    assert [path.name for path in sorted(Path("out_depth").glob("*.npy"))] == [f"{k:06d}.npy" for k in range(COUNT)]
    for number in (0, 4, 8, 12, 13):
        assert np.array_equal(np.load(f"out_depth/{number:06d}.npy"), full[number])
    assert not np.array_equal(np.load("out_depth/000006.npy"), full[6])
    assert json.loads(Path("out.depth.json").read_text())["carried"] is True
    with stream.open_depth_video("out.depth.mkv") as video:
        assert [depth.carried for depth in video] == [True] * COUNT  # of some of them
    assert stream.run(clip, model=model, output="one.mp4", skip=1).carried == 0


def test_a_video_keeps_its_times_and_the_frames_know_that_they_were_carried(clip: str, model: stream.Model) -> None:
    stream.run(clip, model=model, output="out.mp4", skip=3)
    assert times_of("out.mp4") == times_of(clip)
    found = list(stream.iter_depth(clip, model=model, skip=3, steady=True))
    assert [depth.index for _, depth in found if not depth.carried] == [0, 3, 6, 9, 12, 13]
    assert [depth.index for _, depth in found if depth.steadied and depth.index < 3] == [2]  # nearer to the third


def test_with_two_passes_the_counts_are_those_of_the_model(clip: str, model: stream.Model) -> None:
    report = stream.run(clip, model=model, output="out.mp4", save="png16", skip=4, range="clip", steady=True)
    assert (report.written, report.inferred, report.carried) == (COUNT, 5, COUNT - 5)
    (change,) = report.depth_change
    assert change is not None
    assert change.pairs == 4  # of the frames that the model has seen
    assert json.loads(Path("out_depth/depth.json").read_text())["carried"] is True


def test_segments_count_what_they_write_and_the_model_sees_the_same_frames(clip: str, model: stream.Model) -> None:
    shown = [view.rgb for view in views(40)]
    path = Path("long.mp4")
    write_video(path, size_hw=SIZE, frames=40, draw=lambda index, _: shown[index], gop=10)
    whole = stream.run(path, model=model, output="whole", save="npy", picture="none", skip=4, segment_seconds=0)
    cut = stream.run(path, model=model, output="cut", save="npy", picture="none", skip=4, segment_seconds=0.4)
    assert cut.segments > 1
    assert (cut.written, cut.inferred + cut.carried, cut.inferred) == (40, 40, whole.inferred)
    for number in range(40):
        assert np.array_equal(np.load(f"whole/{number:06d}.npy"), np.load(f"cut/{number:06d}.npy"))


def test_a_file_that_is_stopped_keeps_what_is_done(clip: str, model: stream.Model) -> None:
    stop = threading.Event()

    def halt(progress: stream.Progress) -> None:
        if progress.done >= 3:
            stop.set()

    report = stream.run(clip, model=model, output="out.mp4", skip=4, stop=stop, on_progress=halt)
    assert report.outcome in (Outcome.INTERRUPTED, Outcome.DONE)
    assert report.captured == report.written + sum(report.dropped.values())
    assert report.written >= 3


@pytest.mark.parametrize("skip", [4, "auto"])
def test_a_live_source_is_carried_and_every_frame_is_counted(skip: int | str, model: stream.Model) -> None:
    report = stream.run(
        "pattern:testsrc2", model=model, output="out.mp4", live="live", max_frames=20, skip=skip, camera_size="160x120",
        preview="off",
    )  # fmt: skip
    assert report.captured == report.written + sum(report.dropped.values()) == 20
    assert report.inferred + report.carried >= report.written
    assert report.carried > 0 or skip == "auto"


def test_several_live_sources_carry_each_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(config: Config, *, exact: bool, **_more: Any) -> Engine:
        return make_engine(config, loaded(), backend="torch", exact=exact)

    monkeypatch.setattr("stream.jobs.several.load_engine", load)
    given = {"output": "out", "max_frames": 6, "skip": 3, "preview": "off", "camera_size": "160x120", "device": "cpu"}
    sources = ("pattern:testsrc2", "pattern:smptebars")
    report = run_several(from_options(None, {**given, "live": "live"}).model_copy(update={"sources": sources}))
    for one in report.sources:
        assert one.captured == one.written + sum(one.dropped.values()) == 6
        assert one.inferred + one.carried >= one.written


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model": "vda-small", "skip": 4}, "sees every frame, together with others"),
        ({"skip": "auto"}, "keeps the rate of a live source, and a file waits"),
        ({"skip": 17}, "must be 1 to 16, or auto"),
        ({"skip": "often"}, "must be 1 to 16, or auto"),
        ({"skip": True}, "must be 1 to 16, or auto"),
    ],
)
def test_what_it_does_not_suit_is_refused_in_one_line(clip: str, options: dict[str, object], why: str) -> None:
    with pytest.raises(StreamError, match=why) as refused:
        stream.run(clip, output="out.mp4", **options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
    assert not Path("out.mp4").exists()


def test_still_images_are_refused_unless_they_are_a_film(model: stream.Model) -> None:
    Path("photos").mkdir()
    for index, view in enumerate(views(5)):
        Image.fromarray(view.rgb).save(f"photos/{index}.png")
    with pytest.raises(StreamError, match="nothing moves from one still image to the next"):
        stream.run("photos", model=model, output="out", skip=4)
    assert stream.run("photos", model=model, output="film.mp4", fps=25, skip=4).inferred == 2


def test_a_target_rate_is_shared_with_the_frames_that_are_carried() -> None:
    fixed, auto = (from_options("0", {"target_fps": 24, "skip": skip}) for skip in (4, "auto"))
    assert (model_fps(fixed), resizes(fixed)) == (6, True)
    assert (model_fps(auto), resizes(auto)) == (24, False)
    assert model_fps(from_options("0", {"target_fps": 24})) == 24


def test_the_command_takes_it(clip: str) -> None:
    assert invoke(["run", clip, "--skip", "7", "-o", "out.mp4", "--report", "r.json", "-q", "-m", "starter"]) == 0
    assert json.loads(Path("r.json").read_text())["carried"] == COUNT - 3
    assert invoke(["run", clip, "--skip", "0", "-o", "out.mp4", "-q"]) == 2
