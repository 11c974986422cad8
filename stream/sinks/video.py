"""Rendered pictures become a video file with the source's timestamps and audio.

Invariant: the file is NAME.partial.EXT until `finish` has written its trailer; every input pts comes out unchanged
(to the tick in MP4 and MOV; Matroska and WebM round to milliseconds).
"""

import contextlib
import math
import os
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stream.errors import OutputError, SinkError, UsageError
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.media import MATRIX_BT709, PRIMARIES_BT709, RANGE_LIMITED, TRANSFER_BT709, av, cv2, from_rgb
from stream.sinks.audio import AudioTrack

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

DEFAULT_CODEC = {
    ".mp4": "libx264",
    ".m4v": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".webm": "libvpx-vp9",
}
"""By container suffix."""
VIDEO_SUFFIXES = frozenset(DEFAULT_CODEC)
"""The suffixes that make an output path a video."""
_MOV_SUFFIXES = frozenset({".mp4", ".m4v", ".mov"})
CODECS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "prores_ks", "mjpeg", "ffv1", "h264_nvenc", "hevc_nvenc")
"""Named in errors; any encoder of the FFmpeg build is taken."""
_DEFAULT_OPTIONS = {
    # One 1330×480 frame (640×480 side by side), CPU time: veryfast 3.5 ms, faster 6, medium 9; see scripts/README.
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libx265": {"preset": "fast", "crf": "23", "x265-params": "log-level=none"},
    "libsvtav1": {"preset": "8", "crf": "30"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "crf": "30", "b": "0", "row-mt": "1"},
}
_MAX_TIMESCALE = 2**31 - 1  # the field in the file is 32 bits, and FFmpeg's option a signed int
_FRAGMENT_US = 1_000_000
"""A killed live recording loses at most about this much."""


class AudioPolicy(StrEnum):
    """What happens to the source's audio."""

    KEEP = "keep"
    NONE = "none"


