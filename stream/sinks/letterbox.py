"""Images of any size, fitted into the one size of a video or virtual camera.

Invariant: an image of exactly that size keeps every pixel, unscaled.
"""

import numpy as np

from stream.frames import RgbImage
from stream.media import cv2


class Letterbox:
    """Fits images into one size, extended to whole chroma samples.

    Args:
        size: (height, width) of the images, in pixels.
        steps: (rows, columns) of pixels that share a chroma sample, see `media.chroma_steps`.
    """

    def __init__(self, size: tuple[int, int], steps: tuple[int, int]) -> None:
        self.size = size
        self._extra_rows, self._extra_columns = -size[0] % steps[0], -size[1] % steps[1]

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) of the images that `fit` returns."""
        return self.size[0] + self._extra_rows, self.size[1] + self._extra_columns

    def fit(self, image: RgbImage) -> RgbImage:
        """Return uint8 H×W×3 of `padded_size`.

        An image of another size is scaled to fit and centred on black. The extra rows and columns repeat the edge.
        """
        if image.shape[:2] != self.size:
            image = self._scaled(image)
        if not (self._extra_rows or self._extra_columns):
            return image
        padded = cv2.copyMakeBorder(image, 0, self._extra_rows, 0, self._extra_columns, cv2.BORDER_REPLICATE)
        return np.asarray(padded, np.uint8)

    def _scaled(self, image: RgbImage) -> RgbImage:
        height, width = self.size
        scale = min(height / image.shape[0], width / image.shape[1])
        h = min(height, max(1, round(image.shape[0] * scale)))
        w = min(width, max(1, round(image.shape[1] * scale)))
        boxed = np.zeros((height, width, 3), np.uint8)
        top, left = (height - h) // 2, (width - w) // 2
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        boxed[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=interpolation)
        return boxed
