"""A model that a Python program loads once and uses many times: on images of its own, and in runs.

Invariant: the network is used by one caller at a time. Calls wait for one another, but never for a caller's iterator,
which is advanced without the lock. A run, which may take hours, is refused while another run has the model. Nothing
heavy is imported here: the public package needs this module.
"""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from stream.errors import UsageError
from stream.notes import Notes, collected, note

if TYPE_CHECKING:
    from torch import nn

    from stream.capture.memory import Item
    from stream.config import Config
    from stream.frames import Depth, DepthKind, Frame
    from stream.infer.engine import Engine
    from stream.models.spec import ModelSpec
    from stream.models.weights.fetch import OnTransfer


class Model:
    """A loaded model, made by `stream.load` or `Model.from_module`: call it on images, or pass it as `model=` to a run.

        with stream.load("dav2-small") as model:
            depth = model("photo.jpg")                      # one Depth
            depths = model([array, pillow_image, "b.jpg"])  # a list of them, in order
            report = stream.run("clip.mp4", output="depth.mp4", model=model)

    It may be called from several threads: calls wait for one another. Only one run (`run`, `iter_depth`) can have it at
    a time: meanwhile another run, or a call, is refused. A run does not close it; `close` or `with` does. While a call
    waits for the next image of an iterator, the model is free for others; if it is closed or given to a run then, the
    call fails at the next image.
    """

    def __init__(self, engine: "Engine", config: "Config", notes: Notes) -> None:
        self._engine, self._config, self._notes = engine, config, notes
        self._lock = threading.RLock()  # a listener to notes may use the model
        self._calls: deque[_Call] = deque()
        self._is_closed = False
        engine.is_kept = True

    @classmethod
    def from_module(
        cls,
        module: "nn.Module",
        *,
        output: Literal["disparity", "depth", "metric"],
        size: int | tuple[int, int],
        multiple_of: int,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        fit: Literal["lower_bound", "upper_bound", "minimal", "area", "longer_side", "shorter_side"] = "lower_bound",
        keep_aspect: bool = True,
        resample: Literal["bicubic", "bilinear", "bilinear_antialias", "opencv_linear"] = "bicubic",
        upsample: Literal["bicubic", "bilinear", "bilinear_align_corners"] = "bilinear",
        name: str = "own",
        device: str | int = "auto",
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        batch: int | None = None,
        threads: int | None = None,
        refine: bool = False,
        fov: float | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> "Model":
        """A torch module of one's own as a model; it runs in torch (`--backend torch`).

        Args:
            module: float32 N×3×H×W → N×H×W or N×1×H×W of any size, for N up to `batch`. It is copied, and the copy put
                into eval mode.
            output: what the numbers are: disparity (larger is nearer), relative depth, or depth in metres.
            size: the size of its input in pixels: the side N that `fit` speaks of, or (height, width).
            multiple_of: both sides of the input are multiples of this: the patches of a transformer, the strides of a
                convolutional network.
            mean, std: of red, green and blue, for values in 0…1; by default ImageNet's.
            fit: how an image of another aspect ratio becomes an input. `lower_bound`: its shorter side is at least
                N (Depth Anything); `upper_bound`: it fits into N×N (MiDaS); `minimal`: scaled as little as possible;
                `area`: as many pixels as `size`; `longer_side`, `shorter_side`: that side is N.
            keep_aspect: False squeezes every image to `size`.
            resample, upsample: how images are resized to the input, and maps to the image.
            name: what reports and files call the model; no name of the catalog's.
            device, precision, batch, threads, refine, fov: see `Options`.
            on_note: called once with each thing worth knowing.

        Its depth is one finite number for each pixel: it has no mask of pixels without an answer, no confidence and no
        camera, and it takes each frame alone. Negative depth is kept, and noted.

        Raises:
            UsageError: an argument is not what it should be.

        What the module raises when it is used comes out as a `ModelError`, whose cause it is.
        """
        from stream.infer.executor import without_pool
        from stream.jobs.models import make_engine
        from stream.jobs.options import from_options
        from stream.models.own import checked_name, own_model

        name = checked_name(name)
        given = {"device": device, "precision": precision, "batch": batch, "threads": threads, "fov": fov}
        config = from_options(None, {**given, "refine": refine, "model": name, "backend": "torch"})
        notes = Notes(on_note)
        with collected(notes), without_pool():
            loaded = own_model(
                module, name=name, output=output, size=size, multiple_of=multiple_of, mean=mean, std=std, fit=fit,
                resample=resample, upsample=upsample, keep_aspect=keep_aspect,
            )  # fmt: skip
            return cls(make_engine(config, loaded, backend="torch", exact=True), config, notes)

    @property
    def name(self) -> str:
        """Its name in the catalog."""
        return self._engine.spec.name

    @property
    def kind(self) -> "DepthKind":
        """What its numbers mean."""
        return self._engine.spec.output

    @property
    def device(self) -> str:
        """Where it runs: `cpu`, `cuda:0`, …"""
        return str(self._engine.device)

    @property
    def precision(self) -> str:
        """What it computes in: `fp32`, `bf16`, `fp16` or `int8`."""
        return self._engine.precision

    @property
    def backend(self) -> str:
        """What executes it: `torch`, `openvino`, …"""
        return self._engine.backend

    @overload
    def __call__(self, images: "Item | Frame") -> "Depth": ...  # type: ignore[overload-overlap]  # text is iterable

    @overload
    def __call__(self, images: "Iterable[Item | Frame]") -> "list[Depth]": ...

    def __call__(self, images: "Item | Frame | Iterable[Item | Frame]") -> "Depth | list[Depth]":
        """The depth of an image, or of each image of several, in order; float32 H×W at the size of the image.

        A model for video sees each image alone here; `iter_depth` shows it a clip.

        Args:
            images: uint8 H×W×3 in RGB order (H×W×4, H×W), a Pillow image, the name of an image file, a `Frame`; or a
                list or iterator of these, or an array N×H×W×3. Those of one shape share batches.

        Raises:
            UsageError: it is no image; or the model is closed, or in use by a run, also one that began while the call
                waited for an iterator.
            SourceError: a file cannot be read.
            ModelError: the model cannot take the image, or failed.
        """
        from stream.capture.limits import Limits
        from stream.capture.memory import as_items, frames

        items = as_items(images)
        is_single = items is None
        with self._lock, collected(self._notes):
            self._check_free("call")
            if items is None:
                items = [images]
            elif type(items) not in (list, tuple):
                items = self._from(items)
            found = self._depths(frames(items, limits=Limits()))
            for text in self._engine.notes:
                note(text)
        return found[0] if is_single else found

    def close(self) -> None:
        """Release the model; idempotent. A run that still has it goes on to its end first."""
        with self._lock:
            if self._is_closed:
                return
            self._settle()
            self._is_closed, self._engine.is_kept = True, False
            if not self._engine.is_in_use:
                self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{self.device}, {self.precision}, {self.backend}"
        return f"<stream.Model {self.name}: {state}>"

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def _from(self, items: Iterable[object]) -> Iterator[object]:
        """The images of a caller's iterator, which is advanced without the lock: it may wait, or use the model."""
        with self._unlocked():
            iterator = iter(items)
        while True:
            with self._unlocked():
                item = next(iterator, _END)
            if item is _END:
                return
            self._check_free("call")
            yield item

    def _depths(self, frames: "Iterator[Frame]") -> "list[Depth]":
        engine, call, indices = self._engine, _Call(), list[int]()
        waiting: dict[Hashable, list[Frame]] = {}

        def submit(group: "list[Frame]") -> None:
            self._check_free("call")
            while engine.pending >= engine.in_flight:
                self._collect()
            engine.submit(group)
            self._calls.append(call)
            call.check()

        try:
            for number, frame in enumerate(frames):
                indices.append(frame.index)
                group = waiting.setdefault(key := engine.key(frame), [])
                group.append(replace(frame, index=number))
                if len(group) >= engine.batch:
                    submit(waiting.pop(key))
            for group in waiting.values():
                submit(group)
        finally:
            while call in self._calls:
                self._collect()
        call.check()
        return [replace(call.found[number], index=index) for number, index in enumerate(indices)]

    def _collect(self) -> None:
        """Give the results of the oldest batch, or its error, to the call that it belongs to."""
        call = self._calls.popleft()
        try:
            call.found |= {frame.index: depth for frame, depth in self._engine.collect()}
        except BaseException as error:
            call.error = error
            if not isinstance(error, Exception):
                raise

    def _settle(self) -> None:
        """Collect every batch in flight: calls that wait for their iterators may have some."""
        while self._calls:
            self._collect()

    def _check_free(self, what: str) -> None:
        if self._is_closed:
            raise UsageError("the model is closed", where=self.name, hint="load it again")
        if self._engine.is_in_use:
            hint = f"let that end before this {what}, or load the model a second time"
            raise UsageError("the model is in use by a run", where=self.name, hint=hint)


@dataclass(eq=False)
class _Call:
    """What a call has so far: depth by the number of the image."""

    found: "dict[int, Depth]" = field(default_factory=dict)
    error: BaseException | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error


_END = object()


def spec_of(model: Model) -> "ModelSpec":
    """The facts of a loaded model, which need not be in the catalog."""
    return model._engine.spec


def engine_of(model: Model) -> "Engine":
    """The engine of a loaded model, to be looked at."""
    return model._engine


def borrowed(model: Model) -> "Engine":
    """The engine of a loaded model, for one run, which ends with its `close`.

    Raises:
        UsageError: the model is closed, or in use.
    """
    with model._lock:
        model._check_free("run")
        model._settle()
        model._engine.begin()
    return model._engine


def configured(model: Model, config: "Config") -> "Config":
    """The config of a run of a loaded model, from that of its other options.

    Raises:
        UsageError: one of these does not suit a model that is kept.
    """
    if config.inference.target_fps is not None:
        what = "changes the inference size, which a loaded model keeps"
        raise UsageError(what, where="target_fps", hint="name the model instead")
    mine = model._config
    update = {
        "model": mine.model,
        "inference": config.inference.model_copy(update=_of_model(mine.inference, "inference.")),
        "output": config.output.model_copy(update=_of_model(mine.output, "output.")),
    }
    return config.model_copy(update=update)


def _of_model(section: Any, prefix: str) -> dict[str, object]:
    """The values of a section of the config that belong to the model."""
    from stream.jobs.keys import is_of_model

    return {name: getattr(section, name) for name in type(section).model_fields if is_of_model(prefix + name)}


def load(options: Mapping[str, object], on_note: Callable[[str], None] | None = None) -> Model:
    """Load the model that `options` name; see `stream.load`."""
    from stream.jobs.keys import is_of_model
    from stream.jobs.options import check_only, from_options

    check_only(options, is_of_model, to="a model")
    config = from_options(None, options)
    if config.model.also:
        raise UsageError("one model is loaded at a time", where="model", hint="call load once for each")
    notes = Notes(on_note)
    with collected(notes):
        alone = config.inference.model_copy(update={"temporal": "off"})  # as in a call; a run decides for itself
        engine = kept_engine(config.model_copy(update={"inference": alone}), exact=True)
    return as_model(engine, config, notes)


def kept_engine(config: "Config", *, exact: bool, on_download: "OnTransfer | None" = None) -> "Engine":
    """Load the engine that `config` names, to be used many times; what it has to say is noted.

    Args:
        exact: see `device.resolve_precision`.

    Raises:
        UsageError: the network would have to know the images of a run.
        StreamError: see `load_engine`.
    """
    from stream.jobs.models import load_engine, preload

    if config.inference.precision == "int8":
        hint = "name the model in the run instead"
        raise UsageError("is calibrated on the images of a run", where="precision int8", hint=hint)
    preload(config)
    engine = load_engine(config, exact=exact, on_download=on_download)
    for text in engine.notes:
        note(text)
    return engine


def as_model(engine: "Engine", config: "Config", notes: Notes) -> Model:
    """A model from the engine that `config` has given; runs of it use the backend that the engine has now, or go on to
    let a faster one take the place of torch."""
    fixed = config.inference.model_copy(update={"backend": engine.asked_backend})
    return Model(engine, config.model_copy(update={"inference": fixed}), notes)
