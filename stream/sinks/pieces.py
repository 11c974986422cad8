"""Pieces of a video: frames keep their own times, so that the packets of consecutive pieces make up the whole.

`video.nut` holds a part of a video as its encoder gives it, without sound. NUT stores every pts exactly, in a time base
that is a whole fraction of the source's. An encoder that NUT does not know (ProRes) writes `video.mov` or `video.mkv`,
as the whole video will be. `depth.mkv` and `depth.mp4` are parts of a depth video with the description in them; they
have no sidecar.
Invariant: a piece starts with a key frame, and its times are those of the source; nothing is shifted to zero.
"""

from dataclasses import replace
from pathlib import Path

from stream.depthdata.description import DepthCodec, Description
from stream.errors import UsageError
from stream.sinks.audio import AudioPolicy
from stream.sinks.depthvideo import DepthVideoSink
from stream.sinks.encoders import Container, Encoding, choose_encoding, encoding_in
from stream.sinks.video import VideoSink

NUT = Container(muxer="nut", audio_copied=frozenset(), has_exact_ticks=False)
"""`has_exact_ticks` stands for what is special to MP4, such as its codec tags."""
VIDEO, DEPTH = "video", "depth"
"""The stems of the pieces' names."""


class _Piece(VideoSink):
    def _start(self, pts: int) -> None:
        """Nothing is shifted."""


class VideoPieceSink(_Piece):
    """Encodes a part of a video, as `VideoSink` would.

    Args:
        folder: the piece is made in it.
        of: the whole video, whose suffix selects the encoder.
        codec, crf, preset: see `VideoSink`.

    Raises:
        UsageError: see `VideoSink`.
    """

    def __init__(
        self, folder: Path, *, of: Path, codec: str | None = None, crf: int | None = None, preset: str | None = None
    ) -> None:
        encoding = choose_encoding(of, codec=codec, crf=crf, preset=preset)
        try:
            encoding_in(NUT, "pieces", codec=encoding.codec, crf=crf, preset=preset)
        except UsageError:
            suffix = of.suffix
        else:
            encoding, suffix = replace(encoding, container=NUT), ".nut"
        self._chosen = encoding
        super().__init__(folder / f"{VIDEO}{suffix}", audio=AudioPolicy.NONE)

    def _choose_encoding(self, *, codec: str | None, crf: int | None, preset: str | None) -> Encoding:  # noqa: ARG002
        return self._chosen


class DepthPieceSink(_Piece, DepthVideoSink):
    """Writes a part of a depth video, as `DepthVideoSink` would.

    Args:
        folder: the piece is made in it.
        codec, description: see `DepthVideoSink`.
    """

    def __init__(self, folder: Path, *, codec: DepthCodec, description: Description) -> None:
        super().__init__(folder / f"{DEPTH}{Path(codec.suffix).suffix}", codec=codec, description=description)
