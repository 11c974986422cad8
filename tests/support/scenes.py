"""Images that stand for scenes: soft shapes, and shapes of every size as photographs have."""

import numpy as np

from stream.media import cv2


def scene(seed: int, size: tuple[int, int] = (240, 640)) -> np.ndarray:
    """An image of large soft shapes: enlarged noise of a few pixels."""
    height, width = size
    coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def textured(seed: int, size: tuple[int, int]) -> np.ndarray:
    """An image with shapes of every size, as photographs have: noise of four scales, the larger the stronger."""
    height, width = size
    rng, picture = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for cell, strength in (8, 0.1), (24, 0.2), (60, 0.3), (120, 0.4):
        coarse = rng.integers(0, 256, (max(2, height // cell), max(2, width // cell), 3), np.uint8)
        picture += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip((picture - 128) * 1.6 + 128, 0, 255).astype(np.uint8)
