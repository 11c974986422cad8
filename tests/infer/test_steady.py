"""Steady values: pumping is taken out along the motion of the picture, and nothing else is changed."""

import numpy as np
import pytest

from stream.frames import ComparedDepth, Depth, DepthKind, Frame
from stream.media import cv2
from stream.motion.align import LEAK_S, MOST_SCALE
from stream.motion.cuts import CutDetector
from stream.motion.flow import flow_size
from tests.support.pumping import FPS, SIZE, Given, View, depth_of, frame_of, steadied, views
from tests.support.scenes import textured

RELATIVE, METRIC = DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC_DEPTH
COUNT = 40


def pumped(
    scene: list[View], *, kind: DepthKind = RELATIVE, first: int = 0, most: float = 1.3, seed: int = 3, model: str = ""
) -> list[tuple[Frame, Depth]]:
    """The results of a model whose scale differs in each frame, and whose shift does if the kind has one."""
    rng, results = np.random.default_rng(seed), []
    for number, view in enumerate(scene, first):
        scale, shift = np.exp(rng.uniform(-np.log(most), np.log(most))), rng.uniform(-1, 1) if kind.is_disparity else 0
        depth = depth_of(view, number, scale=scale, shift=shift, kind=kind, model=model)
        results.append((frame_of(view, number), depth))
    return results


def relation(depth: Depth, view: View) -> tuple[float, float]:
    """The scale and the middle level of a map against the true disparity, over all its pixels."""
    values = depth.values if depth.kind.is_disparity else 1 / depth.values
    known = np.isfinite(values)
    scale, shift = np.polyfit(view.disparity[known].astype(float), values[known].astype(float), 1)
    return float(scale), float(scale * 3.5 + shift)


def pumping(depths: list[Depth], scene: list[View]) -> tuple[float, float]:
    """Mean steps from frame to frame of the scale (in logarithms) and of the level: 0 and 0 for a steady model."""
    numbers = np.array([relation(depth, view) for depth, view in zip(depths, scene, strict=True)])
    return float(np.abs(np.diff(np.log(numbers[:, 0]))).mean()), float(np.abs(np.diff(numbers[:, 1])).mean())


@pytest.fixture(scope="module")
def scene() -> list[View]:
    return views(COUNT)


@pytest.mark.parametrize(("kind", "most"), [(RELATIVE, 1.3), (DepthKind.RELATIVE_DEPTH, 1.3), (METRIC, 1.1)])
def test_nine_tenths_of_the_pumping_are_taken_out(scene: list[View], kind: DepthKind, most: float) -> None:
    results = pumped(scene, kind=kind, most=most)
    found, stage = steadied(results)
    before, after = pumping([depth for _, depth in results], scene), pumping(found, scene)
    assert after[0] < 0.1 * before[0]
    assert after[1] < 0.1 * before[1]
    (change,) = stage.depth_changes
    assert change is not None
    assert change.pairs == COUNT - 1
    assert change.steadied is not None
    assert change.steadied < 0.4 * change.raw
    assert [depth.kind for depth in found] == [kind] * COUNT


def test_pumping_is_corrected_by_one_scale_and_one_shift_of_the_whole_map(scene: list[View]) -> None:
    results = pumped(scene[:8])
    for new, (_, old) in zip(steadied(results)[0], results, strict=True):
        scale, shift = np.polyfit(old.values.ravel().astype(float), new.values.ravel().astype(float), 1)
        assert scale > 0
        left = new.values - scale * old.values - shift
        assert np.abs(left).max() < 0.03 * np.ptp(new.values)  # the things that come nearer


