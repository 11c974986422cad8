"""The one door to PyAV and to OpenCV's video and window parts.

Importing `av` before `cv2` makes `cv2.imshow` hang with the published wheels (both bundle FFmpeg), so every
module that needs either takes it from here.
Invariant: cv2 is imported before av, in every process.
"""

import cv2  # isort: skip  (must precede av, see above)
import av  # isort: skip

__all__ = ["av", "cv2"]
