"""A loaded model, a module of one's own, an opened source, and an iteration that any thread stops."""

import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import stream
from stream.capture.base import CaptureLog, Source
from stream.errors import ModelError, SinkError, SourceError, StreamError, UsageError
from stream.frames import Frame, SourceKind
from stream.jobs.keys import is_of_model, is_of_source
from stream.jobs.loaded import engine_of
from stream.jobs.models import make_engine
from stream.jobs.options import OPTIONS, from_options
from stream.media import av
from stream.models import own, registry
from stream.notes import Notes
from tests.support.picture_files import save, scene

QUICK = {"backend": "torch", "input_size": 64}


@pytest.fixture(scope="module")
def model() -> Iterator[stream.Model]:
    with stream.load(**QUICK, batch=2) as loaded:
        loaded(scene())  # its threads begin before the tests that watch threads
        yield loaded


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save(tmp_path / "a.png", scene())


def by_itself(image: Any, **options: Any) -> stream.Depth:
    return next(stream.iter_depth([image], **{**QUICK, **options}))[1]


def test_a_loaded_model_gives_the_depth_of_a_run(model: stream.Model, photo: Path) -> None:
    wanted = by_itself(photo)
    with Image.open(photo) as image:
        frame = next(stream.iter_depth(photo, model=model))[0]
        for given in (scene(), str(photo), photo, image, frame):
            depth = model(given)
            assert np.array_equal(depth.values, wanted.values)
            assert (depth.kind, depth.model, depth.index) == (model.kind, "starter", 0)
    assert (model.name, model.device, model.precision, model.backend) == ("starter", "cpu", "fp32", "torch")


def test_several_images_are_answered_in_order_whatever_their_shapes(model: stream.Model, photo: Path) -> None:
    wide, tall = scene(), np.ascontiguousarray(scene().transpose(1, 0, 2))
    images = [wide, tall, photo, wide[::-1], tall[::-1], wide[:1, :1]]
    depths = model(images)
    assert [depth.size for depth in depths] == [(40, 64), (64, 40), (40, 64), (40, 64), (64, 40), (1, 1)]
    for number, (image, depth) in enumerate(zip(images, depths, strict=True)):
        assert depth.index == number
        assert np.allclose(depth.values, model(image).values, atol=1e-4 * np.ptp(depth.values) + 1e-6)
    batch = np.stack([wide, wide[::-1]])
    assert [np.array_equal(*pair) for pair in zip(model(list(batch)), model(batch), strict=True)] == [True, True]  # type: ignore[call-overload]
    assert model([]) == []


def test_an_iterator_may_refill_its_array(model: stream.Model) -> None:
    buffer, images = scene().copy(), [scene(), scene()[::-1].copy(), scene()[:, ::-1].copy()]

    def refilled() -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        for image in images:
            buffer[:] = image
            yield buffer

    for one, other in zip(model(refilled()), model(images), strict=True):
        assert np.array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("images", "error", "said"),
    [
        (5, UsageError, "images: an int is no image"),
        (scene().astype(np.float32), UsageError, "image 0: an array of float32 40×64×3 is no image"),
        ([scene(), None], UsageError, "image 1: a NoneType is no image"),
        (torch.zeros(3, 8, 8), UsageError, "pass tensor.permute(1, 2, 0).cpu().numpy(), as uint8"),
        ("nofile.png", SourceError, "nofile.png"),
        ([scene(), "nofile.png"], SourceError, "nofile.png"),
    ],
)
def test_what_is_no_image_is_refused_and_the_model_goes_on(
    model: stream.Model, images: Any, error: type[StreamError], said: str
) -> None:
    with pytest.raises(error) as caught:
        model(images)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert model(scene()).size == (40, 64)


def test_a_panorama_that_is_too_long_is_refused() -> None:
    said = "a 20000×1 image would need a 1280000×64 network input"
    with stream.Model.from_module(Brightness("N×H×W"), output="depth", size=64, multiple_of=4) as model:
        with pytest.raises(ModelError, match=said):
            model([scene(), np.zeros((1, 20_000, 3), np.uint8)])
        assert model(scene()).size == (40, 64)


