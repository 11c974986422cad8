"""Clips through networks that see several frames: windows that are joined, streams, and where a clip begins."""

import gc
import json
import weakref
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from threading import Event, Thread

import numpy as np
import pytest
import torch
from torch import Tensor

from stream.channel import Channel
from stream.errors import ModelError
from stream.frames import Depth, Frame
from stream.infer.executor import SerialExecutor
from stream.infer.geometry import network_size
from stream.infer.joining import Joiner
from stream.infer.switching import Switching
from stream.infer.temporal import Clips, Stepper, Streaming, Windowed
from stream.models.spec import Fit, InputPolicy, Resample
from stream.models.temporal import Features
from stream.notes import Notes, collected
from tests.support.clips import on_grid
from tests.support.paths import DATA
from tests.support.reference import clip, window_depth
from tests.support.tiny_model import frame
from tests.support.tiny_video import METRIC, RELATIVE, TinyVideo, official, scene, video_engine

JOINING = json.loads((DATA / "clips" / "joining.json").read_text())["cases"]
UPSAMPLE = Resample.BILINEAR_CORNERS
CORNERS = InputPolicy(
    size_hw=(28, 28), multiple_of=14, fit=Fit.LOWER_BOUND, resample=UPSAMPLE, mean=(0, 0, 0), std=(1, 1, 1), widest=1.78
)
LARGE = (112, 84)
"""Frames on which cuts are looked for."""


def feed(frames: Sequence[Frame]) -> Channel[Frame]:
    channel: Channel[Frame] = Channel(max(1, len(frames)))
    for one in frames:
        channel.put(one)
    channel.close()
    return channel


def nobody(_frame: Frame, reason: str) -> None:
    raise AssertionError(reason)


def run(inference: Streaming | Windowed, frames: Sequence[Frame]) -> list[Depth]:
    """The maps of the frames, each of which has one, in order."""
    results = list(inference.stream(feed(frames), nobody))
    inference.close()
    assert [one.index for one, _ in results] == [one.index for one in frames] == [depth.index for _, depth in results]
    return [depth for _, depth in results]


def close_to(found: Sequence[Depth], expected: Sequence[np.ndarray]) -> bool:  # type: ignore[type-arg]
    differences = [np.abs(one.values - other).max() for one, other in zip(found, expected, strict=True)]
    return bool(max(differences) < 2e-5)


@pytest.mark.parametrize("case", JOINING, ids=lambda case: f"{case['clip']} {case['depth']}")
def test_windows_are_joined_as_the_official_code_joins_them(case: dict[str, object]) -> None:
    width, height, count = case["clip"]  # type: ignore[misc]
    size, source, full = network_size(CORNERS, (height, width)), case["depth"], case["full"]
    joiner, found = Joiner((height, width), UPSAMPLE, fits=not case["metric"]), []
    for window in range(int(case["windows"])):  # type: ignore[call-overload]
        places = range(32)
        if source == "window_depth":
            maps = [torch.from_numpy(window_depth(window, place, *size)) for place in places]
        else:
            maps = [torch.full(size, float(source))] * 32  # type: ignore[arg-type]
        joined = joiner.join(maps, is_last=window + 1 == case["windows"])
        found += [one.at((height, width), UPSAMPLE).numpy() for one in joined]
    for values, expected in zip(found[:count], full["frames"], strict=True):  # type: ignore[index]
        unit = max(expected["std"], 1e-3)
        assert abs(values.mean(dtype=float) - expected["mean"]) < 1e-4 * unit
        assert abs(values.std(dtype=float) - expected["std"]) < 1e-4 * unit
        if "grid6" in expected:
            assert np.abs(on_grid(values, 6) - np.array(expected["grid6"])).max() < 1e-4 * unit


@pytest.mark.parametrize("ratio", [2, 30, 300])
def test_windows_of_a_scene_far_away_are_fitted_as_well(ratio: float) -> None:
    size, joiner = (120, 160), Joiner((120, 160), UPSAMPLE, fits=True)
    shape = torch.rand(32, *size, generator=torch.Generator().manual_seed(0)) * 12**0.5  # the spread is 1
    first = shape + ratio
    joiner.join(list(first), is_last=False)
    seen = torch.stack([first[0], first[12], *shape[2:] + ratio])
    found = joiner.join(list((seen - 0.3) / 1.7), is_last=True)[8:]
    assert max((one.at(size, UPSAMPLE) - own).abs().max() for one, own in zip(found, seen[10:], strict=True)) < 2e-4


