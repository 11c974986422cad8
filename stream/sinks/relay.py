"""A process of its own that sends a stream to the network: packets come in on stdin and go on to a URL.

FFmpeg's protocols may wait for a silent peer for ever, and PyAV holds the interpreter's lock meanwhile. A process can
be given up, and the one that started it sees a closed pipe. The URL comes on stdin too: arguments are public, and it
may hold a password or a stream key.
Invariant: it ends by itself once its input ends, or once a wait exceeds its limit; then stdout names the stage it was
at and, if FFmpeg gave one, the reason.
"""

import ctypes
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from stream.errors import reason_of
from stream.media import av, open_input
from stream.sinks.pipe_writer import SLICE_S, PipeWriter

INPUT_FORMAT = "nut"
"""Keeps every codec and time base, and has no index to wait for."""
_NO_PROBING = {"probesize": "100000", "analyzeduration": "1", "fpsprobesize": "0"}
_OPENING, _SENDING = "opening", "sending"


class Relay(PipeWriter):
    """Starts the process, and takes what FFmpeg's muxer writes.

    Args:
        url: where to send.
        muxer: FFmpeg's format for it.
        options: of that format.
        open_limit_s: limit for connecting; None waits for ever, for a URL that waits for a reader.
        send_limit_s: limit for each packet.
        stopping: whether the run was asked to stop; a process that is still connecting is then given up.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self,
        url: str,
        muxer: str,
        options: Mapping[str, str],
        *,
        open_limit_s: float | None,
        send_limit_s: float,
        stopping: Callable[[], bool],
    ) -> None:
        self._limit_s = 2 * send_limit_s
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is this process's to handle
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout, self._said = self._process.stdin, self._process.stdout, b""
        os.set_blocking(self._stdout.fileno(), False)
        super().__init__(self._stdin.fileno(), stopping)
        about = {"url": url, "muxer": muxer, "options": dict(options), "limits": [open_limit_s, send_limit_s]}
        self.write(f"{json.dumps(about)}\n".encode())

    @property
    def has_ended(self) -> bool:
        """True once the process has given up, or has sent everything."""
        return self._process.poll() is not None

    def finish(self) -> None:
        """End the stream and wait until everything is sent, or give that up because the run was asked to stop.

        Raises:
            ConnectionError: the target could not be opened, or went away; with the reason.
        """
        self._is_open = False
        with suppress(OSError):
            self._stdin.close()
        began_s = time.monotonic()
        while not self.has_ended and not self.gave_up and (waited_s := time.monotonic() - began_s) < self._limit_s:
            self.gave_up = self.stopping() and self._is_hopeless(waited_s)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(SLICE_S)
        self._process.kill()
        code = self._process.wait()
        *_, stage = ["", *self._told().splitlines()]
        self.stop()
        if code and not self.gave_up:
            name, _, reason = stage.partition(" ")
            what = "the connection was lost" if name == _SENDING else "cannot be reached"
            raise ConnectionError(f"{what}: {reason or 'no answer in time'}")

    def stop(self) -> None:
        """End the process at once. Idempotent."""
        self._is_open = False
        self._process.kill()
        self._process.wait()
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):
                pipe.close()

    def _is_hopeless(self, stalled_s: float) -> bool:
        return super()._is_hopeless(stalled_s) or _SENDING not in self._told()

    def _told(self) -> str:
        """What the process has printed so far."""
        with suppress(BlockingIOError):
            while data := os.read(self._stdout.fileno(), 4096):
                self._said += data
        return self._said.decode(errors="replace")


class _Input:
    """Reads what is there; a buffered reader would wait until its buffer is full."""

    def __init__(self, file_no: int) -> None:
        self._file_no = file_no

    def read(self, size: int) -> bytes:
        return os.read(self._file_no, size)

    def line(self) -> bytes:
        text = b""
        while not text.endswith(b"\n") and (byte := os.read(self._file_no, 1)):
            text += byte
        return text


class _Limit:
    """Ends this process if the block takes too long: from a thread that needs no lock of Python's."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._trace = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process

    def __enter__(self) -> None:
        if self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._trace)

    def __exit__(self, *_error: object) -> None:
        faulthandler.cancel_dump_traceback_later()


def _relay(stdin: _Input, reach: Callable[[str], None]) -> None:
    about = json.loads(stdin.line())
    opening, sending = (_Limit(seconds) for seconds in about["limits"])
    with open_input("", file=stdin, format=INPUT_FORMAT, container_options=_NO_PROBING) as source:
        reach(_OPENING)
        output = av.open(about["url"], "w", format=about["muxer"], container_options=about["options"])
        streams = {one.index: output.add_stream_from_template(one) for one in source.streams}
        with opening:
            output.start_encoding()
        reach(_SENDING)
        for packet in source.demux():
            if packet.dts is None:  # of the first packets, as next to nothing was probed
                packet.dts = packet.pts
            if packet.size:
                packet.stream = streams[packet.stream.index]
                with sending:
                    output.mux(packet)
        with sending:
            output.close()


def _end_with_parent() -> None:
    """Have Linux kill this process when the one that started it dies: while it waits for a reader, it reads no input.

    PR_SET_PDEATHSIG is 1 (sys/prctl.h). Elsewhere a listening process outlives a parent that was killed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> None:
    """Relay stdin: a line of JSON, then the stream as `INPUT_FORMAT`."""
    _end_with_parent()
    stage = _OPENING

    def reach(name: str) -> None:
        nonlocal stage
        stage = name
        print(stage, flush=True)

    try:
        _relay(_Input(sys.stdin.fileno()), reach)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        print(f"{stage} {reason_of(error)}", flush=True)
        sys.exit(1)
