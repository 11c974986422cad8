"""Depth carried between inferences: every frame gets its own, in order, moved with the picture, and of its scene."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from stream.channel import Channel, WhenFull
from stream.frames import Depth, DepthKind, Frame, Result
from stream.infer.base import Inference
from stream.infer.batcher import EngineInference
from stream.infer.engine import Engine
from stream.infer.pace import MOST, Pace
from stream.infer.skip import OLDEST_S, Skipping
from stream.media import cv2
from tests.support.pumping import FPS, SIZE, View, depth_of, frame_of
from tests.support.scenes import textured
from tests.support.tiny_model import loaded
from tests.support.waiting import WAIT_S

COUNT = 18


def sliding(count: int, *, seed: int = 0, level: float = 2.0, speed: float = 2.0) -> list[View]:
    """A camera that moves evenly along a wall of smooth depth, `level` to `level` + 3."""
    height, width = SIZE
    wall = textured(seed, (height, width + int(speed * count) + 8))
    rough = np.random.default_rng(seed).random((4, 8)).astype(np.float32)
    truth = level + 3 * np.clip(cv2.resize(rough, wall.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
    made = []
    for number in range(count):
        centre = (speed * number + width / 2, height / 2)
        shown, depth = (cv2.getRectSubPix(each, (width, height), centre) for each in (wall, truth))
        made.append(View(rgb=shown, disparity=depth))
    return made


class Truth(Inference):
    """Gives each frame that it sees its true depth.

    Args:
        gate: if given, waited for before each answer.
        refuses: frames that it cannot take, by index.
    """

    def __init__(
        self,
        scene: Sequence[View],
        *,
        kind: DepthKind = DepthKind.RELATIVE_DISPARITY,
        gate: threading.Semaphore | None = None,
        refuses: Callable[[int], bool] = lambda _index: False,
        fails_at: int | None = None,
    ) -> None:
        self.scene, self.kind, self.gate, self.refuses, self.fails_at = scene, kind, gate, refuses, fails_at
        self.seen: list[int] = []

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        for frame in frames:
            self.seen.append(frame.index)
            if self.gate is not None:
                assert self.gate.acquire(timeout=WAIT_S)
            if frame.index == self.fails_at:
                raise OSError("broken")
            if self.refuses(frame.index):
                on_skip(frame, "too large")
            else:
                yield frame, depth_of(self.scene[frame.index], frame.index, kind=self.kind)

    def close(self) -> None:
        pass


def frames_of(scene: Sequence[View]) -> list[Frame]:
    return [frame_of(view, number) for number, view in enumerate(scene)]


def file_of(frames: Sequence[Frame]) -> Channel[Frame]:
    channel: Channel[Frame] = Channel(max(1, len(frames)))
    for frame in frames:
        channel.put(frame)
    channel.close()
    return channel


def carried(model: Inference, frames: Sequence[Frame], every: int, *, batch: int = 1) -> tuple[list[Result], list[str]]:
    """The results of a file, and the frames that were refused, with why."""
    refused: list[str] = []
    stage = Skipping(model, every=every, is_live=False, batch=batch)
    found = list(stage.stream(file_of(frames), lambda frame, why: refused.append(f"{frame.index}: {why}")))
    assert (stage.inferred or 0) + sum(depth.carried for _, depth in found) == len(found)
    return found, refused


def error(depth: Depth, view: View) -> float:
    """Mean difference to the truth, in shares of its range."""
    return float(np.abs(depth.values - view.disparity).mean() / 3)


@pytest.mark.parametrize("every", [2, 4, 7, 16])
def test_every_frame_gets_depth_of_its_own_and_the_model_sees_one_of_n(every: int) -> None:
    scene = sliding(COUNT)
    model, frames = Truth(scene), frames_of(scene)
    found, refused = carried(model, frames, every)
    assert [frame for frame, _ in found] == frames
    assert [depth.index for _, depth in found] == list(range(COUNT))
    assert refused == []
    assert model.seen == sorted({*range(0, COUNT, every), COUNT - 1})  # the last one, so that those before it have two
    assert [depth.index for _, depth in found if not depth.carried] == model.seen


def test_carried_depth_of_a_scene_that_moves_evenly_is_the_depth_that_has_moved() -> None:
    """Within 1 % of the range; the last depth that the model computed, left where it was, is off by 4 %."""
    scene = sliding(COUNT)
    found, _ = carried(Truth(scene), frames_of(scene), 6)
    left = [error(found[k - k % 6][1], scene[k]) for k in range(COUNT) if k % 6]
    moved = [error(depth, scene[depth.index]) for _, depth in found if depth.carried]
    assert np.mean(moved) < 0.01
    assert max(moved) < 0.02
    assert np.mean(moved) < np.mean(left) / 4


def test_metres_of_a_wall_that_comes_nearer_evenly_are_even_between_two_inferences() -> None:
    scene = [
        replace(view, disparity=1 / np.full(SIZE, 10 - 0.5 * k, np.float32))
        for k, view in enumerate(sliding(9, speed=0))
    ]
    found, _ = carried(Truth(scene, kind=DepthKind.METRIC_DEPTH), frames_of(scene), 8)
    for number, (_, depth) in enumerate(found):
        np.testing.assert_allclose(depth.values, 10 - 0.5 * number, rtol=0.01)


def test_no_depth_crosses_a_cut() -> None:
    scene = sliding(10) + sliding(9, seed=5, level=100)
    model = Truth(scene)
    found, _ = carried(model, frames_of(scene), 4)
    assert all((depth.values > 50).all() == (depth.index >= 10) for _, depth in found)
    assert {9, 10} <= set(model.seen)


def test_frames_of_another_size_begin_anew() -> None:
    scene = sliding(6) + [
        View(rgb=cv2.resize(view.rgb, (90, 70)), disparity=cv2.resize(view.disparity, (90, 70))) for view in sliding(6)
    ]
    found, _ = carried(Truth(scene), frames_of(scene), 4)
    assert [depth.size for _, depth in found] == [SIZE] * 6 + [(70, 90)] * 6


def test_the_model_sees_a_frame_sooner_where_the_motion_is_too_large() -> None:
    scene = sliding(24, speed=14)  # half of the picture has left it after six frames
    model = Truth(scene)
    found, _ = carried(model, frames_of(scene), 16)
    assert len(model.seen) > 3
    assert len(found) == 24


def test_a_flash_is_carried_over() -> None:
    scene = sliding(9)
    for at in (3, 4):
        white = np.clip(scene[at].rgb.astype(np.float32) * 40 + 90, 0, 255).astype(np.uint8)
        scene[at] = View(rgb=white, disparity=np.full(SIZE, 999, np.float32))
    model = Truth(scene)
    found, _ = carried(model, frames_of(scene), 3)
    assert not {3, 4} & set(model.seen)
    assert max(float(depth.values.max()) for _, depth in found) < 6


def test_pixels_without_an_answer_stay_so() -> None:
    scene = sliding(5, speed=0)

    class Masked(Truth):
        def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
            for frame, depth in super().stream(frames, on_skip):
                valid = np.ones(SIZE, bool)
                valid[:40] = False
                yield frame, replace(depth, valid=valid, confidence=np.full(SIZE, 0.5, np.float32))

    found, _ = carried(Masked(scene), frames_of(scene), 4)
    for _, depth in found:
        assert depth.valid is not None
        assert np.isnan(depth.values[:38]).all()
        assert np.isfinite(depth.values[42:]).all()
        assert depth.confidence is not None
        np.testing.assert_allclose(depth.confidence, 0.5, atol=1e-5)


def test_a_frame_that_the_model_cannot_take_leaves_its_neighbours_to_the_others() -> None:
    scene = sliding(13)
    found, refused = carried(Truth(scene, refuses=lambda index: index == 4), frames_of(scene), 4)
    assert [depth.index for _, depth in found] == [k for k in range(13) if k != 4]
    assert refused == ["4: too large"]
    none, all_refused = carried(Truth(scene, refuses=lambda _index: True), frames_of(scene), 4)
    assert (none, len(all_refused)) == ([], 13)


def test_batches_are_filled_and_give_the_same() -> None:
    scene = sliding(COUNT)
    runs = []
    for batch in (1, 3):
        engine = Engine(loaded(), device="cpu", precision="fp32", batch=batch)
        stage = EngineInference(engine, batch=batch, stills=False)
        runs.append(carried(stage, frames_of(scene), 4, batch=batch)[0])
        stage.close()
    for (_, one), (_, other) in zip(*runs, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)


def test_the_error_of_the_model_comes_out_as_it_is() -> None:
    scene = sliding(COUNT)
    with pytest.raises(OSError, match="broken"):
        carried(Truth(scene, fails_at=8), frames_of(scene), 4)


def test_whoever_stops_early_leaves_no_thread() -> None:
    scene = sliding(COUNT)
    stage = Skipping(Truth(scene), every=4, is_live=False)
    results = stage.stream(file_of(frames_of(scene)), lambda *_: None)
    next(results)
    results.close()  # type: ignore[attr-defined]


def test_an_end_before_the_source_has_ended_costs_no_further_inference() -> None:
    scene = sliding(3)
    channel: Channel[Frame] = Channel(3)
    for frame in frames_of(scene):
        channel.put(frame)
    channel.close(early=True)
    model = Truth(scene)
    assert list(Skipping(model, every=4, is_live=False).stream(channel, lambda *_: None)) == []
    assert model.seen in ([], [0])


def test_little_memory_means_more_inferences_and_no_frame_lost(notes: list[str]) -> None:
    scene = sliding(12)
    frames = frames_of(scene)
    weight = frames[0].rgb.nbytes
    channel: Channel[Frame] = Channel(4, most=3 * weight)

    def write() -> None:
        for frame in frames:
            channel.put(frame, weight)
        channel.close()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    model, found = Truth(scene), []
    for _, depth in Skipping(model, every=16, is_live=False).stream(channel, lambda *_: None):
        found.append(depth.index)
        channel.release(weight)
    writer.join(WAIT_S)
    assert found == list(range(12))
    assert len(model.seen) > 2
    assert [text for text in notes if "--skip 16" in text] != []


class Camera:
    """A live source whose frames a test gives one by one."""

    def __init__(self, model: Inference, *, every: int | None) -> None:
        self.frames: Channel[Frame] = Channel(1, WhenFull.DROP_OLDEST)
        self.refused: list[str] = []
        self.stage = Skipping(model, every=every, is_live=True)
        self._results = self.stage.stream(self.frames, lambda _frame, why: self.refused.append(why))

    def shows(self, frame: Frame) -> Depth:
        self.frames.put(frame)
        shown, depth = next(self._results)
        assert shown is frame
        return depth

    def ends(self) -> None:
        self.frames.close()
        assert list(self._results) == []


def test_a_live_frame_does_not_wait_for_the_model_and_what_it_says_later_is_used() -> None:
    scene, gate = sliding(COUNT), threading.Semaphore(1)
    scene = [replace(view, disparity=view.disparity + (100 if at == 3 else 0)) for at, view in enumerate(scene)]
    model = Truth(scene, gate=gate)
    camera, frames = Camera(model, every=3), frames_of(scene)
    assert not camera.shows(frames[0]).carried  # the first of a scene waits
    for number in range(1, 12):  # the model has the third, and is held there
        depth = camera.shows(frames[number])
        assert depth.carried
        assert error(depth, scene[number]) < 0.03 or number == 3
    assert model.seen == [0, 3]
    for _ in range(9):
        gate.release()
    number = 12
    while not camera.shows(frames[number]).values.min() > 50:
        threading.Event().wait(0.01)
        number += number < COUNT - 1
        frames[number] = replace(frames[number], index=frames[number].index + COUNT)
    camera.ends()


def test_a_live_frame_waits_where_the_last_depth_is_too_old() -> None:
    scene = sliding(2, speed=1)
    late = [frame_of(scene[0], 0), frame_of(scene[1], 1), frame_of(scene[1], 2, step=int(FPS * (OLDEST_S + 1)))]
    gate = threading.Semaphore(1)
    model = Truth([*scene, replace(scene[1], disparity=scene[1].disparity + 100)], gate=gate)
    camera = Camera(model, every=1 + 1)
    camera.shows(late[0])
    camera.shows(late[1])
    gate.release()
    gate.release()
    camera.shows(late[2])
    camera.ends()
    assert camera.refused == []


def test_the_first_live_frame_of_a_scene_waits_for_the_model() -> None:
    scene = sliding(5) + sliding(5, seed=5, level=100)
    camera = Camera(Truth(scene), every=8)
    depths = [camera.shows(frame) for frame in frames_of(scene)]
    camera.ends()
    assert [depth.index for depth in depths if not depth.carried] == [0, 5]
    assert all((depth.values > 50).all() == (depth.index >= 5) for depth in depths)


def test_a_live_source_goes_on_after_frames_that_the_model_cannot_take() -> None:
    scene = sliding(6)
    model = Truth(scene, refuses=lambda index: index < 2)
    frames: Channel[Frame] = Channel(6)
    for frame in frames_of(scene):
        frames.put(frame)
    frames.close()
    refused: list[int] = []
    stage = Skipping(model, every=4, is_live=True)
    found = [depth.index for _, depth in stage.stream(frames, lambda frame, _: refused.append(frame.index))]
    assert (refused, found) == ([0, 1], [2, 3, 4, 5])


def paced(pace: Pace, took_s: float, count: int = 12, first: int = 0) -> None:
    view = sliding(1)[0]
    for number in range(first, first + count):
        pace.arrived(frame_of(view, number))
        pace.inferred(took_s)


@pytest.mark.parametrize(("took_s", "every"), [(0.01, 1), (0.07, 2), (0.15, 5), (0.25, 7), (9.0, MOST)])
def test_the_pace_keeps_the_rate_of_the_source(took_s: float, every: int, notes: list[str]) -> None:
    pace = Pace()
    paced(pace, took_s)
    assert pace.every == every
    assert (notes != []) == (every > 1)
    assert all("--skip auto: one of" in text for text in notes)


def test_the_pace_keeps_a_rate_that_is_asked_for_and_falls_when_there_is_room() -> None:
    pace = Pace(target_fps=12.5)
    paced(pace, 0.25)
    assert pace.every == 4
    paced(pace, 0.04, count=30, first=12)
    assert pace.every == 1
    paced(pace, 0.05, count=30, first=42)  # not to and fro
    assert pace.every == 1
