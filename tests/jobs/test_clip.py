"""`--range clip`: two passes, one range, one run of the model, and nothing left behind."""

import json
import re
import shutil
import signal
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import stream
from stream.cli.main import invoke
from stream.depthdata import spool
from stream.errors import SourceError, UsageError
from stream.files import Need, by_disk
from stream.frames import Depth, DepthKind
from stream.infer.engine import Engine
from stream.jobs.clip import EndsOfClip
from stream.metrics import Outcome
from stream.render import colormap
from stream.render.layout import Layout
from stream.render.range import ClipRange, displayed
from stream.render.renderer import Renderer
from tests.jobs.test_run import audio_packets, balanced, durations, video_times
from tests.support.fakes import frame
from tests.support.media_files import write_video
from tests.support.picture_files import save, scene
from tests.support.tiny_model import run


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files; the test runs in another, empty one."""
    folder, here = tmp_path / "temporary", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(here)
    return folder


def clip(frames: int = 8, name: str = "clip.mp4") -> Path:
    def draw(index: int, size_hw: tuple[int, int]) -> np.ndarray:
        return np.random.default_rng(index // 3).integers(0, 255, (*size_hw, 3), np.uint8)

    return write_video(Path(name), frames=frames, size_hw=(48, 64), draw=draw, audio_s=frames / 25)


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_one_range_for_every_frame_from_one_run_of_the_model(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip()
    submitted: list[int] = []
    submit = Engine.submit
    monkeypatch.setattr(
        Engine, "submit", lambda self, frames: (submitted.extend(f.index for f in frames), submit(self, frames))[1]
    )
    seen: list[str] = []
    report = stream.run(
        "clip.mp4", output="out", save="npy", range="clip", colormap="gray", report="r.json",
        on_progress=lambda progress: seen.append(progress.part),
    )  # fmt: skip
    assert submitted == list(range(8))
    assert list(dict.fromkeys(seen)) == ["pass 1 of 2", "pass 2 of 2"]
    assert (report.outcome, report.captured, report.inferred, report.written) == (Outcome.DONE, 8, 8, 8)
    assert json.loads(Path("r.json").read_text())["clip_range"] == report.clip_range
    maps = [np.load(f"out/{index:06}.npy") for index in range(8)]
    ends = report.clip_range
    assert ends is not None
    assert (ends["lowest"], ends["highest"]) == (np.min(maps), np.max(maps))
    assert (ends["lo"], ends["hi"]) == pytest.approx(np.percentile(maps, (1, 99)), rel=2**-11)
    for index, values in enumerate(maps):  # the same colour for the same depth, in every picture
        shown = np.asarray(Image.open(f"out/{index:06}.png"))
        assert np.array_equal(shown, colormap.apply(values, ends["lo"], ends["hi"], colormap.table("gray")))
    assert list(temporary.iterdir()) == []


def test_a_video_keeps_its_times_and_its_sound() -> None:
    clip()
    report = run("clip.mp4", range="clip", max_frames=8)
    assert report.outputs == ["clip_depth.mp4"]
    assert video_times(Path("clip_depth.mp4")) == video_times(Path("clip.mp4"))
    assert audio_packets(Path("clip_depth.mp4")) == audio_packets(Path("clip.mp4"))
    assert durations(Path("clip_depth.mp4")) == durations(Path("clip.mp4"))


def test_pictures_of_all_sizes_share_a_range_and_what_is_skipped_is_said_once(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("photos").mkdir()
    for number in range(4):
        save(Path(f"photos/{number}.png"), scene(40 + 8 * number, 64))
    save(Path("photos/wide.png"), np.zeros((2, 4000, 3), np.uint8))
    Path("photos/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    monkeypatch.setattr("stream.infer.geometry.MAX_INPUT_PIXELS", 200_000)
    skipped: list[str] = []
    report = run("photos", range="clip", save="npy", on_skip=lambda name, _why: skipped.append(name))
    assert sorted(skipped) == sorted(item["name"] for item in report.skipped) == ["broken.jpg", "wide.png"]
    assert (report.outcome, report.written, balanced(report)) == (Outcome.DONE_WITH_SKIPS, 4, True)
    assert report.clip_range is not None
    lo, hi = report.clip_range["lo"], report.clip_range["hi"]
    for number in range(4):
        values = np.load(f"photos_depth/{number}.npy")
        assert values.shape == (40 + 8 * number, 64)
        expected = colormap.apply(values, lo, hi, colormap.table("inferno"))
        assert np.array_equal(np.asarray(Image.open(f"photos_depth/{number}.png")), expected)
    assert list(temporary.iterdir()) == []


def test_images_in_a_list_are_read_twice() -> None:
    images = [scene(40, 64), scene(48, 64)]
    report = run(images, range="clip", output="out")
    assert (report.captured, report.written, len(files())) == (2, 2, 2)


@pytest.mark.parametrize("how", ["event", "ctrl-c"])
def test_a_run_that_ends_in_the_first_pass_writes_nothing(how: str, temporary: Path) -> None:
    clip()
    stop = threading.Event()
    notes: list[str] = []
    sent: list[int] = []  # a second Ctrl-C would not wait

    def end(progress: stream.Progress) -> None:
        if progress.done >= 2 and not sent:
            sent.append(progress.done)
            stop.set() if how == "event" else signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) if how == "ctrl-c" else nullcontext():
        run("clip.mp4", range="clip", report="r.json", on_progress=end, on_note=notes.append, stop=stop)
    report = json.loads(Path("r.json").read_text())
    assert (report["outcome"], report["exit_code"], report["written"], report["outputs"]) == ("interrupted", 130, 0, [])
    assert report["captured"] == report["dropped"]["stopped"] >= 2
    assert files() == ["clip.mp4", "r.json"]
    assert notes[-1] == "interrupted in pass 1 of 2: nothing is written"
    assert list(temporary.iterdir()) == []
    assert [t.name for t in threading.enumerate() if t.name.startswith("depthstream")] == []


def test_a_run_that_ends_in_the_second_pass_keeps_what_is_done(temporary: Path) -> None:
    clip(30)
    stop = threading.Event()

    def end(progress: stream.Progress) -> None:
        if progress.part == "pass 2 of 2" and progress.done == 3:
            stop.set()

    report = run("clip.mp4", range="clip", on_progress=end, stop=stop)
    assert report.outcome is Outcome.INTERRUPTED
    assert balanced(report)
    assert files() == ["clip.mp4", "clip_depth.partial.mp4"]
    assert len(video_times(Path("clip_depth.partial.mp4"))) == report.written >= 3
    assert list(temporary.iterdir()) == []


def test_a_source_that_changes_between_the_passes_is_an_error(temporary: Path) -> None:
    clip(8)
    clip(5, "shorter.mp4")

    def change(progress: stream.Progress) -> None:
        if progress.part == "pass 1 of 2" and progress.done == 8 and Path("shorter.mp4").exists():
            Path("shorter.mp4").rename("clip.mp4")

    with pytest.raises(SourceError, match=r"^clip\.mp4: the source has changed between the two passes: it has fewer"):
        run("clip.mp4", range="clip", on_progress=change)
    assert not Path("clip_depth.mp4").exists()
    assert list(temporary.iterdir()) == []


def test_a_full_disk_in_the_first_pass_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip()
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "w+b"))  # noqa: SIM115
    assert invoke(["clip.mp4", "--range", "clip", "-q"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("No space left on device; free some space, or set TMPDIR to a folder on another disk")
    assert files() == ["clip.mp4"]


def test_too_little_space_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip()
    monkeypatch.setattr(Engine, "submit", lambda *_: pytest.fail("the model has run"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=90_000))
    assert invoke(["clip.mp4", "--range", "clip", "-q"]) == 2
    assert "8 temporary depth maps would take about 99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["pattern:testsrc2"], "--range clip: needs the whole source first, and a live one has no end; give --range"),
        (["-"], "--range clip: reads the source twice, and a pipe can be read only once; save it to a file first"),
        (["clip.mp4", "-m", "starter", "-m", "dav2-small", "--preview"], "several models cannot share one range"),
    ],
)
def test_what_cannot_be_read_twice_is_refused_before_any_work(
    arguments: list[str], error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip()
    monkeypatch.setattr("stream.jobs.run.load_engine", lambda *_args, **_: pytest.fail("a model was loaded"))
    assert invoke([*arguments, "--range", "clip", "-q"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert error in line
    assert files() == ["clip.mp4"]


def test_an_iterator_is_refused() -> None:
    with pytest.raises(UsageError, match="--range clip: reads the images twice, and an iterator gives them once"):
        run(iter([scene(40, 64)]), range="clip", output="out")


def test_a_comparison_has_no_range_of_a_clip(capsys: pytest.CaptureFixture[str]) -> None:
    clip()
    assert invoke(["compare", "clip.mp4", "-m", "starter", "-m", "dav2-small", "--range", "clip"]) == 2
    assert "--range clip: does not apply to a comparison" in capsys.readouterr().err


def depth(values: np.ndarray, kind: DepthKind, valid: np.ndarray | None = None) -> Depth:
    return Depth(values=values.astype(np.float32), kind=kind, index=0, valid=valid)


@pytest.mark.parametrize("kind", DepthKind)
def test_constant_depth_and_no_answer_at_all_can_be_shown(kind: DepthKind) -> None:
    same = depth(np.full((24, 32), 2.5), kind)
    ends = EndsOfClip()
    assert ends.ends.shown[0] <= ends.ends.shown[1]
    ends.add(depth(np.full((24, 32), 9.0), kind, np.zeros((24, 32), bool)))
    ends.add(same)
    found = ends.ends
    assert found.values == (2.5, 2.5)
    assert found.shown == (displayed(same).min(), displayed(same).max())
    renderer = Renderer(layout=Layout.DEPTH, colormap="gray", range_policy=ClipRange(*found.shown))
    assert set(np.unique(renderer.render(frame(0), same))) == {colormap.CONSTANT_INDEX}


def test_ends_are_of_what_is_displayed_without_pixels_that_have_no_answer() -> None:
    values = np.linspace(1, 10, 20_000).reshape(100, 200)
    mask = np.ones((100, 200), bool)
    mask[:50] = False
    ends = EndsOfClip()
    ends.add(depth(values, DepthKind.METRIC_DEPTH, mask))
    metres = np.float32(values[50:])
    assert ends.ends.values == (metres.min(), metres.max())
    assert ends.ends.shown == pytest.approx(np.percentile(1 / metres, (1, 99)), rel=2**-11)
    assert ends.ends.as_fields()["lo"] == pytest.approx(1 / ends.ends.shown[1])


def test_files_of_codes_share_one_mapping_and_pictures_keep_their_own_range() -> None:
    clip()
    report = run("clip.mp4", output="out", save="png16,npy")
    maps = [np.load(f"out/{index:06}.npy") for index in range(8)]
    (lo, hi), step = (np.min(maps), np.max(maps)), (np.max(maps) - np.min(maps)) / 65534
    for index, values in enumerate(maps):
        codes = np.asarray(Image.open(f"out/{index:06}.depth16.png"), np.float64)
        assert np.abs(lo + (codes - 1) * step - values).max() <= step * 0.51
        assert np.abs(stream.read_png16(Path(f"out/{index:06}.depth16.png")) - values).max() <= step * 0.51
    assert json.loads(Path("out/depth.json").read_text())["mapping"]["hi"] == hi
    assert report.clip_range is not None
    plain = run("clip.mp4", output="plain")
    assert plain.clip_range is None
    for index in range(8):
        assert Path(f"plain/{index:06}.png").read_bytes() == Path(f"out/{index:06}.png").read_bytes()


def test_codes_of_a_given_range_need_one_pass() -> None:
    clip()
    report = run("clip.mp4", output="out", save="png16", range="0:10")
    assert report.clip_range is None
    mapping = json.loads(Path("out/depth.json").read_text())["mapping"]
    assert (mapping["lo"], mapping["hi"]) == (0, 10)


def test_codes_of_a_live_source_need_a_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["pattern:testsrc2", "--max-frames", "3", "-o", "out", "--save", "png16", "-q"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("give --range LO:HI, or choose --save npy, or record it first")
    report = run("pattern:testsrc2", max_frames=3, output="out", save="png16", range=(-5, 15))
    assert report.captured == 3
    assert report.written == len(list(Path("out").glob("*.depth16.png"))) > 0  # a live source may drop frames


@pytest.mark.parametrize("save", ["npy", "video16"])
def test_the_depth_of_the_first_pass_and_the_files_must_fit_on_one_disk_together(
    save: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip()  # 8 maps take 99 kB in the spool, and 98 kB as npy
    monkeypatch.setattr(Engine, "submit", lambda *_: pytest.fail("the model has run"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=105_000))
    arguments = ["clip.mp4", "--range", "clip", "-q", "--save", save, "--picture", "none", "-o", "out/"]
    assert invoke(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(
        rf"8 temporary depth maps \+ 8 × .*{'npy' if save == 'npy' else 'depth video'}.* would take about 1[1-9]\d kB",
        error,
    )
    assert files() == ["clip.mp4"]


def test_what_comes_onto_another_disk_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def two_disks(path: Path, **how: bool) -> object:
        found = stat(path, **how)
        return SimpleNamespace(st_dev=7, st_mode=found.st_mode) if path == tmp_path / "other" else found

    (tmp_path / "other").mkdir()
    monkeypatch.setattr(Path, "stat", two_disks)
    needs = [Need(folder=tmp_path / name, size=size, what=str(size)) for name, size in
             (("other", 1), ("a", 2), ("other/b", 4), ("c/d", 8))]  # fmt: skip
    monkeypatch.setattr(Path, "stat", two_disks)
    assert [(need.folder.name, need.size, need.what) for need in by_disk(needs)] == [
        ("other", 5, "1 + 4"), ("a", 10, "2 + 8")
    ]  # fmt: skip
