"""Rendered images as a video file with the source's timestamps and audio.

Invariant: the file is called NAME.partial.EXT until `finish` has completed it, and is playable at any moment, even
after the process was killed or the disk was full.
"""

import contextlib
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.errors import OutputError, SinkError, UsageError, reason_of
from stream.files import CreatedFolders, check_partial, create_file, partial_path
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.machine import scheduling_kept
from stream.media import RgbConverter, av, chroma_steps, file_url
from stream.sinks.audio import AudioPolicy, AudioTracks
from stream.sinks.base import Sink
from stream.sinks.encoders import CONTAINERS, Encoding, choose_encoding
from stream.sinks.letterbox import Letterbox
from stream.sinks.naming import check_output
from stream.sinks.packet_times import EncoderClock, PacketTimes
from stream.sinks.video_stream import add_video_stream, container_options, count_frames

if TYPE_CHECKING:
    from collections.abc import Iterable

    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["VIDEO_SUFFIXES", "AudioPolicy", "VideoSink"]

VIDEO_SUFFIXES = frozenset(CONTAINERS)
"""The suffixes that make an output path a video."""

_FINEST_TICK = Fraction(1, 10_000_000)
"""MP4 stores the duration of a frame in 32 bits: with finer ticks, a pause of some minutes would overflow."""
_REPLACEMENT_TICK = Fraction(1, 1_000_000)


