"""The sandboxed process: gives up what it does not need, opens the source with the usual code, and sends what comes.

The request is a message of the parent's with `options` (a `CaptureConfig`), `files` that may be read, `memory_bytes`,
and one of
    `file`, `form`      a video, a picture or an animation, see `capture.parse`
    `pipe`, `stdin`     a video that comes through the descriptor `stdin`; `pipe` is what it is called
    `pictures`, `root`  files that are pictures; the first `careful` of them are decoded one at a time
Invariant: nothing of the source is read before `confine` has returned.
"""

import json
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import stream.capture.video.hwaccel
import stream.capture.video.mjpeg  # noqa: F401  whatever decoding imports is imported before `confine`
from stream.capture import open as opening
from stream.capture.base import CaptureLog
from stream.capture.limits import Limits
from stream.capture.parse import ParsedSource, SourceForm
from stream.capture.pipe import PipeReader, open_piped_video
from stream.capture.sandbox import confine, sound, wire
from stream.capture.stills.animation import AnimatedSource  # noqa: F401
from stream.capture.stills.source import ImagesSource
from stream.capture.video.file import VideoSource  # noqa: F401
from stream.capture.video.network import LiveSource  # noqa: F401
from stream.config import CaptureConfig
from stream.errors import SourceError, StreamError
from stream.frames import AudioPacket, Frame, SourceInfo
from stream.notes import Notes, collected


def main(line: int, life: int) -> None:
    """Serve the parent until the source ends, or the parent does.

    Args:
        line: descriptor of the socket.
        life: descriptor of a pipe that the parent closes when it ends.
    """
    with closing(socket.socket(fileno=line)) as connection:
        parent = _Parent(connection)
        confine.die_with_parent(life)
        request = parent.receive_request()
        Image.init()
        missing = confine.confine(request["files"], memory_bytes=request["memory_bytes"])
        try:
            parent.send({"confined": True, "missing": missing})
            with collected(Notes(lambda text: parent.send({"note": text}))):
                _serve(parent, request)
            parent.send({"end": True})
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the parent has hung up
        except StreamError as error:
            parent.send(_error_fields(error))
        except Exception as error:  # noqa: BLE001  the parent reports it
            parent.send(_error_fields(SourceError(_reason(error))))


def _serve(parent: "_Parent", request: dict[str, Any]) -> None:
    options = CaptureConfig.model_validate({**request["options"], "sandbox": False})
    if "pictures" in request:
        _Pictures(parent, request, options).serve()
        return
    if "pipe" in request:
        reader = PipeReader(request["pipe"], request["stdin"])
        source = open_piped_video(reader, options, decoder=options.hwaccel)
    else:
        source = opening.open_file(ParsedSource(form=SourceForm(request["form"]), value=request["file"]), options)
    with closing(source):
        parent.send({"info": _info_fields(source.info)})
        parent.send_log(source.log)
        if source.info.audio is not None:
            source.info.audio.packets.listen(parent.send_sound)
        for frame in source:
            parent.send_log(source.log)
            parent.send_frame(frame)
            del frame
        parent.send_log(source.log)


class _Pictures:
    """Sends each picture, or why it cannot be read, in order."""

    def __init__(self, parent: "_Parent", request: dict[str, Any], options: CaptureConfig) -> None:
        self._parent, self._limits = parent, Limits.of(options)
        self._paths = [Path(path) for path in request["pictures"]]
        self._root, self._careful = Path(request["root"]), int(request["careful"])

    def serve(self) -> None:
        for path in self._paths[: self._careful]:
            self._send_one(path)
        rest = self._paths[self._careful :]
        try:
            source = self._open(rest, ahead=4)
        except SourceError:  # not one header can be read
            for path in rest:
                self._send_one(path)
            return
        self._send_all(source)

    def _send_one(self, path: Path) -> None:
        try:
            self._send_all(self._open([path], ahead=1))
        except SourceError as error:
            self._parent.send({"skipped": error.reason})
        except OSError:  # the parent has hung up
            raise
        except Exception as error:  # noqa: BLE001  the picture is to blame, and the next one may be whole
            self._parent.send({"skipped": _reason(error)})

    def _open(self, paths: list[Path], *, ahead: int) -> ImagesSource:
        workers = min(2, ahead)
        return ImagesSource(paths, name="", root=self._root, workers=workers, ahead=ahead, limits=self._limits)

    def _send_all(self, source: ImagesSource) -> None:
        parent, said = self._parent, 0

        def send_skipped() -> None:
            nonlocal said
            for one in source.log.skipped[said:]:
                parent.send({"skipped": one.reason})
            said = len(source.log.skipped)

        parent.forget_log()
        try:
            for frame in source:
                send_skipped()
                parent.send_log(source.log)
                parent.send_frame(frame)
                del frame
        except SourceError:  # none could be read, and each has its reason
            pass
        send_skipped()
        parent.send_log(source.log)


