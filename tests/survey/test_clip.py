"""The survey of a clip: drift and cuts on maps whose answer is known, the chosen frames, and the files of a run."""

import csv
import json
import re
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stream.cli.main import invoke
from stream.compare.sheet import GAP_PX
from stream.config import Config
from stream.files import partial_path
from stream.frames import ComparedDepth, Depth, DepthKind, DepthMap, Frame, SourceInfo, SourceKind
from stream.infer.base import DepthChange
from stream.media import av, cv2
from stream.metrics import Outcome
from stream.motion.flow import Motion
from stream.sinks.video import VideoSink
from stream.survey.clip.cuts import LATE, WATCHED, Cut, CutMeter
from stream.survey.clip.drift import STRETCH_S, DriftMeter, Stretch
from stream.survey.clip.findings import clip_numbers
from stream.survey.clip.sink import VIDEO, ClipSink, clock
from stream.survey.clip.strip import AT_CUTS, AT_DIFFERENCES, EVENLY, Evenly, Highest, difference
from stream.survey.findings.every import FINDINGS
from stream.survey.job import survey_config
from stream.survey.record import Survey
from stream.survey.sink import SurveySink
from tests.support.manifests import checkpoint, reference
from tests.support.media_files import write_video
from tests.support.paths import DATA
from tests.support.pumping import steadied
from tests.support.scenes import textured

SIZE = 90, 160
FPS = 25
FRAMES = 12
"""Of the clip that real models survey."""
SMALL = "midas_v21_small_256"


def smooth(seed: int) -> DepthMap:
    """A disparity map whose robust range is 1."""
    coarse = np.random.default_rng(seed).random((4, 7)).astype(np.float32)
    values = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    low, high = np.percentile(values, (2, 98))
    return ((values - low) / (high - low)).astype(np.float32)


def moved(x: float = 0.0, y: float = 0.0, *, found: float = 1.0) -> Motion:
    """Every pixel moves by so much from one frame to the next; a share of the rows is found."""
    at_y, at_x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    is_found = np.zeros(SIZE, np.bool_)
    is_found[: round(found * SIZE[0])] = True
    return Motion(x=at_x + np.float32(x), y=at_y + np.float32(y), is_found=is_found)


def drifts(maps: Any, *, motion: Motion | None = None, fps: float = FPS) -> list[list[float | None]]:
    """The drift of each stretch, by model. `maps` holds the maps of each frame."""
    meter = DriftMeter()
    for number, one in enumerate(maps):
        meter.add(number / fps, one, None if number == 0 else motion or moved())
    meter.end()
    return [list(stretch.per_s) for stretch in meter.stretches]


def test_drift_of_depth_that_does_not_change_is_zero() -> None:
    assert drifts([smooth(0), 3 * smooth(1) + 7] for _ in range(50)) == [[0, 0]]


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_a_steady_drift_gives_its_rate_whatever_the_scale_of_the_map(rate: float) -> None:
    def maps() -> Iterator[list[DepthMap]]:
        for number in range(75):
            now = smooth(0) + np.float32(rate * number / FPS)
            yield [now, 100 * now - 5, smooth(0)]

    ((one, scaled, none),) = drifts(maps())
    assert one == pytest.approx(rate, rel=0.01)
    assert scaled == pytest.approx(rate, rel=0.01)
    assert none == 0


def test_a_scale_that_grows_is_a_drift_of_what_is_far_from_zero() -> None:
    scene = smooth(0)
    ((found,),) = drifts([scene * np.float32(1 + 0.1 * number / FPS)] for number in range(50))
    expected = 0.1 * np.sqrt((scene**2).mean()) / 1.1  # the range has grown by a tenth on average
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("size", [1, None], ids=["the whole map", "every pixel"])
def test_flicker_is_no_drift_and_does_not_hide_one(size: int | None) -> None:
    rng = np.random.default_rng(5)

    def maps(rate: float) -> Iterator[list[DepthMap]]:
        for number in range(100):
            noise = rng.normal(0, 0.03, size or SIZE).astype(np.float32)
            yield [smooth(0) + noise + np.float32(rate * number / 10)]

    ((alone,),) = drifts(maps(0), fps=10)
    assert alone is not None
    assert alone < 0.001
    ((both,),) = drifts(maps(0.02), fps=10)
    assert both == pytest.approx(0.02, rel=0.1)


