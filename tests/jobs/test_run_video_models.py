"""Clips through Video-Depth-Anything from a file to depth on the disk, against the official code's results."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import stream
from stream.config import Config
from stream.errors import SourceError, UsageError
from stream.frames import SourceInfo, SourceKind
from stream.infer.base import Inference
from stream.jobs.models import most_staged_bytes
from stream.media import av
from tests.support.clips import CLIPS, clip_reference, frame_error
from tests.support.manifests import checkpoint
from tests.support.reference import clip

torch.set_num_threads(1)  # torch's threads wait for one another at every layer: slow beside other tests
TOLERANCE = 1e-4
SMALL = next(path for path in CLIPS if path.stem == "video_depth_anything_vits")
CASES = clip_reference(SMALL)["cases"]
ALL = [
    pytest.param(path, number, marks=pytest.mark.release if path.stem.endswith("vitl") else pytest.mark.slow)
    for path in CLIPS
    for number in range(len(clip_reference(path)["cases"]))
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_of(SMALL, tmp_path_factory.mktemp("weights"))


def weights_of(path: Path, folder: Path) -> Path:
    loaded = clip_reference(path)
    file = folder / f"{loaded['model']}.pth"
    torch.save(checkpoint(loaded["state_dict"]), file)
    return file


def images(case: dict[str, Any], folder: Path) -> Path:
    """The clip as numbered PNG files."""
    folder.mkdir()
    for number, rgb in enumerate(clip(*case["clip"])):
        Image.fromarray(rgb).save(folder / f"{number:04}.png")
    return folder


def lossless(case: dict[str, Any], folder: Path) -> Path:
    """The clip as a video that keeps every value."""
    frames, path = clip(*case["clip"]), folder / "clip.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "bgr0"
        for number, rgb in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="bgr0")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return path


def maps(
    source: Path, case: dict[str, Any], weights: Path, folder: Path, model: str, *, device: str = "cpu"
) -> list[NDArray[np.float32]]:
    mode = {"stream": {"temporal": "stream"}, "offline": {}}[case["mode"]]  # windows are the default
    report = stream.run(
        source, model=model, weights=weights, precision="fp32", device=device, save="npy", output=folder / "out",
        **case["options"], **mode,
    )  # fmt: skip
    count = case["clip"][2]
    assert (report.captured, report.written, sum(report.dropped.values())) == (count, count, 0)
    return [np.load(path) for path in sorted((folder / "out").rglob("*.npy"))]


def worst(found: list[NDArray[np.float32]], case: dict[str, Any]) -> float:
    return max(frame_error(*pair) for pair in zip(found, case["full"]["frames"], strict=True))


@pytest.mark.parametrize("make", [images, lossless])
def test_a_short_clip_has_the_official_depth(make: Any, weights: Path, tmp_path: Path) -> None:
    case = next(one for one in CASES if one["clip"][2] == 7)
    source = make(case, tmp_path / "in") if make is images else make(case, tmp_path)
    assert worst(maps(source, case, weights, tmp_path, "vda-small"), case) < TOLERANCE


@pytest.mark.parametrize(("path", "number"), ALL, ids=lambda value: getattr(value, "stem", value))
def test_every_clip_has_the_official_depth(path: Path, number: int, tmp_path: Path) -> None:
    loaded = clip_reference(path)
    case = loaded["cases"][number]
    found = maps(lossless(case, tmp_path), case, weights_of(path, tmp_path), tmp_path, loaded["model"])
    assert worst(found, case) < TOLERANCE


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("number", range(len(CASES)))
def test_every_clip_has_the_official_depth_on_cuda(number: int, weights: Path, tmp_path: Path) -> None:
    case = CASES[number]
    assert worst(maps(images(case, tmp_path / "in"), case, weights, tmp_path, "vda-small", device="cuda"), case) < 1e-3


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 0.1)])
def test_the_backbone_takes_batches_on_cuda(precision: str, tolerance: float, weights: Path) -> None:
    case = next(one for one in CASES if one["mode"] == "offline" and one["clip"][2] > 32)
    given = {"model": "vda-small", "weights": weights, "device": "cuda", "batch": 8, **case["options"]}
    results = stream.iter_depth(list(clip(*case["clip"])), precision=precision, **given)
    assert worst([depth.values for _, depth in results], case) < tolerance


@pytest.mark.slow
def test_a_kept_model_that_was_exported_sees_clips_in_torch(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.infer.backends.cache.cache_folder", lambda: tmp_path / "cache")
    case = next(one for one in CASES if one["clip"][2] == 7)
    with stream.load("vda-small", weights=weights, backend="openvino", precision="fp32", **case["options"]) as model:
        model(clip(*case["clip"])[0])
        assert model.backend == "openvino"
        found = [depth.values for _, depth in stream.iter_depth(list(clip(*case["clip"])), model=model)]
    assert worst(found, case) < TOLERANCE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "pattern:testsrc2", "temporal": "window", "model": "vda-small"}, "cannot wait for windows"),
        ({"temporal": "window", "model": "starter"}, "starter takes each frame alone"),
        ({"backend": "onnx", "model": "vda-small"}, "add --temporal off"),
        ({"precision": "int8", "model": "vda-small"}, "add --temporal off"),
    ],
)
def test_what_does_not_suit_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {"source": lossless({"clip": (64, 48, 2)}, tmp_path), "output": tmp_path / "out.mp4", **options}
    with pytest.raises(UsageError, match=message):
        stream.run(offline=True, **given)


def test_a_run_stops_after_the_frames_that_it_was_asked_for(weights: Path, tmp_path: Path) -> None:
    source = lossless({"clip": (32, 32, 9)}, tmp_path)
    found = list(
        stream.iter_depth(source, model="vda-small", weights=weights, device="cpu", input_size=42, max_frames=5)
    )
    assert [frame.index for frame, _ in found] == [0, 1, 2, 3, 4]


class _Windows(Inference):
    def stream(self, frames: object, on_skip: object) -> Any:
        return iter(())

    def close(self) -> None:
        pass

    @property
    def holds(self) -> int:
        return 32

    def kept_bytes(self, size_hw: tuple[int, int]) -> int:
        return 10**8


def test_windows_count_in_the_memory_of_a_run() -> None:
    info = SourceInfo(
        name="clip", size=(1080, 1920), is_live=False, time_base=Fraction(1, 25), rate=Fraction(25), frame_count=9,
        kind=SourceKind.VIDEO,
    )  # fmt: skip
    little, enough = (Config.model_validate({"capture": {"max_memory": size}}) for size in ("1G", "4G"))
    with pytest.raises(SourceError, match=r"takes 0\.5 GB of memory in windows of 32.*--temporal stream"):
        most_staged_bytes(little, info, _Windows())
    assert most_staged_bytes(enough, info, _Windows()) > 32 * 1080 * 1920 * 3
