"""Surveys from the command to the report: real models on real files, bad input, interruptions and full disks."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stream.capture.limits import Limits
from stream.capture.stills.depthfolder import DepthFolder
from stream.cli.main import invoke
from stream.config import Config
from stream.errors import SinkError, SourceError, UsageError
from stream.files import partial_path
from stream.frames import ComparedDepth, Depth, DepthKind, Frame, RgbImage, SourceKind
from stream.infer import device
from stream.machine import resident_bytes
from stream.pipeline.runner import Progress
from stream.survey.findings.accuracy import ACCURACY
from stream.survey.job import survey_config
from stream.survey.photos import open_photos, short_name
from stream.survey.record import AnswersRow, NumberRow, PhotoRow, Survey
from stream.survey.scene import Truth
from stream.survey.sink import SurveySink, TruthOf, report_bytes
from stream.survey.summary import summarised
from tests.support.full_disk import fill_disk
from tests.support.manifests import checkpoint, reference
from tests.support.media_files import write_video
from tests.support.paths import DATA
from tests.support.picture_files import exif, save, save_heic, scene
from tests.support.sink_input import info_of

SMALL = "midas_v21_small_256"
Models = list[str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(checkpoint(reference(DATA / "models" / f"{SMALL}.json")["state_dict"]), path)
    return ["starter", f"{SMALL}={path}"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photos(count: int, folder: str = "photos") -> None:
    for number in range(count):
        path = Path(folder, f"{number}.png")
        path.parent.mkdir(exist_ok=True)
        save(path, np.roll(scene(48, 64), 5 * number, axis=1))


def named(models: Models) -> list[str]:
    return [word for model in models for word in ("-m", model)]


def numbers(path: str | Path) -> Survey:
    """What a report holds; NaN and infinity are refused."""

    def refuse(text: str) -> None:
        pytest.fail(f"{text} is no JSON")

    return Survey.model_validate(json.loads(Path(path).read_text(), parse_constant=refuse))


def files(folder: str | Path = ".") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def test_several_folders_give_one_report_that_names_photos_apart_and_what_was_skipped(
    models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in "a", "b":
        Path(folder).mkdir()
    save(Path("a/x.jpg"), scene(48, 64))
    save_heic(Path("b/x.heic"), scene(72, 48), exif=exif(6))
    save(Path("b/wide.png"), np.zeros((2, 4000, 3), np.uint8))
    Path("b/broken.heic").write_bytes(Path("b/x.heic").read_bytes()[:900])
    Path("a/notes.txt").touch()
    monkeypatch.setattr("stream.infer.geometry.MAX_INPUT_PIXELS", 200_000)
    assert invoke(["survey", "a", "b", *named(models), "-o", "out", "--report", "r.json", "--json"]) == 3
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report == json.loads(Path("r.json").read_text())
    assert [Path(path).name for path in report["outputs"]] == ["report.html", "survey.json", "survey.csv"]
    assert "ignored (not an image): notes.txt" in said.err
    assert said.err.rstrip().endswith(f"look at it: {Path('out/report.html').absolute().as_uri()}")
    found = numbers("out/survey.json")
    assert found.is_complete
    assert [photo.name for photo in found.photos] == ["a/x.jpg", "b/x.heic"]
    assert [photo.size for photo in found.photos] == [(48, 64), (48, 72)]
    reasons = {one.name: one.reason for one in found.skipped}
    assert reasons.keys() == {"b/wide.png", "b/broken.heic"}
    assert reasons["b/wide.png"].startswith("starter: ")
    assert {one["name"]: one["reason"] for one in report["skipped"]} == reasons
    starter, own = found.models
    assert (starter.weights_file, starter.is_published) == ("", True)
    assert (own.weights_file, own.is_published, own.output) == ("small.pt", False, "relative_disparity")
    assert starter.first_s > 0
    assert starter.frames_per_s
    listed = {path for photo in found.photos for path in photo.pictures.values()}
    assert len(listed) == sum(len(photo.pictures) for photo in found.photos)
    assert files("out") == listed | {"report.html", "survey.json", "survey.csv"}


@pytest.mark.slow
def test_models_that_do_not_fit_into_memory_together_give_the_same(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.survey.scene.WORK_PX", 96)  # so that maps are reduced
    photos(2)
    save(Path("photos/large.png"), np.repeat(np.repeat(scene(48, 64), 3, axis=0), 3, axis=1))
    assert invoke(["survey", "photos", *named(models), "-o", "together", "-q"]) == 0
    monkeypatch.setattr(device, "host_memory_bytes", lambda: 1000)
    assert invoke(["survey", "photos", *named(models), "-o", "apart", "-q"]) == 0
    together, apart = numbers("together/survey.json"), numbers("apart/survey.json")
    assert [one.name for one in apart.photos] == [one.name for one in together.photos]
    for one, other in zip(apart.photos, together.photos, strict=True):
        assert one.findings.keys() == other.findings.keys()
        for key, answers in one.findings.items():
            for model, number in answers.numbers.items():
                expected = other.findings[key].numbers[model].value
                assert number.value == (None if expected is None else pytest.approx(expected, rel=0.01, abs=1e-3))
        for key, path in one.pictures.items():
            with Image.open(Path("apart", path)) as here, Image.open(Path("together", other.pictures[key])) as there:
                np.testing.assert_allclose(np.asarray(here, int), np.asarray(there, int), atol=2)
    assert all(use.first_s > 0 and use.frames_per_s for use in apart.models)


def interrupted(after: int) -> Callable[[Progress], None]:
    """Ctrl-C once so many photos are done."""

    pressed: list[int] = []

    def look(progress: Progress) -> None:
        if progress.done >= after and not pressed:  # the second time would end it at once
            pressed.append(progress.done)
            signal.raise_signal(signal.SIGINT)

    return look


def surveyed(
    models: Models, photos: list[str], on_progress: Callable[[Progress], None] | None = None, **output: Any
) -> int:
    config = Config.model_validate({"output": {"path": "out", **output}})
    return survey_config(config, photos, models, on_progress=on_progress).exit_code


@pytest.mark.slow
def test_an_interruption_keeps_what_is_finished_and_the_next_survey_replaces_just_that(models: Models) -> None:
    photos(16)
    assert surveyed(models, ["photos"], interrupted(after=3)) == 130
    assert files("out") >= {"report.partial.html", "survey.partial.json", "survey.partial.csv"}
    partial = numbers("out/survey.partial.json")
    assert (partial.is_complete, partial.stopped_by) == (False, "interrupted")
    assert 3 <= len(partial.photos) < 16
    made = {path for photo in partial.photos for path in photo.pictures.values()}
    assert files("out/pictures") == {path.removeprefix("pictures/") for path in made}
    first = sorted(made)[0]
    Path("out", first).write_bytes(b"drawn by hand")
    Path("out/pictures/mine.png").write_bytes(b"mine")
    Path("out/notes.txt").write_text("mine")
    assert surveyed(models, ["photos/15.png"], overwrite=True) == 0
    found = numbers("out/survey.json")
    assert found.is_complete
    made = {path for photo in found.photos for path in photo.pictures.values()}
    theirs = {"pictures/mine.png", "notes.txt", first}
    assert files("out") == made | theirs | {"report.html", "survey.json", "survey.csv"}
    assert Path("out", first).read_bytes() == b"drawn by hand"


def sink(*names: str, overwrite: bool = False, truth_of: TruthOf = lambda _frame: None) -> SurveySink:
    """An open one in the folder `out`."""
    made = SurveySink(
        Path("out"), ["one", "two"], [ACCURACY], truth_of=truth_of, colormap="inferno", overwrite=overwrite
    )
    made.open(info_of(tick=Fraction(1), rate=None, names=names, kind=SourceKind.STILLS, size=(24, 32)), (24, 32))
    return made


def result(index: int, name: str) -> tuple[Frame, Depth, RgbImage]:
    rgb = np.roll(scene(24, 32), index, axis=1)
    frame = Frame(index=index, pts=index, time_base=Fraction(1), captured_at=0.0, rgb=rgb, name=name)
    first, second = (
        Depth(values=values.astype(np.float32), kind=DepthKind.RELATIVE_DISPARITY, index=index)
        for values in (rgb[..., 0] / 9, rgb[..., 0] / 5 + rgb[..., 2])
    )
    return frame, ComparedDepth.of(first, [second]), rgb


def test_an_interrupted_second_survey_leaves_no_report_whose_pictures_are_gone() -> None:
    first = sink("a.jpg", "b.jpg")
    for number, name in enumerate(("a.jpg", "b.jpg")):
        first.write(*result(number, name))
    first.finish()
    assert files("out") >= {"report.html", "survey.json", "survey.csv"}
    second = sink("b.jpg", overwrite=True)
    second.write(*result(3, "b.jpg"))
    second.keep_partial("interrupted")
    partial = numbers("out/survey.partial.json")
    assert (partial.is_complete, partial.stopped_by) == (False, "interrupted")
    marked = {partial_path(Path(name)).name for name in ("report.html", "survey.json", "survey.csv")}
    assert files("out") == set(partial.photos[0].pictures.values()) | marked
    third = sink("b.jpg", overwrite=True)
    third.write(*result(3, "b.jpg"))
    third.finish()
    assert not marked & files("out")


def test_an_earlier_survey_stays_until_a_photo_of_the_next_is_there() -> None:
    first = sink("a.jpg")
    first.write(*result(0, "a.jpg"))
    first.finish()
    before = files("out")
    sink("b.jpg", overwrite=True).abort(KeyboardInterrupt())
    assert files("out") == before


def test_a_report_of_another_program_is_replaced_by_a_whole_one_alone() -> None:
    Path("out").mkdir()
    for name in "report.html", "survey.json":
        Path("out", name).write_text("mine")
    made = sink("a.jpg", overwrite=True)
    made.write(*result(0, "a.jpg"))
    made.keep_partial("interrupted")
    assert {Path("out", name).read_text() for name in ("report.html", "survey.json")} == {"mine"}


def test_a_killed_survey_among_its_photos_is_known_and_replaced(
    models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(1, "killed")
    made = sink("a.jpg", "0.png")
    made.folder = Path("killed/survey")
    made.write(*result(0, "a.jpg"))
    made.abort(KeyboardInterrupt())  # frees its files like the end of a process, and finishes nothing
    marker = numbers("killed/survey/survey.partial.json")
    assert (marker.is_complete, marker.stopped_by) == (False, "it was ended from outside")
    command = ["survey", "killed", "--recursive", *named(models), "-o", "killed/survey"]
    assert invoke(command) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("depthstream: killed/survey: holds a survey that is not complete; replace it with --over")
    assert invoke([*command, "--overwrite"]) == 0
    assert "ignored (made by a survey): killed/survey/pictures/a.jpg" in capsys.readouterr().err
    assert [one.name for one in numbers("killed/survey/survey.json").photos] == ["0.png"]
    assert not any(".partial" in name for name in files("killed/survey"))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of a file")
def test_a_limit_on_the_size_of_files_is_named_and_leaves_nothing() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    made = sink("a.jpg")
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        with pytest.raises(SinkError) as caught:
            made.write(*result(0, "a.jpg"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    made.abort(caught.value)
    assert caught.value.where == "out/report.html"
    assert caught.value.hint == "raise the limit on the size of a file (ulimit -f), or choose another disk with -o"
    assert not Path("out").exists()


def test_nothing_is_left_if_no_photo_was_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, Path("out/pictures/.a.two.png.partial"))
    made = sink("a.jpg")
    with pytest.raises(SinkError, match="No space left") as caught:
        made.write(*result(0, "a.jpg"))
    made.abort(caught.value)
    assert caught.value.where == "out/pictures/a.two.png"
    assert "choose another disk with -o" in caught.value.hint
    assert not Path("out").exists()


def test_a_full_disk_keeps_what_is_finished_and_none_of_the_photo_that_is_not(
    models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(3)
    fill_disk(monkeypatch, Path("photos_survey/pictures/.2.starter.png.partial"))
    assert invoke(["survey", "photos", *named(models), "-q", "--report", "r.json"]) == 1
    error = capsys.readouterr().err.strip()
    assert "No space left" in error
    assert "\n" not in error
    partial = numbers("photos_survey/survey.partial.json")
    assert [photo.name for photo in partial.photos] == ["0.png", "1.png"]
    assert partial.stopped_by.startswith("pictures/2.starter.png: cannot be written: No space left")
    made = {path for photo in partial.photos for path in photo.pictures.values()}
    marked = {partial_path(Path(name)).name for name in ("report.html", "survey.json", "survey.csv")}
    assert files("photos_survey") == made | marked
    assert json.loads(Path("r.json").read_text())["outcome"] == "failed"


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk in a name space of its own")
@pytest.mark.slow
def test_the_report_has_its_place_on_a_disk_that_is_full(models: Models) -> None:
    """What noise takes cannot be known before: the photos are refused by a disk that the estimate fits on."""
    count, rng = 40, np.random.default_rng(0)
    Path("photos").mkdir()
    for number in range(count):
        save(Path("photos", f"{number}.png"), rng.integers(0, 256, (192, 256, 3), np.uint8))
    size = report_bytes(count) + 2_600_000
    inside = f"mount -t tmpfs -o size={size} none disk && exec {sys.executable} -m stream survey photos -o disk/out "
    inside += " ".join(named(models)) + "; code=$?; cp -r disk/out kept; exit $code"
    Path("disk").mkdir()
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", inside.replace("exec ", "")]
    if subprocess.run([*command[:3], "true"], check=False, capture_output=True).returncode:
        pytest.skip("no name spaces for users here")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr.splitlines()[-1]
    partial = numbers("kept/survey.partial.json")
    assert 0 < len(partial.photos) < count
    assert Path("kept/report.partial.html").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "starter", "-m", SMALL], "no PHOTOS given; name images, folders, globs, .txt lists or a video, or"),
        (["photos", "-m", "starter"], "needs two models or more"),
        (["photos", "-m", "starter", "-m", "STARTER"], "named twice"),
        (["photos", "-m", "starter", "-m", "nonsense"], "unknown model"),
        (["photos"], "--model"),
        (["empty", "-m", "starter", "-m", SMALL], "no images"),
        (["videos", "-m", "starter", "-m", SMALL], "the folder contains videos; pass one of them"),
        (["photos", "videos/clip.mp4", "-m", "starter", "-m", SMALL], "a video is surveyed alone"),
        (["photos", "0", "-m", "starter", "-m", SMALL], "0: a live source cannot be surveyed"),
        (["photos", "http://127.0.0.1:1/x", "-m", "starter", "-m", SMALL], "is no file or folder"),
        (["cam:0", "-m", "starter", "-m", SMALL], "cam:0: a live source cannot be surveyed"),
        (["photos", "nowhere.jpg", "-m", "starter", "-m", SMALL], "no such file"),
        (["pattern:testsrc2", "-m", "starter", "-m", SMALL], "a live source cannot be surveyed"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "rtmp://127.0.0.1/x"], "cannot be streamed"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "report.html"], "a survey is a folder"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "x.mp4"], "a survey is a folder"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "file", "--overwrite"], "is a file, not a folder"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "full"], "exists and is not empty"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "photos", "--overwrite"], "input"),
        (["photos", "-m", "starter", "-m", SMALL, "-o", "out", "--report", "out/survey.json"], "an output of this run"),
        (["photos", "-m", "starter", "-m", SMALL, "--truth", "nowhere"], "no such folder"),
        (["photos", "-m", "starter", "-m", SMALL, "--truth", "file"], "is no folder"),
        (["photos", "-m", "starter", "-m", SMALL, "--truth", "full"], "has no depth of any of the photos"),
        (["photos", "-m", "starter", "-m", SMALL, "--start", "1"], "--start"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_nothing(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(1)
    for folder in "empty", "videos", "full":
        Path(folder).mkdir()
    Path("full/something").touch()
    Path("file").touch()
    write_video(Path("videos/clip.mp4"), frames=1)
    before = files()
    assert invoke(["survey", *arguments, "--offline"]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert files() == before


def test_pictures_that_cannot_fit_on_the_disk_are_refused(
    models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(2)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage._replace(free=5000))
    assert invoke(["survey", "photos", *named(models)]) == 2
    error = capsys.readouterr().err
    assert "the report on 2 photos would take about 53" in error
    assert "--max-frames" in error
    assert not Path("photos_survey").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photos(models: Models) -> None:
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for number in range(36):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        small.resize((1024, 768), Image.Resampling.BICUBIC).save(f"photos/{number}.jpg")
    taken: dict[int, int] = {}

    def look(progress: Progress) -> None:
        taken[progress.done] = max(taken.get(progress.done, 0), resident_bytes())

    assert surveyed(models, ["photos"], look) == 0
    before, after = (max(taken[done] for done in range(*part) if done in taken) for part in ((6, 14), (14, 37)))
    a_photo = 1024 * 768 * (3 + 2 * 4)  # its pixels and the maps of both models
    assert after - before < 6 * a_photo


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    photos(1)
    Path("kept").mkdir(mode=0o500)
    assert invoke(["survey", "photos", *named(models), "-o", "kept/out"]) == 2
    assert "not writable" in capsys.readouterr().err


def opened(texts: list[str], *, truth: DepthFolder | None = None, **capture: Any) -> tuple[list[str], str]:
    """The names of the photos, and what is said of others."""
    with open_photos(texts, Config.model_validate({"capture": capture}), truth) as source:
        return [frame.name for frame in source], "\n".join(source.log.notes)


def test_a_survey_does_not_survey_its_own_pictures_or_a_file_twice() -> None:
    photos(1)
    Path("photos/again.png").symlink_to("0.png")
    names, said = opened(["photos", "./photos/0.png"])
    assert names == ["0.png"]
    assert said == "ignored (the same file as one before): again.png, 0.png"
    for end in "finish", "keep_partial":
        made = sink("a.jpg")
        made.folder = Path("photos", end)
        made.write(*result(0, "a.jpg"))
        made.finish() if end == "finish" else made.keep_partial("interrupted")
    names, said = opened(["photos"], recursive=True)
    assert names == ["0.png"]
    assert "ignored (made by a survey): photos/finish/pictures/a.jpg" in said
    assert len(opened(["photos/finish/pictures/a.jpg"])[0]) == 1
    with pytest.raises(UsageError, match="no images"):
        opened(["photos/finish"], recursive=True)


def test_pairs_in_one_folder_are_photos_and_their_depth() -> None:
    Path("pairs").mkdir()
    for name in "ab":
        save(Path(f"pairs/{name}.jpg"), scene(48, 64))
        Image.fromarray((1000 + np.arange(48 * 64).reshape(48, 64)).astype(np.uint16)).save(f"pairs/{name}.png")
    names, said = opened(["pairs"], truth=DepthFolder(Path("pairs"), Limits(), option="--truth"))
    assert names == ["a.jpg", "b.jpg"]
    assert said == "ignored (the depth of a photo): a.png, b.png"


def test_names_that_no_link_can_have_are_made_safe() -> None:
    names = ["50% #1?.png", "50% #1*.png", "\udcff.png", "sub/a.jpg"]
    made = sink(*names)
    for number, name in enumerate(names):
        made.write(*result(number, name))
    made.finish()
    content = json.loads(Path("out/survey.json").read_text())
    pictures = [path for photo in content["photos"] for path in photo["pictures"].values()]
    assert len(set(pictures)) == len(pictures)
    for path in pictures:
        assert path.isprintable()
        assert not set(path) & set("%#?*")
        assert Path("out", path).is_file()


def photo(name: str, basis: Any, **values: float | None) -> PhotoRow:
    answers = AnswersRow(basis=basis, numbers={model: NumberRow(value=value) for model, value in values.items()})
    return PhotoRow(name=name, size=(4, 4), has_truth=basis == "truth", pictures={}, findings={ACCURACY.key: answers})


def test_a_summary_averages_no_errors_with_opinions() -> None:
    rows = [
        photo("a", "truth", one=0.1, two=0.3, three=0.4),
        photo("b", "truth", one=0.3, two=0.1, three=0.4),
        photo("c", "models", one=9, two=0, three=0),
    ]
    found = summarised(rows, [ACCURACY], ["one", "two", "three"])[ACCURACY.key]
    assert {name: (row.mean, row.photos, row.basis, row.is_best) for name, row in found.items()} == {
        "one": (pytest.approx(0.2), 2, "truth", True),
        "two": (pytest.approx(0.2), 2, "truth", True),
        "three": (pytest.approx(0.4), 2, "truth", False),
    }
    assert found["one"].spread == pytest.approx(np.std([0.1, 0.3], ddof=1))
    most = [photo(name, "picture", one=1, two=None) for name in "ab"] + [photo("c", "models", one=9, two=9)]
    found = summarised(most, [ACCURACY], ["one", "two"])[ACCURACY.key]
    assert (found["one"].mean, found["one"].basis, found["one"].is_best) == (1, "picture", False)
    assert (found["two"].mean, found["two"].spread, found["two"].photos, found["two"].is_best) == (None, None, 0, False)
    assert summarised([photo("a", "truth", one=None)], [ACCURACY], ["one"]) == {}


def test_a_truth_that_cannot_be_used_is_named_and_the_photo_surveyed_without() -> None:
    def truth_of(frame: Frame) -> Truth | None:
        if frame.name == "b.jpg":
            raise SourceError("has not the shape of its photo", where="truth/b.npy")
        return Truth(disparity=frame.rgb[..., 0] / np.float32(99) + 1) if frame.name == "a.jpg" else None

    made = sink("a.jpg", "b.jpg", "c.jpg", truth_of=truth_of)
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        made.write(*result(number, name))
    made.finish()
    assert made.warnings == ["b.jpg: surveyed without its truth: truth/b.npy: has not the shape of its photo"]
    assert made.counters == {"without_truth": 1}
    found = numbers("out/survey.json")
    assert [one.has_truth for one in found.photos] == [True, False, False]
    assert [one.without_truth for one in found.photos] == ["", "b.npy: has not the shape of its photo", ""]
    assert ["truth" in one.pictures for one in found.photos] == [True, False, False]
    accuracy = found.summary["accuracy"]
    assert {name: (row.photos, row.basis, row.is_best) for name, row in accuracy.items()} == {
        "one": (1, "truth", True),
        "two": (1, "truth", False),
    }


def test_truth_comes_from_the_command_to_the_report(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    photos(3)
    Path("truth").mkdir()
    y, x = np.mgrid[:48, :64]
    Image.fromarray((1000 + 20 * y + x).astype(np.uint16)).save("truth/0.png")
    np.save("truth/1.npy", np.ones((48, 50), np.float32))
    for name in "truth/0.npy", "truth/other.npy":
        np.save(name, np.ones((48, 64), np.float32))
    Path("truth/notes.txt").touch()
    assert invoke(["survey", str(Path("photos").absolute()), *named(models), "--truth", "truth"]) == 3
    said = capsys.readouterr().err
    assert "--truth: 1 file belongs to none of the photos: other.npy\n" in said
    assert "\ndone: 3 photos, 1 without its truth · " in said
    assert numbers("photos_survey/survey.json").source == "photos"
    assert str(Path.cwd()) not in Path("photos_survey/report.html").read_text()
    assert "--truth: 1 of 3 photos have none: 2.png" in said
    assert "warning: 1.png: surveyed without its truth: truth/1.npy: 50×48 has not the shape" in said
    assert [one.has_truth for one in numbers("photos_survey/survey.json").photos] == [True, False, False]


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (["/a/b/photos/"], "photos"),
        (["/a/b/x.jpg", "c/d"], "x.jpg, d"),
        (["http://me:secret@host/a/x.jpg?token=1"], "x.jpg"),
        (["http://me:secret@host"], "host"),
    ],
)
def test_a_report_names_its_photos_without_where_they_lie(texts: list[str], name: str) -> None:
    assert short_name(texts) == name
    assert short_name(["."]) == Path.cwd().name