@pytest.mark.parametrize("value", [0, 0.1, 777.7])
def test_a_map_of_one_value_keeps_its_scale(value: float) -> None:
    joiner = Joiner((37, 53), UPSAMPLE, fits=True)
    joiner.join(list(torch.rand(32, 14, 14)), is_last=False)
    last = joiner.join([torch.full((14, 14), value)] * 32, is_last=True)[-1]
    assert (last.parts[0].scale, last.parts[0].shift) == (1, 0)


class Late(SerialExecutor):
    """Copies to the host when somebody waits for them, like a GPU; reads no memory that was freed meanwhile."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.queued: list[tuple[Tensor, weakref.ref[Tensor]]] = []

    def to_host(self, values: Tensor) -> Tensor:
        self.queued.append((torch.empty_like(values), weakref.ref(values)))
        return self.queued[-1][0]

    def event(self) -> "Late":  # type: ignore[override]
        return self

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        for to, from_ in self.queued:
            values = from_()
            assert values is not None, "its memory may hold something else by now"
            with torch.inference_mode():
                to.copy_(values)
        self.queued.clear()


def test_joined_maps_are_refined_along_the_edges_of_their_own_frames() -> None:
    """The picture's edge moves from frame to frame; the first window and both blended and later frames follow it."""
    height, width, edges = 120, 160, [40 + number for number in range(60)]
    frames = []
    for number, edge in enumerate(edges):
        rgb = np.full((height, width, 3), (40, 60, 60), np.uint8)
        rgb[:, edge:] = (200, 180, 150)
        frames.append(replace(frame(number), rgb=rgb))
    network = TinyVideo()
    network.conv.padding_mode = "replicate"  # so that the border of the picture is no edge of the map
    plain = run(Windowed(video_engine(network)), frames)
    refined = run(Windowed(video_engine(network, refines=True)), frames)
    assert all(one.refined for one in refined)
    for edge, before, after in zip(edges, plain, refined, strict=True):
        changed = np.flatnonzero(np.abs(after.values - before.values).max(0) > 0)
        reach = 8 * width / 32  # pixels of the map around the edge
        assert len(changed) > 0
        assert abs(changed - edge).max() <= reach
        around = before.values[:, max(0, edge - 48) : edge + 48]
        assert around.min() - 1e-4 <= after.values.min(initial=np.inf, where=after.values != before.values)
        assert around.max() + 1e-4 >= after.values.max(initial=-np.inf, where=after.values != before.values)
        steps = [np.abs(np.diff(one.values, axis=1)).max() for one in (before, after)]
        assert steps[1] > 1.2 * steps[0]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("refines", [False, True])
@pytest.mark.parametrize("batch", [1, 5])
def test_windows_on_cuda_are_those_of_the_cpu(batch: int, refines: bool) -> None:
    frames = [*scene(60, size=LARGE), *scene(30, 60, negative=True, size=LARGE)]  # two clips: three windows and two
    found, expected = (
        run(Windowed(video_engine(batch=batch, refines=refines, device=device)), frames) for device in ("cuda", "cpu")
    )
    for ours, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.values, wanted.values, atol=1e-4 * wanted.values.std())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_stream_on_cuda_is_that_of_the_cpu() -> None:
    frames = [*scene(50, size=LARGE), *scene(10, 50, negative=True, size=LARGE)]
    found, expected = (run(Streaming(video_engine(device=device), is_live=False), frames) for device in ("cuda", "cpu"))
    for ours, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.values, wanted.values, atol=1e-4 * wanted.values.std())


def test_what_is_on_its_way_to_the_host_is_kept_until_it_is_there() -> None:
    frames = scene(60)
    found = run(Windowed(video_engine(executor=Late())), frames)
    assert close_to(found, official(frames, video_engine()))


@pytest.mark.parametrize("output", [RELATIVE, METRIC])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_clip_of_any_length_gets_the_official_maps(output: str, batch: int) -> None:
    lengths = (1, 7, 22, 23, 25, 31, 32, 33, 44, 45, 47, 54, 55, 77) if batch == 1 else (24, 54, 68)
    for count in lengths:
        engine, frames = video_engine(output=output, batch=batch), scene(count)  # type: ignore[arg-type]
        expected = official(frames, engine)
        assert close_to(run(Windowed(engine), frames), expected), count


