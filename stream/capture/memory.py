"""Images that a Python program hands over: arrays, Pillow images and paths, one or several, in any mixture.

Invariant: an iterator is advanced no further than the pipeline's queue; the pixels of a sequence are neither copied nor
changed.
"""

import operator
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stream.capture.base import CaptureLog, Skipped, Source
from stream.capture.limits import Limits
from stream.capture.parse import MOST_CAMERA, SourceForm, parse_source
from stream.capture.stills import colour, tiff
from stream.capture.stills.boundary import readable_errors
from stream.capture.stills.picture import TRANSPOSE, DecodedPicture, open_picture
from stream.errors import SourceError, UsageError
from stream.files import expanded
from stream.frames import Frame, Intrinsics, RgbImage, SourceInfo, SourceKind
from stream.notes import note

Item = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image
"""One image: the name of a file, uint8 H×W×3 RGB, H×W×4 RGBA or H×W grey, or a Pillow image."""
AnySource = str | os.PathLike[str] | int | NDArray[np.uint8] | Image.Image | Iterable[Item] | Source
"""What `stream.run` takes: the text of a source, a path, a camera's number, images, or a source that is open."""

ARRAYS = "uint8 H×W×3 in RGB order, H×W×4, H×W, or N×H×W×3 for N images"
_SOURCES = "text, a path, a camera's number, an array, a Pillow image, a list or iterator of these, or an open Source"
_IMAGES = "an array, a Pillow image, the name of an image file, a Frame, or several of these"
_HINTS = {
    "Tensor": "pass tensor.permute(1, 2, 0).cpu().numpy(), as uint8 H×W×3",
    "VideoCapture": "pass the camera's number or the name of the file",
    "Stream": "pass the name of the file",
    "Frame": "pass frame.rgb",
    "bytes": "write them to a file, or decode them with Pillow",
}


_PREFIX = re.compile("[A-Za-z][A-Za-z+]+:|-$")