class _Parent:
    """The other end of the socket."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._ring: wire.Ring | None = None
        self._free: list[int] = []
        self.forget_log()

    def receive_request(self) -> dict[str, Any]:
        text, _ = wire.HEAD.unpack(self._exactly(wire.HEAD_BYTES))
        request: dict[str, Any] = json.loads(self._exactly(text))
        return request

    def send(self, message: dict[str, object], blob: bytes = b"") -> None:
        self._line.sendall(wire.packed(message, blob))

    def send_sound(self, item: AudioPacket, _size: int) -> None:
        self.send(sound.packet_fields(item), bytes(item.packet))

    def forget_log(self) -> None:
        """What is sent next belongs to another source."""
        self._said = CaptureLog()

    def send_log(self, log: CaptureLog) -> None:
        """Send what a log holds beside skipped inputs, if it has changed: lists from where they have grown."""
        news: dict[str, object] = {}
        for key in wire.LOG_LISTS:
            now, before = getattr(log, key), getattr(self._said, key)
            if len(now) > len(before):
                news[key] = now[len(before) :]
                before += now[len(before) :]
        for key in wire.LOG_COUNTS:
            if getattr(log, key) != getattr(self._said, key):
                news[key] = getattr(log, key) - getattr(self._said, key)
                setattr(self._said, key, getattr(log, key))
        if log.dropped != self._said.dropped:
            self._said.dropped = dict(log.dropped)
            news["dropped"] = self._said.dropped
        if news:
            self.send({"log": news})

    def send_frame(self, frame: Frame) -> None:
        rgb = frame.rgb
        if self._ring is None or rgb.nbytes > self._ring.slot_bytes:
            self._await(lambda: self._ring is None or len(self._free) == self._ring.slots)
            self._ring = None  # unmapped before more is mapped
            self.send({"room": rgb.nbytes})
            self._await(lambda: self._ring is not None)
        self._await(lambda: bool(self._free))
        slot, ring = self._free.pop(), self._ring
        assert ring is not None
        height, width = frame.size
        np.copyto(ring.pixels(slot, (height, width, 3)), rgb)
        self.send(
            {
                "slot": slot,
                "height": height,
                "width": width,
                "index": frame.index,
                "pts": frame.pts,
                "duration": frame.duration,
                "captured_at": frame.captured_at,
                "camera": None
                if (camera := frame.intrinsics) is None
                else [camera.fx, camera.fy, camera.cx, camera.cy],
            }
        )

    def _await(self, ready: Callable[[], bool]) -> None:
        while not ready():
            what, first, second, fd = wire.receive_order(self._line)
            if what == wire.SLOT_IS_FREE:
                self._free.append(first)
            elif fd is not None:
                self._ring = wire.Ring(fd, first, second, is_writable=True)
                self._free = list(range(first))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._line.recv(min(count - len(data), 1 << 20))
            if not more:
                raise EOFError
            data += more
        return data


def _reason(error: Exception) -> str:
    what = "not enough memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
    return f"cannot be decoded: {what}"


def _info_fields(info: SourceInfo) -> dict[str, object]:
    return {
        "size": list(info.size),
        "is_live": info.is_live,
        "time_base": wire.pair(info.time_base),
        "rate": None if info.rate is None else wire.pair(info.rate),
        "frame_count": info.frame_count,
        "kind": info.kind.value,
        "not_kept": info.not_kept,
        "notes": list(info.notes),
        "audio": None if info.audio is None else sound.described(info.audio),
    }


def _error_fields(error: StreamError) -> dict[str, object]:
    return {
        "error": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "allowed": error.allowed,
        "hint": error.hint,
    }