class VideoSink:
    """Encodes every picture.

    Args:
        path: its suffix chooses the container, see `VIDEO_SUFFIXES`.
        codec: FFmpeg encoder; default by container.
        crf: constant quality where the encoder has it, smaller is better.
        preset: the encoder's speed preset.
        audio: see `AudioPolicy`; copied packet by packet where the container allows, else encoded as AAC or Opus.
        audio_to_source_end: audio goes on after the last picture as it does in the source.
        overwrite: `path` may exist.
        fragmented: write MP4 and MOV so that a killed process leaves a playable file; for live recordings.
        threads: of the encoder; default: its own choice.

    Raises:
        UsageError: unknown suffix or encoder.
    """

    def __init__(
        self,
        path: Path,
        *,
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        audio: AudioPolicy = AudioPolicy.KEEP,
        audio_to_source_end: bool = True,
        overwrite: bool = False,
        fragmented: bool = False,
        threads: int | None = None,
    ) -> None:
        suffix = path.suffix.lower()
        if suffix not in VIDEO_SUFFIXES:
            raise UsageError("not a video suffix", where=str(path), allowed=", ".join(sorted(VIDEO_SUFFIXES)))
        self.path = path
        self.notes: list[str] = []
        self._codec = codec or DEFAULT_CODEC[suffix]
        try:
            encoder = av.Codec(self._codec, "w")
        except av.codec.codec.UnknownCodecError:
            raise UsageError(f"unknown encoder {codec!r}", where="--codec", allowed=", ".join(CODECS)) from None
        if encoder.type != "video":
            raise UsageError(f"{codec} is no video encoder", where="--codec", allowed=", ".join(CODECS))
        formats = [f.name for f in encoder.video_formats or []]
        self._pixel_format = "yuv420p" if not formats or "yuv420p" in formats else formats[0]
        self._options = dict(_DEFAULT_OPTIONS.get(self._codec, {}))
        self._options |= {key: str(value) for key, value in (("crf", crf), ("preset", preset)) if value is not None}
        self._audio_policy, self._audio_to_source_end = audio, audio_to_source_end
        self._overwrite, self._fragmented, self._threads = overwrite, fragmented, threads
        self._partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._output: OutputContainer | None = None
        self._audio: AudioTrack | None = None
        self._info: SourceInfo | None = None
        self._pts_shift = 0
        self._last: tuple[int, int | None] | None = None
        """pts and own duration of the newest picture."""
        self._durations: dict[int, int] = {}
        self._held: list[Packet] = []
        self._count = 0
        self._is_final = False

    @property
    def is_lossless(self) -> bool:
        """True: every frame is encoded."""
        return True

    @property
    def outputs(self) -> list[str]:
        """The final path; the partial one where that is what is left."""
        if self._is_final or not self._partial.exists():
            return [str(self.path)]
        return [str(self._partial)]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Create the file and the encoder.

        Raises:
            OutputError: it exists, or its folder cannot be written.
            SinkError: the encoder does not work here.
        """
        if self.path.exists() and not self._overwrite:
            raise OutputError("the file exists", where=str(self.path), hint="pass --overwrite to replace it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.touch()
        except OSError as error:
            raise OutputError(f"cannot be created: {error.strerror}", where=str(self.path)) from error
        self._info, self._size = info, size
        try:
            if self._audio_policy is AudioPolicy.KEEP and info.audio is not None:
                self._audio = AudioTrack(info.audio, where=str(self.path))
            self._output = output = av.open(str(self._partial), "w", options=self._container_options(info))
            self._stream = self._add_video(output, info, size)
            if self._audio is not None:
                self._audio.attach(output)
            output.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.abort(error)
            raise self._failure(f"{self._codec} cannot encode this", error) from error
        except BaseException as error:
            self.abort(error)
            raise

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - the picture only
        """Encode one picture at its frame's pts.

        Raises:
            SinkError: the encoder failed or the disk is full.
        """
        assert self._output is not None
        assert self._info is not None
        if not self._count and self._info.start_s:
            self._pts_shift = -frame.pts  # a part of a video starts at zero
        pts = frame.pts + self._pts_shift
        if self._last is not None:
            self._durations[self._last[0]] = pts - self._last[0]
        self._last = pts, frame.duration
        try:
            picture = from_rgb(self._fitted(image), self._pixel_format)
            picture.pts, picture.time_base = pts, frame.time_base
            self._held += self._stream.encode(picture)
            self._mux_ready()
            if self._audio is not None:
                if not self._count:
                    self._audio.start(self._output, first_s=frame.pts * frame.time_base, info=self._info)
                self._audio.write_until(self._output, pts * frame.time_base)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure("writing failed", error) from error
        self._count += 1
        return True

    def finish(self) -> None:
        """Flush the encoders, write the trailer and move the file into place.

        Raises:
            SinkError: it cannot be completed; the partial file stays.
        """
        self._complete()
        try:
            os.replace(self._partial, self.path)
        except OSError as error:
            raise self._failure("cannot be moved into place", error) from error
        self._is_final = True

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - the report tells why
        """Complete what was written as NAME.partial.EXT.

        Raises:
            SinkError: not even that is possible.
        """
        self._complete()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Remove the file."""
        output, self._output = self._output, None
        if output is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):  # it is removed anyway
                output.close()
        if self._audio is not None:
            self._audio.close()
        self._partial.unlink(missing_ok=True)

    def _complete(self) -> None:
        output, self._output = self._output, None
        if output is None:
            return
        try:
            try:
                if self._last is not None:
                    pts, own = self._last
                    before = next(reversed(self._durations.values()), None)
                    self._durations[pts] = own or before or self._nominal_duration()
                self._held += self._stream.encode(None)
                self._mux_ready()
                if self._audio is not None and self._last is not None:
                    end = Fraction(self._last[0] + self._durations[self._last[0]]) * self._time_base
                    self._audio.finish(output, None if self._audio_to_source_end else end)
                    self.notes += self._audio.notes
            finally:
                if self._audio is not None:
                    self._audio.close()
                output.close()
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure("cannot be completed", error) from error

    def _mux_ready(self) -> None:
        """Mux packets whose duration is known: the muxer would guess the last one's, which VFR with B-frames loses."""
        assert self._output is not None or self._held is not None
        output = self._stream.container
        while self._held and self._held[0].pts in self._durations:
            packet = self._held.pop(0)
            assert packet.pts is not None
            packet.duration = self._durations[packet.pts]
            output.mux(packet)
        if len(self._durations) > 1024:  # far beyond any encoder's delay
            for pts in list(self._durations)[:512]:
                del self._durations[pts]

    def _nominal_duration(self) -> int:
        rate = self._info.rate if self._info is not None else None
        return max(1, round(1 / (rate * self._time_base))) if rate else 1

    def _container_options(self, info: SourceInfo) -> dict[str, str]:
        if self.path.suffix.lower() not in _MOV_SUFFIXES:
            return {}
        # The edit list that holds a first pts other than zero is in units of the movie's timescale: make it exact
        # for both tracks.
        scale = info.time_base.denominator
        rate = self._audio.time_base.denominator if self._audio is not None else 1
        both = math.lcm(scale, rate)
        options = {"movie_timescale": str(both if both <= _MAX_TIMESCALE else min(scale, _MAX_TIMESCALE))}
        if self._fragmented:
            # delay_moov: with B-frames the first dts is not known when the header would be written.
            flags = "frag_keyframe+empty_moov+delay_moov+default_base_moof"
            return options | {"movflags": flags, "frag_duration": str(_FRAGMENT_US)}
        return options | {"movflags": "faststart"}

    def _add_video(self, output: "OutputContainer", info: SourceInfo, size: tuple[int, int]) -> "VideoStream":
        self._time_base = info.time_base
        stream = output.add_stream(self._codec, rate=info.rate or Fraction(30), options=dict(self._options))
        stream.width, stream.height = size[1] + size[1] % 2, size[0] + size[0] % 2
        stream.pix_fmt = self._pixel_format
        stream.time_base = stream.codec_context.time_base = info.time_base
        context = stream.codec_context
        if self._threads is not None:
            context.thread_count = self._threads
        if not self._pixel_format.startswith(("rgb", "gbr")):
            context.colorspace, context.color_range = MATRIX_BT709, RANGE_LIMITED
            context.color_trc, context.color_primaries = TRANSFER_BT709, PRIMARIES_BT709
        if self._codec in ("libx265", "hevc_nvenc") and self.path.suffix.lower() in _MOV_SUFFIXES:
            context.codec_tag = "hvc1"  # what Apple's players look for
        return stream

    def _fitted(self, image: RgbImage) -> RgbImage:
        """`image` at the size the video was opened with, padded to even sides by repeating the last row and column."""
        if image.shape[:2] != self._size:
            image = self._letterboxed(image)
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            return np.asarray(padded, np.uint8)
        return image

    def _letterboxed(self, image: RgbImage) -> RgbImage:
        height, width = self._size
        note = f"pictures of other sizes are fitted into {width}×{height} with black bars"
        if note not in self.notes:
            self.notes.append(note)
        scale = min(height / image.shape[0], width / image.shape[1])
        h, w = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        boxed = np.zeros((height, width, 3), np.uint8)
        top, left = (height - h) // 2, (width - w) // 2
        boxed[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=interpolation)
        return boxed

    def _failure(self, what: str, error: BaseException) -> SinkError:
        reason = str(getattr(error, "strerror", None) or error).strip()
        return SinkError(f"{what}: {reason}", where=str(self.path))
