"""What this machine has: memory, cores, processor.

Invariant: None where the system does not tell, never a guess.
"""


def peak_memory_bytes() -> int | None:
    """Highest resident set size of this process so far; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): bytes on macOS, KiB on Linux


def free_memory_bytes() -> int | None:
    """Memory that programs can still take; None where the system does not tell in a standard way."""
    import os

    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # Linux: MemAvailable counts what caches would give up
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