def test_a_clip_and_a_folder_are_named_as_what_they_are(model: stream.Model, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    stream.run([scene()] * 2, output=film, fps=5, model=model)
    for source in (film, [scene(), str(film)], tmp_path, "pattern:testsrc2", f"{tmp_path}/*.png", "0"):
        with pytest.raises(SourceError, match=r"is no image; stream.iter_depth\(…, model=model\) reads"):
            model(source)
    with stream.open_source(film) as source, pytest.raises(UsageError, match="iter_depth"):
        model(source)


def test_a_model_serves_many_runs_and_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stream.models import registry

    built: list[str] = []
    build = registry.build
    monkeypatch.setattr(registry, "build", lambda spec: built.append(spec.name) or build(spec))
    with stream.load(**QUICK, batch=2) as model:
        for name in ("one", "two"):
            report = stream.run([scene()] * 3, output=tmp_path / name, save="npy", model=model)
            assert (report.written, report.model, report.backend) == (3, "starter", "torch")
        frames = list(stream.iter_depth([scene()], model=model))
        assert np.allclose(frames[0][1].values, np.load(tmp_path / "one" / "000000.npy"), atol=1e-5)
        clip = tmp_path / "clip.mp4"
        report = stream.run([scene()] * 3, output=clip, fps=5, range="clip", model=model)
        assert report.written == 3
        for _frame, _depth in stream.iter_depth(clip, model=model):
            break
        assert model(scene()).size == (40, 64)
    assert built == ["starter"]
    assert "closed" in repr(model)
    for use in (lambda: model(scene()), lambda: stream.run([scene()], output=tmp_path / "x", model=model)):
        with pytest.raises(UsageError, match="starter: the model is closed; load it again"):
            use()
    model.close()


def test_the_counts_of_a_run_are_its_own(tmp_path: Path) -> None:
    """A network that overflows in half precision is counted in each run anew."""
    with stream.Model.from_module(Overflowing(), output="depth", size=16, multiple_of=1, precision="bf16") as model:
        for name, images in (("one", 3), ("two", 1)):
            report = stream.run([scene()] * images, output=tmp_path / name, model=model)
            assert report.counters["precision_fallbacks"] == images
        assert "non-finite" in report.notes[0]


def test_a_model_in_use_refuses_another_run_and_recovers(model: stream.Model, tmp_path: Path) -> None:
    endless = stream.iter_depth((scene() for _ in iter(int, 1)), model=model)
    next(endless)
    for use in (
        lambda: model(scene()),
        lambda: next(stream.iter_depth([scene()], model=model)),
        lambda: stream.run([scene()], output=tmp_path / "out", model=model),
    ):
        with pytest.raises(UsageError, match="starter: the model is in use by a run; let that end") as caught:
            use()
        assert "\n" not in str(caught.value)
    endless.close()
    assert model(scene()).size == (40, 64)
    with pytest.raises(ZeroDivisionError):
        stream.run([scene()] * 9, output=tmp_path / "bad", model=model, on_progress=lambda now: 1 / (now.done < 2))
    with pytest.raises(StreamError):
        stream.run("nofile.mp4", output=tmp_path / "bad.mp4", model=model)
    assert model(scene()).size == (40, 64)


def test_a_model_that_is_closed_during_a_run_is_released_after_it() -> None:
    model = stream.load(**QUICK)
    results = stream.iter_depth([scene()] * 3, model=model)
    next(results)
    model.close()
    assert len(list(results)) == 2
    with pytest.raises(UsageError, match="is closed"):
        model(scene())


def within(action: Callable[[], Any]) -> Any:
    """What `action` returns or raises, on a thread, so that a deadlock fails the test instead of stopping all."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(action())
        except Exception as error:  # noqa: BLE001  the test's thread raises it
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert outcome, "it waits forever"
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def is_same(one: stream.Depth, other: stream.Depth) -> bool:
    """Within what another batch changes in the rounding; the images of these tests differ far more."""
    return one.size == other.size and np.allclose(one.values, other.values, atol=1e-4 * np.ptp(other.values) + 1e-6)


def test_an_iterator_may_use_the_model_itself(tmp_path: Path) -> None:
    """Its batches are in flight then, and belong to it; the tall image is a batch that is not full."""
    images = [np.roll(scene(), number, axis=1) for number in range(5)]
    images.insert(1, np.ascontiguousarray(scene().transpose(1, 0, 2)))
    with stream.load(**QUICK, batch=2) as model:
        wanted = [model(image) for image in images]

        def mine() -> Iterator[Any]:
            for number, image in enumerate(images):
                yield image
                (inner,) = model(iter([images[number - 1]]))
                assert is_same(inner, wanted[number - 1])
            assert len(list(stream.iter_depth([scene()], model=model))) == 1
            assert stream.run([scene()], output=tmp_path / "a.png", model=model).written == 1

        found = within(lambda: model(mine()))
    assert [depth.index for depth in found] == list(range(6))
    assert all(is_same(*pair) for pair in zip(found, wanted, strict=True))


def test_a_call_that_waits_for_its_iterator_does_not_hold_up_others(model: stream.Model) -> None:
    waits, goes_on = threading.Event(), threading.Event()

    def slow() -> Iterator[Any]:
        for _ in range(3):
            yield scene()
        waits.set()
        assert goes_on.wait(30)
        yield scene()[::-1]

    found: list[list[stream.Depth]] = []
    thread = threading.Thread(target=lambda: found.append(model(slow())), daemon=True)
    thread.start()
    assert waits.wait(30)
    other = within(lambda: model([scene()[::-1]] * 3))
    with pytest.raises(UsageError, match="image 0"):
        within(lambda: model([None]))  # type: ignore[list-item]
    goes_on.set()
    thread.join(30)
    assert [len(depths) for depths in found] == [4], "the failure of another call is not its own"
    assert is_same(found[0][3], other[0])
    assert is_same(found[0][0], model(scene()))


def test_a_call_fails_whose_iterator_gave_the_model_away() -> None:
    model, ended = stream.load(**QUICK), list[str]()
    runs: list[Any] = []

    def lends() -> Iterator[Any]:
        yield scene()
        runs.append(stream.iter_depth([scene()] * 2, model=model))
        next(runs[0])
        yield scene()
        ended.append("not reached")

    with pytest.raises(UsageError, match="starter: the model is in use by a run"):
        within(lambda: model(lends()))
    assert len(list(runs[0])) == 1
    assert model(scene()).size == (40, 64)

    def closes() -> Iterator[Any]:
        yield from [scene()] * 2
        model.close()
        yield scene()
        ended.append("not reached")

    with pytest.raises(UsageError, match="starter: the model is closed; load it again"):
        within(lambda: model(closes()))
    assert ended == []

    def closes_last() -> Iterator[Any]:
        yield from [scene()] * 2
        last.close()

    with stream.load(**QUICK, batch=2) as last:
        assert len(within(lambda: last(closes_last()))) == 2, "all had been submitted"


def test_the_error_of_a_batch_belongs_to_its_call() -> None:
    """Another call, which collects the batch, does not fail."""
    dark, light = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    with stream.Model.from_module(Acting(lambda y: y / y), output="depth", batch=1, **SMALL) as model:

        def mine() -> Iterator[Any]:
            yield dark
            assert [depth.values.max() for depth in within(lambda: model([light] * 9))] == [1] * 9
            yield light

        with pytest.raises(ModelError, match="is not finite"):
            within(lambda: model(mine()))
        assert model(light).values.max() == 1


def test_threads_share_a_model(model: stream.Model) -> None:
    images = [np.roll(scene(), number, axis=1) for number in range(6)]
    wanted, found = [model(image) for image in images], dict[int, stream.Depth]()

    def work(number: int) -> None:
        for _ in range(3):
            found[number] = model(images[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[number].values, wanted[number].values) for number in range(len(images)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": ["starter", "dav2-small"]}, "model: one model is loaded at a time"),
        ({"model": "bogus"}, "unknown model 'bogus'"),
        ({"output": "x"}, "output: is an option of a run, not of a model (allowed: model, weights"),
        ({"input_size": 0}, "input_size=0: must be 32 or more"),
        ({"weights": "nofile.pt"}, "nofile.pt"),
        ({"precision": "int8"}, "precision int8: is calibrated on the images of a run"),
        ({"bogus": 1}, "unknown option bogus"),
    ],
)
def test_what_cannot_be_loaded_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(StreamError) as caught:
        stream.load(**options)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", [name for name, one in OPTIONS.items() if is_of_model(one.key) and name != "model"])
def test_what_is_fixed_in_a_loaded_model_cannot_be_chosen_for_a_run(model: stream.Model, name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: cannot be chosen for a model that is loaded already; give it to"):
        stream.iter_depth([scene()], model=model, **{name: OPTIONS[name].default or 64})


def test_a_loaded_model_keeps_the_field_of_view_it_was_loaded_with(tmp_path: Path) -> None:
    """Metres of DA3METRIC follow from it; here with a network that gives 1 and no sky everywhere."""
    spec = replace(registry.find("da3metric_large"), parameters_m=0)

    class Flat(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])

    def kept(fov: float | None) -> stream.Model:
        flat = registry.LoadedModel(spec=spec, weights_sha256="", make_network=Flat)
        config = from_options(None, {"model": spec.name, "backend": "torch", "input_size": 56, "fov": fov})
        return stream.Model(make_engine(config, flat, backend="torch", exact=True), config, Notes())

    with kept(90) as wide, kept(60) as narrow:
        for model, wanted in ((wide, 28 / 300), (narrow, 28 / np.tan(np.radians(30)) / 300)):
            assert np.allclose(model(scene()).values, wanted, rtol=1e-5)
            stream.run([scene()], output=tmp_path / str(wanted), save="npy", model=model)
            assert np.allclose(np.load(tmp_path / str(wanted) / "000000.npy"), wanted, rtol=1e-5)
        with pytest.raises(UsageError, match=r"^fov: cannot be chosen for a model that is loaded already; give it to"):
            stream.run([scene()], output=tmp_path / "x", save="npy", model=wide, fov=60)


def test_other_uses_of_a_loaded_model_are_refused(model: stream.Model) -> None:
    with pytest.raises(StreamError, match="must be text"):
        stream.run([scene()], model=[model, "starter"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="target_fps: changes the inference size"):
        stream.run(0, model=model, target_fps=30)


class Overflowing(nn.Module):
    """Finite in fp32 alone."""

    def forward(self, x: Tensor) -> Tensor:
        scale = 1.0 if x.dtype is torch.float32 else float("inf")
        return x.mean(1) * scale


class Brightness(nn.Module):
    """The mean of the channels at half the input's size, in one of the usual forms."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.gain = form, nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Any:
        assert not self.training
        y = nn.functional.avg_pool2d(x.mean(1, keepdim=True) * self.gain, 2)
        forms = {
            "N×1×H×W": lambda: y,
            "N×H×W": lambda: y[:, 0],
            "N×2×H×W": lambda: y.expand(-1, 2, -1, -1),
            "H×W": lambda: y[0, 0],
            "flat": lambda: y.flatten(1),
            "too many": lambda: torch.cat([y, y]),
            "dict": lambda: {"depth": y},
            "tuple": lambda: (y, y),
            "None": lambda: None,
        }
        return forms[self.form]()


OWN: dict[str, Any] = {"size": 32, "multiple_of": 4, "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.mark.parametrize("form", ["N×1×H×W", "N×H×W"])
def test_a_module_of_ones_own_is_a_model(form: str, tmp_path: Path) -> None:
    mine = Brightness(form)
    mine.train()
    flat = np.full((40, 64, 3), 51, np.uint8)  # 0.2
    with stream.Model.from_module(mine, output="metric", name="mine", batch=2, **OWN) as model:
        depth = model(flat)
        assert np.allclose(depth.values, 0.4, atol=1e-6)
        assert (depth.size, depth.kind, depth.model) == ((40, 64), stream.DepthKind.METRIC_DEPTH, "mine")
        report = stream.run([flat] * 3, output=tmp_path / "out", save="npy", model=model)
        assert (report.model, report.written) == ("mine", 3)
        assert np.allclose(np.load(tmp_path / "out" / "000002.npy"), 0.4, atol=1e-6)
        assert len(list(stream.iter_depth([flat, flat[:, :32]], model=model))) == 2
        for odd in (flat[:1, :1], flat[:5, :3], flat[:3, :], flat[:, :1]):
            assert model(odd).size == odd.shape[:2]
    assert mine.training, "it was copied"
    assert mine.gain.requires_grad


def test_modules_are_told_apart_by_their_class_and_their_tensors() -> None:
    """So that no work of one is taken for that of another, as with files of weights."""
    first, same, other = nn.Conv2d(3, 1, 3), nn.Conv2d(3, 1, 3), nn.Conv2d(3, 1, 3)
    same.load_state_dict(first.state_dict())
    digests = []
    for module in (first, same, other, nn.Sequential(same)):
        with stream.Model.from_module(module, output="disparity", size=32, multiple_of=8) as model:
            digests.append(engine_of(model).model.weights_sha256)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("N×2×H×W", "the module gave a tensor of 1×2×16×28 for an input of 1×3×32×56"),
        ("H×W", "a tensor of 16×28"),
        ("flat", "a tensor of 1×448"),
        ("too many", "a tensor of 2×1×16×28"),
        ("dict", "the module gave a dict"),
        ("tuple", "the module gave a tuple"),
        ("None", "the module gave a NoneType"),
    ],
)
def test_a_module_that_gives_no_map_is_named(form: str, said: str) -> None:
    allowed = "(allowed: one tensor of 1×H×W or 1×1×H×W)"
    with stream.Model.from_module(Brightness(form), output="disparity", name="mine", **OWN) as model:
        with pytest.raises(ModelError) as caught:
            model(np.zeros((32, 56, 3), np.uint8))
        assert str(caught.value).startswith("mine: ")
        assert said in str(caught.value)
        assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"module": Brightness}, "module: a type is no module (allowed: a torch.nn.Module); call the class"),
        ({"output": "inverse"}, "output: 'inverse' is no kind of depth (allowed: disparity, depth, metric)"),
        ({"size": 0}, "size: 0 is not a whole number of pixels"),
        ({"size": (3, 4.5)}, "size: 4.5 is not"),
        ({"multiple_of": 0}, "multiple_of: 0 is not"),
        ({"mean": 0.5}, "mean: 0.5 is not three numbers"),
        ({"std": (1, 0, 1)}, "std: must not be 0"),
        ({"fit": "crop"}, "fit: 'crop' is not known (allowed: area, upper_bound"),
        ({"precision": "fp64"}, "precision='fp64': unknown value"),
        ({"batch": 0}, "batch=0: must be 1 or more"),
    ],
)
def test_a_module_is_described_rightly_or_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        stream.Model.from_module(**{"module": Brightness("N×H×W"), "output": "depth", **OWN, **arguments})
    assert said in str(caught.value)


