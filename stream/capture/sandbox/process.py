"""The parent's end of a sandbox: starts the child, reads what it sends, and ends it.

Invariant: nobody waits longer than `patience_s` for a picture if the child is to blame, and no child outlives its
`Process`, nor this program.
"""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import numpy as np

from stream.capture.sandbox import wire
from stream.capture.sandbox.wire import Fields, Ring, ViolationError
from stream.errors import SourceError, UsageError, reason_of
from stream.frames import RgbImage
from stream.notes import note

PATIENCE_S = 30.0
"""The longest that one picture may take: 250 megapixels take 10 s on a slow core."""
_START_S = 60.0
"""How long the child may take to start, which it does with our code alone: 0.5 s, and many times that on a busy
machine."""
_POLL_S = 0.2
_LAST_WORDS_S = 2.0
"""How long a child that has hung up may take to end: the kernel has 4 GB to give back."""
_KEPT = frozenset(("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONUTF8"))
"""Environment variables that the child gets. Others may hold passwords and tokens."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Landlock restricts the thread that asks for it, so nothing that is imported may start others before."""
_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""Have glibc use the memory of a frame again for the next one: fresh pages cost 2 ms a frame at 1080p."""
START = """
import sys
sys.path[:] = {path}
from stream.capture.sandbox.child import main
main({line}, {life})
"""
"""The child. Its request comes through the socket: arguments are public."""


_MISSING = {"landlock": "which files can be read (Landlock: {})", "seccomp": "system calls (seccomp: {})"}
_REASONS = {
    ("landlock", errno.ENOSYS): "not in this kernel",
    ("landlock", errno.EOPNOTSUPP): "switched off",
    ("landlock", errno.EBUSY): "another thread is running already",
    ("seccomp", errno.ENOSYS): "not for this kernel or machine",
}
"""Texts for what the child could not give up. It sends codes: a note is never the child's."""
_LAST_ERRORS = 64 << 10
"""Bytes of stderr that are kept: as many as a pipe holds. What is printed afterwards is lost, and nobody waits."""


class DiedError(Exception):
    """The child has ended, hangs, or sends what it must not send; the text says which."""

    is_hang = False


@dataclass(frozen=True, kw_only=True)
class Message:
    """What the child sent.

    Attributes:
        fields: the message's values, unchecked.
        blob: bytes that came with it.
        rgb: the pixels of a frame, copied out of the shared memory; None for any other message.
    """

    fields: Fields
    blob: bytes = b""
    rgb: RgbImage | None = None


def check_system() -> None:
    """Refuse `--sandbox` where there is none.

    Raises:
        UsageError: this is not Linux.
    """
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        what = "needs Linux: this system has neither Landlock, seccomp nor sealed memory"
        raise UsageError(what, where="--sandbox", hint="remove it, and run the program in a container or a VM")


