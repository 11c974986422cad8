"""The test video that everything is measured with.

Invariant: it is the same on every machine, and about as costly to decode and encode as a calm film.
"""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from stream.media import RgbConverter, av, file_url

if TYPE_CHECKING:
    from av.video.stream import VideoStream

RATE = 30


def write_clip(path: Path, size_hw: tuple[int, int], frames: int, *, codec: str = "libx264") -> None:
    """Write a moving scene of gradients, blocks and fine grain as H.264, or with another encoder."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(0).integers(-6, 7, (height, width, 1))
    with av.open(file_url(path), "w") as container:
        options = {"crf": "20", "preset": "veryfast"}
        video = cast("VideoStream", container.add_stream(codec, rate=RATE, options=options))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        converter = RgbConverter("yuv420p")
        converter.tag(video.codec_context)
        for number in range(frames):
            blocks = ((x + 3 * number) // 40 + y // 40) % 2 * 60
            waves = 128 + 100 * np.sin((x + 4 * number) / 90) * np.cos((y + 2 * number) / 70)
            scene = np.stack([waves, 255 - waves / 2, blocks + 60], axis=-1) + np.roll(grain, 5 * number, axis=1)
            frame = converter.convert(np.clip(scene, 0, 255).astype(np.uint8))
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
