"""Memory, cores and processor of this machine: the one place that asks the operating system for them.

psutil is imported on first use, because it takes 26 ms. Limits of a container (cgroups) are not considered.
Invariant: None where the system does not report a value, never a guess.
"""

import hashlib
import platform
import sys
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
"""Linux only; see proc(5)."""


def peak_memory_bytes() -> int | None:
    """Highest resident set size of this process so far."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)  # type: ignore[attr-defined]  # only there
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): bytes on macOS, KiB on Linux


def free_memory_bytes() -> int | None:
    """Memory that programs can still allocate without swapping, reclaimable caches included; None if unknown."""
    import psutil

    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):  # such as a sandbox that hides /proc
        return None


def usable_cores() -> int:
    """Logical cores that this process may run on, at least 1: those of its CPU affinity where the system has one."""
    import psutil

    if hasattr(psutil.Process, "cpu_affinity"):  # not on macOS
        return len(psutil.Process().cpu_affinity()) or 1
    return psutil.cpu_count() or 1


def processor_name() -> str:
    """The processor's name for people; the machine type where the system has no name for it."""
    return _cpuinfo().get("model name", "").strip() or platform.processor() or platform.machine()


def processor_fingerprint() -> str | None:
    """Identifies the processor and its instruction sets, for code compiled on it; None if unknown (not Linux)."""
    facts = _cpuinfo()
    found = [facts[key] for key in facts if key in ("model name", "flags", "Features")]  # Features: on ARM
    return f"{platform.machine()} {hashlib.sha256(''.join(found).encode()).hexdigest()[:16]}" if found else None


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
