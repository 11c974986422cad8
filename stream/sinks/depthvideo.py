"""Depth as a video of numbers: exact codes or float32 bits, exact times, and what they mean.

Invariant: the file gives back the code of every pixel and the pts of every frame. Its description stands in its
metadata from the first byte, and in `NAME.depth.json` beside it once it is complete.
"""

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.storage import TAG, FrameTime, picture_size, sidecar_path, split_halves
from stream.errors import ConfigError, OutputError, SinkError, UsageError
from stream.files import as_sink_error, json_text, write_file
from stream.frames import Depth, Frame, Intrinsics, RgbImage, SourceInfo
from stream.media import av
from stream.sinks.audio import AudioPolicy
from stream.sinks.base import Unwritten
from stream.sinks.encoders import CONTAINERS, Encoding
from stream.sinks.letterbox import Letterbox
from stream.sinks.naming import check_output
from stream.sinks.video import VideoSink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame

_FFV1 = Encoding(container=CONTAINERS[".mkv"], codec="ffv1", pixel_format="gray16le", options={}, environment={})
_SUFFIXES = (".mkv", ".mp4", ".MKV", ".MP4")
_LARGEST_SLICE = (8 << 24) // 17  # pixels; FFmpeg's encoder refuses more at 16 bits
# keyint=1: with motion compensation, libx265's `lossless` is not: of four frames of noise at 32×32, up to 179 pixels
# came back changed, with any of seventeen other settings that were tried some. Intra frames came back exactly.
_HEVC12 = Encoding(
    container=CONTAINERS[".mp4"],
    codec="libx265",
    pixel_format="gray12le",
    options={"preset": "superfast", "x265-params": "log-level=none:lossless=1:keyint=1:bframes=0:hash=1"},
    environment={},
)


