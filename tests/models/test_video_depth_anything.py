"""Video-Depth-Anything's networks against numbers that the authors' own code gave: windows of frames, and streams."""

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stream.infer.backends.eager import placed
from stream.infer.device import DTYPES
from stream.infer.geometry import network_size
from stream.infer.preprocess import Preprocessor
from stream.models import registry
from stream.models.layers import size_of
from stream.models.temporal import Features
from stream.models.video_depth_anything import attention, network
from stream.models.video_depth_anything.network import CachedStates, VideoDepthAnything
from tests.support.clips import CLIPS, clip_reference, frame_error, on_grid
from tests.support.manifests import checkpoint
from tests.support.reference import clip

torch.set_num_threads(1)  # torch's threads wait for one another at every layer: slow beside other tests
TOLERANCE = 1e-4
"""Of a frame's standard deviation; the worst is 2.5e-5."""
HALF_RMS = {"bf16": 0.05, "fp16": 0.01}
"""Limits of the error in half precision, root mean square in standard deviations; measured 0.019 and 0.0023."""
SMALL = next(path for path in CLIPS if path.stem == "video_depth_anything_vits")
QUICK = {("video_depth_anything_vits", 0), ("video_depth_anything_vits", 7)}
"""A clip of 54 frames, in windows and as a stream."""


def marks(mode: str) -> Any:
    """Every run has the windows of one clip; its stream is slow."""
    return [] if mode == "offline" else pytest.mark.slow


def cases(mode: str) -> list[Any]:
    return [
        pytest.param(
            path,
            number,
            id=f"{path.stem} {number}",
            marks=marks(mode) if (path.stem, number) in QUICK else pytest.mark.release,
        )
        for path in CLIPS
        for number, case in enumerate(clip_reference(path)["cases"])
        if case["mode"] == mode
    ]


@lru_cache(maxsize=1)
def filled(model: str) -> VideoDepthAnything:
    """The network of a relative model with its weights; metric ones have the same here."""
    path = SMALL.with_name(f"{model}.json")
    made = registry.build(registry.find(model))
    made.load_state_dict(checkpoint(clip_reference(path)["state_dict"]), assign=True)
    registry.finish(made)
    return cast(VideoDepthAnything, made)


def inputs_of(case: dict[str, Any], model: str) -> list[Tensor]:
    """Network inputs 1×3×h×w for the frames of a case, after comparing them with those of the case."""
    policy, frames = registry.find(model).input, clip(*case["clip"])
    size_hw = network_size(policy, frames.shape[1:3], input_size=case["options"].get("input_size"))
    preprocess = Preprocessor(policy, torch.device("cpu"))
    inputs = [preprocess(torch.from_numpy(frame), size_hw, torch.float32) for frame in frames]
    assert [3, *size_hw] == case["input"]["shape"]
    for number, expected in case["input"]["frames"].items():
        (x,) = inputs[int(number)].double().numpy()
        assert np.abs(x.mean((1, 2)) - np.array(expected["mean"])).max() < 1e-5
        assert np.abs(on_grid(x[0], 8) - np.array(expected["grid8_r"])).max() < 1e-5
    return inputs


def compared(values: Tensor, expected: dict[str, Any]) -> None:
    """Compare a tensor with its probe."""
    flat = values.contiguous().double().flatten().numpy()
    assert list(values.shape) == expected["shape"]
    points = [round(i * (len(flat) - 1) / 15) for i in range(16)]
    differences = np.abs(np.array([flat.mean() - expected["mean"], flat.std() - expected["std"]]))
    assert differences.max() < TOLERANCE * expected["std"]
    assert np.abs(flat[points] - np.array(expected["values16"])).max() < TOLERANCE * expected["std"]