def test_what_flickers_in_parts_is_taken_out_and_edges_stay_as_the_model_sees_them(scene: list[View]) -> None:
    rng, results = np.random.default_rng(1), []
    for number, view in enumerate(scene):
        patches = cv2.resize(rng.normal(0, 0.15, (3, 4)).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        flickering = View(rgb=view.rgb, disparity=view.disparity + patches)
        results.append((frame_of(view, number), depth_of(flickering, number)))
    found, stage = steadied(results)
    (change,) = stage.depth_changes
    assert change is not None
    assert change.steadied is not None
    assert change.steadied < 0.4 * change.raw
    for new, (_, old) in zip(found, results, strict=True):
        scale, shift = np.polyfit(old.values.ravel().astype(float), new.values.ravel().astype(float), 1)
        field = new.values - scale * old.values - shift
        extent = float(np.ptp(old.values))
        assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 0.04 * extent  # no edges of its own
        for row in (30, 80):  # the edges of the things
            before, after = (np.abs(np.diff(each.values[row])) for each in (old, new))
            at = int(before.argmax())
            assert after[at] == after[max(at - 2, 0) : at + 3].max()
            assert after[at] == pytest.approx(scale * before[at], rel=0.1)


def test_metres_are_only_scaled_and_within_a_quarter(scene: list[View]) -> None:
    results = pumped(scene[:20], kind=METRIC, most=2.5)
    for new, (_, old) in zip(steadied(results)[0], results, strict=True):
        ratio = new.values / old.values
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
        assert 1 / MOST_SCALE[METRIC] - 1e-6 < ratio[0, 0] < MOST_SCALE[METRIC] + 1e-6
    assert len({round(float(depth.values[0, 0]), 4) for depth in steadied(results)[0]}) > 1


def test_a_steady_model_is_left_alone(scene: list[View]) -> None:
    results = [(frame_of(view, number), depth_of(view, number)) for number, view in enumerate(scene)]
    found, stage = steadied(results)
    for new, (_, old) in zip(found, results, strict=True):
        np.testing.assert_allclose(new.values, old.values, atol=0.08 * float(np.ptp(old.values)))
    (change,) = stage.depth_changes
    assert change is not None
    assert change.steadied == pytest.approx(change.raw, rel=0.1)


def test_a_cut_starts_at_once_with_the_models_own_values(scene: list[View]) -> None:
    results = pumped(scene[:10]) + pumped(views(10, seed=9), first=10, seed=4)
    found, _ = steadied(results)
    for at in (0, 10):
        assert np.array_equal(found[at].values, results[at][1].values)
    assert not np.array_equal(found[9].values, results[9][1].values)
    after = pumping(found[10:], views(10, seed=9))
    assert after[0] < 0.1 * pumping([depth for _, depth in results[10:]], views(10, seed=9))[0]


def test_a_cut_that_the_detector_misses_starts_at_once_too(scene: list[View], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CutDetector, "is_cut", lambda *_: False)
    results = pumped(scene[:10]) + pumped(views(10, seed=9), first=10, seed=4)
    found, _ = steadied(results)
    assert [at for at in range(20) if np.array_equal(found[at].values, results[at][1].values)] == [0, 10]


def flash(view: View, gain: float) -> View:
    return View(rgb=np.clip(view.rgb.astype(np.float32) * gain + 90, 0, 255).astype(np.uint8), disparity=view.disparity)


@pytest.mark.parametrize("gain", [0.9, 1.5, 40.0])
def test_a_flash_breaks_nothing(scene: list[View], gain: float) -> None:
    results = pumped(scene)
    for at in (20, 21):
        noise = np.random.default_rng(at).random(SIZE).astype(np.float32)  # what a model makes of a white image
        values = noise if gain > 2 else results[at][1].values
        results[at] = frame_of(flash(scene[at], gain), at), Depth(values=values, kind=RELATIVE, index=at)
    found, _ = steadied(results)
    kept = [number for number in range(COUNT) if number not in (20, 21)]
    after = pumping([found[at] for at in kept], [scene[at] for at in kept])
    before = pumping([results[at][1] for at in kept], [scene[at] for at in kept])
    assert after[0] < 0.1 * before[0]
    assert after[1] < 0.1 * before[1]


def test_a_frozen_picture_keeps_its_values(scene: list[View]) -> None:
    results = pumped([scene[0]] * 30)
    found, _ = steadied(results)
    extent = float(np.ptp(found[0].values))
    for new, old in zip(found[1:], found, strict=False):
        assert np.abs(new.values - old.values).max() < 0.05 * extent
    assert np.abs(results[1][1].values - results[0][1].values).max() > 0.1 * extent


def test_noisy_frames_neither_drift_nor_collapse() -> None:
    size = 72, 96
    rng, results, scene = np.random.default_rng(5), [], views(30, size=size)
    way = [*range(30), *range(28, 0, -1)]
    for number in range(400):
        view = scene[way[number % len(way)]]
        noise = rng.normal(0, 0.3, size).astype(np.float32)  # a tenth of the range
        scale, shift = np.exp(rng.uniform(-0.2, 0.2)), rng.uniform(-0.5, 0.5)
        values = (scale * (view.disparity + noise) + shift).astype(np.float32)
        results.append((frame_of(view, number), Depth(values=values, kind=RELATIVE, index=number)))
    found, _ = steadied(results)
    scales, levels = np.array([relation(new, scene[way[at % len(way)]]) for at, new in enumerate(found)][200:]).T
    assert scales.min() > 0.75
    assert scales.max() < 1.25
    assert np.abs(levels - 3.5).max() < 0.5


def test_a_lasting_change_of_the_models_scale_is_followed_within_seconds(scene: list[View]) -> None:
    rate = 5
    frames = [scene[0]] * int(6 * LEAK_S * rate)
    results = [
        (frame_of(view, at, step=FPS // rate), depth_of(view, at, scale=1.0 if at < 10 else 1.6))
        for at, view in enumerate(frames)
    ]
    found, _ = steadied(results)
    assert relation(found[10], scene[0])[0] == pytest.approx(1.0, abs=0.1)
    assert relation(found[-1], scene[0])[0] == pytest.approx(1.6, rel=0.02)


@pytest.mark.parametrize("kind", [RELATIVE, DepthKind.RELATIVE_DEPTH])
def test_pixels_without_an_answer_stay_so_and_do_not_count(scene: list[View], kind: DepthKind) -> None:
    valid = np.ones(SIZE, bool)
    valid[:50] = False
    results = [(frame, Depth(values=one.values, kind=kind, index=one.index, valid=valid))
               for frame, one in pumped(scene[:30], kind=kind)]  # fmt: skip
    found, _ = steadied(results)
    for depth in found:
        assert depth.valid is not None
        assert np.array_equal(depth.valid, valid)
        assert np.isnan(depth.values[:50]).all()
    before, after = pumping([depth for _, depth in results], scene[:30]), pumping(found, scene[:30])
    assert after[0] < 0.12 * before[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (300, 1), (7, 5), (20, 640), (33, 16)])
def test_frames_of_every_size_pass(size: tuple[int, int]) -> None:
    rng, results = np.random.default_rng(0), []
    for number in range(4):
        rgb = rng.integers(0, 255, (*size, 3), np.uint8)
        values = rng.random(size).astype(np.float32)
        frame = frame_of(View(rgb=rgb, disparity=values), number)
        results.append((frame, Depth(values=values, kind=RELATIVE, index=number)))
    found, _ = steadied(results)
    assert [depth.size for depth in found] == [size] * 4
    assert np.array_equal(found[0].values, results[0][1].values)


@pytest.mark.parametrize("value", [0.0, -2.0, 3e38, 1e-40])
@pytest.mark.parametrize("kind", list(DepthKind))
def test_constant_maps_stay_as_they_are(scene: list[View], kind: DepthKind, value: float) -> None:
    results = [
        (frame_of(view, at), Depth(values=np.full(SIZE, value, np.float32), kind=kind, index=at))
        for at, view in enumerate(scene[:4])
    ]
    for depth in steadied(results)[0]:
        assert np.array_equal(depth.values, np.full(SIZE, value, np.float32))


def test_maps_without_an_answer_and_huge_values_end_nothing(scene: list[View]) -> None:
    results = pumped(scene[:9])
    nothing = np.zeros(SIZE, bool)
    results[3] = results[3][0], Depth(values=results[3][1].values, kind=RELATIVE, index=3, valid=nothing)
    huge = results[6][1].values.copy()
    huge[5, 5] = 3e38
    results[6] = results[6][0], Depth(values=huge, kind=RELATIVE, index=6)
    found, _ = steadied(results)
    assert found[3].valid is not None
    assert not found[3].valid.any()
    assert np.array_equal(found[6].values, huge)
    for at in (4, 7):  # the first map after it
        assert np.array_equal(found[at].values, results[at][1].values)


def test_another_model_and_another_size_start_afresh(scene: list[View]) -> None:
    small = views(5, size=(100, 130))
    results = [*pumped(scene[:5], model="a"), *pumped(scene[5:10], first=5, model="b"), *pumped(small, first=10)]
    found, _ = steadied(results)
    for at in (0, 5, 10):
        assert np.array_equal(found[at].values, results[at][1].values)
    for at in (4, 9, 14):
        assert not np.array_equal(found[at].values, results[at][1].values)


def test_another_size_starts_afresh_where_the_flow_size_stays_the_same(scene: list[View]) -> None:
    sizes_wh = [(320, 240)] * 5 + [(640, 480)] * 5 + [(960, 720)] * 5
    shown = [
        View(rgb=cv2.resize(view.rgb, size_wh), disparity=cv2.resize(view.disparity, size_wh))
        for view, size_wh in zip(scene[:15], sizes_wh, strict=True)
    ]
    for at in (7, 10):  # black within a size, and at the first frame of a size
        shown[at] = View(rgb=np.zeros_like(shown[at].rgb), disparity=shown[at].disparity)
    results = pumped(shown)
    assert len({flow_size(frame.size) for frame, _ in results}) == 1
    found, stage = steadied(results)
    is_own = [np.array_equal(new.values, old.values) for new, (_, old) in zip(found, results, strict=True)]
    assert [at for at, own in enumerate(is_own) if own] == [0, 5, 10, 11]
    (change,) = stage.depth_changes
    assert change is not None
    assert change.pairs == 4 + 3 + 3


def test_dropped_frames_are_no_cut(scene: list[View]) -> None:
    kept = scene[::4]
    results = pumped(kept)
    found, _ = steadied(results)
    assert pumping(found, kept)[0] < 0.15 * pumping([depth for _, depth in results], kept)[0]


def test_compared_models_are_steadied_each_by_itself(scene: list[View]) -> None:
    first, second = pumped(scene[:20], model="a"), pumped(scene[:20], model="b", seed=8)
    together = [
        (frame, ComparedDepth(values=a.values, kind=a.kind, index=a.index, others=(b,)))
        for (frame, a), (_, b) in zip(first, second, strict=True)
    ]
    found, stage = steadied(together)
    (first_alone, _), (second_alone, _) = steadied(first), steadied(second)
    for number, depth in enumerate(found):
        assert isinstance(depth, ComparedDepth)
        assert np.array_equal(depth.values, first_alone[number].values)
        assert np.array_equal(depth.others[0].values, second_alone[number].values)
        assert depth.others[0].model == "b"
    assert len(stage.depth_changes) == 2


def test_it_only_measures_if_it_is_asked_to(scene: list[View]) -> None:
    results = pumped(scene[:10])
    found, stage = steadied(results, adjust=False)
    assert all(new is old for new, (_, old) in zip(found, results, strict=True))
    (change,) = stage.depth_changes
    assert change is not None
    assert (change.steadied, change.pairs) == (None, 9)
    assert change.raw > 0.05


def test_closing_it_closes_the_model() -> None:
    given = Given([])
    _, stage = steadied([])
    stage._inference = given
    stage.close()
    assert given.is_closed


def test_noise_without_a_common_scene_is_left_to_the_limits() -> None:
    """Frames with nothing in common that no cut separates: the correction stays within its limits."""
    rng, results = np.random.default_rng(2), []
    rgb = textured(1, SIZE)
    for number in range(40):
        values = (rng.random(SIZE) * 10 ** rng.uniform(-3, 3)).astype(np.float32)
        frame = frame_of(View(rgb=rgb, disparity=values), number)
        results.append((frame, Depth(values=values, kind=RELATIVE, index=number)))
    for new, (_, old) in zip(steadied(results)[0], results, strict=True):
        assert np.ptp(new.values) <= MOST_SCALE[RELATIVE] * np.ptp(old.values) * 1.001
        assert np.ptp(new.values) >= np.ptp(old.values) / MOST_SCALE[RELATIVE] * 0.999
