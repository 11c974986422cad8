"""Rendered images as PNG, JPEG or WebP: one file per frame, or exactly one file.

Invariant: the pixels are copied before `write` returns, so the renderer may reuse its buffer.
"""

from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from stream.errors import ConfigError, OutputError
from stream.files import WriteContent
from stream.frames import Depth, Frame, RgbImage
from stream.media import cv2
from stream.sinks.per_frame import ItemError, PerFrameSink

SUFFIXES = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
"""The suffixes that make an output path a single image, and their formats."""
_UNWRITTEN_SUFFIXES = {".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".tif", ".tiff"}

_MAX_SIDE = {"png": 1_000_000, "jpg": 65_500, "webp": 16_383}
"""Largest width or height in pixels: the default limit of libpng, and the limits of libjpeg and libwebp."""
_OPTIONS = {
    # A 1080p photograph on one core: level 1 takes 96 ms and 1.72 MB, level 3 163 ms and 1.57 MB, level 6 457 ms and
    # 1.39 MB. OpenCV is 20 % faster than Pillow at each level.
    "png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    "jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    "webp": [cv2.IMWRITE_WEBP_QUALITY, 90],
}


class ImageSink(PerFrameSink):
    """Writes the rendered image of each frame.

    Args:
        path: a single image if it has an image suffix, which then decides the format; otherwise a folder. In a folder,
            the image `a.jpg` gives `a.png`, and frame 12 of a video gives `000012.png`; see `naming.FrameNames`.
        format: `png`, `jpg` or `webp`; used for folders.
        overwrite: existing images may be replaced.
        names, beside: see `PerFrameSink`.

    Raises:
        ConfigError: unknown format.
        OutputError: the suffix of `path` is that of an image format that cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str = "png",
        overwrite: bool = False,
        names: Collection[str] = (),
        beside: Collection[str] = (),
    ) -> None:
        suffix = path.suffix.lower()
        if suffix in _UNWRITTEN_SUFFIXES and not path.is_dir():
            raise OutputError("cannot write this image format", where=str(path), allowed=", ".join(SUFFIXES))
        if format not in _OPTIONS:
            raise ConfigError(f"unknown image format '{format}'", allowed=", ".join(_OPTIONS))
        is_single = suffix in SUFFIXES
        self._format = SUFFIXES[suffix] if is_single else format
        super().__init__(
            path, suffix=f".{format}", is_single=is_single, overwrite=overwrite, names=names, beside=beside
        )

    def _content(self, frame: Frame, depth: Depth, image: RgbImage) -> tuple[WriteContent, int]:  # noqa: ARG002 - the image only
        height, width = image.shape[:2]
        if max(height, width) > (limit := _MAX_SIDE[self._format]):
            raise ItemError(
                f"an image of {width}×{height} does not fit the {self._format} format",
                where=str(self.path),
                allowed=f"sides up to {limit}",
                hint="write png",
            )
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # a copy, 1 ms at 1080p

        def write(file: BinaryIO) -> None:
            try:
                ok, data = cv2.imencode(f".{self._format}", bgr, _OPTIONS[self._format])
            except cv2.error as error:
                raise ItemError(f"cannot encode an image: {error.err}", where=str(self.path)) from error
            if not ok:
                raise ItemError(f"cannot encode a {width}×{height} image", where=str(self.path))
            file.write(data.data)

        return write, bgr.nbytes
