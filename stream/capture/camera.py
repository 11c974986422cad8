"""A camera as a live source, through OpenCV.

Invariant: nothing is queued here, so frames are as recent as the driver allows. The errors distinguish a camera that is
absent, busy or disconnected.
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

from stream.capture.base import CaptureLog, Source
from stream.config import defaults
from stream.errors import SourceError, SourceNotFoundError
from stream.frames import Frame, RgbImage, SourceInfo, SourceKind
from stream.media import cv2

_MICROSECOND = Fraction(1, 1_000_000)
_MAX_UNDECODABLE = 30
"""Consecutive undecodable frames before giving up: about a second, since the first frames of USB cameras are often
garbled."""


class VideoCapture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def isOpened(self) -> bool: ...
    def set(self, prop: int, value: float, /) -> bool: ...
    def get(self, prop: int, /) -> float: ...
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]: ...
    def release(self) -> None: ...


def open_opencv(index: int) -> VideoCapture:
    """Open camera `index` with OpenCV; on Linux with V4L2 only, because OpenCV's attempt with its bundled FFmpeg prints
    to stderr if there is no camera."""
    return cast(VideoCapture, cv2.VideoCapture(index, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY))


class CameraSource(Source):
    """Yields the frames of a camera until it is interrupted. pts are microseconds since the first frame.

    Args:
        device: index, or a path such as `/dev/video2` or `/dev/v4l/by-id/…`.
        size_hw, rate, fourcc: mode to request; `info.notes` states the mode that was granted.
        read_timeout_s: longest wait for a frame; some drivers ignore it.
        end_s: stop this many seconds after the first frame.
        max_frames: stop after this many.
        open_capture: opens a camera by its index.
        clock: monotonic seconds.

    Raises:
        SourceNotFoundError: there is no such camera.
        SourceError: the camera is busy, access is denied or it delivers no frames; during iteration: it was
            disconnected.
    """

    def __init__(
        self,
        device: int | str,
        *,
        size_hw: tuple[int, int] | None = None,
        rate: Fraction | None = None,
        fourcc: str | None = None,
        read_timeout_s: float = defaults().capture.read_timeout_s,
        end_s: float | None = None,
        max_frames: int | None = None,
        open_capture: Callable[[int], VideoCapture] = open_opencv,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        index = camera_index(device)
        self._name = f"cam:{index}"
        self._end_s, self._max_frames, self._clock = end_s, max_frames, clock
        self._read_timeout_s = read_timeout_s
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._log = CaptureLog()
        try:
            with _quiet_opencv():
                capture = open_capture(index)
        except cv2.error as error:
            raise SourceError(f"cannot be opened: {getattr(error, 'err', error)}", where=self._name) from error
        self._capture: VideoCapture | None = capture
        try:
            if not capture.isOpened():
                raise _cannot_open(index)
            self._request_mode(capture, size_hw, rate, fourcc, read_timeout_s)
            first = self._read_first(capture)
        except BaseException:
            self.close()
            raise
        height, width = first.shape[:2]
        granted = _rate(capture.get(cv2.CAP_PROP_FPS))
        mode = _mode_text((height, width), granted, _fourcc_text(capture.get(cv2.CAP_PROP_FOURCC)))
        asked = _mode_text(size_hw, rate, fourcc)
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

    @property
    def silence_limit_s(self) -> float | None:
        """The read timeout, which the pipeline enforces too, as some drivers ignore it."""
        return self._read_timeout_s

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames; ends after `interrupt`, `max_frames` or `end_s`."""
        index, undecodable, delivered, pts = 0, 0, 0, -1
        start_s: float | None = None
        if self._capture is not None:
            self._capture.grab()  # discard the frame that has been in the driver's buffer since opening
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
                undecodable += 1
                self.log.dropped["undecodable"] = self.log.dropped.get("undecodable", 0) + 1
                if undecodable >= _MAX_UNDECODABLE:
                    what = f"{undecodable} frames in a row could not be decoded"
                    raise SourceError(what, where=self._name, hint=_CODEC)
                continue
            undecodable = 0
            start_s = now_s if start_s is None else start_s
            tick = round((now_s - start_s) / _MICROSECOND)
            if self._end_s is not None and tick * _MICROSECOND >= self._end_s:
                return
            self.log.repaired_pts += tick <= pts
            pts = max(pts + 1, tick)
            delivered += 1
            yield Frame(index=index - 1, pts=pts, time_base=_MICROSECOND, captured_at=now_s, rgb=rgb)

    def interrupt(self) -> None:
        """End the iteration after the frame being read; a read that is stuck in the driver cannot be interrupted."""
        self._stop.set()

    def close(self) -> None:
        """Release the camera; idempotent."""
        self._stop.set()
        with self._lock:
            capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _request_mode(
        self,
        capture: VideoCapture,
        size_hw: tuple[int, int] | None,
        rate: Fraction | None,
        fourcc: str | None,
        read_timeout_s: float,
    ) -> None:
        """Request a mode; the codec comes first because it decides which sizes and rates are available."""
        capture.set(cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_timeout_s * 1000)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if fourcc is not None:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
        if size_hw is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_hw[1])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_hw[0])
        if rate is not None:
            capture.set(cv2.CAP_PROP_FPS, float(rate))

    def _read_first(self, capture: VideoCapture) -> RgbImage:
        """Read a frame to get the real size. It is not delivered: it will be outdated once the model is loaded."""
        for _attempt in range(_MAX_UNDECODABLE):
            if not capture.grab():
                raise SourceError("opened, but delivers no frames", where=self._name, hint=_BUSY)
            rgb = _retrieve(capture)
            if rgb is not None:
                return rgb
        raise SourceError("its frames cannot be decoded", where=self._name, hint=_CODEC)