def test_what_wanders_to_and_fro_shows_in_a_long_scene() -> None:
    span = round(STRETCH_S * 5)
    found = drifts(([smooth(0) + np.float32(0.03 * min(n, 2 * span - n) / 5)] for n in range(2 * span + 2)), fps=5)
    assert [one[0] for one in found] == [pytest.approx(0.03, rel=0.02)] * 2


def test_only_what_stands_still_in_the_picture_counts() -> None:
    rising = [[smooth(0) + np.float32(number / FPS)] for number in range(50)]
    assert drifts(rising, motion=moved(1.0)) == []
    assert drifts(rising, motion=moved(found=0.1)) == []
    assert drifts(rising, motion=moved(found=0.5)) == [[pytest.approx(1, rel=0.02)]]
    assert drifts(rising[:20]) == []  # less than a second


def test_points_are_followed_where_a_hand_shakes_the_camera() -> None:
    """The map moves along with the picture by up to two pixels; on its slopes, that would be a change of depth."""
    steep = np.tile(np.linspace(0, 1, SIZE[1], dtype=np.float32), (SIZE[0], 1))
    meter = DriftMeter()
    before = 0.0
    for number in range(50):
        at = 2 * number / 49
        shifted = cv2.warpAffine(steep, np.array([[1, 0, at], [0, 1, 0]]), SIZE[::-1], borderMode=cv2.BORDER_REPLICATE)
        meter.add(number / FPS, [shifted], None if number == 0 else moved(at - before))
        before = at
    meter.end()
    (stretch,) = meter.stretches
    assert stretch.per_s[0] is not None
    assert stretch.per_s[0] < 0.002  # 2 of 160 pixels in 2 s are 0.006 a second


def test_points_without_an_answer_are_left_out() -> None:
    half = np.where(np.arange(SIZE[1]) < 80, np.float32(np.nan), smooth(0))
    nothing = np.full(SIZE, np.nan, np.float32)
    found = drifts([half + np.float32(0.1 * n / FPS), nothing] for n in range(50))
    extent = float(np.diff(np.nanpercentile(half, (2, 98)))[0])
    assert found == [[pytest.approx(0.1 / extent, rel=0.02), None]]


def cuts_of(
    old: DepthMap, after: list[DepthMap], motion: Motion | None = None
) -> list[tuple[float | None, int | None]]:
    meter, motion = CutMeter(), motion or moved()
    for number in range(4):
        meter.add(number, number / FPS, [old], moved(), is_cut=False)
    for number, one in enumerate(after, 4):
        meter.add(number, number / FPS, [one], None if number == 4 else motion, is_cut=number == 4)
    meter.end()
    return [(cut.leftover[0], cut.late[0]) for cut in meter.cuts]


@pytest.mark.parametrize("memory", [0.0, 0.3, 0.6])
def test_the_share_of_the_old_scene_after_a_cut_is_found(memory: float) -> None:
    old, new = smooth(1), 5 * smooth(2) - 3
    shares = [memory ** (number + 1) for number in range(WATCHED)]
    ((leftover, late),) = cuts_of(old, [np.float32(a) * old + np.float32(1 - a) * new for a in shares])
    assert leftover == pytest.approx(memory, abs=0.03)  # a little is left in the last one watched, too
    assert late == sum(share >= LATE for share in shares)


def test_depth_that_jumps_two_frames_late_is_late() -> None:
    assert cuts_of(smooth(1), [smooth(1)] * 2 + [smooth(2)] * 4) == [(pytest.approx(1, abs=1e-6), 2)]


