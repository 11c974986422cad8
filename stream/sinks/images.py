"""Rendered pictures as PNG, JPEG or WebP, one per frame or exactly one.

Invariant: the pixels are copied before `write` returns, so the renderer may use its buffer again.
"""

from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from stream.errors import ConfigError, OutputError, SinkError
from stream.files import Encode
from stream.frames import Depth, RgbImage
from stream.media import cv2
from stream.sinks.per_frame import FileSink

SUFFIXES = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
"""The suffixes that make an output path one picture, and their formats."""
_UNWRITTEN_SUFFIXES = {".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".tif", ".tiff"}

_DEFAULT_QUALITY = {"png": None, "jpg": 95, "webp": 90}
_MAX_SIDE = {"png": 1_000_000, "jpg": 65_500, "webp": 16_383}  # libpng's default, libjpeg's, libwebp's
# One 1080p photograph, one core: level 1 takes 96 ms and 1.72 MB, level 3 163 ms and 1.57 MB, level 6 457 ms and
# 1.39 MB. OpenCV is a fifth faster than Pillow at each.
_PNG_LEVEL = 1


class ImageSink(FileSink):
    """Writes the rendered picture of each frame.

    Args:
        path: with a picture suffix, the one picture to write, in that suffix's format. Otherwise a folder that gets
            `a.png` for the still `a.jpg` and `000012.png` for frame 12 of a video; see `naming.FrameNames`.
        format: `png`, `jpg` or `webp`; used for folders.
        overwrite: existing pictures may be replaced.
        quality: 1 to 100 for `jpg` (default 95) and `webp` (default 90); PNG is exact and has none.
        names, beside: see `FileSink`.

    Raises:
        ConfigError: unknown format, or quality out of range.
        OutputError: the path's suffix is that of a picture format that is not written.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str = "png",
        overwrite: bool = False,
        quality: int | None = None,
        names: Collection[str] = (),
        beside: Collection[str] = (),
    ) -> None:
        suffix = path.suffix.lower()
        if suffix in _UNWRITTEN_SUFFIXES and not path.is_dir():
            raise OutputError("cannot write this picture format", where=str(path), allowed=", ".join(SUFFIXES))
        if format not in _DEFAULT_QUALITY:
            raise ConfigError(f"unknown picture format '{format}'", allowed=", ".join(_DEFAULT_QUALITY))
        if quality is not None and not 1 <= quality <= 100:
            raise ConfigError(f"bad picture quality {quality}", allowed="1 to 100")
        is_single = suffix in SUFFIXES
        self._format = SUFFIXES[suffix] if is_single else format
        self._quality = _DEFAULT_QUALITY[self._format] if quality is None else quality
        super().__init__(
            path, suffix=f".{format}", is_single=is_single, overwrite=overwrite, names=names, beside=beside
        )

    def _encoder(self, depth: Depth, image: RgbImage) -> tuple[Encode, int]:  # noqa: ARG002 - pictures only
        height, width = image.shape[:2]
        if max(height, width) > (limit := _MAX_SIDE[self._format]):
            raise SinkError(
                f"a picture of {width}×{height} does not fit the {self._format} format",
                where=str(self.path),
                allowed=f"sides up to {limit}",
                hint="write png",
            )
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # a copy, 1 ms at 1080p
        match self._format, self._quality:
            case "jpg", int(quality):
                options = [cv2.IMWRITE_JPEG_QUALITY, quality]
            case "webp", int(quality):
                options = [cv2.IMWRITE_WEBP_QUALITY, quality]
            case _:
                options = [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL]

        def encode(file: BinaryIO) -> None:
            try:
                ok, data = cv2.imencode(f".{self._format}", bgr, options)
            except cv2.error as error:
                raise SinkError(f"cannot encode a picture: {error.err}", where=str(self.path)) from error
            if not ok:
                raise SinkError(f"cannot encode a {width}×{height} picture", where=str(self.path))
            file.write(data.data)

        return encode, bgr.nbytes
