"""Rendered pictures become a video file with the source's timestamps and sound.

Invariant: the file is NAME.partial.EXT until `finish` has completed it, and can be played at any moment, even after
the process was killed or the disk ran full: MP4 and MOV are written in fragments and made ordinary files at the end.
"""

import contextlib
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stream.errors import OutputError, SinkError, UsageError
from stream.files import check_partial, partial_path
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.media import RgbConverter, av, chroma_steps
from stream.sinks.audio import AudioPolicy, AudioTrack
from stream.sinks.encoders import CONTAINERS, choose
from stream.sinks.letterbox import Canvas
from stream.sinks.naming import check_output
from stream.sinks.packet_times import PacketTimes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["VIDEO_SUFFIXES", "AudioPolicy", "VideoSink"]

VIDEO_SUFFIXES = frozenset(CONTAINERS)
"""The suffixes that make an output path a video."""

_FRAGMENT_US = 1_000_000
"""What a killed process loses at most, besides the encoder's delay: about 40 pictures with libx264, none if live."""
_WITH_LOW_LATENCY = ("libx264", "libx265")
_MAX_TIMESCALE = 2**31 - 1  # 32 bits in MP4, and FFmpeg's option is a signed int
_FINEST_TICK = Fraction(1, 10_000_000)
"""MP4 stores a picture's duration in 32 bits: with finer ticks a pause of some minutes would not fit."""
_TICK_INSTEAD = Fraction(1, 1_000_000)
_DEFAULT_THREADS = 2
"""Of the encoder: on two cores one thread takes 6.0 ms for a 1330×480 picture, two 3.7 ms for 3 % more CPU."""
_DEFAULT_RATE = Fraction(30)  # for the encoder's rate control only, where the source has none


