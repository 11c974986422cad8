"""Videos put together from the pieces of a job: their packets are copied, never decoded.

A piece is a video file that one segment of a job has written, with times on the source's clock. The joined file is what
one run would have written: the same times, sound, tags and description.
Invariant: every packet of the pieces is in the file, once, byte for byte, at its own display time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.storage import TAG, FrameTime
from stream.errors import SinkError, reason_of
from stream.frames import Intrinsics, SourceInfo
from stream.media import av, file_url, open_input
from stream.sinks.depthvideo import DepthVideoSink
from stream.sinks.packet_times import decode_times
from stream.sinks.video import VideoSink
from stream.sinks.video_stream import DEFAULT_RATE, tag_video_stream

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

ReadSound = Callable[[Fraction | None], None]
"""Passes on the source's sound up to a time in seconds after its first frame; None: to its end."""
_WITH_PROFILE_TAG = frozenset({"prores"})
"""Codecs whose tag in the file tells their profile; of others, each container has its own."""
_SOUND_AHEAD_S = 1
"""How much more sound is read at once than is needed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """What is in a piece.

    Attributes:
        pts: int64, of its packets in decoding order, in units of the joined file.
        last_duration: of the last frame, in the same units; None if the file does not tell.
        cameras: of its packets, where they are stored.
        stored: codec, height, width and header (extradata), which are equal in all pieces of a video.
    """

    path: Path
    pts: NDArray[np.int64]
    last_duration: int | None
    cameras: tuple[Intrinsics | None, ...]
    stored: tuple[str, int, int, bytes]


class JoinedVideo(VideoSink):
    """A video whose pictures come from pieces, in the place of `VideoSink`: `begin`, `copy`, then `finish`.

    The partial file of an interrupted run is replaced.
    """

    before_rename: Callable[[Path, Path], None] | None = None
    """Called with the partial file, when it is complete, and its final name."""

    def begin(
        self, info: SourceInfo, pieces: Sequence[Path], *, read_sound: ReadSound, last_duration: int | None = None
    ) -> None:
        """Create NAME.partial.EXT for the pictures of `pieces`, in this order.

        Args:
            info: of the source, whose sound is kept as `VideoSink` keeps it.
            read_sound: called before the sound of a time is needed.
            last_duration: of the last frame, in units of `info.time_base`; None if its piece tells it, or nothing does.

        Raises:
            OutputError: see `VideoSink.open`.
            SinkError: a piece cannot be read, or they do not fit together.
        """
        tick = self._tick(info)
        self._pieces = [_scanned(path, tick) for path in pieces]
        for before, piece in pairwise(self._pieces):
            if piece.stored != before.stored:
                hint = "start again with --overwrite"
                raise SinkError(f"was encoded otherwise than {before.path}", where=str(piece.path), hint=hint)
            if piece.pts.min() <= before.pts.max():
                raise SinkError(f"begins before {before.path} ends", where=str(piece.path))
        last = self._pieces[-1]
        self._last_duration = last.last_duration
        if last_duration is not None:
            self._last_duration = max(1, round(last_duration * info.time_base / tick))
        self._read_sound, self._sound_read_s = read_sound, Fraction(-1)
        self._dts = iter(decode_times([piece.pts for piece in self._pieces]))
        self.open(info, last.stored[1:3])

    def copy(self) -> None:
        """Copy all packets, with the sound of the same time.

        Raises:
            SinkError: a piece cannot be read, or the file cannot be written.
        """
        following = [*self._pieces[1:], None]
        for number, (piece, after) in enumerate(zip(self._pieces, following, strict=True)):
            times = np.sort(piece.pts)[min(1, number) :]  # the first one was added with the piece before
            self._add_frames(times.tolist(), is_last=after is None)
            if after is not None:  # the duration of the last packet depends on it
                self._add_frames([int(after.pts.min())], is_last=False)
            for packet, pts, camera in zip(_packets(piece.path), piece.pts.tolist(), piece.cameras, strict=True):
                self._keep_camera(camera)
                self._copy(packet, pts)

    def finish(self) -> None:
        """See `VideoSink`."""
        self._read_last_sound(to_source_end=self._audio_to_source_end)
        super().finish()

    def keep_partial(self, reason: str) -> None:
        """See `VideoSink`."""
        self._read_last_sound(to_source_end=False)
        super().keep_partial(reason)

    def _check_complete(self) -> None:
        if self.before_rename is not None:
            self.before_rename(self._partial, self.path)

    @property
    def _replaces_partial(self) -> bool:
        return True

    def _add_frames(self, times: Iterable[int], *, is_last: bool) -> None:
        pts = None
        for time in times:
            pts = self._placed(time)
            self._times.add_frame(pts, None)
            self._count += 1
        if is_last and self._last_duration is not None and pts is not None:
            self._times.set_last_duration(self._last_duration)

    def _keep_camera(self, camera: Intrinsics | None) -> None:
        """Take the camera of the packet that follows."""

    def _copy(self, packet: "Packet[Any]", pts: int) -> None:
        copy: Packet[Any] = av.Packet(bytes(packet))
        copy.pts, copy.dts, copy.time_base = pts + self._shift, next(self._dts) + self._shift, self._time_base
        copy.is_keyframe, copy.stream = packet.is_keyframe, self._video
        due_s = (copy.dts or 0) * self._time_base
        try:
            self._mux_frames(self._times.ready([copy]))
            if self._audio is not None:
                if due_s > self._sound_read_s:
                    self._sound_read_s = due_s + _SOUND_AHEAD_S
                    self._read_sound(self._sound_read_s - self._shift * self._time_base)
                self._mux(self._audio.until(due_s))
        except (av.error.FFmpegError, OSError) as error:
            self._is_broken = True
            raise self._failure("cannot be written", error) from error

    def _read_last_sound(self, *, to_source_end: bool) -> None:
        if self._audio is not None:
            end = self._times.end - self._shift
            self._read_sound(None if to_source_end else end * self._time_base)

    def _add_video(self, output: "OutputContainer") -> "VideoStream":
        with _opened(self._pieces[0].path) as container:
            template = container.streams.video[0]
            stream = output.add_stream_from_template(template, opaque=True)
            if self._pieces[0].stored[0] in _WITH_PROFILE_TAG:
                stream.codec_context.codec_tag = template.codec_context.codec_tag
        stream.codec_context.framerate = self._encoding.nominal_rate(self._info.rate or DEFAULT_RATE)
        tag_video_stream(stream, self._encoding, self._converter)
        stream.time_base = self._time_base
        return stream

    def _open_encoder(self) -> None:
        """There is none."""

    def _encoded_rest(self) -> "list[Packet[Any]]":
        return []


class JoinedDepthVideo(JoinedVideo, DepthVideoSink):
    """A depth video whose pictures come from pieces that `DepthVideoSink` has written.

    Args:
        path: see `DepthVideoSink`.
        pieces: of which the first one tells the codec and what the numbers mean.
        overwrite: `path` and its sidecar may exist.

    Raises:
        SinkError: the pieces cannot be read, or their numbers do not mean the same.
    """

    def __init__(self, path: Path, pieces: Sequence[Path], *, overwrite: bool = False) -> None:
        found = [_description(piece) for piece in pieces]
        for piece, description in zip(pieces, found, strict=True):
            if description != found[0]:
                hint = "start again with --overwrite"
                raise SinkError(
                    f"its numbers mean something else than those of {pieces[0]}", where=str(piece), hint=hint
                )
        DepthVideoSink.__init__(
            self, path, codec=DepthCodec(found[0].codec), description=found[0], overwrite=overwrite
        )  # fmt: skip

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """See `DepthVideoSink`."""
        DepthVideoSink.open(self, info, size)

    def _keep_camera(self, camera: Intrinsics | None) -> None:
        self._cameras.append(camera)


def _scanned(path: Path, tick: Fraction) -> _Piece:
    """Read the times of a piece; decodes nothing.

    Args:
        tick: seconds per unit of the times.

    Raises:
        SinkError: the piece cannot be read, or holds no picture.
    """
    pts, durations, cameras = list[int](), list[int](), list[Intrinsics | None]()
    with _opened(path) as container:
        stream, tells_duration = container.streams.video[0], container.format.name != "nut"
        context = stream.codec_context
        stored = (context.codec.canonical_name, context.height, context.width, context.extradata or b"")
        for packet in container.demux(stream):
            if not packet.size:
                continue
            exact, duration = FrameTime.of(packet), (packet.duration or 0) * packet.time_base
            if exact is None and packet.pts is None:
                raise ValueError("a picture has no time")
            pts.append(round((packet.pts or 0) * packet.time_base / tick) if exact is None else exact.pts)
            durations.append(round(duration / tick) if exact is None else exact.duration)
            cameras.append(None if exact is None else exact.camera)
        if not pts:
            raise ValueError("it holds no picture")
    times = np.array(pts, np.int64)
    last = durations[int(times.argmax())] if tells_duration else 0
    return _Piece(path=path, pts=times, last_duration=last or None, cameras=tuple(cameras), stored=stored)


def _packets(path: Path) -> "Iterator[Packet[Any]]":
    with _opened(path) as container:
        for packet in container.demux(video=0):
            if packet.size:
                yield packet


def _description(path: Path) -> Description:
    with _opened(path) as container:
        return Description.from_json(container.metadata[TAG])


@contextmanager
def _opened(path: Path) -> "Iterator[InputContainer]":
    try:
        with open_input(file_url(path)) as container:
            yield container
    except (av.error.FFmpegError, OSError, ValueError, LookupError) as error:
        raise SinkError(f"cannot be read: {reason_of(error)}", where=str(path)) from error
