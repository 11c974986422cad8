"""Memory, cores and processor of this machine: the one place that asks the operating system for them.

psutil is imported on first use, because it takes 26 ms.
Invariant: None where the system does not report a value, never a guess; only `memory_budget_bytes` has a default.
"""

import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
"""Linux only; see proc(5)."""
_CGROUP_OF_PROCESS, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Linux only; see cgroups(7)."""
_CGROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By controller, "" for version 2: the files with the limit and the use, and the field of `memory.stat` that counts the
part of the use that the kernel can free at once (pages of files)."""
SHARE_OF_FREE = 0.75
"""Share of the free memory that a run may take unless `--max-memory` says otherwise."""
UNKNOWN_FREE_BYTES = 4 * 10**9
"""What is taken as free where the system does not say."""


def peak_memory_bytes() -> int | None:
    """Highest resident set size of this process so far."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)  # type: ignore[attr-defined]  # only there
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): bytes on macOS, KiB on Linux


def resident_bytes() -> int:
    """Resident set size of this process; 0 if unknown."""
    import psutil

    with suppress(OSError, psutil.Error):  # such as a sandbox that hides /proc
        return int(psutil.Process().memory_info().rss)
    return 0


def free_memory_bytes() -> int | None:
    """Memory that this process can still allocate without swapping, reclaimable caches included; None if unknown.

    This is the least of what the system has, what the limits of its control groups (v1 and v2) leave, and what its own
    limit of address space (`ulimit -v`) leaves.
    """
    import psutil

    left = [*_left_in_cgroups(), *_left_of_address_space()]
    with suppress(OSError, psutil.Error):  # such as a sandbox that hides /proc
        left.append(int(psutil.virtual_memory().available))
    return max(0, min(left)) if left else None


def memory_budget_bytes(stated: int | None = None) -> int:
    """Most bytes that a run may take: the one number that every limit of memory is derived from.

    Args:
        stated: by the user, see `--max-memory`; None for `SHARE_OF_FREE` of what is free now.
    """
    if stated is not None:
        return stated
    free = free_memory_bytes()
    return int(SHARE_OF_FREE * (UNKNOWN_FREE_BYTES if free is None else free))


def _left_in_cgroups() -> list[int]:
    """What each control group of this process, and each one around it, leaves of its limit of memory."""
    try:
        lines = _CGROUP_OF_PROCESS.read_text(errors="replace").splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        kind = "memory" if "memory" in controllers.split(",") else controllers
        if kind not in _CGROUP_FILES:
            continue
        limit_file, use_file, reclaimable = _CGROUP_FILES[kind]
        group = Path(path.strip("/"))
        for folder in {_CGROUPS / kind / part for part in (group, *group.parents)}:  # in a container, only the root
            limit, use = _number_in(folder / limit_file), _number_in(folder / use_file)
            if limit is not None and use is not None:
                left.append(limit - use + (_number_in(folder / "memory.stat", reclaimable) or 0))
    return left


def _number_in(path: Path, field: str = "") -> int | None:
    """The number in a file of a control group, or behind the name of a field; None if there is none (`max`)."""
    try:
        words = path.read_text(errors="replace").split()
    except OSError:
        return None
    at = words.index(field) + 1 if field in words else 0
    return int(words[at]) if at < len(words) and words[at].isdecimal() else None


def _left_of_address_space() -> list[int]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    import psutil

    return [limit - int(psutil.Process().memory_info().vms)]


def usable_cores() -> int:
    """Logical cores that this process may run on, at least 1: those of its CPU affinity where the system has one."""
    import psutil

    if hasattr(psutil.Process, "cpu_affinity"):  # not on macOS
        return len(psutil.Process().cpu_affinity()) or 1
    return psutil.cpu_count() or 1


_MOST_ENCODER_THREADS = 6
"""On 16 cores libx264 encoded, rendering included, 169, 239, 310 and 301 frames of 640×480 a second with 2, 4, 6 and 8
threads, and 33, 48, 62 and 57 of 1080p (docs/measured/gpu-h200.json)."""


def encoder_threads() -> int:
    """Threads of a video encoder: half of the cores, at least two and at most six. On two cores, one thread takes 6.0
    ms for a 1330×480 frame, two take 3.7 ms for 3 % more CPU."""
    return max(2, min(_MOST_ENCODER_THREADS, usable_cores() // 2))


def processor_name() -> str:
    """The processor's name for people; the machine type where the system has no name for it."""
    return _cpuinfo().get("model name", "").strip() or platform.processor() or platform.machine()


def processor_fingerprint() -> str | None:
    """Identifies the processor and its instruction sets, for code compiled on it; None if unknown (not Linux)."""
    facts = _cpuinfo()
    found = [facts[key] for key in facts if key in ("model name", "flags", "Features")]  # Features: on ARM
    return f"{platform.machine()} {hashlib.sha256(''.join(found).encode()).hexdigest()[:16]}" if found else None


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """Undo what native code inside the block does to the scheduling of this process' threads, new ones included.

    Where it may (as root, so in most containers), SVT-AV1 gives its threads and the one that opens the encoder
    real-time priority 99, which starves all other programs.
    """
    if sys.platform != "linux":
        yield
        return
    before: dict[int, tuple[int, os.sched_param]] = {}
    for task in _tasks():
        with suppress(ProcessLookupError):  # it has ended
            before[task] = _scheduling(task)
    usual = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for task in _tasks():
            with suppress(ProcessLookupError):  # it has ended
                if _scheduling(task) != (kept := before.get(task, usual)):
                    os.sched_setscheduler(task, *kept)


def _tasks() -> list[int]:
    return [int(task) for task in os.listdir("/proc/self/task")]


def _scheduling(task: int) -> "tuple[int, os.sched_param]":
    return os.sched_getscheduler(task), os.sched_getparam(task)


def system_name() -> str:
    """Operating system and machine type, such as "Linux x86_64"."""
    return f"{platform.system()} {platform.machine()}"


def _cpuinfo() -> dict[str, str]:
    """Fields of the last processor in /proc/cpuinfo, values with their leading blank; empty on other systems."""
    try:
        lines = _CPUINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":") for line in lines if ":" in line]
    return {key.strip(): value for key, _, value in pairs}
