"""A seccomp filter: the system calls that no decoder needs fail, with EPERM.

Landlock confines file names and TCP. This closes what it leaves: other sockets, other processes, new programs, and the
parts of the kernel with the most holes (io_uring, bpf, namespaces). The only binding to libseccomp on PyPI is from 2021
and needs a system library, and a filter is an array of 8-byte instructions (linux/filter.h, linux/seccomp.h).
Invariant: nothing that was permitted before is permitted less strictly afterwards, by any thread.
"""

import ctypes
import errno
import os
import platform
import struct

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine → its AUDIT_ARCH number (linux/audit.h), and its column in the tables."""

_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other processes and machines
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "prlimit64": (302, 261),
    "setrlimit": (160, 164),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    # the kernel
    "io_uring_setup": (425, 425),
    "io_setup": (206, 0),
    "vmsplice": (278, 75),
    "splice": (275, 76),
    "tee": (276, 77),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "open_by_handle_at": (304, 265),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "uselib": (134, None),
    "syslog": (103, 116),
    "acct": (163, 89),
    "reboot": (169, 142),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    # changes to files
    "creat": (85, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
"""Names, for people, and numbers on x86-64 (asm/unistd_64.h) and on arm64 (asm-generic/unistd.h)."""
_WITH_POINTERS = {"clone3": (435, 435), "openat2": (437, 437)}
"""Their arguments are in memory, which a filter cannot read: they "do not exist", so that the C library takes the older
call."""
_CLONE, _OPEN, _OPENAT = (56, 220), (2, None), (257, 56)
_TGKILL, _FCNTL = (234, 131), (72, 25)
_CLONE_THREAD = 0x10000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FIRST_UNKNOWN = 463
"""System calls from here on are newer than this list. They "do not exist", and the C library takes older ones."""
_IOCTL = (16, 29)
_IOCTLS = (0x5401, 0x5450, 0x5451)
"""TCGETS, for `isatty`, FIONCLEX and FIOCLEX. Others make the kernel signal a process (FIOSETOWN, FIOASYNC), type on a
terminal (TIOCSTI), or change what other processes have open, too (FIONBIO)."""
_FCNTLS = (0, 1, 2, 3, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL and F_DUPFD_CLOEXEC. Not F_SETFL, F_SETOWN and F_SETSIG: these make the kernel
signal another process, or not this one when the parent ends."""

_LOAD, _JUMP_IF, _JUMP_FROM, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD|W|ABS; BPF_JMP|JEQ|K, JGE and JSET; BPF_RET|K (linux/bpf_common.h)."""
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
"""Offsets in `struct seccomp_data`; an argument has 8 bytes, the lower half first."""
_SET_SECCOMP, _MODE_FILTER = 22, 2
"""prctl(2)."""


def refuse_system_calls() -> int:
    """Install the filter, for this thread and those that it starts. `PR_SET_NO_NEW_PRIVS` comes first.

    Returns:
        0 on success, else the number of the system's error; ENOSYS also for a machine without a list.
    """
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return errno.ENOSYS
    code = _program(*known, process=os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        return ctypes.get_errno()
    return 0


def _program(architecture: int, column: int, *, process: int) -> bytes:
    permission, absent = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    code = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_JUMP_IF, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_JUMP_FROM, _FIRST_UNKNOWN, 0, 1),  # x32 has numbers of its own, from 1 << 30 on
        _step(_RETURN, absent),
    ]
    for table, answer in ((_REFUSED, permission), (_WITH_POINTERS, absent)):
        for numbers in table.values():
            code += _if_called(numbers[column], [_step(_RETURN, answer)])
    refuse = _step(_RETURN, permission)
    for call, argument, test, value, refused_if in (
        (_CLONE, 0, _JUMP_IF_SET, _CLONE_THREAD, False),
        (_OPEN, 1, _JUMP_IF_SET, _WRITING, True),
        (_OPENAT, 2, _JUMP_IF_SET, _WRITING, True),
        (_TGKILL, 0, _JUMP_IF, process, False),
    ):
        check = [
            _step(_LOAD, _ARGUMENTS_AT + 8 * argument),
            _step(test, value, int(not refused_if), int(refused_if)),
            refuse,
            _step(_LOAD, _NUMBER_AT),
        ]
        code += _if_called(call[column], check)
    for call, permitted in ((_IOCTL, _IOCTLS), (_FCNTL, _FCNTLS)):
        tests = [_step(_JUMP_IF, value, len(permitted) - at) for at, value in enumerate(permitted)]
        check = [_step(_LOAD, _ARGUMENTS_AT + 8), *tests, refuse, _step(_LOAD, _NUMBER_AT)]
        code += _if_called(call[column], check)
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _if_called(number: int | None, then: list[bytes]) -> list[bytes]:
    return [] if number is None else [_step(_JUMP_IF, number, 0, len(then)), *then]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One `struct sock_filter`; the jumps count instructions to leave out."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