class Acting(nn.Module):
    """Does something to the mean of the channels before it is returned."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x.mean(1))


def raising(error: BaseException) -> Acting:
    def act(_y: Tensor) -> Tensor:
        raise error

    return Acting(act)


SMALL: dict[str, Any] = {"name": "mine", "size": 16, "multiple_of": 1, "mean": (0, 0, 0)}


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (LookupError("its message\nand more"), "LookupError: its message;"),
        (RuntimeError("mat1 and mat2"), "RuntimeError: mat1 and mat2;"),
        (ZeroDivisionError(), "ZeroDivisionError;"),
    ],
)
def test_what_a_module_raises_is_the_cause_of_one_line(raised: Exception, said: str, tmp_path: Path) -> None:
    with stream.Model.from_module(raising(raised), output="depth", **SMALL) as model:
        for use in (
            lambda: model(scene()),
            lambda: list(stream.iter_depth([scene()], model=model)),
            lambda: stream.run([scene()], output=tmp_path / "out", model=model),
        ):
            with pytest.raises(ModelError) as caught:
                use()
            assert str(caught.value).startswith(f"mine: the module failed for an input of 1×3×16×26: {said} the cause")
            assert type(caught.value.__cause__) is type(raised)


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SinkError("its own")])
def test_what_is_no_failure_of_a_module_passes(raised: BaseException) -> None:
    with (
        stream.Model.from_module(raising(raised), output="depth", **SMALL) as model,
        pytest.raises(type(raised)),
    ):
        model(scene())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_a_module_without_memory_gets_smaller_batches(error: Exception) -> None:
    def act(y: Tensor) -> Tensor:
        if len(y) > 1:
            raise error
        return y + 3

    with stream.Model.from_module(Acting(act), output="depth", batch=4, **SMALL) as model:
        assert len(model([scene()] * 4)) == 4
    said = "mine: one frame does not fit into the memory of cpu"
    with (
        stream.Model.from_module(raising(error), output="depth", **SMALL) as model,
        pytest.raises(ModelError, match=said),
    ):
        model(scene())


def test_numbers_that_are_not_finite_are_no_fault_of_a_file() -> None:
    said = "^mine: the depth of frame 0 is not finite in fp32; the module must give finite numbers$"
    with (
        stream.Model.from_module(Acting(lambda y: y / 0), output="depth", **SMALL) as model,
        pytest.raises(ModelError, match=said),
    ):
        model(scene())


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "metric",
            ["mine: the module gave negative metres, which no point of a picture has; if larger is nearer, its"],
        ),
        ("depth", ["mine: the module gave negative relative depth, which no point of a picture has; if larger is"]),
        ("disparity", []),
    ],
)
def test_negative_depth_is_noted_once(output: Any, said: list[str], tmp_path: Path) -> None:
    notes: list[str] = []
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    with stream.Model.from_module(Acting(lambda y: y - 1), output=output, on_note=notes.append, **SMALL) as model:
        model(white)
        assert notes == []
        assert [depth.values.min() for depth in model([black, black])] == [-1, -1]
        report = stream.run([black] * 2, output=tmp_path / "out", save="npy", model=model)
    for told in (notes, [text for text in report.notes if "negative" in text]):
        assert [text.startswith(wanted) for text, wanted in zip(told, said, strict=True)] == [True] * len(said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dav2-small", "'dav2-small' is a model of the catalog"),
        ("Starter", "'Starter' is a model of the catalog"),
        ("fast", "'fast' is a model of the catalog"),
        ("Depth-Anything-V2-Small-hf", "is a model of the catalog"),
        ("", "'' does not name a model"),
        (" ", "' ' does not name a model"),
        ("..", "'..' does not name a model"),
        ("a/b", "'a/b' does not name a model"),
        ("a\\b", "does not name a model"),
        ("a=b", "'a=b' does not name a model"),
        (None, "None does not name a model"),
        ("a\x1b[2J", r"'a\x1b[2J' has a character that cannot be shown"),
        ("a\nb", r"'a\nb' has a character"),
    ],
)
def test_a_module_has_a_name_of_its_own(name: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        stream.Model.from_module(Brightness("N×H×W"), output="depth", name=name, **OWN)
    assert str(caught.value).startswith("name: ")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("keyword", "choices"), [("fit", own.FITS), ("resample", own.RESAMPLES), ("upsample", own.UPSAMPLES)]
)
def test_what_is_allowed_for_a_module_is_what_its_types_say(keyword: str, choices: tuple[str, ...]) -> None:
    typed = inspect.signature(stream.Model.from_module).parameters[keyword].annotation
    assert set(get_args(typed)) == set(choices)
    with pytest.raises(UsageError) as caught:
        stream.Model.from_module(Brightness("N×H×W"), output="depth", **OWN, **{keyword: "tokens"})
    assert str(caught.value) == f"{keyword}: 'tokens' is not known (allowed: {', '.join(choices)})"
    for choice in choices:
        with stream.Model.from_module(Brightness("N×H×W"), output="depth", **OWN, **{keyword: choice}) as model:
            assert model(scene()).size == (40, 64)


def test_an_opened_source_is_looked_at_and_then_run(tmp_path: Path, model: stream.Model) -> None:
    clip = tmp_path / "clip.mp4"
    stream.run([scene()] * 6, output=clip, fps=5, model=model)
    with stream.open_source(clip, max_frames=4) as source:
        assert (source.info.size, source.info.rate) == ((40, 64), 5)
        report = stream.run(source, output=tmp_path / "out.mp4", model=model)
    assert report.written == 4
    with av.open(str(tmp_path / "out.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 4
    assert len(list(stream.iter_depth(stream.open_source(clip, start=0.6), model=model))) == 3
    with stream.open_source(clip) as source:
        assert [frame.index for frame in source] == list(range(6))
        with pytest.raises(UsageError, match=r"clip.mp4: has been read already: a source is read once; open it again"):
            next(stream.iter_depth(source, model=model))
    with stream.open_source([scene()] * 3, fps=5) as source:
        assert stream.run(source, output=tmp_path / "film.mp4", model=model).written == 3


def test_an_opened_source_is_named_after_what_it_was(
    tmp_path: Path, model: stream.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", scene())
    assert stream.run(stream.open_source("a.png"), model=model).outputs == ["a_depth.png"]


@pytest.mark.parametrize("name", [name for name, one in OPTIONS.items() if is_of_source(one.key)])
def test_what_is_fixed_in_an_open_source_cannot_be_chosen_for_a_run(model: stream.Model, name: str) -> None:
    with stream.open_source([scene()]) as source:
        with pytest.raises(UsageError, match=f"^{name}: cannot be chosen for a source that is open already"):
            stream.iter_depth(source, model=model, **{name: OPTIONS[name].default or 1})
        assert len(list(stream.iter_depth(source, model=model))) == 1, "the refusal left it open"


def test_an_open_source_cannot_be_read_twice(tmp_path: Path, model: stream.Model) -> None:
    said = "--range clip: reads the images twice, and an open source gives them once; pass what it was opened with"
    with stream.open_source([scene()] * 2, fps=5) as source, pytest.raises(UsageError, match=said):
        stream.run(source, output=tmp_path / "a.mp4", range="clip", model=model)
    with (
        stream.open_source([scene()]) as source,
        pytest.raises(UsageError, match="which an open source gives only once"),
    ):
        stream.run(source, output=tmp_path / "a", precision="int8")
    with pytest.raises(UsageError, match="output: is an option of a run, not of a source"):
        stream.open_source([scene()], output="x")


class Silent(Source):
    """A camera that gives one frame and then none until it is interrupted."""

    def __init__(self) -> None:
        self._log = CaptureLog()
        self.is_waiting, self.interrupted, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.info = stream.SourceInfo(
            name="cam:9", size=(40, 64), is_live=True, time_base=Fraction(1, 30), rate=None, frame_count=None,
            kind=SourceKind.CAMERA,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(index=0, pts=0, time_base=self.info.time_base, captured_at=0.0, rgb=scene())
        self.is_waiting.set()
        assert self.interrupted.wait(30)

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("how", ["stop", "close"])
def test_an_iteration_that_waits_for_a_camera_is_stopped_from_another_thread(how: str, model: stream.Model) -> None:
    camera = Silent()
    results = stream.iter_depth(camera, model=model)
    next(results)

    def end() -> None:
        assert camera.is_waiting.wait(30)
        getattr(results, how)()

    thread = threading.Thread(target=end)
    thread.start()
    assert list(results) == []
    thread.join()
    assert camera.interrupted.is_set()
    assert camera.closed.is_set()
    assert next(results, None) is None
    assert model(scene()).size == (40, 64), "the model is free again"


def test_an_iteration_is_closed_by_with_and_stopped_before_it_begins(model: stream.Model) -> None:
    with stream.iter_depth((scene() for _ in iter(int, 1)), model=model) as results:
        next(results)
    assert next(results, None) is None
    mine = stream.iter_depth((scene() for _ in iter(int, 1)), model=model, on_progress=lambda _now: mine.close())
    assert list(mine) == [], "a callback may close it"
    never = stream.iter_depth([scene()], model=model)
    never.stop()
    assert list(never) == []
    never.close()


def test_a_run_closes_the_source_that_it_took_also_when_it_fails(model: stream.Model, tmp_path: Path) -> None:
    camera = Silent()
    with pytest.raises(StreamError):
        stream.run(camera, output=tmp_path / "a.mp4", model=model, codec="bogus")
    assert camera.closed.is_set()


def test_a_model_is_loaded_when_it_is_asked_for() -> None:
    code = "import sys, stream; stream.Model; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
