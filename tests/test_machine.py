"""What the machine says of itself, and what is said where it says nothing."""

import os
import subprocess
import sys
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
    assert machine.free_memory_bytes() is None


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