def test_a_model_that_pumps_or_a_scene_that_changes_leaves_nothing_over() -> None:
    rng = np.random.default_rng(0)
    after = [np.float32(rng.uniform(0.7, 1.4)) * smooth(2) + np.float32(rng.uniform(-1, 1)) for _ in range(WATCHED)]
    after = [one + np.float32(0.05) * smooth(3) * number for number, one in enumerate(after)]
    ((leftover, late),) = cuts_of(smooth(1), after)
    assert leftover is not None
    assert leftover < 0.1
    assert late == 0


def test_cuts_that_cannot_be_measured_have_no_number() -> None:
    assert cuts_of(np.full(SIZE, 2, np.float32), [smooth(2)] * WATCHED) == [(None, None)]
    assert cuts_of(smooth(1), [smooth(1) + np.float32(0.01) * smooth(2)] * WATCHED) == [(None, None)]
    assert cuts_of(smooth(1), [smooth(2)] * 2) == []  # the clip ends


def test_models_that_chance_alone_could_tell_apart_are_alike() -> None:
    cut = Cut(frame=9, time_s=1.0, leftover=(0.0, 0.04, 0.3), late=(0, 0, 1))
    still = Stretch(per_s=(0.0015, 0.0, 0.02), still=1.0)
    found = clip_numbers(["a", "b", "c"], [], [still], [cut])
    for key in ("drift", "cuts"):
        assert [found[key][name].is_best for name in "abc"] == [True, True, False]


def test_flicker_and_drift_of_a_clip_are_those_of_its_maps() -> None:
    """Of a picture that stands still: a change of ±0.02 from frame to frame is flicker alone, 0.1 a second is both."""
    still = textured(3, SIZE)
    own = [smooth(1) + np.float32(0.02 * (-1) ** n) for n in range(50)]
    others = [[smooth(1) for _ in range(50)], [smooth(1) + np.float32(0.1 * n / FPS) for n in range(50)]]
    results: list[Any] = []
    for index in range(50):
        maps = [Depth(values=x[index], kind=DepthKind.RELATIVE_DISPARITY, index=index) for x in (own, *others)]
        frame = Frame(index=index, pts=index, time_base=Fraction(1, FPS), captured_at=0.0, rgb=still)
        results.append((frame, ComparedDepth.of(maps[0], maps[1:])))
    _, stage = steadied(results, adjust=False)
    assert [change and change.raw for change in stage.depth_changes] == pytest.approx([0.04, 0, 0.1 / FPS], rel=1e-3)
    drift = drifts(zip(own, *others, strict=True))
    assert drift == [pytest.approx([0, 0, 0.1], rel=0.01)]


@pytest.mark.parametrize("expected", [None, 50, 1000, 3000])
def test_some_of_many_are_kept_evenly_whatever_was_expected(expected: int | None) -> None:
    some: Evenly[int] = Evenly(8, expected)
    live: set[int] = set()
    for number in range(1000):
        live.add(number)
        live -= set(some.add(number))
        assert len(live) <= 8
    assert sorted(live) == some.kept
    assert some.kept[0] == 0
    assert len(set(np.diff(some.kept))) == 1
    if expected != 3000:
        assert len(some.kept) >= 4
        assert some.kept[-1] >= 750


def test_the_highest_scores_are_kept() -> None:
    highest: Highest[str] = Highest(2)
    dropped = [highest.add(score, str(score)) for score in (3, 1, 0.5, 7, 5)]
    assert dropped == [[], [], ["0.5"], ["1"], ["3"]]
    assert sorted(one.item for one in highest.kept) == ["5", "7"]


def test_models_that_agree_up_to_scale_and_shift_do_not_differ() -> None:
    scene = smooth(0)
    assert difference([scene, 3 * scene - 1, 7 * scene]) == pytest.approx(0, abs=1e-5)
    step = np.where(np.arange(SIZE[1]) < 80, np.float32(0), np.float32(1)) * np.ones(SIZE, np.float32)
    flipped = np.where(np.arange(SIZE[0])[:, None] < 45, np.float32(0), np.float32(1)) * np.ones(SIZE, np.float32)
    assert difference([step, flipped]) == pytest.approx(0.5, abs=1e-5)  # uncorrelated: fitted to the mean
    assert difference([np.zeros(SIZE, np.float32), scene]) == 0