def probed(made: VideoDepthAnything, expected: dict[str, Any], features: list[Features], xs: list[Tensor]) -> None:
    """Compare what the head gets and what each of the modules over time sees and gives with the probes of a window."""
    for number, tokens in enumerate(made.pretrained(torch.cat(xs))):
        compared(tokens, expected[f"tokens_{number}"])
    modules = [cast(attention.TimeModule, module).temporal_transformer for module in made.head.motion_modules]
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        number = modules.index(cast(attention.TimeTransformer, module))
        for side, maps in (("in", given[0]), ("out", output)):
            seen[f"motion_{number}_{side}"] = maps.transpose(0, 1)[None].clone()

    hooks = [module.register_forward_hook(keep) for module in modules]
    made.window(features)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 8
    for name, values in seen.items():
        compared(values, expected[name])


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.stem)
def test_the_manifest_is_the_official_one(path: Path) -> None:
    expected = clip_reference(path)
    spec = registry.find(expected["model"])
    made = registry.build(spec)
    ours = {key: list(value.shape) for key, value in made.state_dict().items()}
    assert ours == {key: shape for key, shape, _, _ in expected["state_dict"]}
    assert sum(p.numel() for p in made.parameters()) == expected["parameters"]


@torch.inference_mode()
@pytest.mark.parametrize(("path", "number"), cases("offline"))
def test_windows_are_the_official_ones(path: Path, number: int) -> None:
    expected = clip_reference(path)
    case, made = expected["cases"][number], filled(expected["model"].removeprefix("metric_"))
    inputs = inputs_of(case, expected["model"])
    features = made.features(torch.cat(inputs[: len(inputs) // 2 + 1]))  # however many at a time
    features += [x for one in inputs[len(features) :] for x in made.features(one)]
    for window in case["windows"]:
        maps = made.window([features[frame] for frame in window["frames"]]).numpy()
        assert list(maps.shape) == window["net"]["shape"]
        errors = [frame_error(*pair) for pair in zip(maps, window["net"]["frames"], strict=True)]
        assert max(errors) < TOLERANCE
    if "probe_window_0" in case:
        probed(made, case["probe_window_0"], features[:32], inputs[:32])


@torch.inference_mode()
@pytest.mark.parametrize(("path", "number"), cases("stream"))
def test_streams_are_the_official_ones(path: Path, number: int) -> None:
    expected = clip_reference(path)
    case, made = expected["cases"][number], filled(expected["model"].removeprefix("metric_"))
    past: CachedStates | None = None
    frame_of: dict[int, int] = {}
    inputs = inputs_of(case, expected["model"])
    for frame, (x, net) in enumerate(zip(inputs, case["net"]["frames"], strict=True)):
        if past is not None and str(frame) in case["context"]:
            assert [frame_of[id(states)] for states in past.context()] == case["context"][str(frame)]
        output, past = made.step(x, past)
        assert frame_error(output[0].numpy(), net) < TOLERANCE
        frame_of[id((past.first, *past.recent)[-1])] = frame
        assert past.frames == frame + 1
    assert past is not None
    shapes = [[x.shape[0], 1, x.shape[1]] for states in past.first for x in states]
    assert shapes == case["cache_shapes"]
    kept = [x for states in (past.first, *past.recent) for pair in states for x in pair]
    assert past.bytes == sum(x.untyped_storage().nbytes() for x in kept)
    full = made.past_bytes(size_of(inputs[0]))
    assert past.bytes == full * min(len(inputs), 42) // 42


def random_inputs(count: int, size_hw: tuple[int, int] = (42, 56)) -> Tensor:
    return torch.randn(count, 3, *size_hw, generator=torch.Generator().manual_seed(1))


def apart(values: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(values - expected).max() / expected.std())


@torch.inference_mode()
def test_one_frame_is_the_same_alone_in_a_window_and_at_the_start_of_a_stream() -> None:
    made, x = filled("video_depth_anything_vits"), random_inputs(3)
    alone = made(x).numpy()
    for number in range(3):
        (features,) = made.features(x[number : number + 1])
        assert apart(made.window([features]).numpy()[0], alone[number]) < 1e-5
        output, past = made.step(x[number : number + 1], None)
        assert apart(output.numpy()[0], alone[number]) < 1e-5
        assert past.frames == 1
    both = made.window(made.features(x[:2])).numpy()
    assert apart(both[0], alone[0]) > 0.01  # the other frame is seen


@torch.inference_mode()
def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither how many frames and pixels are computed at a time, nor how many maps are wanted."""
    made, x = filled("video_depth_anything_vits"), random_inputs(5)
    whole = made.window(made.features(x)).numpy()
    _, past = made.step(x[:1], None)
    streamed = made.step(x[1:2], past)[0].numpy()
    for module in (attention, network):
        monkeypatch.setattr(module, "MOST_NUMBERS", 50_000)
    features = made.features(x)
    parts = made.window(features).numpy()
    assert apart(parts, whole) < 1e-5
    assert apart(made.step(x[1:2], past)[0].numpy(), streamed) < 1e-5
    first = made.window(features, count=2).numpy()
    assert first.shape[0] == 2
    assert apart(first, whole[:2]) < 1e-5


@torch.inference_mode()
def test_a_stream_leaves_what_it_was_given_as_it_was() -> None:
    made, x = filled("video_depth_anything_vits"), random_inputs(3)
    _, past = made.step(x[:1], None)
    before = [t.clone() for pair in past.first for t in pair]
    one, _ = made.step(x[1:2], past)
    made.step(x[2:], past)
    again, _ = made.step(x[1:2], past)
    assert past.frames == 1
    assert torch.equal(one, again)
    assert all(torch.equal(*pair) for pair in zip(before, (t for pair in past.first for t in pair), strict=True))


@torch.inference_mode()
def test_the_features_of_a_frame_own_what_they_are_said_to_take() -> None:
    made = filled("video_depth_anything_vits")
    for features in made.features(random_inputs(3)):
        assert sum(x.untyped_storage().nbytes() for x in features) == made.feature_bytes((42, 56))


def test_the_memory_of_a_stream_is_the_stated_one() -> None:
    made = filled("video_depth_anything_vits")
    assert made.past_bytes((518, 924)) / 42 / 2**20 == pytest.approx(11.4, abs=0.05)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((1920, 1080), (924, 518)),
        ((1280, 640), (924, 462)),
        ((1280, 546), (924, 392)),
        ((608, 1280), (434, 910)),
        ((640, 480), (686, 518)),
        ((8000, 500), (896, 56)),  # a panorama is not enlarged to 518 rows
        ((3840, 2160), (924, 518)),
        ((5, 3), (868, 518)),
        ((1, 1000), (14, 14000)),
    ],
)
def test_the_input_sizes_are_those_of_the_official_script(picture: tuple[int, int], expected: tuple[int, int]) -> None:
    policy = registry.find("metric_video_depth_anything_vitl").input
    assert network_size(policy, picture[::-1]) == expected[::-1]


@torch.inference_mode()
@pytest.mark.parametrize("size_hw", [(14, 14), (14, 70), (42, 28)])
def test_the_least_sizes_and_odd_grids_give_maps(size_hw: tuple[int, int]) -> None:
    made, x = filled("video_depth_anything_vits"), random_inputs(3, size_hw)
    past = None
    maps = made.window(made.features(x))
    assert maps.shape == (3, *size_hw)
    assert maps.isfinite().all()
    for frame in x.split(1):
        output, past = made.step(frame, past)
        assert output.shape == (1, *size_hw)
        assert output.isfinite().all()


@torch.inference_mode()
@pytest.mark.parametrize("precision", HALF_RMS)
def test_half_precision_is_close_to_fp32_in_windows_and_streams(precision: str) -> None:
    exact, spec = filled("video_depth_anything_vits"), registry.find("video_depth_anything_vits")
    preprocess = Preprocessor(spec.input, torch.device("cpu"))
    frames = [preprocess(torch.from_numpy(x), (42, 56), torch.float32) for x in clip(160, 120, 3)]
    half = cast(VideoDepthAnything, placed(exact, spec, torch.device("cpu"), precision))
    results = {}
    for made, dtype in ((exact, torch.float32), (half, DTYPES[precision])):
        xs, past, stream = [x.to(dtype) for x in frames], None, []
        window = made.window(made.features(torch.cat(xs))).float().numpy()
        for x in xs:
            output, past = made.step(x, past)
            stream.append(output.float().numpy()[0])
        assert past is not None
        results[dtype] = (window, np.stack(stream), past.bytes)
    for one, other in zip(results[torch.float32][:2], results[DTYPES[precision]][:2], strict=True):
        assert 0 < np.sqrt(np.square(other - one).mean()) / one.std() < HALF_RMS[precision]
    assert results[DTYPES[precision]][2] * 2 == results[torch.float32][2]