_BUSY = "another program may be using it"
_GONE = "was it unplugged?"
_CODEC = "ask for another codec with capture.camera_fourcc"


def camera_index(device: int | str) -> int:
    """Return 2 for `2`, `"2"`, `"/dev/video2"` or a symbolic link to it.

    Raises:
        SourceNotFoundError: there is no such device, or it is not a camera.
    """
    if isinstance(device, int) or device.isdecimal():
        return int(device)
    digits = Path(os.path.realpath(device)).name.removeprefix("video")
    if not Path(device).exists() or not digits.isdecimal():
        what = "is not a camera" if Path(device).exists() else "no such camera"
        raise SourceNotFoundError(what, where=device, allowed=_connected())
    return int(digits)


def _cannot_open(index: int) -> SourceError | SourceNotFoundError:
    where, node = f"cam:{index}", Path(f"/dev/video{index}")
    if sys.platform != "linux":
        return SourceNotFoundError("no such camera, or access is denied", where=where, hint=_BUSY)
    if not node.exists():
        if connected := _connected():
            return SourceNotFoundError("no such camera", where=where, allowed=connected)
        hint = "use a file, a URL or pattern:testsrc2 instead"
        return SourceNotFoundError("no camera is connected", where=where, hint=hint)
    if not os.access(node, os.R_OK | os.W_OK):
        hint = "add your user to the group that owns it, usually video"
        return SourceError(f"no permission to use {node}", where=where, hint=hint)
    return SourceError(f"{node} cannot be opened as a camera", where=where, hint=_BUSY)


def _connected() -> str:
    digits = sorted(int(n) for p in Path("/dev").glob("video*") if (n := p.name.removeprefix("video")).isdecimal())
    return ", ".join(f"cam:{n}" for n in digits)


def _retrieve(capture: VideoCapture) -> RgbImage | None:
    ok, bgr = capture.retrieve()
    if not ok or bgr is None or bgr.size == 0:
        return None
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_GRAY2RGB if bgr.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)


def _rate(fps: float) -> Fraction | None:
    """Return the rate as a fraction, None for the 0, -1 or NaN of drivers that do not know it."""
    return Fraction(fps).limit_denominator(1001) if math.isfinite(fps) and fps > 0 else None


def _mode_text(size_hw: tuple[int, int] | None, rate: Fraction | None, fourcc: str | None) -> str:
    parts = [f"{size_hw[1]}×{size_hw[0]}"] if size_hw else []
    parts += [f"{float(rate):g} frames/s"] if rate else []
    return ", ".join(parts + ([fourcc] if fourcc else []))


def _fourcc_text(code: float) -> str | None:
    text = int(code).to_bytes(4, "little", signed=int(code) < 0).decode("ascii", "replace").strip("\0 ")
    return text if text.isprintable() and text.isascii() else None


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing an error that is also raised."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