def test_times_are_written_as_a_player_shows_them() -> None:
    assert [clock(time_s) for time_s in (0.0, 3.25, 59.96, 61.0, 3723.4)] == [
        "0:00.0", "0:03.2", "1:00.0", "1:01.0", "1:02:03.4",
    ]  # fmt: skip


def made_up(tmp_path: Path) -> tuple[ClipSink, SurveySink, Path]:
    """A sink for two models of which nothing runs: a steady one, and one that drifts and remembers the old scene."""
    folder, names = tmp_path / "out", ["steady", "dull"]
    report = SurveySink(folder, names, FINDINGS, truth_of=lambda _frame: None, colormap="gray")
    sink = ClipSink(report, VideoSink(folder / VIDEO), names, notes=["a note"])
    sink.changes = lambda: (DepthChange(raw=0.25, steadied=None, pairs=9), None)
    info = SourceInfo(
        name="clip.mp4", size=SIZE, is_live=False, time_base=Fraction(1, FPS), rate=Fraction(FPS), frame_count=None,
        kind=SourceKind.VIDEO,
    )  # fmt: skip
    sink.open(info, SIZE)
    return sink, report, folder


def fed(sink: ClipSink, count: int, *, scene_of: int = 30) -> None:
    """Frames of scenes of so many frames, with pictures that stand still."""
    pictures = [textured(seed, SIZE) if seed % 2 else 255 - textured(seed - 1, SIZE) for seed in range(1, 12)]
    for index in range(count):
        scene, since = divmod(index, scene_of)
        rgb, clean = pictures[scene], smooth(scene)
        old, share = (smooth(scene - 1), np.float32(0.6 ** (since + 1))) if scene else (clean, np.float32(0))
        dull = share * old + (1 - share) * clean + np.float32(0.1 * index / FPS)
        maps = [Depth(values=one, kind=DepthKind.RELATIVE_DISPARITY, index=index) for one in (clean, dull)]
        frame = Frame(index=index, pts=index, time_base=Fraction(1, FPS), captured_at=0.0, rgb=rgb)
        sink.write(frame, ComparedDepth.of(maps[0], maps[1:]), rgb)


def read(folder: Path, name: str = "survey.json") -> Survey:
    return Survey.model_validate_json((folder / name).read_text())