def test_each_frame_goes_through_the_backbone_once() -> None:
    network = TinyVideo()
    run(Windowed(video_engine(network)), scene(100))
    assert network.computed == 100


def test_a_cut_ends_a_clip_in_the_middle_of_a_window() -> None:
    frames = [*scene(29, size=LARGE), *scene(3, 29, negative=True, size=LARGE), *scene(40, 32, size=LARGE)]
    engine = video_engine()
    parts = [official(part, engine) for part in (frames[:29], frames[29:32], frames[32:])]
    assert close_to(run(Windowed(engine), frames), [one for part in parts for one in part])


def test_another_size_begins_a_clip() -> None:
    frames = [*scene(27), *scene(5, 27, size=(48, 64)), *scene(2, 32)]
    engine = video_engine()
    parts = [official(part, engine) for part in (frames[:27], frames[27:32], frames[32:])]
    assert close_to(run(Windowed(engine), frames), [one for part in parts for one in part])


def test_the_clips_of_the_reference_have_no_cut() -> None:
    sizes = ((160, 120, 54), (90, 200, 47), (320, 240, 8), (64, 48, 90), (40, 72, 47), (32, 24, 60))
    fast = ((64, 48, 33, 11, 7), (128, 72, 40, 20, 12), (100, 75, 40, 20, 12), (160, 120, 40, 20, 12))
    for shape in (*sizes, *fast):
        clips = Clips(is_live=False)
        frames = [replace(frame(i), rgb=rgb) for i, rgb in enumerate(clip(*shape))]
        assert [clips.begins(one, ()) for one in frames] == [True] + [False] * (len(frames) - 1), shape


def test_time_that_goes_back_or_a_live_pause_begins_a_clip() -> None:
    def begins(times: Sequence[float], *, is_live: bool) -> list[bool]:
        clips = Clips(is_live=is_live)
        still = frame(0)
        made = [
            replace(still, index=i, pts=int(time * 100), time_base=Fraction(1, 100)) for i, time in enumerate(times)
        ]
        return [clips.begins(one, ()) for one in made]

    assert begins([0, 1, 0.5, 1.5], is_live=False) == [True, False, True, False]
    assert begins([0, 0.1, 0.2, 9, 9.1], is_live=True) == [True, False, False, True, False]
    assert begins([0, 0.1, 0.2, 9, 9.1], is_live=False) == [True, False, False, False, False]
    assert begins([0, 3, 7, 10, 16], is_live=True) == [True, False, False, False, False]  # a slow model


def test_frames_that_the_model_cannot_take_are_as_if_they_had_never_been() -> None:
    engine, frames, refused = video_engine(fit=Fit.LOWER_BOUND), scene(41), list[int]()
    huge = replace(frame(41), rgb=np.zeros((1, 40_000, 3), np.uint8))
    expected = official(frames, engine)
    given = [*frames[:30], huge, *frames[30:]]
    found = [depth for _, depth in Windowed(engine).stream(feed(given), lambda one, _why: refused.append(one.index))]
    engine.close()
    assert refused == [41]
    assert close_to(found, expected)


def test_what_is_held_does_not_grow_with_the_clip() -> None:
    alive: weakref.WeakSet[Frame] = weakref.WeakSet()
    most = 0

    inference, made = Windowed(video_engine()), scene(7)

    class Endless(Channel[Frame]):
        given = 0

        def get_unless_held_back(self, own: int | None = None) -> Frame:
            return self.get()

        def get(self, timeout_s: float | None = None) -> Frame:
            nonlocal most
            most = max(most, len(alive))
            number = self.given
            self.given += 1
            one = replace(made[number % 7], index=number, pts=number)
            alive.add(one)
            return one

    for number, _result in enumerate(inference.stream(Endless(1), nobody)):
        if number == 500:
            break
    inference.close()
    gc.collect()
    assert most <= 32 + 22 + 4


def test_a_stop_in_the_middle_of_a_window_leaves_out_what_is_not_final() -> None:
    channel, inference = Channel[Frame](100), Windowed(video_engine())
    for one in scene(40):
        channel.put(one)
    channel.close(early=True)
    assert list(inference.stream(channel, nobody)) == []
    inference.close()


