"""What the machine says of itself, and what is said where it says nothing."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from stream import machine

INTEL = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: sse avx\n\nprocessor\t: 1\nflags\t\t: sse avx\n"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", path)
    return path


def test_free_memory_is_part_of_what_the_machine_has() -> None:
    free = machine.free_memory_bytes()
    assert free is not None
    assert 0 < free < psutil.virtual_memory().total


def test_memory_that_the_system_hides_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> None:
        raise FileNotFoundError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    monkeypatch.setattr(machine, "_left_in_cgroups", list)
    monkeypatch.setattr(machine, "_left_of_address_space", list)
    assert machine.free_memory_bytes() is None


V1 = ("4:memory:/job/a", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("0::/job/a", "", "memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("limited", ["job/a", "job", ""])
def test_the_limit_of_a_container_leaves_less_free(
    version: tuple[str, ...], limited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, controller, limit, use, reclaimable = version
    (tmp_path / "cgroup").write_text(f"9:pids:/other\n{line}\n")
    monkeypatch.setattr(machine, "_CGROUP_OF_PROCESS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    without = machine.free_memory_bytes()
    group = tmp_path / controller / limited
    group.mkdir(parents=True, exist_ok=True)
    (group / limit).write_text("1000000\n")
    (group / use).write_text("400000\n")
    assert machine.free_memory_bytes() == 600_000
    (group / "memory.stat").write_text(f"cache 7\n{reclaimable} 100000\nunevictable 5\n")
    assert machine.free_memory_bytes() == 700_000
    assert machine.memory_budget_bytes() == 525_000
    (group / use).write_text("2000000\n")
    assert machine.free_memory_bytes() == 0
    (group / limit).write_text("max\n")
    assert without is not None
    assert (machine.free_memory_bytes() or 0) > 700_000


def test_the_budget_is_what_the_user_says_or_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.memory_budget_bytes(123) == 123
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 8_000)
    assert machine.memory_budget_bytes() == 6_000
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: None)
    assert machine.memory_budget_bytes() == 3_000_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is enforced on Linux only")
def test_a_limit_of_address_space_leaves_less_free() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))\n"
    code += "from stream.machine import free_memory_bytes; print(free_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) < 10**9


@pytest.mark.skipif(sys.platform == "win32", reason="has no getrusage")
def test_the_peak_is_in_bytes() -> None:
    peak = machine.peak_memory_bytes()
    assert peak is not None
    assert peak >= 0.5 * psutil.Process().memory_info().rss


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_only_cores_of_the_affinity_count() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from stream.machine import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1"


def test_where_there_is_no_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)  # as on macOS
    monkeypatch.setattr(psutil, "cpu_count", lambda: 12)
    assert machine.usable_cores() == 12
    monkeypatch.setattr(psutil, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1


def test_the_processor_has_a_name_and_a_fingerprint(cpuinfo: Path) -> None:
    cpuinfo.write_text(INTEL)
    assert machine.processor_name() == "Some CPU @ 2 GHz"
    first = machine.processor_fingerprint()
    cpuinfo.write_text(INTEL.replace("avx", "avx avx512_bf16"))
    assert machine.processor_fingerprint() not in (first, None)
    cpuinfo.write_text("Features\t: fp asimd\n")  # ARM: instruction sets without a name
    assert machine.processor_fingerprint() is not None


def test_without_cpuinfo_there_is_a_name_but_no_fingerprint(cpuinfo: Path) -> None:
    assert machine.processor_name()
    assert machine.processor_fingerprint() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a scheduling for each thread")
def test_a_thread_that_ends_while_threads_are_listed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(machine, "_tasks", lambda: [ended.pid, threading.get_native_id()])
    with machine.scheduling_kept():
        pass
