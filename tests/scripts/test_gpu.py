"""The program of a day with a GPU, without one: it goes on where it was cut off, and says what a machine lacks."""

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.paths import REPOSITORY

FOLDER = REPOSITORY / "scripts" / "measure"


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    yield from module("gpu")


@pytest.fixture(scope="module")
def trace() -> Iterator[ModuleType]:
    yield from module("gpu_trace")


def module(name: str) -> Iterator[ModuleType]:
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(FOLDER))
    yield __import__(name)
    patch.undo()
    for loaded in [loaded for loaded in sys.modules if loaded.startswith("gpu")]:
        del sys.modules[loaded]


WORKER = """
import json, os, sys, time
asked = json.loads(sys.stdin.readline())
def send(**message): print(json.dumps(message), flush=True)
send(machine={"card": "Card", "processor": "P", "cores": 2, "versions": {"torch": "2"}})
for key in PLAN:
    if key in asked["done"]:
        continue
    send(begin=key)
    if key == "hangs":
        time.sleep(600)
    if key == "dies":
        os._exit(3)
    if key == "lacks":
        send(key=key, error="no such encoder")
    else:
        send(key=key, fps=12.5)
"""


def worker(*plan: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"PLAN = {plan!r}\n{WORKER}"]


def rows(record: Any) -> dict[str, Any]:
    return {row["key"]: row.get("error") for row in record.content["rows"]}


@pytest.mark.slow
def test_a_row_that_hangs_or_kills_its_process_costs_no_other(gpu: ModuleType, tmp_path: Path) -> None:
    record = gpu.Record(tmp_path / "gpu.json")
    plan = worker("a", "dies", "hangs", "lacks", "z")
    gpu.run_step("codecs", record, worker=plan, limit_s=3.0, deadline=time.monotonic() + 300)
    again = gpu.Record(tmp_path / "gpu.json")
    assert again.is_done("codecs")
    assert rows(again) == {
        "a": None,
        "dies": "the process ended with 3, see codecs.log",
        "hangs": "cut off after 3 s",
        "lacks": "no such encoder",
        "z": None,
    }


@pytest.mark.slow
def test_a_call_that_is_cut_off_loses_one_row_and_the_next_goes_on(gpu: ModuleType, tmp_path: Path) -> None:
    record = gpu.Record(tmp_path / "gpu.json")
    gpu.run_step("codecs", record, worker=worker("a", "hangs", "z"), limit_s=600, deadline=time.monotonic() + 5)
    assert not record.is_done("codecs")
    assert set(rows(record)) <= {"a"}
    assert record.content["steps"]["codecs"]["state"] == "cut off by --seconds"

    resumed = gpu.Record(tmp_path / "gpu.json")
    gpu.run_step("codecs", resumed, worker=worker("a", "z"), limit_s=600, deadline=time.monotonic() + 300)
    assert resumed.is_done("codecs")
    assert rows(resumed) == {"a": None, "z": None}
    assert len(resumed.content["rows"]) == 2


def test_a_worker_that_cannot_start_ends_its_step(gpu: ModuleType, tmp_path: Path) -> None:
    record = gpu.Record(tmp_path / "gpu.json")
    broken = [sys.executable, "-c", "raise SystemExit('no torch here')"]
    gpu.run_step("first", record, worker=broken, limit_s=60, deadline=time.monotonic() + 300)
    assert record.content["steps"]["first"]["state"] == "the process ended with 1, see first.log"
    assert (tmp_path / "first.log").read_text().strip() == "no torch here"


def test_only_steps_that_measure_no_time_run_side_by_side(gpu: ModuleType) -> None:
    assert gpu.groups(list(gpu.STEPS))[0] == ["tests", "parity"]
    for group in gpu.groups(list(gpu.STEPS)):
        assert len(group) == 1 or not any(gpu.STEPS[name].is_timed for name in group)


def test_the_table_lists_numbers_and_what_is_missing(gpu: ModuleType, tmp_path: Path) -> None:
    record = gpu.Record(tmp_path / "gpu.json")
    gpu.run_step("codecs", record, worker=worker("a", "lacks"), limit_s=60, deadline=time.monotonic() + 300)
    record.add("tests", {"key": "test_a", "outcome": "passed"})
    record.add("tests", {"key": "test_b", "outcome": "failed", "error": "Traceback\nE  assert 1 == 2"})
    page = "\n".join(gpu.gpu_table.lines(record.content))
    assert "Card; P, 2 cores; torch 2" in page
    assert "| a | 12.5 | – | – | – |" in page
    assert "- `lacks`: no such encoder" in page
    assert "1 failed, 1 passed" in page
    assert "- `test_b`: E  assert 1 == 2" in page


