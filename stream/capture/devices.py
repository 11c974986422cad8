"""Lists the cameras of this machine, with their names and, if the system reports them, their modes.

Invariant: listing does not disturb a camera in use, and a camera that another program uses is listed too.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stream.media import cv2


@dataclass(frozen=True, kw_only=True, order=True)
class CameraMode:
    """A frame size that a camera offers in one codec.

    Attributes:
        fourcc: code of the codec, see `--camera-fourcc`.
        width, height: in pixels.
        rates: frames per second, highest first; empty if the driver does not report them.
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
    """A camera of this machine.

    Attributes:
        index: number to pass to `depthstream run`.
        name: of the product.
        path: device file, None if there is none.
        modes: empty if the system does not report them.
    """

    index: int
    name: str
    path: str | None
    modes: tuple[CameraMode, ...]


class EnumeratedCamera(Protocol):
    """A camera as an enumeration returns it: the part of cv2_enumerate_cameras' `CameraInfo` that is used."""

    index: int
    name: str
    path: str | None


def list_cameras(
    *,
    enumerate_cameras: Callable[[], Sequence[EnumeratedCamera]] | None = None,
    modes_of: Callable[[int], tuple[CameraMode, ...]] | None = None,
) -> list[CameraDescription]:
    """List every camera, sorted by index.

    Args:
        enumerate_cameras: default: cv2_enumerate_cameras.
        modes_of: returns the modes of a camera; default: V4L2's on Linux, none elsewhere.
    """
    modes_of = modes_of or (_v4l2_modes if sys.platform == "linux" else lambda _index: ())
    found = {camera.index: camera for camera in (enumerate_cameras or _enumerate)()}
    return [
        CameraDescription(index=index, name=found[index].name, path=found[index].path, modes=modes_of(index))
        for index in sorted(found)
    ]


def _enumerate() -> Sequence[EnumeratedCamera]:
    from cv2_enumerate_cameras import enumerate_cameras

    backend = {"linux": cv2.CAP_V4L2, "win32": cv2.CAP_MSMF, "darwin": cv2.CAP_AVFOUNDATION}.get(sys.platform)
    return enumerate_cameras(cv2.CAP_ANY if backend is None else backend)


def _v4l2_modes(index: int) -> tuple[CameraMode, ...]:
    """Return the modes of /dev/videoINDEX, or none if it cannot be opened or reports none."""
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
