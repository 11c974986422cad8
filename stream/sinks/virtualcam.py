"""Rendered images as a virtual webcam for video calls and OBS, through pyvirtualcam (extra `virtualcam`).

Invariant: the device keeps one size from the first image to the last; images of other sizes are fitted into it.
"""

import sys
from fractions import Fraction
from typing import TYPE_CHECKING

from stream.errors import MissingExtraError, SinkError
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.sinks.base import Sink
from stream.sinks.letterbox import Letterbox

if TYPE_CHECKING:
    import pyvirtualcam

_DEFAULT_RATE = Fraction(30)
_SETUP = {
    "linux": "load the kernel module first: sudo modprobe v4l2loopback",
    "win32": "install OBS Studio, which includes one",
    "darwin": "install OBS Studio and start its virtual camera once",
}


class VirtualCameraSink(Sink):
    """Sends each image to a virtual camera; a file is sent at its own frame rate.

    Args:
        device: its name (`/dev/video10`, `OBS Virtual Camera`); None for the first one.
    """

    def __init__(self, device: str | None = None) -> None:
        self._wanted = device
        self._camera: pyvirtualcam.Camera | None = None
        self._letterbox: Letterbox | None = None
        self._is_paced = False
        self._name = device or "virtual camera"

    @property
    def is_lossless(self) -> bool:
        """False: nothing is stored."""
        return False

    @property
    def outputs(self) -> list[str]:
        """The device's name."""
        return [self._name]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Open the device with the size of the images, extended to even numbers.

        Raises:
            MissingExtraError: pyvirtualcam is not installed.
            SinkError: there is no such device, or another program writes to it.
        """
        try:
            import pyvirtualcam
        except ImportError as error:
            hint = "pip install 'depthstream[virtualcam]'"
            raise MissingExtraError("pyvirtualcam is not installed", where="--virtual-camera", hint=hint) from error
        self._letterbox = Letterbox(size, (2, 2))
        height, width = self._letterbox.padded_size
        rate = float(info.rate or _DEFAULT_RATE)
        try:
            self._camera = pyvirtualcam.Camera(width, height, rate, device=self._wanted)
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            hint = _SETUP.get(sys.platform, "")
            raise SinkError(f"no virtual camera can be used: {reason}", where="--virtual-camera", hint=hint) from error
        self._name, self._is_paced = self._camera.device, not info.is_live

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - the image only
        """Send `image`.

        Raises:
            SinkError: the device was removed.
        """
        if self._camera is None or self._letterbox is None:
            return False
        try:
            self._camera.send(self._letterbox.fit(image))
        except (RuntimeError, OSError) as error:
            raise SinkError(f"the virtual camera no longer accepts images: {error}", where=self._name) from error
        if self._is_paced:
            self._camera.sleep_until_next_frame()
        return True

    def finish(self) -> None:
        """Close the device."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - nothing is kept
        """Close the device."""
        self.finish()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Close the device."""
        self.finish()