def test_a_stop_does_not_wait_for_the_window_that_is_computed() -> None:
    has_begun, may_end = Event(), Event()

    class Slow(TinyVideo):
        def window(self, frames: Sequence[Features], *, count: int | None = None) -> Tensor:
            has_begun.set()
            may_end.wait()
            return super().window(frames, count=count)

    channel, inference, found = Channel[Frame](100), Windowed(video_engine(Slow())), list[object]()
    for one in scene(60):
        channel.put(one)
    thread = Thread(target=lambda: found.extend(inference.stream(channel, nobody)), daemon=True)
    thread.start()
    try:
        assert has_begun.wait(60)
        channel.close(early=True)
        thread.join(20)
        assert not thread.is_alive()
        assert found == []
    finally:
        may_end.set()
        inference.close()


@pytest.mark.parametrize("part", ["window", "again"])
def test_a_window_without_memory_is_an_error_that_names_what_helps(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(TinyVideo):
        def window(self, frames: Sequence[Features], *, count: int | None = None) -> Tensor:
            if part == "window":
                raise torch.OutOfMemoryError("no memory")
            return super().window(frames, count=count)

    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("no memory")

    engine = video_engine(Large(worst=1), precision="bf16")
    monkeypatch.setattr(engine.phases, "input_of", full)
    with pytest.raises(ModelError, match="not fit into the memory of cpu") as caught:
        list(Windowed(engine).stream(feed(scene(3)), nobody))
    engine.close()
    hint = caught.value.hint or ""
    assert "--device cpu" not in hint
    if part == "window":
        assert hint == "use --temporal stream, a smaller --input-size, or --precision fp16"


def test_the_first_cut_is_said_once() -> None:
    said = list[str]()
    frames = [*scene(3, size=LARGE), *scene(3, 3, negative=True, size=LARGE), *scene(3, 6, size=LARGE)]
    with collected(Notes(said.append)):
        run(Streaming(video_engine(), is_live=False), frames)
    assert said == ["a scene cut before frame 3: the model starts anew there and at each further cut"]


def test_a_window_that_does_not_fit_into_the_budget_ends_the_clip_with_a_note() -> None:
    frames, said = scene(20), list[str]()
    channel = Channel[Frame](2, most=8 * frames[0].rgb.nbytes)

    def write() -> None:
        for one in frames:
            channel.put(one, one.rgb.nbytes)
        channel.close()

    engine = video_engine()
    expected = [one for start in range(0, 20, 8) for one in official(frames[start : start + 8], engine)]
    thread = Thread(target=write)
    found = []
    with collected(Notes(said.append)):
        thread.start()
        for one, depth in Windowed(engine).stream(channel, nobody):
            channel.release(one.rgb.nbytes)
            found.append(depth)
        thread.join()
    engine.close()
    assert close_to(found, expected)
    assert said == [
        "8 frames of this size fill the memory: the model starts anew after as many, and its scale may jump; "
        "--temporal stream avoids that"
    ]


def test_others_that_hold_frames_are_waited_for() -> None:
    channel = Channel[int](1, most=2)
    channel.put(0, 1)
    assert channel.get() == 0
    channel.put(1, 1)
    assert channel.get() == 1
    writer = Thread(target=channel.put, args=(2, 1))
    writer.start()  # held back: two are out, one with the reader and one with another
    Thread(target=channel.release, args=(1,)).start()
    assert channel.get_unless_held_back(own=1) == 2
    writer.join()


def test_windows_that_are_not_finite_are_computed_again_in_fp32() -> None:
    engine, frames = video_engine(TinyVideo(worst=40), precision="bf16"), scene(60)
    exact = official(frames, video_engine())
    found = run(Windowed(engine), frames)
    assert engine.counters["precision_fallbacks"] == 36  # all but those of the first window
    assert any("such frames use fp32" in text for text in engine.notes)
    assert max(np.abs(one.values - other).max() for one, other in zip(found, exact, strict=True)) < 0.2


def test_weights_that_give_nothing_finite_are_an_error() -> None:
    network = TinyVideo()
    network.conv.bias.data.fill_(torch.nan)
    for inference in (Windowed(video_engine(network)), Streaming(video_engine(network), is_live=False)):
        with pytest.raises(ModelError, match="frame 0 is not finite in fp32"):
            list(inference.stream(feed(scene(3)), nobody))
        inference.close()


def means(frames: Sequence[Frame]) -> list[float]:
    """What `TinyVideo` adds for earlier frames: their means, and their number."""
    engine, network, sums = video_engine(), TinyVideo(), [0.0]
    with torch.inference_mode():
        for one in frames:
            sums.append(sums[-1] + float(network.features(engine.network_input(one))[0][0].mean()) + 1)
    return sums


def test_a_stream_sees_the_frames_before_it() -> None:
    frames = scene(5)
    found = run(Streaming(video_engine(), is_live=True), frames)
    added = [float(one.values.mean()) for one in found]
    own = [float(run(Streaming(video_engine(), is_live=True), [one])[0].values.mean()) for one in frames]
    assert np.allclose(np.array(added) - own, means(frames)[:-1], atol=1e-4)


def test_a_stream_begins_anew_at_a_cut_a_size_a_pause_and_another_inference_size() -> None:
    engine = video_engine()
    stepper = Stepper(engine, is_live=True)

    def seen(frames: Sequence[Frame]) -> list[int]:
        counts = []
        for one in frames:
            stepper.infer(one)
            assert stepper.state.past is not None
            counts.append(stepper.state.past.frames)
        return counts

    first, other = scene(3, size=LARGE), scene(2, 3, negative=True, size=LARGE)
    assert seen([*first, *other]) == [1, 2, 3, 1, 2]
    assert seen(scene(2, 5, negative=True, size=(48, 64))) == [1, 2]
    late = [replace(one, pts=one.pts + 900) for one in scene(2, 7, negative=True, size=(48, 64))]
    assert seen(late) == [1, 2]
    engine.resize(48)
    assert seen([replace(one, pts=one.pts + 900) for one in scene(2, 9, negative=True, size=(48, 64))]) == [1, 2]
    engine.close()


def test_what_a_stream_keeps_is_bounded() -> None:
    engine = video_engine()
    stepper = Stepper(engine, is_live=True)
    for one in scene(100):
        stepper.infer(one)
    assert stepper.state.past is not None
    assert stepper.state.past.frames == 41
    engine.close()


def test_a_stream_that_is_not_finite_goes_on_in_fp32_from_a_new_start() -> None:
    engine = video_engine(TinyVideo(worst=3), precision="bf16")
    stepper, frames = Stepper(engine, is_live=False), scene(5)
    found = [stepper.infer(one) for one in frames]
    expected = run(Streaming(video_engine(), is_live=False), frames[2:])
    assert [np.abs(one.values - other.values).max() for one, other in zip(found[2:], expected, strict=True)] == [0] * 3
    assert engine.counters["precision_fallbacks"] == 3
    engine.close()


@pytest.mark.parametrize(("is_live", "expected"), [(True, 2), (False, 4)])
def test_a_still_picture_of_a_file_in_a_preview_is_no_pause(is_live: bool, expected: int) -> None:
    both = Switching([video_engine(), video_engine()], is_live=is_live, remembers=[True, False])
    frames = [replace(one, pts=one.pts + 900 * (one.index > 1)) for one in scene(4)]
    assert len(list(both.stream(feed(frames), nobody))) == 4
    stepper = both._steppers[0]
    assert stepper is not None
    assert stepper.state.past is not None
    both.close()
    assert stepper.state.past.frames == expected


def test_a_model_that_a_preview_comes_back_to_begins_a_clip() -> None:
    engines = [video_engine(), video_engine()]
    both, counts = Switching(engines, remembers=[True, False]), []
    for number, _ in enumerate(both.stream(feed(scene(5)), nobody)):
        stepper = both._steppers[0]
        assert stepper is not None
        assert stepper.state.past is not None
        counts.append(stepper.state.past.frames)
        both.current = 1 if number == 1 else 0
    both.close()
    assert counts == [1, 2, 2, 1, 2]


def test_progress_says_what_the_first_result_waits_for() -> None:
    inference, said = Windowed(video_engine()), []

    class Watched(Channel[Frame]):
        def get_unless_held_back(self, own: int | None = None) -> Frame:
            said.append(inference.waiting)
            return super().get_unless_held_back(own)

    channel = Watched(40)
    for one in scene(40):
        channel.put(one)
    channel.close()
    assert inference.waiting == "first window: 0 of 32 frames"
    assert sum(1 for _ in inference.stream(channel, nobody)) == 40
    assert said[0] == "first window: 1 of 32 frames"
    assert said[30] == "first window: 31 of 32 frames"
    assert inference.waiting == ""
    inference.close()