class Images:
    """Images in memory, not yet open as a source.

    Args:
        items: a sequence can be read again, an iterator only once.
    """

    def __init__(self, items: Sequence[object] | Iterator[object]) -> None:
        self._items = items
        if isinstance(items, Sequence):
            if not items:
                raise UsageError("the source is empty", allowed=_SOURCES)
            for number, item in enumerate(items):
                _check(item, number)

    giver, instead = "an iterator", "pass a list"
    """Where images come from that can be read only once, and what to do about it, for errors."""

    @property
    def can_repeat(self) -> bool:
        """False for an iterator."""
        return isinstance(self._items, Sequence)

    @property
    def paths(self) -> tuple[Path, ...] | None:
        """The files, if the images are a sequence of names and nothing else."""
        if not isinstance(self._items, Sequence):
            return None
        paths = [Path(expanded(item)) for item in self._items if isinstance(item, str | os.PathLike)]
        return tuple(paths) if len(paths) == len(self._items) else None

    def spread(self, count: int) -> "Images":
        """Up to `count` images from all over a sequence."""
        assert isinstance(self._items, Sequence)
        total = len(self._items)
        return Images([self._items[total * n // count] for n in range(count)]) if total > count else self

    def close(self) -> None:
        """Close what is open, see `Opened`."""

    def open(self, *, rate: Fraction | None, max_frames: int | None, limits: Limits) -> "ArraysSource":
        """Open them as a source; see `ArraysSource`."""
        return ArraysSource(self._items, rate=rate, max_frames=max_frames, limits=limits)


class Opened(Images):
    """A source that the caller has opened, in the place of images.

    Args:
        source: it is read and closed by who takes it.
    """

    giver, instead = "an open source", "pass what it was opened with"

    def __init__(self, source: Source) -> None:
        super().__init__(iter(()))
        self.source = source

    def close(self) -> None:
        """Close the source."""
        self.source.close()


def given(source: object) -> str | Images | None:
    """What a Python caller has named: the text of a source, images, or a source that is open.

    Raises:
        UsageError: it is nothing of these.
    """
    if source is None or isinstance(source, str):
        return source
    if isinstance(source, Source):
        return Opened(source)
    if isinstance(source, os.PathLike):
        path = os.fsdecode(source)  # never a camera or a URL, whatever it looks like
        return os.path.join(os.curdir, path) if path.isdecimal() or _PREFIX.match(path) else path
    if isinstance(source, np.ndarray):
        return Images(list(source) if source.ndim == 4 else [source])
    if isinstance(source, Image.Image):
        return Images([source])
    with suppress(TypeError):
        number = operator.index(source)  # type: ignore[arg-type]
        if abs(number) > MOST_CAMERA:  # it may have too many digits to be written
            raise UsageError("the number is not a camera's", where="source", allowed=f"0 to {MOST_CAMERA}")
        if isinstance(source, bool) or number < 0:
            raise UsageError(f"{source} is not a camera's number", where="source", allowed="0, 1, …")
        return f"cam:{number}"
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray | memoryview):
        return Images(source)
    if isinstance(source, Iterable) and not _is_refused(source):
        return Images(iter(source))
    raise _unknown(source, "source", _SOURCES)


def as_items(images: object) -> Iterable[object] | None:
    """The items of several images; None for a single one.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(images, Frame | str | os.PathLike | Image.Image):
        return None
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else None
    if isinstance(images, Source):
        hint = "iter_depth(source, model=model) reads it"
        raise UsageError("a source is no image", where="images", allowed=_IMAGES, hint=hint)
    if not isinstance(images, Iterable) or _is_refused(images):
        raise _unknown(images, "images", _IMAGES)
    return images


def _is_refused(source: object) -> bool:
    """True for what can be iterated, but not for images."""
    return isinstance(source, Mapping | Set | bytes | bytearray | memoryview) or type(source).__name__ in _HINTS


def _unknown(value: object, where: str, allowed: str) -> UsageError:
    name = type(value).__name__
    what = f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name} is no image"
    return UsageError(what, where=where, allowed=allowed, hint=_HINTS.get(name, ""))


def _check(item: object, number: int) -> None:
    """Refuse what is no image, as far as can be seen without opening a file."""
    where = f"image {number}"
    if isinstance(item, np.ndarray):
        is_image = item.ndim == 2 or (item.ndim == 3 and item.shape[2] in (1, 3, 4))
        if item.dtype != np.uint8 or not is_image or item.size == 0:
            shape = "×".join(map(str, item.shape)) or "no shape"
            hint = "scale it to 0…255 and convert it with .astype(numpy.uint8)" if item.dtype != np.uint8 else ""
            raise UsageError(f"an array of {item.dtype} {shape} is no image", where=where, allowed=ARRAYS, hint=hint)
    elif not isinstance(item, str | os.PathLike | Image.Image):
        raise _unknown(item, where, "an array, a Pillow image, or the name of a file")


class ArraysSource(Source):
    """Yields images as frames, in order.

    `Frame.index` and `pts` count the images, so one that cannot be read leaves a gap. `Frame.name` is that of a file
    that was named, else six digits if the images are a sequence, else "".

    The arrays of a sequence are not copied: do not change them until their result is there. An iterator may refill one
    buffer, so what it yields is copied unless it is read-only.

    Args:
        items: the images; an iterator is advanced on the thread that reads the frames, the first time by the
            constructor.
        rate: frames per second if the images become a video; `time_base` is then 1/rate, else 1.
        max_frames: stop after delivering this many.
        limits: larger files are skipped.
        clock: monotonic seconds.

    Raises:
        UsageError: an item is no image; during iteration, too.
        SourceError: no image can be read.
    """

    def __init__(
        self,
        items: Sequence[object] | Iterator[object],
        *,
        rate: Fraction | None = None,
        max_frames: int | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = CaptureLog()
        self._stop = threading.Event()
        self._limits, self._max_frames, self._clock = limits or Limits(), max_frames, clock
        self._time_base, self._rate = 1 / rate if rate else Fraction(1), rate
        self._is_sequence = isinstance(items, Sequence)
        sized = items if isinstance(items, Sequence) else ()
        self._frames = self._deliver(iter(items))
        self._first = next(self._frames, None)
        if self._first is None:
            skipped = [f"{item.name}: {item.reason}" for item in self.log.skipped]
            raise SourceError(f"no image can be read; the first error is {skipped[0]}" if skipped else "no images")
        self.info = SourceInfo(
            name="",
            size=self._first.size,
            is_live=False,
            time_base=self._time_base,
            rate=rate,
            frame_count=min(len(sized), max_frames or len(sized)) if sized else None,
            kind=SourceKind.STILLS,
            names=tuple(_name(item, number) for number, item in enumerate(sized)),
            files=tuple(Path(expanded(item)) for item in sized if isinstance(item, str | os.PathLike)),
        )

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        if self._first is not None and not self._stop.is_set():
            first, self._first = self._first, None
            yield replace(first, captured_at=self._clock())
        yield from self._frames

    def interrupt(self) -> None:
        """End the iteration before the next image."""
        self._stop.set()

    def close(self) -> None:
        """Drop the images; the caller's iterator is left where it is."""
        self._stop.set()
        self._first = None

    def _deliver(self, items: Iterator[object]) -> Iterator[Frame]:
        delivered = 0
        for number, item in enumerate(items):
            if self._stop.is_set():
                return
            try:
                rgb, camera, notes = read(item, number, limits=self._limits, may_share=self._is_sequence)
            except SourceError as error:
                self.log.skipped.append(Skipped(name=_name(item, number), reason=error.reason))
                continue
            delivered += 1
            for text in notes:
                if not any(known.endswith(f": {text}") for known in self.log.notes):
                    self.log.notes.append(f"{_name(item, number)}: {text}")
            is_named = self._is_sequence or isinstance(item, str | os.PathLike)
            yield Frame(
                index=number,
                pts=number if self._rate is None else delivered - 1,  # a video has no gaps
                time_base=self._time_base,
                captured_at=self._clock(),
                rgb=rgb,
                duration=1 if self._rate else None,
                name=_name(item, number) if is_named else "",
                intrinsics=camera,
            )
            if delivered == self._max_frames:
                return


def read(
    item: object, number: int, *, limits: Limits, may_share: bool
) -> tuple[RgbImage, Intrinsics | None, tuple[str, ...]]:
    """The pixels of an image, the camera that took it, and what is worth knowing of its file.

    Args:
        number: what an error calls it where it has no name.
        may_share: the pixels may be those of the caller's array, which does not change while they are in use.

    Raises:
        UsageError: it is no image.
        SourceError: its file cannot be read.
    """
    _check(item, number)
    if isinstance(item, np.ndarray):
        rgb = _rgb(np.asarray(item))
        is_reused = np.shares_memory(rgb, item) and rgb.flags.writeable and not may_share
        return rgb.copy() if is_reused else rgb, None, ()
    if isinstance(item, Image.Image):
        decoded = _decoded(item, where=_name(item, number))
    else:
        assert isinstance(item, str | os.PathLike)
        decoded = open_picture(Path(expanded(item)), limits=limits).decode()
    return decoded.rgb, decoded.intrinsics, decoded.notes


def frames(items: Iterable[object], *, limits: Limits) -> Iterator[Frame]:
    """A frame for each image, or frames as they are; unlike `ArraysSource`, what cannot be read is an error.

    Raises:
        UsageError: an item is no image.
        SourceError: a file cannot be read.
    """
    may_share = isinstance(items, Sequence)
    for number, item in enumerate(items):
        if isinstance(item, Frame):
            yield item
            continue
        try:
            rgb, camera, notes = read(item, number, limits=limits, may_share=may_share)
        except SourceError as error:
            if not _names_another_source(item):
                raise
            hint = "stream.iter_depth(…, model=model) reads videos, folders, cameras and streams"
            raise SourceError("is no image", where=str(item), hint=hint) from error
        name = _name(item, number)
        for text in notes:
            note(f"{name}: {text}")
        yield Frame(
            index=number, pts=number, time_base=Fraction(1), captured_at=time.monotonic(), rgb=rgb,
            name=name if isinstance(item, str | os.PathLike) else "", intrinsics=camera,
        )  # fmt: skip


def _names_another_source(item: object) -> bool:
    """True for the name of a source that is not one image."""
    if not isinstance(item, str | os.PathLike):
        return False
    with suppress(UsageError):
        return parse_source(str(given(item))).form is not SourceForm.PICTURE
    return False


def _name(item: object, number: int) -> str:
    return Path(item).name if isinstance(item, str | os.PathLike) else f"{number:06d}"


def _decoded(image: Image.Image, *, where: str) -> DecodedPicture:
    """A Pillow image as a file would be decoded: upright, in sRGB.

    Raises:
        SourceError: its file is damaged; Pillow reads the pixels only now, and raises anything.
    """
    notes: list[str] = []
    with readable_errors(where):
        image.load()
        turn, focal = None, 0
        try:
            exif = image.getexif()
            focal = exif.get_ifd(tiff.EXIF_IFD).get(tiff.FOCAL_35MM, 0)
            turn = TRANSPOSE.get(exif.get(tiff.ORIENTATION, 1))
        except Exception:  # noqa: BLE001  Pillow raises anything for a damaged block, and the pixels are whole
            notes.append("its EXIF data are damaged: it is not turned")
        upright = colour.to_srgb(image, notes)  # first, because a turned copy has lost what its samples mean
        upright = upright if turn is None else upright.transpose(turn)
        focal = focal if isinstance(focal, int) else 0
        return DecodedPicture(rgb=np.asarray(upright), notes=tuple(notes), focal_35mm=focal)


def _rgb(image: NDArray[Any]) -> RgbImage:
    """H×W×3 of what `_check` lets pass. Alpha is dropped and the colour under it kept, as for files."""
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return image[..., :3]
