"""What a process gives up before it decodes what a stranger made: files, network, other processes, memory.

Invariant: nothing is given back, and the caller learns what this kernel could not take away.
"""

import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stream.capture.sandbox.syscalls import refuse_system_calls

_MOST_FILES = 128
"""Descriptors open at once; decoding takes fewer than ten."""
_SET_NO_NEW_PRIVS = 38
"""prctl(2)."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Landlock's system calls, the same on every machine (landlock(7))."""
_ASK_VERSION, _RULE_PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS = (0, 13, 14, 15, 15, 16)
"""Number of rights to files by version, from 1 on; later ones have the last number."""
_NETWORK_VERSION, _TCP = 4, 0b11
"""Binding and connecting."""
_SCOPE_VERSION, _SCOPES = 6, 0b11
"""Abstract Unix sockets and signals."""


def confine(files: Iterable[str], *, memory_bytes: int) -> dict[str, int]:
    """Give up everything that decoding does not need. Everything must be imported already.

    Args:
        files: may be read, and nothing below them; those that are missing are left out.
        memory_bytes: address space that may be added to what is in use now.

    Returns:
        What this kernel cannot limit (`landlock`, `seccomp`), with the number of the system's error.

    Raises:
        OSError: a limit that every Linux has was refused.
    """
    set_limits(memory_bytes)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    refused = {"landlock": _restrict_files(libc, files), "seccomp": refuse_system_calls()}
    return {what: number for what, number in refused.items() if number}


def set_limits(memory_bytes: int) -> None:
    """Limit memory, open files, file sizes and core dumps of this process."""
    limits = {
        resource.RLIMIT_AS: _address_space_bytes() + memory_bytes,
        resource.RLIMIT_NOFILE: _MOST_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, wanted in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))


def die_with_parent(pipe: int) -> None:
    """Have the kernel kill this process as soon as the other end of `pipe` is closed, whatever a decoder is doing.

    PR_SET_PDEATHSIG would also strike when the thread ends that has started this process.
    """
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _restrict_files(libc: ctypes.CDLL, files: Iterable[str]) -> int:
    """Leave this process `files` and Python's own modules to read, and no TCP. Return the error's number, 0 if none."""
    if len(os.listdir("/proc/self/task")) > 1:
        return errno.EBUSY
    version = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return ctypes.get_errno()
    rights = (1 << _RIGHTS[min(version, len(_RIGHTS) - 1)]) - 1
    fields = [rights]
    if version >= _NETWORK_VERSION:
        fields.append(_TCP)
    if version >= _SCOPE_VERSION:
        fields.append(_SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return ctypes.get_errno()
    try:
        for path in files:
            _allow(libc, rules, path, _READ_FILE)
        for folder in _python_folders():
            _allow(libc, rules, folder, _READ_FILE | _READ_DIR)
        if libc.syscall(_RESTRICT_SELF, rules, 0):
            return ctypes.get_errno()
    finally:
        os.close(rules)
    return 0


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    with suppress(OSError, ValueError):  # reading it will say what is wrong
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", rights, opened)
            libc.syscall(_ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0)
        finally:
            os.close(opened)


def _python_folders() -> list[str]:
    """Python's modules and this package, for what is imported late; no folder that holds other things."""
    installed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *installed, str(Path(__file__).parents[2])]
