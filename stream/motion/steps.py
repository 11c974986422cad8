"""What changes from one frame of a video to the next: a scene begins, or the picture moves.

Invariant: a motion joins two frames of one scene and size.
"""

from dataclasses import dataclass

from stream.frames import Frame
from stream.motion.cuts import CutDetector
from stream.motion.flow import LEAST_FOUND, Gray, Motion, OpticalFlow, flow_size, reduced


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """From one frame to the next.

    Attributes:
        begins: a scene begins; then there is no motion.
        back: where the pixels of this frame were in the one before; None if none moved, or that is unknown (a flash).
        ahead: where those of the frame before are in this one.
    """

    begins: bool
    back: Motion | None = None
    ahead: Motion | None = None
    is_flash: bool = False


class Steps:
    """Looks at the frames of a video in order."""

    def __init__(self) -> None:
        self._detector, self._flow = CutDetector(), OpticalFlow()
        self._gray: Gray | None = None
        self._size: tuple[int, int] | None = None

    def step(self, frame: Frame) -> Step:
        """What has changed since the frame before."""
        is_cut, is_new = self._detector.is_cut(frame.rgb), frame.size != self._size
        self._size = frame.size
        if self._detector.is_flash and not is_new and self._gray is not None:
            return Step(begins=False, is_flash=True)  # the next frame is compared with the one before the flash
        before, self._gray = self._gray, reduced(frame.rgb, flow_size(frame.size))
        if before is None or is_cut or is_new:
            return Step(begins=True)
        back, ahead = self._flow.both(before, self._gray)
        if back.share_found < LEAST_FOUND:  # a cut between scenes that look alike
            return Step(begins=True)
        return Step(begins=False, back=back, ahead=ahead)

    def restart(self) -> None:
        """Forget the frames so far: the next one begins a scene."""
        self._detector.restart()
        self._gray = None