class Process:
    """A child that decodes what `request` names; see `stream.capture.sandbox.child` for the requests.

    Args:
        request: for the child.
        most_pixels: of a frame.
        stdin: descriptor that the child reads; None for nothing.
        patience_s: see `PATIENCE_S`.
        is_starved: True while the child rightly waits for a writer.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self,
        request: Mapping[str, object],
        *,
        most_pixels: int,
        stdin: int | None = None,
        patience_s: float | None = None,
        is_starved: Callable[[], bool] = lambda: False,
    ) -> None:
        self._most_pixels, self._is_starved = most_pixels, is_starved
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._ring: Ring | None = None
        self._interrupted, self._is_confined = threading.Event(), False
        self._has_progressed, self._since_s = True, 0.0
        with ExitStack() as unless_started:
            self._line, theirs = socket.socketpair()
            unless_started.callback(self._line.close)
            read, self._life = os.pipe()
            unless_started.callback(os.close, self._life)
            self._errors, errors = os.pipe()
            unless_started.callback(os.close, self._errors)
            os.set_blocking(self._errors, False)
            os.set_blocking(errors, False)
            passed = [theirs.fileno(), read, *([] if stdin is None else [stdin])]
            code = START.format(path=repr(sys.path), line=passed[0], life=read)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-B", "-c", code],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env={key: value for key, value in os.environ.items() if key in _KEPT} | ONE_THREAD | _KEPT_MEMORY,
                    pass_fds=passed,
                    start_new_session=True,  # Ctrl-C is this process's to handle
                )
            finally:
                theirs.close()
                os.close(read)
                os.close(errors)
            unless_started.pop_all()
        self._line.settimeout(_POLL_S)
        self._send(wire.packed(request))

    def receive(self) -> Message | None:
        """The next message; None after `interrupt`.

        Raises:
            DiedError: the child has ended without saying so, hangs, or breaks the rules.
            SourceError: it did so before it was confined, and so before it has read anything of the source.
        """
        try:
            return self._received()
        except DiedError as error:
            if self._is_confined:
                raise
            what = ": ".join(filter(None, (f"the sandbox cannot be started: it {error}", self._last_error())))
            raise SourceError(what, where="--sandbox") from error

    def _received(self) -> Message | None:
        if self._interrupted.is_set():  # what was sent before can still be read
            return None
        if self._has_progressed:
            self._has_progressed, self._since_s = False, time.monotonic()
        try:
            while True:
                text, blob = wire.lengths(self._exactly(wire.HEAD_BYTES))
                fields, data = wire.parsed(self._exactly(text)), self._exactly(blob)
                if ("confined" in fields) is self._is_confined:
                    raise ViolationError("`confined` is its first message and no other")
                if not self._is_confined:
                    self._say_missing(fields.inner("missing"))
                    self._has_progressed, self._is_confined = False, True
                    self._since_s = time.monotonic()
                elif "room" in fields:
                    self._make_room(fields.integer("room", 1, 3 * self._most_pixels))
                elif "slot" in fields:
                    self._has_progressed = True
                    return Message(fields=fields, rgb=self._pixels(fields))
                else:
                    self._has_progressed |= "skipped" in fields
                    return Message(fields=fields, blob=data)
        except EOFError:
            if self._interrupted.is_set():
                return None
            raise self._died() from None
        except (ViolationError, BlockingIOError, TimeoutError) as error:
            why = error if isinstance(error, ViolationError) else "it does not read"
            self._process.kill()
            raise DiedError(f"broke the sandbox's rules ({why}) and was ended") from None
        except OSError as error:
            self._process.kill()
            raise DiedError(f"cannot be given memory ({reason_of(error)}) and was ended") from error

    def interrupt(self) -> None:
        """Make `receive` return None, from any thread."""
        self._interrupted.set()
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the child. Idempotent."""
        self.interrupt()
        self._process.kill()
        self._process.wait()
        self._line.close()
        life, self._life = self._life, -1
        if life >= 0:
            os.close(life)
            os.close(self._errors)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def _send(self, data: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):  # `receive` says what is wrong
            self._line.settimeout(_START_S)
            try:
                self._line.sendall(data)
            finally:
                self._line.settimeout(_POLL_S)

    def _exactly(self, count: int) -> bytes:
        """The next bytes; sound and notes without a picture do not extend the time for it."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            limit_s = self._patience_s if self._is_confined else _START_S
            if time.monotonic() - self._since_s > limit_s:
                raise self._hangs(limit_s)
            try:
                got = self._line.recv_into(view)
            except TimeoutError:
                if self._is_starved():
                    self._since_s = time.monotonic()
                continue
            except ConnectionResetError:
                got = 0
            if not got:
                raise EOFError
            view = view[got:]
        return bytes(data)

    def _say_missing(self, missing: Fields) -> None:
        said = []
        for what, text in _MISSING.items():
            if what in missing:
                number = missing.integer(what, 1, 4095)
                said.append(text.format(_REASONS.get((what, number)) or os.strerror(number)))
        if said:
            note(f"--sandbox: this kernel cannot limit {', '.join(said)}")

    def _last_error(self) -> str:
        """The last line of the child's stderr."""
        try:
            text = os.read(self._errors, _LAST_ERRORS).decode(errors="replace")
        except OSError:  # there is none, or `close` was faster
            return ""
        return text.strip().rpartition("\n")[2][-500:]

    def _make_room(self, count: int) -> None:
        fd, slots, slot_bytes = wire.new_ring(count)
        try:
            self._ring = Ring(fd, slots, slot_bytes, is_writable=False)
            wire.send_order(self._line, wire.NEW_RING, slots, slot_bytes, fd)
        finally:
            os.close(fd)

    def _pixels(self, fields: Fields) -> RgbImage:
        """Copy a frame out: what is read twice must not change in between, and its slot is needed for the next one."""
        if self._ring is None:
            raise ViolationError("a frame before there is memory for it")
        height, width = fields.integer("height", 1, 1 << 30), fields.integer("width", 1, 1 << 30)
        if height * width > self._most_pixels or 3 * height * width > self._ring.slot_bytes:
            raise ViolationError("a frame is too large")
        slot = fields.integer("slot", 0, self._ring.slots - 1)
        rgb = np.array(self._ring.pixels(slot, (height, width, 3)))
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have sent the last frame and ended
            wire.send_order(self._line, wire.SLOT_IS_FREE, slot)
        return rgb

    def _hangs(self, limit_s: float) -> DiedError:
        self._process.kill()
        error = DiedError(f"delivered no picture for {limit_s:g} s and was ended")
        error.is_hang = True
        return error

    def _died(self) -> DiedError:
        try:
            code = self._process.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return DiedError("hung up and was ended")
        if code >= 0:
            return DiedError(f"ended with code {code}")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        why = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
        return DiedError(f"was killed by {name}{why}")
