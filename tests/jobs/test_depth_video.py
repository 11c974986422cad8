"""Depth videos as outputs of a run: where they are written, with which range, and what is refused before any work."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stream
from stream.errors import ConfigError, OutputError, StreamError
from stream.frames import DepthKind
from stream.jobs.options import from_options
from stream.jobs.ranges import video_mapping, why_two_passes
from stream.media import av
from stream.models import registry
from tests.support.media_files import write_video
from tests.support.picture_files import save, scene

QUICK: dict[str, Any] = {"input_size": 64, "backend": "torch", "preview": False}
NTSC = Fraction(30000, 1001)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def clip(name: str = "clip.mp4", **options: Any) -> str:
    return str(write_video(Path(name), rate=NTSC, time_base=Fraction(1, 30000), **options))


@pytest.mark.parametrize("times", [None, [0, 1001, 1002, 9000, 40_000]], ids=["29.97", "vfr"])
def test_a_run_gives_the_numbers_and_the_times_of_its_source(times: list[int] | None) -> None:
    source = clip(frames=5, pts=times)
    report = stream.run(source, output="a.depth.mkv", depth_codec="float32", **QUICK)

    assert report.outputs == ["a.depth.mkv", "a.depth.json"]
    assert report.written == 5
    with stream.open_depth_video("a.depth.mkv") as video:
        read = list(video.timed())
        about = video.description
    expected = list(stream.iter_depth(source, input_size=64, backend="torch"))
    assert [(pts, video.time_base) for pts, _, _ in read] == [(frame.pts, frame.time_base) for frame, _ in expected]
    for (_, _, depth), (_, wanted) in zip(read, expected, strict=True):
        np.testing.assert_array_equal(depth.values, wanted.values)
    assert (about.kind, about.model, about.source) == (DepthKind.RELATIVE_DISPARITY, "starter", "clip.mp4")
    assert about.weights_sha256 == report.weights_sha256
    assert about.size == (48, 64)
    assert times is not None or about.rate == NTSC


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("steady", [False, True])
def test_a_depth_video_from_cuda_holds_the_numbers_of_the_cpu(steady: bool) -> None:
    source, maps = clip(frames=12), {}
    for device in ("cuda", "cpu"):
        options = {**QUICK, "device": device, "precision": "fp32", "depth_codec": "float32", "batch": 4}
        stream.run(source, output=f"{device}.depth.mkv", steady=steady, **options)
        with stream.open_depth_video(f"{device}.depth.mkv") as video:
            maps[device] = [depth.values for _, _, depth in video.timed()]
    for ours, wanted in zip(maps["cuda"], maps["cpu"], strict=True):
        assert np.abs(ours - wanted).max() < 1e-2 * wanted.std()


def test_save_video16_stands_beside_the_picture_video() -> None:
    notes: list[str] = []
    report = stream.run(
        clip(frames=4), output="b.mp4", save="video16,npy", range="-5:40", on_note=notes.append, **QUICK
    )

    assert report.outputs == ["b.mp4", "b_depth", "b.depth.mkv", "b.depth.json"]
    with stream.open_depth_video("b.depth.mkv") as video:
        assert video.description.mapping is not None
        assert (video.description.mapping.lo, video.description.mapping.hi) == (-5.0, 40.0)
        assert video.error_at(1.0) == pytest.approx(45 / 65534 / 2)
        for index, depth in enumerate(video):
            exact = np.load(f"b_depth/{index:06d}.npy")
            assert np.abs(depth.values - exact).max() <= video.error_at(1.0) + 4e-6
    assert not [note for note in notes if "written as these ends" in note]


@pytest.mark.parametrize(
    ("output", "save_", "codec", "written"),
    [
        ("out", "video16", None, "out/video.depth.mkv"),
        ("out", "video16", "hevc12", "out/video.depth.mp4"),
        ("c.depth.mp4", (), None, "c.depth.mp4"),
        ("c.depth.mkv", "video16", "ffv1", "c.depth.mkv"),
        ("C.DEPTH.MKV", (), None, "C.DEPTH.MKV"),
    ],
)
def test_where_it_is_written(output: str, save_: Any, codec: Any, written: str) -> None:
    stream.run(clip(frames=2), output=output, save=save_, depth_codec=codec, picture="none", range="0:40", **QUICK)
    with stream.open_depth_video(written) as video:
        assert len(list(video)) == 2


def test_pictures_of_one_size_become_one_and_others_are_skipped() -> None:
    Path("photos").mkdir()
    for name, size in [("a", (48, 64)), ("b", (64, 48)), ("c", (48, 64))]:
        save(Path(f"photos/{name}.png"), scene(*size))
    skipped: list[str] = []
    report = stream.run(
        "photos", output="p.depth.mkv", fps=24, depth_codec="float32",
        on_skip=lambda name, _: skipped.append(name), **QUICK,
    )  # fmt: skip
    assert skipped == ["b.png"]
    assert report.exit_code == 3
    with stream.open_depth_video("p.depth.mkv") as video:
        assert [float(pts * video.time_base * 24) for pts, _, _ in video.timed()] == [0, 2]
        assert video.frame_count == 2
    with pytest.raises(ConfigError, match="--fps"):
        stream.run("photos", output="q.depth.mkv", depth_codec="float32", **QUICK)


@pytest.mark.parametrize(
    ("output", "files"),
    [("d.depth.mkv", ["d.depth.json", "d.depth.mkv"]), ("d.mp4", ["d.depth.json", "d.depth.mkv", "d.mp4"])],
)
def test_a_first_picture_that_cannot_be_read_does_not_decide_the_size(output: str, files: list[str]) -> None:
    Path("photos").mkdir()
    for name, size in [("a", (48, 64)), ("b", (96, 64)), ("c", (96, 64))]:
        save(Path(f"photos/{name}.png"), scene(*size))
    whole = Path("photos/a.png").read_bytes()
    Path("photos/a.png").write_bytes(whole[: len(whole) // 2])
    report = stream.run("photos", output=output, save="video16", depth_codec="float32", fps=5, **QUICK)

    assert report.written == 2
    assert [item["name"] for item in report.skipped] == ["a.png"]
    assert sorted(path.name for path in Path().glob("d.*")) == files
    with stream.open_depth_video("d.depth.mkv") as video:
        assert (video.size, len(list(video))) == ((96, 64), 2)


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"output": "a.depth.mkv", "range": "9:1"}, ConfigError, "LO < HI"),
        ({"output": "a.depth.mkv", "depth_codec": "hevc12"}, ConfigError, r"does not go into \.mkv.*a?\.depth\.mp4"),
        ({"output": "a.depth.mp4", "depth_codec": "float32"}, ConfigError, r"does not go into \.mp4"),
        ({"output": "b.depth.mkv", "range": "0:1"}, OutputError, "the file exists"),
        ({"output": "c.depth.mkv", "range": "0:1"}, OutputError, r"c\.depth\.json: the file exists"),
        ({"output": "d.mp4", "save": "video16", "range": "0:1"}, OutputError, r"d\.depth\.mkv: the file exists"),
        ({"output": "b.depth.mp4", "range": "0:1", "overwrite": True}, OutputError, r"b\.depth\.mkv is there"),
        ({"output": "b.depth.mp4", "range": "clip", "overwrite": True}, OutputError, r"b\.depth\.mkv is there"),
        ({"output": "a.depth.mkv", "range": "0:1", "report": Path("a.depth.json")}, OutputError, "is an output"),
    ],
)
def test_is_refused_before_any_work(options: dict[str, Any], error: type[Exception], what: str) -> None:
    source = clip(frames=2)
    for name in ("b.depth.mkv", "c.depth.json", "d.depth.mkv"):
        Path(name).touch()
    before = sorted(Path().iterdir())
    with pytest.raises(error, match=what) as caught:
        stream.run(source, **options, **QUICK)
    assert getattr(caught.value, "exit_code", 0) == 2
    assert sorted(Path().iterdir()) == before


def test_a_relative_model_gets_the_range_of_the_whole_clip() -> None:
    source = clip(frames=4)
    stream.run(source, output="e.depth.mkv", **QUICK)
    stream.run(source, output="f.mp4", save="video16", depth_codec="hevc12", **QUICK)
    exact = [depth.values for _, depth in stream.iter_depth(source, input_size=64, backend="torch")]
    for name in ("e.depth.mkv", "f.depth.mp4"):
        with stream.open_depth_video(name) as video:
            mapping = video.description.mapping
            assert mapping is not None
            assert (mapping.lo, mapping.hi) == (min(map(np.min, exact)), max(map(np.max, exact)))
            for depth, wanted in zip(video, exact, strict=True):
                assert np.abs(depth.values - wanted).max() <= video.error_at(1.0) + 4e-6


def test_which_videos_need_the_whole_clip() -> None:
    kind, most = DepthKind.RELATIVE_DISPARITY, None

    def why(**options: Any) -> str:
        return why_two_passes(from_options("clip.mp4", options), kind, max_depth_m=most)

    assert why(output="a.depth.mkv") == "-o a.depth.mkv"
    assert why(output="a.mp4", save="video16") == "--save video16"
    assert why(output="a.depth.mkv", depth_codec="float32") == ""
    assert why(output="a.mp4", save="video16", depth_codec="float32") == ""
    assert why(output="a.depth.mp4", range="0:3") == ""
    assert why(output="a", save="png16") == "--save png16"
    kind = DepthKind.METRIC_DEPTH  # of a model without a largest depth
    assert why(output="a", save="png16") == ""
    assert why(output="a.depth.mkv") == "-o a.depth.mkv"
    assert why(output="a.depth.mp4", range="0.5:30") == ""
    most = 20.0
    assert why(output="a.depth.mkv") == ""
    with pytest.raises(StreamError, match=r"-o l\.depth\.mkv.*--range LO:HI, or add --depth-codec float32"):
        stream.run("pattern:testsrc2", live="live", output="l.depth.mkv", **QUICK)
    assert not list(Path().glob("l.*"))


def test_a_metric_model_needs_no_range() -> None:
    spec = registry.find("depth_anything_v2_metric_hypersim_vits")
    starter = registry.find("starter")
    ffv1, hevc12, plain = Path("a.depth.mkv"), Path("a.depth.mp4"), from_options("clip.mp4", {})
    mapping = video_mapping(plain, ffv1, spec, None)
    assert mapping is not None
    assert (mapping.lo, mapping.hi, mapping.marks_invalid) == (0.0, spec.max_depth_m, True)
    twelve = video_mapping(from_options("clip.mp4", {"max_depth": 7.0}), hevc12, spec, None)
    assert twelve is not None
    assert (twelve.hi, twelve.first, twelve.last) == (7.0, 0, 4095)
    given = video_mapping(from_options("clip.mp4", {"range": "1:3"}), ffv1, spec, None)
    assert given is not None
    assert (given.lo, given.hi) == (1.0, 3.0)
    assert video_mapping(from_options("clip.mp4", {"depth_codec": "float32"}), ffv1, starter, None) is None
    with pytest.raises(ConfigError, match="--range LO:HI"):
        video_mapping(plain, ffv1, starter, None)


def test_ffv1_keeps_every_pixel_and_says_where_sixteen_bits_are() -> None:
    notes: list[str] = []
    source = clip(frames=2)
    stream.run(source, output="g.mkv", codec="ffv1", colormap="gray", on_note=notes.append, **QUICK)
    stream.run(source, output="g", colormap="gray", range="ema", **QUICK)

    assert [note for note in notes if "NAME.depth.mkv writes 16" in note]
    with av.open("g.mkv") as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(pictures) == 2
    for index, picture in enumerate(pictures):
        with Image.open(f"g/{index:06d}.png") as image:
            np.testing.assert_array_equal(picture, np.asarray(image.convert("RGB")))


def test_the_sidecar_is_plain_json() -> None:
    stream.run(clip(frames=1), output="s.depth.mp4", range="0:9", **QUICK)
    about = json.loads(Path("s.depth.json").read_text())
    assert about["mapping"] == {
        "lo": 0.0, "hi": 9.0, "first_code": 0, "last_code": 4095, "invalid_code": None, "use_log": False, "shift": 0.0
    }  # fmt: skip
    assert about["formula"] == "value = lo + (code - 0) / 4095 * (hi - lo)"
    assert about["frames"] == 1


@pytest.mark.parametrize("is_clip", [False, True])
@pytest.mark.parametrize("refine", [False, True])
def test_it_states_whether_its_values_are_the_models_own(*, refine: bool, is_clip: bool) -> None:
    source = clip(size_hw=(120, 160))
    given = {} if is_clip else {"depth_codec": "float32"}
    report = stream.run(source, output="d.depth.mkv", refine=refine, steady=not refine, **given, **QUICK)
    sidecar = json.loads(Path("d.depth.json").read_text())
    with stream.open_depth_video("d.depth.mkv") as video:
        about = video.description
        assert {(depth.refined, depth.steadied) for depth in video} == {(refine, not refine)}
    assert (report.refined, about.refined, sidecar["refined"]) == (refine, refine, refine)
    assert (about.steadied, sidecar["steadied"]) == (not refine, not refine)
    rendered = stream.render_depth_video("d.depth.mkv", output="again", picture="none", save="png16")
    described = json.loads(Path("again/depth.json").read_text())
    assert (described["refined"], described["steadied"]) == (refine, not refine)
    assert rendered.refined is refine


def test_frames_with_nothing_to_refine_are_not_stated_as_refined() -> None:
    options = {"refine": True, "depth_codec": "float32", **QUICK}
    report = stream.run(clip(size_hw=(48, 64)), output="d.depth.mkv", **options)
    assert [text for text in report.notes if "--refine changes nothing" in text]
    assert not report.refined
    assert json.loads(Path("d.depth.json").read_text())["refined"] is False


def test_png16_and_the_depth_video_of_a_run_say_the_same() -> None:
    report = stream.run(clip(frames=3), output="out", save="png16,video16", start="0.03", picture="none", **QUICK)
    stream.render_depth_video("out/video.depth.mkv", output="again", save="png16", picture="none")
    video, folder, again = (
        json.loads(Path(path).read_text()) for path in ("out/video.depth.json", "out/depth.json", "again/depth.json")
    )
    image = json.loads(Image.open(min(Path("out").glob("*.png"))).text["DEPTHSTREAM"])
    assert video["weights_sha256"] == report.weights_sha256 != ""
    assert video["capture"] == {"start": 0.03}
    of_model = ("kind", "unit", "model", "weights_sha256", "source", "width", "height", "rate", "frames", "capture")
    assert {key: folder[key] for key in of_model} == {key: video[key] for key in of_model}
    for other in (again, image):
        same = ("model", "weights_sha256", "capture", "kind", "width", "height")
        assert {key: other[key] for key in same} == {key: video[key] for key in same}


def test_png16_states_whether_its_values_are_the_models_own() -> None:
    source, options = clip(size_hw=(120, 160)), {"picture": "none", "save": "png16", **QUICK}
    for output, asked in (("plain", {}), ("refined", {"refine": True}), ("steadied", {"steady": True})):
        stream.run(source, output=output, **options, **asked)
        about = json.loads(Path(output, "depth.json").read_text())
        assert (about["refined"], about["steadied"]) == (output == "refined", output == "steadied")
        paths = sorted(Path(output).glob("*.png"))
        first, last = (json.loads(Image.open(path).text["DEPTHSTREAM"]) for path in (paths[0], paths[-1]))
        assert (first["refined"], last["refined"]) == (output == "refined",) * 2
        assert (first["steadied"], last["steadied"]) == (False, output == "steadied")