def test_copies_under_kernels_are_counted_once(trace: ModuleType) -> None:
    def event(cat: str, begin: float, end: float, name: str = "") -> dict[str, Any]:
        return {"cat": cat, "ts": begin, "dur": end - begin, "name": name}

    found = trace.summary(
        [
            event("kernel", 0, 4000),
            event("kernel", 3000, 6000),
            event("gpu_memcpy", 5000, 7000, "Memcpy HtoD (Pinned -> Device)"),
            event("gpu_memcpy", 5500, 8000, "Memcpy DtoH (Device -> Pinned)"),
            event("gpu_memcpy", 0, 9000, "Memcpy DtoD (Device -> Device)"),
            event("cpu_op", 0, 99000),
        ]
    )
    assert found == pytest.approx({"span_ms": 8, "compute_ms": 6, "copy_ms": 3, "hidden": 1 / 3, "busy": 0.75})
    with pytest.raises(ValueError, match="nothing ran on a GPU"):
        trace.summary([event("cpu_op", 0, 1)])


TESTS = """
import pytest

def test_good():
    pass

def test_bad():
    assert 1 == 2, "a sum"

@pytest.mark.skip(reason="not here")
def test_left_out():
    pass

@pytest.mark.slow
def test_slow():
    raise AssertionError
"""


@pytest.mark.slow
def test_the_steps_work_on_a_processor_with_real_tests_models_and_videos(tmp_path: Path) -> None:
    """In one process, since importing torch takes most of the time."""
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: x\n")
    code = f"""
        import json, sys
        sys.path.insert(0, {str(FOLDER)!r})
        import gpu_worker
        rows = []
        gpu_worker.run_tests(["test_some.py"], "not slow", ["test_some.py::test_good"], rows.append, "-n0")
        gpu_worker.CLIP_FRAMES["64x48"] = 8
        gpu_worker.timed = gpu_worker.network.timed = gpu_worker.pipeline.timed = lambda call: gpu_worker_timed(call)
        from stream.bench import timing
        def gpu_worker_timed(call, **limits):
            return timing.timed(call, budget_s=0.0)
        gpu_worker.SMALL = "64x48"
        bench = gpu_worker.Bench("cpu", __import__("pathlib").Path("clips"))
        units = [(name, lambda work=work, options=options: getattr(bench, work)(*options)) for name, work, options in [
            ("network", "network", ("starter", "torch", "fp32", 1)), ("launches", "launches", ("starter", "fp32", 1)),
            ("pipeline", "pipeline", ("starter", "64x48", "fp32", 2)), ("plain", "plain", ("starter", "64x48")),
            ("overlap", "overlap", ("starter", "64x48", "fp32", 3)), ("nvdec", "decode", ("64x48", "libx264", "cuda")),
            ("decode", "decode", ("64x48", "libx264", "off")), ("encode", "encode", ("64x48", "libx264")),
            ("done", "encode", ("64x48", "libx264")),
        ]]
        gpu_worker.run_units(units, ["done"], rows.append)
        print("ROWS" + json.dumps(rows))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("ROWS") + 4 :])
    by_key = {row["key"].rpartition("::")[2]: row for row in found if "begin" not in row}
    assert list(by_key) == [
        "test_bad", "test_left_out", "network", "launches", "pipeline", "plain", "overlap", "nvdec", "decode", "encode",
    ]  # fmt: skip
    assert by_key["test_bad"]["outcome"] == "failed"
    assert "a sum" in by_key["test_bad"]["error"]
    assert by_key["test_left_out"]["outcome"] == "skipped"
    for name in ("network", "pipeline", "plain", "decode", "encode"):
        assert by_key[name]["fps"] > 0, by_key[name]
    assert by_key["launches"]["fps"] > 0
    assert "nothing ran on a GPU" in by_key["overlap"]["error"]
    assert by_key["nvdec"]["error"]