class VideoSink(Sink):
    """Encodes every rendered image at the time of its frame.

    Timestamps: MP4 and MOV keep every pts exactly, in the source's time base; Matroska and WebM round to milliseconds.
    A part of a source (`info.start_s`) and a live recording start at zero. Sound that begins before the first frame
    delays the frames. The last frame keeps its own duration if it has one, otherwise that of the frame before.

    Sizes: 4:2:0 video has even sides, so an odd side is extended by repeating its last row or column (H.264 can crop
    only in pairs, so the extra one stays visible). An image of another size than the first is fitted in with black
    bars.

    Args:
        path: its suffix selects the container, see `VIDEO_SUFFIXES`.
        codec: FFmpeg's name of the encoder; default libx264, for WebM libvpx-vp9.
        crf: constant quality if the encoder supports it, smaller is better; defaults in `encoders.ENCODERS`.
        preset: the encoder's speed preset.
        audio: whether the source's audio is kept: copied if the container supports it, else encoded as AAC or Opus.
        audio_to_source_end: audio continues after the last frame as it does in the source; False if the run may end
            before the source does (`--max-frames`).
        overwrite: `path` may exist.

    Raises:
        UsageError: the suffix, the encoder or an option is unknown, or they do not fit together.
    """

    _is_stream = False
    """True for a stream that starts at zero, whose viewers may join at any time, and that nobody can seek in."""

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
    ) -> None:
        self.path = path
        self._where = str(path)
        self.notes: list[str] = []
        """Shown once each: audio that was left out or encoded again, images of other sizes."""
        self.warnings: list[str] = []
        """A file that gives back other frames than were written."""
        self._count = 0
        """Number of frames written."""
        self._read_back: int | None = None
        self._encoding = self._choose_encoding(codec=codec, crf=crf, preset=preset)
        self._audio_policy, self._audio_to_source_end = audio, audio_to_source_end
        self._overwrite = overwrite
        self._partial = partial_path(path)
        self._folders = CreatedFolders()
        self._converter = RgbConverter(self._encoding.pixel_format)
        self._output: OutputContainer | None = None
        self._audio: AudioTracks | None = None
        self._shift = 0
        self._file_id: tuple[int, int] | None = None
        """Device and inode of the partial file, None if there is none: another run may create its own at this path."""
        self._is_broken = False
        self._is_final = False

    @property
    def is_lossless(self) -> bool:
        """True: every frame is encoded."""
        return True

    @property
    def outputs(self) -> list[str]:
        """The final path once finished, the partial one before; empty if no file is left."""
        if self._is_final:
            return [str(self.path)]
        return [str(self._partial)] if self._file_id is not None else []

    @property
    def counters(self) -> Mapping[str, int]:
        """`frames_read_back`: how many frames the finished file holds for a player."""
        return {} if self._read_back is None else {"frames_read_back": self._read_back}

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Create NAME.partial.EXT and open the encoder.

        Raises:
            OutputError: the output or its partial file exists, or cannot be created.
            UsageError: the encoder rejects an option.
            SinkError: the encoder does not work on this machine, or not with this size.
        """
        self._reserve()
        self._info = info
        self._letterbox = self._fit_into(size)
        self._time_base = self._tick(info)
        self._times: PacketTimes[Packet[Any]] = PacketTimes(
            default_duration=round(1 / (info.rate * self._time_base)) if info.rate else 1,
            holds_last=not self._is_stream,
        )
        try:
            if info.audio is not None and self._audio_policy is AudioPolicy.KEEP:
                self._audio = AudioTracks(info.audio, self.notes)
            if info.not_kept:
                self.notes.append(f"not kept in the video: {info.not_kept}")
            self._open_output()
        except BaseException as error:
            self.abort(error)
            raise

    def _tick(self, info: SourceInfo) -> Fraction:
        """The unit of the file's times, in seconds."""
        return info.time_base if info.time_base >= _FINEST_TICK else _REPLACEMENT_TICK

    def _fit_into(self, size: tuple[int, int]) -> Letterbox:
        """What brings images to the encoder's size."""
        return Letterbox(size, chroma_steps(self._encoding.pixel_format))

    def _picture(self, depth: Depth, image: RgbImage) -> "VideoFrame":  # noqa: ARG002 - the image only
        """What is encoded for one result."""
        return self._converter.convert(self._fitted(image))

    def _other_encoder(self) -> str:
        """What to do if the encoder does not work."""
        return "use --codec libx264" if self._encoding.codec != "libx264" else "try another --codec"

    def _choose_encoding(self, *, codec: str | None, crf: int | None, preset: str | None) -> Encoding:
        return choose_encoding(self.path, codec=codec, crf=crf, preset=preset)

    @property
    def _replaces_partial(self) -> bool:
        """Whether a partial file of an earlier run may be replaced."""
        return self._overwrite

    def _reserve(self) -> None:
        """Create the partial file. Raises `OutputError`."""
        if self.path.is_dir():
            raise OutputError("is a folder, not a file", where=str(self.path))
        check_output(self.path, overwrite=self._overwrite)
        check_partial(self.path, overwrite=self._replaces_partial)
        try:
            self._folders.create(self.path.parent)
            self._partial.unlink(missing_ok=True)
            create_file(self._partial).close()
            self._file_id = _identity(self._partial)
        except OSError as error:
            self._clean_up()
            raise OutputError(f"cannot be created: {reason_of(error)}", where=str(self.path)) from error

    def _open_container(self, options: dict[str, str]) -> "OutputContainer":
        muxer = self._encoding.container.muxer
        return av.open(file_url(self._partial), "w", format=muxer, container_options=options)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Encode one image; its pixels are copied. Always True.

        Raises:
            SinkError: writing failed (disk full, encoder), or the frame's pts is not larger than the last one.
        """
        if self._output is None:
            raise SinkError("not open", where=self._where)
        pts = self._placed(self._ticks(frame))
        duration = frame.duration and max(1, round(frame.duration * frame.time_base / self._time_base))
        try:
            converted = self._picture(depth, image)
            converted.pts, converted.time_base = self._clock.ticks(pts), self._video.codec_context.time_base
            self._times.add_frame(pts, duration)
            self._mux_frames(self._times.ready(self._clock.restore(self._video.encode(converted))))
            if self._audio is not None:
                self._mux(self._audio.until(pts * self._time_base))
        except (av.error.FFmpegError, OSError) as error:
            self._is_broken = True
            raise self._failure("cannot be written", error) from error
        self._count += 1
        return True

    def finish(self) -> None:
        """Flush the encoders, write the trailer, rename the file to its final name, and count its frames.

        Raises:
            SinkError: the file cannot be completed; the partial file stays.
        """
        if self._output is None:
            raise SinkError("not open", where=str(self.path))
        self._complete(audio_to_source_end=self._audio_to_source_end)
        self._check_complete()
        try:
            if os.path.lexists(self.path) and not self._overwrite:
                what = "the file was created by another program"
                raise SinkError(what, where=str(self.path), hint=f"see {self._partial}")
            if _identity(self._partial) != self._file_id:
                what = "the file was replaced by another run"
                raise SinkError(what, where=str(self._partial), hint="run one at a time")
            os.replace(self._partial, self.path)
        except OSError as error:
            raise self._failure("cannot be renamed to its final name", error) from error
        self._is_final = True
        self._check_count()

    def _check_complete(self) -> None:
        """The partial file is complete, and about to get its final name."""

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - the report names it
        """Complete NAME.partial.EXT with what was written, and its audio up to the last frame.

        Raises:
            SinkError: the file cannot be completed, and no earlier `write` failed.
        """
        self._complete(audio_to_source_end=False)

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Remove the file and the folders created for it. Idempotent."""
        output, self._output = self._output, None
        if output is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):  # the file is removed anyway
                output.close()
        if self._audio is not None:
            self._audio.close()
        self._clean_up()

    def _check_count(self) -> None:
        try:
            self._read_back = count_frames(self.path)
        except (av.error.FFmpegError, OSError) as error:
            self.warnings.append(f"{self.path}: cannot be read back to count its frames: {reason_of(error)}")
            return
        if self._read_back != self._count:
            self.warnings.append(f"{self.path}: gives back {self._read_back} of the {self._count} frames written")

    def _open_output(self) -> None:
        """Open with the audio copied, else encoded, else without: a muxer may reject what its format allows.

        What fails without audio too is not the audio's fault, and raises as it is.
        """
        try:
            self._create_output()
        except SinkError as error:
            self._output = None
            audio = self._audio
            if audio is None:
                raise
            if audio.encode_instead():
                self._open_output()
                return
            self._audio = None
            audio.close()
            self._open_output()
            self.notes.append(f"no audio: {error.what}")

    def _create_output(self) -> None:
        encoding, audio = self._encoding, self._audio
        options = container_options(encoding, self._time_base, None if audio is None else audio.ticks_per_s)
        try:
            self._output = self._open_container(options)
            self._video = self._add_video(self._output)
            if audio is not None:
                audio.attach(self._output, encoding.container)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure("cannot be created", error) from error
        self._open_encoder()
        try:
            self._output.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure("cannot be created", error) from error

    def _add_video(self, output: "OutputContainer") -> "VideoStream":
        """Add the stream of the pictures, with the encoder's parameters."""
        return add_video_stream(
            output,
            self._encoding,
            self._converter,
            size_hw=self._letterbox.padded_size,
            time_base=self._time_base,
            rate=self._info.rate,
            is_live=self._is_stream or self._info.is_live,
        )

    def _open_encoder(self) -> None:
        encoding = self._encoding
        try:
            with scheduling_kept():
                self._video.codec_context.open()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            height, width = self._letterbox.size
            raise SinkError(
                f"the encoder {encoding.codec} does not work here for {width}×{height}: {reason_of(error)}",
                where=self._where,
                hint=self._other_encoder(),
            ) from error
        if rejected := self._video.codec_context.options:
            names = ", ".join(f"{key}={value}" for key, value in rejected.items())
            raise UsageError(f"{encoding.codec} does not know {names}", where=self._where)
        self._clock = EncoderClock(self._time_base, self._video.codec_context.time_base)

    def _ticks(self, frame: Frame) -> int:
        if frame.time_base == self._time_base:
            return frame.pts
        return round(frame.pts * frame.time_base / self._time_base)

    def _placed(self, pts: int) -> int:
        """The time of a frame in the file. Raises `SinkError` if it is not later than the last one."""
        if self._times.last_pts is None:
            self._start(pts)
        pts += self._shift
        if self._times.last_pts is not None and pts <= self._times.last_pts:
            raise SinkError(f"pts {pts} follows {self._times.last_pts}: times must increase", where=self._where)
        return pts

    def _start(self, pts: int) -> None:
        """Decide the time of the first frame, and shift the audio with it."""
        is_live = self._is_stream or self._info.is_live
        if is_live or self._info.start_s or pts < 0:  # players hide what lies before zero
            self._shift = -pts
        if self._audio is not None:
            delay_s = self._audio.start(pts * self._time_base, self._shift * self._time_base, self._info)
            self._shift += round(delay_s / self._time_base)

    def _mux_frames(self, packets: "Iterable[Packet[Any]]") -> None:
        """Write packets of the video; their times are in `_time_base`."""
        self._mux(packets)

    def _mux(self, packets: "Iterable[Packet[Any]]") -> None:
        assert self._output is not None
        for packet in packets:
            self._output.mux(packet)

    def _complete(self, *, audio_to_source_end: bool) -> None:
        output = self._output
        if output is None:
            return
        try:
            try:
                if not self._is_broken:
                    self._mux_frames(self._times.rest(self._encoded_rest()))
                    if self._audio is not None:
                        end_s = self._times.end * self._time_base
                        self._mux(self._audio.rest(end_s, to_source_end=audio_to_source_end))
            finally:
                self._output = None
                if self._audio is not None:
                    self._audio.close()
                output.close()
        except (av.error.FFmpegError, OSError) as error:
            if not self._is_broken:  # otherwise `write` has raised already, and the file is good up to that frame
                self._is_broken = True
                raise self._failure("cannot be completed", error) from error

    def _encoded_rest(self) -> "list[Packet[Any]]":
        """What the encoder still holds."""
        return self._clock.restore(self._video.encode(None))

    def _fitted(self, image: RgbImage) -> RgbImage:
        height, width = self._letterbox.size
        note = f"images of other sizes are fitted into {width}×{height} with black bars"
        if image.shape[:2] != (height, width) and note not in self.notes:
            self.notes.append(note)
        return self._letterbox.fit(image)

    def _clean_up(self) -> None:
        if self._file_id is not None and os.path.lexists(self._partial) and _identity(self._partial) == self._file_id:
            self._partial.unlink()
        self._file_id = None
        self._folders.remove_empty()

    def _failure(self, what: str, error: BaseException) -> SinkError:
        return SinkError(f"{what}: {reason_of(error)}", where=self._where)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