def test_the_numbers_of_a_clip_are_those_of_its_models(tmp_path: Path) -> None:
    sink, _report, folder = made_up(tmp_path)
    fed(sink, 90)
    sink.finish()
    found = read(folder)
    clip = found.video
    assert clip is not None
    assert (clip.video, clip.frames, clip.cut_count, clip.notes) == (VIDEO, 90, 2, ["a note"])
    assert (clip.start_s, clip.end_s) == (0, pytest.approx(89 / FPS))
    assert [(cut.frame, cut.time_s) for cut in clip.cuts] == [(30, 1.2), (60, 2.4)]
    for cut in clip.cuts:
        assert cut.leftover == {"steady": pytest.approx(0, abs=0.01), "dull": pytest.approx(0.6, abs=0.03)}
        assert cut.late == {"steady": 0, "dull": 1}
    drift, cuts, flicker = (clip.numbers[key] for key in ("drift", "cuts", "flicker"))
    assert drift["steady"].value == 0
    assert drift["dull"].value is not None
    assert drift["dull"].value > 0.09
    assert (drift["dull"].measured, drift["dull"].details) == (3, {"still": pytest.approx(1, abs=0.1)})
    assert cuts["dull"].value == pytest.approx(0.6, abs=0.03)
    assert (cuts["dull"].measured, cuts["dull"].details) == (2, {"late": 1})
    assert (flicker["steady"].value, flicker["steady"].measured) == (0.25, 9)
    assert flicker["dull"].value is None
    assert [row.key for row in clip.findings] == ["flicker", "drift", "cuts"]
    assert [drift[name].is_best for name in ("steady", "dull")] == [True, False]
    assert not flicker["steady"].is_best, "there is nothing to compare it with"
    with (folder / "survey.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if not row["photo"] and not row["detail"]]
    assert {(row["finding"], row["model"], row["basis"]) for row in rows} == {
        (key, name, "picture") for key in ("drift", "cuts", "flicker") for name in ("steady", "dull")
    }
    (left,) = (row["value"] for row in rows if (row["finding"], row["model"]) == ("cuts", "dull"))
    assert float(left) == pytest.approx(cuts["dull"].value, rel=1e-5)


@pytest.mark.slow
def test_a_bounded_number_of_frames_is_looked_at_and_only_their_pictures_stay(tmp_path: Path) -> None:
    sink, _report, folder = made_up(tmp_path)
    fed(sink, 132, scene_of=12)
    sink.finish()
    found = read(folder)
    assert found.video is not None
    strip = found.video.strip
    assert [row.name for row in strip] == [photo.name for photo in found.photos]
    assert [row.frame for row in strip] == sorted({row.frame for row in strip})
    of = {why: [row.frame for row in strip if why in row.why] for why in ("even", "cut", "difference")}
    assert 4 <= len(of["even"]) <= EVENLY
    assert len(set(np.diff(of["even"]))) == 1
    assert 1 <= len(of["cut"]) <= AT_CUTS
    assert all(index % 12 == 0 for index in of["cut"])
    assert len(of["difference"]) == AT_DIFFERENCES
    # The dull model is farthest from the other in the first frame after a cut, for half of it is the old scene.
    assert all(index % 12 == 0 for index in of["difference"])
    assert strip[0].name == "frame 0, 0:00.0"
    named = {folder / name for photo in found.photos for name in photo.pictures.values()}
    assert {path for path in (folder / "pictures").rglob("*") if path.is_file()} == named
    assert set(found.photos[0].pictures) == {"photo", "depth:steady", "depth:dull", "difference:steady|dull"}


def test_a_failure_while_frames_are_measured_still_leaves_a_film_and_a_report(tmp_path: Path) -> None:
    sink, report, folder = made_up(tmp_path)
    fed(sink, 40)

    def broken(*_: object) -> bool:
        raise OSError("no more")

    report.write = broken  # type: ignore[method-assign]
    sink._candidate = None
    sink.keep_partial("disk full")
    found = read(folder, "survey.partial.json")
    assert (found.is_complete, found.stopped_by) == (False, "disk full")
    assert found.video is not None
    assert found.video.video == "side_by_side.partial.mp4"
    assert len(list(decoded(folder / found.video.video))) == 40


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(checkpoint(reference(DATA / "models" / f"{SMALL}.json")["state_dict"]), path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of six frames over which a camera pans, with sound."""
    wide = [textured(seed, (SIZE[0], SIZE[1] + 60)) for seed in (3, 4)]

    def draw(index: int, size_hw: tuple[int, int]) -> Any:
        scene, since = divmod(index, FRAMES // 2)
        return np.ascontiguousarray(wide[scene][:, 2 * since : 2 * since + size_hw[1]])

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_video(path, size_hw=SIZE, frames=FRAMES, audio_s=1.0, draw=draw, options={"crf": "12"})


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory, clip: Path, small_weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("surveyed") / "out"
    models = ["-m", "starter", "-m", f"{SMALL}={small_weights}"]
    assert invoke(["survey", str(clip), *models, "-o", str(folder), "--report", f"{folder}.json", "-q"]) == 0
    return folder


def test_a_clip_gives_a_report_and_a_film_for_browsers(surveyed: Path, clip: Path) -> None:
    assert {path.name for path in surveyed.iterdir()} == {
        "report.html", "survey.json", "survey.csv", "pictures", VIDEO,
    }  # fmt: skip
    found = read(surveyed)
    assert found.is_complete
    assert found.video is not None
    assert (found.video.frames, [cut.frame for cut in found.video.cuts]) == (FRAMES, [FRAMES // 2])
    assert set(found.video.cuts[0].leftover) == {"starter", SMALL}
    with av.open(str(surveyed / VIDEO)) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert film.streams.audio
        pictures = list(film.decode(video=0))
    with av.open(str(clip)) as source:
        assert [picture.time for picture in pictures] == [frame.time for frame in source.decode(video=0)]
    original = decoded(clip)[9]
    sheet = pictures[9].to_ndarray(format="rgb24")
    assert sheet.shape[1] == 3 * SIZE[1] + 2 * GAP_PX
    pane = sheet[sheet.shape[0] - SIZE[0] :, : SIZE[1]]
    assert np.abs(pane.astype(int) - original).mean() < 6


def test_flicker_is_what_the_run_reports(surveyed: Path) -> None:
    changes = json.loads(surveyed.with_name("out.json").read_text())["depth_change"]
    found = read(surveyed)
    assert found.video is not None
    flicker = found.video.numbers["flicker"]
    assert list(flicker) == ["starter", SMALL]
    for number, change in zip(flicker.values(), changes, strict=True):
        assert number.value == change["raw"] > 0
        assert number.measured == change["pairs"] == FRAMES - 2


def test_frames_of_a_clip_are_measured_and_shown_like_photos(surveyed: Path, clip: Path) -> None:
    found = read(surveyed)
    assert found.video is not None
    frames = [row.frame for row in found.video.strip]
    assert FRAMES // 2 in frames
    assert len(frames) <= EVENLY + AT_CUTS + AT_DIFFERENCES
    originals = decoded(clip)
    for photo, index in zip(found.photos, frames, strict=True):
        assert photo.size == SIZE
        with Image.open(surveyed / photo.pictures["photo"]) as picture:
            assert np.abs(np.asarray(picture).astype(int) - originals[index]).mean() < 6
        for name in ("starter", SMALL):
            with Image.open(surveyed / photo.pictures[f"depth:{name}"]) as picture:
                assert picture.size == SIZE[::-1]
    page = (surveyed / "report.html").read_text()
    assert all(name in page for name in (found.photos[0].name, found.photos[-1].name))
    (film,) = re.findall(r"<video [^>]*>", page)
    assert f'src="{VIDEO}"' in film
    assert {" controls", " muted"} <= set(re.findall(r" [a-z]+(?=[ >])", film))
    assert page.count("The first after a cut") == 1


@pytest.mark.slow
def test_a_part_of_a_clip_is_surveyed_with_its_times(clip: Path, small_weights: Path, tmp_path: Path) -> None:
    models = ["-m", "starter", "-m", f"{SMALL}={small_weights}"]
    part = ["--start", "0.2", "--end", "0.9", "--max-frames", "6"]
    assert invoke(["survey", str(clip), *models, *part, "-o", str(tmp_path / "out"), "-q"]) == 0
    found = read(tmp_path / "out")
    assert found.video is not None
    assert (found.video.frames, found.video.start_s, found.video.end_s) == (6, 0.2, 0.4)
    assert found.photos[0].name.endswith("0:00.2")
    assert len(decoded(tmp_path / "out" / VIDEO)) == 6


@pytest.mark.slow
def test_an_interruption_leaves_a_film_that_plays_and_a_report_that_says_so(
    clip: Path, small_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    config = Config.model_validate({"output": {"path": folder}, "capture": {"start": 0.08}})
    sent: list[int] = []

    def interrupt(progress: Any) -> None:
        if progress.done >= 5 and not sent:
            sent.append(progress.done)
            signal.raise_signal(signal.SIGINT)

    models = ["starter", f"{SMALL}={small_weights}"]
    report = survey_config(config, [str(clip)], models, on_progress=interrupt)
    assert report.outcome is Outcome.INTERRUPTED
    found = read(folder, "survey.partial.json")
    assert (found.is_complete, found.stopped_by) == (False, "interrupted")
    film = partial_path(folder / VIDEO)
    assert found.video is not None
    assert found.video.video == film.name
    assert found.video.start_s == pytest.approx(0.08)
    assert str(film) in report.outputs
    assert 5 <= len(decoded(film)) == found.video.frames < FRAMES
    assert found.photos
    assert not (folder / VIDEO).exists()
