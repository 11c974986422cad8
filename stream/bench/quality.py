"""How right a model's depth is on photos whose depth was measured (RGB-D), and how fast it is on them.

Invariant: the numbers are those of `depthstream survey --truth` for the same photos, up to 1600 px: one alignment, the
same pixels.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from stream.bench import steadiness
from stream.capture.base import Source
from stream.capture.limits import Limits
from stream.capture.stills.depthfolder import DepthFolder, DepthOf
from stream.capture.stills.find import common_folder, find_pictures, no_pictures
from stream.capture.stills.source import ImagesSource
from stream.depthdata.accuracy import Errors, errors, ordinal_accuracy
from stream.depthdata.alignment import fitted
from stream.errors import SourceError, SourceNotFoundError, UsageError
from stream.files import real
from stream.frames import DepthMap, Frame
from stream.infer.engine import Engine
from stream.media import cv2
from stream.notes import note
from stream.render.range import displayed


@dataclass(frozen=True, kw_only=True)
class Truths:
    """Photos with their measured depth.

    Attributes:
        photos: a folder, a glob or a list of photos.
        depth: the folder of the depth files, see `DepthFolder`; None for the folder of the photos.
        clip: a video to measure flicker on; None leaves it out.
    """

    photos: str
    depth: Path | None = None
    clip: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be measured before any work.

        Raises:
            StreamError: the photos, the folder or the clip do not exist, or none of the photos has a depth.
        """
        if self.clip is not None and not self.clip.is_file():
            raise SourceNotFoundError("no such file", where=f"--clip {self.clip}")
        with self._opened():
            pass

    def read(self) -> Iterator[tuple[Frame, DepthMap]]:
        """Each photo that has a depth, with that as disparity: float32 H×W of the photo's size, 1/m, NaN where unknown.

        What cannot be used is noted and left out. Raises as `check` does.
        """
        with self._opened() as (source, depth_of):
            for frame in source:
                try:
                    metres = depth_of(frame)
                except SourceError as error:
                    note(f"left out: {error}")
                    continue
                if metres is not None:
                    yield frame, _at(np.float32(1) / metres, frame.size)
            for skipped in source.log.skipped:
                note(f"left out: {skipped.name}: {skipped.reason}")

    @contextmanager
    def _opened(self) -> Iterator[tuple[Source, DepthOf]]:
        limits, found = Limits(), find_pictures(self.photos).paths
        folder = DepthFolder(self.depth or common_folder(found), limits, option="--quality")
        depths = set(folder.among(found))
        paths = [path for path in found if real(path) not in depths]
        if not paths:
            raise no_pictures(self.photos, 0)
        with closing(ImagesSource(paths, name=self.photos, root=common_folder(paths), limits=limits)) as source:
            yield source, folder.of(source.info)


def _at(truth: DepthMap, size_hw: tuple[int, int]) -> DepthMap:
    """The truth at another size; each pixel is one of the old ones, since depths on both sides of an edge must not
    mix."""
    if truth.shape == size_hw:
        return truth
    return np.asarray(cv2.resize(truth, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.float32)


@dataclass(frozen=True, kw_only=True)
class QualityResult:
    """Accuracy and speed of one combination: means over the photos.

    Attributes:
        size: of the network's input for the first photo, "width×height".
        input_size: the inference size that was asked for; None for the model's own.
        photos: how many were measured.
        abs_rel: mean of |z − z*| / z* after a least-squares scale and shift in disparity; 0 is best.
        delta_1_25: share of the pixels with max(z/z*, z*/z) < 1.25; 1 is best.
        ordinal: share of the pairs of pixels in the right order, see `ordinal_accuracy`; None where no photo has pairs.
        flicker: mean change of disparity from frame to frame of the clip along the motion of the picture, in shares of
            the range; None without a clip.
        median_s: seconds from a photo to its depth, at the photo's size, batch 1.
        fps: 1 ÷ `median_s`.
    """

    model: str
    backend: str
    precision: str
    size: str
    input_size: int | None
    photos: int
    abs_rel: float
    delta_1_25: float
    ordinal: float | None
    flicker: float | None
    median_s: float
    fps: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable values."""
        return asdict(self)


def measure(engine: Engine, truths: Truths, *, input_size: int | None) -> QualityResult:
    """Measure an engine, and close it.

    Raises:
        StreamError: the photos cannot be read, or none can be compared.
    """
    try:
        return _measured(engine, truths, input_size)
    finally:
        engine.close()


def _measured(engine: Engine, truths: Truths, input_size: int | None) -> QualityResult:
    found, ordinals, seconds = list[Errors](), list[float](), list[float]()
    sizes: list[tuple[int, int]] = []
    for frame, truth in truths.read():
        if frame.size not in sizes:  # the first one of a size sets up what later ones reuse
            sizes.append(frame.size)
            engine.infer([frame])
        started = time.perf_counter()
        (depth,) = engine.infer([frame])
        seconds.append(time.perf_counter() - started)
        values = displayed(depth)
        one = errors(fitted(values, truth), truth)
        if one is None:
            note(f"left out: {frame.name}: {engine.spec.name} has no answer where its depth is known")
            seconds.pop()
            continue
        found.append(one)
        if (share := ordinal_accuracy(values, truth)) is not None:
            ordinals.append(share)
    if not found:
        raise UsageError("none of the photos could be compared", where=f"--quality {truths.photos}")
    height, width = engine.plan(sizes[0])
    flicker = None
    if truths.clip is not None and (change := steadiness.measure(engine, truths.clip)) is not None:
        flicker = change.raw
    return QualityResult(
        model=engine.spec.name,
        backend=engine.backend,
        precision=engine.precision,
        size=f"{width}×{height}",
        input_size=input_size,
        photos=len(found),
        abs_rel=fmean(one.abs_rel for one in found),
        delta_1_25=fmean(one.delta_1_25 for one in found),
        ordinal=fmean(ordinals) if ordinals else None,
        flicker=flicker,
        median_s=median(seconds),
        fps=1 / median(seconds),
    )
