"""The cameras of this machine: what they are called and, where the system tells, which modes they have.

Invariant: looking disturbs nobody; a camera that another program uses is listed all the same.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stream.media import cv2


@dataclass(frozen=True, kw_only=True, order=True)
class CameraMode:
    """A picture size that a camera delivers in one codec.

    Attributes:
        fourcc: as for `--camera-fourcc`.
        width, height: pixels.
        rates: frames per second, highest first; empty where the driver does not tell.
    """

    fourcc: str
    width: int
    height: int
    rates: tuple[float, ...]

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.rates)
        return f"{self.fourcc} {self.width}x{self.height}" + (f" at {rates} frames/s" if rates else "")


@dataclass(frozen=True, kw_only=True)
class CameraDescription:
    """A camera: `index` is what `depthstream run INDEX` takes; `modes` is empty where the system does not tell."""

    index: int
    name: str
    path: str | None
    modes: tuple[CameraMode, ...]


class Found(Protocol):
    """What an enumeration gives of a camera; cv2_enumerate_cameras' `CameraInfo`."""

    index: int
    name: str
    path: str | None


def list_cameras(
    *, find: Callable[[], Sequence[Found]] | None = None, modes: Callable[[int], tuple[CameraMode, ...]] | None = None
) -> list[CameraDescription]:
    """Every camera, by index.

    Args:
        find: enumerates cameras; by default with cv2_enumerate_cameras.
        modes: tells a camera's modes; by default V4L2's on Linux, none elsewhere.
    """
    tell = modes or (_v4l2_modes if sys.platform == "linux" else lambda _index: ())
    found = {camera.index: camera for camera in (find or _enumerate)()}
    return [
        CameraDescription(index=index, name=found[index].name, path=found[index].path, modes=tell(index))
        for index in sorted(found)
    ]


def _enumerate() -> Sequence[Found]:
    from cv2_enumerate_cameras import enumerate_cameras

    backend = {"linux": cv2.CAP_V4L2, "win32": cv2.CAP_MSMF, "darwin": cv2.CAP_AVFOUNDATION}.get(sys.platform)
    return enumerate_cameras(cv2.CAP_ANY if backend is None else backend)


def _v4l2_modes(index: int) -> tuple[CameraMode, ...]:
    """Of /dev/videoINDEX; none if it may not be opened or answers nothing."""
    from linuxpy.video.device import Device, human_pixel_format

    try:
        with Device.from_id(index) as device:
            rows = [(human_pixel_format(t.pixel_format), t.width, t.height, t.max_fps) for t in device.info.frame_types]
    except OSError:
        return ()
    rates: dict[tuple[str, int, int], set[float]] = {}
    for fourcc, width, height, fps in rows:
        rates.setdefault((fourcc, width, height), set()).update([round(float(fps), 3)] if fps else [])
    return tuple(
        CameraMode(fourcc=fourcc, width=width, height=height, rates=tuple(sorted(rates[fourcc, width, height])[::-1]))
        for fourcc, width, height in sorted(rates, key=lambda mode: (mode[0], -mode[1], -mode[2]))
    )
