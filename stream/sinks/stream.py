"""Rendered images as a stream: to a URL, or muxed to stdout.

Invariant: nothing is written to the disk, no message holds a password or a stream key, and no receiver can hold up the
run for longer than the limits.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from stream.config import defaults
from stream.errors import SinkError, UsageError
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.media import av
from stream.sinks.audio import AudioPolicy
from stream.sinks.encoders import Encoding, encoding_in
from stream.sinks.pipe_writer import SLICE_S, PipeWriter
from stream.sinks.relay import INPUT_FORMAT, Relay
from stream.sinks.target import StreamTarget
from stream.sinks.video import VideoSink

if TYPE_CHECKING:
    from av.container import OutputContainer

_JOINING_S = 2
"""Seconds between key frames: how long a viewer who joins waits for a picture."""
_DEFAULT_RATE = Fraction(30)
_BUFFER_BYTES = 4096  # what `PipeWriter` writes at a time
_LONGEST_WAIT_S = 10.0
"""A pause in a file is sent as a pause of at most this."""


class StreamSink(VideoSink):
    """Sends every rendered image as soon as it is encoded; the stream begins at zero.

    A file is sent to the network at its own frame rate, and to stdout or TCP as fast as the reader takes it. If the
    reader of stdout leaves, the sink asks for the end of the run; that is no error.

    Args:
        target: where to.
        codec, crf, preset, audio, audio_to_source_end: see `VideoSink`; the default encoder is libx264 without delay.
        open_limit_s, send_limit_s: how long a receiver may take to answer, and to take a packet.
        clock: monotonic seconds.
        sleep: waits for some seconds.

    Raises:
        UsageError: the encoder or an option is unknown, or does not fit the kind of stream.
    """

    _is_stream = True

    def __init__(
        self,
        target: StreamTarget,
        *,
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        audio: AudioPolicy = AudioPolicy.KEEP,
        audio_to_source_end: bool = True,
        open_limit_s: float = defaults().capture.open_timeout_s,
        send_limit_s: float = defaults().capture.read_timeout_s,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._target = target
        self._limits_s = open_limit_s, send_limit_s
        self._clock_s, self._sleep = clock, sleep
        self._started: tuple[float, Fraction] | None = None
        self._writer: PipeWriter | None = None
        super().__init__(
            Path(target.shown),
            codec=codec,
            crf=crf,
            preset=preset,
            audio=audio,
            audio_to_source_end=audio_to_source_end,
        )
        self._where = target.shown

    @property
    def is_lossless(self) -> bool:
        """False: nothing is stored."""
        return False

    @property
    def outputs(self) -> list[str]:
        """The address, without what may be secret."""
        return [self._target.shown]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Open the encoder, and begin to connect; a target that cannot be reached fails the first `write`s.

        Raises:
            UsageError: the encoder rejects an option, or stdout is a terminal.
            SinkError: the encoder does not work on this machine, or not with this size.
        """
        interval = max(1, round(_JOINING_S * (info.rate or _DEFAULT_RATE)))
        self._encoding = replace(self._encoding, options={**self._encoding.options, "g": str(interval)})
        if self._target.waits_for_reader:
            self.notes.append(f"{self._where}: waiting for a reader")
        super().open(info, size)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Encode and send one image. False once the reader of stdout has left.

        Raises:
            SinkError: the target cannot be reached, or went away; or the encoder failed.
        """
        if self.wants_stop:
            return False
        if self._target.is_paced and not self._info.is_live:
            self._wait_for(frame.pts * frame.time_base)
        try:
            return super().write(frame, depth, image)
        except SinkError as error:
            if not self._is_end(error):
                raise
            self.wants_stop = True
            return False

    def poll(self) -> None:
        """Raise `SinkError` if the receiver has gone while there was nothing to send."""
        if isinstance(self._writer, Relay) and self._writer.has_ended:
            raise self._failure("the stream ended", BrokenPipeError())

    def finish(self) -> None:
        """Send what the encoders still hold, and end the stream.

        Raises:
            SinkError: the target went away before everything was sent.
        """
        if self._output is None:
            raise SinkError("not open", where=self._where)
        try:
            self._complete(audio_to_source_end=self._audio_to_source_end)
            if isinstance(self._writer, Relay):
                self._end_relay(self._writer)
        except SinkError as error:
            if not self._is_end(error):
                raise
        finally:
            if self._writer is not None and self._writer.gave_up:
                self.notes.append(f"{self._where}: stopped before everything was sent")
            self._clean_up()

    def keep_partial(self, reason: str) -> None:
        """End the stream like `finish`, but raise nothing: the run has failed or was interrupted anyway."""
        del reason
        with contextlib.suppress(SinkError):
            self.finish()

    def _is_end(self, error: SinkError) -> bool:
        """Whether nobody is left to send to, for a reason that is no error."""
        has_given_up = self._writer is not None and self._writer.gave_up
        return has_given_up or (isinstance(error.__cause__, BrokenPipeError) and self._target.is_stdout)

    def _choose_encoding(self, *, codec: str | None, crf: int | None, preset: str | None) -> Encoding:
        container = self._target.container
        return encoding_in(container, f"{container.muxer} streams", codec=codec, crf=crf, preset=preset)

    def _reserve(self) -> None:
        if self._target.is_stdout and sys.stdout.isatty():
            hint = "name a reader (… -o - | mpv -) or redirect it"
            raise UsageError("a video cannot be shown on a terminal", where="-o -", hint=hint)

    def _open_container(self, options: dict[str, str]) -> "OutputContainer":
        self._clean_up()  # of an attempt with other audio
        target, (open_limit_s, send_limit_s) = self._target, self._limits_s
        if target.is_stdout:
            self._writer = _Stdout(self.stopping)
            # A cluster for each frame: what is in an open cluster is not sent.
            options |= {"cluster_time_limit": "1", "live": "1"}
            return av.open(
                self._writer, "w", format=target.container.muxer, container_options=options, buffer_size=_BUFFER_BYTES
            )
        self._writer = Relay(
            target.url,
            target.container.muxer,
            target.options,
            open_limit_s=None if target.waits_for_reader else open_limit_s,
            send_limit_s=send_limit_s,
            stopping=self.stopping,
        )
        now = {"flush_packets": "1"}
        return av.open(self._writer, "w", format=INPUT_FORMAT, container_options=now, buffer_size=_BUFFER_BYTES)

    def _wait_for(self, time_s: Fraction) -> None:
        """Wait until it is time for the frame at `time_s` of the source."""
        if self._started is None:
            self._started = self._clock_s(), time_s
        started_s, first_s = self._started
        wait_s = started_s + float(time_s - first_s) - self._clock_s()
        if wait_s > _LONGEST_WAIT_S:
            self._started = self._clock_s() + _LONGEST_WAIT_S, time_s
            wait_s = _LONGEST_WAIT_S
        while wait_s > 0 and not self.stopping():
            self._sleep(min(wait_s, SLICE_S))
            wait_s -= SLICE_S

    def _failure(self, what: str, error: BaseException) -> SinkError:
        writer = self._writer
        if writer is not None and writer.interrupt is not None:
            raise writer.interrupt
        if isinstance(error, BrokenPipeError) and isinstance(writer, Relay) and not writer.gave_up:
            try:
                self._end_relay(writer)
            except SinkError as reason:
                self._writer = None
                return reason
        return super()._failure(what, error)

    def _end_relay(self, relay: Relay) -> None:
        try:
            relay.finish()
        except ConnectionError as error:
            hint = "check the address, and that the receiver is running"
            raise SinkError(str(error), where=self._where, hint=hint) from error

    def _clean_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()


class _Stdout(PipeWriter):
    """Stdout for the stream alone: until `stop`, whatever else this process prints there goes to stderr."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        sys.stdout.flush()
        super().__init__(os.dup(1), stopping)
        os.dup2(2, 1)

    def stop(self) -> None:
        """Give stdout back. Idempotent."""
        if self._is_open:
            self._is_open = False
            sys.stdout.flush()
            os.dup2(self._file_no, 1)
            os.close(self._file_no)