class DepthVideoSink(VideoSink):
    """Writes the depth of every frame into one video; `stream.depthdata.video` reads it.

    The file begins as `VideoSink`'s do: a part of a source and a live recording at time zero. Its size is that of the
    first map written. A picture of a folder that has another size cannot be in it and is skipped (`unwritten`).

    Args:
        path: `NAME.depth.mkv`, or `NAME.depth.mp4` for `hevc12`.
        codec: see `DepthCodec`.
        description: the kind, and what is known of the model; the sink adds the source, its size and its times.
            `ffv1` and `hevc12` need its mapping, `float32` takes none.
        overwrite: `path` and its sidecar may exist.

    Raises:
        UsageError: the suffix or the mapping does not fit the codec.
    """

    needs_image = False

    def __init__(
        self, path: Path, *, codec: DepthCodec = DepthCodec.FFV1, description: Description, overwrite: bool = False
    ) -> None:
        if path.suffix.lower() != Path(codec.suffix).suffix:
            raise UsageError(f"{codec} needs another name", where=str(path), allowed=f"NAME{codec.suffix}")
        mapping = description.mapping
        if (mapping is None) != (codec is DepthCodec.FLOAT32):
            hint = "give a range of values with --range LO:HI, or --depth-codec float32" if mapping is None else ""
            raise ConfigError(f"{codec} needs {'no' if mapping else 'a'} mapping", where=str(path), hint=hint)
        if mapping is not None and mapping.last != codec.last_code:
            raise ConfigError(f"the last code of {codec} is {codec.last_code}, got {mapping.last}", where=str(path))
        self._codec = codec
        super().__init__(path, audio=AudioPolicy.NONE, overwrite=overwrite)
        self.description = replace(description, codec=str(codec))
        """Complete once the sink is open; after `finish` with the number of frames."""
        self.unwritten: list[Unwritten] = []
        self._sidecar = sidecar_path(path)
        self._clipped = 0
        self._numbered = 0
        self._cameras: deque[Intrinsics | None] = deque()
        """Those of the frames that are not in the file yet."""

    @property
    def counters(self) -> Mapping[str, int]:
        """`depth_values_clipped`: how many values lay beyond the ends of the mapping, by more than half a code."""
        return {**super().counters, **({"depth_values_clipped": self._clipped} if self._clipped else {})}

    @property
    def outputs(self) -> list[str]:
        """The video, under its partial name until it is finished, and its sidecar."""
        has_sidecar = self._is_final and self._sidecar is not None and self._sidecar.exists()
        return [*super().outputs, *([str(self._sidecar)] if has_sidecar else [])]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - that of the rendered image
        """Create NAME.depth.partial.EXT with the description in it.

        Raises:
            OutputError: the video, its sidecar or its partial file exists, or cannot be created; or another video would
                share the sidecar.
            SinkError: the encoder does not work with this size.
        """
        if self._sidecar is not None:
            check_output(self._sidecar, overwrite=self._overwrite)
        check_sidecar_is_free(self.path)
        self.description = replace(
            self.description, source=info.name, size=info.size, time_base=self._tick(info), rate=info.rate
        )
        if self._codec is not DepthCodec.HEVC12:
            self._encoding = replace(self._encoding, options=_ffv1_options(*picture_size(self._codec, info.size)))
        super().open(replace(info, not_kept=""), info.size)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Encode one depth map; its values are copied. False if it is skipped because of its size.

        Raises:
            SinkError: writing failed, the frame's pts is not larger than the last one, or its size or kind is another.
        """
        if depth.kind is not self.description.kind:
            raise SinkError(f"{depth.kind} is not the {self.description.kind} of the frames before", where=self._where)
        if depth.size != self.description.size and self._output is not None and not self._count:
            self._reopen(depth.size)
        if depth.size != self.description.size:
            (height, width), first = depth.size, self.description.size or (0, 0)
            reason = f"is {width}×{height}: {self.path.name} has one size, {first[1]}×{first[0]}"
            if not frame.name:
                raise SinkError(f"frame {frame.index} {reason}", where=self._where)
            self.unwritten.append(Unwritten(index=frame.index, name=frame.name, reason=reason))
            return False
        camera = depth.intrinsics or frame.intrinsics  # as points in space choose
        if not self._encoding.container.has_exact_ticks:
            self._cameras.append(camera)
        elif camera is not None:
            self._note(f"the camera (focal length and centre) is not kept: {self._codec} has no place for it")
        return super().write(frame, depth, image)

    def finish(self) -> None:
        """Complete the video, rename it to its final name, and write its sidecar.

        Raises:
            SinkError: a file cannot be completed; the partial video stays if it is the video.
        """
        if self._sidecar is not None and self._overwrite:
            with as_sink_error(self._sidecar):  # never an old one beside a new video
                self._sidecar.unlink(missing_ok=True)
        super().finish()
        self.description = replace(self.description, frame_count=self._count)
        if self._sidecar is None:
            return
        if os.path.lexists(self._sidecar):
            raise SinkError("the file was created by another program", where=str(self._sidecar))
        with as_sink_error(self._sidecar):
            write_file(self._sidecar, (self.description.as_json(indent=2) + "\n").encode())

    def _reopen(self, size: tuple[int, int]) -> None:
        """Begin again with the size of the first map: the picture that the source took its size from was not read."""
        info = replace(self._info, size=size)
        self.abort(SinkError("another size", where=self._where))
        self.open(info, size)

    def _choose_encoding(self, *, codec: str | None, crf: int | None, preset: str | None) -> Encoding:  # noqa: ARG002
        encoding = _HEVC12 if self._codec is DepthCodec.HEVC12 else _FFV1
        if encoding.codec not in av.codecs_available:
            raise UsageError(f"this build of PyAV has no {encoding.codec}", where=f"--depth-codec {self._codec}")
        return encoding

    def _other_encoder(self) -> str:
        return "save files: --save npy" if self._codec is DepthCodec.FLOAT32 else "use --depth-codec float32"

    def _tick(self, info: SourceInfo) -> Fraction:
        return super()._tick(info) if self._encoding.container.has_exact_ticks else info.time_base

    def _fit_into(self, size: tuple[int, int]) -> Letterbox:
        return Letterbox(picture_size(self._codec, size), (1, 1))

    def _open_container(self, options: dict[str, str]) -> "OutputContainer":
        if "movflags" in options:
            options = options | {"movflags": f"{options['movflags']}+use_metadata_tags"}
        output = super()._open_container(options)
        output.metadata[TAG] = self.description.as_json()
        for key, value in self.description.lerobot_fields.items():
            output.metadata[key] = json_text(value)
        return output

    def _picture(self, depth: Depth, image: RgbImage) -> "VideoFrame":  # noqa: ARG002 - the depth only
        mapping = self.description.mapping
        if mapping is None:
            return av.VideoFrame.from_ndarray(split_halves(depth.values), format=self._encoding.pixel_format)
        if clipped := mapping.beyond(depth.answers):
            self._clipped += clipped
            self._note(f"values beyond {mapping.lo:g} … {mapping.hi:g} are written as these ends")
        if depth.valid is not None and not mapping.marks_invalid:
            self._note("pixels without an answer get code 0, as the lowest value has: hevc12 has no code for them")
        codes = mapping.encode(depth.values, depth.valid)
        height, width = self._letterbox.size
        if codes.shape != (height, width):
            codes = np.pad(codes, ((0, height - len(codes)), (0, width - codes.shape[1])), mode="edge")
            self._note(f"the picture is extended to {width}×{height}, the least that the encoder takes")
        return av.VideoFrame.from_ndarray(codes, format=self._encoding.pixel_format)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _mux_frames(self, packets: "Iterable[Packet[Any]]") -> None:
        for packet in packets:
            if not self._encoding.container.has_exact_ticks and packet.pts is not None:
                camera = self._cameras.popleft()
                FrameTime(self._numbered, packet.pts, packet.duration or 0, camera).attach(packet)
            self._numbered += 1
            self._mux([packet])


def check_sidecar_is_free(path: Path) -> None:
    """Refuse `NAME.depth.mkv` beside `NAME.depth.mp4`: each would have the sidecar of the other.

    Raises:
        OutputError: there is such a video, whether `path` may be replaced or not.
    """
    if (sidecar := sidecar_path(path)) is None:
        return
    for suffix in _SUFFIXES:
        other = path.with_suffix(suffix)
        if other != path and other.is_file() and not (path.exists() and other.samefile(path)):
            what = f"{other.name} is there, and its sidecar would have the same name, {sidecar.name}"
            raise OutputError(what, where=str(path), hint=f"choose another name, or remove {other.name}")


def _ffv1_options(height: int, width: int) -> dict[str, str]:
    """Those that FFmpeg's encoder takes for a picture of this size.

    It wants at least four slices as soon as a side is longer than 352 or 288, and no more than it has rows or columns.
    """
    if min(height, width) < 2:
        return {"level": "1"}  # has no slices
    side = 2
    while -(-height // side) * -(-width // side) > _LARGEST_SLICE:
        side += 1
    return {"level": "3", "slicecrc": "1", "slices": str(side * side)}
