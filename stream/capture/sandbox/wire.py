"""How the two processes talk: messages over a socket, pixels through memory that both map.

The child is trusted with nothing once it has seen a hostile file. A message is JSON and bytes, never a pickle; its
length is limited, and `Fields` checks the type and the range of every value that is taken out of it.
Invariant: whatever arrives, reading it raises `ViolationError` or gives values within the stated limits.
"""

import json
import math
import mmap
import os
import socket
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.frames import Intrinsics

HEAD = struct.Struct("<II")
_ORDER = struct.Struct("<BQQ")
"""From the parent to the child: what, and two numbers."""
SLOT_IS_FREE, NEW_RING = 1, 2
_LONGEST_JSON = 1 << 20
_LONGEST_BLOB = 64 << 20
"""A packet of sound; one of PCM may hold seconds."""
LONGEST_TEXT = 2000
"""Characters of a message for people; more is cut off."""
_MOST_PIXELS = 1e12
"""A focal length, or a coordinate of a centre."""
RING_BYTES, _MOST_SLOTS = 96 << 20, 4
"""Frames that the child may decode ahead: 4 at 1080p (25 MB), fewer if they are large."""

LOG_LISTS = ("warnings", "notes")
LOG_COUNTS = ("repaired_pts", "clock_jumps", "size_changes", "damaged_packets", "damaged_frames", "further_images")
"""Of a `CaptureLog`: what a child sends of it."""


class ViolationError(Exception):
    """The child has sent what it must not send."""


class Fields:
    """The values of a message, checked as they are taken out.

    Raises:
        ViolationError: from each method: the value is not what it must be.
    """

    def __init__(self, values: object) -> None:
        if not isinstance(values, dict):
            raise ViolationError("not an object")
        self._values: dict[str, Any] = values

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number within the limits."""
        value = self._values.get(key)
        if type(value) is not int or not low <= value <= high:
            raise ViolationError(f"{key} is out of range")
        return value

    def real(self, key: str) -> float:
        """A finite floating-point number."""
        value = self._values.get(key)
        if type(value) is not float or not math.isfinite(value):
            raise ViolationError(f"{key} is no number")
        return value

    def text(self, key: str, longest: int = LONGEST_TEXT) -> str:
        """A text, cut off after `longest` characters."""
        value = self._values.get(key)
        if type(value) is not str:
            raise ViolationError(f"{key} is no text")
        return value[:longest]

    def truth(self, key: str) -> bool:
        """True or false."""
        value = self._values.get(key)
        if type(value) is not bool:
            raise ViolationError(f"{key} is neither true nor false")
        return value

    def fraction(self, key: str, limit: int = 1 << 31) -> Fraction:
        """A positive fraction of two numbers below `limit`; FFmpeg's have 32 bits."""
        return Fraction(*self.integers(key, 2, 1, limit - 1))

    def data(self, key: str, longest: int) -> bytes:
        """Bytes, sent as hexadecimal digits."""
        try:
            return bytes.fromhex(self.text(key, 2 * longest))
        except ValueError:
            raise ViolationError(f"{key} is not hexadecimal") from None

    def inner(self, key: str) -> "Fields":
        """An object inside of this one."""
        return Fields(self._values.get(key))

    def several(self, key: str, most: int) -> "list[Fields]":
        """A list of objects."""
        return [Fields(one) for one in self._list(key, most)]

    def integers(self, key: str, count: int, low: int, high: int) -> list[int]:
        """A list of `count` whole numbers within the limits."""
        found = self._list(key, count)
        if len(found) != count or any(type(one) is not int or not low <= one <= high for one in found):
            raise ViolationError(f"{key} is out of range")
        return found

    def camera(self, key: str) -> Intrinsics:
        """The four numbers of a camera, focal lengths first."""
        found = self._list(key, 4)
        if len(found) != 4 or any(type(one) is not float or not abs(one) < _MOST_PIXELS for one in found):
            raise ViolationError(f"{key} is no camera")
        try:
            return Intrinsics(fx=found[0], fy=found[1], cx=found[2], cy=found[3])
        except ValueError:
            raise ViolationError(f"{key} is no camera") from None

    def texts(self, key: str, most: int) -> list[str]:
        """A list of texts."""
        found = self._list(key, most)
        if any(type(one) is not str for one in found):
            raise ViolationError(f"{key} holds more than texts")
        return [one[:LONGEST_TEXT] for one in found]

    def _list(self, key: str, most: int) -> list[Any]:
        value = self._values.get(key)
        if type(value) is not list or len(value) > most:
            raise ViolationError(f"{key} is no list, or too long")
        return value


def pair(value: Fraction) -> list[int]:
    """A fraction for `Fields.fraction`."""
    return [value.numerator, value.denominator]


def packed(message: Mapping[str, object], blob: bytes = b"") -> bytes:
    """A message as it is sent."""
    text = json.dumps(message).encode()
    return HEAD.pack(len(text), len(blob)) + text + blob


def lengths(head: bytes) -> tuple[int, int]:
    """Bytes of JSON and of data that follow a message's head.

    Raises:
        ViolationError: they are too many.
    """
    text, blob = HEAD.unpack(head)
    if text > _LONGEST_JSON or blob > _LONGEST_BLOB:
        raise ViolationError("a message is too long")
    return text, blob


HEAD_BYTES = HEAD.size


def parsed(text: bytes) -> Fields:
    """A message's JSON.

    Raises:
        ViolationError: it is none.
    """
    try:
        return Fields(json.loads(text))
    except (ValueError, RecursionError):
        raise ViolationError("not JSON") from None


class Ring:
    """Memory for a few frames of up to `slot_bytes`, shared by both processes.

    The parent creates it and seals its size: a file that shrinks while it is mapped kills who reads it (SIGBUS).
    """

    def __init__(self, fd: int, slots: int, slot_bytes: int, *, is_writable: bool) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        access = mmap.PROT_READ | (mmap.PROT_WRITE if is_writable else 0)
        self._memory = mmap.mmap(fd, slots * slot_bytes, flags=mmap.MAP_SHARED, prot=access)

    def pixels(self, slot: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """The memory of a frame, uint8 H×W×3; not a copy."""
        count = math.prod(shape)
        return np.frombuffer(self._memory, np.uint8, count, slot * self.slot_bytes).reshape(shape)


def new_ring(bytes_per_frame: int) -> tuple[int, int, int]:
    """Create the memory for frames of this size: its descriptor, the number of slots and their bytes.

    Raises:
        OSError: there is no memory for it.
    """
    import fcntl

    slots = max(1, min(_MOST_SLOTS, RING_BYTES // bytes_per_frame))
    page = mmap.PAGESIZE
    slot_bytes = (bytes_per_frame + page - 1) // page * page
    fd = os.memfd_create("depthstream sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, slots * slot_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd, slots, slot_bytes


def send_order(to: socket.socket, what: int, first: int, second: int = 0, fd: int | None = None) -> None:
    """Send an order to the child, without waiting for it to read.

    Raises:
        BlockingIOError, TimeoutError: the child does not read.
    """
    socket.send_fds(to, [_ORDER.pack(what, first, second)], [] if fd is None else [fd], socket.MSG_DONTWAIT)


def receive_order(line: socket.socket) -> tuple[int, int, int, int | None]:
    """What, the two numbers and the descriptor that came with them.

    Raises:
        EOFError: the parent has hung up.
    """
    data, fds, _, _ = socket.recv_fds(line, _ORDER.size, 1)
    if len(data) < _ORDER.size:
        raise EOFError
    what, first, second = _ORDER.unpack(data)
    return what, first, second, fds[0] if fds else None
