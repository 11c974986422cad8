"""A camera through OpenCV, as a live source.

Invariant: what is delivered is as fresh as the driver allows (nothing is queued here), and a camera that is absent,
busy or gone is an error that says which.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from stream.capture.base import CaptureLog
from stream.errors import SourceError, SourceNotFoundError
from stream.frames import Frame, RgbImage, SourceInfo, SourceKind
from stream.media import cv2

_MICROSECOND = Fraction(1, 1_000_000)
_BAD_IN_A_ROW = 30
"""Undecodable pictures in a row before giving up: a second's worth, as a USB camera garbles its first few."""


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def isOpened(self) -> bool: ...
    def set(self, prop: int, value: float, /) -> bool: ...
    def get(self, prop: int, /) -> float: ...
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]: ...
    def release(self) -> None: ...


def open_opencv(index: int) -> Capture:
    """OpenCV's capture of camera `index`; on Linux straight through V4L2, as OpenCV's detour over its bundled
    FFmpeg prints to stderr when there is no camera."""
    return cast(Capture, cv2.VideoCapture(index, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY))


class CameraSource:
    """Yields what a camera sees until it is interrupted. pts are microseconds since the first frame.

    Args:
        device: index, or a path such as `/dev/video2` or `/dev/v4l/by-id/…`.
        size_hw, rate, fourcc: what to ask for; what was granted is in `info.notes`.
        read_timeout_s: how long the driver may wait for a picture, where the driver knows such a limit.
        end_s: stop this many seconds after the first frame.
        max_frames: stop after this many.
        open_capture: opens a camera by its index.
        clock: monotonic seconds.

    Raises:
        SourceNotFoundError: there is no such camera.
        SourceError: it is busy, may not be used or delivers nothing; from iteration: it has gone.
    """

    def __init__(
        self,
        device: int | str,
        *,
        size_hw: tuple[int, int] | None = None,
        rate: Fraction | None = None,
        fourcc: str | None = None,
        read_timeout_s: float = 5.0,
        end_s: float | None = None,
        max_frames: int | None = None,
        open_capture: Callable[[int], Capture] = open_opencv,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        index = camera_index(device)
        self._name = f"cam:{index}"
        self._end_s, self._max_frames, self._clock = end_s, max_frames, clock
        self.silence_limit_s = read_timeout_s
        """The pipeline gives up a camera that delivers nothing for so long: not every driver keeps the limit."""
        self._stop, self._lock = threading.Event(), threading.Lock()
        self.log = CaptureLog()
        with _quiet_opencv():
            capture = open_capture(index)
        self._capture: Capture | None = capture
        try:
            if not capture.isOpened():
                raise _cannot_open(index)
            self._ask(capture, size_hw, rate, fourcc, read_timeout_s)
            first = self._first(capture)
        except BaseException:
            self.close()
            raise
        height, width = first.shape[:2]
        granted = _rate(capture.get(cv2.CAP_PROP_FPS))
        mode = _describe((height, width), granted, _fourcc_text(capture.get(cv2.CAP_PROP_FOURCC)))
        asked = _describe(size_hw, rate, fourcc)
        self.info = SourceInfo(
            name=self._name,
            size=(height, width),
            is_live=True,
            time_base=_MICROSECOND,
            rate=granted,
            frame_count=max_frames,
            kind=SourceKind.CAMERA,
            end_s=end_s,
            notes=(f"{self._name} delivers {mode}" + (f" (asked for {asked})" if asked else ""),),
        )

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames; ends after `interrupt`, `max_frames` or `end_s`."""
        index, bad, delivered, pts = 0, 0, 0, -1
        start_s: float | None = None
        if self._capture is not None:
            self._capture.grab()  # the picture that has waited in the driver's one buffer since opening
        while not self._stop.is_set() and delivered != self._max_frames:
            capture = self._capture
            if capture is None:
                return
            grabbed = capture.grab()
            now_s = self._clock()
            if self._stop.is_set():
                return
            if not grabbed:
                raise SourceError(f"stopped delivering after {delivered} frames", where=self._name, hint=_GONE)
            rgb = _retrieve(capture)
            index += 1
            if rgb is None:
                bad += 1
                self.log.dropped["undecodable"] = self.log.dropped.get("undecodable", 0) + 1
                if bad >= _BAD_IN_A_ROW:
                    raise SourceError(f"{bad} undecodable pictures in a row", where=self._name, hint=_CODEC)
                continue
            bad = 0
            start_s = now_s if start_s is None else start_s
            tick = round((now_s - start_s) / _MICROSECOND)
            if self._end_s is not None and tick * _MICROSECOND >= self._end_s:
                return
            self.log.repaired_pts += tick <= pts
            pts = max(pts + 1, tick)
            delivered += 1
            yield Frame(index=index - 1, pts=pts, time_base=_MICROSECOND, captured_at=now_s, rgb=rgb)

    def interrupt(self) -> None:
        """Make iteration end after the picture that is being read; a read stuck in the driver cannot be woken."""
        self._stop.set()

    def close(self) -> None:
        """Release the camera; idempotent."""
        self._stop.set()
        with self._lock:
            capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _ask(
        self,
        capture: Capture,
        size_hw: tuple[int, int] | None,
        rate: Fraction | None,
        fourcc: str | None,
        read_timeout_s: float,
    ) -> None:
        """Ask for a mode: the codec first, as it decides which sizes and rates there are."""
        capture.set(cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_timeout_s * 1000)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if fourcc is not None:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
        if size_hw is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_hw[1])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_hw[0])
        if rate is not None:
            capture.set(cv2.CAP_PROP_FPS, float(rate))

    def _first(self, capture: Capture) -> RgbImage:
        """One picture to learn the true size from; it is not delivered, as it is old when the models are loaded."""
        for _attempt in range(_BAD_IN_A_ROW):
            if not capture.grab():
                raise SourceError("opened, but delivers no pictures", where=self._name, hint=_BUSY)
            rgb = _retrieve(capture)
            if rgb is not None:
                return rgb
        raise SourceError("its pictures cannot be decoded", where=self._name, hint=_CODEC)


_BUSY = "another program may be using it"
_GONE = "was it unplugged?"
_CODEC = "ask for another codec with capture.camera_fourcc"


def camera_index(device: int | str) -> int:
    """`2`, `"2"`, `"/dev/video2"` or a link to it → 2.

    Raises:
        SourceNotFoundError: there is no such device, or it is no camera.
    """
    if isinstance(device, int) or device.isdecimal():
        return int(device)
    digits = Path(os.path.realpath(device)).name.removeprefix("video")
    if not Path(device).exists() or not digits.isdecimal():
        what = "is not a camera" if Path(device).exists() else "no such camera"
        raise SourceNotFoundError(what, where=device, allowed=_present())
    return int(digits)


def _cannot_open(index: int) -> SourceError | SourceNotFoundError:
    where, node = f"cam:{index}", Path(f"/dev/video{index}")
    if sys.platform != "linux":
        return SourceNotFoundError("no such camera, or it may not be used", where=where, hint=_BUSY)
    if not node.exists():
        if present := _present():
            return SourceNotFoundError("no such camera", where=where, allowed=present)
        hint = "name a file, a URL or pattern:testsrc2 instead"
        return SourceNotFoundError("no camera is connected", where=where, hint=hint)
    if not os.access(node, os.R_OK | os.W_OK):
        hint = "add yourself to the group that owns it, usually video"
        return SourceError(f"no permission to use {node}", where=where, hint=hint)
    return SourceError(f"{node} cannot be opened as a camera", where=where, hint=_BUSY)


def _present() -> str:
    digits = sorted(int(n) for p in Path("/dev").glob("video*") if (n := p.name.removeprefix("video")).isdecimal())
    return ", ".join(f"cam:{n}" for n in digits)


def _retrieve(capture: Capture) -> RgbImage | None:
    ok, bgr = capture.retrieve()
    if not ok or bgr is None or bgr.size == 0:
        return None
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_GRAY2RGB if bgr.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)


def _rate(fps: float) -> Fraction | None:
    """Drivers that know no rate say 0, -1 or NaN."""
    return Fraction(fps).limit_denominator(1001) if math.isfinite(fps) and fps > 0 else None


def _describe(size_hw: tuple[int, int] | None, rate: Fraction | None, fourcc: str | None) -> str:
    parts = [f"{size_hw[1]}×{size_hw[0]}"] if size_hw else []
    parts += [f"{float(rate):g} frames/s"] if rate else []
    return ", ".join(parts + ([fourcc] if fourcc else []))


def _fourcc_text(code: float) -> str | None:
    text = int(code).to_bytes(4, "little", signed=int(code) < 0).decode("ascii", "replace").strip("\0 ")
    return text if text.isprintable() and text.isascii() else None


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing what is raised as an error anyway."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