class VideoSink:
    """Encodes every picture at its frame's time.

    Timestamps: MP4 and MOV keep every pts to the tick, in the source's time base, and the source's first pts; Matroska
    and WebM round to milliseconds. A part of a source (`info.start_s`) and a live recording start at zero instead. The
    last picture lasts as long as its frame says, else as the one before.

    Sizes: 4:2:0 video has even sides; an odd one is extended by repeating its last row or column (H.264's cropping
    counts in pairs there too, so the extra one stays visible). A picture of another size than the video was opened with
    is fitted into it with black bars.

    Args:
        path: its suffix chooses the container, see `VIDEO_SUFFIXES`.
        codec: FFmpeg encoder; default libx264, in WebM libvpx-vp9.
        crf: constant quality where the encoder has it, smaller is better; defaults in `encoders.ENCODERS`.
        preset: the encoder's speed preset.
        audio: see `AudioPolicy`; copied packet by packet where the container allows, else encoded as AAC or Opus.
        audio_to_source_end: sound goes on after the last picture as it does in the source; False where the run may
            end before the source (`--max-frames`).
        overwrite: `path` may exist.
        threads: of the encoder.
        pixel_format: FFmpeg's name; default yuv420p where the encoder takes it.

    Raises:
        UsageError: unknown suffix, encoder or option, or one that does not fit the others.
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
        threads: int | None = None,
        pixel_format: str | None = None,
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        """Said once: sound that was left out or encoded again, pictures of other sizes."""
        self._choice = choose(path, codec=codec, crf=crf, preset=preset, pixel_format=pixel_format)
        self._audio_policy, self._audio_to_source_end = audio, audio_to_source_end
        self._overwrite, self._threads = overwrite, threads or _DEFAULT_THREADS
        self._partial = partial_path(path)
        self._made: list[Path] = []
        self._converter = RgbConverter(self._choice.pixel_format)
        self._output: OutputContainer | None = None
        self._audio: AudioTrack | None = None
        self._shift = 0
        self._file_id: tuple[int, int] | None = None
        """Device and inode of the partial file, None where there is none: another run may put its own there."""
        self._is_broken = False
        self._is_final = False

    @property
    def is_lossless(self) -> bool:
        """True: every frame is encoded."""
        return True

    @property
    def outputs(self) -> list[str]:
        """The final path once finished, until then the partial one; empty where nothing is left."""
        if self._is_final:
            return [str(self.path)]
        return [str(self._partial)] if self._file_id is not None else []

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Create NAME.partial.EXT and open the encoder.

        Raises:
            OutputError: the output or its partial file exists, or cannot be created.
            UsageError: the encoder refuses the options asked for.
            SinkError: the encoder does not work here, or not with this size.
        """
        if self.path.is_dir():
            raise OutputError("is a folder, not a file", where=str(self.path))
        check_output(self.path, overwrite=self._overwrite)
        check_partial(self.path, overwrite=self._overwrite)
        self._info = info
        self._canvas = Canvas(size, chroma_steps(self._choice.pixel_format))
        self._time_base = info.time_base if info.time_base >= _FINEST_TICK else _TICK_INSTEAD
        self._times: PacketTimes[Packet[Any]] = PacketTimes(
            default_duration=round(1 / (info.rate * self._time_base)) if info.rate else 1
        )
        try:
            self._make_folder(self.path.parent)
            self._partial.unlink(missing_ok=True)
            self._partial.touch(exist_ok=False)
            self._file_id = _identity(self._partial)
        except OSError as error:
            self._clean_up()
            raise OutputError(f"cannot be created: {error.strerror or error}", where=str(self.path)) from error
        try:
            if info.audio is not None and self._audio_policy is AudioPolicy.KEEP:
                self._load_audio(info.audio)
            self._open_output()
        except BaseException as error:
            self.abort(error)
            raise

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - the picture only
        """Encode one picture; the pixels are copied. Always True.

        Raises:
            SinkError: writing failed (disk full, encoder), or its pts is not larger than the last one's.
        """
        if self._output is None:
            raise SinkError("not open", where=str(self.path))
        pts = self._ticks(frame)
        if self._times.last_pts is None:
            self._start(pts)
        pts += self._shift
        if self._times.last_pts is not None and pts <= self._times.last_pts:
            raise SinkError(f"pts {pts} follows {self._times.last_pts}: times must increase", where=str(self.path))
        duration = frame.duration and max(1, round(frame.duration * frame.time_base / self._time_base))
        try:
            picture = self._converter.convert(self._fitted(image))
            picture.pts, picture.time_base = pts, self._time_base
            self._times.add_picture(pts, duration)
            self._mux(self._times.ready(self._video.encode(picture)))
            if self._audio is not None:
                self._mux(self._audio.until(pts * self._time_base))
        except (av.error.FFmpegError, OSError) as error:
            self._is_broken = True
            raise self._failure("cannot be written", error) from error
        return True

    def finish(self) -> None:
        """Flush the encoders, write the trailer and move the file into place.

        Raises:
            SinkError: it cannot be completed; the partial file stays.
        """
        if self._output is None:
            raise SinkError("not open", where=str(self.path))
        self._complete(sound_to_source_end=self._audio_to_source_end)
        try:
            if self.path.exists() and not self._overwrite:
                raise SinkError("appeared during the run", where=str(self.path), hint=f"see {self._partial}")
            if _identity(self._partial) != self._file_id:
                raise SinkError("another run has replaced it", where=str(self._partial), hint="run one at a time")
            os.replace(self._partial, self.path)
        except OSError as error:
            raise self._failure("cannot be moved into place", error) from error
        self._is_final = True

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - the report tells why
        """Complete what was written as NAME.partial.EXT, its sound up to the last picture.

        Raises:
            SinkError: that fails, and no earlier `write` did.
        """
        self._complete(sound_to_source_end=False)

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """Remove the file and the folders made for it. Idempotent."""
        output, self._output = self._output, None
        if output is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):  # it is removed anyway
                output.close()
        if self._audio is not None:
            self._audio.close()
        self._clean_up()

    def _load_audio(self, url: str) -> None:
        if self._info.is_live:
            self.notes.append("no sound: a second connection to a live source would not be in step with its pictures")
            return
        self._audio = AudioTrack.load(url, self.notes)

    def _open_output(self) -> None:
        """Open with the sound copied, else encoded, else without it: a muxer may refuse what its format allows."""
        try:
            self._create_output()
        except SinkError as error:
            self._output = None
            if self._audio is None:
                raise
            if not self._audio.encode_instead():
                self._audio.close()
                self._audio = None
                self.notes.append(f"no sound: {error.what}")
            self._open_output()

    def _create_output(self) -> None:
        options = self._container_options()
        # `file:` because FFmpeg would take the part before a colon in a name for a protocol.
        muxer = self._choice.container.muxer
        try:
            self._output = av.open(f"file:{self._partial}", "w", format=muxer, container_options=options)
            self._video = self._add_video(self._output)
            if self._audio is not None:
                self._audio.attach(self._output, self._choice.container)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure("cannot be created", error) from error
        try:
            self._video.codec_context.open()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            height, width = self._canvas.size
            raise SinkError(
                f"the encoder {self._choice.codec} does not work here for {width}×{height}: {_reason(error)}",
                where=str(self.path),
                hint="use --codec libx264" if self._choice.codec != "libx264" else "try another --codec",
            ) from error
        if refused := self._video.codec_context.options:
            names = ", ".join(f"{key}={value}" for key, value in refused.items())
            raise UsageError(f"{self._choice.codec} does not know {names}", where=str(self.path))
        try:
            self._output.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure("cannot be created", error) from error

    def _add_video(self, output: "OutputContainer") -> "VideoStream":
        for name, value in self._choice.environment.items():
            os.environ.setdefault(name, value)
        rate, options = self._info.rate or _DEFAULT_RATE, dict(self._choice.options)
        if self._info.is_live and self._choice.codec in _WITH_LOW_LATENCY:
            options["tune"] = "zerolatency"  # a killed process loses no pictures that wait for later ones
        added = output.add_stream(self._choice.codec, rate=rate, options=options)
        stream = cast("VideoStream", added)
        context = stream.codec_context
        context.height, context.width = self._canvas.padded_size
        context.pix_fmt = self._choice.pixel_format
        stream.time_base = context.time_base = self._time_base
        # Threads by frame run beside us; by slice, which is PyAV's default, they do not and the file grows.
        context.thread_count, context.thread_type = self._threads, "SLICE" if self._info.is_live else "FRAME"
        self._converter.tag(context)
        if context.codec.canonical_name == "hevc" and self._choice.container.has_exact_ticks:
            context.codec_tag = "hvc1"  # what Apple's players look for
        return stream

    def _container_options(self) -> dict[str, str]:
        options = {"flush_packets": "1"}  # what is complete is on the disk, not in a buffer of ours
        if self._choice.container.muxer in ("matroska", "webm"):
            # The default would move all pictures by the 21 ms of silence before a copied AAC track.
            return options | {"avoid_negative_ts": "disabled", "cluster_time_limit": str(_FRAGMENT_US // 1000)}
        # The offset of a first pts other than zero is stored in the movie's timescale: make it exact for both tracks.
        scale = self._time_base.denominator
        both = math.lcm(scale, self._audio.sample_rate) if self._audio is not None else scale
        return options | {
            "video_track_timescale": str(scale),
            "movie_timescale": str(both if both <= _MAX_TIMESCALE else scale),
            # delay_moov: with B-frames the first dts is not known when the header would be written.
            "movflags": "+hybrid_fragmented+delay_moov",
            "frag_duration": str(_FRAGMENT_US),
        }

    def _ticks(self, frame: Frame) -> int:
        if frame.time_base == self._time_base:
            return frame.pts
        return round(frame.pts * frame.time_base / self._time_base)

    def _start(self, pts: int) -> None:
        """Fix what the first picture's time becomes, and let the sound follow it."""
        if self._info.start_s or self._info.is_live or pts < 0:  # players hide what lies before zero
            self._shift = -pts
        if self._audio is not None:
            self._audio.start(pts * self._time_base, self._shift * self._time_base, self._info)

    def _mux(self, packets: "Iterable[Packet[Any]]") -> None:
        assert self._output is not None
        for packet in packets:
            self._output.mux(packet)

    def _complete(self, *, sound_to_source_end: bool) -> None:
        output = self._output
        if output is None:
            return
        try:
            try:
                if not self._is_broken:
                    self._mux(self._times.rest(self._video.encode(None)))
                    if self._audio is not None:
                        end_s = None if sound_to_source_end else self._times.end * self._time_base
                        self._mux(self._audio.rest(end_s))
            finally:
                self._output = None
                if self._audio is not None:
                    self._audio.close()
                output.close()
        except (av.error.FFmpegError, OSError) as error:
            if not self._is_broken:  # else `write` has told it, and the file is good up to there
                self._is_broken = True
                raise self._failure("cannot be completed", error) from error

    def _fitted(self, image: RgbImage) -> RgbImage:
        height, width = self._canvas.size
        note = f"pictures of other sizes are fitted into {width}×{height} with black bars"
        if image.shape[:2] != (height, width) and note not in self.notes:
            self.notes.append(note)
        return self._canvas.fit(image)

    def _make_folder(self, folder: Path) -> None:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made.append(path)

    def _clean_up(self) -> None:
        if self._file_id is not None and self._partial.exists() and _identity(self._partial) == self._file_id:
            self._partial.unlink()
        self._file_id = None
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # something else was written there
                folder.rmdir()
        self._made.clear()

    def _failure(self, what: str, error: BaseException) -> SinkError:
        return SinkError(f"{what}: {_reason(error)}", where=str(self.path))


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).strip()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
